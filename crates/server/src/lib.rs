//! HTTP: what clients of OpenAI's interface ask, and what the engine answers.
//!
//! [`Server::start`] listens, says that it is loading, and serves once it is given a [`Served`] model.
//! A request is read and tokenised away from the threads that move bytes (`api`), handed to the engine
//! as one command per prompt (`job`), and turned from tokens into text as they come (`voice`). Nothing
//! is answered before the engine has taken it in, so that a refusal is a status (`error`); whoever
//! leaves takes their request along.
//!
//! docs/decisions/0011-http.md says why it is laid out so. No computing here, no clock that decides
//! anything, no text of a request in what it tells the operator.
#![forbid(unsafe_code)]

mod answer;
mod api;
mod app;
mod embedder;
mod error;
mod guard;
mod job;
mod listen;
mod metrics;
mod operations;
mod residency;
mod shape;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
mod voice;

pub use app::{Options, Served, Work};
pub use embedder::Embedder;
pub use listen::{BindError, Server, bind};
pub use redline_engine::Embedding;
pub use redline_grammar::Grammars;
pub use residency::Residency;
