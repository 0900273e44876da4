//! What a draft model gives: the time of whole answers, prompts included, without guesses over that
//! with prompt lookup, and with a draft model too, in turns. Ids must be the same.
//!
//! `cargo bench -p redline-engine --bench draft -- MODEL.gguf DRAFT.gguf THREADS TOKENS [IDS]` prints
//! a line of JSON for each text; `IDS` are those of a prompt, with commas (`redline tokenize`). A text
//! of random ids at temperature 1 is always among them: there nobody can guess.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement's command"
)]

mod support;

use redline_compute::Cpu;
use redline_engine::{Drafts, Engine, EngineOptions, Request, SamplingParams, TokenId};
use redline_model::{LoadOptions, Model, pages_for};

use support::{answer, arguments, load, median};

/// Answers of each text and way.
const ROUNDS: u64 = 7;

fn main() {
    let arguments = arguments();
    let [model, draft, threads, tokens, ids @ ..] = arguments.as_slice() else {
        println!("expected: MODEL.gguf DRAFT.gguf THREADS TOKENS [IDS]");
        return;
    };
    let (threads, tokens) = (threads.parse().unwrap(), tokens.parse().unwrap());
    let ids: Vec<TokenId> = (ids.iter().flat_map(|ids| ids.split(',')))
        .map(|id| TokenId(id.parse().unwrap()))
        .collect();
    let noise = (0..64_u64).map(|i| TokenId((i.wrapping_mul(0x9e37_79b9) >> 7) as u32 % 20_000));
    let noise: Vec<TokenId> = noise.collect();
    let context = 64.max(ids.len()) + tokens;
    let options = LoadOptions {
        context: Some(context),
        kv_pages: Some(pages_for(context) + 1),
        ..LoadOptions::default()
    };
    let mut plain = Engine::new(load(model, threads, &options), EngineOptions::default());
    let guessing = Engine::new(load(model, threads, &options), EngineOptions::default());
    let draft = Box::new(load(draft, threads, &options));
    let mut guessing = guessing.with_draft(draft).unwrap();
    for (text, prompt, temperature) in [
        ("prompt", &ids, 0.0),
        ("prompt", &ids, 0.8),
        ("noise", &noise, 1.0),
    ] {
        if prompt.is_empty() {
            continue;
        }
        let (mut lookup, mut both, mut drafts) = (Vec::new(), Vec::new(), Drafts::default());
        for seed in 0..ROUNDS {
            let request = |speculation| Request {
                speculation,
                sampling: SamplingParams {
                    temperature,
                    seed,
                    ..SamplingParams::default()
                },
                ..Request::new(prompt.clone(), tokens)
            };
            let (one, expected, _) = timed(&mut plain, request(false));
            let (two, looked_up, _) = timed(&mut plain, request(true));
            let (three, drafted, guesses) = timed(&mut guessing, request(true));
            assert!(expected == looked_up && expected == drafted, "other ids");
            lookup.push(one / two);
            both.push(one / three);
            drafts.model_proposed += guesses.model_proposed;
            drafts.model_accepted += guesses.model_accepted;
        }
        println!(
            "{{\"text\":\"{text}\",\"temperature\":{temperature},\"lookup\":{:.3},\
             \"with_draft\":{:.3},\"proposed\":{},\"accepted\":{}}}",
            median(lookup),
            median(both),
            drafts.model_proposed,
            drafts.model_accepted
        );
    }
}

/// Seconds, ids and guesses.
fn timed(engine: &mut Engine<Model<Cpu>>, request: Request) -> (f64, Vec<TokenId>, Drafts) {
    engine.clear();
    let outcome = answer(engine, request);
    let seconds = (outcome.prefill + outcome.decode).as_secs_f64();
    (seconds, outcome.generated, outcome.drafts)
}
