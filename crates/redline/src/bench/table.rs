//! A report as Markdown or CSV.

use std::fmt::Write as _;

use super::median;
use super::report::{Report, Row, Surroundings};
use crate::units;

impl Report {
    /// A table for people, with what it was measured on. Synthetic weights stand in the title.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let flag = if self.model.weights == "synthetic" {
            " (synthetic weights)"
        } else {
            ""
        };
        let _ = writeln!(text, "## {}{flag}\n", self.model.name);
        text.push_str(
            "| model | size | params | isa | threads | test | t/s | range | GB/s | TOPS | % of limit |\n",
        );
        text.push_str("|---|---:|---:|---|---:|---|---:|---:|---:|---:|---:|\n");
        for row in &self.results {
            self.markdown_row(&mut text, row);
        }
        let _ = writeln!(
            text,
            "\nLoad {:.1} ms ({}). {}. Medians of {} launches; range: slowest and fastest launch.",
            median(&self.load_ms),
            range(&self.load_ms, 1),
            self.correctness(),
            self.launches
        );
        self.notes(&mut text);
        text.push('\n');
        self.machine(&mut text);
        text
    }

    fn markdown_row(&self, text: &mut String, row: &Row) {
        let limit = match (row.pct_of_limit, row.bound_by) {
            (Some(percent), Some(bound_by)) => format!("{percent:.1} % ({bound_by})"),
            _ => "n/a".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} {} | {} | {} | {} | {} | {} | {:.2} | {} | {} | {:.2} | {limit} |",
            self.model.architecture,
            self.model.formats.join("+"),
            units::bytes(self.model.file_bytes),
            units::count(self.model.parameters),
            self.computing.isa,
            self.computing.threads,
            row.test,
            row.median_ts,
            range(&row.samples_ts, 2),
            row.gigabytes_per_second
                .map_or_else(|| "n/a".to_owned(), |rate| format!("{rate:.2}")),
            row.linear_operations_per_second / 1e12,
        );
    }

    fn correctness(&self) -> &'static str {
        if self.correct {
            "Output equal in all launches"
        } else {
            "INCORRECT: outputs differ between launches"
        }
    }

    fn notes(&self, text: &mut String) {
        for row in &self.results {
            let rounds: usize = row.rounds.iter().map(Vec::len).sum();
            if row.dropped_rounds > 0 {
                let used = if row.dropped_rounds == rounds {
                    "used all the same"
                } else {
                    "left out of the median"
                };
                let _ = writeln!(
                    text,
                    "{}: {} of {rounds} rounds shifted (probes before and after differ by > 25 %), {used}.",
                    row.test, row.dropped_rounds
                );
            }
            if row.pct_of_limit.is_some_and(|percent| percent > 105.0) {
                let _ = writeln!(
                    text,
                    "{}: above its limit: the limit was measured on a busier machine.",
                    row.test
                );
            }
        }
    }

    fn machine(&self, text: &mut String) {
        let Surroundings {
            limits,
            environment,
            build,
        } = &self.surroundings;
        let mut item = |name: &str, value: String| {
            let _ = writeln!(text, "- {name}: {value}");
        };
        let probes: Vec<String> = self.results.iter().filter_map(probe).collect();
        item("probes (medians)", probes.join("; "));
        item("arithmetic limits (TOPS)", limits.routes());
        let (cpu, cores) = (&environment.cpu, environment.cores);
        item(
            "cpu",
            format!("{cpu}, {cores} cores, {}", environment.virtualization),
        );
        let cache = |(name, bytes): (&String, &u64)| format!("{name} {}", units::bytes(*bytes));
        let caches: Vec<String> = environment.cache_bytes.iter().map(cache).collect();
        item("caches", caches.join(", "));
        let size = |bytes| known(bytes, "unknown", units::bytes);
        let (memory, peak) = (size(environment.memory_bytes), size(self.peak_rss_bytes));
        item("memory", format!("{memory}, peak resident {peak}"));
        let load = known(environment.load_average_1m, "unknown", |load| {
            format!("{load:.2}")
        });
        let (governor, huge_pages) = (&environment.governor, &environment.huge_pages);
        let kernel = &environment.kernel;
        item(
            "system",
            format!("{kernel}, load {load}, governor {governor}, huge pages {huge_pages}"),
        );
        item("flags", environment.cpu_flags.join(" "));
        let (version, arithmetic) = (environment.redline, environment.arithmetic);
        let (commit, chunk) = (build.commit, self.computing.chunk_tokens);
        item(
            "redline",
            format!("{version} ({commit}), arithmetic {arithmetic}, chunk {chunk}"),
        );
    }

    /// One line for each test, with a header.
    pub(crate) fn csv(&self) -> String {
        let mut text = "model,weights,architecture,formats,file_bytes,parameters,isa,threads,chunk_tokens,\
            arithmetic_version,test,n_prompt,n_gen,n_depth,sequences,launches,median_ts,avg_ts,stddev_ts,min_ts,max_ts,\
            gigabytes_per_second,linear_operations_per_second,probe,probe_per_second,dropped_rounds,\
            pct_of_limit,bound_by,output_hash,load_ms\n"
            .to_owned();
        for row in &self.results {
            let optional =
                |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
            let fold = |pick: fn(f64, f64) -> f64| row.samples_ts.iter().copied().reduce(pick);
            let fields = [
                quoted(&self.model.name),
                self.model.weights.to_owned(),
                quoted(&self.model.architecture),
                self.model.formats.join("+"),
                self.model.file_bytes.to_string(),
                self.model.parameters.to_string(),
                self.computing.isa.to_owned(),
                self.computing.threads.to_string(),
                self.computing.chunk_tokens.to_string(),
                self.computing.arithmetic_version.to_string(),
                row.test.clone(),
                row.n_prompt.to_string(),
                row.n_gen.to_string(),
                row.n_depth.to_string(),
                row.sequences.to_string(),
                self.launches.to_string(),
                row.median_ts.to_string(),
                row.avg_ts.to_string(),
                optional(row.stddev_ts),
                optional(fold(f64::min)),
                optional(fold(f64::max)),
                optional(row.gigabytes_per_second),
                row.linear_operations_per_second.to_string(),
                row.probe.to_owned(),
                optional(row.probe_per_second),
                row.dropped_rounds.to_string(),
                optional(row.pct_of_limit),
                row.bound_by.unwrap_or_default().to_owned(),
                row.output_hash
                    .clone()
                    .unwrap_or_else(|| "INCORRECT".to_owned()),
                median(&self.load_ms).to_string(),
            ];
            let _ = writeln!(text, "{}", fields.join(","));
        }
        text
    }
}

