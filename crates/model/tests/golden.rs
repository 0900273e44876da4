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
    Forward, LoadOptions, LogitRows, Model, ModelFile, Observer, PageId, SequenceStep, Stage,
    StepPlan, logits_hash,
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
    let greedy = ids(&reference, "greedy");
    let options = LoadOptions {
        context: Some(tokens.len() + greedy.len()),
        max_step_tokens: tokens.len(),
        max_logit_rows: tokens.len(),
        ..LoadOptions::default()
    };
    let mut model =
        Model::load(&file, &file.gguf().unwrap(), backend, &options, &mut |_| ()).unwrap();

    let mut stages = Stages::default();
    let logits = step(&mut model, &tokens, 0, LogitRows::All, &mut stages).to_vec();
    stages.0.push(("logits".to_owned(), logits.clone()));
    assert_eq!(stages.0.len(), model.properties().layers.len() + 3);
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

    let mut next = argmax(&logits[logits.len() - model.vocab_size()..]);
    for (i, expected) in greedy.iter().enumerate() {
        assert_eq!(
            next, *expected,
            "{name}: token {i} of the greedy continuation"
        );
        next = argmax(step(
            &mut model,
            &[next],
            tokens.len() + i,
            LogitRows::Last,
            &mut (),
        ));
    }
    (worst, logits_hash(&logits))
}

fn models() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(golden).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 13, "found {folders:?}");
    folders
}

/// The canonical arithmetic on these models: the logits' hashes, in the order of the folders' names.
/// They change with `ARITHMETIC_VERSION` and with the golden data, with nothing else.
const HASHES: [u64; 13] = [
    0x2a33d18afad028d6,
    0xa5fc2a3edeefa7b9,
    0x51716683808e4f59,
    0x606d380fd7250c7e,
    0xa26d7d0dc6de2028,
    0x495cb7b141ddf848,
    0xd2b54576e60773a6,
    0x529e1599411623d5,
    0xe34ca8ad93c1926d,
    0xe84dfa3072cb4597,
    0x1212dc114b77773a,
    0x5d34b8e82991a90e,
    0x79704a35d5768fe9,
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
        hashes.push(hash);
    }
    assert_eq!(hashes, HASHES, "{hashes:#018x?}");
}

#[test]
fn what_differs_is_the_rounding_of_the_kv_cache() {
    for folder in models() {
        let backend = ExactAttention(Cpu::new(Isa::detect(), 1));
        let (worst, _) = check(&folder, backend, EXACT_TOLERANCE, EXACT_TOLERANCE);
        println!("{}: off by at most {worst:.2e}", folder.display());
    }
}
