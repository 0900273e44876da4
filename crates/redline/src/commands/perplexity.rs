//! `redline perplexity`: how well a model predicts a text.

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use redline_compute::Cpu;
use redline_gguf::TokenId;
use redline_model::{LoadOptions, Model, Properties};
use redline_tokenizer::{EncodeOptions, Tokenizer};

use crate::cli::{Compute, Weights};
use crate::commands::Context;
use crate::failure::Usage;
use crate::perplexity::{Estimate, MIN_WINDOW, Windows, surprisals};
use crate::progress::Progress;
use crate::room::{Room, Saving};
use crate::session::Computing;
use crate::{input, models, output, session};

/// Logits kept at a time, at most: a large vocabulary has a megabyte of them for each token.
const LOGIT_BYTES: usize = 64 << 20;

/// Flags of `perplexity`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: String,
    /// The text, in UTF-8; `-` is stdin, and so is nothing where something is piped in
    file: Option<PathBuf>,
    /// Tokens of a window, of which the second half is counted
    #[arg(short = 'c', long, value_name = "TOKENS", default_value_t = 512)]
    ctx_size: usize,
    /// Windows to compute at most [default: all of the text]
    #[arg(long, value_name = "N")]
    chunks: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) compute: Compute,
    #[command(flatten)]
    weights: Weights,
}

/// Machine-readable result.
#[derive(Debug, serde::Serialize)]
struct Report {
    model: String,
    weights: &'static str,
    perplexity: f64,
    /// Tokens taken as independent; `None` where one alone is counted.
    standard_error: Option<f64>,
    ctx_size: usize,
    /// Each window begins with the token that begins a text.
    bos: bool,
    text_tokens: usize,
    counted_tokens: usize,
    computed_tokens: usize,
    seconds: f64,
    tokens_per_s: f64,
    windows: Vec<Window>,
    #[serde(flatten)]
    computing: Computing,
}

/// One window's part.
#[derive(Debug, serde::Serialize)]
struct Window {
    /// Mean −ln p of its counted tokens, in nats.
    nll: f64,
    perplexity: f64,
    /// Of this window and those before.
    perplexity_so_far: f64,
}

/// Measures and prints.
///
/// # Errors
/// If the text cannot be read or is too short, the model cannot be had or run, or its logits are no
/// distribution.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let text = read(args.file.as_deref())?;
    let resolved = models::resolve(Some(&args.model), context)?;
    let file = session::open_as(&resolved, args.weights, context)?;
    // The disk is busy while the tokenizer is built.
    file.read_ahead();
    let gguf = session::parse(&file, &resolved)?;
    let properties = Properties::from_gguf(&gguf)
        .with_context(|| format!("cannot load {}", resolved.path.display()))?;
    check_size(args.ctx_size, properties.context_length)?;
    let tokenizer = session::tokenizer(&gguf, &resolved)?;
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let tokens = encode(&text, &tokenizer, bos)?;
    let windows = cut(&tokens, bos, args)?;
    let options = load_options(args.ctx_size, properties.vocab, context);
    let room = Room::of(&resolved, &gguf, options, Saving::usual)?;
    let mut model = session::load(&file, &gguf, &resolved, &room, context)?;
    let start = Instant::now();
    let (estimate, parts) = measure(&mut model, &windows, context)?;
    let seconds = start.elapsed().as_secs_f64();
    let computed_tokens = windows.count() * (args.ctx_size - 1);
    print(
        &Report {
            model: resolved.name.clone(),
            weights: resolved.weights(),
            perplexity: estimate.perplexity(),
            standard_error: estimate.standard_error(),
            ctx_size: args.ctx_size,
            bos: bos.is_some(),
            text_tokens: tokens.len(),
            counted_tokens: estimate.count(),
            computed_tokens,
            seconds,
            tokens_per_s: computed_tokens as f64 / seconds,
            windows: parts,
            computing: Computing::new(&context.config).with(args.weights),
        },
        context.json,
    )
}

/// The text of a file, or of stdin.
fn read(file: Option<&Path>) -> anyhow::Result<String> {
    match file {
        Some(path) if path != Path::new("-") => {
            input::file(path).with_context(|| format!("cannot read the text {}", path.display()))
        }
        None if std::io::stdin().is_terminal() => {
            Err(Usage("no text: name a file, or pipe one in".into()).into())
        }
        _ => input::stdin().context("cannot read the text from stdin"),
    }
}

fn check_size(tokens: usize, trained: usize) -> Result<(), Usage> {
    if (MIN_WINDOW..=trained).contains(&tokens) {
        return Ok(());
    }
    Err(Usage(format!(
        "--ctx-size: expected {MIN_WINDOW} to {trained} tokens, the model's context, found {tokens}"
    )))
}

/// The text's ids, after `bos`; names of control tokens are text.
fn encode(text: &str, tokenizer: &Tokenizer, bos: Option<TokenId>) -> anyhow::Result<Vec<TokenId>> {
    let ids = tokenizer
        .encode(text, EncodeOptions::default())
        .context("cannot encode the text")?;
    Ok(bos.into_iter().chain(ids).collect())
}

fn cut(tokens: &[TokenId], bos: Option<TokenId>, args: &Args) -> anyhow::Result<Windows> {
    let most = args.chunks.map_or(usize::MAX, NonZeroUsize::get);
    let windows = Windows::cut(tokens, bos, args.ctx_size, most);
    anyhow::ensure!(
        windows.count() > 0,
        "the text is too short: expected at least the {} tokens of a window (--ctx-size), found {}",
        args.ctx_size,
        tokens.len()
    );
    Ok(windows)
}

fn load_options(ctx_size: usize, vocab: usize, context: &Context) -> LoadOptions {
    let step = context.config.chunk_tokens.get().min(ctx_size);
    LoadOptions {
        max_step_tokens: step,
        max_logit_rows: (LOGIT_BYTES / size_of::<f32>() / vocab).clamp(1, step),
        ..session::load_options(&context.config, Some(ctx_size))
    }
}

/// All windows one after another, showing how far they are.
fn measure(
    model: &mut Model<Cpu>,
    windows: &Windows,
    context: &Context,
) -> anyhow::Result<(Estimate, Vec<Window>)> {
    let count = windows.count();
    let mut progress = Progress::things("perplexity", "windows", count);
    let mut interrupt = context.interrupt.clone();
    let mut total = Estimate::default();
    let mut parts = Vec::with_capacity(count);
    for (index, window) in windows.iter().enumerate() {
        let surprisals = surprisals(model, window, context.config.threads, &mut interrupt)
            .with_context(|| format!("cannot compute window {} of {count}", index + 1))?;
        let mut own = Estimate::default();
        own.add(&surprisals);
        total.add(&surprisals);
        parts.push(Window {
            nll: own.mean(),
            perplexity: own.perplexity(),
            perplexity_so_far: total.perplexity(),
        });
        progress.relabel(format!("perplexity {:.4} so far", total.perplexity()));
        progress.set(parts.len() as u64);
    }
    progress.clear();
    Ok((total, parts))
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(report);
    }
    let error = report
        .standard_error
        .map_or("n/a".to_owned(), |error| format!("{error:.4}"));
    output::line(format!(
        "PPL {:.4} ± {error} ({} tokens counted, in {} windows of {}; {:.1} tok/s)",
        report.perplexity,
        report.counted_tokens,
        report.windows.len(),
        report.ctx_size,
        report.tokens_per_s
    ))
}
