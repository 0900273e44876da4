//! `--suite issue`: everything the kernels' acceptance list asks for, with its goals.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::build::has_amx;
use super::engines::{self, Ours};
use super::statistics::median;
use super::{Model, Test};

/// Tests of a model.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) model: String,
    pub(super) tests: Vec<Test>,
    /// Whether the start is timed too.
    pub(super) extras: bool,
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    pub(super) percent: Option<f64>,
    pub(super) ratio: Option<f64>,
}

const QWEN_Q4_K_M: &str = "synth:qwen2.5-0.5b:q4_k_m";
const QWEN_Q8_0: &str = "synth:qwen2.5-0.5b:q8_0";
const QWEN_Q4_0: &str = "synth:qwen2.5-0.5b:q4_0";
const QWEN_F16: &str = "synth:qwen2.5-0.5b:f16";
const PHI3: &str = "synth:phi-3-mini-4k:q4_k_m";
const GEMMA: &str = "gemma3-270m";
const SMOLLM: &str = "smollm2-135m";

const DECODE: Test = generate(128, 0);
const DEEP: usize = 4096;

const fn generate(tokens: usize, depth: usize) -> Test {
    Test::Generate { tokens, depth }
}

/// The acceptance list.
pub(super) fn issue() -> Vec<Plan> {
    let both = [DECODE, Test::Prompt(512)];
    let lengths = [32, 128, 1024].map(Test::Prompt);
    let depths = [generate(64, 0), generate(64, DEEP)];
    let batches = [8, 32].map(Test::Batch);
    let plan = |model: &str, more: &[&[Test]], extras| Plan {
        model: model.to_owned(),
        tests: [&[&both as &[Test]], more].concat().concat(),
        extras,
    };
    vec![
        plan(QWEN_Q4_K_M, &[&lengths, &depths], true),
        plan(QWEN_Q8_0, &[], false),
        plan(QWEN_Q4_0, &[&batches], false),
        plan(QWEN_F16, &[], false),
        plan(GEMMA, &[], false),
        plan(SMOLLM, &[&lengths, &batches], false),
        plan(PHI3, &[], true),
    ]
}

/// What the list asks of a test.
pub(super) fn goal(model: &str, test: Test) -> Option<Goal> {
    let goal = |percent, ratio| {
        Some(Goal {
            percent: Some(percent),
            ratio: Some(ratio),
        })
    };
    let ratio = |ratio| {
        Some(Goal {
            percent: None,
            ratio: Some(ratio),
        })
    };
    match (model, test) {
        (QWEN_F16, DECODE) => goal(85.0, 1.15),
        (QWEN_Q4_K_M | QWEN_Q8_0 | QWEN_Q4_0 | PHI3, DECODE) => goal(85.0, 1.5),
        (GEMMA, DECODE) => goal(80.0, 1.5),
        (SMOLLM, DECODE) => goal(65.0, 1.5),
        (QWEN_F16, Test::Prompt(512)) => goal(60.0, 3.0),
        (QWEN_Q4_0, Test::Prompt(512)) => goal(55.0, 2.3),
        (QWEN_Q4_K_M | QWEN_Q8_0 | PHI3 | GEMMA | SMOLLM, Test::Prompt(512)) => goal(55.0, 3.0),
        (QWEN_Q4_0, Test::Batch(8)) => ratio(2.0),
        (QWEN_Q4_0, Test::Batch(32)) => ratio(3.0),
        _ => None,
    }
}

