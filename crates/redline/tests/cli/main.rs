//! The program itself, run as a user runs it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;
mod chat;
mod embed;
mod folder;
mod generate;
mod models;
mod models_refused;
mod perplexity;
mod pull_http;
mod pull_pypi;
mod quantize;
mod server;
mod support;
mod usage;
