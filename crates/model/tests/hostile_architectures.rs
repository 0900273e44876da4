//! Golden models of every architecture with metadata that makes no sense: one clear line each, never a
//! panic. What all decoders have in common, and tensors, are in `hostile.rs`; experts in `mixture.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use redline_compute::{Cpu, Isa};
use redline_gguf::{Gguf, TokenId, Value, Writer};
use redline_model::{
    Forward as _, LoadOptions, LogitRows, Model, ModelFile, Output, PageId, SequenceStep, StepPlan,
};

/// A variant of each, its architecture and heads.
const MODELS: [(&str, &str, u32); 7] = [
    ("bert-odd", "bert", 5),
    ("gemma3-pattern", "gemma3", 5),
    ("gpt-oss-odd", "gpt-oss", 3),
    ("gpt2-odd", "gpt2", 3),
    ("nomic-bert-odd", "nomic-bert", 3),
    ("phi3-long", "phi3", 4),
    ("qwen3-gqa", "qwen3", 4),
];

/// The file of a golden model with `key` set.
fn edited(variant: &str, key: &str, value: Value<'_>) -> Vec<u8> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bytes = std::fs::read(golden.join(variant).join("model.gguf")).unwrap();
    let gguf = Gguf::parse(&[&bytes]).unwrap();
    let mut writer = Writer::new();
    for (other, value) in gguf.metadata().iter().filter(|(other, _)| *other != key) {
        writer.metadata(other, *value).unwrap();
    }
    writer.metadata(key, value).unwrap();
    for tensor in gguf.tensors() {
        let (dims, tensor_type) = (&tensor.dims, tensor.tensor_type);
        writer.tensor(tensor.name, dims, tensor_type).unwrap();
    }
    let mut stream = writer.start(Vec::new()).unwrap();
    for tensor in gguf.tensors() {
        stream.write(tensor.data).unwrap();
    }
    stream.finish().unwrap()
}

/// The file, run over a few tokens: the last rows.
fn run(file: Vec<u8>) -> Result<Vec<f32>, String> {
    let file = ModelFile::from_bytes(vec![file]);
    let said = |error: redline_model::Error| error.to_string();
    let options = LoadOptions {
        output: Output::Hidden,
        context: Some(4),
        max_step_tokens: 4,
        max_logit_rows: 4,
        ..LoadOptions::default()
    };
    let backend = Cpu::new(Isa::detect(), 1);
    let gguf = file.gguf().map_err(said)?;
    let mut model = Model::load(&file, &gguf, backend, &options, &mut |_| ()).map_err(said)?;
    let sequences = [SequenceStep {
        tokens: &[1, 2, 3, 4].map(TokenId),
        position: 0,
        pages: &[PageId(0)],
        logits: LogitRows::All,
    }];
    let plan = StepPlan {
        sequences: &sequences,
    };
    Ok(model.forward(&plan, &mut ()).map_err(said)?.to_vec())
}

/// Sets a key of the model's own and expects this error of it.
fn check(variant: &str, key: &str, value: impl Into<Value<'static>>, expected: &str) {
    let (_, architecture, _) = MODELS.iter().find(|(name, ..)| *name == variant).unwrap();
    let key = format!("{architecture}.{key}");
    let error = run(edited(variant, &key, value.into())).unwrap_err();
    assert_eq!(error, expected.replace("KEY", &key), "{variant}");
}

#[test]
fn sizes() {
    for (variant, _, heads) in MODELS {
        for (key, value) in [
            ("attention.head_count", 0),
            ("attention.head_count", u64::MAX),
            ("embedding_length", u64::from(u32::MAX)),
            ("feed_forward_length", 1 << 40),
            ("block_count", 0),
        ] {
            let expected = format!("metadata KEY: expected 1..=16777216, found {value}");
            check(variant, key, value, &expected);
        }
        let key = "attention.head_count_kv";
        let found = heads + 1;
        let expected =
            format!("metadata KEY: expected a divisor of the {heads} heads, found {found}");
        check(variant, key, found, &expected);
        let expected = "metadata KEY: expected 1..=1073741824, found 0";
        check(variant, "context_length", 0_u32, expected);
        let expected = "metadata KEY: 9 is not supported, only 0 to 3 (none, mean, CLS, last)";
        check(variant, "pooling_type", 9_u32, expected);
    }
}

#[test]
fn epsilons() {
    for (variant, architecture, _) in MODELS {
        let layer_norm = ["bert", "gpt2", "nomic-bert"].contains(&architecture);
        let key = match layer_norm {
            true => "attention.layer_norm_epsilon",
            false => "attention.layer_norm_rms_epsilon",
        };
        for eps in [f32::NAN, f32::INFINITY, -1e-5] {
            let expected = format!("metadata KEY: expected a finite number from 0, found {eps}");
            check(variant, key, eps, &expected);
        }
        // Nothing is left of the hidden state, and nothing breaks.
        let key = format!("{architecture}.{key}");
        let rows = run(edited(variant, &key, f32::MAX.into())).unwrap();
        assert!(rows.iter().all(|x| x.is_finite()), "{variant}");
    }
}

#[test]
fn a_window_of_nothing_is_none_and_one_of_too_much_is_refused() {
    let key = "attention.sliding_window";
    for (variant, architecture) in [("gemma3-pattern", "gemma3"), ("gpt-oss-odd", "gpt-oss")] {
        let key = format!("{architecture}.{key}");
        let file = edited(variant, &key, 0_u32.into());
        let properties =
            redline_model::Properties::from_gguf(&Gguf::parse(&[&file]).unwrap()).unwrap();
        let mut layers = properties.layers.iter();
        assert!(layers.all(|layer| layer.window.is_none()), "{variant}");
        assert!(run(file).is_ok(), "{variant}");
    }
    for variant in ["gemma3-pattern", "gpt-oss-odd", "phi3-long"] {
        let expected = "metadata KEY: expected 1..=16777216, found 16777217";
        check(variant, key, (1_u32 << 24) + 1, expected);
    }
}

#[test]
fn rotations() {
    for factor in [0.0, -4.0, f32::NAN, f32::INFINITY] {
        let expected = format!("metadata KEY: expected a finite number above 0, found {factor}");
        for key in ["factor", "yarn_beta_fast", "yarn_beta_slow"] {
            check(
                "gpt-oss-odd",
                &format!("rope.scaling.{key}"),
                factor,
                &expected,
            );
        }
        check("phi3-long", "rope.scaling.attn_factor", factor, &expected);
        check("gemma3-pattern", "rope.freq_base_swa", factor, &expected);
    }
    let expected = "metadata KEY: longrope is not supported, \
                    only none, linear or yarn, or longrope with its tensors";
    check("qwen3-gqa", "rope.scaling.type", "longrope", expected);
}

#[test]
fn encoders() {
    for variant in ["bert-odd", "nomic-bert-odd"] {
        let expected = "metadata KEY: true is not supported, only false";
        check(variant, "attention.causal", true, expected);
    }
    let error = run(edited("bert-odd", "bert.context_length", 65_u32.into())).unwrap_err();
    assert!(
        error.starts_with("tensor position_embd.weight: expected dims ["),
        "{error}"
    );
    let key = "tokenizer.ggml.token_type_count";
    let error = run(edited("bert-odd", key, 9_u32.into())).unwrap_err();
    assert!(
        error.starts_with("tensor token_types.weight: expected dims ["),
        "{error}"
    );
}
