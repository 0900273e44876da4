//! Tiny random models against per-layer activations of Hugging Face transformers.
//!
//! Each folder of `golden/` has a model, its reference and the provenance of both; `cargo xtask
//! golden` makes them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use redline_compute::{Cpu, Isa, KvFormat};
use redline_gguf::{Gguf, TensorType, TokenId};
use redline_model::{
    Forward, LoadOptions, LogitRows, Model, ModelFile, Observer, Output, PageId, SequenceStep,
    Stage, StepPlan, logits_hash,
};

/// Largest differences from the reference, each over the reference's largest magnitude there.
struct Tolerances {
    layers: f32,
    logits: f32,
}

/// Nearly all of it is the KV cache's: half precision rounds by up to 4.9e-4, and the head's matrix
/// may amplify what the last layer is off by.
const OF_HALVES: Tolerances = Tolerances {
    layers: 1e-3,
    logits: 2e-3,
};
/// Where keys and values are not rounded.
const OF_FLOATS: Tolerances = Tolerances {
    layers: 1e-5,
    logits: 1e-5,
};

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
fn step<'m>(
    model: &'m mut Model<Cpu>,
    tokens: &[TokenId],
    position: usize,
    logits: LogitRows,
    observer: &mut dyn Observer,
) -> &'m [f32] {
    let pages: Vec<PageId> = (0..model.shape().page_count as u32).map(PageId).collect();
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
fn check(folder: &Path, kv_format: KvFormat, tolerances: &Tolerances) -> (f32, u64) {
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
        kv_format,
        max_step_tokens: tokens.len(),
        max_logit_rows: tokens.len(),
        ..LoadOptions::default()
    };
    let backend = Cpu::new(Isa::detect(), 1);
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
        let tolerance = match stage == "logits" {
            true => tolerances.logits,
            false => tolerances.layers,
        };
        assert!(
            error <= tolerance,
            "{name}: {stage} is off by {error:.2e} of its magnitude"
        );
        worst = worst.max(error);
    }

    if generates {
        let expected = (greedy, floats(&reference, "greedy_logits"));
        let first = argmax(&rows[rows.len() - model.shape().vocab_size..]);
        let error = decode(&name, &mut model, (first, tokens.len()), &expected);
        assert!(
            error <= tolerances.logits,
            "{name}: logits of decoded tokens are off by {error:.2e} of their magnitude"
        );
        worst = worst.max(error);
    }
    (worst, logits_hash(&rows))
}

/// Decodes greedily from a token at a position on; gives the largest error of the logits.
fn decode(
    name: &str,
    model: &mut Model<Cpu>,
    (mut next, position): (TokenId, usize),
    (greedy, logits): &(Vec<TokenId>, Vec<f32>),
) -> f32 {
    let vocab = model.shape().vocab_size;
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

/// The canonical arithmetic on these models: the hashes of the logits (of an encoder's rows) with
/// keys and values in half precision, and in F32.
/// They change with `ARITHMETIC_VERSION` and with the golden data, with nothing else.
const HASHES: [(&str, u64, u64); 33] = [
    ("bert-deep", 0x57a68cd6c1959d2d, 0x24fe628daa985867),
    ("bert-minilm", 0xf1be4148f9293038, 0xc9b37fd8510f1e48),
    ("bert-odd", 0xcff133763d6a73f0, 0x3f40aa5137f24dc4),
    ("gemma3-default", 0x2a33d18afad028d6, 0x7440fbdb1b70a59a),
    ("gemma3-linear", 0xa5fc2a3edeefa7b9, 0x4067c869608a643c),
    ("gemma3-pattern", 0x51716683808e4f59, 0x0546fc2c26ad7a2d),
    ("gpt-oss-odd", 0x790083514e9ea526, 0xc16170936cc97773),
    ("gpt-oss-plain", 0x0d147ce1519be497, 0xe4cb5562024dfee7),
    ("gpt-oss-yarn", 0x7f54c27cfe8e3243, 0xc1618e37016064a5),
    ("gpt2-odd", 0xd9b36df3469fc512, 0x2aef446f2c205239),
    ("gpt2-tied", 0x214ad6d8ac02f078, 0x8c989a1b80e54ed5),
    ("gpt2-untied", 0x61d37b56109e70aa, 0x0cd4be77993ce7a2),
    ("llama-code", 0xdc288f01707a960b, 0xd43167d86b82e2fc),
    ("llama-gqa", 0x606d380fd7250c7e, 0x372ce412bb704299),
    ("llama-linear-bias", 0xa26d7d0dc6de2028, 0x5392eafbc8570ab7),
    ("llama-rope3", 0x495cb7b141ddf848, 0x9172209a52afae7c),
    ("llama-rope3-mqa", 0x0bacf47390225a53, 0x4d264b3883ceb2ca),
    ("llama-rope3-odd", 0xec60dd185bcecfce, 0xd41e5794859f673e),
    ("llama-window", 0xd2b54576e60773a6, 0x97bf2ba6bdd2f3f6),
    ("llama-window-gqa", 0xf643fd72bb6670b6, 0xd16cd95483fc3b20),
    ("llama-window-wide", 0x468845134deae429, 0xf10f53474fb7ed49),
    ("nomic-bert-base", 0x7e042c1c81205678, 0x63fd15c57e757867),
    ("nomic-bert-deep", 0xa26036cf84ef8bc3, 0x7d6831d9eccc5027),
    ("nomic-bert-odd", 0xc54cd893bd013ccb, 0x04402e1dd211c2ff),
    ("phi3-long", 0x529e1599411623d5, 0x07e4fd1b8d70e7cb),
    ("phi3-short", 0xe34ca8ad93c1926d, 0x0e020b1edb5482fa),
    ("phi3-window", 0xe84dfa3072cb4597, 0x11682553309d9c1f),
    ("qwen2-gqa", 0x1212dc114b77773a, 0x02f9074b5ad8430b),
    ("qwen2-mha", 0x5d34b8e82991a90e, 0xdf96ee0cd16f5147),
    ("qwen2-untied", 0x79704a35d5768fe9, 0x06ed61e2a889d379),
    ("qwen3-gqa", 0x6c3b7d762e65c23c, 0x42f661d40e7bb935),
    ("qwen3-mha", 0xfc394e0e42099107, 0x64611a512b744801),
    ("qwen3-untied", 0x4b68f14f83b96638, 0x80f9ab50171244d8),
];

#[test]
fn every_layer_of_every_tiny_model_agrees_with_transformers() {
    let mut hashes = Vec::new();
    for folder in models() {
        let (worst, halves) = check(&folder, KvFormat::F16, &OF_HALVES);
        let (worst_exact, floats) = check(&folder, KvFormat::F32, &OF_FLOATS);
        println!(
            "{}: off by at most {worst:.2e}, {halves:#018x}; with F32 keys and values by \
             {worst_exact:.2e}, {floats:#018x}",
            folder.display()
        );
        let name = folder.file_name().unwrap().to_string_lossy();
        hashes.push((name.into_owned(), halves, floats));
    }
    let expected = HASHES.map(|(name, halves, floats)| (name.to_owned(), halves, floats));
    assert_eq!(hashes, expected, "{hashes:#018x?}");
}