/// `tg128 50.12 GB/s`, `pp512 1.80 int8 TOPS`.
fn probe(row: &Row) -> Option<String> {
    let rate = row.probe_per_second?;
    Some(if row.probe == "bytes" {
        format!("{} {:.2} GB/s", row.test, rate / 1e9)
    } else {
        format!("{} {:.2} {} TOPS", row.test, rate / 1e12, row.probe)
    })
}

fn range(samples: &[f64], decimals: usize) -> String {
    let fold = |pick: fn(f64, f64) -> f64| samples.iter().copied().reduce(pick).unwrap_or(f64::NAN);
    format!(
        "{:.decimals$}–{:.decimals$}",
        fold(f64::min),
        fold(f64::max)
    )
}

fn known<T>(value: Option<T>, absent: &str, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| absent.to_owned(), show)
}

/// A field that may hold a comma or a quote (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::capture::{Peaks, RoutePeak};
    use crate::bench::cost::Cost;
    use crate::bench::report::{Build, Subject, Surroundings, rows};
    use crate::bench::selection::{Phase, Test};
    use crate::bench::{Launch, Round, Run};
    use crate::environment::Environment;
    use crate::session::Computing;

    fn report(weights: &'static str, hashes: [&str; 2]) -> Report {
        let limits = Peaks {
            int8_operations_per_second: Some(1e12),
            f32_operations_per_second: Some(1e11),
            routes: vec![RoutePeak {
                operand: "int8",
                instruction: "vpdpbusd zmm",
                operations_per_second: 1.5e12,
            }],
        };
        let launch = |hash: &str| Launch {
            load_ns: 6_000_000,
            peak_rss_bytes: Some(1 << 20),
            runs: vec![Run {
                test: Test {
                    phase: Phase::Decode,
                    tokens: 10,
                    depth: 0,
                    sequences: 1,
                },
                rounds: vec![Round {
                    ns: 10_000_000,
                    hash: hash.to_owned(),
                    probes: Some([2e9, 2e9]),
                }],
            }],
        };
        let launches = hashes.map(launch);
        let subject = Subject {
            name: "a,b".to_owned(),
            weights,
            architecture: "llama".to_owned(),
            parameters: 1_000_000,
            file_bytes: 1_000_000,
            formats: vec!["Q8_0".to_owned()],
        };
        let computing = Computing {
            isa: "scalar",
            kv: "f16",
            threads: 1,
            chunk_tokens: 512,
            arithmetic_version: 1,
            quantized: None,
        };
        let results = rows(&launches, &Cost::of_weights(1_000_000, 1e6), &limits);
        let build = Build {
            commit: "abc",
            binary_sha256: String::new(),
        };
        let surroundings = Surroundings {
            limits,
            environment: Environment::detect(),
            build,
        };
        Report::new(subject, computing, &launches, results, surroundings)
    }

    #[test]
    fn the_table_tells_rate_limit_and_synthetic_weights() {
        let text = report("synthetic", ["x", "x"]).markdown();
        assert!(text.starts_with("## a,b (synthetic weights)\n"), "{text}");
        let row = "| scalar | 1 | tg10 | 1000.00 | 1000.00–1000.00 | 1.00 | 0.00 | 50.0 % (read) |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("Load 6.0 ms (6.0–6.0). Output equal"),
            "{text}"
        );
        for part in ["tg10 2.00 GB/s", "int8 vpdpbusd zmm 1.50"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!report("real", ["x", "x"]).markdown().contains("synthetic"));
    }

    #[test]
    fn outputs_that_differ_are_incorrect_in_every_form() {
        let report = report("real", ["x", "y"]);
        assert!(report.markdown().contains("INCORRECT"));
        assert!(report.csv().contains("INCORRECT"));
        assert_eq!(serde_json::to_value(&report).unwrap()["correct"], false);
    }

    #[test]
    fn csv_has_as_many_fields_as_names_and_json_the_fields_of_llama_bench() {
        let report = report("real", ["x", "x"]);
        let csv = report.csv();
        let mut lines = csv.lines();
        let names = lines.next().unwrap().split(',').count();
        let row = lines.next().unwrap();
        let row = row.strip_prefix("\"a,b\"").unwrap();
        assert_eq!(row.split(',').count(), names);
        let json = serde_json::to_value(&report).unwrap();
        let row = &json["results"][0];
        for name in [
            "test",
            "n_prompt",
            "n_gen",
            "avg_ts",
            "stddev_ts",
            "samples_ts",
            "samples_ns",
        ] {
            assert!(!row[name].is_null(), "{name}");
        }
    }
}
