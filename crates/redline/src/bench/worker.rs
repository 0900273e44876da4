//! One launch: loads the model, runs the tests, says what it measured. Started by `redline bench`.

use std::hint::black_box;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use redline_compute::Cpu;
use redline_compute::limits::{BandwidthProbe, ComputeProbe, Route};
use redline_gguf::{Gguf, TokenId};
use redline_model::{
    Forward as _, LoadOptions, LogitRows, Model, ModelFile, PageId, Properties, SequenceStep,
    StepPlan, pages_for,
};

use super::cost::Cost;
use super::selection::{Phase, Test, TestArgs};
use super::{Launch, Message, Output, Round, Run};
use crate::cli::Compute;
use crate::commands::Context;
use crate::interrupt::Interrupt;
use crate::room::{Room, Saving};
use crate::{memory, output, session, splitmix};

/// Flags of the hidden verb `bench-worker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's file
    path: PathBuf,
    #[command(flatten)]
    tests: TestArgs,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Rounds of a test, at most; fewer where a round is long.
const ROUNDS: usize = 3;
/// No further round starts after this.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
/// Times that the warm-up runs.
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
    let tests = args.tests.tests()?;
    phase("load")?;
    let start = Instant::now();
    let file = ModelFile::open(&args.path)?;
    let gguf = file.gguf()?;
    let properties = Properties::from_gguf(&gguf)?;
    let warm_up = warm_up(properties.context_length);
    let all = || tests.iter().chain(&warm_up);
    let positions = all().map(|test| test.positions()).max();
    let pages = all().map(|test| test.sequences * pages_for(test.positions()));
    let sequences = all().map(|test| test.sequences).max().unwrap_or(1);
    let options = session::load_options(&context.config, positions);
    let options = LoadOptions {
        kv_pages: pages.max(),
        max_step_tokens: options.max_step_tokens.max(sequences),
        max_logit_rows: sequences,
        ..options
    };
    let room = Room::find(&gguf, options, Saving::usual)?;
    let backend = Cpu::new(context.config.isa, context.config.threads.get());
    let model = Model::load(&file, &gguf, backend, room.options(), &mut |_| {})?;
    let load_ns = nanoseconds(start.elapsed());
    session::lock_if_asked(&file, &gguf, context.config.mlock);
    let mut bench = Bench {
        pages: (0..model.shape().page_count as u32).map(PageId).collect(),
        chunk_tokens: context.config.chunk_tokens.get(),
        model,
        interrupt: &context.interrupt,
    };
    phase("warm-up")?;
    touch(&gguf);
    for test in (0..WARM_UPS).flat_map(|_| warm_up) {
        bench.round(test)?;
    }
    let cost = Cost::new(&gguf, &properties, context.config.kv);
    let mut runs = Vec::new();
    let mut peak_rss = None;
    for test in tests {
        phase(&test.name())?;
        // A bandwidth probe reads memory of its own, which is not the model's.
        if test.phase == Phase::Decode {
            peak_rss = peak_rss.or_else(peak_rss_bytes);
        }
        let mut probe = Probe::new(test, &cost, context);
        runs.push(bench.run(test, probe.as_mut())?);
    }
    let peak_rss_bytes = peak_rss.or_else(peak_rss_bytes);
    say(&Message::Launch(Launch {
        load_ns,
        peak_rss_bytes,
        runs,
    }))
}

/// Reads a byte of every page of the weights: a page that has just come from the disk is in this
/// process's page table, but on a virtual machine its first reader waits for the hypervisor's, and the
/// warm-up reads no expert that only later tokens choose.
fn touch(gguf: &Gguf<'_>) {
    const PAGE: usize = 4096;
    for tensor in gguf.tensors() {
        let pages = tensor.data.iter().step_by(PAGE);
        black_box(pages.fold(0, |sum, byte| sum ^ byte));
    }
}

/// A short prompt and a few steps, as far as they fit.
fn warm_up(context_length: usize) -> [Test; 2] {
    let test = |phase, tokens: usize| Test {
        phase,
        tokens: tokens.min(context_length),
        depth: 0,
        sequences: 1,
    };
    [
        test(Phase::Prefill, WARM_UP_PROMPT),
        test(Phase::Decode, WARM_UP_STEPS),
    ]
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
    memory::status_bytes("VmHWM")
}

struct Bench<'i> {
    model: Model<Cpu>,
    /// All pages; a test's sequences take as many as they need, one after the other.
    pages: Vec<PageId>,
    chunk_tokens: usize,
    interrupt: &'i Interrupt,
}

