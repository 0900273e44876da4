//! `redline quantize`: write a model with its weights in another format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redline_model::ModelFile;
use serde::Serialize;

use crate::commands::Context;
use crate::failure::Usage;
use crate::mix::{self, Quant, UnknownQuant};
use crate::models;
use crate::quantize::Plan;
use crate::{output, progress, units};

/// Flags of `quantize`.
#[derive(Debug, clap::Args)]
#[command(after_help = types_help())]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: String,
    /// The file to write; it must not be there
    output: PathBuf,
    /// How matrices are stored, one of those below
    #[arg(value_name = "TYPE")]
    quant: String,
    /// Threads [default: all cores]
    #[arg(short = 't', long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

fn types_help() -> String {
    format!("Types:\n  {}", mix::names())
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Written<'a> {
    path: &'a Path,
    bytes: u64,
    quant: String,
    /// Of the model that was read.
    input_bytes: u64,
    /// Whether its matrices were quantised already.
    requantised: bool,
    /// Tensors of each type.
    types: BTreeMap<String, usize>,
}

/// Writes the file, and prints its path.
///
/// # Errors
/// [`Usage`] for an unknown type or a file that is there; otherwise if the model cannot be read or
/// the file not be written.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let unknown = |error: UnknownQuant| Usage(error.to_string());
    let quant: Quant = args.quant.parse().map_err(unknown)?;
    let path = &*args.output;
    if std::fs::symlink_metadata(path).is_ok() {
        let name = path.display();
        return Err(Usage(format!("{name} is there already: it would be overwritten")).into());
    }
    let model = models::resolve(Some(&args.model), context)?;
    let file = ModelFile::open(&model.path)?;
    let gguf = file.gguf()?;
    let plan = Plan::new(&gguf, quant)?;
    if let Some(format) = plan.requantised() {
        output::note(&format!(
            "matrices are {format} already: their errors stay, and new ones come to them"
        ));
    }
    if file.is_folder() {
        output::note(
            "a folder's tokenizer is not written: the file takes token ids and no text; \
             `redline run FOLDER --quantize TYPE` has both",
        );
    }
    let (label, threads) = (format!("quantize to {quant}"), context.config.threads.get());
    progress::of_file(&label, plan.bytes(), &context.interrupt, |progress| {
        plan.create(path, threads, progress)
    })?;
    let written = Written {
        path,
        bytes: std::fs::metadata(path)?.len(),
        quant: quant.to_string(),
        input_bytes: file.bytes(),
        requantised: plan.requantised().is_some(),
        types: plan.types()?,
    };
    if context.json {
        return output::json(&written);
    }
    let types: Vec<String> = written
        .types
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    output::note(&format!(
        "written: {}, from {}; tensors: {}",
        units::bytes(written.bytes),
        units::bytes(written.input_bytes),
        types.join(", ")
    ));
    output::line(path.display())
}
