//! `redline tokenize`: the token ids and pieces of a text.

use redline_gguf::TokenId;
use redline_tokenizer::{EncodeOptions, Tokenizer};

use crate::commands::Context;
use crate::{models, output, session};

/// Flags of `tokenize`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: String,
    /// The text
    text: String,
    /// Add no beginning or end of text, and take the names of control tokens for text
    #[arg(long)]
    no_special: bool,
}

/// Machine-readable result.
#[derive(Debug, serde::Serialize)]
struct Report {
    tokenizer: &'static str,
    count: usize,
    ids: Vec<u32>,
    pieces: Vec<String>,
}

/// Encodes and prints, a line for each token.
///
/// # Errors
/// If the model cannot be had, or has no tokenizer that can encode the text.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let resolved = models::resolve(Some(&args.model), context)?;
    let file = session::open(&resolved)?;
    let gguf = session::parse(&file, &resolved)?;
    let tokenizer = session::tokenizer(&gguf, &resolved)?;
    let special = !args.no_special;
    let options = EncodeOptions {
        add_special: special,
        parse_special: special,
    };
    let ids = tokenizer.encode(&args.text, options)?;
    let pieces: Vec<String> = ids.iter().map(|id| piece(&tokenizer, *id)).collect();
    if context.json {
        let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
        return output::json(&Report {
            tokenizer: tokenizer.kind(),
            count: ids.len(),
            ids,
            pieces,
        });
    }
    for (id, piece) in ids.iter().zip(&pieces) {
        output::line(format!("{id:>7}  {piece:?}"))?;
    }
    output::note(&format!("{} tokens ({})", ids.len(), tokenizer.kind()));
    Ok(())
}

fn piece(tokenizer: &Tokenizer, id: TokenId) -> String {
    tokenizer.piece(id).unwrap_or_default()
}
