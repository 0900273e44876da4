//! Which tokens run next, and which one follows.
//!
//! - [`Engine`]: generates one sequence at a time behind the model's `Forward` trait. There is no
//!   prefill phase and no decode phase: the count of computed tokens catches up with the count of
//!   tokens, chunk by chunk, and whenever it has, one token is drawn.
//! - [`SamplingParams`], [`Sampler`]: from logits to a token, reproducibly.
//! - [`log_probability`]: how likely a token is by the logits.
//!
//! Token ids only: text, stop strings and time limits belong to the edge. No async.
#![forbid(unsafe_code)]

mod engine;
mod error;
mod request;
mod sampling;

pub use engine::{Engine, EngineOptions};
pub use error::{Error, FieldError};
pub use redline_model::{PageId, TokenId};
pub use request::{EndReason, GeneratedToken, Outcome, Request};
pub use sampling::{Sampled, Sampler, SamplingError, SamplingParams, draw_unit, log_probability};
