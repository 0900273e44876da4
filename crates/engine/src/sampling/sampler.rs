//! One sequence's sampler: its parameters and what it has seen.

use redline_model::TokenId;

use super::candidates::Candidates;
use super::{SamplingParams, draw_unit};
use crate::TokenSet;

/// Draws the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    sequence: u64,
    /// How often each id was seen, `[vocab]`; empty where no penalty asks for it.
    counts: Vec<u32>,
    /// Each seen id once.
    seen: Vec<u32>,
    /// Logits after bias and penalties, `[vocab]`.
    adjusted: Vec<f32>,
    candidates: Candidates,
    vocab: usize,
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
            counts: if has_penalties {
                vec![0; vocab]
            } else {
                Vec::new()
            },
            seen: Vec::new(),
            adjusted: Vec::new(),
            candidates: Candidates::default(),
            vocab,
        }
    }

    /// Takes note of tokens of the sequence, prompt and generated alike: penalties apply to them.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn observe(&mut self, tokens: &[TokenId]) {
        if self.counts.is_empty() {
            return;
        }
        for token in tokens {
            let count = &mut self.counts[token.0 as usize];
            if *count == 0 {
                self.seen.push(token.0);
            }
            *count = count.saturating_add(1);
        }
    }

    /// Draws the token at `position` of the sequence from `logits` (`[vocab]`), of those `allowed`.
    ///
    /// # Errors
    /// If a logit is NaN or +∞, or none is above −∞.
    ///
    /// # Panics
    /// If there are not as many logits as tokens in the vocabulary.
    pub fn sample(
        &mut self,
        logits: &[f32],
        allowed: Option<&TokenSet>,
        position: u64,
    ) -> Result<TokenId, SamplingError> {
        assert_eq!(
            logits.len(),
            self.vocab,
            "one logit for each token of the vocabulary"
        );
        let largest = largest(logits)?;
        let is_plain =
            allowed.is_none() && self.seen.is_empty() && self.params.logit_bias.is_empty();
        let id = if self.params.temperature == 0.0 && is_plain {
            first_of(logits, largest)
        } else {
            self.adjust(logits, allowed);
            if self.params.temperature == 0.0 {
                let largest = self.adjusted.iter().copied();
                first_of(&self.adjusted, largest.fold(f32::NEG_INFINITY, f32::max))
            } else {
                self.draw(position)
            }
        };
        id.map(TokenId).ok_or(SamplingError::NoToken)
    }

    /// Bias, then repetition, then presence and frequency penalties; nothing is left of what is not
    /// allowed.
    fn adjust(&mut self, logits: &[f32], allowed: Option<&TokenSet>) {
        let p = &self.params;
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        for (id, bias) in &p.logit_bias {
            self.adjusted[id.0 as usize] += bias;
        }
        for &id in &self.seen {
            let count = self.counts[id as usize] as f32;
            let logit = &mut self.adjusted[id as usize];
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
            for (id, logit) in self.adjusted.iter_mut().enumerate() {
                if !allowed.contains(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    fn draw(&mut self, position: u64) -> Option<u32> {
        let p = &self.params;
        self.candidates.fill(&self.adjusted, p.top_k);
        self.candidates.weigh(p.temperature);
        self.candidates.keep_top_p(p.top_p);
        self.candidates.keep_min_p(p.min_p);
        self.candidates
            .draw(draw_unit(p.seed, self.sequence, position))
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
