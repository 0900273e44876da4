//! What was measured, as Markdown or JSON.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::engines::{self, Engine, Failure, Ours, Sample};
use super::statistics::{interval, median};
use super::suite::{self, Goal};
use super::{Model, Test};
use crate::shell::command;

/// Everything, in the order it was measured.
pub(super) struct Report {
    pub(super) figures: Vec<Figures>,
    pub(super) extras: Vec<String>,
    threads: usize,
    peers: Vec<[String; 2]>,
    limits: Value,
}

/// One test of one model, all engines.
pub(super) struct Figures {
    model: String,
    test: Test,
    engines: Vec<Runs>,
}

/// One engine's rounds.
#[derive(Serialize)]
struct Runs {
    name: String,
    /// With the number of the round.
    samples: Vec<(usize, Sample)>,
    failure: Option<Failure>,
}

impl Report {
    /// Nothing measured yet but the machine.
    pub(super) fn new(ours: &Ours, peers: &[Engine]) -> Result<Self> {
        let threads = ours.threads.to_string();
        let mut limits = command(
            &ours.binary.to_string_lossy(),
            &["limits", "--quick", "--json", "-t", &threads],
        );
        Ok(Self {
            figures: Vec::new(),
            extras: Vec::new(),
            threads: ours.threads,
            peers: peers
                .iter()
                .map(|peer| [peer.name.clone(), peer.bench_arguments.clone()])
                .collect(),
            limits: engines::json(&engines::finished(&mut limits)?)?,
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "schema_version": 1,
            "threads": self.threads,
            "peers": self.peers,
            "limits": self.limits,
            "extras": self.extras,
            "results": self.figures.iter().map(|figures| json!({
                "model": figures.model,
                "test": figures.test.name(),
                "engines": figures.engines,
                "comparisons": figures.comparisons().iter().map(|comparison| json!({
                    "peer": comparison.peer,
                    "ratio": comparison.ratio,
                    "ratio_interval_95": comparison.interval,
                    "rounds": comparison.rounds,
                })).collect::<Value>(),
            })).collect::<Value>(),
        })
    }

    /// Operations per second of an instruction.
    fn peak(&self, instruction: &str) -> Option<f64> {
        let mut peaks = self.limits["peaks"].as_array()?.iter();
        let peak = peaks.find(|peak| peak["instruction"] == instruction)?;
        peak["operations_per_second"].as_f64()
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("## Redline and its peers, {} threads\n\n", self.threads);
        text.push_str(
            "| model | test | redline t/s | rate | % of limit | peer | t/s | % of limit | ratio | 95 % | rounds | goal |\n\
             |---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---|\n",
        );
        let dot = self.peak("vpdpbusd zmm");
        for figures in &self.figures {
            figures.rows(&mut text, dot);
        }
        text.push_str(
            "\nMedians over rounds; a round runs each engine once, in turns. % of limit: for decode, bytes a \
             token must read over the read bandwidth measured right before and after the run; for prefill, \
             operations of the linear layers over the arithmetic rate of the instruction set in use, measured \
             around Redline's run of the round (rate: the share of vpdpbusd beside it). Decode runs whose probes differ by more than a quarter are \
             dropped; rounds: pairs that were kept. The interval is by bootstrap over rounds.\n",
        );
        for extra in &self.extras {
            let _ = writeln!(text, "- {extra}");
        }
        let environment = &self.limits["environment"];
        let word = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        let _ = writeln!(
            text,
            "- machine: {}, {} cores, {}, load {}",
            word(&environment["cpu"]),
            environment["cores"],
            word(&environment["kernel"]),
            environment["load_average_1m"]
        );
        let giga = |value: &Value| value.as_f64().unwrap_or(f64::NAN) / 1e9;
        let peaks = self.limits["peaks"].as_array().into_iter().flatten();
        let peaks: Vec<String> = peaks
            .map(|peak| {
                format!(
                    "{} {:.2} TOPS",
                    word(&peak["instruction"]),
                    giga(&peak["operations_per_second"]) / 1e3
                )
            })
            .collect();
        let _ = writeln!(
            text,
            "- limits before the first round: read {:.1} GB/s, {}",
            giga(&self.limits["best"]["read_bytes_per_second"]),
            peaks.join(", ")
        );
        text
    }
}

/// A peer beside ours.
struct Comparison<'a> {
    peer: &'a str,
    ratio: f64,
    interval: Option<[f64; 2]>,
    rounds: usize,
}

