//! The kernels' figures as Markdown, CSV or JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::Entry;
use crate::bench::capture::Peaks;
use crate::commands::Context;
use crate::environment::Environment;
use crate::session::Computing;
use crate::units;

/// A finished run of the suite.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema_version: u32,
    #[serde(flatten)]
    computing: Computing,
    entries: Vec<Entry>,
    /// Whether every entry's output has the scalar code's bits.
    pub(crate) correct: bool,
    /// Arithmetic limits before the first entry.
    limits: Peaks,
    environment: Environment,
}

impl Report {
    pub(super) fn new(
        entries: Vec<Entry>,
        limits: Peaks,
        environment: Environment,
        context: &Context,
    ) -> Self {
        Self {
            schema_version: 1,
            computing: Computing::new(&context.config),
            correct: entries.iter().all(|entry| entry.correct),
            entries,
            limits,
            environment,
        }
    }

    /// A table for people.
    pub(crate) fn markdown(&self) -> String {
        let Computing { isa, threads, .. } = self.computing;
        let mut text = format!("## kernels, {isa}, {threads} threads\n\n");
        text.push_str(
            "| verb | format | shape | tokens | depth | set | µs | GB/s | GOP/s | % of limit | bits |\n",
        );
        text.push_str("|---|---|---|---:|---:|---|---:|---:|---:|---:|---|\n");
        for entry in &self.entries {
            row(&mut text, entry);
        }
        let shifted = self.entries.iter().filter(|entry| entry.shifted).count();
        let _ = writeln!(
            text,
            "\nAn entry's limit is what the same process measured right before and after it: reading a \
             set of that size, or the arithmetic of the instruction set. {shifted} of {} entries shifted \
             (*): a rate differs by > 25 % before and after, twice.",
            self.entries.len()
        );
        let wrong = self.entries.iter().filter(|entry| !entry.correct).count();
        if wrong > 0 {
            let _ = writeln!(
                text,
                "INCORRECT: {wrong} entries differ from the scalar code."
            );
        }
        let environment = &self.environment;
        let caches: Vec<String> = environment
            .cache_bytes
            .iter()
            .map(|(name, bytes)| format!("{name} {}", units::bytes(*bytes)))
            .collect();
        let _ = writeln!(
            text,
            "\n- arithmetic limits (TOPS): {}\n- cpu: {}, {} cores, {}\n- caches: {}",
            self.limits.routes(),
            environment.cpu,
            environment.cores,
            environment.virtualization,
            caches.join(", ")
        );
        text
    }

    /// One line for each entry, with a header.
    pub(crate) fn csv(&self) -> String {
        let mut text = "verb,format,shape,tokens,depth,set_bytes,level,isa,threads,call_ns,\
            gigabytes_per_second,operations_per_second,pct_of_limit,bound_by,shifted,correct,output_hash\n"
            .to_owned();
        for entry in &self.entries {
            let fields = [
                entry.verb.to_owned(),
                entry.format.clone(),
                entry.shape.clone(),
                entry.tokens.to_string(),
                entry
                    .depth
                    .map_or_else(String::new, |depth| depth.to_string()),
                entry.set_bytes.to_string(),
                entry.level.clone(),
                self.computing.isa.to_owned(),
                self.computing.threads.to_string(),
                entry.call_ns.to_string(),
                entry.gigabytes_per_second.to_string(),
                entry.operations_per_second.to_string(),
                (entry.pct_of_limit).map_or_else(String::new, |percent| percent.to_string()),
                entry.bound_by.to_owned(),
                entry.shifted.to_string(),
                entry.correct.to_string(),
                entry.output_hash.clone(),
            ];
            let _ = writeln!(text, "{}", fields.join(","));
        }
        text
    }
}

fn row(text: &mut String, entry: &Entry) {
    let percent = entry.pct_of_limit.map_or_else(
        || "n/a".to_owned(),
        |percent| format!("{percent:.1} % ({})", entry.bound_by),
    );
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} ({}) | {:.1} | {:.2} | {:.1} | {percent}{} | {} |",
        entry.verb,
        entry.format,
        entry.shape,
        entry.tokens,
        entry
            .depth
            .map_or_else(String::new, |depth| depth.to_string()),
        entry.level,
        units::bytes(entry.set_bytes as u64),
        entry.call_ns / 1e3,
        entry.gigabytes_per_second,
        entry.operations_per_second / 1e9,
        if entry.shifted { " *" } else { "" },
        if entry.correct {
            entry.output_hash.as_str()
        } else {
            "INCORRECT"
        },
    );
}
