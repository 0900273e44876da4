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
    redline(&["run", &folder, "hello"]).fails(1, &["cannot use the tokenizer of", "llama-rope3"]);
    let sheet = redline(&["inspect", &folder]);
    assert_eq!(sheet.code, Some(0), "{sheet:?}");
    assert!(sheet.stdout.contains("safetensors"), "{sheet:?}");
}
