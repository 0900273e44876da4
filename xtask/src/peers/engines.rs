//! Running Redline, a peer, and the probe between them.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::statistics::median;
use super::{Model, Test};
use crate::shell::{command, root};

/// Rounds a peer times in one process; Redline's bench takes up to three.
const PEER_REPETITIONS: &str = "2";
/// Tokens before and steps of a test of several sequences, as `redline bench -b` has them.
const BATCH_PROMPT: usize = 64;
const BATCH_STEPS: usize = 32;

/// Our binary and how it is run.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) binary: PathBuf,
    pub(super) threads: usize,
    pub(super) isa: Option<String>,
}

/// A peer.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) name: String,
    /// A shell command that takes llama-bench's flags.
    pub(super) bench: String,
    pub(super) bench_arguments: String,
    pub(super) batch_arguments: String,
}

/// Why a peer gave no figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure {
    pub(super) what: String,
    /// Whether it is hopeless to try again.
    pub(super) crashed: bool,
}

/// One run of one engine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    pub(super) tokens_per_second: f64,
    /// Read bandwidth right before and after, in bytes per second; decode only.
    pub(super) probes: Option<[f64; 2]>,
    /// What only Redline's own report tells.
    pub(super) own: Option<Own>,
}

/// What Redline's report says beside the rate.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Own {
    /// Bytes a token must read (decode), or operations of the linear layers (prefill).
    pub(super) cost_per_token: f64,
    /// The limit around the rounds, by the bench's own probes, in the same unit per second.
    pub(super) probe_per_second: Option<f64>,
    pub(super) dropped_rounds: u64,
    pub(super) output_hash: String,
    pub(super) load_ms: f64,
    pub(super) peak_rss_bytes: Option<u64>,
}

impl Sample {
    /// A rate with the probes around it.
    pub(super) fn new(
        (tokens_per_second, own): (f64, Option<Own>),
        before: Option<f64>,
        after: Option<f64>,
    ) -> Self {
        Self {
            tokens_per_second,
            probes: before.zip(after).map(|(before, after)| [before, after]),
            own,
        }
    }

    /// Whether the probes differ by a quarter at most.
    pub(super) fn is_clean(&self) -> bool {
        self.probes
            .is_none_or(|[a, b]| (a - b).abs() <= 0.25 * a.max(b))
    }
}

impl Ours {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut ours = command(&self.binary.to_string_lossy(), arguments);
        ours.args(["-t", &self.threads.to_string()]);
        ours
    }

    /// Read bandwidth over as many bytes as the model has; nothing for a prompt, whose limit the
    /// bench measures itself.
    pub(super) fn probe(&self, model: &Model, test: Test) -> Result<Option<f64>> {
        if !test.is_decode() {
            return Ok(None);
        }
        let bytes = model.bytes.to_string();
        let mut probe = self.command(&["limits", "--json", "--read", &bytes]);
        let json = json(&finished(&mut probe)?)?;
        Ok(json["bytes_per_second"].as_f64())
    }

    /// Tokens per second in a process of its own, and what else the report says.
    pub(super) fn measure(&self, model: &Model, test: Test) -> Result<(f64, Option<Own>)> {
        let path = model.path.to_string_lossy();
        let mut bench = self.command(&["bench", &path, "-r", "1", "-o", "json"]);
        bench.args(match test {
            Test::Prompt(tokens) => vec!["-p".to_owned(), tokens.to_string(), "-n0".to_owned()],
            Test::Generate { tokens, depth } => vec![
                "-p0".to_owned(),
                "-n".to_owned(),
                tokens.to_string(),
                "-d".to_owned(),
                depth.to_string(),
            ],
            Test::Batch(sequences) => vec![
                "-p0".to_owned(),
                "-n0".to_owned(),
                "-b".to_owned(),
                sequences.to_string(),
            ],
        });
        if let Some(isa) = &self.isa {
            bench.args(["--isa", isa]);
        }
        let json = json(&finished(&mut bench)?)?;
        own(&json).with_context(|| format!("redline bench said {json}"))
    }
}

