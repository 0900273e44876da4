//! Tiny random models against per-layer activations of Hugging Face transformers.
//!
//! Each folder of `golden/` has a model, its reference and the provenance of both; `cargo xtask
//! golden` makes them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/exact_attention.rs"]
mod exact_attention;

use std::path::{Path, PathBuf};

use exact_attention::ExactAttention;
use redline_compute::{Backend, Cpu, Isa};
use redline_gguf::{Gguf, TensorType, TokenId};
use redline_model::{
    Forward, LoadOptions, LogitRows, Model, ModelFile, Observer, Output, PageId, SequenceStep,
    Stage, StepPlan, logits_hash,
};

/// Largest difference of a layer from the reference, over the reference's largest magnitude there.
/// Nearly all of it is the KV cache's: half precision rounds by up to 4.9e-4.
const TOLERANCE: f32 = 1e-3;
/// The same for logits: the head's matrix may amplify what the last layer is off by.
const LOGITS_TOLERANCE: f32 = 2e-3;
/// The same for everything where keys and values are not rounded.
const EXACT_TOLERANCE: f32 = 1e-5;

/// Every stage's name, as the reference names it, and its hidden state.
#[derive(Default)]
struct Stages(Vec<(String, Vec<f32>)>);

impl Observer for Stages {
    fn wants_hidden(&self) -> bool {
        true
    }

    fn hidden(&mut self, stage: Stage, rows: &[f32]) {
        let name = match stage {
            Stage::Embedding => "hidden.embedding".to_owned(),
            Stage::Layer(layer) => format!("hidden.{layer}"),
            Stage::FinalNorm => "hidden.final_norm".to_owned(),
        };
        self.0.push((name, rows.to_vec()));
    }
}

fn floats(reference: &Gguf<'_>, name: &str) -> Vec<f32> {
    let tensor = reference
        .tensor(name)
        .unwrap_or_else(|| panic!("reference has no {name}"));
    assert_eq!(tensor.tensor_type, TensorType::F32, "{name}");
    let bytes = tensor.data.chunks_exact(4);
    bytes
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

fn ids(reference: &Gguf<'_>, name: &str) -> Vec<TokenId> {
    let tensor = reference
        .tensor(name)
        .unwrap_or_else(|| panic!("reference has no {name}"));
    assert_eq!(tensor.tensor_type, TensorType::I32, "{name}");
    let bytes = tensor.data.chunks_exact(4);
    bytes
        .map(|bytes| TokenId(u32::from_le_bytes(bytes.try_into().unwrap())))
        .collect()
}

fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|x| x.is_finite()));
    let largest = expected
        .iter()
        .fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    difference.fold(0.0, f32::max) / largest
}

/// One step of one sequence whose pages are all there are, in order.
fn step<'m, B: Backend>(
    model: &'m mut Model<B>,
    tokens: &[TokenId],
    position: usize,
    logits: LogitRows,
    observer: &mut dyn Observer,
) -> &'m [f32] {
    let pages: Vec<PageId> = (0..model.page_count() as u32).map(PageId).collect();
    let sequence = SequenceStep {
        tokens,
        position,
        pages: &pages,
        logits,
    };
    model
        .forward(
            &StepPlan {
                sequences: &[sequence],
            },
            observer,
        )
        .unwrap()
}

/// The lowest id of the largest logit.
fn argmax(logits: &[f32]) -> TokenId {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    TokenId(logits.iter().position(|logit| *logit == largest).unwrap() as u32)
}

/// The largest error of any stage, and the hash of the logits.
fn check<B: Backend>(
    folder: &Path,
    backend: B,
    tolerance: f32,
    logits_tolerance: f32,
) -> (f32, u64) {
    let name = folder.file_name().unwrap().to_string_lossy();
    let file = ModelFile::open(&folder.join("model.gguf")).unwrap();
    let reference_file = ModelFile::open(&folder.join("reference.gguf")).unwrap();
    let reference = reference_file.gguf().unwrap();
    let tokens = ids(&reference, "tokens");
    // An encoder's reference ends with hidden state.
    let generates = reference.tensor("logits").is_some();
    let greedy = match generates {
        true => ids(&reference, "greedy"),
        false => Vec::new(),
    };
    assert!(
        !generates || (tokens.len(), greedy.len()) == (64, 16),
        "{name}"
    );
    let options = LoadOptions {
        output: match generates {
            true => Output::Logits,
            false => Output::Hidden,
        },
        context: Some(tokens.len() + greedy.len()),
        max_step_tokens: tokens.len(),
        max_logit_rows: tokens.len(),
        ..LoadOptions::default()
    };
    let mut model =
        Model::load(&file, &file.gguf().unwrap(), backend, &options, &mut |_| ()).unwrap();

    let mut stages = Stages::default();
    let rows = step(&mut model, &tokens, 0, LogitRows::All, &mut stages).to_vec();
    assert_eq!(stages.0.len(), model.properties().layers.len() + 2);
    let last = if generates {
        "logits"
    } else {
        "hidden.final_norm"
    };
    stages.0.push((last.to_owned(), rows.clone()));
    let mut worst = 0.0_f32;
    for (stage, found) in &stages.0 {
        let error = relative_error(found, &floats(&reference, stage));
        let tolerance = if stage == "logits" {
            logits_tolerance
        } else {
            tolerance
        };
        assert!(
            error <= tolerance,
            "{name}: {stage} is off by {error:.2e} of its magnitude"
        );
        worst = worst.max(error);
    }

    if generates {
        let expected = (greedy, floats(&reference, "greedy_logits"));
        let first = argmax(&rows[rows.len() - model.vocab_size()..]);
        let error = decode(&name, &mut model, (first, tokens.len()), &expected);
        assert!(
            error <= logits_tolerance,
            "{name}: logits of decoded tokens are off by {error:.2e} of their magnitude"
        );
        worst = worst.max(error);
    }
    (worst, logits_hash(&rows))
}

