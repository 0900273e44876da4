//! `redline bench`: how fast a model loads, reads prompts and generates on this machine, and how
//! near that is to what the machine can do.

use std::collections::BTreeMap;

use anyhow::Context as _;
use redline_gguf::Gguf;
use redline_model::{ModelFile, Properties};

use crate::bench::capture::Job;
use crate::bench::cost::Cost;
use crate::bench::report::{self, Build, Report, Subject, Surroundings};
use crate::bench::selection::TestArgs;
use crate::bench::{self, capture};
use crate::cli::Compute;
use crate::commands::Context;
use crate::environment::Environment;
use crate::failure::{Incorrect, Usage};
use crate::models::cache;
use crate::models::{self, Resolved};
use crate::progress::Progress;
use crate::session::Computing;
use crate::{output, session};

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(help = format!(
        "A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]` [default: {}]",
        models::SYNTHETIC_DEFAULT
    ))]
    model: Option<String>,
    /// What to measure: a model, or each kernel by itself, where the sizes are fixed
    #[arg(long, value_enum, default_value_t = Suite::Model)]
    suite: Suite,
    /// Only kernels whose name holds one of these: `q4_k`, `attention`, `m512`
    #[arg(long, value_name = "TEXT,…")]
    filter: Option<String>,
    #[command(flatten)]
    tests: TestArgs,
    /// Process launches, each a replicate [default: 5]
    #[arg(short = 'r', long, value_name = "LAUNCHES")]
    repetitions: Option<usize>,
    /// Form of the result
    #[arg(short = 'o', long, value_enum, default_value_t = Form::Md)]
    output: Form,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Process launches where nobody says.
const LAUNCHES: usize = 5;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    Model,
    Kernels,
}

/// Forms of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Md,
    Json,
    Csv,
}

/// Measures and prints.
///
/// # Errors
/// [`Incorrect`] if launches put out different tokens or logits; otherwise if the model cannot be
/// had or run.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    if args.suite == Suite::Kernels {
        return kernels(args, context);
    }
    let launches = args.repetitions.unwrap_or(LAUNCHES);
    if launches == 0 {
        return Err(Usage("-r must be at least 1, found 0".into()).into());
    }
    if args.filter.is_some() {
        return Err(Usage("--filter chooses kernels: give --suite kernels too".into()).into());
    }
    let tests = args.tests.tests()?;
    let model = args.model.as_deref().unwrap_or(models::SYNTHETIC_DEFAULT);
    let resolved = models::resolve(Some(model), context)?;
    let file = session::open(&resolved)?;
    let gguf = session::parse(&file, &resolved)?;
    let properties = Properties::from_gguf(&gguf)?;
    for test in tests {
        test.check(&resolved.name, properties.context_length)?;
    }
    let environment = Environment::detect();
    note_load(&environment);
    read(&file, &resolved)?;
    let peaks = capture::peaks(context)?;
    let job = Job {
        path: &resolved.path,
        tests: &args.tests,
        launches,
    };
    let launches = capture::launches(&job, context)?;
    let report = Report::new(
        subject(&gguf, &resolved, file.bytes()),
        Computing::new(&context.config),
        &launches,
        report::rows(
            &launches,
            &Cost::new(&gguf, &properties, context.config.kv),
            &peaks,
        ),
        Surroundings {
            limits: peaks,
            environment,
            build: build(),
        },
    );
    match form(args, context) {
        Form::Md => output::text(&report.markdown()),
        Form::Json => output::json(&report),
        Form::Csv => output::text(&report.csv()),
    }?;
    if report.correct {
        return Ok(());
    }
    Err(Incorrect("the launches put out different tokens or logits".into()).into())
}

/// Times each kernel, and prints.
fn kernels(args: &Args, context: &Context) -> anyhow::Result<()> {
    if args.model.is_some() || args.repetitions.is_some() || args.tests.are_given() {
        return Err(Usage(
            "--suite kernels takes no model and none of -p, -n, -d, -b, -r: --filter chooses kernels"
                .into(),
        )
        .into());
    }
    note_load(&Environment::detect());
    let report = bench::kernels::run(args.filter.as_deref(), context)?;
    match form(args, context) {
        Form::Md => output::text(&report.markdown()),
        Form::Json => output::json(&report),
        Form::Csv => output::text(&report.csv()),
    }?;
    if report.correct {
        return Ok(());
    }
    Err(Incorrect("a kernel's output differs from the scalar code's".into()).into())
}

fn note_load(environment: &Environment) {
    if let Some(load) = environment.load_average_1m.filter(|load| *load > 0.5) {
        output::note(&format!(
            "the machine is not idle (load average {load:.1}): figures will suffer"
        ));
    }
}

fn form(args: &Args, context: &Context) -> Form {
    if context.json {
        Form::Json
    } else {
        args.output
    }
}

/// Reads the file, so that every launch finds it in the system's cache, in as large pages as a
/// mapping gets.
fn read(file: &ModelFile, resolved: &Resolved) -> anyhow::Result<()> {
    let label = format!("reading {}", resolved.name);
    let mut progress = Progress::bytes(&label, Some(file.bytes()));
    let done = file.page_in(|bytes| progress.set(bytes));
    progress.clear();
    done.with_context(|| format!("cannot read {}", resolved.path.display()))
}

fn subject(gguf: &Gguf<'_>, resolved: &Resolved, file_bytes: u64) -> Subject {
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in gguf.tensors().iter().filter(|tensor| tensor.dims.len() > 1) {
        *formats.entry(tensor.tensor_type.name()).or_default() += tensor.data.len();
    }
    let mut formats: Vec<(&str, usize)> = formats.into_iter().collect();
    formats.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let architecture = gguf.metadata().str("general.architecture").ok().flatten();
    Subject {
        name: resolved.name.clone(),
        weights: resolved.weights(),
        architecture: architecture.unwrap_or("unknown").to_owned(),
        parameters: gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.weights() as u64)
            .sum(),
        file_bytes,
        formats: formats
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect(),
    }
}

fn build() -> Build {
    let binary_sha256 = std::env::current_exe()
        .map_err(anyhow::Error::from)
        .and_then(|path| cache::file_sha256(&path, None));
    Build {
        commit: option_env!("REDLINE_COMMIT").unwrap_or("unknown"),
        binary_sha256: binary_sha256.unwrap_or_else(|_| "unknown".to_owned()),
    }
}
