//! The promise: what a request gets does not depend on who else is being served, nor on how.
//!
//! A real model answers requests of different prompts, lengths, temperatures and seeds, each alone;
//! then in crowds, in other orders, with other chunks, threads, instruction sets, with and without
//! prefix cache, guesses and a draft model, and with too few pages. Ids and log-probabilities have the
//! same bits.
//!
//! `cargo test --release -p redline-engine --test determinism -- --ignored --nocapture` takes every
//! combination, and says where it is.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and this one takes long"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use redline_compute::{Cpu, Isa};
use redline_engine::{
    Engine, EngineOptions, Event, GeneratedToken, Progress, Request, SamplingParams, Stats, TokenId,
};
use redline_model::{LoadOptions, Model, ModelFile};
use redline_testkit::{SMOLLM2, cached};

/// How requests are served.
#[derive(Debug, Clone)]
struct Way {
    /// The order in which they come: this many places further for each.
    stride: usize,
    running: usize,
    chunk_tokens: usize,
    threads: usize,
    isa: Isa,
    prefix_cache: bool,
    speculation: bool,
    /// Whether a draft model guesses too: the same one, with few pages.
    draft: bool,
    kv_pages: usize,
}

/// Ids, and the bits of the log-probabilities of them and of two alternatives.
type Answer = Vec<(u32, u32, Vec<(u32, u32)>)>;

fn bits(tokens: &[GeneratedToken]) -> Answer {
    let bits = |token: &GeneratedToken| {
        let logprob = token.logprob.as_ref().unwrap();
        let top = logprob
            .top
            .iter()
            .map(|(id, logprob)| (id.0, logprob.to_bits()));
        (token.id.0, logprob.logprob.to_bits(), top.collect())
    };
    tokens.iter().map(bits).collect()
}

/// A number below `end` that looks random.
fn scattered(n: usize, end: usize) -> usize {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as usize % end
}

fn requests(count: usize, max_tokens: usize) -> Vec<Request> {
    let ids = |seed: usize, count: usize| {
        (0..count).map(move |i| TokenId(100 + scattered(seed * 1000 + i, 40_000) as u32))
    };
    // A start that most have, longer than a page; some say one thing again and again.
    let system: Vec<TokenId> = ids(7, 70).collect();
    (0..count)
        .map(|i| {
            let own = ids(i, 1 + scattered(i, 60));
            let turn: Vec<TokenId> = ids(i, 5).collect();
            let prompt: Vec<TokenId> = match i % 4 {
                0 => own.collect(),
                1 => turn.repeat(6),
                _ => system.iter().copied().chain(own).collect(),
            };
            let sampling = SamplingParams {
                temperature: [0.0, 1.0, 0.7][i % 3],
                top_p: [1.0, 0.9][i % 2],
                top_k: [0, 40, 0][i % 3],
                repetition_penalty: [1.0, 1.0, 1.1][i % 3],
                seed: i as u64 / 2,
                ..SamplingParams::default()
            };
            Request {
                sampling,
                logprobs: Some(2),
                choices: 1 + usize::from(i % 8 == 2),
                ..Request::new(prompt, 1 + scattered(i + 99, max_tokens))
            }
        })
        .collect()
}

struct Served {
    answers: BTreeMap<(usize, usize), Answer>,
    stats: Stats,
}

/// All answers, by request and choice.
fn serve(path: &Path, requests: &[Request], way: &Way) -> Served {
    let file = ModelFile::open(path).unwrap();
    let load = LoadOptions {
        context: Some(256),
        kv_pages: Some(way.kv_pages),
        max_logit_rows: 64,
        ..LoadOptions::default()
    };
    let backend = Cpu::new(way.isa, way.threads);
    let model = Model::load(&file, &file.gguf().unwrap(), backend, &load, &mut |_| ()).unwrap();
    let options = EngineOptions {
        chunk_tokens: way.chunk_tokens,
        max_running: way.running,
        prefix_cache: way.prefix_cache,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, options);
    if way.draft {
        let load = LoadOptions {
            kv_pages: Some(9),
            ..load
        };
        let backend = Cpu::new(way.isa, way.threads);
        let draft = Model::load(&file, &file.gguf().unwrap(), backend, &load, &mut |_| ());
        // As dear as the model, it would hardly be asked: nobody knows what time it is.
        let start = Instant::now();
        START.set(Some(start));
        engine = (engine.with_clock(|| START.get().unwrap()))
            .with_draft(Box::new(draft.unwrap()))
            .unwrap();
    }
    let mut numbers = BTreeMap::new();
    for i in 0..requests.len() {
        let index = i * way.stride % requests.len();
        let request = Request {
            speculation: way.speculation,
            ..requests[index].clone()
        };
        numbers.insert(engine.submit(request).unwrap(), index);
    }
    assert_eq!(numbers.len(), requests.len(), "each comes once");
    let (mut events, mut tokens) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    while engine.step(&mut |_| false, &mut events).unwrap() != Progress::Idle {
        for event in events.drain(..) {
            match event {
                Event::Token {
                    request,
                    choice,
                    token,
                } => {
                    let key = (numbers[&request], choice);
                    tokens.entry(key).or_default().push(token);
                }
                Event::End { outcome, .. } => drop(outcome.unwrap()),
                Event::PromptLogprobs { .. } => {}
            }
        }
    }
    assert_eq!(engine.load().pages_in_use, 0);
    Served {
        answers: (tokens.into_iter())
            .map(|(key, tokens)| (key, bits(&tokens)))
            .collect(),
        stats: *engine.stats(),
    }
}

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

