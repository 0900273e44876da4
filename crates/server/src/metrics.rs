//! How long answers take, and the page that tells it with all other numbers.
//!
//! The format: "exposition formats" in <https://github.com/prometheus/docs>. The names beginning with
//! `vllm:` are those that routers and gateways look for, from the same numbers as our own.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redline_engine::{Event, Snapshot};
use redline_model::PAGE_POSITIONS;

use crate::Residency;
use crate::app::App;

/// Upper bounds of the buckets, in seconds.
const LONG_TIMES: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const SHORT_TIMES: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// And in tokens.
const COUNTS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0,
    20_000.0, 50_000.0, 100_000.0,
];

/// How often values fell below each of some bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and those above the last; not summed up.
    counts: Vec<AtomicU64>,
    /// Millionths.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let millionths = (value * 1e6) as u64;
        self.sum.fetch_add(millionths, Ordering::Relaxed);
    }

    fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }
}

/// What is measured of answers. The engine's own numbers are in its snapshot.
#[derive(Debug)]
pub(crate) struct Metrics {
    first_token: Histogram,
    between_tokens: Histogram,
    whole: Histogram,
    queued: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt_tokens: Histogram,
    generated_tokens: Histogram,
    /// Nothing where nobody looks.
    residency: Mutex<Option<Residency>>,
}

impl Metrics {
    pub(crate) fn tell_residency(&self, seen: Residency) {
        *(self.residency.lock()).unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            first_token: Histogram::new(LONG_TIMES),
            between_tokens: Histogram::new(SHORT_TIMES),
            whole: Histogram::new(LONG_TIMES),
            queued: Histogram::new(LONG_TIMES),
            prefill: Histogram::new(LONG_TIMES),
            decode: Histogram::new(LONG_TIMES),
            prompt_tokens: Histogram::new(COUNTS),
            generated_tokens: Histogram::new(COUNTS),
            residency: Mutex::default(),
        }
    }
}

/// Watches the answers to one prompt.
#[derive(Debug)]
pub(crate) struct Watch {
    app: Arc<App>,
    start: Instant,
    /// When each answer's last token came.
    last: Vec<Option<Instant>>,
}

impl Watch {
    pub(crate) fn new(app: &Arc<App>, choices: usize) -> Self {
        Self {
            app: Arc::clone(app),
            start: Instant::now(),
            last: vec![None; choices],
        }
    }

    pub(crate) fn observe(&mut self, event: &Event) {
        let (metrics, now) = (&self.app.metrics, Instant::now());
        match event {
            Event::PromptLogprobs { .. } => {}
            Event::Token { choice, .. } => {
                let Some(last) = self.last.get_mut(*choice) else {
                    return;
                };
                match last.replace(now) {
                    None => metrics.first_token.observe_time(now - self.start),
                    Some(before) => metrics.between_tokens.observe_time(now - before),
                }
            }
            Event::End { outcome, .. } => {
                let Ok(outcome) = outcome else {
                    return;
                };
                metrics.whole.observe_time(now - self.start);
                metrics.queued.observe_time(outcome.queued);
                metrics.prefill.observe_time(outcome.prefill);
                metrics.decode.observe_time(outcome.decode);
                metrics.prompt_tokens.observe(outcome.prompt_tokens as f64);
                (metrics.generated_tokens).observe(outcome.generated.len() as f64);
            }
        }
    }
}

/// The page.
pub(crate) fn render(metrics: &Metrics, model: &str, snapshot: &Snapshot) -> String {
    let mut page = Page {
        text: String::new(),
        model: escape(model),
    };
    page.gauges(snapshot);
    page.counters(snapshot);
    page.residency(metrics);
    page.histograms(metrics);
    page.text
}

/// A label's value: the format escapes these three.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