/// Times a start: load, first token of a prompt of ten tokens, memory.
pub(super) fn extras(ours: &Ours, model: &Model) -> Result<String> {
    const STARTS: usize = 5;
    let prompt = prompt_of_ten(ours, model)?;
    let starts: Vec<f64> = (0..STARTS)
        .map(|_| first_token_ms(ours, model, &prompt))
        .collect::<Result<_>>()?;
    let (_, own) = ours.measure(model, Test::Prompt(10))?;
    let own = own.context("redline tells of itself")?;
    let peak = own.peak_rss_bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| {
            format!(
                "{} MiB, {:.1} % of the file",
                bytes >> 20,
                100.0 * bytes as f64 / model.bytes as f64
            )
        },
    );
    Ok(format!(
        "{}: exec to first token of a 10-token prompt, pages cached: {:.0} ms (median of {STARTS}: {}); \
         load {:.1} ms; peak resident {peak}.",
        model.name,
        median(&starts),
        starts
            .iter()
            .map(|ms| format!("{ms:.0}"))
            .collect::<Vec<_>>()
            .join(", "),
        own.load_ms
    ))
}

/// A text that the model's tokenizer makes ten tokens of.
fn prompt_of_ten(ours: &Ours, model: &Model) -> Result<String> {
    let mut text = "The".to_owned();
    for _ in 0..64 {
        let path = model.path.to_string_lossy();
        let mut tokenize = Command::new(&ours.binary);
        tokenize.args(["tokenize", &path, &text, "--json"]);
        let json = engines::json(&engines::finished(&mut tokenize)?)?;
        let count = json["tokens"].as_array().or(json["ids"].as_array());
        let count = count.with_context(|| format!("redline tokenize said {json}"))?;
        if count.len() >= 10 {
            return Ok(text);
        }
        text += " a";
    }
    Ok(text)
}

/// From starting the process to the first byte of its answer.
fn first_token_ms(ours: &Ours, model: &Model, prompt: &str) -> Result<f64> {
    let start = Instant::now();
    let mut run = Command::new(&ours.binary)
        .arg("run")
        .arg(&model.path)
        .arg(prompt)
        .args(["--raw", "--temperature", "0", "--max-tokens", "1"])
        .args(["-t", &ours.threads.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start redline run")?;
    let mut stdout = run.stdout.take().context("its stdout is piped")?;
    // A token may be half a character, and show nothing before the end.
    let read = stdout.read(&mut [0]);
    let time = start.elapsed();
    read.context("reading its answer")?;
    ensure!(run.wait()?.success(), "redline run failed");
    Ok(time.as_secs_f64() * 1e3)
}

/// Lesser instruction sets by themselves, and whether their output has the same bits.
pub(super) fn other_instruction_sets(ours: &Ours) -> Result<String> {
    let mut lines = Vec::new();
    for name in [PHI3, QWEN_Q8_0] {
        for test in [DECODE, Test::Prompt(512)] {
            lines.push(on("avx2", ours, name, test)?);
        }
    }
    if has_amx() {
        // What AMX does to a prompt hides what the vectors do.
        for name in [QWEN_Q4_K_M, QWEN_Q8_0, QWEN_Q4_0, GEMMA, SMOLLM, PHI3] {
            lines.push(on("avx512", ours, name, Test::Prompt(512))?);
        }
    }
    Ok(lines.join("\n- "))
}

fn on(isa: &str, ours: &Ours, name: &str, test: Test) -> Result<String> {
    let lesser = Ours {
        binary: ours.binary.clone(),
        threads: ours.threads,
        isa: Some(isa.to_owned()),
    };
    let model = engines::model(ours, name)?;
    let (rate, own) = lesser.measure(&model, test)?;
    let own = own.context("redline tells of itself")?;
    let (_, best) = ours.measure(&model, test)?;
    let same = best.is_some_and(|best| best.output_hash == own.output_hash);
    let done = rate * own.cost_per_token;
    let share = own
        .probe_per_second
        .map_or(f64::NAN, |probe| 100.0 * done / probe);
    let (done, unit) = if test.is_decode() {
        (done / 1e9, "GB/s")
    } else {
        (done / 1e12, "TOPS")
    };
    let same = if same {
        "equal to the default's"
    } else {
        "DIFFERENT from the default's"
    };
    let test = test.name();
    Ok(format!(
        "{isa}, {name} {test}: {rate:.1} t/s, {done:.2} {unit}, {share:.1} % of its limit; output {same}."
    ))
}
