//! Tokens a second of many sequences at once, as `llama-batched-bench` counts them: prompts of one
//! length, then as many tokens of each, the likeliest ones.
//!
//! `cargo bench -p redline-engine --bench throughput -- MODEL.gguf PROMPT GENERATED SEQUENCES...`
//! prints a line of JSON for each number of sequences. Compare only what ran in turns.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement's command"
)]

mod support;

use std::time::{Duration, Instant};

use redline_compute::Cpu;
use redline_engine::{Engine, EngineOptions, Event, Progress, Request, TokenId};
use redline_model::{LoadOptions, Model, pages_for};

use support::{arguments, cores, load};

fn main() {
    let arguments = arguments();
    let [path, prompt, generated, sequences @ ..] = arguments.as_slice() else {
        println!("expected: MODEL.gguf PROMPT GENERATED SEQUENCES...");
        return;
    };
    let number = |text: &String| text.parse::<usize>().unwrap();
    let (prompt, generated) = (number(prompt), number(generated));
    let sequences: Vec<usize> = sequences.iter().map(number).collect();
    let most = sequences.iter().copied().max().unwrap();
    let for_all = LoadOptions {
        context: Some(prompt + generated),
        // One more each: a scheduler without spare pages keeps sequences waiting.
        kv_pages: Some(most * (1 + pages_for(prompt + generated))),
        max_logit_rows: most,
        ..LoadOptions::default()
    };
    let model = load(path, cores(), &for_all);
    let options = EngineOptions {
        max_running: most,
        prefix_cache: false,
        // Prompts first, as the peer does.
        decode_delay: Duration::from_secs(3600),
        step_time: Duration::from_secs(3600),
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, options);
    // The first run brings the weights into memory.
    run(&mut engine, prompt, 2, 1);
    for count in sequences {
        let (prefill, decode) = run(&mut engine, prompt, generated, count);
        println!(
            "{{\"sequences\":{count},\"prompt\":{prompt},\"generated\":{generated},\
             \"prompt_tokens_per_s\":{:.1},\"decode_tokens_per_s\":{:.1}}}",
            (count * prompt) as f64 / prefill,
            decode,
        );
    }
}

/// Seconds until every sequence has its first token, and tokens a second from then on until the first
/// has its last: all of them in every step, as the peer counts.
fn run(
    engine: &mut Engine<Model<Cpu>>,
    prompt: usize,
    generated: usize,
    count: usize,
) -> (f64, f64) {
    for sequence in 0..count {
        let ids = (0..prompt).map(|i| TokenId(((i * 31 + sequence * 977) % 30_000) as u32 + 100));
        engine
            .submit(Request::new(ids.collect(), generated))
            .unwrap();
    }
    let start = Instant::now();
    let (mut events, mut begun, mut ended) = (Vec::new(), 0, 0);
    // When all had begun, and tokens and time since then.
    let mut all_begun: Option<Instant> = None;
    let (mut tokens, mut decoding) = (0, Duration::ZERO);
    while engine.step(&mut |_| false, &mut events).unwrap() != Progress::Idle {
        let is_counted = all_begun.is_some() && ended == 0;
        for event in events.drain(..) {
            match event {
                Event::Token { token, .. } => {
                    tokens += usize::from(is_counted);
                    begun += usize::from(token.index == 0);
                }
                Event::End { .. } => ended += 1,
                Event::PromptLogprobs { .. } => {}
            }
        }
        if let Some(all_begun) = all_begun.filter(|_| is_counted) {
            decoding = all_begun.elapsed();
        } else if begun == count && all_begun.is_none() {
            assert_eq!(
                ended, 0,
                "a sequence ended before another began: generate more"
            );
            all_begun = Some(Instant::now());
        }
    }
    let prefill = all_begun.unwrap().duration_since(start).as_secs_f64();
    (prefill, tokens as f64 / decoding.as_secs_f64())
}
