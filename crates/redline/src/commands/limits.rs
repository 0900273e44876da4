//! `redline limits`: what this machine can do at most.

use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use redline_compute::limits::{
    self, Bandwidth, BandwidthProbe, LimitsOptions, LimitsProgress, MachineLimits, Operand, Route,
    Samples,
};
use serde_json::{Value, json};

use crate::commands::Context;
use crate::environment::Environment;
use crate::failure::Usage;
use crate::{output, units};

/// Flags of `limits`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Thread counts to measure [default: 1, 2, 4, … and all cores]
    #[arg(short = 't', long, value_name = "N,…", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Three samples of 50 ms for each figure instead of ten of 200 ms
    #[arg(long)]
    quick: bool,
    /// Only how fast a set of this size is read, by the largest of the thread counts: five samples of
    /// 20 ms, a probe to stand between other programs
    #[arg(long, value_name = "BYTES")]
    read: Option<usize>,
}

/// Measures, and prints a table, or everything as JSON.
///
/// # Errors
/// [`Usage`] for a thread count out of range; otherwise if the system gives no memory to read, or
/// the user stops the measurement.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let options = options(args, context.config.threads.get())?;
    if let Some(bytes) = args.read {
        return read(bytes, options.threads.into_iter().max(), context);
    }
    let environment = Environment::detect();
    if let Some(load) = environment.load_average_1m.filter(|load| *load > 0.5) {
        output::note(&format!(
            "the machine is not idle (load average {load:.1}): others share what is measured"
        ));
    }
    let mut shown = Shown::new();
    let measured = limits::measure(&options, &mut |step| {
        shown.step(step);
        if context.interrupt.asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    shown.clear();
    let limits = match measured {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            anyhow::bail!("limits: stopped before the end")
        }
        measured => measured.context("no memory to measure the read bandwidth with")?,
    };
    if context.json {
        return output::json(&document(&environment, &options, &limits));
    }
    output::text(&report(&environment, &limits))
}

/// One probe of the read bandwidth.
fn read(bytes: usize, threads: Option<usize>, context: &Context) -> anyhow::Result<()> {
    let measured = BandwidthProbe::with_working_set(threads.unwrap_or(1), bytes)
        .context("no memory to measure the read bandwidth with")?
        .measure(5, Duration::from_millis(20));
    if context.json {
        return output::json(&bandwidth(&measured));
    }
    let mut text = String::new();
    let what = format!("read, {}", units::bytes(measured.working_set_bytes as u64));
    row(
        &mut text,
        &what,
        measured.threads,
        &measured.samples,
        1e9,
        "GB/s",
    );
    output::text(&text)
}

fn options(args: &Args, cores: usize) -> Result<LimitsOptions, Usage> {
    let mut options = if args.quick {
        LimitsOptions::quick(cores)
    } else {
        LimitsOptions::full(cores)
    };
    if !args.threads.is_empty() {
        options.threads.clone_from(&args.threads);
        options.threads.sort_unstable();
        options.threads.dedup();
    }
    match options
        .threads
        .iter()
        .find(|count| !(1..=MAX_THREADS).contains(*count))
    {
        Some(count) => Err(Usage(format!(
            "threads must be 1 to {MAX_THREADS}, found {count}"
        ))),
        None => Ok(options),
    }
}

/// More threads than any one machine has cores.
const MAX_THREADS: usize = 1024;

/// Progress on stderr: a bar on a terminal, a line each quarter in a log.
struct Shown {
    bar: Option<ProgressBar>,
    quarters: usize,
}

