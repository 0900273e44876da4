//! From launches to figures: a pure function of what was measured.

use serde::Serialize;

use super::capture::Peaks;
use super::cost::Cost;
use super::selection::{Phase, Test};
use super::{Launch, Round, Run, median};
use crate::environment::Environment;
use crate::session::Computing;

/// A finished benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of this document's shape.
    pub(crate) schema_version: u32,
    /// What was measured.
    pub(crate) model: Subject,
    /// How.
    #[serde(flatten)]
    pub(crate) computing: Computing,
    /// Processes.
    pub(crate) launches: usize,
    /// From opening the file to a model that can step, pages cached; one sample a launch.
    pub(crate) load_ms: Vec<f64>,
    /// Largest resident set of any launch.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// The tests.
    pub(crate) results: Vec<Row>,
    /// Whether every round of every launch put out the same.
    pub(crate) correct: bool,
    /// What it ran on.
    #[serde(flatten)]
    pub(crate) surroundings: Surroundings,
}

/// What a benchmark ran on.
#[derive(Debug, Serialize)]
pub(crate) struct Surroundings {
    /// Arithmetic limits.
    pub(crate) limits: Peaks,
    /// The machine.
    pub(crate) environment: Environment,
    /// The program.
    pub(crate) build: Build,
}

impl Report {
    /// Puts a benchmark's parts together.
    pub(crate) fn new(
        model: Subject,
        computing: Computing,
        launches: &[Launch],
        results: Vec<Row>,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            schema_version: 2,
            model,
            computing,
            launches: launches.len(),
            load_ms: launches
                .iter()
                .map(|launch| launch.load_ns as f64 / 1e6)
                .collect(),
            peak_rss_bytes: launches
                .iter()
                .filter_map(|launch| launch.peak_rss_bytes)
                .max(),
            correct: results.iter().all(|row| row.output_hash.is_some()),
            results,
            surroundings,
        }
    }
}

/// The model of a report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Subject {
    /// As the user calls it.
    pub(crate) name: String,
    /// `real` or `synthetic`.
    pub(crate) weights: &'static str,
    /// `general.architecture`.
    pub(crate) architecture: String,
    /// All weights.
    pub(crate) parameters: u64,
    /// Size of the file.
    pub(crate) file_bytes: u64,
    /// The formats with the most bytes first.
    pub(crate) formats: Vec<String>,
}

/// Which program measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Build {
    /// Commit that was checked out when it was built; `unknown` outside a checkout.
    pub(crate) commit: &'static str,
    /// SHA-256 of the executable.
    pub(crate) binary_sha256: String,
}

/// One test over all launches. The first eight fields are those of llama-bench.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// `pp512`, `tg128 @ d4096`, `tg32 @ d64 b8`.
    pub(crate) test: String,
    /// Prompt tokens that are timed.
    pub(crate) n_prompt: usize,
    /// Decode steps.
    pub(crate) n_gen: usize,
    /// Tokens in the cache before.
    pub(crate) n_depth: usize,
    /// Mean of `samples_ts`.
    pub(crate) avg_ts: f64,
    /// Their sample standard deviation; null below two samples.
    pub(crate) stddev_ts: Option<f64>,
    /// Tokens per second of all sequences together, one for each launch: its median clean round.
    pub(crate) samples_ts: Vec<f64>,
    /// The same as durations of a round.
    pub(crate) samples_ns: Vec<f64>,
    /// Sequences that decode together.
    pub(crate) sequences: usize,
    /// Median of the launches that were not contaminated (of all, if all were).
    pub(crate) median_ts: f64,
    /// Every round of every launch, with its probes: bytes read or operations, per second.
    pub(crate) rounds: Vec<Vec<Round>>,
    /// Rounds left out because the probes around them differ by more than a quarter.
    pub(crate) dropped_rounds: usize,
    /// For each launch, whether all its rounds would have to be left out.
    pub(crate) contaminated: Vec<bool>,
    /// Median of the rounds' probes, in what `probe` says; null without a probe.
    pub(crate) probe_per_second: Option<f64>,
    /// What the probe counts: `bytes` read, or `int8` or `f32` operations.
    pub(crate) probe: &'static str,
    /// Bytes a decode step must read.
    pub(crate) bytes_per_step: Option<f64>,
    /// What is read a second.
    pub(crate) gigabytes_per_second: Option<f64>,
    /// Operations of the linear layers a second.
    pub(crate) linear_operations_per_second: f64,
    /// Least possible time over measured time, in percent, round by round against the probes around
    /// it; null where a limit is not known. Prefill counts its linear layers alone.
    pub(crate) pct_of_limit: Option<f64>,
    /// The same of each launch.
    pub(crate) samples_pct_of_limit: Vec<Option<f64>>,
    /// The limit that binds: `read` or `compute`.
    pub(crate) bound_by: Option<&'static str>,
    /// Hash of the output, if all rounds agree.
    pub(crate) output_hash: Option<String>,
}

