//! Encoding takes time in proportion to the text, whatever the text.
//!
//! Four times the text may take ten times as long: between 4, which is linear but for the caches, and
//! 16, which is quadratic.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::hint::black_box;
use std::time::Duration;

use cpu_time::ThreadTime;
use redline_tokenizer::Tokenizer;

use support::small::{byte_level, sentence_piece, word_piece};
use support::{PLAIN, tokenizer};

/// Texts that are worst for something: pre-tokenizers look ahead in them, merges find one long word.
const UNITS: [&str; 16] = [
    "The quick brown fox jumps over 12 lazy dogs.\n",
    "a",
    "A",
    "aA",
    " ",
    "\n",
    " \n",
    "\n ",
    " \t",
    "!",
    "1",
    "'",
    "é",
    "漢字",
    "😀",
    "e\u{301}\u{316}",
];

/// Letters in no order, without a space.
fn one_word(length: usize) -> String {
    let letters = (0..length).scan(1_u32, |state, _| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(char::from(
            b'a' + u8::try_from((*state >> 24) % 26).unwrap(),
        ))
    });
    letters.collect()
}

fn time(tokenizer: &Tokenizer, text: &str) -> Duration {
    let start = ThreadTime::now();
    black_box(tokenizer.encode(text, PLAIN).unwrap());
    start.elapsed()
}

#[track_caller]
fn check(tokenizer: &Tokenizer, length: usize) {
    let repeated = UNITS.map(|unit| unit.repeat(length / unit.len()));
    let texts = repeated
        .into_iter()
        .chain([one_word(length), " ".repeat(length - 1) + "x"]);
    for text in texts {
        let mut quarter = text.len() / 4;
        while !text.is_char_boundary(quarter) {
            quarter -= 1;
        }
        // Caches that others use too may make it slow once, but not three times.
        let slow = |_| {
            let (short, long) = (time(tokenizer, &text[..quarter]), time(tokenizer, &text));
            (long > 10 * short + Duration::from_millis(2)).then_some((short, long))
        };
        let found: Option<Vec<_>> = (0..3).map(slow).collect();
        let start: String = text.chars().take(8).collect();
        assert_eq!(
            found,
            None,
            "{start:?}… of {quarter} and {} bytes",
            text.len()
        );
    }
}

#[test]
fn every_pre_tokenizer_is_linear() {
    for pre in ["gpt-2", "smollm", "qwen2", "llama-bpe", "gpt-4o", "tekken"] {
        check(&byte_level(pre).tokenizer().unwrap(), 1 << 17);
    }
}

#[test]
fn sentence_piece_is_linear() {
    check(&sentence_piece().tokenizer().unwrap(), 1 << 18);
}

#[test]
fn word_piece_is_linear() {
    check(&word_piece().tokenizer().unwrap(), 1 << 18);
}

#[test]
fn smollm2_is_linear_to_a_megabyte() {
    let Some(path) = redline_testkit::cached(redline_testkit::SMOLLM2) else {
        return;
    };
    check(&tokenizer(&std::fs::read(path).unwrap()).unwrap(), 1 << 20);
}

#[test]
fn gemma3_is_linear_to_a_megabyte() {
    let Some(path) = redline_testkit::cached(redline_testkit::GEMMA3) else {
        return;
    };
    check(&tokenizer(&std::fs::read(path).unwrap()).unwrap(), 1 << 20);
}
