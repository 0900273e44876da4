//! Embeddings.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use redline_testkit::{MINILM, cached};
use serde_json::Value;

use crate::support::{Outcome, finish, program, redline, shared_cache};

fn golden(variant: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    let file = tests.join(variant).join("model.gguf");
    file.display().to_string()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|x| x.as_f64().unwrap()).collect()
}

fn embeddings(outcome: &Outcome) -> Vec<Vec<f64>> {
    let json = outcome.json();
    let list = json["embeddings"].as_array().unwrap().iter();
    list.map(|one| numbers(&one["embedding"])).collect()
}

fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    product / (length(a) * length(b))
}

/// What another implementation made, and its texts.
fn conformance(file: &str) -> (Value, Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let reference = std::fs::read(folder.join(file)).unwrap();
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    let texts = serde_json::from_value(reference["texts"].clone()).unwrap();
    (reference, texts)
}

/// `xtask/golden/minilm.py` says how the reference was made.
#[test]
fn minilm_agrees_with_sentence_transformers_on_twenty_texts() {
    let Some(folder) = cached(MINILM) else { return };
    let (reference, texts) = conformance("minilm.json");
    assert_eq!(texts.len(), 20);
    let mut arguments = vec!["embed", folder.to_str().unwrap(), "--json"];
    arguments.extend(texts.iter().map(String::as_str));
    let outcome = redline(&arguments);
    let json = outcome.json();
    assert_eq!(json["pooling"], "mean");
    assert_eq!(json["dimensions"], 384);
    let mut worst = 1.0_f64;
    for (i, found) in embeddings(&outcome).iter().enumerate() {
        let tokens = reference["ids"][i].as_array().unwrap().len();
        assert_eq!(json["embeddings"][i]["tokens"], tokens, "{:?}", texts[i]);
        let cosine = cosine(found, &numbers(&reference["embeddings"][i]));
        assert!(cosine >= 0.9999, "{:?}: {cosine}", texts[i]);
        worst = worst.min(cosine);
        assert!((length(found) - 1.0).abs() < 1e-6);
    }
    println!("cosine of at least {worst}");
}

/// Tiny models, `xtask/golden/tiny_embeddings.py`: each pooling is its own reference's, and no other's.
#[test]
fn every_pooling_agrees_with_transformers() {
    let (reference, texts) = conformance("tiny_embeddings.json");
    let models = reference["models"].as_object().unwrap();
    assert_eq!(models.len(), 5);
    for (variant, expected) in models {
        let model = golden(variant);
        for (text, ids) in texts.iter().zip(reference["ids"].as_array().unwrap()) {
            let found = redline(&["tokenize", &model, text, "--json"]).json();
            assert_eq!(&found["ids"], ids, "{variant}: {text:?}");
        }
        for pooling in ["mean", "cls", "last"] {
            let mut arguments = vec!["embed", &model, "--pooling", pooling];
            arguments.extend(texts.iter().map(String::as_str));
            for (i, found) in embeddings(&redline(&arguments)).iter().enumerate() {
                for (theirs, rows) in expected.as_object().unwrap() {
                    let cosine = cosine(found, &numbers(&rows[i]));
                    let agrees = cosine >= 0.999_99;
                    assert_eq!(
                        agrees,
                        theirs == pooling,
                        "{variant}: {pooling} of {:?} and {theirs}: {cosine}",
                        texts[i]
                    );
                }
            }
        }
    }
}

#[test]
fn decoders_and_encoders_pool_as_they_are_told() {
    // What each of them does by itself.
    for (variant, pooling) in [
        ("bert-odd", "mean"),
        ("nomic-bert-odd", "mean"),
        ("gemma3-pattern", "mean"),
        ("qwen3-gqa", "last"),
    ] {
        let model = golden(variant);
        let of = |flags: &[&str]| {
            let arguments = [&["embed", &model, "hello the"][..], flags].concat();
            redline(&arguments)
        };
        let own = of(&[]);
        assert_eq!(own.json()["pooling"], pooling, "{variant}");
        assert!((length(&embeddings(&own)[0]) - 1.0).abs() < 1e-6);
        assert_eq!(embeddings(&own), embeddings(&of(&["--pooling", pooling])));
        let raw = of(&["--no-normalize"]);
        assert!((length(&embeddings(&raw)[0]) - 1.0).abs() > 1e-3);
        assert!(cosine(&embeddings(&own)[0], &embeddings(&raw)[0]) > 0.999_999);
        let cls = embeddings(&of(&["--pooling", "cls"]));
        let last = embeddings(&of(&["--pooling", "last"]));
        assert_ne!(cls, last, "{variant}");
        // Neither chunks nor threads nor neighbours change a bit.
        let alike = of(&["--chunk", "1", "-t", "2"]);
        assert_eq!(embeddings(&own), embeddings(&alike), "{variant}");
        let among = redline(&["embed", &model, "the rain", "hello the", "in"]);
        assert_eq!(embeddings(&own)[0], embeddings(&among)[1], "{variant}");
    }
}

#[test]
fn texts_may_come_as_lines() {
    let model = golden("bert-odd");
    let mut child = program(shared_cache())
        .args(["embed", &model])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\nthe rain\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let piped: Value = serde_json::from_slice(&output.stdout).unwrap();
    let named = redline(&["embed", &model, "hello", "the rain"]).json();
    assert_eq!(piped["embeddings"], named["embeddings"]);
    assert_eq!(named["embeddings"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_embedded_is_said_in_one_line() {
    let model = golden("bert-odd");
    redline(&["embed", &model, "hello", ""]).fails(1, &["text 2 is empty"]);
    let long = "x".repeat(65);
    redline(&["embed", &model, &long]).fails(1, &["text 1", "65 tokens", "context is 64"]);
    redline(&["embed", &model]).fails(2, &["stdin is empty"]);
    let unknown = redline(&["embed", &model, "x", "--pooling", "max"]);
    unknown.fails(2, &["unknown pooling", "mean, cls or last"]);
    finish(program(shared_cache()).args(["run", &model, "x", "--raw"])).fails(
        1,
        &["expected a model that generates", "bert", "an encoder"],
    );
}
