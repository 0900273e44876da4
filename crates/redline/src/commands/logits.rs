//! `redline logits`: the logits of given token ids, and a hash of their bits that is the same on
//! every instruction set, with any number of threads and any cut of the prompt.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use redline_compute::Cpu;
use redline_gguf::TokenId;
use redline_model::{
    Forward as _, LoadOptions, LogitRows, LogitsHash, Model, Observer, PageId, SequenceStep, Stage,
    StepPlan, pages_for,
};

use crate::cli::{Compute, Weights};
use crate::commands::Context;
use crate::failure::Usage;
use crate::interrupt::Interrupt;
use crate::room::{Room, Saving};
use crate::session::Computing;
use crate::{models, npy, output, session};

/// Flags of `logits`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: String,
    /// The token ids; nothing is added to them
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// Logits of every position, not only the last
    #[arg(long)]
    all: bool,
    /// Hashes of the hidden state after each layer too
    #[arg(long)]
    layers: bool,
    /// Write the logits: npy or json to stdout, or a file called *.npy or *.json
    #[arg(short = 'o', long, value_name = "npy|json|FILE")]
    output: Option<Target>,
    #[command(flatten)]
    pub(crate) compute: Compute,
    #[command(flatten)]
    weights: Weights,
}

/// Where logits go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    NpyStdout,
    JsonStdout,
    NpyFile(PathBuf),
    JsonFile(PathBuf),
}

impl std::str::FromStr for Target {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        let path = PathBuf::from(text);
        match (
            text,
            path.extension().and_then(|extension| extension.to_str()),
        ) {
            ("npy", _) => Ok(Self::NpyStdout),
            ("json", _) => Ok(Self::JsonStdout),
            (_, Some("npy")) => Ok(Self::NpyFile(path)),
            (_, Some("json")) => Ok(Self::JsonFile(path)),
            _ => Err(Usage(format!(
                "expected npy, json or a file called *.npy or *.json, found {text:?}"
            ))),
        }
    }
}

/// Machine-readable result.
#[derive(Debug, serde::Serialize)]
struct Report {
    model: String,
    weights: &'static str,
    tokens: usize,
    rows: usize,
    vocab: usize,
    /// FNV-1a over the arithmetic version and the bits of all rows, in hexadecimal.
    logits_hash: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<Vec<f32>>>,
    #[serde(flatten)]
    computing: Computing,
}

/// Hash of the hidden state at one place.
#[derive(Debug, serde::Serialize)]
struct LayerHash {
    stage: String,
    hash: String,
}

/// Computes and prints.
///
/// # Errors
/// If the model cannot be had or run, an id is not of its vocabulary, or the output cannot be written.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    if args.output == Some(Target::NpyStdout) {
        if output::stdout_is_terminal() {
            return Err(
                Usage("-o npy writes binary data: redirect stdout or name a file".into()).into(),
            );
        }
        if context.json {
            return Err(Usage("-o npy and --json both want stdout: name a file".into()).into());
        }
    }
    let resolved = models::resolve(Some(&args.model), context)?;
    let file = session::open_as(&resolved, args.weights, context)?;
    let gguf = session::parse(&file, &resolved)?;
    let rows = if args.all { args.ids.len() } else { 1 };
    let options = LoadOptions {
        max_logit_rows: rows.min(context.config.chunk_tokens.get()),
        ..session::load_options(&context.config, Some(args.ids.len()))
    };
    let room = Room::of(&resolved, &gguf, options, Saving::usual)?;
    let model = session::load(&file, &gguf, &resolved, &room, context)?;
    let vocab = model.shape().vocab_size;
    let mut sink = Sink::open(args.output.as_ref(), rows, vocab)?;
    let mut hash = LogitsHash::new();
    let layers = compute(model, args, context, &mut |logits| {
        hash.update(logits);
        sink.take(logits, vocab)
    })?;
    let report = Report {
        model: resolved.name.clone(),
        weights: resolved.weights(),
        tokens: args.ids.len(),
        rows,
        vocab,
        logits_hash: hex(hash.finish()),
        layers,
        logits: None,
        computing: Computing::new(&context.config).with(args.weights),
    };
    finish(report, sink, args.output.as_ref(), context.json)
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Runs the ids through the model in steps of `chunk` tokens; `take` gets the rows in order.
fn compute(
    mut model: Model<Cpu>,
    args: &Args,
    context: &Context,
    take: &mut dyn FnMut(&[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<LayerHash>> {
    let ids: Vec<TokenId> = args.ids.iter().copied().map(TokenId).collect();
    let pages: Vec<PageId> = (0..pages_for(ids.len()) as u32).map(PageId).collect();
    let mut hashes = Hashes {
        interrupt: &context.interrupt,
        wanted: args.layers,
        stages: Vec::new(),
    };
    let mut position = 0;
    for chunk in ids.chunks(context.config.chunk_tokens.get()) {
        let last = position + chunk.len() == ids.len();
        let logits = match (args.all, last) {
            (true, _) => LogitRows::All,
            (false, true) => LogitRows::Last,
            (false, false) => LogitRows::None,
        };
        let sequences = [SequenceStep {
            tokens: chunk,
            position,
            pages: &pages,
            logits,
        }];
        let plan = StepPlan {
            sequences: &sequences,
        };
        take(
            model
                .forward(&plan, &mut hashes)
                .context("cannot compute the logits")?,
        )?;
        position += chunk.len();
    }
    Ok(hashes.into_report())
}

/// Hashes what an observer sees, stage by stage.
struct Hashes<'i> {
    interrupt: &'i Interrupt,
    wanted: bool,
    stages: Vec<(Stage, LogitsHash)>,
}

impl Observer for Hashes<'_> {
    fn wants_hidden(&self) -> bool {
        self.wanted
    }

    fn cancelled(&mut self) -> bool {
        self.interrupt.asked()
    }

    fn hidden(&mut self, stage: Stage, rows: &[f32]) {
        match self.stages.iter_mut().find(|(seen, _)| *seen == stage) {
            Some((_, hash)) => hash.update(rows),
            None => {
                let mut hash = LogitsHash::new();
                hash.update(rows);
                self.stages.push((stage, hash));
            }
        }
    }
}

impl Hashes<'_> {
    fn into_report(self) -> Vec<LayerHash> {
        let name = |stage| match stage {
            Stage::Embedding => "embedding".to_owned(),
            Stage::Layer(index) => format!("layer {index}"),
            Stage::FinalNorm => "final norm".to_owned(),
        };
        let report = |(stage, hash): (Stage, LogitsHash)| LayerHash {
            stage: name(stage),
            hash: hex(hash.finish()),
        };
        self.stages.into_iter().map(report).collect()
    }
}

