//! A first benchmark: load, prefill and decode over several process launches, beside what this
//! machine could do at most.
//!
//! A replicate is a launch: [`capture`] starts this program again as [`worker`] and keeps every
//! sample; [`cost`] knows what a test must read and compute; [`report`] is a pure function of both.

pub(crate) mod capture;
pub(crate) mod cost;
pub(crate) mod report;
mod table;
pub(crate) mod worker;

use serde::{Deserialize, Serialize};

/// One test: `pp512` or `tg128`, as llama-bench names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Test {
    /// This many prompt tokens, from submission to the last position's logits.
    Prefill(usize),
    /// This many steps of one token, from an empty cache; choosing the token is not timed.
    Decode(usize),
}

impl Test {
    /// Tokens a round computes.
    pub(crate) const fn tokens(self) -> usize {
        match self {
            Self::Prefill(tokens) | Self::Decode(tokens) => tokens,
        }
    }

    /// `pp512` or `tg128`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Prefill(tokens) => format!("pp{tokens}"),
            Self::Decode(tokens) => format!("tg{tokens}"),
        }
    }
}

/// What a worker says, one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// What it does now.
    Phase(String),
    /// What it measured; the last line.
    Launch(Launch),
}

/// Everything one process measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// From opening the file to a model that can step.
    pub(crate) load_ns: u64,
    /// Largest resident set before any bandwidth probe, where the system tells.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// The tests, in the order asked for.
    pub(crate) runs: Vec<Run>,
}

/// One test in one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Which.
    pub(crate) test: Test,
    /// Duration of each timed round.
    pub(crate) samples_ns: Vec<u64>,
    /// Hash of each round's greedy ids and last logits.
    pub(crate) hashes: Vec<String>,
    /// Read bandwidth right before and after a decode test, in bytes per second.
    pub(crate) probes: Option<[f64; 2]>,
}

impl Run {
    /// The process's one value: the median round.
    pub(crate) fn median_ns(&self) -> f64 {
        median(
            &self
                .samples_ns
                .iter()
                .map(|sample| *sample as f64)
                .collect::<Vec<_>>(),
        )
    }

    /// The machine did not hold still: the probes around the test differ by more than a quarter.
    pub(crate) fn is_contaminated(&self) -> bool {
        const TOLERATED: f64 = 0.25;
        self.probes.is_some_and(|[before, after]| {
            (before - after).abs() > TOLERATED * before.max(after) || !(before > 0.0 && after > 0.0)
        })
    }
}

/// The middle sample, or the mean of the two in the middle; NaN when there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => f64::NAN,
        (_, 1) => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn a_shift_of_more_than_a_quarter_contaminates() {
        let run = |probes| Run {
            test: Test::Decode(1),
            samples_ns: vec![1],
            hashes: vec!["a".to_owned()],
            probes,
        };
        assert!(!run(None).is_contaminated());
        assert!(!run(Some([10.0, 7.6])).is_contaminated());
        assert!(run(Some([10.0, 7.4])).is_contaminated());
        assert!(run(Some([7.4, 10.0])).is_contaminated());
        assert!(run(Some([f64::NAN, 10.0])).is_contaminated());
    }
}
