//! What the engine promises those who wait, measured: the first token of a prompt whose start is
//! known, guessing on text that repeats itself and on text that does not, neighbours of a long
//! prompt, and how soon a long prompt can be stopped.
//!
//! `cargo bench -p redline-engine --bench promises -- MODEL.gguf [PROMISE]` prints a line of JSON for
//! each, or for `prefix`, `speculation`, `neighbours` or `cancel` alone.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement's command"
)]

mod support;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use redline_compute::Cpu;
use redline_engine::{
    EndReason, Engine, EngineOptions, Event, Progress, Request, SamplingParams, TokenId,
};
use redline_model::{LoadOptions, Model, ModelFile, Properties, pages_for};

use support::{answer, arguments, cores, load, median};

/// Tries of a measurement whose tail is asked for.
const CANCELS: usize = 50;
/// Pairs of a comparison.
const PAIRS: usize = 5;

fn main() {
    let arguments = arguments();
    let (path, only) = match arguments.as_slice() {
        [path] => (path, None),
        [path, only] => (path, Some(only.as_str())),
        _ => {
            println!("expected: MODEL.gguf [PROMISE]");
            return;
        }
    };
    let file = ModelFile::open(path.as_ref()).unwrap();
    let properties = Properties::from_gguf(&file.gguf().unwrap()).unwrap();
    let context = properties.context_length.min(8192);
    let options = LoadOptions {
        context: Some(context),
        kv_pages: Some(2 * pages_for(context)),
        max_logit_rows: 32,
        ..LoadOptions::default()
    };
    let mut engine = Engine::new(load(path, cores(), &options), EngineOptions::default());
    answer(&mut engine, Request::new(random(0, 600), 8));
    let is_asked = |name| only.is_none_or(|only| only == name);
    if is_asked("prefix") {
        prefix(&mut engine);
    }
    if is_asked("speculation") {
        speculation(&mut engine);
    }
    if is_asked("neighbours") {
        neighbours(&mut engine, context.min(4096) - 96);
    }
    if is_asked("cancel") {
        cancel(&mut engine, context - 64);
    }
}

/// Tokens that look random.
fn random(seed: usize, count: usize) -> Vec<TokenId> {
    let mixed = |i: usize| (seed * 10_000 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..count)
        .map(|i| TokenId(100 + (mixed(i) % 20_000) as u32))
        .collect()
}

/// The value that one in a hundred exceeds.
fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * 99).div_ceil(100) - 1]
}

/// Time to the first token of a prompt of 1,020 tokens, 1,000 of which were read before.
fn prefix(engine: &mut Engine<Model<Cpu>>) {
    let mut ratios = Vec::new();
    for pair in 0..PAIRS {
        let start = random(1 + pair, 1000);
        let mut first_token = |seed| {
            let prompt = [&start[..], &random(seed, 20)].concat();
            answer(engine, Request::new(prompt, 1))
                .prefill
                .as_secs_f64()
        };
        let (cold, warm) = (first_token(100), first_token(200));
        ratios.push(warm / cold);
    }
    println!(
        "{{\"promise\":\"prefix\",\"ttft_ratio_p50\":{:.3}}}",
        median(ratios)
    );
}

/// Tokens a second with guesses over those without, in turns.
fn speculation(engine: &mut Engine<Model<Cpu>>) {
    for (text, prompt, temperature) in [
        ("repetitive", random(7, 12).repeat(40), 0.0),
        ("random", random(8, 288), 1.0),
    ] {
        let mut ratios = Vec::new();
        let mut drafts = Default::default();
        for seed in 0..PAIRS as u64 {
            let mut rate = |speculation| {
                let request = Request {
                    speculation,
                    sampling: SamplingParams {
                        temperature,
                        seed,
                        ..SamplingParams::default()
                    },
                    ..Request::new(prompt.clone(), 128)
                };
                let outcome = answer(engine, request);
                (outcome.decode.as_secs_f64(), outcome)
            };
            let ((plain, one), (guessed, other)) = (rate(false), rate(true));
            assert_eq!(one.generated, other.generated, "guesses change nothing");
            ratios.push(plain / guessed);
            drafts = other.drafts;
        }
        println!(
            "{{\"promise\":\"speculation\",\"text\":\"{text}\",\"speedup_p50\":{:.3},\
             \"proposed\":{},\"accepted\":{}}}",
            median(ratios),
            drafts.proposed,
            drafts.accepted
        );
    }
}

