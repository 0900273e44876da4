//! What is asked for, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use redline_model::TokenId;

use crate::{FieldError, Grammar, Priority, SamplingParams};

/// Answers to one prompt, at most.
pub const MAX_CHOICES: usize = 16;
/// Alternatives told of a token, at most.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// Answers to one prompt.
#[derive(Debug, Clone)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<TokenId>,
    /// Tokens to generate at most, at least one; prompt and these must fit in the context.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Drawing one of these ends the generation; it is not handed out.
    pub end_tokens: Vec<TokenId>,
    /// Whether each token comes with its log-probability, and how many of the likeliest tokens in
    /// its place with theirs, at most [`MAX_TOP_LOGPROBS`]. It costs a pass over the vocabulary.
    pub logprobs: Option<usize>,
    /// As `logprobs`, of the tokens of the prompt. None of it is taken from the prefix cache then.
    pub prompt_logprobs: Option<usize>,
    /// Answers, 1..=[`MAX_CHOICES`]; they share the prompt, and the number of each is part of what
    /// decides its draws.
    pub choices: usize,
    /// Before or after others.
    pub priority: Priority,
    /// How long it may take; then it ends with what there is.
    pub time_limit: Option<Duration>,
    /// What the answer must look like.
    pub grammar: Option<Arc<dyn Grammar>>,
    /// Whether several tokens may be guessed and then checked in one step. The answer is the same.
    pub speculation: bool,
}

impl Request {
    /// One answer of up to `max_tokens` likeliest tokens.
    #[must_use]
    pub fn new(prompt: Vec<TokenId>, max_tokens: usize) -> Self {
        Self {
            prompt,
            max_tokens,
            sampling: SamplingParams::greedy(),
            end_tokens: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            choices: 1,
            priority: Priority::default(),
            time_limit: None,
            grammar: None,
            speculation: false,
        }
    }

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
        for (field, range, value) in [
            ("n", 1..=MAX_CHOICES, Some(self.choices)),
            ("logprobs", 0..=MAX_TOP_LOGPROBS, self.logprobs),
            (
                "prompt_logprobs",
                0..=MAX_TOP_LOGPROBS,
                self.prompt_logprobs,
            ),
        ] {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let constraint = format!("{}..={}", range.start(), range.end());
                refuse(field, constraint, value.to_string());
            }
        }
        errors.extend(self.sampling.field_errors(vocab));
        errors
    }
}

/// Number of a request, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A token as it is generated.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedToken {
    /// The token.
    pub id: TokenId,
    /// Its number, from 0.
    pub index: usize,
    /// How likely it was, if the request wants to know.
    pub logprob: Option<Logprob>,
}

/// How likely a token is under the model's own logits: before bias, penalties, temperature and cuts.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place and their logarithms, the likeliest first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The model drew an end token, or its answer is whole by the grammar.
    Eos,
    /// All of `max_tokens` were generated.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The receiver of the tokens broke off, as it does at a stop string.
    Stop,
    /// Its time was over.
    TimeLimit,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub end_reason: EndReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt whose keys and values were there already.
    pub cached_tokens: usize,
    /// Every token that was handed out.
    pub generated: Vec<TokenId>,
    /// From when it came until it first had pages.
    pub queued: Duration,
    /// From then until the first token was drawn.
    pub prefill: Duration,
    /// From then until the end.
    pub decode: Duration,
    /// Tokens that were guessed, and those of them that were right.
    pub drafts: Drafts,
}

impl Outcome {
    /// The account of who had enough after `count` tokens.
    #[must_use]
    pub fn stopped_after(mut self, count: usize) -> Self {
        self.generated.truncate(count);
        Self {
            end_reason: EndReason::Stop,
            ..self
        }
    }
}

/// Guesses there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drafts {
    /// All.
    pub proposed: usize,
    /// Those that were right.
    pub accepted: usize,
    /// Of all, those of the draft model.
    pub model_proposed: usize,
    /// Of the draft model's, those that were right.
    pub model_accepted: usize,
}
