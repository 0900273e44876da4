//! The text side of a folder as transformers saves a model: its tokenizer's files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use redline_tokenizer::{JsonFiles, Tokenizer};

const TOKENIZER: &str = "tokenizer.json";
/// As much as a tokenizer takes, and one more, which it refuses.
const MAX_BYTES: u64 = (64 << 20) + 1;

/// Builds the tokenizer that a folder's files describe.
///
/// # Errors
/// If there is none, or a file cannot be read or used.
pub(crate) fn tokenizer(folder: &Path) -> anyhow::Result<Tokenizer> {
    let Some(tokenizer) = read(folder, TOKENIZER)? else {
        anyhow::bail!("expected {TOKENIZER} in the folder, found none");
    };
    let tokenizer_config = read(folder, "tokenizer_config.json")?;
    let special_tokens_map = read(folder, "special_tokens_map.json")?;
    let generation_config = read(folder, "generation_config.json")?;
    let chat_template = read(folder, "chat_template.jinja")?
        .map(String::from_utf8)
        .transpose()
        .context("chat_template.jinja is not UTF-8")?;
    Ok(Tokenizer::from_json(&JsonFiles {
        tokenizer: &tokenizer,
        tokenizer_config: tokenizer_config.as_deref(),
        special_tokens_map: special_tokens_map.as_deref(),
        generation_config: generation_config.as_deref(),
        chat_template: chat_template.as_deref(),
    })?)
}

/// A file's bytes, if there is such a file.
fn read(folder: &Path, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match File::open(folder.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {name}"))?;
    Ok(Some(bytes))
}