/// Figures of every test.
pub(crate) fn rows(launches: &[Launch], cost: &Cost, peaks: &Peaks) -> Vec<Row> {
    let count = launches.first().map_or(0, |launch| launch.runs.len());
    (0..count)
        .map(|index| {
            let runs: Vec<&Run> = launches
                .iter()
                .filter_map(|launch| launch.runs.get(index))
                .collect();
            row(&runs, cost, peaks)
        })
        .collect()
}

fn row(runs: &[&Run], cost: &Cost, peaks: &Peaks) -> Row {
    let test = runs[0].test;
    let decode = test.phase == Phase::Decode;
    let tokens = test.total_tokens() as f64;
    let operations = cost.operations(test);
    let limit = |round: &Round| limit(test, cost, peaks, round.probe());
    let percent = |round: &Round| limit(round).map_or(f64::NAN, |limit| limit.percent(round));

    let samples_ns: Vec<f64> = each(runs, |round| round.ns as f64);
    let samples_ts: Vec<f64> = samples_ns.iter().map(|ns| tokens * 1e9 / ns).collect();
    let contaminated: Vec<bool> = runs.iter().map(|run| run.is_contaminated()).collect();
    let median_ts = of_clean(&contaminated, &samples_ts);
    let percents = each(runs, percent);
    let probe = of_clean(
        &contaminated,
        &each(runs, |round| round.probe().unwrap_or(f64::NAN)),
    );
    let rounds = runs.iter().flat_map(|run| &run.rounds);
    let bytes_per_step = decode.then(|| cost.bytes_per_step(test));
    Row {
        test: test.name(),
        n_prompt: if decode { 0 } else { test.tokens },
        n_gen: if decode { test.tokens } else { 0 },
        n_depth: test.depth,
        avg_ts: mean(&samples_ts),
        stddev_ts: deviation(&samples_ts),
        sequences: test.sequences,
        median_ts,
        rounds: runs.iter().map(|run| run.rounds.clone()).collect(),
        dropped_rounds: rounds.filter(|round| !round.is_clean()).count(),
        bound_by: (runs.first().and_then(|run| run.rounds.first()))
            .and_then(limit)
            .map(|limit| limit.name),
        probe_per_second: finite(probe),
        probe: if decode {
            "bytes"
        } else {
            operations.operand().name()
        },
        bytes_per_step,
        gigabytes_per_second: bytes_per_step
            .map(|bytes| bytes * median_ts / test.sequences as f64 / 1e9),
        linear_operations_per_second: operations.linear() / tokens * median_ts,
        pct_of_limit: finite(of_clean(&contaminated, &percents)),
        samples_pct_of_limit: percents.into_iter().map(finite).collect(),
        output_hash: common_hash(runs),
        contaminated,
        samples_ts,
        samples_ns,
    }
}

/// Each launch's value of a quantity.
fn each(runs: &[&Run], quantity: impl Fn(&Round) -> f64) -> Vec<f64> {
    runs.iter().map(|run| run.median(&quantity)).collect()
}

/// The median over the launches that were not contaminated, over all if all were.
fn of_clean(contaminated: &[bool], values: &[f64]) -> f64 {
    let all = contaminated.iter().all(|contaminated| *contaminated);
    let kept = values.iter().zip(contaminated);
    let kept = kept.filter(|(_, contaminated)| all || !**contaminated);
    median(&kept.map(|(value, _)| *value).collect::<Vec<_>>())
}

fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

/// What the machine needs for a round at least.
struct Limit {
    seconds: f64,
    name: &'static str,
}

impl Limit {
    fn percent(&self, round: &Round) -> f64 {
        100.0 * self.seconds * 1e9 / round.ns as f64
    }
}

/// The least time of a round beside `probe`; `None` without the rates it needs.
fn limit(test: Test, cost: &Cost, peaks: &Peaks, probe: Option<f64>) -> Option<Limit> {
    let operations = cost.operations(test);
    if test.phase == Phase::Prefill {
        // A prompt's weights are read once for all of its tokens.
        return Some(Limit {
            seconds: operations.linear() / probe?,
            name: "compute",
        });
    }
    let read = cost.bytes_per_step(test) * test.tokens as f64 / probe?;
    // Scalar code has no arithmetic limit.
    let seconds = |amount: f64, rate: Option<f64>| rate.map_or(0.0, |rate| amount / rate);
    let compute = seconds(operations.int8, peaks.int8_operations_per_second)
        + seconds(
            operations.f32 + operations.attention,
            peaks.f32_operations_per_second,
        );
    Some(if read > compute {
        Limit {
            seconds: read,
            name: "read",
        }
    } else {
        Limit {
            seconds: compute,
            name: "compute",
        }
    })
}

fn common_hash(runs: &[&Run]) -> Option<String> {
    let rounds = runs.iter().flat_map(|run| &run.rounds);
    let mut hashes = rounds.map(|round| &round.hash);
    let first = hashes.next()?;
    hashes.all(|hash| hash == first).then(|| first.clone())
}

