//! `bench --suite kernels`: every verb by itself, beside what the machine could do at that moment.
//!
//! An entry is a verb, a storage format where it has one, and a shape. Its output is compared with
//! the scalar code's bit by bit before it is timed: no speed without correctness. Sets that cycle
//! through more bytes than the caches hold tell of decode; those that stay in a cache tell of the
//! instructions alone.

mod attention;
mod experts;
mod feed_forward;
mod lab;
mod list;
mod matmul;
mod report;
mod rows;

use anyhow::bail;
use redline_compute::{Format, KvFormat};
use serde::Serialize;

use super::capture::{self, Shown};
use crate::commands::Context;
use crate::environment::Environment;
use lab::Lab;

pub(crate) use report::Report;

/// One thing to time.
#[derive(Debug, Clone, PartialEq)]
struct Case {
    /// The verb, with what decides its kernel: `matmul`, `norm rms`.
    verb: &'static str,
    /// Storage format of what is read, or `f32`.
    format: String,
    /// Sizes: `9216x3072`, `14/2 heads of 64`.
    shape: String,
    /// Tokens of a call.
    tokens: usize,
    /// Positions in the cache; for attention.
    depth: Option<usize>,
    /// Whether the set is to be larger than the caches.
    beyond_caches: bool,
    kind: Kind,
}

/// How a case is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Matmul(matmul::Shape),
    Attention(attention::Heads, KvFormat),
    Experts(Format),
    FeedForward(feed_forward::Shape),
    Rows(rows::Verb),
}

impl Case {
    /// What `--filter` is looked for in, and what progress shows.
    fn name(&self) -> String {
        let depth = self
            .depth
            .map_or_else(String::new, |depth| format!(" d{depth}"));
        let set = if self.beyond_caches { " memory" } else { "" };
        format!(
            "{} {} {} m{}{depth}{set}",
            self.verb, self.format, self.shape, self.tokens
        )
    }

    fn prepare(&self, lab: &Lab) -> Box<dyn Work> {
        match self.kind {
            Kind::Matmul(shape) => Box::new(matmul::Matmul::new(
                lab,
                shape,
                self.tokens,
                self.beyond_caches,
            )),
            Kind::Attention(heads, format) => Box::new(attention::Attention::new(
                lab,
                (heads, format),
                self.tokens,
                self.depth.unwrap_or(0),
            )),
            Kind::Experts(format) => Box::new(experts::Experts::new(lab, format, self.tokens)),
            Kind::FeedForward(shape) => {
                Box::new(feed_forward::Network::new(lab, shape, self.tokens))
            }
            Kind::Rows(verb) => Box::new(rows::Rows::new(lab, verb, self.tokens)),
        }
    }
}

/// A prepared case.
trait Work {
    /// What a call must read and compute.
    fn cost(&self) -> Cost;
    /// Computes once, and again with scalar code.
    fn outputs(&mut self) -> Outputs;
    /// Makes ready for a call; not timed.
    fn reset(&mut self) {}
    /// The call.
    fn call(&mut self);
}

/// What a call must read and compute at least.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Cost {
    /// Bytes all calls together touch before the first is touched again.
    set_bytes: usize,
    /// Bytes read (and written, where that is the verb's work).
    bytes: f64,
    /// Products of bytes, two operations each.
    int8: f64,
    /// Products of floats, two operations each.
    f32: f64,
}

/// Values that must be equal in every bit.
#[derive(Debug)]
struct Outputs {
    ours: Vec<f32>,
    scalar: Vec<f32>,
}

/// A timed case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    verb: &'static str,
    format: String,
    shape: String,
    tokens: usize,
    depth: Option<usize>,
    set_bytes: usize,
    /// Where the set lives: `L1`, `L2`, `L3` or `memory`.
    level: String,
    /// Nanoseconds of a call, the mean of a pass each.
    samples_ns: Vec<f64>,
    /// Their median.
    call_ns: f64,
    gigabytes_per_second: f64,
    operations_per_second: f64,
    /// Read bandwidth over a set of this size, before and after.
    read_bytes_per_second: [f64; 2],
    /// The arithmetic rate that the verb could have, before and after.
    peak_operations_per_second: Option<[f64; 2]>,
    /// Least possible time over measured time.
    pct_of_limit: Option<f64>,
    /// The limit that binds: `read` or `compute`.
    bound_by: &'static str,
    /// The probes before and after differ by more than a quarter, twice in a row.
    shifted: bool,
    /// Whether the output has the scalar code's bits.
    correct: bool,
    /// Hash of the output's bits.
    output_hash: String,
}

/// Times every case whose name holds one of the comma-separated parts of `filter`.
///
/// # Errors
/// If no case is chosen, or the user stops it.
pub(crate) fn run(filter: Option<&str>, context: &Context) -> anyhow::Result<Report> {
    let environment = Environment::detect();
    let cases: Vec<Case> = list::all()
        .into_iter()
        .filter(|case| is_chosen(&case.name(), filter))
        .collect();
    if cases.is_empty() {
        bail!(
            "no kernel's name holds {:?}; a name is like {:?}",
            filter.unwrap_or_default(),
            list::all()[0].name()
        );
    }
    let limits = capture::peaks(context)?;
    let mut lab = Lab::new(context, &environment);
    let shown = Shown::new();
    let mut entries = Vec::with_capacity(cases.len());
    for (index, case) in cases.iter().enumerate() {
        if context.interrupt.asked() {
            shown.clear();
            bail!("interrupted");
        }
        shown.say(&format!("{}/{} {}", index + 1, cases.len(), case.name()));
        entries.push(lab.measure(case));
    }
    shown.clear();
    Ok(Report::new(entries, limits, environment, context))
}

fn is_chosen(name: &str, filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| filter.split(',').any(|part| name.contains(part.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_parts_of_names() {
        let name = "matmul q4_k 9216x3072 m1 memory";
        assert!(is_chosen(name, None));
        assert!(is_chosen(name, Some("norm, q4_k 9216")));
        assert!(!is_chosen(name, Some("norm,q8_0")));
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<String> = list::all().iter().map(Case::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        for verb in [
            "matmul",
            "attention",
            "norm",
            "rope",
            "gated silu",
            "embed",
            "append_kv",
            "experts",
            "feed_forward",
        ] {
            assert!(names.iter().any(|name| name.starts_with(verb)), "{verb}");
        }
    }
}