/// Decodes greedily from a token at a position on; gives the largest error of the logits.
fn decode<B: Backend>(
    name: &str,
    model: &mut Model<B>,
    (mut next, position): (TokenId, usize),
    (greedy, logits): &(Vec<TokenId>, Vec<f32>),
) -> f32 {
    let vocab = model.vocab_size();
    let rows = greedy.iter().zip(logits.chunks_exact(vocab));
    assert_eq!(rows.len(), greedy.len());
    let mut worst = 0.0_f32;
    for (i, (expected, row)) in rows.enumerate() {
        assert_eq!(
            next, *expected,
            "{name}: token {i} of the greedy continuation"
        );
        let found = step(model, &[next], position + i, LogitRows::Last, &mut ());
        worst = worst.max(relative_error(found, row));
        next = argmax(found);
    }
    worst
}

fn models() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(golden).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert_eq!(folders.len(), HASHES.len(), "found {folders:?}");
    folders
}

/// The canonical arithmetic on these models: the hashes of the logits (of an encoder's rows).
/// They change with `ARITHMETIC_VERSION` and with the golden data, with nothing else.
const HASHES: [(&str, u64); 33] = [
    ("bert-deep", 0x57a68cd6c1959d2d),
    ("bert-minilm", 0xf1be4148f9293038),
    ("bert-odd", 0xcff133763d6a73f0),
    ("gemma3-default", 0x2a33d18afad028d6),
    ("gemma3-linear", 0xa5fc2a3edeefa7b9),
    ("gemma3-pattern", 0x51716683808e4f59),
    ("gpt-oss-odd", 0x790083514e9ea526),
    ("gpt-oss-plain", 0x0d147ce1519be497),
    ("gpt-oss-yarn", 0x7f54c27cfe8e3243),
    ("gpt2-odd", 0xd9b36df3469fc512),
    ("gpt2-tied", 0x214ad6d8ac02f078),
    ("gpt2-untied", 0x61d37b56109e70aa),
    ("llama-code", 0xdc288f01707a960b),
    ("llama-gqa", 0x606d380fd7250c7e),
    ("llama-linear-bias", 0xa26d7d0dc6de2028),
    ("llama-rope3", 0x495cb7b141ddf848),
    ("llama-rope3-mqa", 0x0bacf47390225a53),
    ("llama-rope3-odd", 0xec60dd185bcecfce),
    ("llama-window", 0xd2b54576e60773a6),
    ("llama-window-gqa", 0xf643fd72bb6670b6),
    ("llama-window-wide", 0x468845134deae429),
    ("nomic-bert-base", 0x7e042c1c81205678),
    ("nomic-bert-deep", 0xa26036cf84ef8bc3),
    ("nomic-bert-odd", 0xc54cd893bd013ccb),
    ("phi3-long", 0x529e1599411623d5),
    ("phi3-short", 0xe34ca8ad93c1926d),
    ("phi3-window", 0xe84dfa3072cb4597),
    ("qwen2-gqa", 0x1212dc114b77773a),
    ("qwen2-mha", 0x5d34b8e82991a90e),
    ("qwen2-untied", 0x79704a35d5768fe9),
    ("qwen3-gqa", 0x6c3b7d762e65c23c),
    ("qwen3-mha", 0xfc394e0e42099107),
    ("qwen3-untied", 0x4b68f14f83b96638),
];

#[test]
fn every_layer_of_every_tiny_model_agrees_with_transformers() {
    let mut hashes = Vec::new();
    for folder in models() {
        let backend = Cpu::new(Isa::detect(), 1);
        let (worst, hash) = check(&folder, backend, TOLERANCE, LOGITS_TOLERANCE);
        println!(
            "{}: off by at most {worst:.2e}, {hash:#018x}",
            folder.display()
        );
        let name = folder.file_name().unwrap().to_string_lossy();
        hashes.push((name.into_owned(), hash));
    }
    let expected = HASHES.map(|(name, hash)| (name.to_owned(), hash));
    assert_eq!(hashes, expected, "{hashes:#018x?}");
}

#[test]
fn what_differs_is_the_rounding_of_the_kv_cache() {
    for folder in models() {
        let backend = ExactAttention(Cpu::new(Isa::detect(), 1));
        let (worst, _) = check(&folder, backend, EXACT_TOLERANCE, EXACT_TOLERANCE);
        println!("{}: off by at most {worst:.2e}", folder.display());
    }
}
