//! One launch: loads the model, runs the tests, says what it measured. Started by `redline bench`.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use redline_compute::Cpu;
use redline_compute::limits::BandwidthProbe;
use redline_gguf::TokenId;
use redline_model::{
    Forward as _, LogitRows, Model, ModelFile, PageId, Properties, SequenceStep, StepPlan,
    pages_for,
};
use sha2::{Digest as _, Sha256};

use super::cost::Cost;
use super::{Launch, Message, Run, Test};
use crate::cli::Compute;
use crate::commands::Context;
use crate::interrupt::Interrupt;
use crate::{memory, output, session, units};

/// Flags of the hidden verb `bench-worker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's file
    path: PathBuf,
    /// Prompt lengths to test
    #[arg(short = 'p', value_delimiter = ',')]
    prompts: Vec<usize>,
    /// Numbers of decode steps to test
    #[arg(short = 'n', value_delimiter = ',')]
    generations: Vec<usize>,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Rounds of a test, at most; fewer where a round is long.
const ROUNDS: usize = 3;
/// No further round starts after this.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
/// Warm-ups, each with a short prompt and a few steps.
const WARM_UPS: usize = 2;
const WARM_UP_PROMPT: usize = 32;
const WARM_UP_STEPS: usize = 4;
/// Samples of a bandwidth probe, and their length.
const PROBE_PASSES: usize = 5;
const PROBE_PASS: Duration = Duration::from_millis(20);

/// Measures, and writes [`Message`]s to stdout.
///
/// # Errors
/// If the model cannot be run, or the user stops it.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let tests: Vec<Test> = (args.prompts.iter().copied().map(Test::Prefill))
        .chain(args.generations.iter().copied().map(Test::Decode))
        .filter(|test| test.tokens() > 0)
        .collect();
    let positions = tests.iter().map(|test| test.tokens()).max().unwrap_or(1);
    phase("load")?;
    let start = Instant::now();
    let file = ModelFile::open(&args.path)?;
    let gguf = file.gguf()?;
    let properties = Properties::from_gguf(&gguf)?;
    let warm = (WARM_UP_PROMPT + WARM_UP_STEPS).min(properties.context_length);
    let options = session::load_options(&context.config, Some(positions.max(warm)));
    memory::check(redline_model::MemoryPlan::new(&gguf, &options)?)?;
    let backend = Cpu::new(context.config.isa, context.config.threads.get());
    let model = Model::load(&file, &gguf, backend, &options, &mut |_| {})?;
    let load_ns = nanoseconds(start.elapsed());
    let mut bench = Bench {
        pages: (0..pages_for(positions.max(warm)) as u32)
            .map(PageId)
            .collect(),
        chunk_tokens: context.config.chunk_tokens.get(),
        model,
        interrupt: &context.interrupt,
    };
    phase("warm-up")?;
    for _ in 0..WARM_UPS {
        bench.prefill(warm.saturating_sub(WARM_UP_STEPS).max(1))?;
        bench.decode(WARM_UP_STEPS.min(warm))?;
    }
    let cost = Cost::new(&gguf, &properties);
    let mut runs = Vec::new();
    let mut peak_rss = None;
    for test in tests {
        phase(&test.name())?;
        // A probe reads memory of its own, which is not the model's.
        if matches!(test, Test::Decode(_)) {
            peak_rss = peak_rss.or_else(peak_rss_bytes);
        }
        runs.push(bench.run(test, &cost, context)?);
    }
    let peak_rss_bytes = peak_rss.or_else(peak_rss_bytes);
    say(&Message::Launch(Launch {
        load_ns,
        peak_rss_bytes,
        runs,
    }))
}

fn phase(what: &str) -> anyhow::Result<()> {
    say(&Message::Phase(what.to_owned()))
}

fn say(message: &Message) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output::raw(&line)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `VmHWM` of `/proc/self/status`.
fn peak_rss_bytes() -> Option<u64> {
    memory::meminfo_bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

struct Bench<'i> {
    model: Model<Cpu>,
    pages: Vec<PageId>,
    chunk_tokens: usize,
    interrupt: &'i Interrupt,
}

