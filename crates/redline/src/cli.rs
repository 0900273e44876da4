//! The command line: verbs and the flags they share. A verb's own flags stand beside its code.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use redline_compute::{Isa, KvFormat};

use crate::commands;
use crate::mix::Quant;

/// Run, inspect and measure language models on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "redline",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Machine output: JSON on stdout, nothing else there
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// Print the resolved configuration (with --json: as JSON) and stop
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) print_config: bool,
    /// Where pulled and synthetic models are kept [env: REDLINE_CACHE]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Configuration file instead of ./redline.toml [env: REDLINE_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
}

/// Flags of the verbs that compute.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Compute {
    /// Instruction set of the kernels; the result has the same bits on each [default: the best here]
    #[arg(
        long,
        value_name = "scalar|avx2|avx512|amx",
        help_heading = "Computing"
    )]
    pub(crate) isa: Option<Isa>,
    /// How keys and values are stored [default: f16]
    #[arg(long, value_name = "f16|f32|q8_0", help_heading = "Computing")]
    pub(crate) kv: Option<KvFormat>,
    /// Threads [default: all cores]
    #[arg(short = 't', long, value_name = "N", help_heading = "Computing")]
    pub(crate) threads: Option<usize>,
    /// Prompt tokens computed in one step
    #[arg(long, value_name = "TOKENS", help_heading = "Computing")]
    pub(crate) chunk: Option<usize>,
    /// Keep the weights in memory; where the system does not let, go on without
    #[arg(long, help_heading = "Computing")]
    pub(crate) mlock: bool,
    /// Positions to keep room for; only some verbs ask
    #[arg(skip)]
    pub(crate) context: Option<usize>,
    /// Seconds between two looks at what is in memory; only `serve` looks
    #[arg(skip)]
    pub(crate) residency_check: Option<u64>,
    /// A draft model; only some verbs ask
    #[arg(skip)]
    pub(crate) draft: Option<String>,
}

/// How a model's weights are taken.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Weights {
    /// Quantise them in memory first, as `redline quantize` would [default: as they are stored]
    #[arg(long, value_name = "TYPE", help_heading = "Computing")]
    pub(crate) quantize: Option<Quant>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate text; a chat when no prompt is given
    Run(commands::run::Args),
    /// Serve a model to clients of OpenAI's interface
    Serve(commands::serve::Args),
    /// Show a model's metadata, tensors, memory plan, tokenizer and template
    Inspect(commands::inspect::Args),
    /// Show the token ids and pieces of a text
    Tokenize(commands::tokenize::Args),
    /// Compute the logits of token ids, and the hash of their bits
    Logits(commands::logits::Args),
    /// Compute the embeddings of texts
    Embed(commands::embed::Args),
    /// Measure how well a model predicts a text
    Perplexity(commands::perplexity::Args),
    /// Measure load, prefill and decode against the machine's limits
    Bench(commands::bench::Args),
    /// One launch of `bench`
    #[command(hide = true)]
    BenchWorker(crate::bench::worker::Args),
    /// Measure the machine's limits: read bandwidth and arithmetic rates
    Limits(commands::limits::Args),
    /// Write a model of random weights in a known shape
    Synth(commands::synth::Args),
    /// Write a model with its weights in another format
    Quantize(commands::quantize::Args),
    /// Fetch a model into the cache
    Pull(commands::pull::Args),
}
