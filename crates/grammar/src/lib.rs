//! What an answer must look like: JSON schemas, regular expressions and Lark grammars, as sets of the
//! tokens that may come next.
//!
//! [`Grammars`] compiles a [`Source`] for one vocabulary; the result is a
//! [`Grammar`](redline_engine::Grammar) of the engine, which follows one answer with each matcher. The
//! work is llguidance's; what is here joins it to our vocabularies and bounds it.
//!
//! # What it promises about hostile sources
//!
//! A source has a size, a depth and a second of time; what exceeds one of them is refused. A set is
//! computed with a fixed amount of work, counted in steps and not in time, so that an answer is the
//! same on every machine. docs/decisions/0013-grammar.md says why it is laid out so.
//!
//! Source: Willard, Louf, "Efficient guided generation for large language models", 2023,
//! <https://arxiv.org/abs/2307.09702>; llguidance, <https://github.com/guidance-ai/llguidance>.
#![forbid(unsafe_code)]

mod cache;
mod compile;
mod conditions;
mod error;
mod matcher;
mod source;
mod vocabulary;

pub use compile::Grammars;
pub use error::Error;
pub use source::{MAX_DEPTH, MAX_SOURCE_BYTES, Source};
