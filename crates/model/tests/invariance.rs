//! A token's logits depend on the tokens before it and on nothing else, down to the bit.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each test file uses its part of the support module"
)]

#[path = "support/tiny.rs"]
mod tiny;

use redline_compute::{Cpu, Isa, KvFormat};
use redline_model::{Forward, LoadOptions, LogitRows, SequenceStep, StepPlan, logits_hash};
use tiny::{
    GEMMA3, GPT_OSS, LLAMA, MISTRAL, PHI3, QWEN2, Shape, TinyModel, VOCAB, load, pages, run, tokens,
};

const SHAPES: [Shape; 6] = [LLAMA, MISTRAL, QWEN2, GEMMA3, PHI3, GPT_OSS];
/// More than one page, more than one chunk of attention.
const LENGTH: usize = 270;

fn same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differs = found
        .iter()
        .zip(expected)
        .position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(
        differs.map(|at| at / VOCAB),
        None,
        "{what}: first row that differs"
    );
}

#[test]
fn chunks_instruction_sets_and_threads_make_no_difference() {
    let tokens = tokens(LENGTH, 1);
    let pages = pages(0..5);
    for shape in SHAPES {
        let file = TinyModel::new(shape).file();
        let of_format = KvFormat::ALL.map(|kv_format| {
            let options = LoadOptions {
                kv_format,
                ..tiny::options()
            };
            let mut expected: Option<Vec<f32>> = None;
            let mut runs = vec![(Isa::detect(), 1, 1), (Isa::detect(), 2, 512)];
            for isa in Isa::available() {
                runs.extend([(isa, 1, 64), (isa, 2, 7)]);
            }
            for (isa, threads, chunk) in runs {
                let backend = Cpu::new(isa, threads);
                let mut model = tiny::load_on(&file, backend, &options).unwrap();
                let logits = run(&mut model, &tokens, &pages, chunk);
                assert!(logits.iter().all(|logit| logit.is_finite()));
                let what = format!(
                    "{} {isa}, {threads} threads, chunks of {chunk}, {kv_format}",
                    shape.architecture
                );
                println!("{what}: {:016x}", logits_hash(&logits));
                same(
                    &logits,
                    expected.get_or_insert_with(|| logits.clone()),
                    &what,
                );
            }
            logits_hash(&expected.unwrap())
        });
        let distinct = std::collections::HashSet::from(of_format);
        assert_eq!(distinct.len(), of_format.len(), "{}", shape.architecture);
    }
}

#[test]
fn neighbours_in_the_batch_make_no_difference() {
    let (a, b, c) = (tokens(90, 2), tokens(130, 3), tokens(40, 4));
    let (pages_a, pages_b, pages_c) = (pages([3, 7]), pages([0, 9, 4]), pages([1]));
    for shape in SHAPES {
        let mut model = load(&TinyModel::new(shape)).unwrap();
        let alone_a = run(&mut model, &a, &pages_a, 256);
        let alone_b = run(&mut model, &b, &pages_b, 256);
        let alone_c = run(&mut model, &c, &pages_c, 256);

        let step = |tokens, position, pages, logits| SequenceStep {
            tokens,
            position,
            pages,
            logits,
        };
        let first = [
            step(&a[..60], 0, &pages_a[..1], LogitRows::All),
            step(&b[..1], 0, &pages_b, LogitRows::None),
            step(&c[..], 0, &pages_c, LogitRows::Last),
        ];
        let mut found = model
            .forward(&StepPlan { sequences: &first }, &mut ())
            .unwrap()
            .to_vec();
        let second = [
            step(&b[1..], 1, &pages_b, LogitRows::All),
            step(&a[60..61], 60, &pages_a[..1], LogitRows::All),
        ];
        found.extend_from_slice(
            model
                .forward(&StepPlan { sequences: &second }, &mut ())
                .unwrap(),
        );
        let row = VOCAB;
        let expected = [
            &alone_a[..60 * row],
            &alone_c[39 * row..],
            &alone_b[row..],
            &alone_a[60 * row..61 * row],
        ];
        same(&found, &expected.concat(), shape.architecture);
    }
}

#[test]
fn pages_make_no_difference_and_a_prefix_can_be_shared() {
    let (long, fork) = (tokens(200, 5), [tokens(128, 5), tokens(30, 6)].concat());
    for shape in SHAPES {
        let mut model = load(&TinyModel::new(shape)).unwrap();
        let expected = run(&mut model, &long, &pages(0..4), 256);
        let expected_fork = run(&mut model, &fork, &pages(4..7), 256);
        let permuted = run(&mut model, &long, &pages([11, 2, 8, 5]), 100);
        same(&permuted, &expected, shape.architecture);

        // The first two pages of `long` hold the tokens that `fork` begins with.
        let pages = pages([11, 2, 10]);
        let (tokens, position) = (&fork[128..], 128);
        let step = SequenceStep {
            tokens,
            position,
            pages: &pages,
            logits: LogitRows::All,
        };
        let found = model
            .forward(&StepPlan { sequences: &[step] }, &mut ())
            .unwrap();
        same(found, &expected_fork[128 * VOCAB..], shape.architecture);
    }
}

#[test]
fn an_empty_plan_computes_nothing() {
    let mut model = load(&TinyModel::new(LLAMA)).unwrap();
    assert_eq!(
        model
            .forward(&StepPlan { sequences: &[] }, &mut ())
            .unwrap(),
        &[0.0; 0]
    );
}