/// Milliseconds between the tokens of four answers, alone and while a long prompt is read.
fn neighbours(engine: &mut Engine<Model<Cpu>>, prompt: usize) {
    engine.clear();
    let mut events = Vec::new();
    let four: Vec<_> = (0..4)
        .map(|i| {
            engine
                .submit(Request::new(random(20 + i, 32), 2000))
                .unwrap()
        })
        .collect();
    let step = |engine: &mut Engine<_>, events: &mut Vec<Event>| {
        let start = Instant::now();
        let progress = engine.step(&mut |_| false, events).unwrap();
        assert_eq!(progress, Progress::Step);
        start.elapsed().as_secs_f64() * 1e3
    };
    for _ in 0..8 {
        step(engine, &mut events);
    }
    let alone: Vec<f64> = (0..40).map(|_| step(engine, &mut events)).collect();
    let long = engine.submit(Request::new(random(30, prompt), 1)).unwrap();
    events.clear();
    let mut beside = Vec::new();
    while !events.iter().any(|event| event.request() == long) {
        events.clear();
        beside.push(step(engine, &mut events));
    }
    four.iter()
        .for_each(|id| engine.end(*id, EndReason::Cancelled, &mut events));
    println!(
        "{{\"promise\":\"neighbours\",\"prompt\":{prompt},\"steps\":{},\"budget_ms\":{},\
         \"alone_ms_p50\":{:.1},\"beside_ms_p50\":{:.1},\"beside_ms_p99\":{:.1}}}",
        beside.len(),
        EngineOptions::default().decode_delay.as_millis(),
        median(alone),
        median(beside.clone()),
        p99(beside)
    );
}

/// Milliseconds from the wish to stop, somewhere in a long prompt, to the end. Each try goes on where
/// the one before was stopped, as what was read is kept: so they are spread over all of the prompt.
fn cancel(engine: &mut Engine<Model<Cpu>>, prompt: usize) {
    engine.clear();
    let first = answer(engine, Request::new(random(41, 512.min(prompt)), 1)).prefill;
    let whole = first.mul_f64(prompt as f64 / 512.min(prompt) as f64);
    let tokens = random(40, prompt);
    let (mut waits, mut deepest, mut tries) = (Vec::new(), 0, 0);
    while waits.len() < CANCELS {
        tries += 1;
        assert!(
            tries < 10 * CANCELS,
            "prompts are read before they can be stopped"
        );
        let wish = AtomicBool::new(false);
        // Not always at the same place of a step.
        let after = whole.mul_f64((0.5 + (tries * 7 % 10) as f64 / 10.0) / CANCELS as f64);
        let (outcome, waited) = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                std::thread::sleep(after);
                wish.store(true, Ordering::Relaxed);
                Instant::now()
            });
            let go_on = &mut |_| ControlFlow::Continue(());
            let outcome = engine.generate(Request::new(tokens.clone(), 1), &wish, go_on);
            let end = Instant::now();
            let wished = waiter.join().unwrap();
            (outcome.unwrap(), end.saturating_duration_since(wished))
        });
        if outcome.end_reason == EndReason::Cancelled {
            waits.push(waited.as_secs_f64() * 1e3);
            deepest = deepest.max(outcome.cached_tokens);
        } else {
            engine.clear();
        }
    }
    assert_eq!(engine.load().pages_in_use, 0);
    println!(
        "{{\"promise\":\"cancel\",\"prompt\":{prompt},\"deepest\":{deepest},\"tries\":{},\
         \"ms_p50\":{:.1},\"ms_p99\":{:.1}}}",
        waits.len(),
        median(waits.clone()),
        p99(waits)
    );
}