impl Figures {
    pub(super) fn new(model: &Model, test: Test, peers: &[Engine]) -> Self {
        let names = peers.iter().map(|peer| peer.name.as_str());
        let runs = |name: &str| Runs {
            name: name.to_owned(),
            samples: Vec::new(),
            failure: None,
        };
        Self {
            model: model.name.clone(),
            test,
            engines: std::iter::once("redline").chain(names).map(runs).collect(),
        }
    }

    pub(super) fn add(&mut self, name: &str, round: usize, sample: Sample) {
        let runs = self.engines.iter_mut().find(|runs| runs.name == name);
        runs.into_iter()
            .for_each(|runs| runs.samples.push((round, sample.clone())));
    }

    pub(super) fn fail(&mut self, name: &str, failure: Failure) {
        println!(
            "{} {}: {name} {}",
            self.model,
            self.test.name(),
            failure.what
        );
        let runs = self.engines.iter_mut().find(|runs| runs.name == name);
        runs.into_iter()
            .for_each(|runs| runs.failure = Some(failure.clone()));
    }

    pub(super) fn has_crashed(&self, name: &str) -> bool {
        let runs = self.engines.iter().find(|runs| runs.name == name);
        let failure = runs.and_then(|runs| runs.failure.as_ref());
        failure.is_some_and(|failure| failure.crashed)
    }

    /// A line for the log.
    pub(super) fn line(&self) -> String {
        let rate = |runs: &Runs| match &runs.failure {
            Some(failure) => format!("{} {}", runs.name, failure.what),
            None => format!(
                "{} {:.1} t/s, {:.1} %",
                runs.name,
                runs.rate(),
                self.percent(runs)
            ),
        };
        let rates: Vec<String> = self.engines.iter().map(rate).collect();
        rates.join("; ")
    }

    fn comparisons(&self) -> Vec<Comparison<'_>> {
        let (ours, peers) = self.engines.split_at(1);
        let compare = |peer: &'_ Runs| {
            let ratios: Vec<f64> = ours[0]
                .clean()
                .filter_map(|(round, sample)| {
                    let theirs = peer.clean().find(|(other, _)| other == round)?;
                    Some(sample.tokens_per_second / theirs.1.tokens_per_second)
                })
                .collect();
            (median(&ratios), interval(&ratios), ratios.len())
        };
        peers
            .iter()
            .map(|peer| {
                let (ratio, interval, rounds) = compare(peer);
                Comparison {
                    peer: &peer.name,
                    ratio,
                    interval,
                    rounds,
                }
            })
            .collect()
    }

    /// Median share of the limit, in percent.
    fn percent(&self, runs: &Runs) -> f64 {
        let ours = &self.engines[0];
        let share = |(round, sample): &(usize, Sample)| {
            let own = ours.samples.iter().find(|(other, _)| other == round)?;
            let own = own.1.own.as_ref()?;
            let probe = match sample.probes {
                Some([before, after]) => f64::midpoint(before, after),
                None => own.probe_per_second?,
            };
            Some(100.0 * sample.tokens_per_second * own.cost_per_token / probe)
        };
        median(&runs.clean().filter_map(share).collect::<Vec<_>>())
    }

    /// What is read or computed a second: `38.2 GB/s`, `1.53 TOPS (85 %)`, of `dot` operations.
    fn done(&self, ours: &Runs, dot: Option<f64>) -> String {
        let costs = ours.samples.iter().filter_map(|(_, sample)| {
            let own = sample.own.as_ref()?;
            Some(own.cost_per_token)
        });
        let done = ours.rate() * median(&costs.collect::<Vec<_>>());
        if self.test.is_decode() {
            format!("{:.1} GB/s", done / 1e9)
        } else {
            let share = dot.map(|dot| format!(" ({:.0} %)", 100.0 * done / dot));
            format!("{:.2} TOPS{}", done / 1e12, share.unwrap_or_default())
        }
    }

    fn rows(&self, text: &mut String, dot: Option<f64>) {
        let ours = &self.engines[0];
        let (rate, percent) = (ours.rate(), self.percent(ours));
        let goal = suite::goal(&self.model, self.test);
        let start = format!(
            "| {} | {} | {rate:.1} | {} | {percent:.1} |",
            self.model,
            self.test.name(),
            self.done(ours, dot)
        );
        let peers = &self.engines[1..];
        if peers.is_empty() {
            let goal = verdict(goal, percent, None);
            let _ = writeln!(
                text,
                "{start} – | | | | | {} | {goal} |",
                ours.clean().count()
            );
        }
        for (runs, comparison) in peers.iter().zip(self.comparisons()) {
            if runs.samples.is_empty() {
                let what = runs.failure.as_ref().map_or("not run", |f| f.what.as_str());
                let what = what.replace(['|', '\n'], " ");
                let goal = verdict(goal, percent, None);
                let _ = writeln!(text, "{start} {}: {what} | | | | | | {goal} |", runs.name);
                continue;
            }
            let interval = comparison.interval.map_or_else(
                || "n/a".to_owned(),
                |[low, high]| format!("{low:.2}–{high:.2}"),
            );
            let _ = writeln!(
                text,
                "{start} {} | {:.1} | {:.1} | {:.2} | {interval} | {} | {} |",
                runs.name,
                runs.rate(),
                self.percent(runs),
                comparison.ratio,
                comparison.rounds,
                verdict(goal, percent, Some(comparison.ratio))
            );
        }
    }
}

