//! How many prompt tokens fit into a step without keeping others waiting.

use std::time::Duration;

/// Prompt tokens that any step may have, or a prompt would never be read. With thousands of positions
/// before them even a few take long.
pub(super) const LEAST_TOKENS: usize = 8;
/// Share of the newest measurement in an estimate: what is dearer than thought counts at once, since
/// a step that takes too long keeps others waiting; what is cheaper may be chance.
const DEARER: f64 = 0.5;
const CHEAPER: f64 = 0.1;
/// Share of a budget that is planned. Steps scatter by half: one in a hundred may take what there is.
const PLANNED: f64 = 0.65;

/// Learns what steps cost from those there were.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Seconds of a step that has no prompt tokens.
    decode: Option<f64>,
    /// Seconds that a prompt token adds.
    token: Option<f64>,
}

impl Pace {
    /// Takes note of a step's duration, and of what it computed.
    pub(super) fn observe(&mut self, prompt_tokens: usize, decoding: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        if prompt_tokens == 0 {
            update(&mut self.decode, seconds);
        } else if prompt_tokens >= LEAST_TOKENS {
            let others = match decoding {
                0 => 0.0,
                _ => self.decode.unwrap_or(0.0),
            };
            let each = (seconds - others).max(0.0) / prompt_tokens as f64;
            update(&mut self.token, each);
        }
    }

    /// Prompt tokens that take `budget`, or the least there may be; `None` before any were measured.
    pub(super) fn tokens_in(&self, budget: Duration) -> Option<usize> {
        let tokens = PLANNED * budget.as_secs_f64() / self.token?;
        Some((tokens as usize).max(LEAST_TOKENS))
    }
}

fn update(estimate: &mut Option<f64>, newest: f64) {
    *estimate = Some(match *estimate {
        Some(old) if newest > old => old + DEARER * (newest - old),
        Some(old) => old + CHEAPER * (newest - old),
        None => newest,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_get_the_share_of_a_step_that_the_budget_leaves() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        assert_eq!(pace.tokens_in(ms(50)), None);
        pace.observe(0, 4, ms(10));
        pace.observe(100, 4, ms(110));
        assert_eq!(pace.tokens_in(ms(50)), Some(32));
        // One dear token does not say what many cost.
        pace.observe(1, 4, ms(110));
        assert_eq!(pace.tokens_in(ms(50)), Some(32));
        assert_eq!(pace.tokens_in(ms(1)), Some(LEAST_TOKENS));
        // Twice as dear, once: half of that is believed.
        pace.observe(100, 4, ms(210));
        assert_eq!(pace.tokens_in(ms(160)), Some(69));
    }
}