impl Bench<'_> {
    fn run(&mut self, test: Test, cost: &Cost, context: &Context) -> anyhow::Result<Run> {
        let mut run = Run {
            test,
            samples_ns: Vec::new(),
            hashes: Vec::new(),
            probes: None,
        };
        let mut probe = match test {
            Test::Prefill(_) => None,
            Test::Decode(tokens) => bandwidth_probe(cost.bytes_per_token(tokens), context),
        };
        let mut measure = || {
            probe
                .as_mut()
                .map(|probe| probe.measure(PROBE_PASSES, PROBE_PASS))
        };
        let before = measure();
        let start = Instant::now();
        while run.samples_ns.is_empty()
            || run.samples_ns.len() < ROUNDS && start.elapsed() < LONG_ENOUGH
        {
            let (time, hash) = match test {
                Test::Prefill(tokens) => self.prefill(tokens)?,
                Test::Decode(tokens) => self.decode(tokens)?,
            };
            run.samples_ns.push(nanoseconds(time));
            run.hashes.push(hash);
        }
        if let (Some(before), Some(after)) = (before, measure()) {
            run.probes = Some([before.samples.median(), after.samples.median()]);
        }
        Ok(run)
    }

    /// A prompt from an empty cache: the time to the last position's logits, and their hash.
    fn prefill(&mut self, tokens: usize) -> anyhow::Result<(Duration, String)> {
        let ids = prompt(tokens, self.model.vocab_size());
        let mut time = Duration::ZERO;
        let mut output = Output::new();
        for (index, chunk) in ids.chunks(self.chunk_tokens).enumerate() {
            let position = index * self.chunk_tokens;
            let last = position + chunk.len() == ids.len();
            let rows = if last {
                LogitRows::Last
            } else {
                LogitRows::None
            };
            let (step, logits) = self.step(chunk, position, rows)?;
            time += step;
            if last {
                output.token(likeliest(logits));
                output.logits(logits);
            }
        }
        Ok((time, output.hash()))
    }

    /// Steps of one token from an empty cache, each taking the likeliest token of the one before.
    fn decode(&mut self, tokens: usize) -> anyhow::Result<(Duration, String)> {
        let mut next = prompt(1, self.model.vocab_size())[0];
        let mut time = Duration::ZERO;
        let mut output = Output::new();
        for position in 0..tokens {
            let (step, logits) = self.step(&[next], position, LogitRows::Last)?;
            time += step;
            next = likeliest(logits);
            output.token(next);
            if position + 1 == tokens {
                output.logits(logits);
            }
        }
        Ok((time, output.hash()))
    }

    fn step(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        logits: LogitRows,
    ) -> anyhow::Result<(Duration, &[f32])> {
        if self.interrupt.asked() {
            bail!("interrupted");
        }
        let sequences = [SequenceStep {
            tokens,
            position,
            pages: &self.pages,
            logits,
        }];
        let plan = StepPlan {
            sequences: &sequences,
        };
        let start = Instant::now();
        let logits =
            black_box(self.model.forward(black_box(&plan), &mut ())).context("cannot step")?;
        Ok((start.elapsed(), logits))
    }
}

/// A probe that reads as many bytes as a step, so that both meet the same caches; no probe where
/// there is no memory for it.
fn bandwidth_probe(bytes: f64, context: &Context) -> Option<BandwidthProbe> {
    let bytes = bytes as u64;
    if memory::available_bytes().is_some_and(|available| bytes > available / 2) {
        output::note("no memory for a bandwidth probe beside the model: % of limit is n/a");
        return None;
    }
    BandwidthProbe::with_working_set(context.config.threads.get(), usize::try_from(bytes).ok()?)
        .ok()
}

/// Token ids without meaning, the same in every launch (SplitMix64, Steele et al. 2014).
fn prompt(tokens: usize, vocab: usize) -> Vec<TokenId> {
    let id = |index: u64| {
        let mut z = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        TokenId(((z ^ (z >> 31)) % vocab as u64) as u32)
    };
    (0..tokens as u64).map(id).collect()
}

/// The largest logit's token, the lowest of several.
fn likeliest(logits: &[f32]) -> TokenId {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    TokenId(best.0 as u32)
}

/// What a round put out, as a hash.
struct Output(Sha256);

impl Output {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn token(&mut self, id: TokenId) {
        self.0.update(id.0.to_le_bytes());
    }

    fn logits(&mut self, logits: &[f32]) {
        for logit in logits {
            self.0.update(logit.to_bits().to_le_bytes());
        }
    }

    fn hash(self) -> String {
        units::hex(&self.0.finalize()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_the_same_each_time_and_within_the_vocabulary() {
        let ids = prompt(64, 1000);
        assert_eq!(ids, prompt(64, 1000));
        assert!(ids.iter().all(|id| id.0 < 1000));
        assert_eq!(prompt(8, 1000), ids[..8]);
        // SplitMix64 from seed 0 begins with 0xE220A8397B1DCDAF.
        assert_eq!(prompt(1, usize::MAX)[0].0, 0xE220_A839_7B1D_CDAF_u64 as u32);
    }

    #[test]
    fn the_lowest_of_equal_logits_is_likeliest() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0, f32::NAN]), TokenId(1));
        assert_eq!(likeliest(&[f32::NAN, f32::NAN]), TokenId(0));
    }

    #[test]
    fn one_bit_changes_the_hash() {
        let hash = |logit: f32| {
            let mut output = Output::new();
            output.token(TokenId(7));
            output.logits(&[logit]);
            output.hash()
        };
        assert_eq!(hash(1.0), hash(1.0));
        assert_ne!(hash(0.0), hash(-0.0));
    }
}