fn own(report: &Value) -> Option<(f64, Option<Own>)> {
    let row = report["results"].get(0)?;
    let rate = row["median_ts"].as_f64()?;
    let cost_per_token = match row["bytes_per_step"].as_f64() {
        Some(bytes) => bytes / row["sequences"].as_f64()?,
        None => row["linear_operations_per_second"].as_f64()? / rate,
    };
    let own = Own {
        cost_per_token,
        probe_per_second: row["probe_per_second"].as_f64(),
        dropped_rounds: row["dropped_rounds"].as_u64()?,
        output_hash: row["output_hash"]
            .as_str()
            .unwrap_or("INCORRECT")
            .to_owned(),
        load_ms: report["load_ms"].get(0)?.as_f64()?,
        peak_rss_bytes: report["peak_rss_bytes"].as_u64(),
    };
    Some((rate, Some(own)))
}

impl Engine {
    /// Tokens per second in a process of its own.
    pub(super) fn measure(
        &self,
        model: &Model,
        test: Test,
        threads: usize,
    ) -> Result<(f64, Option<Own>), Failure> {
        let line = self.line(model, test, threads)?;
        let failed = |what: String| Failure {
            what,
            crashed: false,
        };
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(root())
            .output()
            .map_err(|error| failed(format!("sh: {error}")))?;
        if !output.status.success() {
            return Err(Failure {
                what: ending(&output),
                crashed: true,
            });
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = match test {
            Test::Batch(_) => batched_rate(&text),
            _ => bench_rate(&text),
        };
        let rate = rate.ok_or_else(|| failed(format!("no rate in its output: {}", tail(&text))))?;
        Ok((rate, None))
    }

    fn line(&self, model: &Model, test: Test, threads: usize) -> Result<String, Failure> {
        let path = quoted(&model.path);
        let bench = |test: String| {
            let Self {
                bench,
                bench_arguments,
                ..
            } = self;
            format!(
                "{bench} -m {path} -t {threads} -r {PEER_REPETITIONS} -o json {test} {bench_arguments}"
            )
        };
        Ok(match test {
            Test::Prompt(tokens) => bench(format!("-p {tokens} -n 0")),
            Test::Generate { tokens, depth } => bench(format!("-p 0 -n {tokens} -d {depth}")),
            Test::Batch(sequences) => {
                let Some((before, after)) = self.bench.rsplit_once("llama-bench") else {
                    return Err(Failure {
                        what: "no llama-bench in its command, so no llama-batched-bench".to_owned(),
                        crashed: false,
                    });
                };
                let context = sequences * (BATCH_PROMPT + BATCH_STEPS);
                let more = &self.batch_arguments;
                format!(
                    "{before}llama-batched-bench{after} -m {path} -t {threads} -c {context} \
                     -npp {BATCH_PROMPT} -ntg {BATCH_STEPS} -npl {sequences} --output-format jsonl {more}"
                )
            }
        })
    }
}

/// The median of llama-bench's samples.
fn bench_rate(text: &str) -> Option<f64> {
    let json: Value = serde_json::from_str(text.get(text.find('[')?..)?).ok()?;
    let samples = json.get(0)?["samples_ts"].as_array()?;
    let samples: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
    Some(median(&samples)).filter(|rate| rate.is_finite())
}

/// The decode rate of all sequences together, from llama-batched-bench's last line of JSON.
fn batched_rate(text: &str) -> Option<f64> {
    text.lines().rev().find_map(|line| {
        let json: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        json["speed_tg"].as_f64()
    })
}

/// How a process that failed ended: a signal's name, for a crash, and its last words.
fn ending(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let words = tail(words.trim());
    match signal(output.status) {
        Some(4) => "crashed: SIGILL (illegal instruction)".to_owned(),
        Some(6) => format!("crashed: SIGABRT: {words}"),
        Some(11) => "crashed: SIGSEGV (memory fault)".to_owned(),
        Some(signal) => format!("crashed: signal {signal}"),
        None => format!("failed, {}: {words}", output.status),
    }
}

/// The signal that ended a process, or the child of the shell that it was.
fn signal(status: ExitStatus) -> Option<i32> {
    const OF_A_CHILD: i32 = 128;
    let code = status.code().filter(|code| *code > OF_A_CHILD);
    status.signal().or(code.map(|code| code - OF_A_CHILD))
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(300);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at));
    &text[start.unwrap_or(0)..]
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// A command's output, or what it said when it failed.
pub(super) fn finished(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", ending(&output));
    Ok(output)
}

