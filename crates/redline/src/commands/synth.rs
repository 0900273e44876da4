//! `redline synth`: write a model of random weights in a known shape.

use std::path::PathBuf;

use serde::Serialize;

use crate::commands::Context;
use crate::models::cache::Cache;
use crate::progress::Progress;
use crate::synth::{self, Made, Recipe};
use crate::{mix, output, units};

/// Flags of `synth`.
#[derive(Debug, clap::Args)]
#[command(after_help = catalogue_help())]
pub(crate) struct Args {
    /// The shape, one of those below
    shape: String,
    /// How matrices are stored
    #[arg(long, value_name = "TYPE", default_value = synth::DEFAULT_QUANT)]
    quant: String,
    /// Decides the random weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where to write [default: the cache]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn catalogue_help() -> String {
    let mut help = "Shapes:".to_owned();
    for shape in &synth::SHAPES {
        help.push_str(&format!("\n  {:<14} {}", shape.name, shape.about));
    }
    help.push_str(&format!("\n\nTypes:\n  {}", mix::names()));
    help
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Written {
    path: PathBuf,
    bytes: u64,
    shape: &'static str,
    quant: String,
    seed: u64,
    cached: bool,
}

/// Makes the file, and prints its path.
///
/// # Errors
/// [`crate::failure::Usage`] for an unknown shape or type; otherwise if the file cannot be written.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let recipe = Recipe::new(&args.shape, &args.quant, args.seed)?;
    let made = make(&recipe, args.output.clone(), context)?;
    let bytes = std::fs::metadata(&made.path)?.len();
    if context.json {
        return output::json(&Written {
            path: made.path,
            bytes,
            shape: recipe.shape.name,
            quant: recipe.quant.to_string(),
            seed: recipe.seed,
            cached: made.cached,
        });
    }
    let state = if made.cached {
        "already in the cache"
    } else {
        "written"
    };
    output::note(&format!(
        "{state}: {}, synthetic weights",
        units::bytes(bytes)
    ));
    output::line(made.path.display())
}

/// Makes the model's file, at `path` or in the cache, showing progress; Ctrl-C stops it.
///
/// # Errors
/// If the file cannot be written, or the user stops the work.
pub(crate) fn make(
    recipe: &Recipe,
    path: Option<PathBuf>,
    context: &Context,
) -> anyhow::Result<Made> {
    let label = format!("synth {}:{}", recipe.shape.name, recipe.quant);
    let threads = context.config.threads.get();
    // Shown from the first byte on: a file that is there already is no work.
    let mut shown: Option<Progress> = None;
    let mut progress = |done: u64| {
        if context.interrupt.asked() {
            anyhow::bail!("stopped before the file was whole");
        }
        let bytes = || Progress::bytes(&label, Some(recipe.weight_bytes()));
        shown.get_or_insert_with(bytes).set(done);
        Ok(())
    };
    let made = match path {
        Some(path) => synth::create(recipe, &path, threads, &mut progress).map(|()| Made {
            path,
            cached: false,
        }),
        None => {
            let folder = Cache::new(&context.config.cache_dir).synth();
            synth::cached(recipe, &folder, threads, &mut progress)
        }
    };
    if let Some(shown) = shown {
        shown.clear();
    }
    made
}
