//! The benchmarks. Of a model: load, prefill and decode over several process launches, beside what
//! this machine could do at most.
//!
//! A replicate is a launch: [`capture`] starts this program again as [`worker`] and keeps every
//! sample; [`cost`] knows what a test must read and compute; [`report`] is a pure function of both.
//! Of the kernels, one by one: [`kernels`].

pub(crate) mod capture;
pub(crate) mod cost;
pub(crate) mod kernels;
pub(crate) mod report;
pub(crate) mod selection;
mod table;
pub(crate) mod worker;

use redline_gguf::TokenId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::units;
use selection::Test;

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
    /// Its rounds, in order.
    pub(crate) rounds: Vec<Round>,
}

/// One timed round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Its duration.
    pub(crate) ns: u64,
    /// Hash of the greedy ids and the last logits.
    pub(crate) hash: String,
    /// The machine's rate right before and after it: bytes read per second for decode, operations
    /// per second for prefill; `None` where there is nothing to measure it with.
    pub(crate) probes: Option<[f64; 2]>,
}

impl Round {
    /// Whether the machine held still: the probes around the round differ by a quarter at most.
    pub(crate) fn is_clean(&self) -> bool {
        self.probes
            .is_none_or(|[before, after]| before > 0.0 && after > 0.0 && !is_shifted(before, after))
    }

    /// The mean of its probes.
    pub(crate) fn probe(&self) -> Option<f64> {
        self.probes
            .map(|[before, after]| f64::midpoint(before, after))
    }
}

impl Run {
    /// Whether no round was clean: the process then tells nothing.
    pub(crate) fn is_contaminated(&self) -> bool {
        !self.rounds.iter().any(Round::is_clean)
    }

    /// The process's one value of a quantity: the median over its clean rounds, over all rounds
    /// if none is.
    pub(crate) fn median(&self, quantity: impl Fn(&Round) -> f64) -> f64 {
        let all = self.is_contaminated();
        let kept = self.rounds.iter().filter(|round| all || round.is_clean());
        median(&kept.map(quantity).collect::<Vec<_>>())
    }
}

/// Whether a rate of the machine changed by more than a quarter.
pub(crate) fn is_shifted(before: f64, after: f64) -> bool {
    (before - after).abs() > 0.25 * before.max(after)
}

/// What was computed, as a hash.
pub(crate) struct Output(Sha256);

impl Output {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// A token that was chosen.
    pub(crate) fn token(&mut self, id: TokenId) {
        self.0.update(id.0.to_le_bytes());
    }

    /// The bits of `values`.
    pub(crate) fn values(&mut self, values: &[f32]) {
        for value in values {
            self.0.update(value.to_bits().to_le_bytes());
        }
    }

    /// The first eight bytes, in hexadecimal.
    pub(crate) fn hash(self) -> String {
        units::hex(&self.0.finalize()[..8])
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
    use super::selection::Phase;
    use super::*;

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn one_bit_changes_the_hash() {
        let hash = |value: f32| {
            let mut output = Output::new();
            output.token(TokenId(7));
            output.values(&[value]);
            output.hash()
        };
        assert_eq!(hash(1.0), hash(1.0));
        assert_ne!(hash(0.0), hash(-0.0));
    }

    fn round(ns: u64, probes: Option<[f64; 2]>) -> Round {
        Round {
            ns,
            hash: "a".to_owned(),
            probes,
        }
    }

    #[test]
    fn a_shift_of_more_than_a_quarter_is_not_clean() {
        assert!(round(1, None).is_clean());
        assert!(round(1, Some([10.0, 7.6])).is_clean());
        assert!(!round(1, Some([10.0, 7.4])).is_clean());
        assert!(!round(1, Some([7.4, 10.0])).is_clean());
        assert!(!round(1, Some([f64::NAN, 10.0])).is_clean());
    }

    #[test]
    fn rounds_that_are_not_clean_do_not_decide_unless_all_are() {
        let run = |rounds: Vec<Round>| Run {
            test: Test {
                phase: Phase::Decode,
                tokens: 1,
                depth: 0,
                sequences: 1,
            },
            rounds,
        };
        let (clean, shifted) = (Some([10.0, 10.0]), Some([10.0, 5.0]));
        let mixed = run(vec![round(1, shifted), round(5, clean), round(2, shifted)]);
        assert_eq!(mixed.median(|round| round.ns as f64), 5.0);
        assert!(!mixed.is_contaminated());
        let bad = run(vec![round(1, shifted), round(3, shifted)]);
        assert_eq!(bad.median(|round| round.ns as f64), 2.0);
        assert!(bad.is_contaminated());
    }
}
