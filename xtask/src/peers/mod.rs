//! `cargo xtask peers`: Redline beside other engines, in turns, on the same file with the same
//! threads.
//!
//! A round runs every engine once on one test, each in a process of its own, the order reversed in
//! every other round. A probe of the machine stands between any two runs of a decode test, so that
//! each run has one right before and one right after it; where they differ by more than a quarter,
//! the run is dropped. Ratios are of runs of the same round, their interval by bootstrap.

mod arguments;
mod build;
mod engines;
mod report;
mod statistics;
mod suite;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::shell::{command, output, run as run_command};
use arguments::Arguments;
use engines::{Engine, Ours, Sample};
use report::{Figures, Report};

pub(crate) use arguments::USAGE;

/// One test of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    /// This many prompt tokens.
    Prompt(usize),
    /// This many steps at a depth.
    Generate { tokens: usize, depth: usize },
    /// This many sequences together, 32 steps after prompts of 64 tokens.
    Batch(usize),
}

impl Test {
    fn name(self) -> String {
        match self {
            Self::Prompt(tokens) => format!("pp{tokens}"),
            Self::Generate { tokens, depth: 0 } => format!("tg{tokens}"),
            Self::Generate { tokens, depth } => format!("tg{tokens} @ d{depth}"),
            Self::Batch(sequences) => format!("tg32 @ d64 b{sequences}"),
        }
    }

    fn is_decode(self) -> bool {
        !matches!(self, Self::Prompt(_))
    }
}

/// A model file and what it is called.
#[derive(Debug, Clone)]
struct Model {
    name: String,
    path: PathBuf,
    bytes: u64,
}

pub(crate) fn run(words: &[&str]) -> Result<()> {
    let arguments = Arguments::parse(words)?;
    let plans = arguments.plans()?;
    let ours = Ours {
        binary: match &arguments.redline {
            Some(path) => path.clone(),
            None => build_redline()?,
        },
        threads: arguments.threads,
        isa: arguments.isa.clone(),
    };
    let peers = arguments.engines()?;
    let mut report = Report::new(&ours, &peers)?;
    let start = Instant::now();
    for plan in plans {
        let model = engines::model(&ours, &plan.model)?;
        let mut peers: Vec<Engine> = peers.clone();
        for test in &plan.tests {
            let rounds = arguments.rounds;
            println!(
                "── {} {}: {rounds} rounds, {} s so far",
                model.name,
                test.name(),
                start.elapsed().as_secs()
            );
            let figures = measure(&ours, &mut peers, &model, *test, rounds)?;
            println!("{}", figures.line());
            report.figures.push(figures);
            save(&arguments, &report)?;
        }
        if plan.extras {
            let line = suite::extras(&ours, &model)?;
            println!("{line}");
            report.extras.push(line);
        }
    }
    if arguments.suite {
        report.extras.push(suite::other_instruction_sets(&ours)?);
    }
    save(&arguments, &report)?;
    if arguments.output.is_none() {
        println!("\n{}", text(&arguments, &report)?);
    }
    Ok(())
}

fn text(arguments: &Arguments, report: &Report) -> Result<String> {
    Ok(if arguments.json {
        serde_json::to_string_pretty(&report.json())? + "\n"
    } else {
        report.markdown()
    })
}

/// Puts what is measured so far where the result goes: a suite takes long, and may be stopped.
fn save(arguments: &Arguments, report: &Report) -> Result<()> {
    let Some(path) = &arguments.output else {
        return Ok(());
    };
    std::fs::write(path, text(arguments, report)?)
        .with_context(|| format!("writing {}", path.display()))
}

/// All rounds of one test. A peer that fails is left out of the rounds and tests that follow.
fn measure(
    ours: &Ours,
    peers: &mut Vec<Engine>,
    model: &Model,
    test: Test,
    rounds: usize,
) -> Result<Figures> {
    let mut figures = Figures::new(model, test, peers);
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..=peers.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        let mut before = ours.probe(model, test)?;
        for engine in order {
            let result = match engine {
                0 => Ok(ours.measure(model, test)?),
                peer => peers[peer - 1].measure(model, test, ours.threads),
            };
            let after = ours.probe(model, test)?;
            let name = match engine {
                0 => "redline",
                peer => peers[peer - 1].name.as_str(),
            };
            match result {
                Ok(rate) => figures.add(name, round, Sample::new(rate, before, after)),
                Err(failure) => figures.fail(name, failure),
            }
            before = after;
        }
        peers.retain(|peer| !figures.has_crashed(&peer.name));
    }
    Ok(figures)
}

/// The optimised binary.
fn build_redline() -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    run_command(&mut command(
        "cargo",
        &["build", "--release", "--package", "redline"],
    ))?;
    let json = output(&mut command(
        "cargo",
        &["metadata", "--no-deps", "--format-version", "1"],
    ))?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
    let binary = metadata.target_directory.join("release/redline");
    ensure!(binary.exists(), "cargo left no {}", binary.display());
    Ok(binary)
}
