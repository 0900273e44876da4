//! Files whose metadata or tensors make no sense: one clear error each, never a panic.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each test file uses its part of the support module"
)]

#[path = "support/tiny.rs"]
mod tiny;

use redline_compute::{Cpu, Format, Isa};
use redline_gguf::TensorType;
use redline_model::{LoadOptions, Model, ModelFile, PageId, Properties};
use tiny::Metadata::{Float, Int, Text, Texts};
use tiny::{GEMMA3, LLAMA, PHI3, QWEN2, Shape, TinyModel, load};

/// Changes a model and expects this error.
fn check(shape: Shape, expected: &str, change: impl FnOnce(&mut TinyModel)) {
    let mut model = TinyModel::new(shape);
    change(&mut model);
    let error = load(&model).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, expected);
}

/// Changes a model's metadata and expects what it means.
fn accept(shape: Shape, change: impl FnOnce(&mut TinyModel), check: impl FnOnce(&Properties)) {
    let mut model = TinyModel::new(shape);
    change(&mut model);
    check(load(&model).unwrap().properties());
}

#[test]
fn architectures() {
    check(
        LLAMA,
        "general.architecture: unknown architecture \"mamba\", known are llama, qwen2, gemma3, phi3, \
         qwen3, gpt2, bert, nomic-bert, gpt-oss",
        |m| m.set("general.architecture", Text("mamba")),
    );
    check(
        LLAMA,
        "metadata has no \"qwen2.attention.layer_norm_rms_epsilon\": expected f32",
        |m| {
            m.set("general.architecture", Text("qwen2"));
        },
    );
    check(
        LLAMA,
        "metadata has no \"general.architecture\": expected string",
        |m| {
            m.remove("general.architecture");
        },
    );
}

#[test]
fn sizes() {
    let size = |key: &'static str, value, expected: &str| {
        check(LLAMA, expected, |m| m.set(key, Int(value)));
    };
    for (key, value) in [
        ("llama.embedding_length", 0),
        ("llama.feed_forward_length", 0),
        ("llama.block_count", 0),
        ("llama.attention.head_count", (1 << 24) + 1),
        ("llama.feed_forward_length", u64::MAX),
    ] {
        let expected = format!("metadata {key}: expected 1..=16777216, found {value}");
        size(key, value, &expected);
    }
    size(
        "llama.context_length",
        0,
        "metadata llama.context_length: expected 1..=1073741824, found 0",
    );
    size(
        "llama.block_count",
        22,
        "metadata llama.block_count: expected at most the file's 20 tensors, found 22",
    );
    size(
        "llama.attention.head_count_kv",
        3,
        "metadata llama.attention.head_count_kv: expected a divisor of the 4 heads, found 3",
    );
    size(
        "llama.attention.value_length",
        32,
        "metadata llama.attention.value_length: 32 is not supported, \
         only attention.key_length (64)",
    );
    size(
        "llama.expert_count",
        8,
        "metadata llama.expert_count: 8 is not supported, only 0 (dense models)",
    );
    check(
        LLAMA,
        "metadata llama.attention.head_count: expected a divisor of embedding_length 256, \
         or attention.key_length given, found 3",
        |m| {
            m.remove("llama.attention.key_length");
            m.remove("llama.attention.head_count_kv");
            m.set("llama.attention.head_count", Int(3));
        },
    );
    let eps = "llama.attention.layer_norm_rms_epsilon";
    let expected = "metadata llama.attention.layer_norm_rms_epsilon: \
                    expected a finite number from 0, found NaN";
    check(LLAMA, expected, |m| m.set(eps, Float(f32::NAN)));
}

#[test]
fn rotations() {
    for dims in [63, 66] {
        let expected = format!(
            "metadata llama.rope.dimension_count: expected an even number, \
             at most the head's 64 elements, found {dims}"
        );
        check(LLAMA, &expected, |m| {
            m.set("llama.rope.dimension_count", Int(dims))
        });
    }
    for base in [0.0, -1.0, f32::INFINITY, f32::NAN] {
        let expected = format!(
            "metadata llama.rope.freq_base: expected a finite number above 0, found {base}"
        );
        check(LLAMA, &expected, |m| {
            m.set("llama.rope.freq_base", Float(base))
        });
    }
    check(
        QWEN2,
        "metadata qwen2.rope.scaling.type: spiral is not supported, \
         only none, linear or yarn, or longrope with its tensors",
        |m| m.set("qwen2.rope.scaling.type", Text("spiral")),
    );
    check(
        LLAMA,
        "metadata rope_freqs.weight: expected finite factors above 0, found 0",
        |m| m.push("rope_freqs.weight", &[32], TensorType::F32, vec![0.0; 32]),
    );
    check(
        LLAMA,
        "tensor rope_freqs.weight: expected dims [32], found [16]",
        |m| {
            m.push("rope_freqs.weight", &[16], TensorType::F32, vec![1.0; 16]);
        },
    );
    check(
        GEMMA3,
        "metadata gemma3.final_logit_softcapping: 30 is not supported, only 0 (no soft cap)",
        |m| m.set("gemma3.final_logit_softcapping", Float(30.0)),
    );
}