struct Page {
    text: String,
    model: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample; `labels` besides the model's name, each after a comma.
    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let model = &self.model;
        let _ = writeln!(
            self.text,
            "{name}{{model_name=\"{model}\"{labels}}} {value}"
        );
    }

    fn one(&mut self, names: [&str; 2], kind: &str, help: &str, value: impl std::fmt::Display) {
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            self.head(name, kind, help);
            self.sample(name, "", &value);
        }
    }

    fn gauges(&mut self, snapshot: &Snapshot) {
        let load = &snapshot.load;
        let use_of_pages = load.pages_in_use as f64 / load.pages.max(1) as f64;
        self.one(
            ["redline_answers_running", "vllm:num_requests_running"],
            "gauge",
            "Answers that have pages.",
            load.running,
        );
        self.one(
            ["redline_answers_waiting", "vllm:num_requests_waiting"],
            "gauge",
            "Answers that have none.",
            load.waiting,
        );
        self.one(
            ["redline_kv_page_use", "vllm:kv_cache_usage_perc"],
            "gauge",
            "Share of the pages that running answers have, 0 to 1.",
            use_of_pages,
        );
        for (name, help, value) in [
            ("redline_kv_pages", "Pages in all.", load.pages),
            (
                "redline_kv_pages_in_use",
                "Pages that running answers have.",
                load.pages_in_use,
            ),
            (
                "redline_kv_pages_cached",
                "Pages kept for prompts that begin alike, in use or not.",
                load.pages_cached,
            ),
            (
                "redline_missing_tokens",
                "Tokens not computed yet, of running and waiting answers.",
                load.missing_tokens,
            ),
        ] {
            self.one([name, ""], "gauge", help, value);
        }
        let name = "vllm:cache_config_info";
        self.head(name, "gauge", "How the cache is laid out.");
        let labels = format!(
            ",block_size=\"{PAGE_POSITIONS}\",num_gpu_blocks=\"{}\"",
            load.pages
        );
        self.sample(name, &labels, 1);
    }

    fn counters(&mut self, snapshot: &Snapshot) {
        let stats = &snapshot.stats;
        for (names, help, value) in [
            (
                ["redline_prompt_tokens_total", "vllm:prompt_tokens_total"],
                "Prompt tokens of answers that are over.",
                stats.prompt_tokens,
            ),
            (
                [
                    "redline_generated_tokens_total",
                    "vllm:generation_tokens_total",
                ],
                "Tokens generated.",
                stats.generated_tokens,
            ),
            (
                ["", "vllm:prefix_cache_queries_total"],
                "Prompt tokens looked for in the prefix cache, of answers that are over.",
                stats.prompt_tokens,
            ),
            (
                [
                    "redline_cached_tokens_total",
                    "vllm:prefix_cache_hits_total",
                ],
                "Prompt tokens that were in the prefix cache, of answers that are over.",
                stats.cached_tokens,
            ),
            (
                ["redline_preemptions_total", "vllm:num_preemptions_total"],
                "Answers that lost their pages to others, and went on later.",
                stats.preemptions,
            ),
            (["redline_steps_total", ""], "Steps computed.", stats.steps),
            (
                ["redline_computed_prompt_tokens_total", ""],
                "Prompt tokens computed, those of preempted answers again.",
                stats.computed_prompt_tokens,
            ),
            (
                ["redline_guesses_total", ""],
                "Tokens guessed and checked, of answers that are over.",
                stats.drafts_proposed,
            ),
            (
                ["redline_right_guesses_total", ""],
                "Guesses that were right.",
                stats.drafts_accepted,
            ),
            (
                ["redline_draft_guesses_total", ""],
                "Of the guesses, those of the draft model.",
                stats.drafts_model_proposed,
            ),
            (
                ["redline_draft_right_guesses_total", ""],
                "Of those, guesses that were right.",
                stats.drafts_model_accepted,
            ),
            (
                ["redline_draft_failures_total", ""],
                "Draft models that failed and are asked no more.",
                stats.draft_failures,
            ),
        ] {
            self.one(names, "counter", help, value);
        }
        self.ends(snapshot);
    }

    fn residency(&mut self, metrics: &Metrics) {
        let seen = *(metrics.residency.lock()).unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = seen else {
            return;
        };
        for (name, kind, help, value) in seen.rows() {
            self.one([name, ""], kind, help, value);
        }
    }

    fn ends(&mut self, snapshot: &Snapshot) {
        let stats = &snapshot.stats;
        let name = "redline_answers_ended_total";
        self.head(
            name,
            "counter",
            "Answers that are over, by what ended them.",
        );
        for (reason, count) in [
            ("eos", stats.ended_eos),
            ("stop", stats.ended_stop),
            ("length", stats.ended_length),
            ("cancelled", stats.ended_cancelled),
            ("time_limit", stats.ended_time_limit),
            ("error", stats.ended_error),
        ] {
            self.sample(name, &format!(",reason=\"{reason}\""), count);
        }
        let name = "vllm:request_success_total";
        self.head(name, "counter", "The same by another list of reasons.");
        for (reason, count) in [
            ("stop", stats.ended_eos + stats.ended_stop),
            ("length", stats.ended_length),
            ("abort", stats.ended_cancelled + stats.ended_time_limit),
        ] {
            self.sample(name, &format!(",finished_reason=\"{reason}\""), count);
        }
    }

    fn histograms(&mut self, metrics: &Metrics) {
        for (name, help, histogram) in [
            (
                "time_to_first_token_seconds",
                "From when a request was read to its first token.",
                &metrics.first_token,
            ),
            (
                "inter_token_latency_seconds",
                "From a token to the next.",
                &metrics.between_tokens,
            ),
            (
                "e2e_request_latency_seconds",
                "From when a request was read to its end.",
                &metrics.whole,
            ),
            (
                "request_queue_time_seconds",
                "From when a request came until it had pages.",
                &metrics.queued,
            ),
            (
                "request_prefill_time_seconds",
                "From then until its first token.",
                &metrics.prefill,
            ),
            (
                "request_decode_time_seconds",
                "From then until its end.",
                &metrics.decode,
            ),
            (
                "request_prompt_tokens",
                "Tokens of a prompt.",
                &metrics.prompt_tokens,
            ),
            (
                "request_generation_tokens",
                "Tokens of an answer.",
                &metrics.generated_tokens,
            ),
        ] {
            self.histogram(&format!("redline_{name}"), help, histogram);
            self.histogram(&format!("vllm:{name}"), help, histogram);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let bounds = histogram.bounds.iter().map(f64::to_string);
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
            below += count.load(Ordering::Relaxed);
            self.sample(&bucket, &format!(",le=\"{bound}\""), below);
        }
        let sum = histogram.sum.load(Ordering::Relaxed) as f64 / 1e6;
        self.sample(&format!("{name}_sum"), "", sum);
        self.sample(&format!("{name}_count"), "", below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bucket_from_its_own_on() {
        let metrics = Metrics::default();
        metrics.between_tokens.observe(0.01);
        metrics.between_tokens.observe(0.03);
        metrics.between_tokens.observe(100.0);
        let page = render(&metrics, "a\"b", &Snapshot::default());
        let value = |labels: &str| {
            let start = format!("vllm:inter_token_latency_seconds{labels} ");
            let line = page.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap_or_else(|| panic!("no {start}")).to_owned()
        };
        let bucket =
            |bound: &str| value(&format!("_bucket{{model_name=\"a\\\"b\",le=\"{bound}\"}}"));
        let found = ["0.01", "0.025", "0.05", "80", "+Inf"].map(bucket);
        assert_eq!(found, ["1", "1", "2", "2", "3"]);
        assert_eq!(value("_sum{model_name=\"a\\\"b\"}"), "100.04");
    }

    /// Routers and gateways look for these: name and type are a contract.
    #[test]
    fn the_names_that_routers_know_are_there_once() {
        let page = render(&Metrics::default(), "m", &Snapshot::default());
        for (name, kind) in [
            ("num_requests_running", "gauge"),
            ("num_requests_waiting", "gauge"),
            ("kv_cache_usage_perc", "gauge"),
            ("cache_config_info", "gauge"),
            ("prompt_tokens_total", "counter"),
            ("generation_tokens_total", "counter"),
            ("prefix_cache_queries_total", "counter"),
            ("prefix_cache_hits_total", "counter"),
            ("num_preemptions_total", "counter"),
            ("request_success_total", "counter"),
            ("time_to_first_token_seconds", "histogram"),
            ("inter_token_latency_seconds", "histogram"),
            ("e2e_request_latency_seconds", "histogram"),
            ("request_queue_time_seconds", "histogram"),
            ("request_prefill_time_seconds", "histogram"),
            ("request_decode_time_seconds", "histogram"),
            ("request_prompt_tokens", "histogram"),
            ("request_generation_tokens", "histogram"),
        ] {
            let line = format!("# TYPE vllm:{name} {kind}");
            let found = page.lines().filter(|found| **found == line).count();
            assert_eq!(found, 1, "{line}");
        }
    }
}
