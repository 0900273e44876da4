//! What steps take, by how much they compute.

/// Counts that are told apart.
const MOST: usize = 64;
/// Share of the newest measurement in an estimate. Other processes only ever make a step dearer, so
/// what is cheaper is believed sooner.
const CHEAPER: f64 = 0.5;
const DEARER: f64 = 0.1;

/// Seconds of a step by its rows or sequences, as far as they were measured.
#[derive(Debug)]
pub(super) struct Costs {
    known: [Option<f64>; MOST + 1],
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            known: [None; MOST + 1],
        }
    }
}

impl Costs {
    /// Takes note of a measurement.
    pub(super) fn update(&mut self, count: usize, seconds: f64) {
        if count > MOST {
            return;
        }
        let newest = match self.below(count) {
            // Never more than one by one: a hiccup at the first measurement would stay.
            Some((lower, cost)) if lower < count => seconds.min(cost * count as f64 / lower as f64),
            _ => seconds,
        };
        let known = &mut self.known[count];
        *known = Some(match *known {
            Some(old) if newest > old => old + DEARER * (newest.min(2.0 * old) - old),
            Some(old) => old + CHEAPER * (newest - old),
            None => newest,
        });
    }

    /// Seconds of a step: measured, or between what was measured. What is beyond that is taken to
    /// cost no more, so that somebody finds out.
    pub(super) fn at(&self, count: usize) -> Option<f64> {
        if count > MOST {
            return Some(self.at(MOST)? * count as f64 / MOST as f64);
        }
        let above = self.known[count..].iter().position(Option::is_some);
        let above = above.and_then(|offset| Some((count + offset, self.known[count + offset]?)));
        match (self.below(count), above) {
            (Some((lower, low)), Some((upper, high))) if lower < upper => {
                let share = (count - lower) as f64 / (upper - lower) as f64;
                Some(low + share * (high - low))
            }
            (Some((_, cost)), _) | (None, Some((_, cost))) => Some(cost),
            (None, None) => None,
        }
    }

    /// The largest measured count up to `count`, and its cost.
    fn below(&self, count: usize) -> Option<(usize, f64)> {
        let lower = self.known[..=count].iter().rposition(Option::is_some)?;
        Some((lower, self.known[lower]?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_lies_between_what_was() {
        let mut costs = Costs::default();
        assert_eq!(costs.at(3), None);
        costs.update(2, 10.0);
        assert_eq!([1, 2, 9].map(|count| costs.at(count)), [Some(10.0); 3]);
        costs.update(6, 18.0);
        assert_eq!(costs.at(3), Some(12.0));
        assert_eq!(costs.at(6), Some(18.0));
        assert_eq!(costs.at(64), Some(18.0));
        assert_eq!(costs.at(128), Some(36.0));
    }

    #[test]
    fn a_hiccup_is_not_believed() {
        let mut costs = Costs::default();
        costs.update(1, 10.0);
        costs.update(4, 1000.0);
        assert_eq!(costs.at(4), Some(40.0));
        costs.update(1, 1000.0);
        assert_eq!(costs.at(1), Some(11.0));
        costs.update(1, 10.0);
        assert_eq!(costs.at(1), Some(10.5));
    }
}
