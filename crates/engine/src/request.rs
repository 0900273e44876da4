//! What is asked for, and what came of it.

use std::time::Duration;

use redline_model::TokenId;

use crate::{FieldError, SamplingParams};

/// One generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<TokenId>,
    /// Tokens to generate at most, at least one; prompt and these must fit in the context.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Drawing one of these ends the generation; it is not handed out.
    pub end_tokens: Vec<TokenId>,
    /// Whether each token comes with its log-probability: it costs a pass over the vocabulary.
    pub logprobs: bool,
}

impl Request {
    /// Every field that breaks its rule, for a vocabulary of `vocab` ids.
    #[must_use]
    pub fn field_errors(&self, vocab: usize) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse = |field, constraint: String, value: String| {
            errors.push(FieldError {
                field,
                constraint,
                value,
            });
        };
        if self.prompt.is_empty() {
            refuse(
                "prompt",
                "at least 1 token".to_owned(),
                "0 tokens".to_owned(),
            );
        }
        let ids = format!("token ids below {vocab}");
        for (field, tokens) in [("prompt", &self.prompt), ("end_tokens", &self.end_tokens)] {
            if let Some(token) = tokens.iter().find(|token| token.0 as usize >= vocab) {
                refuse(field, ids.clone(), token.to_string());
            }
        }
        if self.max_tokens == 0 {
            refuse("max_tokens", "at least 1".to_owned(), "0".to_owned());
        }
        errors.extend(self.sampling.field_errors(vocab));
        errors
    }
}

/// A token as it is generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratedToken {
    /// The token.
    pub id: TokenId,
    /// Its number, from 0.
    pub index: usize,
    /// Natural logarithm of its probability under the model's own logits (before penalties,
    /// temperature and cuts), if the request wants it.
    pub logprob: Option<f32>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The model drew an end token.
    Eos,
    /// All of `max_tokens` were generated.
    Length,
    /// The cancel flag was set.
    Cancelled,
    /// The receiver of the tokens broke off, as it does at a stop string.
    Stop,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub end_reason: EndReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt whose keys and values were still there from the sequence before.
    pub cached_tokens: usize,
    /// Every token that was handed out.
    pub generated: Vec<TokenId>,
    /// From the start until the first token was drawn.
    pub prefill: Duration,
    /// From then until the end.
    pub decode: Duration,
}
