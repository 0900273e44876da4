//! From launches to figures: a pure function of what was measured.

use serde::Serialize;

use super::capture::Peaks;
use super::cost::Cost;
use super::{Launch, Run, Test, median};
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
            schema_version: 1,
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

/// One test over all launches. The first seven fields are those of llama-bench.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// `pp512`, `tg128`.
    pub(crate) test: String,
    /// Prompt tokens.
    pub(crate) n_prompt: usize,
    /// Decode steps.
    pub(crate) n_gen: usize,
    /// Mean of `samples_ts`.
    pub(crate) avg_ts: f64,
    /// Their sample standard deviation; null below two samples.
    pub(crate) stddev_ts: Option<f64>,
    /// Tokens per second, one for each launch: its median round.
    pub(crate) samples_ts: Vec<f64>,
    /// The same as durations of a round.
    pub(crate) samples_ns: Vec<f64>,
    /// Median of the launches that were not contaminated (of all, if all were).
    pub(crate) median_ts: f64,
    /// Every round of every launch.
    pub(crate) rounds_ns: Vec<Vec<u64>>,
    /// For each launch, whether the probes around the test differ by more than a quarter.
    pub(crate) contaminated: Vec<bool>,
    /// For each launch, read bandwidth before and after, in bytes per second.
    pub(crate) probes_bytes_per_second: Vec<Option<[f64; 2]>>,
    /// Bytes a decode step must read.
    pub(crate) bytes_per_token: Option<f64>,
    /// What is read a second.
    pub(crate) gigabytes_per_second: Option<f64>,
    /// Operations a second, in integers and in floating point.
    pub(crate) operations_per_second: f64,
    /// Least possible time over measured time, in percent; null where a limit is not known.
    pub(crate) pct_of_limit: Option<f64>,
    /// The limit that binds: `read` or `compute`.
    pub(crate) bound_by: Option<&'static str>,
    /// Hash of the output, if all rounds agree.
    pub(crate) output_hash: Option<String>,
}

