//! Which tokens run next, and which one follows.
//!
//! - [`Engine`]: generates many answers at a time behind the model's `Forward` trait, each as if it
//!   were alone. There is no prefill phase and no decode phase: the count of computed tokens catches
//!   up with the count of tokens, chunk by chunk, and whenever it has, one token is drawn.
//! - [`EmbeddingEngine`]: embeds many texts at a time, with a model that has no head.
//! - [`Scheduler`]: decides what a step computes; a state machine without a model.
//! - [`SamplingParams`], [`Sampler`], [`Scratch`]: from logits to a token, reproducibly.
//! - [`Grammar`]: what an answer must look like, made at the edge.
//! - [`log_probability`]: how likely a token is by the logits.
//!
//! Token ids only: text and stop strings belong to the edge. No async.
#![forbid(unsafe_code)]

mod draft;
mod embeddings;
mod engine;
mod error;
mod generate;
mod grammar;
mod guess;
mod line;
mod pages;
mod request;
mod sampling;
mod schedule;
mod speculate;
mod stats;
mod worker;

pub use embeddings::{Embedded, Embedding, EmbeddingEngine, EmbeddingId};
pub use engine::{Engine, EngineOptions, Event, Progress, UnderWay};
pub use error::{Error, FieldError};
pub use grammar::{Grammar, GrammarError, Matcher, TokenSet};
pub use pages::PageCopy;
pub use redline_model::{PageId, TokenId};
pub use request::{
    Drafts, EndReason, GeneratedToken, Logprob, MAX_CHOICES, MAX_TOP_LOGPROBS, Outcome, Request,
    RequestId,
};
pub use sampling::{
    Sampler, SamplingError, SamplingParams, Scratch, draw_unit, log_probability, random_seed,
};
pub use schedule::{
    Limits, Load, NewSequence, Part, Plan, Planned, Priority, QueueFull, Scheduler, SequenceId,
};
pub use stats::Stats;
pub use worker::{Handle, Sink, Snapshot, spawn};