/// The arithmetic mean.
pub(crate) fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// The sample standard deviation.
fn deviation(samples: &[f64]) -> Option<f64> {
    let mean = mean(samples);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (samples.len() > 1).then(|| (squares / (samples.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEAKS: Peaks = Peaks {
        int8_operations_per_second: Some(1e12),
        f32_operations_per_second: Some(1e11),
        routes: Vec::new(),
    };

    fn cost() -> Cost {
        // A model of one matrix of a million bytes and nothing else.
        Cost::of_weights(1_000_000, 1e6)
    }

    fn test(phase: Phase, tokens: usize, sequences: usize) -> Test {
        Test {
            phase,
            tokens,
            depth: 0,
            sequences,
        }
    }

    fn run(test: Test, samples_ns: &[u64], hash: &str, probes: Option<[f64; 2]>) -> Launch {
        let rounds = samples_ns.iter().map(|ns| Round {
            ns: *ns,
            hash: hash.to_owned(),
            probes,
        });
        let rounds = rounds.collect();
        Launch {
            load_ns: 1,
            peak_rss_bytes: None,
            runs: vec![Run { test, rounds }],
        }
    }

    #[test]
    fn a_decode_test_at_half_the_bandwidth() {
        let probes = Some([2e9, 2e9]);
        // 10 steps of 1 MB in 10 ms: 1 GB/s of 2.
        let launches: Vec<Launch> = [9_000_000, 10_000_000, 12_000_000]
            .map(|ns| run(test(Phase::Decode, 10, 1), &[ns], "a", probes))
            .to_vec();
        let row = rows(&launches, &cost(), &PEAKS).remove(0);
        assert_eq!(
            (row.test.as_str(), row.n_prompt, row.n_gen),
            ("tg10", 0, 10)
        );
        assert_eq!(row.median_ts, 1000.0);
        assert!((row.gigabytes_per_second.unwrap() - 1.0).abs() < 1e-9);
        assert!((row.pct_of_limit.unwrap() - 50.0).abs() < 1e-9);
        assert_eq!((row.probe_per_second, row.probe), (Some(2e9), "bytes"));
        assert_eq!(row.bound_by, Some("read"));
        assert_eq!(row.output_hash.as_deref(), Some("a"));
    }

    #[test]
    fn sequences_share_the_weights() {
        // 10 steps of 1 MB for 8 sequences in 10 ms: still 1 GB/s, but 8,000 tokens/s.
        let batch = test(Phase::Decode, 10, 8);
        let launch = run(batch, &[10_000_000], "a", Some([2e9, 2e9]));
        let row = rows(&[launch], &cost(), &PEAKS).remove(0);
        assert_eq!((row.median_ts, row.sequences), (8000.0, 8));
        assert!((row.gigabytes_per_second.unwrap() - 1.0).abs() < 1e-9);
        assert!((row.linear_operations_per_second - 16e9).abs() < 1.0);
    }

    #[test]
    fn a_prefill_test_is_held_against_the_arithmetic_around_it() {
        // 100 tokens of 2 million operations in 1 ms: 0.2 of 1 TOPS.
        let prefill = test(Phase::Prefill, 100, 1);
        let launch = run(prefill, &[1_000_000], "a", Some([0.9e12, 1.1e12]));
        let row = rows(&[launch], &cost(), &PEAKS).remove(0);
        assert!((row.pct_of_limit.unwrap() - 20.0).abs() < 1e-9);
        assert!((row.linear_operations_per_second - 0.2e12).abs() < 1.0);
        assert_eq!((row.bound_by, row.probe), (Some("compute"), "int8"));
        assert_eq!(row.stddev_ts, None);
        let launch = run(prefill, &[1_000_000], "a", None);
        let row = rows(&[launch], &cost(), &PEAKS).remove(0);
        assert_eq!((row.pct_of_limit, row.bound_by), (None, None));
    }

    #[test]
    fn what_was_shifted_is_kept_but_does_not_decide() {
        let decode = test(Phase::Decode, 10, 1);
        let launches = [
            run(decode, &[10_000_000], "a", Some([2e9, 2e9])),
            run(decode, &[40_000_000, 40_000_000], "a", Some([2e9, 1e9])),
        ];
        let row = rows(&launches, &cost(), &PEAKS).remove(0);
        assert_eq!(row.contaminated, [false, true]);
        assert_eq!(row.dropped_rounds, 2);
        assert_eq!(row.samples_ts, [1000.0, 250.0]);
        assert_eq!(row.median_ts, 1000.0);
    }

    #[test]
    fn a_different_output_in_any_launch_is_seen() {
        let test = test(Phase::Prefill, 10, 1);
        let launches = [run(test, &[1, 2], "a", None), run(test, &[1, 2], "b", None)];
        assert_eq!(rows(&launches, &cost(), &PEAKS).remove(0).output_hash, None);
    }

    #[test]
    fn deviations() {
        assert_eq!(
            deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).map(|d| (d * 1e6).round()),
            Some(2_138_090.0)
        );
        assert_eq!(deviation(&[1.0]), None);
    }
}
