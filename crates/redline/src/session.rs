//! From a model's name to something that computes.

use anyhow::Context as _;
use redline_compute::{ARITHMETIC_VERSION, Cpu};
use redline_gguf::Gguf;
use redline_model::{LoadOptions, MappedWeights, Model, ModelFile};
use redline_tokenizer::Tokenizer;

use crate::cli::Weights;
use crate::commands::Context;
use crate::config::Config;
use crate::folder;
use crate::models::Resolved;
use crate::progress::{self, Progress};
use crate::quantize::Plan;
use crate::room::Room;
use crate::{memory, output, units};

/// Positions a chat has room for where nobody says: a cache for a model's whole context can be larger
/// than the model.
pub(crate) const DEFAULT_CONTEXT_TOKENS: usize = 4096;

/// How something was computed; part of every machine-readable result.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Computing {
    /// Instruction set.
    pub(crate) isa: &'static str,
    /// Format of keys and values.
    pub(crate) kv: &'static str,
    /// Threads.
    pub(crate) threads: usize,
    /// Prompt tokens in one step.
    pub(crate) chunk_tokens: usize,
    /// Version of the canonical arithmetic.
    pub(crate) arithmetic_version: u32,
    /// What the weights were quantised to at load, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantized: Option<String>,
}

impl Computing {
    /// As `config` says.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            isa: config.isa.name(),
            kv: config.kv.name(),
            threads: config.threads.get(),
            chunk_tokens: config.chunk_tokens.get(),
            arithmetic_version: ARITHMETIC_VERSION,
            quantized: None,
        }
    }

    /// The same, with weights so taken.
    pub(crate) fn with(self, weights: Weights) -> Self {
        Self {
            quantized: weights.quantize.map(|quant| quant.to_string()),
            ..self
        }
    }
}

/// Maps a model's file.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn open(resolved: &Resolved) -> anyhow::Result<ModelFile> {
    ModelFile::open(&resolved.path).with_context(|| format!("cannot open {}", resolved.name))
}

/// Maps a model's file; with a type, makes another of it in memory whose weights are of that type,
/// showing how far it is.
///
/// # Errors
/// If it cannot be opened, or quantised, or memory is short.
pub(crate) fn open_as(
    resolved: &Resolved,
    weights: Weights,
    context: &Context,
) -> anyhow::Result<ModelFile> {
    let file = open(resolved)?;
    let Some(quant) = weights.quantize else {
        return Ok(file);
    };
    let gguf = parse(&file, resolved)?;
    let quantised = || {
        let plan = Plan::new(&gguf, quant)?;
        memory::check_bytes("quantised weights", plan.bytes())?;
        let (label, threads) = (format!("quantize to {quant}"), context.config.threads.get());
        progress::of_file(&label, plan.bytes(), &context.interrupt, |progress| {
            let mut bytes = Vec::with_capacity(plan.bytes() as usize);
            plan.write(threads, &mut bytes, progress)?;
            Ok(bytes)
        })
    };
    let bytes = quantised().with_context(|| format!("cannot quantise {}", resolved.name))?;
    Ok(ModelFile::from_bytes(vec![bytes]))
}

/// Reads a file's header, metadata and tensor directory.
///
/// # Errors
/// If it is no valid GGUF.
pub(crate) fn parse<'f>(file: &'f ModelFile, resolved: &Resolved) -> anyhow::Result<Gguf<'f>> {
    file.gguf()
        .with_context(|| format!("cannot read {}", resolved.path.display()))
}

/// Builds a model's tokenizer.
///
/// # Errors
/// If its metadata, or the files beside it in a folder, describe none, or one that is not known.
pub(crate) fn tokenizer(gguf: &Gguf<'_>, resolved: &Resolved) -> anyhow::Result<Tokenizer> {
    let tokenizer = if resolved.path.is_dir() {
        folder::tokenizer(&resolved.path)
    } else {
        Tokenizer::from_gguf(gguf.metadata()).map_err(Into::into)
    };
    tokenizer.with_context(|| format!("cannot use the tokenizer of {}", resolved.path.display()))
}

/// What a load of a model for sequences of `context_tokens` positions prepares.
pub(crate) fn load_options(config: &Config, context_tokens: Option<usize>) -> LoadOptions {
    LoadOptions {
        context: context_tokens,
        kv_format: config.kv,
        max_step_tokens: config.chunk_tokens.get(),
        ..LoadOptions::default()
    }
}

/// Loads a model, showing how far it is.
///
/// # Errors
/// If the file is not a model that can be run.
pub(crate) fn load(
    file: &ModelFile,
    gguf: &Gguf<'_>,
    resolved: &Resolved,
    room: &Room,
    context: &Context,
) -> anyhow::Result<Model<Cpu>> {
    let backend = Cpu::new(context.config.isa, context.config.threads.get());
    let mut progress = Progress::bytes(
        &format!("loading {}", resolved.name),
        Some(room.weight_bytes()),
    );
    let model = Model::load(file, gguf, backend, room.options(), &mut |report| {
        progress.set(report.bytes)
    });
    progress.clear();
    if context.interrupt.asked() {
        anyhow::bail!("interrupted");
    }
    let model = model.with_context(|| format!("cannot load {}", resolved.path.display()))?;
    lock_if_asked(file, gguf, context.config.mlock);
    Ok(model)
}

/// Keeps the weights in memory, if `mlock`. Where that cannot be, it is said in a line and nothing else
/// happens, as with llama.cpp: answers are the same, and whoever starts a server so wants it to run.
pub(crate) fn lock_if_asked(file: &ModelFile, gguf: &Gguf<'_>, mlock: bool) {
    if !mlock {
        return;
    }
    let weights = MappedWeights::new(file, gguf);
    if let Err(error) = weights.lock() {
        let limit = memory::lockable_bytes().filter(|limit| *limit < weights.bytes());
        let limit = limit.map_or_else(String::new, |limit| {
            let limit = units::bytes(limit);
            format!("; RLIMIT_MEMLOCK is {limit}: raise it (ulimit -l, LimitMEMLOCK=, --ulimit memlock=)")
        });
        output::note(&format!(
            "mlock: {} of weights are not locked in memory: {error}{limit}; going on without",
            units::bytes(weights.bytes()),
        ));
    }
}
