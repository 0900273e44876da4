//! Parameters and their ranges.

use std::fmt::Display;
use std::ops::RangeInclusive;

use redline_model::TokenId;

use crate::FieldError;

/// How a token is drawn. [`SamplingParams::default`] draws from the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0..=2; logits are divided by it. 0: the token with the largest logit, the lowest id of several.
    pub temperature: f32,
    /// 0..=vocabulary: only the k largest logits stay, lower ids first among equals. 0: off.
    pub top_k: usize,
    /// 0..=1: only the smallest set of tokens that reaches this probability stays, at least one.
    /// 1: off.
    pub top_p: f32,
    /// 0..=1: only tokens with at least this share of the best one's probability stay. 0: off.
    pub min_p: f32,
    /// Above 0, up to 2: logits of seen tokens are divided by it where positive, multiplied where
    /// negative (Keskar et al. 2019). 1: off.
    pub repetition_penalty: f32,
    /// -2..=2: subtracted from logits of seen tokens. 0: off.
    pub presence_penalty: f32,
    /// -2..=2: subtracted from logits of seen tokens, times how often they were seen. 0: off.
    pub frequency_penalty: f32,
    /// Added to logits before the penalties, -100..=100 each; no id twice.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Chooses the random stream.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Always the likeliest token.
    #[must_use]
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Every field that breaks its rule, for a vocabulary of `vocab` ids.
    #[must_use]
    pub fn field_errors(&self, vocab: usize) -> Vec<FieldError> {
        let mut errors = Vec::new();
        within(&mut errors, "temperature", 0.0..=2.0, self.temperature);
        if self.top_k > vocab {
            errors.push(error("top_k", format!("0..={vocab}"), self.top_k));
        }
        within(&mut errors, "top_p", 0.0..=1.0, self.top_p);
        within(&mut errors, "min_p", 0.0..=1.0, self.min_p);
        let penalty = self.repetition_penalty;
        if !(penalty > 0.0 && penalty <= 2.0) {
            errors.push(error(
                "repetition_penalty",
                "above 0, at most 2".to_owned(),
                penalty,
            ));
        }
        within(
            &mut errors,
            "presence_penalty",
            -2.0..=2.0,
            self.presence_penalty,
        );
        within(
            &mut errors,
            "frequency_penalty",
            -2.0..=2.0,
            self.frequency_penalty,
        );
        self.bias_errors(vocab, &mut errors);
        errors
    }

    fn bias_errors(&self, vocab: usize, errors: &mut Vec<FieldError>) {
        let mut ids: Vec<TokenId> = self.logit_bias.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        if let Some(id) = ids.last().filter(|id| id.0 as usize >= vocab) {
            errors.push(error("logit_bias", format!("token ids below {vocab}"), id));
        }
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            errors.push(error(
                "logit_bias",
                "each token id once".to_owned(),
                twice[0],
            ));
        }
        let range = -100.0..=100.0;
        if let Some((_, bias)) = self
            .logit_bias
            .iter()
            .find(|(_, bias)| !range.contains(bias))
        {
            within(errors, "logit_bias", range, *bias);
        }
    }
}

/// NaN is in no range.
fn within(
    errors: &mut Vec<FieldError>,
    field: &'static str,
    range: RangeInclusive<f32>,
    value: f32,
) {
    if !range.contains(&value) {
        errors.push(error(
            field,
            format!("{}..={}", range.start(), range.end()),
            value,
        ));
    }
}

fn error(field: &'static str, constraint: String, value: impl Display) -> FieldError {
    FieldError {
        field,
        constraint,
        value: value.to_string(),
    }
}
