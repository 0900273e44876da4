//! Ids and texts are those of the upstream tokenizers, on their real vocabularies.
//!
//! `data/make_vectors.py` made the vectors; each file says from what. The vocabularies are fetched, not
//! kept here: without them the tests report themselves as skipped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use redline_tokenizer::{EncodeOptions, Tokenizer};
use serde::Deserialize;

use support::{PARSED, PLAIN, fnv1a, numbers, tokenizer, upstream};

#[derive(Deserialize)]
struct Golden {
    vectors: Vec<Vector>,
    long: Vec<Long>,
}

#[derive(Deserialize)]
struct Vector {
    text: String,
    /// With control tokens parsed, nothing added.
    ids: Vec<u32>,
    /// Without parsing, where that differs.
    unparsed: Option<Vec<u32>>,
    /// With what the model wants added, where that differs.
    with_special: Option<Vec<u32>>,
    /// The text of `ids`, where it differs from `text`.
    decoded: Option<String>,
}

#[derive(Deserialize)]
struct Long {
    unit: String,
    times: usize,
    count: usize,
    fnv1a: String,
}

#[track_caller]
fn check(family: &str, golden: &str) {
    for (form, tokenizer) in upstream::tokenizers(family) {
        check_vectors(&tokenizer, golden, |vector| {
            upstream::is_exact(family, form, &vector.text)
        });
    }
}

fn check_vectors(tokenizer: &Tokenizer, golden: &str, applies: impl Fn(&Vector) -> bool) {
    let golden: Golden = serde_json::from_str(golden).unwrap();
    assert!(golden.vectors.len() >= 30);
    for vector in golden.vectors.iter().filter(|vector| applies(vector)) {
        let text = &vector.text;
        let encode = |options| tokenizer.encode(text, options).unwrap();
        let parsed = encode(PARSED);
        assert_eq!(numbers(&parsed), vector.ids, "{text:?}");
        let unparsed = vector.unparsed.as_ref().unwrap_or(&vector.ids);
        assert_eq!(&numbers(&encode(PLAIN)), unparsed, "{text:?}, unparsed");
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        let with_special = vector.with_special.as_ref().unwrap_or(&vector.ids);
        assert_eq!(
            &numbers(&encode(options)),
            with_special,
            "{text:?}, with special"
        );
        let decoded = vector.decoded.as_ref().unwrap_or(text);
        assert_eq!(
            &tokenizer.decode(&parsed, false),
            decoded,
            "{text:?}, decoded"
        );
    }
    for long in &golden.long {
        let ids = tokenizer
            .encode(&long.unit.repeat(long.times), PLAIN)
            .unwrap();
        let found = (ids.len(), fnv1a(&ids));
        assert_eq!(
            found,
            (long.count, long.fnv1a.clone()),
            "{:?} × {}",
            long.unit,
            long.times
        );
    }
}

#[test]
fn smollm2_as_upstream() {
    check("smollm2", include_str!("data/smollm2.json"));
}

#[test]
fn gemma3_as_upstream() {
    check("gemma3", include_str!("data/gemma3.json"));
}

#[test]
fn llama2_as_upstream() {
    check("llama2", include_str!("data/llama2.json"));
}

#[test]
fn llama3_as_upstream() {
    check("llama3", include_str!("data/llama3.json"));
}

#[test]
fn qwen3_as_upstream() {
    check("qwen3", include_str!("data/qwen3.json"));
}

#[test]
fn gpt_oss_as_upstream() {
    check("gpt-oss", include_str!("data/gpt-oss.json"));
}

#[test]
fn gpt2_as_upstream() {
    check("gpt2", include_str!("data/gpt2.json"));
}

#[test]
fn qwen2_5_as_upstream() {
    check("qwen2.5", include_str!("data/qwen2.5.json"));
}

#[test]
fn phi3_as_upstream() {
    check("phi3", include_str!("data/phi3.json"));
}

#[test]
fn codellama_as_upstream() {
    check("codellama", include_str!("data/codellama.json"));
}

#[test]
fn mistral_v1_as_upstream() {
    check("mistral-v1", include_str!("data/mistral-v1.json"));
}

#[test]
fn mistral_v2_as_upstream() {
    check("mistral-v2", include_str!("data/mistral-v2.json"));
}

#[test]
fn mistral_v3_as_upstream() {
    check("mistral-v3", include_str!("data/mistral-v3.json"));
}

#[test]
fn mistral_nemo_as_upstream() {
    check("mistral-nemo", include_str!("data/mistral-nemo.json"));
}

#[test]
fn bert_as_upstream() {
    check("bert", include_str!("data/bert.json"));
}

#[test]
fn gemma3_gguf_as_upstream() {
    let Some(path) = redline_testkit::cached(redline_testkit::GEMMA3) else {
        return;
    };
    let tokenizer = tokenizer(&std::fs::read(path).unwrap()).unwrap();
    // Upstream <mask> is an added token of no importance; converters make a control token of it.
    check_vectors(&tokenizer, include_str!("data/gemma3.json"), |vector| {
        !vector.text.contains("<mask>")
    });
}
