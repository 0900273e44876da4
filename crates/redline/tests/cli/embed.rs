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

#[test]
fn minilm_agrees_with_transformers_on_twenty_texts() {
    let Some(folder) = cached(MINILM) else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/minilm.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let texts = reference["texts"].as_array().unwrap().iter();
    let texts: Vec<&str> = texts.map(|text| text.as_str().unwrap()).collect();
    assert_eq!(texts.len(), 20);
    let mut arguments = vec!["embed", folder.to_str().unwrap(), "--json"];
    arguments.extend(&texts);
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