const ALONE: Way = Way {
    stride: 1,
    running: 1,
    chunk_tokens: 512,
    threads: 1,
    isa: Isa::Scalar,
    prefix_cache: false,
    speculation: false,
    draft: false,
    kv_pages: 64,
};

/// Serves in every way; each must give what the first gives. What was done in all ways together;
/// `None` without the model.
fn check(requests: &[Request], ways: &[Way]) -> Option<Stats> {
    let path = cached(SMOLLM2)?;
    let best = Isa::detect();
    let alone = Way { isa: best, ..ALONE };
    let expected = serve(&path, requests, &alone).answers;
    let count: usize = requests.iter().map(|request| request.choices).sum();
    assert_eq!(expected.len(), count);
    let mut all = Stats::default();
    for (number, way) in (ways.iter().enumerate()).filter(|(_, way)| way.isa.is_available()) {
        println!("way {number} of {}: {way:?}", ways.len());
        let served = serve(&path, requests, way);
        for (key, answer) in &expected {
            assert_eq!(served.answers.get(key), Some(answer), "{key:?}: {way:?}");
        }
        all.cached_tokens += served.stats.cached_tokens;
        all.drafts_accepted += served.stats.drafts_accepted;
        all.drafts_model_proposed += served.stats.drafts_model_proposed;
        all.drafts_model_accepted += served.stats.drafts_model_accepted;
        all.preemptions += served.stats.preemptions;
    }
    Some(all)
}

#[test]
fn crowds_change_nothing() {
    let isa = Isa::detect();
    let way = Way {
        running: 12,
        threads: 2,
        isa,
        prefix_cache: true,
        speculation: true,
        ..ALONE
    };
    let ways = [
        Way {
            stride: 5,
            ..way.clone()
        },
        Way {
            stride: 7,
            running: 4,
            chunk_tokens: 16,
            prefix_cache: false,
            draft: true,
            ..way.clone()
        },
        Way {
            running: 3,
            chunk_tokens: 5,
            threads: 1,
            speculation: false,
            ..way.clone()
        },
        Way {
            isa: Isa::Avx2,
            running: 8,
            ..way
        },
    ];
    if let Some(stats) = check(&requests(12, 16), &ways) {
        // What never happened was not tested.
        assert!(
            stats.cached_tokens > 0 && stats.drafts_accepted > 0,
            "{stats:?}"
        );
        // The same model with the same random numbers; a penalty does not see guesses before the last.
        let (all, right) = (stats.drafts_model_proposed, stats.drafts_model_accepted);
        assert!(right > 0 && right * 10 >= all * 9, "{stats:?}");
    }
}

#[test]
fn losing_pages_to_others_changes_nothing() {
    let ids = |i: u32| (0..50).map(move |k| TokenId(100 + (k * 37 + i * 1001) % 40_000));
    // All need their second page at about the same time.
    let requests: Vec<Request> = (0..6)
        .map(|i| Request {
            logprobs: Some(2),
            ..Request::new(ids(i).collect(), 30)
        })
        .collect();
    let way = Way {
        running: 6,
        threads: 2,
        isa: Isa::detect(),
        prefix_cache: true,
        kv_pages: 6,
        ..ALONE
    };
    if let Some(stats) = check(&requests, &[way]) {
        assert!(stats.preemptions > 0, "{stats:?}");
    }
}

#[test]
#[ignore = "takes long: see the file's first lines"]
fn no_way_of_serving_changes_anything() {
    let isas = Isa::available();
    let fast = if isas.len() > 1 { &isas[1..] } else { &isas };
    let ways: Vec<Way> = (0..60)
        .map(|k| Way {
            stride: [1, 5, 13, 31][k / 2 % 4],
            running: [2, 5, 8, 32, 16][k % 5],
            chunk_tokens: [512, 1, 64, 7, 33, 128][k / 3 % 6],
            threads: 1 + k % 2,
            // Scalar code takes a while.
            isa: match k % 10 {
                9 => isas[0],
                _ => fast[k / 4 % fast.len()],
            },
            prefix_cache: k / 5 % 2 == 0,
            speculation: k / 7 % 2 == 0,
            draft: k / 7 % 4 == 0,
            kv_pages: [128, 7][usize::from(k % 4 == 3)],
        })
        .collect();
    if let Some(stats) = check(&requests(32, 32), &ways) {
        assert!(
            stats.cached_tokens > 0 && stats.drafts_accepted > 0,
            "{stats:?}"
        );
    }
}