/// The JSON document of a command's output.
pub(super) fn json(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).context("its output is no JSON")
}

/// The file of a model: a path, a name of the catalogue, or a synthetic one, made where it is missing.
pub(super) fn model(ours: &Ours, name: &str) -> Result<Model> {
    let path: PathBuf = if let Some(recipe) = name.strip_prefix("synth:") {
        let (shape, quant) = recipe.split_once(':').unwrap_or((recipe, "q4_k_m"));
        let mut synth = command(
            &ours.binary.to_string_lossy(),
            &["synth", shape, "--quant", quant],
        );
        let output = finished(&mut synth)?;
        String::from_utf8_lossy(&output.stdout).trim().into()
    } else if let Some((_, file)) = crate::fetch::MODELS
        .iter()
        .find(|(known, _)| *known == name)
    {
        let cache = redline_testkit::cache_dir().context("no home folder with a cache")?;
        cache.join(file)
    } else {
        name.into()
    };
    let path = std::path::absolute(path)?;
    let bytes = std::fs::metadata(&path)
        .with_context(|| {
            format!(
                "{}: cargo xtask fetch brings the real models",
                path.display()
            )
        })?
        .len();
    Ok(Model {
        name: name.to_owned(),
        path,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_both_programs_are_read() {
        let bench = "warning: x\n[ {\"n_prompt\": 512, \"samples_ts\": [10.0, 30.0]} ]\n";
        assert_eq!(bench_rate(bench), Some(20.0));
        assert_eq!(bench_rate("[]"), None);
        let batched = "main: n_kv\n{\"pl\": 8, \"speed_pp\": 1.0, \"speed_tg\": 55.5}\n\n";
        assert_eq!(batched_rate(batched), Some(55.5));
        assert_eq!(batched_rate("nothing"), None);
    }

    fn engine(bench: &str) -> Engine {
        Engine {
            name: "x".to_owned(),
            bench: bench.to_owned(),
            bench_arguments: String::new(),
            batch_arguments: "--no-repack".to_owned(),
        }
    }

    fn model() -> Model {
        Model {
            name: "m".to_owned(),
            path: "/a b/it's.gguf".into(),
            bytes: 1,
        }
    }

    #[test]
    fn a_crash_is_told_by_the_signals_name_and_a_refusal_by_its_words() {
        let run = |command: &str| {
            let result = engine(command).measure(&model(), Test::Prompt(8), 1);
            result.map(|(rate, _)| rate).unwrap_err()
        };
        let crash = run("sh -c 'kill -ILL $$'");
        assert!(crash.crashed && crash.what.contains("SIGILL"), "{crash:?}");
        let refusal = run("sh -c 'echo no such type >&2; exit 3'");
        assert!(refusal.what.contains("no such type"), "{refusal:?}");
        let silent = run("true");
        assert!(
            !silent.crashed && silent.what.contains("no rate"),
            "{silent:?}"
        );
    }

    #[test]
    fn a_batch_is_the_sibling_programs_affair() {
        let line = engine("A=/x/llama-y /x/llama-bench")
            .line(&model(), Test::Batch(8), 2)
            .unwrap();
        assert!(
            line.starts_with(
                "A=/x/llama-y /x/llama-batched-bench -m '/a b/it'\\''s.gguf' -t 2 -c 768"
            ),
            "{line}"
        );
        assert!(line.ends_with("--no-repack"), "{line}");
        assert!(engine("other").line(&model(), Test::Batch(8), 2).is_err());
    }

    #[test]
    fn probes_that_differ_drop_a_run() {
        let sample = |a, b| Sample::new((1.0, None), Some(a), Some(b));
        assert!(sample(10.0, 8.0).is_clean());
        assert!(!sample(10.0, 7.0).is_clean());
        assert!(Sample::new((1.0, None), None, None).is_clean());
    }
}