impl Runs {
    /// The samples that count: all, if none is clean.
    fn clean(&self) -> impl Iterator<Item = &(usize, Sample)> {
        let all = !self.samples.iter().any(|(_, sample)| sample.is_clean());
        self.samples
            .iter()
            .filter(move |(_, sample)| all || sample.is_clean())
    }

    fn rate(&self) -> f64 {
        median(
            &self
                .clean()
                .map(|(_, sample)| sample.tokens_per_second)
                .collect::<Vec<_>>(),
        )
    }
}

/// `≥ 85 %: met, ≥ 1.5 ×: missed`.
fn verdict(goal: Option<Goal>, percent: f64, ratio: Option<f64>) -> String {
    let Some(goal) = goal else {
        return String::new();
    };
    let word = |met: bool| if met { "met" } else { "missed" };
    let mut parts = Vec::new();
    if let Some(least) = goal.percent {
        parts.push(format!("≥ {least} %: {}", word(percent >= least)));
    }
    if let (Some(least), Some(ratio)) = (goal.ratio, ratio) {
        parts.push(format!("≥ {least} ×: {}", word(ratio >= least)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::engines::Own;
    use super::*;

    fn sample(rate: f64, probes: [f64; 2], ours: bool) -> Sample {
        let own = ours.then(|| Own {
            cost_per_token: 1e9,
            probe_per_second: Some(1.0),
            dropped_rounds: 0,
            output_hash: String::new(),
            load_ms: 1.0,
            peak_rss_bytes: None,
        });
        let [before, after] = probes;
        Sample::new((rate, own), Some(before), Some(after))
    }

    fn figures() -> Figures {
        let model = Model {
            name: "gemma3-270m".to_owned(),
            path: "x".into(),
            bytes: 1,
        };
        let peer = Engine {
            name: "p".to_owned(),
            bench: String::new(),
            bench_arguments: String::new(),
            batch_arguments: String::new(),
        };
        let test = Test::Generate {
            tokens: 128,
            depth: 0,
        };
        Figures::new(&model, test, &[peer])
    }

    #[test]
    fn ratios_are_of_clean_runs_of_the_same_round() {
        let mut figures = figures();
        let held = [50e9, 50e9];
        for (round, (ours, theirs)) in [(40.0, 20.0), (42.0, 20.0), (44.0, 20.0)]
            .into_iter()
            .enumerate()
        {
            figures.add("redline", round, sample(ours, held, true));
            figures.add("p", round, sample(theirs, held, false));
        }
        // A round whose probes moved: neither its rate nor its ratio counts.
        figures.add("redline", 3, sample(90.0, [50e9, 20e9], true));
        figures.add("p", 3, sample(20.0, held, false));
        let comparison = &figures.comparisons()[0];
        assert_eq!((comparison.ratio, comparison.rounds), (2.1, 3));
        let mut text = String::new();
        figures.rows(&mut text, None);
        let expected = "| gemma3-270m | tg128 | 42.0 | 42.0 GB/s | 84.0 | p | 20.0 | 40.0 | 2.10 | 2.00–2.20 | 3 | \
            ≥ 80 %: met, ≥ 1.5 ×: met |\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_crashed_peer_is_named_with_its_signal() {
        let mut figures = figures();
        figures.add("redline", 0, sample(40.0, [50e9, 50e9], true));
        let failure = Failure {
            what: "crashed: SIGILL".to_owned(),
            crashed: true,
        };
        figures.fail("p", failure);
        assert!(figures.has_crashed("p"));
        let mut text = String::new();
        figures.rows(&mut text, None);
        assert!(text.contains("p: crashed: SIGILL"), "{text}");
    }
}