impl Bench<'_> {
    /// Rounds of a test, each between two probes.
    fn run(&mut self, test: Test, mut probe: Option<&mut Probe>) -> anyhow::Result<Run> {
        // Rounds write behind these positions only: once is enough for all of them.
        for sequence in 0..test.sequences {
            self.prompt(test, sequence, 0..test.depth)?;
        }
        let mut rounds: Vec<Round> = Vec::new();
        let start = Instant::now();
        let mut before = probe.as_mut().map(|probe| probe.measure());
        while rounds.is_empty() || rounds.len() < ROUNDS && start.elapsed() < LONG_ENOUGH {
            let (time, hash) = self.round(test)?;
            let after = probe.as_mut().map(|probe| probe.measure());
            rounds.push(Round {
                ns: nanoseconds(time),
                hash,
                probes: before.zip(after).map(|(before, after)| [before, after]),
            });
            before = after;
        }
        Ok(Run { test, rounds })
    }

    /// The time of the test's tokens, and a hash of what they put out.
    fn round(&mut self, test: Test) -> anyhow::Result<(Duration, String)> {
        match test.phase {
            Phase::Prefill => self.prompt(test, 0, test.depth..test.positions()),
            Phase::Decode => self.decode(test),
        }
    }

    /// The positions `range` of a sequence's prompt, in chunks: the time to the last position's
    /// logits, and their hash.
    fn prompt(
        &mut self,
        test: Test,
        sequence: usize,
        range: Range<usize>,
    ) -> anyhow::Result<(Duration, String)> {
        let ids = prompt(sequence, range.end, self.model.shape().vocab_size);
        let pages = pages_of(&self.pages, test, sequence);
        let mut time = Duration::ZERO;
        let mut output = Output::new();
        for start in range.clone().step_by(self.chunk_tokens) {
            let end = range.end.min(start + self.chunk_tokens);
            let last = end == range.end;
            let step = SequenceStep {
                tokens: &ids[start..end],
                position: start,
                pages,
                logits: if last {
                    LogitRows::Last
                } else {
                    LogitRows::None
                },
            };
            let logits = step_all(&mut self.model, &[step], self.interrupt, &mut time)?;
            if last {
                output.token(likeliest(logits));
                output.values(logits);
            }
        }
        Ok((time, output.hash()))
    }

    /// Steps of one token of every sequence, each taking the likeliest token of the one before.
    fn decode(&mut self, test: Test) -> anyhow::Result<(Duration, String)> {
        let vocab = self.model.shape().vocab_size;
        let mut next: Vec<TokenId> = (0..test.sequences)
            .map(|sequence| token(sequence, test.depth, vocab))
            .collect();
        let mut time = Duration::ZERO;
        let mut output = Output::new();
        for position in test.depth..test.positions() {
            let steps: Vec<SequenceStep<'_>> = (next.chunks(1).enumerate())
                .map(|(sequence, tokens)| SequenceStep {
                    tokens,
                    position,
                    pages: pages_of(&self.pages, test, sequence),
                    logits: LogitRows::Last,
                })
                .collect();
            let logits = step_all(&mut self.model, &steps, self.interrupt, &mut time)?;
            for (next, logits) in next.iter_mut().zip(logits.chunks_exact(vocab)) {
                *next = likeliest(logits);
                output.token(*next);
            }
            if position + 1 == test.positions() {
                output.values(logits);
            }
        }
        Ok((time, output.hash()))
    }
}

/// One step, adding its duration to `time`.
fn step_all<'m>(
    model: &'m mut Model<Cpu>,
    sequences: &[SequenceStep<'_>],
    interrupt: &Interrupt,
    time: &mut Duration,
) -> anyhow::Result<&'m [f32]> {
    if interrupt.asked() {
        bail!("interrupted");
    }
    let plan = StepPlan { sequences };
    let start = Instant::now();
    let logits = black_box(model.forward(black_box(&plan), &mut ())).context("cannot step")?;
    *time += start.elapsed();
    Ok(logits)
}

/// The pages of one of a test's sequences.
fn pages_of(pages: &[PageId], test: Test, sequence: usize) -> &[PageId] {
    let count = pages_for(test.positions());
    &pages[sequence * count..][..count]
}

/// What stands before and after a round: what the machine can do at that moment.
enum Probe {
    /// Reads as many bytes as a step, so that both meet the same caches.
    Read(BandwidthProbe),
    /// Multiplies what most matrix products multiply.
    Compute(ComputeProbe),
}

impl Probe {
    /// The probe of a test; `None` where there is no memory for it, and for scalar code.
    fn new(test: Test, cost: &Cost, context: &Context) -> Option<Self> {
        let threads = context.config.threads.get();
        if test.phase == Phase::Prefill {
            let route = Route::of(context.config.isa, cost.operations(test).operand())?;
            return ComputeProbe::new(route, threads).map(Self::Compute);
        }
        let bytes = cost.bytes_per_step(test) as u64;
        if memory::available_bytes().is_some_and(|available| bytes > available / 2) {
            output::note("no memory for a bandwidth probe beside the model: % of limit is n/a");
            return None;
        }
        let probe = BandwidthProbe::with_working_set(threads, usize::try_from(bytes).ok()?);
        probe.ok().map(Self::Read)
    }

    /// Bytes or operations per second.
    fn measure(&mut self) -> f64 {
        match self {
            Self::Read(probe) => probe.measure(PROBE_PASSES, PROBE_PASS).samples.median(),
            Self::Compute(probe) => probe.measure(PROBE_PASSES, PROBE_PASS).samples.median(),
        }
    }
}

/// The first token ids of a sequence.
fn prompt(sequence: usize, tokens: usize, vocab: usize) -> Vec<TokenId> {
    (0..tokens)
        .map(|position| token(sequence, position, vocab))
        .collect()
}

/// A token id without meaning, the same in every launch.
fn token(sequence: usize, position: usize, vocab: usize) -> TokenId {
    let index = (sequence as u64) << 32 | position as u64;
    TokenId((splitmix::word(0, index + 1) % vocab as u64) as u32)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_the_same_each_time_and_within_the_vocabulary() {
        let ids = prompt(0, 64, 1000);
        assert_eq!(ids, prompt(0, 64, 1000));
        assert!(ids.iter().all(|id| id.0 < 1000));
        assert_eq!(prompt(0, 8, 1000), ids[..8]);
        assert_ne!(prompt(1, 64, 1000), ids);
        // SplitMix64 from seed 0 begins with 0xE220A8397B1DCDAF.
        assert_eq!(token(0, 0, usize::MAX).0, 0xE220_A839_7B1D_CDAF_u64 as u32);
    }

    #[test]
    fn the_lowest_of_equal_logits_is_likeliest() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0, f32::NAN]), TokenId(1));
        assert_eq!(likeliest(&[f32::NAN, f32::NAN]), TokenId(0));
    }
}
