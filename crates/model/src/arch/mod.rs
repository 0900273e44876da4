//! Architectures: each file turns one architecture's metadata into [`Properties`].
//!
//! This is the one place where an architecture's name is matched. To add one: a file here, a line in
//! `ARCHITECTURES`; only if its structure is new, a property and the code in `forward.rs` for it.

mod bert;
mod gemma3;
mod gpt2;
mod gpt_oss;
mod keys;
mod llama;
mod nomic_bert;
mod phi3;
mod qwen2;
mod qwen3;

use redline_gguf::Gguf;

use crate::{Error, Properties};
use keys::Keys;

/// Reads one architecture's metadata.
type Reader = fn(&Keys<'_, '_>) -> Result<Properties, Error>;

const ARCHITECTURES: [(&str, Reader); 9] = [
    ("llama", llama::properties),
    ("qwen2", qwen2::properties),
    ("gemma3", gemma3::properties),
    ("phi3", phi3::properties),
    ("qwen3", qwen3::properties),
    ("gpt2", gpt2::properties),
    ("bert", bert::properties),
    ("nomic-bert", nomic_bert::properties),
    ("gpt-oss", gpt_oss::properties),
];

/// Values of `general.architecture` that can be loaded.
pub const KNOWN_ARCHITECTURES: [&str; ARCHITECTURES.len()] = {
    let mut names = [""; ARCHITECTURES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = ARCHITECTURES[i].0;
        i += 1;
    }
    names
};

impl Properties {
    /// Reads and checks a file's metadata.
    ///
    /// # Errors
    /// If the architecture is unknown, or a value is missing, senseless, not supported, or
    /// contradicts the file's tensors.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, Error> {
        let found = gguf.metadata().require_str("general.architecture")?;
        let Some((name, reader)) = ARCHITECTURES.iter().find(|(name, _)| *name == found) else {
            return Err(Error::UnknownArchitecture {
                found: found.to_owned(),
                known: KNOWN_ARCHITECTURES.join(", "),
            });
        };
        reader(&Keys::new(gguf, name))
    }
}
