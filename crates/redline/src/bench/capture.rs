//! Launches: this program, started again and again, measuring one after the other.

use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use redline_compute::Isa;
use redline_compute::limits::{self, LimitsOptions, Operand, Peak, Route};
use serde::Serialize;

use super::selection::TestArgs;
use super::{Launch, Message};
use crate::commands::Context;
use crate::output;

/// What is launched.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The model's file.
    pub(crate) path: &'a Path,
    /// What to test.
    pub(crate) tests: &'a TestArgs,
    /// Processes.
    pub(crate) launches: usize,
}

/// Arithmetic rates of this machine at the bench's thread count.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Peaks {
    /// Multiplying bytes with the instruction set in use, operations per second.
    pub(crate) int8_operations_per_second: Option<f64>,
    /// Multiplying F32 with the instruction set in use, operations per second.
    pub(crate) f32_operations_per_second: Option<f64>,
    /// Everything this machine has, in use or not.
    pub(crate) routes: Vec<RoutePeak>,
}

/// The rate of one kind of instruction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RoutePeak {
    /// `int8`, `bf16` or `f32`.
    pub(crate) operand: &'static str,
    /// Its name and registers.
    pub(crate) instruction: &'static str,
    /// A multiplication and an addition are two operations.
    pub(crate) operations_per_second: f64,
}

impl Peaks {
    fn new(peaks: &[Peak], isa: Isa) -> Self {
        let rate = |route: Route| {
            let peak = peaks.iter().find(|peak| peak.route == route);
            peak.map(|peak| peak.samples.median())
        };
        Self {
            int8_operations_per_second: Route::of(isa, Operand::Int8).and_then(rate),
            f32_operations_per_second: Route::of(isa, Operand::F32).and_then(rate),
            routes: peaks
                .iter()
                .map(|peak| RoutePeak {
                    operand: peak.route.operand().name(),
                    instruction: peak.route.name(),
                    operations_per_second: peak.samples.median(),
                })
                .collect(),
        }
    }

    /// Every rate in TOPS, for people.
    pub(crate) fn routes(&self) -> String {
        let rate = |peak: &RoutePeak| {
            let rate = peak.operations_per_second / 1e12;
            format!("{} {} {rate:.2}", peak.operand, peak.instruction)
        };
        self.routes.iter().map(rate).collect::<Vec<_>>().join(", ")
    }
}

/// A short measurement of the arithmetic limits.
///
/// # Errors
/// If the user stops it.
pub(crate) fn peaks(context: &Context) -> anyhow::Result<Peaks> {
    let threads = context.config.threads.get();
    let options = LimitsOptions {
        threads: vec![threads],
        passes: 3,
        pass: Duration::from_millis(30),
        // Bandwidth is measured by the launches, over as many bytes as the model has.
        working_set_bytes: Some(threads << 14),
    };
    let shown = Shown::new();
    let limits = limits::measure(&options, &mut |step| {
        shown.say(&format!("limits: {}", step.what));
        if context.interrupt.asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    shown.clear();
    let limits = limits.context("cannot measure the machine's limits")?;
    Ok(Peaks::new(&limits.peaks, context.config.isa))
}

/// Runs all launches, one after the other.
///
/// # Errors
/// If one fails, or the user stops them.
pub(crate) fn launches(job: &Job<'_>, context: &Context) -> anyhow::Result<Vec<Launch>> {
    let shown = Shown::new();
    let launches = (1..=job.launches)
        .map(|number| {
            let label = format!("launch {number} of {}", job.launches);
            launch(job, context, &mut |phase| {
                shown.say(&format!("{label}: {phase}"))
            })
            .with_context(|| label.clone())
        })
        .collect();
    shown.clear();
    launches
}

fn launch(
    job: &Job<'_>,
    context: &Context,
    on_phase: &mut dyn FnMut(&str),
) -> anyhow::Result<Launch> {
    let config = &context.config;
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut worker = Command::new(program)
        .arg("bench-worker")
        .args(job.tests.flags())
        .args(["--isa", config.isa.name()])
        .args(["--kv", config.kv.name()])
        .args(["--threads", &config.threads.to_string()])
        .args(["--chunk", &config.chunk_tokens.to_string()])
        .args(config.mlock.then_some("--mlock"))
        .arg("--")
        .arg(job.path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a worker")?;
    let stdout = worker.stdout.take().context("a worker's stdout is piped")?;
    let mut launch = None;
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line.context("cannot read from the worker")?) {
            Ok(Message::Phase(phase)) => on_phase(&phase),
            Ok(Message::Launch(measured)) => launch = Some(measured),
            Err(error) => return Err(error).context("cannot understand the worker"),
        }
    }
    let status = worker.wait().context("cannot wait for the worker")?;
    if context.interrupt.asked() {
        bail!("interrupted");
    }
    // The worker has said on stderr what went wrong.
    launch
        .filter(|_| status.success())
        .with_context(|| format!("the worker failed ({status})"))
}

/// What is being done: a line that changes on a terminal, a line each in a log.
pub(crate) struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let bar = output::stderr_is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(500));
            bar.with_style(
                ProgressStyle::with_template("{elapsed:>4} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            )
        });
        Self { bar }
    }

    /// This is next.
    pub(crate) fn say(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => output::note(what),
        }
    }

    /// All is done.
    pub(crate) fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
