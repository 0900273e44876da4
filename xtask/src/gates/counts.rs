//! `cargo xtask counts`: instructions of a prompt and of decode steps, counted by callgrind.
//!
//! A count does not depend on the machine's load or clock, so a small regression shows in one run.
//! valgrind knows no AVX-512: the scalar and the AVX2 code are counted. The work of loading is
//! subtracted: the same program runs with a prompt alone, and with steps too.
//!
//! The processor that valgrind shows is the same on every machine with AVX2, so the C library chooses
//! the same functions. It would fill and copy memory by `rep stosb` and `rep movsb`, of which every byte
//! counts as an instruction, a third of a prompt's count, from a size on that depends on its version: it
//! is told not to.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Outcome, is_installed, program};
use crate::fetch;
use crate::shell::{Scratch, command, root, run as run_command};

const BASELINE: &str = "xtask/counts.json";
/// Formats of the synthetic model's matrices.
const QUANTS: [&str; 6] = ["q4_k_m", "q8_0", "q4_0", "q4_1", "q5_0", "f16"];
const ISAS: [&str; 2] = ["scalar", "avx2"];
/// Tokens of the prompt, and steps after it.
const PROMPT: usize = 16;
const STEPS: usize = 4;
/// A count may be this share above its baseline.
const TOLERANCE: f64 = 0.02;

/// Settings of glibc: sizes from which on memory is filled and copied by `rep`, larger than any.
const TUNABLES: &str = "glibc.cpu.x86_rep_stosb_threshold=0x7fffffffffff:\
    glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffff";

type Counts = BTreeMap<String, u64>;

/// Counts, and compares with the baseline, or makes it anew.
pub(crate) fn run(write: bool) -> Result<Outcome> {
    if !has_avx2() {
        return Ok(Outcome::skipped("counts: they are of machines with AVX2"));
    }
    if !is_installed("valgrind") {
        return Ok(Outcome::skipped("counts: valgrind is not installed"));
    }
    let counts = count()?;
    let path = root().join(BASELINE);
    if write {
        let text = serde_json::to_string_pretty(&counts)? + "\n";
        std::fs::write(&path, text).context(BASELINE)?;
        println!("wrote {BASELINE}");
        return Ok(Outcome::Held);
    }
    let baseline = std::fs::read_to_string(&path).context(BASELINE)?;
    let baseline: Counts = serde_json::from_str(&baseline).context(BASELINE)?;
    let findings = compare(&baseline, &counts);
    for (_, line) in &findings {
        println!("{line}");
    }
    let worse = findings.iter().filter(|(worse, _)| *worse).count();
    ensure!(
        worse == 0,
        "{worse} of {} counts are not their baseline's; where that is meant: cargo xtask counts --write",
        counts.len()
    );
    println!("{} counts within {} %", counts.len(), TOLERANCE * 100.0);
    Ok(Outcome::Held)
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn count() -> Result<Counts> {
    let (program, redline) = (program()?, fetch::redline()?);
    let scratch = Scratch::new(&root().join("target"), "counts")?;
    let mut counts = Counts::new();
    for quant in QUANTS {
        let model = scratch.path().join(format!("{quant}.gguf"));
        let to = model.to_string_lossy();
        let synth = ["synth", "tiny-llama", "--quant", quant, "--output", &to];
        run_command(&mut command(&redline, &synth))?;
        for isa in ISAS {
            let counted = |prompt, steps| instructions(&program, &model, isa, (prompt, steps));
            let (load, prompt) = (counted(0, 0)?, counted(PROMPT, 0)?);
            let steps = counted(PROMPT, STEPS)?;
            counts.insert(
                format!("{isa} {quant} pp{PROMPT}"),
                prompt.saturating_sub(load),
            );
            counts.insert(
                format!("{isa} {quant} tg{STEPS}"),
                steps.saturating_sub(prompt),
            );
        }
        println!("counted {quant}");
    }
    Ok(counts)
}

/// All instructions of one run of the program.
fn instructions(
    program: &Path,
    model: &Path,
    isa: &str,
    (prompt, steps): (usize, usize),
) -> Result<u64> {
    let output = command(
        "valgrind",
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
    )
    .env("GLIBC_TUNABLES", TUNABLES)
    .arg(program)
    .arg(model)
    .args([isa, &prompt.to_string(), &steps.to_string()])
    .output()
    .context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "valgrind: {}: {said}",
        output.status
    );
    collected(&said).with_context(|| format!("no count in what valgrind said: {said}"))
}

/// The number of callgrind's `Collected :` line.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

/// Lines about counts that are not as they were, and whether each is for the worse.
fn compare(baseline: &Counts, counts: &Counts) -> Vec<(bool, String)> {
    let mut findings = Vec::new();
    for (name, count) in counts {
        let Some(was) = baseline.get(name) else {
            findings.push((true, format!("{name}: {count} instructions, no baseline")));
            continue;
        };
        let change = *count as f64 / *was as f64 - 1.0;
        if change.abs() > TOLERANCE {
            let percent = change * 100.0;
            let line = format!("{name}: {was} -> {count} instructions ({percent:+.1} %)");
            findings.push((change > 0.0, line));
        }
    }
    let gone = baseline.keys().filter(|name| !counts.contains_key(*name));
    findings.extend(gone.map(|name| (true, format!("{name}: not counted any more"))));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_total_is_found() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== nothing\n"), None);
    }

    #[test]
    fn only_more_than_the_tolerance_above_is_worse() {
        let counts = |pairs: &[(&str, u64)]| -> Counts {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        let baseline = counts(&[("a", 1000), ("b", 1000), ("c", 1000), ("gone", 1)]);
        let now = counts(&[("a", 1019), ("b", 1021), ("c", 900), ("new", 1)]);
        let findings = compare(&baseline, &now);
        let worse: Vec<bool> = findings.iter().map(|(worse, _)| *worse).collect();
        assert_eq!(worse, [true, false, true, true], "{findings:?}");
        assert!(
            findings[0]
                .1
                .contains("b: 1000 -> 1021 instructions (+2.1 %)")
        );
    }

    #[test]
    fn the_baseline_has_every_count() {
        let text = std::fs::read_to_string(root().join(BASELINE)).unwrap();
        let baseline: Counts = serde_json::from_str(&text).unwrap();
        assert_eq!(baseline.len(), QUANTS.len() * ISAS.len() * 2);
    }
}