#[test]
fn long_rotations() {
    let short = |m: &mut TinyModel| {
        m.push(
            "rope_factors_short.weight",
            &[32],
            TensorType::F32,
            vec![2.0; 32],
        );
    };
    let long = |m: &mut TinyModel, value| {
        m.push(
            "rope_factors_long.weight",
            &[32],
            TensorType::F32,
            vec![value; 32],
        );
    };
    check(
        PHI3,
        "tensor rope_factors_long.weight: missing, expected dims [32]",
        short,
    );
    check(
        PHI3,
        "tensor rope_factors_short.weight: missing, expected dims [32]",
        |m| long(m, 4.0),
    );
    check(
        PHI3,
        "metadata rope_factors_long.weight: expected finite factors above 0, found inf",
        |m| {
            short(m);
            long(m, f32::INFINITY);
        },
    );
    check(
        LLAMA,
        "tensor rope_factors_short.weight: not part of this architecture",
        |m| {
            m.set("llama.rope.scaling.type", Text("longrope"));
            short(m);
            long(m, 4.0);
        },
    );
    accept(
        PHI3,
        |m| {
            m.set("phi3.rope.scaling.type", Text("longrope"));
            m.set("phi3.rope.scaling.original_context_length", Int(100));
            m.set("phi3.rope.scaling.attn_factor", Float(1.5));
            short(m);
            long(m, 4.0);
        },
        |properties| {
            let rope = &properties.ropes[0];
            let cos_of_pair_0 = |positions| rope.table(positions).table[32].0;
            assert_eq!(cos_of_pair_0(100), (0.5_f64.cos() * 1.5) as f32);
            assert_eq!(cos_of_pair_0(101), (0.25_f64.cos() * 1.5) as f32);
        },
    );
}

#[test]
fn vocabularies() {
    check(
        LLAMA,
        "tensor token_embd.weight: missing, expected dims [256, 96]",
        |m| {
            m.remove("token_embd.weight");
        },
    );
    check(
        LLAMA,
        "tensor token_embd.weight: expected dims [256, 2], found [256, 96]",
        |m| {
            m.set(
                "tokenizer.ggml.tokens",
                Texts(vec!["a".to_owned(), "b".to_owned()]),
            );
        },
    );
    check(
        LLAMA,
        "tensor token_embd.weight: expected dims [256, 97], found [256, 96]",
        |m| {
            m.remove("tokenizer.ggml.tokens");
            m.set("llama.vocab_size", Int(97));
        },
    );
    check(
        LLAMA,
        "tensor token_embd.weight: expected dims [128, 96], found [256, 96]",
        |m| {
            m.set("llama.embedding_length", Int(128));
        },
    );
    accept(
        LLAMA,
        |m| m.remove("tokenizer.ggml.tokens"),
        |properties| assert_eq!(properties.vocab, 96),
    );
}

#[test]
fn tensors() {
    check(
        QWEN2,
        "tensor blk.1.attn_k.bias: missing, expected dims [128]",
        |m| {
            m.remove("blk.1.attn_k.bias");
        },
    );
    check(
        GEMMA3,
        "tensor blk.2.attn_q_norm.weight: missing, expected dims [64]",
        |m| {
            m.remove("blk.2.attn_q_norm.weight");
        },
    );
    check(
        LLAMA,
        "tensor blk.0.ffn_down.weight: expected dims [256, 256], found [256, 255]",
        |m| {
            m.tensor("blk.0.ffn_down.weight").dims[1] = 255;
        },
    );
    check(
        LLAMA,
        "tensor blk.0.ffn_up.weight: expected dims [256, 256], found [256, 16, 16]",
        |m| {
            m.tensor("blk.0.ffn_up.weight").dims = vec![256, 16, 16];
        },
    );
    check(
        LLAMA,
        "tensor output_norm.weight: expected dims [256], found [1]",
        |m| {
            m.tensor("output_norm.weight").dims[0] = 1;
        },
    );
    check(
        LLAMA,
        "tensor blk.1.attn_q.weight: expected type \
         F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, Q2_K, Q3_K, Q4_K, \
         Q5_K, Q6_K, IQ4_XS, found TQ2_0",
        |m| m.tensor("blk.1.attn_q.weight").tensor_type = TensorType::TQ2_0,
    );
    check(
        LLAMA,
        "tensor blk.1.attn_norm.weight: expected type F32, F16 or BF16, found Q8_0",
        |m| m.tensor("blk.1.attn_norm.weight").tensor_type = TensorType::Q8_0,
    );
    // A bias nobody would add, a layer nobody would run.
    check(
        LLAMA,
        "tensor blk.0.attn_q_norm.weight: not part of this architecture",
        |m| {
            m.push(
                "blk.0.attn_q_norm.weight",
                &[64],
                TensorType::F32,
                vec![1.0; 64],
            );
        },
    );
    check(
        LLAMA,
        "tensor blk.1.attn_q.weight: not part of this architecture",
        |m| {
            m.set("llama.block_count", Int(1));
        },
    );
}

