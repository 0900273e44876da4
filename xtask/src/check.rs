//! `cargo xtask check`: everything a change must pass, and a summary that says so.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::shell::{command, in_ci, output, run as run_command, tee};
use crate::{fetch, gates, tidy};

struct Step {
    name: &'static str,
    run: fn(&mut Report) -> Result<()>,
}

/// Cheap steps first; the models are fetched before the tests that need them.
const STEPS: [Step; 10] = [
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
    Step {
        name: "assembly",
        run: |report| report.gate(gates::assembly()?),
    },
    Step {
        name: "counts",
        run: |report| report.gate(gates::counts(false)?),
    },
    Step {
        name: "clean",
        run: |_| clean(),
    },
];

/// Cargo's arguments for all tests but those in documentation.
pub(crate) const TESTS: [&str; 6] = [
    "test",
    "--workspace",
    "--no-fail-fast",
    "--lib",
    "--bins",
    "--tests",
];

/// What the steps came to, and what the test runners among them said.
#[derive(Default)]
struct Report {
    /// A line of the summary for each step that ran.
    steps: Vec<String>,
    failed_steps: usize,
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
    /// Steps among `skipped`, which no test runner counted as passed.
    skipped_steps: usize,
}

pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(name) = only.filter(|name| !names.contains(name)) {
        bail!("no step {name:?}: expected one of {}", names.join(", "));
    }
    let start = Instant::now();
    let chosen = |step: &&Step| only.is_none_or(|name| name == step.name);
    let report = execute(STEPS.iter().filter(chosen));
    println!("\n── summary, {} ──", seconds(start.elapsed()));
    report.print();
    report.verdict(in_ci())
}

/// Runs every step, whatever became of the ones before it.
fn execute<'a>(steps: impl Iterator<Item = &'a Step>) -> Report {
    let mut report = Report::default();
    for step in steps {
        println!("\n── {} ──", step.name);
        let start = Instant::now();
        let verdict = match (step.run)(&mut report) {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                report.failed_steps += 1;
                format!("FAILED: {error:#}")
            }
        };
        let line = format!("{:9} {:>7}  {verdict}", step.name, seconds(start.elapsed()));
        println!("{line}");
        report.steps.push(line);
    }
    report
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
    report.watch(&TESTS)
}

fn doctests(report: &mut Report) -> Result<()> {
    report.watch(&["test", "--workspace", "--no-fail-fast", "--doc"])
}

/// In CI, where the checkout was clean, a changed file is one that should have been committed:
/// `Cargo.lock`, or golden data that a test rewrote.
fn clean() -> Result<()> {
    if !in_ci() {
        println!("only in CI");
        return Ok(());
    }
    let status = ["status", "--porcelain", "--untracked-files=no"];
    let changed = output(&mut command("git", &status))?;
    ensure!(changed.is_empty(), "changed meanwhile:\n{changed}");
    Ok(())
}

impl Report {
    fn watch(&mut self, arguments: &[&str]) -> Result<()> {
        tee(&mut command("cargo", arguments), &mut |line| {
            self.line(line)
        })
    }

    /// Takes in a step that holds, or could not run here.
    fn gate(&mut self, outcome: gates::Outcome) -> Result<()> {
        if let gates::Outcome::Skipped(reason) = outcome {
            self.skipped.push(reason);
            self.skipped_steps += 1;
        }
        Ok(())
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
        for line in &self.steps {
            println!("{line}");
        }
        let skipped = self.skipped.len() - self.skipped_steps;
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

    fn verdict(&self, in_ci: bool) -> Result<()> {
        if self.failed_steps > 0 {
            bail!("{} of {} steps failed", self.failed_steps, self.steps.len());
        }
        if in_ci && !self.skipped.is_empty() {
            bail!(
                "in CI a skipped test or step is a failure: {} skipped",
                self.skipped.len()
            );
        }
        Ok(())
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
    fn steps_go_on_after_a_failure_and_the_verdict_remembers_it() {
        let steps = [
            Step {
                name: "one",
                run: |_| bail!("broken"),
            },
            Step {
                name: "two",
                run: |report| {
                    report.passed += 1;
                    Ok(())
                },
            },
        ];
        let report = execute(steps.iter());
        assert_eq!(
            (report.passed, report.failed_steps, report.steps.len()),
            (1, 1, 2)
        );
        assert!(
            report.steps[0].ends_with("FAILED: broken"),
            "{}",
            report.steps[0]
        );
        assert!(report.verdict(false).is_err());
        assert!(execute(steps[1..].iter()).verdict(true).is_ok());
    }

    #[test]
    fn a_skip_fails_in_ci_alone() {
        let report = Report {
            skipped: vec!["a: no model".to_owned()],
            ..Report::default()
        };
        assert!(report.verdict(false).is_ok());
        assert!(report.verdict(true).is_err());
    }

    #[test]
    fn a_skipped_step_is_told_but_no_passed_test() {
        let mut report = Report::default();
        report.line("test result: ok. 3 passed; 0 failed");
        let skipped = gates::Outcome::Skipped("counts: no valgrind".to_owned());
        report.gate(skipped).unwrap();
        assert_eq!((report.skipped.len(), report.skipped_steps), (1, 1));
        assert!(report.verdict(true).is_err());
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_known_ones() {
        let error = run(Some("lint")).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err(
                "no step \"lint\": expected one of fmt, tidy, clippy, docs, fetch, tests, doctests, assembly, counts, clean"
                    .to_owned()
            )
        );
    }
}
