//! `cargo xtask check`: everything a change must pass, and a summary that says so.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell::{command, in_ci, run as run_command, tee};
use crate::{fetch, tidy};

struct Step {
    name: &'static str,
    run: fn(&mut Report) -> Result<()>,
}

/// Cheap steps first; the models are fetched before the tests that need them.
const STEPS: [Step; 7] = [
    Step {
        name: "fmt",
        run: |_| cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "tidy",
        run: |_| tidy::run(),
    },
    Step {
        name: "clippy",
        run: |_| clippy(),
    },
    Step {
        name: "docs",
        run: |_| docs(),
    },
    Step {
        name: "fetch",
        run: |_| fetch_models(),
    },
    Step {
        name: "tests",
        run: tests,
    },
    Step {
        name: "doctests",
        run: doctests,
    },
];

/// What the test runners said, over all of them.
#[derive(Default)]
struct Report {
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
}

pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(name) = only.filter(|name| !names.contains(name)) {
        bail!("no step {name:?}: expected one of {}", names.join(", "));
    }
    let mut report = Report::default();
    let mut lines = Vec::new();
    let mut failures = 0;
    let start = Instant::now();
    for step in STEPS
        .iter()
        .filter(|step| only.is_none_or(|name| name == step.name))
    {
        println!("\n── {} ──", step.name);
        let start = Instant::now();
        let result = (step.run)(&mut report);
        let verdict = match &result {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                failures += 1;
                format!("FAILED: {error:#}")
            }
        };
        let line = format!("{:9} {:>7}  {verdict}", step.name, seconds(start.elapsed()));
        println!("{line}");
        lines.push(line);
    }
    println!("\n── summary, {} ──", seconds(start.elapsed()));
    for line in &lines {
        println!("{line}");
    }
    report.print();
    if in_ci() && !report.skipped.is_empty() {
        bail!(
            "in CI a skipped test is a failure: {} skipped",
            report.skipped.len()
        );
    }
    if failures > 0 {
        bail!("{failures} of {} steps failed", lines.len());
    }
    Ok(())
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run_command(&mut command("cargo", arguments))
}

fn clippy() -> Result<()> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
}

fn docs() -> Result<()> {
    let mut docs = command("cargo", &["doc", "--workspace", "--no-deps"]);
    run_command(docs.env("RUSTDOCFLAGS", "-D warnings"))
}

fn fetch_models() -> Result<()> {
    match fetch::run() {
        Err(error) if !in_ci() => {
            println!("not fetched: {error:#}\nTests without their model will say so.");
            Ok(())
        }
        result => result,
    }
}

fn tests(report: &mut Report) -> Result<()> {
    let targets = ["--lib", "--bins", "--tests"];
    report.watch(
        &[
            &["test", "--workspace", "--no-fail-fast"],
            targets.as_slice(),
        ]
        .concat(),
    )
}

fn doctests(report: &mut Report) -> Result<()> {
    report.watch(&["test", "--workspace", "--no-fail-fast", "--doc"])
}

impl Report {
    fn watch(&mut self, arguments: &[&str]) -> Result<()> {
        tee(&mut command("cargo", arguments), &mut |line| {
            self.line(line)
        })
    }

    /// Takes in one line of a test runner's output.
    fn line(&mut self, line: &str) {
        if let Some(skip) = line.strip_prefix("skipped: ") {
            self.skipped.push(skip.to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
        }
    }

    fn print(&self) {
        let skipped = self.skipped.len();
        for skip in &self.skipped {
            println!("skipped: {skip}");
        }
        // A skipped test returned early, which its harness counts as passed.
        let passed = self.passed.saturating_sub(skipped as u64);
        if self.passed + self.failed > 0 {
            println!(
                "tests: {passed} passed, {} failed, {skipped} skipped",
                self.failed
            );
        }
    }
}

/// The number before `word` in libtest's `ok. 3 passed; 0 failed; …`.
fn count(result: &str, word: &str) -> u64 {
    let mut previous = "";
    for token in result.split([' ', ';']) {
        if token == word {
            return previous.parse().unwrap_or(0);
        }
        previous = token;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_results_and_skips_of_several_runners() {
        let mut report = Report::default();
        for line in [
            "running 3 tests",
            "skipped: tests/real.rs::answers: no model",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished",
            "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out;",
        ] {
            report.line(line);
        }
        assert_eq!((report.passed, report.failed), (15, 2));
        assert_eq!(report.skipped, ["tests/real.rs::answers: no model"]);
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_known_ones() {
        let error = run(Some("lint")).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err(
                "no step \"lint\": expected one of fmt, tidy, clippy, docs, fetch, tests, doctests"
                    .to_owned()
            )
        );
    }
}
