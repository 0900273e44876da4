//! Models as Hugging Face transformers keeps them, `config.json` beside tensors, and what a GGUF file of
//! the same model would say.
//!
//! - [`Config`]: a configuration, checked; it declares the metadata.
//! - [`Config::places`]: where a tensor goes, and how its weights change on the way.
//!
//! Everything here is arithmetic on names and bytes: files are opened elsewhere. Weights that do not
//! change can stay where they are.
//!
//! Source of the names and of what changes: published GGUF files of each architecture, and
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
#![forbid(unsafe_code)]

mod change;
mod config;
mod error;
mod experts;
mod names;

pub use change::{Change, Stored};
pub use config::Config;
pub use error::Error;

/// Where a tensor goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name in a GGUF file.
    pub name: String,
    /// What its weights become.
    pub change: Change,
}