impl Shown {
    fn new() -> Self {
        let bar = output::stderr_is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.with_style(
                ProgressStyle::with_template("{pos:>3}/{len} [{bar:24}] {msg}").map_or_else(
                    |_| ProgressStyle::default_bar(),
                    |s| s.progress_chars("=> "),
                ),
            )
        });
        Self { bar, quarters: 0 }
    }

    fn step(&mut self, step: &LimitsProgress) {
        if let Some(bar) = &self.bar {
            bar.set_length(step.total as u64);
            bar.set_position(step.done as u64);
            bar.set_message(step.what.clone());
        } else if step.done * 4 >= step.total * self.quarters {
            output::note(&format!(
                "limits: {} of {}, {}",
                step.done, step.total, step.what
            ));
            self.quarters += 1;
        }
    }

    fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The document of `--json`: units in the names, every sample kept.
fn document(environment: &Environment, options: &LimitsOptions, limits: &MachineLimits) -> Value {
    let absent: Vec<&str> = OPERANDS
        .into_iter()
        .filter(|operand| limits.operations_per_second(*operand).is_none())
        .map(Operand::name)
        .collect();
    json!({
        "environment": environment,
        "passes": options.passes,
        "pass_ms": options.pass.as_secs_f64() * 1e3,
        "best": {
            "read_bytes_per_second": limits.read_bytes_per_second(),
            "int8_operations_per_second": limits.operations_per_second(Operand::Int8),
            "bf16_operations_per_second": limits.operations_per_second(Operand::Bf16),
            "f32_operations_per_second": limits.operations_per_second(Operand::F32),
        },
        "not_applicable": absent,
        "read_bandwidth": limits.bandwidth.iter().map(bandwidth).collect::<Value>(),
        "read_bandwidth_by_working_set": limits.curve.iter().map(bandwidth).collect::<Value>(),
        "peaks": limits.peaks.iter().map(|peak| json!({
            "operand": peak.route.operand().name(),
            "instruction": peak.route.name(),
            "threads": peak.threads,
            "operations_per_second": peak.samples.median(),
            "samples": peak.samples.0,
        })).collect::<Value>(),
        "dispatch": limits.dispatches.iter().map(|dispatch| json!({
            "threads": dispatch.threads,
            "dispatch_ns": dispatch.samples_ns.median(),
            "samples": dispatch.samples_ns.0,
        })).collect::<Value>(),
    })
}

fn bandwidth(bandwidth: &Bandwidth) -> Value {
    json!({
        "threads": bandwidth.threads,
        "working_set_bytes": bandwidth.working_set_bytes,
        "pattern": bandwidth.pattern.name(),
        "bytes_per_second": bandwidth.samples.median(),
        "samples": bandwidth.samples.0,
    })
}

const OPERANDS: [Operand; 3] = [Operand::Int8, Operand::Bf16, Operand::F32];

fn report(environment: &Environment, limits: &MachineLimits) -> String {
    let mut text = describe(environment);
    let _ = writeln!(
        text,
        "\n{:<32}{:>8}{:>12}  range",
        "limit", "threads", "median"
    );
    for point in &limits.bandwidth {
        let what = format!("read, {}", units::bytes(point.working_set_bytes as u64));
        row(&mut text, &what, point.threads, &point.samples, 1e9, "GB/s");
    }
    for route in Route::ALL {
        for peak in limits.peaks.iter().filter(|peak| peak.route == route) {
            let what = format!("{} {}", route.operand().name(), route.name());
            row(&mut text, &what, peak.threads, &peak.samples, 1e12, "TOPS");
        }
    }
    for operand in OPERANDS {
        if limits.operations_per_second(operand).is_none() {
            let _ = writeln!(text, "{:<32}{:>20}", operand.name(), "not applicable");
        }
    }
    for dispatch in &limits.dispatches {
        row(
            &mut text,
            "dispatch of all threads",
            dispatch.threads,
            &dispatch.samples_ns,
            1e3,
            "µs",
        );
    }
    if !limits.curve.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<32}{:>8}{:>12}  range",
            "read by working set", "threads", "median"
        );
    }
    for point in &limits.curve {
        let what = units::bytes(point.working_set_bytes as u64);
        row(&mut text, &what, point.threads, &point.samples, 1e9, "GB/s");
    }
    text
}

