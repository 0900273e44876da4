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

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use redline_compute::{Cpu, Isa};
use redline_engine::{Drafts, Engine, EngineOptions, Request, SamplingParams, TokenId};
use redline_model::{LoadOptions, Model, ModelFile, pages_for};

/// Answers of each text and way.
const ROUNDS: u64 = 7;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
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
    let mut plain = Engine::new(load(model, threads, context), EngineOptions::default());
    let guessing = Engine::new(load(model, threads, context), EngineOptions::default());
    let draft = Box::new(load(draft, threads, context));
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
            let (one, expected, _) = answer(&mut plain, request(false));
            let (two, looked_up, _) = answer(&mut plain, request(true));
            let (three, drafted, guesses) = answer(&mut guessing, request(true));
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

fn load(path: &str, threads: usize, context: usize) -> Model<Cpu> {
    let file = ModelFile::open(path.as_ref()).unwrap();
    let options = LoadOptions {
        context: Some(context),
        kv_pages: Some(pages_for(context) + 1),
        ..LoadOptions::default()
    };
    let backend = Cpu::new(Isa::detect(), threads);
    Model::load(&file, &file.gguf().unwrap(), backend, &options, &mut |_| ()).unwrap()
}

/// Seconds, ids and guesses.
fn answer(engine: &mut Engine<Model<Cpu>>, request: Request) -> (f64, Vec<TokenId>, Drafts) {
    engine.clear();
    let go_on = &mut |_| ControlFlow::Continue(());
    let outcome = engine.generate(request, &AtomicBool::new(false), go_on);
    let outcome = outcome.unwrap();
    let seconds = (outcome.prefill + outcome.decode).as_secs_f64();
    (seconds, outcome.generated, outcome.drafts)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