/// Figures of every test.
pub(crate) fn rows(launches: &[Launch], cost: &Cost, peaks: Peaks) -> Vec<Row> {
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

fn row(runs: &[&Run], cost: &Cost, peaks: Peaks) -> Row {
    let test = runs[0].test;
    let tokens = test.tokens() as f64;
    let samples_ns: Vec<f64> = runs.iter().map(|run| run.median_ns()).collect();
    let samples_ts: Vec<f64> = samples_ns.iter().map(|ns| tokens * 1e9 / ns).collect();
    let contaminated: Vec<bool> = runs.iter().map(|run| run.is_contaminated()).collect();
    let all = contaminated.iter().all(|contaminated| *contaminated);
    let kept = |index: &usize| all || !contaminated[*index];
    let clean: Vec<f64> = (0..runs.len())
        .filter(kept)
        .map(|index| samples_ts[index])
        .collect();
    let median_ts = median(&clean);
    let probes: Vec<f64> = (0..runs.len())
        .filter(kept)
        .filter_map(|index| {
            runs[index]
                .probes
                .map(|[before, after]| f64::midpoint(before, after))
        })
        .collect();
    let bandwidth = Some(median(&probes)).filter(|bandwidth| bandwidth.is_finite());
    let limit = limit(test, cost, peaks, bandwidth);
    let operations = cost.operations(test);
    let bytes_per_token = match test {
        Test::Prefill(_) => None,
        Test::Decode(tokens) => Some(cost.bytes_per_token(tokens)),
    };
    let (n_prompt, n_gen) = match test {
        Test::Prefill(tokens) => (tokens, 0),
        Test::Decode(tokens) => (0, tokens),
    };
    Row {
        test: test.name(),
        n_prompt,
        n_gen,
        avg_ts: mean(&samples_ts),
        stddev_ts: deviation(&samples_ts),
        median_ts,
        rounds_ns: runs.iter().map(|run| run.samples_ns.clone()).collect(),
        contaminated,
        probes_bytes_per_second: runs.iter().map(|run| run.probes).collect(),
        bytes_per_token,
        gigabytes_per_second: bytes_per_token.map(|bytes| bytes * median_ts / 1e9),
        operations_per_second: (operations.int8 + operations.f32) / tokens * median_ts,
        pct_of_limit: limit.map(|(seconds, _)| 100.0 * seconds * median_ts / tokens),
        bound_by: limit.map(|(_, name)| name),
        output_hash: common_hash(runs),
        samples_ts,
        samples_ns,
    }
}

/// The least time a test can take, in seconds, and what sets it; `None` without the limits it needs.
fn limit(
    test: Test,
    cost: &Cost,
    peaks: Peaks,
    bandwidth: Option<f64>,
) -> Option<(f64, &'static str)> {
    let operations = cost.operations(test);
    let seconds = |amount: f64, rate: Option<f64>| match amount {
        0.0 => Some(0.0),
        amount => rate.map(|rate| amount / rate),
    };
    let compute = seconds(operations.int8, peaks.int8_operations_per_second)?
        + seconds(operations.f32, peaks.f32_operations_per_second)?;
    let read = match test {
        // A prompt's weights are read once for all of its tokens.
        Test::Prefill(_) => 0.0,
        Test::Decode(tokens) => cost.bytes_per_token(tokens) * tokens as f64 / bandwidth?,
    };
    Some(if read > compute {
        (read, "read")
    } else {
        (compute, "compute")
    })
}

fn common_hash(runs: &[&Run]) -> Option<String> {
    let mut hashes = runs.iter().flat_map(|run| &run.hashes);
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
    };

    fn cost() -> Cost {
        // A model of one matrix of a million bytes and nothing else.
        Cost::of_weights(1_000_000, 1e6)
    }

    fn run(test: Test, samples_ns: &[u64], hash: &str, probes: Option<[f64; 2]>) -> Launch {
        let hashes = vec![hash.to_owned(); samples_ns.len()];
        let run = Run {
            test,
            samples_ns: samples_ns.to_vec(),
            hashes,
            probes,
        };
        Launch {
            load_ns: 1,
            peak_rss_bytes: None,
            runs: vec![run],
        }
    }

    #[test]
    fn a_decode_test_at_half_the_bandwidth() {
        let probes = Some([2e9, 2e9]);
        // 10 steps of 1 MB in 10 ms: 1 GB/s of 2.
        let launches: Vec<Launch> = [9_000_000, 10_000_000, 12_000_000]
            .map(|ns| run(Test::Decode(10), &[ns], "a", probes))
            .to_vec();
        let row = rows(&launches, &cost(), PEAKS).remove(0);
        assert_eq!(
            (row.test.as_str(), row.n_prompt, row.n_gen),
            ("tg10", 0, 10)
        );
        assert_eq!(row.median_ts, 1000.0);
        assert!((row.gigabytes_per_second.unwrap() - 1.0).abs() < 1e-9);
        assert!((row.pct_of_limit.unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(row.bound_by, Some("read"));
        assert_eq!(row.output_hash.as_deref(), Some("a"));
    }

    #[test]
    fn a_prefill_test_is_bound_by_arithmetic() {
        // 100 tokens of 2 million operations in 1 ms: 0.2 of 1 TOPS.
        let row = rows(
            &[run(Test::Prefill(100), &[1_000_000], "a", None)],
            &cost(),
            PEAKS,
        )
        .remove(0);
        assert!((row.pct_of_limit.unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(row.bound_by, Some("compute"));
        assert_eq!(row.stddev_ts, None);
        let unknown = Peaks {
            int8_operations_per_second: None,
            ..PEAKS
        };
        let row = rows(
            &[run(Test::Prefill(100), &[1_000_000], "a", None)],
            &cost(),
            unknown,
        )
        .remove(0);
        assert_eq!((row.pct_of_limit, row.bound_by), (None, None));
    }

    #[test]
    fn contaminated_launches_are_kept_but_do_not_decide() {
        let launches = [
            run(Test::Decode(10), &[10_000_000], "a", Some([2e9, 2e9])),
            run(Test::Decode(10), &[40_000_000], "a", Some([2e9, 1e9])),
        ];
        let row = rows(&launches, &cost(), PEAKS).remove(0);
        assert_eq!(row.contaminated, [false, true]);
        assert_eq!(row.samples_ts, [1000.0, 250.0]);
        assert_eq!(row.median_ts, 1000.0);
    }

    #[test]
    fn a_different_output_in_any_launch_is_seen() {
        let test = Test::Prefill(10);
        let launches = [run(test, &[1, 2], "a", None), run(test, &[1, 2], "b", None)];
        assert_eq!(rows(&launches, &cost(), PEAKS).remove(0).output_hash, None);
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
