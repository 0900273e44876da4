//! What can go wrong between a request and its last token.

use std::sync::Arc;

use crate::GrammarError;
use crate::sampling::SamplingError;

/// Why a generation did not run, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request breaks its rules: every field that does is listed.
    #[error("invalid request: {}", join(.0))]
    InvalidRequest(Vec<FieldError>),
    /// Prompt and answer do not fit.
    #[error(
        "context length exceeded: prompt of {prompt_tokens} tokens and max_tokens {max_tokens} \
         make {}, the context has {context_length}", .prompt_tokens.saturating_add(*.max_tokens)
    )]
    ContextLengthExceeded {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Positions there are.
        context_length: usize,
    },
    /// The model failed.
    #[error(transparent)]
    Model(Arc<redline_model::Error>),
    /// Too many wait already.
    #[error("overloaded: {waiting} answers wait already")]
    Overloaded {
        /// Answers that wait.
        waiting: usize,
    },
    /// Nothing new is taken.
    #[error("shutting down: nothing new is taken")]
    Draining,
    /// The grammar is of no use, or became so.
    #[error(transparent)]
    Grammar(GrammarError),
    /// The draft model is one of another vocabulary.
    #[error(
        "draft model: expected a vocabulary of {expected} tokens as the model has, found {found}"
    )]
    DraftVocabulary {
        /// Tokens of the model.
        expected: usize,
        /// Tokens of the draft model.
        found: usize,
    },
    /// No token could be drawn.
    #[error("token {index}: {source}")]
    Sampling {
        /// Number of the generated token, from 0.
        index: usize,
        /// Why.
        source: SamplingError,
    },
}

/// One field of a request that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {constraint}, found {value}")]
pub struct FieldError {
    /// The field, as the API names it.
    pub field: &'static str,
    /// Its rule.
    pub constraint: String,
    /// Its value.
    pub value: String,
}

fn join(errors: &[FieldError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
