//! Models whose weights are stored anew.

use std::path::Path;

use redline_gguf::{Gguf, Writer};
use tempfile::TempDir;

use crate::support::redline;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn hash(model: &str) -> String {
    let json = redline(&["logits", model, "--ids", "1,2,3,4", "--json"]).json();
    json["logits_hash"].as_str().unwrap().to_owned()
}

#[test]
fn there_and_back_is_the_same_model() {
    let folder = TempDir::new().unwrap();
    let [wide, back] = ["wide.gguf", "back.gguf"].map(|name| folder.path().join(name));
    let narrow = "synth:tiny-qwen2:f16";
    assert_eq!(
        redline(&["quantize", narrow, text(&wide), "f32"]).code,
        Some(0)
    );
    let written = redline(&["quantize", text(&wide), text(&back), "F16", "--json"]).json();
    assert_eq!(written["requantised"], false);
    assert_eq!(written["quant"], "f16");
    assert_eq!(hash(text(&back)), hash(narrow));
    // Of a narrower type it is another model.
    let small = folder.path().join("small.gguf");
    let written = redline(&["quantize", text(&back), text(&small), "q4_0", "--json"]).json();
    assert!(written["types"]["Q4_0"].as_u64() > Some(0), "{written}");
    assert_ne!(hash(text(&small)), hash(narrow));
}

#[test]
fn the_written_file_says_what_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small.gguf");
    let outcome = redline(&["quantize", "synth:tiny-llama:q8_0", text(&path), "Q4_K_M"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stdout.trim(), text(&path));
    assert!(outcome.stderr.contains("Q8_0 already"), "{outcome:?}");

    let (old, new) = (
        std::fs::read(made("synth:tiny-llama:q8_0")).unwrap(),
        std::fs::read(&path).unwrap(),
    );
    let (old, new) = (Gguf::parse(&[&old]).unwrap(), Gguf::parse(&[&new]).unwrap());
    let number = |gguf: &Gguf<'_>, key: &str| gguf.metadata().u64(key).unwrap();
    assert_eq!(number(&new, "general.file_type"), Some(15));
    assert_eq!(number(&new, "general.quantization_version"), Some(2));
    for (key, value) in old.metadata().iter() {
        if key != "general.file_type" {
            assert_eq!(new.metadata().get(key), Some(value), "{key}");
        }
    }
    assert_eq!(new.tensors().len(), old.tensors().len());
    for (old, new) in old.tensors().iter().zip(new.tensors()) {
        assert_eq!((old.name, &old.dims), (new.name, &new.dims));
        // Vectors stay as they are.
        if old.dims.len() == 1 {
            assert_eq!(old.data, new.data, "{}", old.name);
        }
    }
}

/// The file of a synthetic model.
fn made(name: &str) -> String {
    let (shape, quant) = name.trim_start_matches("synth:").split_once(':').unwrap();
    let json = redline(&["synth", shape, "--quant", quant, "--json"]).json();
    json["path"].as_str().unwrap().to_owned()
}

#[test]
fn a_split_model_becomes_one_file() {
    let folder = TempDir::new().unwrap();
    let whole = made("synth:tiny-llama:f16");
    let bytes = std::fs::read(&whole).unwrap();
    let gguf = Gguf::parse(&[&bytes]).unwrap();
    let tensors = gguf.tensors();
    let (first, last) = tensors.split_at(tensors.len() / 2);
    for (number, part) in [(0_u16, first), (1, last)] {
        let mut writer = Writer::new();
        for (key, value) in gguf.metadata().iter().filter(|_| number == 0) {
            writer.metadata(key, *value).unwrap();
        }
        writer.metadata("split.no", number).unwrap();
        writer.metadata("split.count", 2_u16).unwrap();
        let count = i32::try_from(tensors.len()).unwrap();
        writer.metadata("split.tensors.count", count).unwrap();
        for tensor in part {
            writer
                .tensor(tensor.name, &tensor.dims, tensor.tensor_type)
                .unwrap();
        }
        let mut stream = writer.start(Vec::new()).unwrap();
        for tensor in part {
            stream.write(tensor.data).unwrap();
        }
        let name = format!("model-0000{}-of-00002.gguf", number + 1);
        std::fs::write(folder.path().join(name), stream.finish().unwrap()).unwrap();
    }
    let split = folder.path().join("model-00001-of-00002.gguf");
    let outputs = [(text(&split), "split.gguf"), (&*whole, "whole.gguf")].map(|(model, name)| {
        let out = folder.path().join(name);
        let outcome = redline(&["quantize", model, text(&out), "q5_k_m"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        std::fs::read(out).unwrap()
    });
    assert!(outputs[0] == outputs[1], "the same file");
}

#[test]
fn nothing_is_overwritten_and_unknown_types_are_answered_with_the_known() {
    let folder = TempDir::new().unwrap();
    let model = made("synth:tiny-llama:f16");
    redline(&["quantize", &model, &model, "q8_0"]).fails(2, &["is there already"]);
    let out = folder.path().join("out.gguf");
    redline(&["quantize", &model, text(&out), "q9"]).fails(2, &["q9", "q4_k_m", "mxfp4"]);
    assert!(!out.exists());
    let nowhere = folder.path().join("none/out.gguf");
    redline(&["quantize", &model, text(&nowhere), "q8_0"]).fails(1, &["cannot write"]);
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let folder = TempDir::new().unwrap();
    let mut bytes = std::fs::read(made("synth:tiny-llama:f16")).unwrap();
    let gguf = Gguf::parse(&[&bytes]).unwrap();
    let at = gguf.tensor("blk.1.ffn_up.weight").unwrap().offset;
    // An infinity.
    bytes[at + 6..at + 8].copy_from_slice(&[0x00, 0x7c]);
    let model = folder.path().join("infinite.gguf");
    std::fs::write(&model, bytes).unwrap();
    let out = folder.path().join("out.gguf");
    redline(&["quantize", text(&model), text(&out), "q8_0"])
        .fails(1, &["blk.1.ffn_up.weight", "not finite"]);
    // Nothing is left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
