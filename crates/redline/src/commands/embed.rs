//! `redline embed`: embeddings of texts, as JSON.

use std::io;

use anyhow::{Context as _, anyhow};
use redline_gguf::TokenId;
use redline_model::{LoadOptions, Output, Pooling, Properties, hidden_rows, normalize};
use redline_tokenizer::{EncodeOptions, Tokenizer};

use crate::cli::{Compute, Weights};
use crate::commands::Context;
use crate::failure::Usage;
use crate::room::{Room, Saving};
use crate::session::Computing;
use crate::{input, models, output, session};

/// Flags of `embed`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: String,
    /// The texts; without any, the lines of stdin
    texts: Vec<String>,
    /// What an embedding is made of, of all tokens or of one [default: as the model says]
    #[arg(long, value_name = "mean|cls|last")]
    pooling: Option<Pooling>,
    /// Leave embeddings as long as they are, not of length 1
    #[arg(long)]
    no_normalize: bool,
    #[command(flatten)]
    pub(crate) compute: Compute,
    #[command(flatten)]
    weights: Weights,
}

/// The answer, JSON with and without `--json`.
#[derive(Debug, serde::Serialize)]
struct Report {
    model: String,
    weights: &'static str,
    pooling: &'static str,
    normalized: bool,
    dimensions: usize,
    embeddings: Vec<Embedding>,
    #[serde(flatten)]
    computing: Computing,
}

#[derive(Debug, serde::Serialize)]
struct Embedding {
    /// Of the text, with those the tokenizer adds.
    tokens: usize,
    /// `[dimensions]`
    embedding: Vec<f32>,
}

/// Embeds and prints.
///
/// # Errors
/// If the model cannot be had or run, has no tokenizer, or a text is empty or too long for it.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let texts = texts(args)?;
    let resolved = models::resolve(Some(&args.model), context)?;
    let file = session::open_as(&resolved, args.weights, context)?;
    file.read_ahead();
    let gguf = session::parse(&file, &resolved)?;
    let properties = Properties::from_gguf(&gguf)
        .with_context(|| format!("cannot load {}", resolved.path.display()))?;
    let tokenizer = session::tokenizer(&gguf, &resolved)?;
    let sequences = encode(&texts, &tokenizer, properties.context_length)?;
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(1);
    let options = load_options(&properties, longest, context);
    let room = Room::of(&resolved, &gguf, options, Saving::usual)?;
    let mut model = session::load(&file, &gguf, &resolved, &room, context)?;
    let pooling = args.pooling.unwrap_or(properties.pooling);
    let embeddings = sequences
        .iter()
        .map(|tokens| {
            let mut interrupt = context.interrupt.clone();
            let rows = hidden_rows(&mut model, tokens, &mut interrupt)
                .context("cannot compute the embedding")?;
            let mut embedding = pooling.pool(&rows, properties.hidden);
            if !args.no_normalize {
                normalize(&mut embedding);
            }
            let tokens = tokens.len();
            Ok(Embedding { tokens, embedding })
        })
        .collect::<anyhow::Result<_>>()?;
    output::json(&Report {
        model: resolved.name.clone(),
        weights: resolved.weights(),
        pooling: pooling.name(),
        normalized: !args.no_normalize,
        dimensions: properties.hidden,
        embeddings,
        computing: Computing::new(&context.config).with(args.weights),
    })
}

/// Those of the command line, or of stdin.
fn texts(args: &Args) -> anyhow::Result<Vec<String>> {
    if !args.texts.is_empty() {
        return Ok(args.texts.clone());
    }
    if io::IsTerminal::is_terminal(&io::stdin()) {
        return Err(Usage("no text given: name some, or pipe lines in".into()).into());
    }
    let piped = input::stdin().context("cannot read stdin")?;
    let lines: Vec<String> = piped.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(Usage("stdin is empty: expected a text on each line".into()).into());
    }
    Ok(lines)
}

/// The token ids of each text.
fn encode(
    texts: &[String],
    tokenizer: &Tokenizer,
    context_tokens: usize,
) -> anyhow::Result<Vec<Vec<TokenId>>> {
    // A text is data: names of control tokens in it are text too.
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    let encode = |(index, text): (usize, &String)| {
        let tokens = tokenizer.encode(text, options)?;
        match tokens.len() {
            0 => Err(anyhow!("text {} is empty: it has no tokens", index + 1)),
            found if found > context_tokens => Err(anyhow!(
                "text {} is too long: {found} tokens, and the model's context is {context_tokens}",
                index + 1
            )),
            _ => Ok(tokens),
        }
    };
    texts.iter().enumerate().map(encode).collect()
}

/// Hidden state of one sequence of at most `longest` tokens at a time.
pub(super) fn load_options(
    properties: &Properties,
    longest: usize,
    context: &Context,
) -> LoadOptions {
    let options = session::load_options(&context.config, Some(longest));
    // An encoder sees a sequence whole, in one step.
    let step = match properties.causal {
        true => options.max_step_tokens.min(longest),
        false => longest,
    };
    LoadOptions {
        max_step_tokens: step,
        max_logit_rows: step,
        output: Output::Hidden,
        ..options
    }
}