#[test]
fn fused_tensors() {
    check(
        PHI3,
        "tensor blk.0.attn_qkv.weight: expected dims [256, 512], found [256, 511]",
        |m| {
            m.tensor("blk.0.attn_qkv.weight").dims[1] = 511;
        },
    );
    check(
        PHI3,
        "tensor blk.0.ffn_up.weight: expected dims [256, 512], found [256, 256]",
        |m| {
            m.tensor("blk.0.ffn_up.weight").dims[1] = 256;
        },
    );
}

#[test]
fn what_is_optional_is_used_if_it_is_there() {
    accept(
        LLAMA,
        |m| {
            m.set("llama.rope.scaling.type", Text("linear"));
            m.set("llama.rope.scaling.factor", Float(4.0));
            m.set("llama.attention.sliding_window", Int(0));
            m.push("rope_freqs.weight", &[32], TensorType::F32, vec![2.0; 32]);
            m.push(
                "output.weight",
                &[256, 96],
                TensorType::Q8_0,
                vec![0.5; 256 * 96],
            );
            m.push(
                "blk.0.attn_output.bias",
                &[256],
                TensorType::F16,
                vec![1.0; 256],
            );
        },
        |properties| {
            assert_eq!(properties.ropes[0].linear_factor, 4.0);
            assert_eq!(properties.ropes[0].factors, Some(vec![2.0; 32]));
            assert_eq!(properties.layers[1].window, None);
        },
    );
    accept(
        GEMMA3,
        |m| m.set("gemma3.rope.freq_base_swa", Float(5000.0)),
        |properties| {
            let layers: Vec<_> = properties
                .layers
                .iter()
                .map(|layer| (layer.window, layer.rope))
                .collect();
            assert_eq!(
                layers,
                [(Some(20), Some(1)), (None, Some(0)), (Some(20), Some(1))]
            );
            assert_eq!(properties.ropes[1].base, 5000.0);
            assert_eq!(properties.embedding_scale, 16.0);
        },
    );
}

#[test]
fn the_27b_gemma_scales_by_hidden_size_over_heads() {
    for (layers, scale) in [(61, 1.0 / 4.0), (62, 1.0 / 8.0)] {
        let mut model = TinyModel::new(Shape { layers, ..GEMMA3 });
        model.set("gemma3.attention.key_length", Int(16));
        model.set("gemma3.attention.value_length", Int(16));
        let file = model.file();
        let properties = Properties::from_gguf(&file.gguf().unwrap()).unwrap();
        assert_eq!(properties.attention_scale, scale);
    }
}

/// Every byte before the weights, changed in several ways: an error or a model that runs.
#[test]
fn any_flipped_byte_of_the_header_gives_an_error_or_a_model() {
    let shape = Shape {
        layers: 1,
        formats: &[Format::Q8_0],
        ..QWEN2
    };
    let bytes = TinyModel::new(shape).bytes();
    let header = {
        let file = ModelFile::from_bytes(vec![bytes.clone()]);
        let gguf = file.gguf().unwrap();
        gguf.tensors()
            .iter()
            .map(|tensor| tensor.offset)
            .min()
            .unwrap()
    };
    assert!(header > 1000, "{header} bytes");
    let (mut errors, mut models) = (0, 0);
    for at in 0..header {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            let file = ModelFile::from_bytes(vec![bytes]);
            let mut loaded = None;
            let counted = allocation_counter::measure(|| loaded = Some(load_plainly(&file)));
            // Scratch, cache and tables of so small a model at the default options.
            assert!(
                counted.bytes_max < 64 << 20,
                "byte {at} ^ {flip:#x}: {counted:?}"
            );
            match loaded.unwrap() {
                Err(error) => {
                    assert!(!error.is_empty());
                    errors += 1;
                }
                Ok(mut model) => {
                    let pages = [PageId(0)];
                    tiny::run(&mut model, &tiny::tokens(2, 1), &pages, 2);
                    models += 1;
                }
            }
        }
    }
    assert!(
        errors > 1000 && models > 300,
        "{errors} errors, {models} models"
    );
}

fn load_plainly(file: &ModelFile) -> Result<Model<Cpu>, String> {
    let options = LoadOptions {
        max_step_tokens: 16,
        ..LoadOptions::default()
    };
    tiny::load_on(file, Cpu::new(Isa::detect(), 1), &options).map_err(|error| error.to_string())
}