fn row(text: &mut String, what: &str, threads: usize, samples: &Samples, unit: f64, name: &str) {
    let (low, high) = samples.range();
    let _ = writeln!(
        text,
        "{what:<32}{threads:>8}{:>12.2}  {:.2}–{:.2} {name}, n={}",
        samples.median() / unit,
        low / unit,
        high / unit,
        samples.0.len()
    );
}

fn describe(environment: &Environment) -> String {
    let mut text = format!(
        "{}, {} cores, {}, {}\n",
        environment.cpu, environment.cores, environment.virtualization, environment.kernel
    );
    for (name, bytes) in &environment.cache_bytes {
        let _ = write!(text, "{name} {}, ", units::bytes(*bytes));
    }
    let memory = environment
        .memory_bytes
        .map_or_else(|| "unknown".to_owned(), units::bytes);
    let load = environment
        .load_average_1m
        .map_or_else(|| "unknown".to_owned(), |l| l.to_string());
    let _ = writeln!(
        text,
        "memory {memory}, huge pages {}, load {load}",
        environment.huge_pages
    );
    let _ = writeln!(text, "{}", environment.cpu_flags.join(" "));
    text
}

#[cfg(test)]
mod tests {
    use redline_compute::limits::{Dispatch, Pattern, Peak};

    use super::*;

    fn measured() -> MachineLimits {
        let bandwidth = |threads, rate| Bandwidth {
            threads,
            working_set_bytes: 1 << 30,
            pattern: Pattern::Four,
            samples: Samples(vec![rate, 2.0 * rate, 4.0 * rate]),
        };
        let peak = |route, rate| Peak {
            route,
            threads: 1,
            samples: Samples(vec![rate]),
        };
        MachineLimits {
            bandwidth: vec![bandwidth(1, 10e9), bandwidth(2, 15e9)],
            curve: vec![bandwidth(2, 60e9)],
            peaks: vec![peak(Route::Dot512, 1e12), peak(Route::Fma512, 0.25e12)],
            dispatches: vec![Dispatch {
                threads: 2,
                samples_ns: Samples(vec![300.0]),
            }],
        }
    }

    #[test]
    fn the_table_holds_every_figure_and_says_what_is_absent() {
        let text = report(&Environment::detect(), &measured());
        for expected in [
            "read, 1.0 GiB                          1       20.00  10.00–40.00 GB/s, n=3",
            "int8 vpdpbusd zmm                      1        1.00  1.00–1.00 TOPS, n=1",
            "bf16                                  not applicable",
            "dispatch of all threads                2        0.30",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_document_keeps_samples_and_names_the_best() {
        let options = LimitsOptions::quick(2);
        let document = document(&Environment::detect(), &options, &measured());
        let document = serde_json::to_value(document).unwrap();
        assert_eq!(document["best"]["read_bytes_per_second"], 30e9);
        assert_eq!(document["best"]["int8_operations_per_second"], 1e12);
        assert_eq!(document["best"]["bf16_operations_per_second"], Value::Null);
        assert_eq!(document["not_applicable"], json!(["bf16"]));
        assert_eq!(
            document["read_bandwidth"][1]["samples"],
            json!([15e9, 30e9, 60e9])
        );
        assert_eq!(document["peaks"][0]["instruction"], "vpdpbusd zmm");
    }

    #[test]
    fn thread_counts_are_checked_sorted_and_distinct() {
        let args = |threads| Args {
            threads,
            quick: true,
            read: None,
        };
        assert_eq!(options(&args(vec![2, 1, 2]), 8).unwrap().threads, [1, 2]);
        assert_eq!(options(&args(Vec::new()), 4).unwrap().threads, [1, 2, 4]);
        let error = options(&args(vec![1, 0]), 4).unwrap_err().to_string();
        assert!(error.contains("found 0"), "{error}");
    }
}
