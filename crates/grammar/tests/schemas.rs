//! Answers are what their grammar says: any answer that it allows, and a real model's.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/shape.rs"]
mod shape;
mod support;
#[path = "support/walk.rs"]
mod walk;

use std::collections::BTreeMap;

use redline_compute::{Cpu, Isa};
use redline_engine::{EndReason, Engine, EngineOptions, Event, Progress, Request, SamplingParams};
use redline_grammar::{Grammars, Source};
use redline_model::{LoadOptions, Model, ModelFile};
use redline_testkit::Random;
use redline_testkit::{SMOLLM2, cached};
use redline_tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value;
use shape::Shape;
use support::tokenizer;
use walk::walk;

/// Schemas a real model answers by.
const SCHEMAS: u64 = 200;

#[test]
fn every_answer_that_a_schema_allows_is_accepted_by_it() {
    let Some(tokenizer) = tokenizer() else { return };
    let grammars = Grammars::default();
    let mut whole = 0;
    for seed in 0..300 {
        let shape = Shape::record(&mut Random::new(seed), 3, true);
        let schema = shape.schema();
        let grammar = grammars.compile(&tokenizer, &Source::JsonSchema(schema.clone()));
        let grammar = grammar.unwrap_or_else(|error| panic!("{error}: {schema}"));
        let mut random = Random::new(seed);
        if let Some(text) = walk(&*grammar, &tokenizer, &mut random, 400) {
            whole += 1;
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
            assert!(shape.accepts(&value), "{text} by {schema}");
        }
    }
    assert!(whole > 250, "{whole} of 300 came to an end");
}

#[test]
fn a_real_model_answers_by_200_schemas() {
    let Some(path) = cached(SMOLLM2) else { return };
    let file = ModelFile::open(&path).unwrap();
    let gguf = file.gguf().unwrap();
    let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
    let load = LoadOptions {
        context: Some(1024),
        kv_pages: Some(16 * 16),
        max_logit_rows: 32,
        ..LoadOptions::default()
    };
    let backend = Cpu::new(Isa::detect(), 2);
    let model = Model::load(&file, &gguf, backend, &load, &mut |_| ()).unwrap();
    let options = EngineOptions {
        max_running: 16,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, options);
    let grammars = Grammars::default();
    let mut shapes = BTreeMap::new();
    for seed in 0..SCHEMAS {
        // A small model that may go on for ever does.
        let shape = Shape::record(&mut Random::new(1000 + seed), 2, false);
        let schema = shape.schema();
        let prompt = format!("Person {seed} as JSON:\n\n");
        let grammar = grammars.compile(&tokenizer, &Source::JsonSchema(schema));
        let request = Request {
            sampling: SamplingParams {
                temperature: [0.0, 1.0][seed as usize % 2],
                seed,
                ..SamplingParams::default()
            },
            end_tokens: tokenizer.end_of_generation().to_vec(),
            grammar: Some(grammar.unwrap()),
            ..Request::new(
                tokenizer.encode(&prompt, EncodeOptions::default()).unwrap(),
                240,
            )
        };
        shapes.insert(engine.submit(request).unwrap(), shape);
    }
    let (mut events, mut ended, mut cut) = (Vec::new(), 0, 0);
    while engine.step(&mut |_| false, &mut events).unwrap() != Progress::Idle {
        for event in events.drain(..) {
            let Event::End {
                request, outcome, ..
            } = event
            else {
                continue;
            };
            let outcome = outcome.unwrap();
            if outcome.end_reason == EndReason::Length {
                cut += 1;
                continue;
            }
            assert_eq!(outcome.end_reason, EndReason::Eos);
            ended += 1;
            let text = tokenizer.decode(&outcome.generated, false);
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
            let shape = &shapes[&request];
            assert!(shape.accepts(&value), "{text} by {shape:?}");
        }
    }
    println!("{ended} whole, {cut} cut");
    assert_eq!((ended, cut), (SCHEMAS, 0));
}
