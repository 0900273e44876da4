//! One sequence's sampler: its parameters and what it has seen.

use redline_model::TokenId;

use super::candidates::Candidates;
use super::{SamplingParams, draw_unit};

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

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: TokenId,
    /// Natural logarithm of its probability under the logits as given, if asked for.
    pub logprob: Option<f32>,
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

    /// Draws the token at `position` of the sequence from `logits` (`[vocab]`).
    ///
    /// # Errors
    /// If a logit is NaN or +∞, or none is above −∞.
    ///
    /// # Panics
    /// If there are not as many logits as tokens in the vocabulary.
    pub fn sample(
        &mut self,
        logits: &[f32],
        position: u64,
        want_logprob: bool,
    ) -> Result<Sampled, SamplingError> {
        assert_eq!(
            logits.len(),
            self.vocab,
            "one logit for each token of the vocabulary"
        );
        let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        if let Some(index) = logits.iter().position(is_bad) {
            let (id, value) = (TokenId(index as u32), logits[index]);
            return Err(SamplingError::NotANumber { id, value });
        }
        self.adjust(logits);
        let id = if self.params.temperature == 0.0 {
            likeliest(&self.adjusted)
        } else {
            self.draw(position)
        };
        let id = id.ok_or(SamplingError::NoToken)?;
        let id = TokenId(id);
        let logprob = want_logprob.then(|| log_probability(logits, id) as f32);
        Ok(Sampled { id, logprob })
    }

    /// Bias, then repetition, then presence and frequency penalties.
    fn adjust(&mut self, logits: &[f32]) {
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

/// The id of the largest logit, the lowest of several; `None` if every logit is −∞.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let id = logits.iter().position(|&logit| logit == largest)?;
    (largest > f32::NEG_INFINITY).then_some(id as u32)
}

/// Natural logarithm of the probability of `id` under `logits` (`[vocab]`): `logit[id] − ln Σ exp(logit)`,
/// summed in F64. Not finite if a logit is NaN or +∞, or that of `id` is −∞.
///
/// # Panics
/// If there is no logit of `id`.
#[must_use]
pub fn log_probability(logits: &[f32], id: TokenId) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits
        .iter()
        .map(|&logit| libm::exp(f64::from(logit) - largest))
        .sum();
    f64::from(logits[id.0 as usize]) - largest - libm::log(sum)
}
