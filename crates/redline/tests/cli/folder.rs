//! Folders as transformers saves models.

use std::path::Path;

use crate::support::redline;

fn data(kind: &str, variant: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests");
    tests.join(kind).join(variant).display().to_string()
}

#[test]
fn a_folder_without_a_tokenizer_has_logits_and_no_text() {
    let folder = data("folders", "llama-rope3");
    let file = format!("{}/model.gguf", data("golden", "llama-rope3"));
    let hash = |model: &str| {
        let json = redline(&["logits", model, "--ids", "3,1,4,1,5", "--json"]).json();
        json["logits_hash"].as_str().unwrap().to_owned()
    };
    assert_eq!(hash(&folder), hash(&file));
    redline(&["run", &folder, "hello"]).fails(
        1,
        &["llama-rope3: expected tokenizer.json in the folder, found none"],
    );
    let sheet = redline(&["inspect", &folder]);
    assert_eq!(sheet.code, Some(0), "{sheet:?}");
    assert!(sheet.stdout.contains("safetensors"), "{sheet:?}");
}

#[test]
fn weights_quantised_at_load_are_those_that_quantize_writes() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("m.gguf").display().to_string();
    // Its rows are too short for blocks.
    let folder = data("folders", "qwen2-gqa");
    let written = redline(&["quantize", &folder, &file, "bf16"]);
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(
        written.stderr.contains("tokenizer is not written"),
        "{written:?}"
    );
    redline(&["tokenize", &file, "hello"]).fails(1, &["tokenizer.ggml.model"]);
    let logits = |arguments: &[&str]| {
        let all = [&["logits", "--ids", "3,1,4,1,5", "--json"], arguments].concat();
        redline(&all).json()
    };
    let hash = |arguments: &[&str]| logits(arguments)["logits_hash"].clone();
    assert_eq!(
        logits(&[&folder, "--quantize", "bf16"])["quantized"],
        "bf16"
    );
    assert!(logits(&[&folder]).get("quantized").is_none());
    let at_load = hash(&[&folder, "--quantize", "bf16"]);
    assert_eq!(at_load, hash(&[&file]));
    assert_ne!(at_load, hash(&[&folder]));
    redline(&["logits", &folder, "--ids", "1", "--quantize", "q9"]).fails(2, &["q9", "q8_0"]);
}

/// The golden models' vocabulary as a `tokenizer.json`.
fn tokenizer_json() -> String {
    let file = std::fs::read(format!("{}/model.gguf", data("golden", "llama-rope3"))).unwrap();
    let gguf = redline_gguf::Gguf::parse(&[&file]).unwrap();
    let strings = |key: &str| gguf.metadata().require_str_array(key).unwrap();
    let vocab: serde_json::Map<String, serde_json::Value> = strings("tokenizer.ggml.tokens")
        .enumerate()
        .map(|(id, token)| (token.to_owned(), id.into()))
        .collect();
    let merges: Vec<&str> = strings("tokenizer.ggml.merges").collect();
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false});
    serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "\u{100}", "special": true}],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
    .to_string()
}

#[test]
fn a_folder_speaks_with_the_tokenizer_beside_it() {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data("folders", "llama-rope3")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(copy.path().join("tokenizer.json"), tokenizer_json()).unwrap();
    let folder = copy.path().to_str().unwrap();
    let file = format!("{}/model.gguf", data("golden", "llama-rope3"));
    let answer = |model: &str| {
        let arguments = ["run", model, "in the hat", "--raw", "--temperature", "0"];
        redline(&[&arguments[..], &["-n", "8", "--json"]].concat()).json()
    };
    let (ours, theirs) = (answer(folder), answer(&file));
    assert_eq!(ours["text"], theirs["text"]);
    assert_eq!(ours["prompt_tokens"], theirs["prompt_tokens"]);
    std::fs::write(copy.path().join("tokenizer.json"), "{}").unwrap();
    redline(&["tokenize", folder, "x"])
        .fails(1, &["cannot use the tokenizer of", "tokenizer.json"]);
}
