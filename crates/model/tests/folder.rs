//! Folders as transformers saves them (`xtask/golden/folders.py`) against the golden models of the same
//! weights.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use redline_compute::{Cpu, Isa};
use redline_gguf::{TensorType, TokenId};
use redline_model::{
    Forward as _, LoadOptions, LogitRows, Model, ModelFile, PageId, SequenceStep, StepPlan,
};

fn data(kind: &str, variant: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join(kind).join(variant)
}

/// The logits of a fixed prompt, all positions.
fn logits(path: &Path) -> Vec<f32> {
    let file = ModelFile::open(path).unwrap();
    let tokens: Vec<TokenId> = (0..40).map(|i| TokenId(i * 37 % 131)).collect();
    let options = LoadOptions {
        context: Some(tokens.len()),
        max_logit_rows: tokens.len(),
        ..LoadOptions::default()
    };
    let backend = Cpu::new(Isa::detect(), 1);
    let gguf = file.gguf().unwrap();
    let mut model = Model::load(&file, &gguf, backend, &options, &mut |_| ()).unwrap();
    let sequence = SequenceStep {
        tokens: &tokens,
        position: 0,
        pages: &[PageId(0)],
        logits: LogitRows::All,
    };
    let plan = StepPlan {
        sequences: &[sequence],
    };
    model.forward(&plan, &mut ()).unwrap().to_vec()
}

fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn a_folder_is_the_model_that_its_gguf_file_is() {
    // How far weights are off when rounded to the folder's type.
    for (variant, rounding) in [
        ("llama-rope3", 0.0),
        ("phi3-long", 0.0),
        ("qwen2-gqa", 3e-3),
        ("gemma3-pattern", 3e-2),
    ] {
        let folder = logits(&data("folders", variant));
        let gguf = logits(&data("golden", variant).join("model.gguf"));
        let off = difference(&folder, &gguf);
        assert!(off <= rounding, "{variant}: off by {off:.2e}");
        assert_eq!(rounding == 0.0, off == 0.0, "{variant}: other weights");
    }
}

#[test]
fn weights_that_do_not_change_stay_in_their_files() {
    let file = ModelFile::open(&data("folders", "llama-rope3")).unwrap();
    let gguf = file.gguf().unwrap();
    let shard = |name: &str| gguf.tensor(name).unwrap().shard;
    assert_eq!(shard("blk.0.attn_v.weight"), 1);
    assert_eq!(shard("token_embd.weight"), 1);
    assert_eq!(shard("blk.0.attn_q.weight"), 0);
    assert_eq!(shard("rope_freqs.weight"), 0);
    assert!(gguf.tensor("output.weight").is_none());
    let name = gguf.metadata().str("general.name").unwrap();
    assert_eq!(name, Some("llama-rope3"));
}

#[test]
fn shards_and_types_are_those_of_the_folder() {
    let file = ModelFile::open(&data("folders", "gemma3-pattern")).unwrap();
    let gguf = file.gguf().unwrap();
    let tensor = |name: &str| gguf.tensor(name).unwrap();
    assert_eq!(tensor("blk.5.ffn_up.weight").tensor_type, TensorType::BF16);
    assert_eq!(tensor("blk.5.ffn_norm.weight").tensor_type, TensorType::F32);
    let shards = gguf.tensors().iter().map(|tensor| tensor.shard);
    assert!(shards.max().unwrap() > 1);
}

/// A copy of a folder, changed.
fn broken(variant: &str, change: impl FnOnce(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data("folders", variant)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    change(copy.path());
    let error = ModelFile::open(copy.path()).and_then(|file| {
        let gguf = file.gguf()?;
        let backend = Cpu::new(Isa::detect(), 1);
        Model::load(&file, &gguf, backend, &LoadOptions::default(), &mut |_| ()).map(|_| ())
    });
    let error = error.unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// A variant, what is done to its folder, and what the error says.
type Case<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let cases: [Case<'_>; 7] = [
        (
            "qwen2-gqa",
            &|folder| std::fs::remove_file(folder.join("config.json")).unwrap(),
            "config.json",
        ),
        (
            "qwen2-gqa",
            &|folder| edit(&folder.join("config.json"), "\"qwen2\"", "\"mamba\""),
            "unknown model_type \"mamba\": expected one of llama, ",
        ),
        (
            "qwen2-gqa",
            &|folder| std::fs::remove_file(folder.join("model.safetensors")).unwrap(),
            "expected model.safetensors or model.safetensors.index.json in it, found neither",
        ),
        (
            "qwen2-gqa",
            &|folder| {
                edit(
                    &folder.join("config.json"),
                    "\"hidden_size\": 56",
                    "\"hidden_size\": 55",
                )
            },
            "token_embd.weight",
        ),
        (
            "phi3-long",
            &|folder| {
                let index = folder.join("model.safetensors.index.json");
                edit(&index, "\"model-00001", "\"../model-00001");
            },
            "expected names of files beside it, found \"../model-00001",
        ),
        (
            "phi3-long",
            &|folder| edit(&folder.join("config.json"), "longrope", "yarrow"),
            "rope type is yarrow: expected default",
        ),
        (
            "qwen2-gqa",
            &|folder| {
                let path = folder.join("model.safetensors");
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            },
            "model.safetensors: ",
        ),
    ];
    for (variant, change, expected) in cases {
        let error = broken(variant, change);
        assert!(error.contains(expected), "{error}");
    }
}
