//! One sequence's sampler: its parameters and what it has seen.

use std::collections::BTreeMap;

use redline_model::TokenId;

use super::candidates::Candidates;
use super::{SamplingParams, draw_unit};
use crate::TokenSet;

/// Draws the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    sequence: u64,
    /// How often each id was seen; empty where no penalty asks for it.
    counts: BTreeMap<u32, u32>,
    has_penalties: bool,
    vocab: usize,
}

/// Room to draw in, as long as a vocabulary: one does for any number of sequences, one after another.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Logits after bias and penalties, `[vocab]`.
    adjusted: Vec<f32>,
    candidates: Candidates,
}

/// Logits no token can be drawn from.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A logit is NaN or +∞.
    #[error("the logit of token {id} is {value}, expected a number below infinity")]
    NotANumber {
        /// The token.
        id: TokenId,
        /// Its logit.
        value: f32,
    },
    /// Every logit is −∞.
    #[error("no token is left to draw: every logit is -inf")]
    NoToken,
}

impl Sampler {
    /// The sampler of sequence number `sequence` under the parameters' seed.
    ///
    /// # Panics
    /// If the parameters break their rules ([`SamplingParams::field_errors`]).
    #[must_use]
    pub fn new(params: &SamplingParams, sequence: u64, vocab: usize) -> Self {
        assert_eq!(
            params.field_errors(vocab),
            [],
            "parameters are checked where they come in"
        );
        let has_penalties = params.repetition_penalty != 1.0
            || params.presence_penalty != 0.0
            || params.frequency_penalty != 0.0;
        Self {
            params: params.clone(),
            sequence,
            counts: BTreeMap::new(),
            has_penalties,
            vocab,
        }
    }

    /// Takes note of tokens of the sequence, prompt and generated alike: penalties apply to them.
    ///
    /// # Panics
    /// If a token is not in the vocabulary, and there are penalties.
    pub fn observe(&mut self, tokens: &[TokenId]) {
        if !self.has_penalties {
            return;
        }
        for token in tokens {
            assert!((token.0 as usize) < self.vocab, "{token} of {}", self.vocab);
            let count = self.counts.entry(token.0).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Draws the token at `position` of the sequence from `logits` (`[vocab]`), of those `allowed`. What
    /// is in `scratch` before does not matter.
    ///
    /// # Errors
    /// If a logit is NaN or +∞, or none is above −∞.
    ///
    /// # Panics
    /// If there are not as many logits as tokens in the vocabulary.
    pub fn sample(
        &self,
        logits: &[f32],
        allowed: Option<&TokenSet>,
        position: u64,
        scratch: &mut Scratch,
    ) -> Result<TokenId, SamplingError> {
        assert_eq!(
            logits.len(),
            self.vocab,
            "one logit for each token of the vocabulary"
        );
        let largest = largest(logits)?;
        let is_plain =
            allowed.is_none() && self.counts.is_empty() && self.params.logit_bias.is_empty();
        let id = if self.params.temperature == 0.0 && is_plain {
            first_of(logits, largest)
        } else {
            self.adjust(logits, allowed, &mut scratch.adjusted);
            if self.params.temperature == 0.0 {
                let largest = scratch.adjusted.iter().copied();
                first_of(&scratch.adjusted, largest.fold(f32::NEG_INFINITY, f32::max))
            } else {
                self.draw(position, scratch)
            }
        };
        id.map(TokenId).ok_or(SamplingError::NoToken)
    }

    /// Bias, then repetition, then presence and frequency penalties; nothing is left of what is not
    /// allowed.
    fn adjust(&self, logits: &[f32], allowed: Option<&TokenSet>, adjusted: &mut Vec<f32>) {
        let p = &self.params;
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        for (id, bias) in &p.logit_bias {
            adjusted[id.0 as usize] += bias;
        }
        for (&id, &count) in &self.counts {
            let count = count as f32;
            let logit = &mut adjusted[id as usize];
            let repeated = if *logit > 0.0 {
                *logit / p.repetition_penalty
            } else {
                *logit * p.repetition_penalty
            };
            let penalised = repeated - p.presence_penalty - count * p.frequency_penalty;
            // A tiny repetition penalty overflows: still the best token there is.
            *logit = penalised.min(f32::MAX);
        }
        if let Some(allowed) = allowed {
            for (id, logit) in adjusted.iter_mut().enumerate() {
                if !allowed.contains(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    fn draw(&self, position: u64, scratch: &mut Scratch) -> Option<u32> {
        let (p, candidates) = (&self.params, &mut scratch.candidates);
        candidates.fill(&scratch.adjusted, p.top_k);
        candidates.weigh(p.temperature);
        candidates.keep_top_p(p.top_p);
        candidates.keep_min_p(p.min_p);
        candidates.draw(draw_unit(p.seed, self.sequence, position))
    }
}

/// The largest logit.
///
/// # Errors
/// If one is NaN or +∞.
fn largest(logits: &[f32]) -> Result<f32, SamplingError> {
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut good = [true; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let logit = chunk[lane];
            largest[lane] = if logit > largest[lane] {
                logit
            } else {
                largest[lane]
            };
            good[lane] &= logit < f32::INFINITY;
        }
    }
    let is_good = |logit: &f32| *logit < f32::INFINITY;
    if good != [true; LANES] || !rest.iter().all(is_good) {
        let bad = logits.iter().position(|logit| !is_good(logit));
        let index = bad.expect("one is bad");
        let (id, value) = (TokenId(index as u32), logits[index]);
        return Err(SamplingError::NotANumber { id, value });
    }
    let all = largest.iter().chain(rest).copied();
    Ok(all.fold(f32::NEG_INFINITY, f32::max))
}

/// The lowest id whose logit is `largest`; `None` if that is −∞.
fn first_of(logits: &[f32], largest: f32) -> Option<u32> {
    let id = logits.iter().position(|&logit| logit == largest)?;
    (largest > f32::NEG_INFINITY).then_some(id as u32)
}
