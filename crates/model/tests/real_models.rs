//! The two real models: the same bits however they are computed, and the expected next token.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "the hashes are the report")]

use std::path::Path;

use redline_compute::{Backend, Cpu, Isa};
use redline_model::{
    Forward, LoadOptions, LogitRows, Model, ModelFile, PageId, SequenceStep, StepPlan, TokenId,
    logits_hash,
};
use redline_testkit::{GEMMA3, SMOLLM2, cached};

/// A prompt's ids, and what must come of it.
struct Expected {
    prompt: &'static [u32],
    /// The likeliest next token, as llama.cpp has it.
    next: u32,
    /// The logits' hash after the prompt, and after the prompt repeated to `LONG` tokens. They change
    /// with `ARITHMETIC_VERSION`, with nothing else.
    hashes: [u64; 2],
}

const LONG: usize = 70;

fn load(path: &Path, isa: Isa, threads: usize) -> Model<Cpu> {
    let file = ModelFile::open(path).unwrap();
    let options = LoadOptions {
        max_logit_rows: 512,
        ..LoadOptions::default()
    };
    let backend = Cpu::new(isa, threads);
    Model::load(&file, &file.gguf().unwrap(), backend, &options, &mut |_| ()).unwrap()
}

/// The hash of the last token's logits after `tokens` in steps of `chunk`, and its likeliest
/// successor.
fn last<B: Backend>(model: &mut Model<B>, tokens: &[TokenId], chunk: usize) -> (u64, u32) {
    let pages: Vec<PageId> = (0..model.shape().page_count as u32).map(PageId).collect();
    let mut logits = Vec::new();
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let (position, pages) = (i * chunk, pages.as_slice());
        let step = SequenceStep {
            tokens,
            position,
            pages,
            logits: LogitRows::Last,
        };
        logits = model
            .forward(&StepPlan { sequences: &[step] }, &mut ())
            .unwrap()
            .to_vec();
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let best = logits.iter().position(|logit| *logit == largest).unwrap();
    (logits_hash(&logits), best as u32)
}

fn check(path: &Path, expected: &Expected) {
    let prompt: Vec<TokenId> = expected.prompt.iter().copied().map(TokenId).collect();
    for isa in Isa::available() {
        for (threads, chunk) in [(1, 7), (2, 64)] {
            let (hash, next) = last(&mut load(path, isa, threads), &prompt, chunk);
            println!("prompt, {isa}, {threads} threads, chunks of {chunk}: {hash:#018x}");
            assert_eq!((next, hash), (expected.next, expected.hashes[0]));
        }
    }
    let long: Vec<TokenId> = prompt.into_iter().cycle().take(LONG).collect();
    for (threads, chunk) in [(1, 1), (1, 7), (2, 64), (2, 512)] {
        let (hash, _) = last(&mut load(path, Isa::detect(), threads), &long, chunk);
        println!("{LONG} tokens, {threads} threads, chunks of {chunk}: {hash:#018x}");
        assert_eq!(hash, expected.hashes[1]);
    }
}

#[test]
fn smollm2_says_paris_with_the_same_bits_however_it_is_computed() {
    let Some(path) = cached(SMOLLM2) else { return };
    // "The capital of France is" and " Paris".
    check(
        &path,
        &Expected {
            prompt: &[504, 3575, 282, 4649, 314],
            next: 7042,
            hashes: [0x2317609795bcf68b, 0x02d832a3486c3553],
        },
    );
}

#[test]
fn gemma3_says_paris_with_the_same_bits_however_it_is_computed() {
    let Some(path) = cached(GEMMA3) else { return };
    // BOS, "The Eiffel Tower is located in the city of" and " Paris".
    let prompt = &[2, 818, 94648, 25822, 563, 5628, 528, 506, 3207, 529];
    check(
        &path,
        &Expected {
            prompt,
            next: 9079,
            hashes: [0x0b4b7c6fe72969e5, 0x22fd8af65f0cabff],
        },
    );
}