/// Receives rows of logits.
enum Sink {
    Nothing,
    Npy(Box<dyn Write>),
    Rows(Vec<Vec<f32>>),
}

impl Sink {
    fn open(target: Option<&Target>, rows: usize, vocab: usize) -> anyhow::Result<Self> {
        let mut to: Box<dyn Write> = match target {
            None => return Ok(Self::Nothing),
            Some(Target::JsonStdout | Target::JsonFile(_)) => return Ok(Self::Rows(Vec::new())),
            Some(Target::NpyStdout) => Box::new(io::stdout().lock()),
            Some(Target::NpyFile(path)) => Box::new(BufWriter::new(create(path)?)),
        };
        to.write_all(&npy::header_f32(rows, vocab))
            .map_err(write_failure)?;
        Ok(Self::Npy(to))
    }

    fn take(&mut self, logits: &[f32], vocab: usize) -> anyhow::Result<()> {
        match self {
            Self::Nothing => {}
            Self::Npy(to) => {
                for row in logits.chunks(vocab) {
                    let bytes: Vec<u8> = row.iter().flat_map(|logit| logit.to_le_bytes()).collect();
                    to.write_all(&bytes).map_err(write_failure)?;
                }
            }
            Self::Rows(rows) => rows.extend(logits.chunks(vocab).map(<[f32]>::to_vec)),
        }
        Ok(())
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn write_failure(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => output::Closed.into(),
        _ => anyhow::Error::new(error).context("cannot write the logits"),
    }
}

fn finish(
    mut report: Report,
    sink: Sink,
    target: Option<&Target>,
    json: bool,
) -> anyhow::Result<()> {
    match (sink, target) {
        (Sink::Npy(mut to), _) => to.flush().map_err(write_failure)?,
        (Sink::Rows(rows), Some(Target::JsonFile(path))) => {
            let mut file = BufWriter::new(create(path)?);
            serde_json::to_writer(&mut file, &rows)
                .map_err(io::Error::from)
                .and_then(|()| file.flush())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        (Sink::Rows(rows), _) => {
            report.logits = Some(rows);
            return output::json(&report);
        }
        (Sink::Nothing, _) => {}
    }
    if json {
        return output::json(&report);
    }
    let mut lines = format!(
        "logits_hash {} (arithmetic {}, {} rows of {})",
        report.logits_hash, report.computing.arithmetic_version, report.rows, report.vocab
    );
    for layer in &report.layers {
        lines.push_str(&format!("\n{} {}", layer.hash, layer.stage));
    }
    if target == Some(&Target::NpyStdout) {
        output::note(&lines);
        return Ok(());
    }
    output::line(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!("npy".parse::<Target>().unwrap(), Target::NpyStdout);
        assert_eq!("json".parse::<Target>().unwrap(), Target::JsonStdout);
        assert_eq!(
            "a/b.npy".parse::<Target>().unwrap(),
            Target::NpyFile("a/b.npy".into())
        );
        assert_eq!(
            "b.json".parse::<Target>().unwrap(),
            Target::JsonFile("b.json".into())
        );
        "b.txt".parse::<Target>().unwrap_err();
        "".parse::<Target>().unwrap_err();
    }
}
