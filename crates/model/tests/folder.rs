//! Folders as transformers saves them (`xtask/golden/folders.py`) against the golden models of the same
//! weights.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use redline_compute::quant::dequantize;
use redline_compute::{Cpu, Format, Isa};
use redline_gguf::{TensorType, TokenId};
use redline_model::{
    Forward as _, LoadOptions, LogitRows, Model, ModelFile, PageId, SequenceStep, StepPlan,
};
use safetensors::SafeTensors;

fn data(kind: &str, variant: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join(kind).join(variant)
}

fn tokens() -> Vec<TokenId> {
    (0..40).map(|i| TokenId(i * 37 % 131)).collect()
}

/// The logits of a fixed prompt, all positions.
fn logits(path: &Path) -> Vec<f32> {
    let file = ModelFile::open(path).unwrap();
    let tokens = tokens();
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

/// The published layout, `xtask/golden/gpt_oss_folder.py`: the weights, bit by bit, are those that
/// transformers takes out of the same folder.
#[test]
fn experts_in_blocks_are_those_that_transformers_unpacks() {
    let [packed, plain] = ["gpt-oss-mxfp4", "gpt-oss-dequantized"]
        .map(|variant| ModelFile::open(&data("folders", variant)).unwrap());
    let (packed, plain) = (packed.gguf().unwrap(), plain.gguf().unwrap());
    let mut experts = 0;
    for tensor in packed.tensors() {
        let expected = plain.tensor(tensor.name).unwrap();
        assert_eq!(tensor.dims, expected.dims, "{}", tensor.name);
        if tensor.tensor_type != TensorType::MXFP4 {
            continue;
        }
        let mut found = vec![0.0; tensor.dims.iter().product()];
        dequantize(Format::MXFP4, tensor.data, &mut found);
        let found: Vec<u8> = found.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(found == expected.data, "{}", tensor.name);
        experts += 1;
    }
    // Gate, up and down of two layers.
    assert_eq!(
        (experts, plain.tensors().len()),
        (6, packed.tensors().len())
    );
}

#[test]
fn experts_in_blocks_speak_as_transformers_has_them() {
    let folder = data("folders", "gpt-oss-mxfp4");
    let reference = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&reference).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> {
        let tensor = reference.tensor(name).unwrap();
        tensor.data().as_chunks().0.to_vec()
    };
    let ids = words("tokens").into_iter().map(u32::from_le_bytes);
    assert!(ids.map(TokenId).eq(tokens()));
    let expected: Vec<f32> = words("logits")
        .into_iter()
        .map(f32::from_le_bytes)
        .collect();
    // Keys and values are rounded in both; the inputs of blocks are too.
    for (variant, tolerance) in [("gpt-oss-dequantized", 2e-3), ("gpt-oss-mxfp4", 3e-2)] {
        let off = difference(&logits(&data("folders", variant)), &expected);
        println!("{variant}: off by {off:.2e}");
        assert!(off <= tolerance, "{variant}: off by {off:.2e}");
    }
}

#[test]
fn weights_that_do_not_change_stay_in_their_files() {
    let file = ModelFile::open(&data("folders", "llama-rope3")).unwrap();
    let gguf = file.gguf().unwrap();
    let shard = |name: &str| gguf.tensor(name).unwrap().shard;
    assert_eq!(shard("blk.0.attn_v.weight"), 1);
    assert_eq!(shard("token_embd.weight"), 1);
    assert!(shard("blk.0.attn_q.weight") > 1);
    assert!(shard("rope_freqs.weight") > 1);
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

/// A safetensors file: a header of `tensors`, and bytes after it.
fn safetensors(tensors: &str, bytes: usize) -> Vec<u8> {
    let length = tensors.len() as u64;
    let header = [&length.to_le_bytes()[..], tensors.as_bytes()].concat();
    [header, vec![0; bytes]].concat()
}

/// A tensor of a header.
fn declared(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

#[test]
fn headers_that_lie_are_refused_in_a_line() {
    let norm = "model.norm.weight";
    let two = |second: &str| {
        let first = declared(norm, "F32", "[4]", "[0,16]");
        let second = declared("lm_head.weight", "F32", "[2,2]", second);
        format!("{},{}", &first[..first.len() - 1], &second[1..])
    };
    let cases = [
        (vec![1, 2, 3], "model.safetensors: "),
        (u64::MAX.to_le_bytes().to_vec(), "model.safetensors: "),
        (safetensors("{\"", 0), "model.safetensors: "),
        (safetensors("[]", 0), "model.safetensors: "),
        // Overlapping, with a gap, beyond the end, backwards, not as long as its shape.
        (safetensors(&two("[8,24]"), 24), "model.safetensors: "),
        (safetensors(&two("[24,40]"), 40), "model.safetensors: "),
        (safetensors(&two("[16,32]"), 24), "model.safetensors: "),
        (
            safetensors(&declared(norm, "F32", "[4]", "[16,0]"), 16),
            "model.safetensors: ",
        ),
        (
            safetensors(&declared(norm, "F32", "[5]", "[0,16]"), 16),
            "model.safetensors: ",
        ),
        (
            safetensors(&declared(norm, "F99", "[4]", "[0,16]"), 16),
            "model.safetensors: ",
        ),
        (
            safetensors(
                &declared(norm, "F32", "[9223372036854775807,4]", "[0,16]"),
                16,
            ),
            "model.safetensors: ",
        ),
        (
            safetensors(
                &declared(norm, "F32", "[0,4611686018427387904,8]", "[0,0]"),
                0,
            ),
            "\"output_norm.weight\"",
        ),
        (
            safetensors(&declared(norm, "I32", "[4]", "[0,16]"), 16),
            "expected type F32, F16 or BF16, found I32",
        ),
        (
            safetensors(
                &declared(
                    "model.layers.0\\n.mlp.up_proj.weight",
                    "F32",
                    "[4]",
                    "[0,16]",
                ),
                16,
            ),
            "is no part of \"qwen2\"",
        ),
    ];
    for (file, expected) in cases {
        let error = broken("qwen2-gqa", |folder| {
            std::fs::write(folder.join("model.safetensors"), &file).unwrap();
        });
        assert!(error.contains(expected), "{error}");
    }
}

/// Tensors that change on the way, of dimensions that no product of can be formed.
#[test]
fn changes_of_nothing_are_refused_in_a_line() {
    for (variant, name, dtype) in [
        (
            "llama-rope3",
            "model.layers.0.self_attn.q_proj.weight",
            "F32",
        ),
        ("gemma3-pattern", "model.norm.weight", "BF16"),
        (
            "gpt-oss-dequantized",
            "model.layers.0.mlp.experts.gate_up_proj",
            "F32",
        ),
        (
            "gpt-oss-dequantized",
            "model.layers.0.mlp.experts.gate_up_proj_bias",
            "F32",
        ),
    ] {
        let file = safetensors(
            &declared(name, dtype, "[0,4611686018427387904,8]", "[0,0]"),
            0,
        );
        let error = broken(variant, |folder| {
            for shard in std::fs::read_dir(folder).unwrap() {
                let path = shard.unwrap().path();
                if path.extension().is_some_and(|kind| kind == "safetensors") {
                    std::fs::write(path, &file).unwrap();
                }
            }
        });
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn blocks_need_their_scales() {
    let blocks = "model.layers.0.mlp.experts.down_proj_blocks";
    let scales = "model.layers.0.mlp.experts.down_proj_scales";
    let both = |blocks_type: &str, scales_shape: &str, end: usize| {
        let first = declared(blocks, blocks_type, "[2,2,1,16]", "[0,64]");
        let second = declared(scales, "U8", scales_shape, &format!("[64,{end}]"));
        safetensors(
            &format!("{},{}", &first[..first.len() - 1], &second[1..]),
            end,
        )
    };
    for (file, expected) in [
        (
            safetensors(&declared(blocks, "U8", "[2,2,1,16]", "[0,64]"), 64),
            "down_proj_scales: missing, expected dims [1, 2, 2]",
        ),
        (
            both("U8", "[2,2,2]", 72),
            "has 64 bytes: expected 16 for each of its 8 scales",
        ),
        (
            both("U8", "[4,1]", 68),
            "has 64 bytes: expected 16 for each of its 4 scales",
        ),
        (
            both("I8", "[2,2,1]", 68),
            "down_proj_blocks: expected type U8, found I8",
        ),
    ] {
        let error = broken("gpt-oss-mxfp4", |folder| {
            std::fs::write(folder.join("model.safetensors"), &file).unwrap();
        });
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn configurations_of_other_types_are_refused_in_a_line() {
    for (from, to, expected) in [
        (
            "\"hidden_size\": 56",
            "\"hidden_size\": \"56\"",
            "invalid type",
        ),
        (
            "\"hidden_size\": 56",
            "\"hidden_size\": -56",
            "invalid value",
        ),
        (
            "\"hidden_size\": 56",
            "\"hidden_size\": 5.6",
            "invalid type",
        ),
        (
            "\"hidden_size\": 56",
            "\"hidden_size\": 99999999999",
            "invalid value",
        ),
        (
            "\"hidden_size\": 56",
            "\"hidden_sizes\": 56",
            "missing field `hidden_size`",
        ),
        (
            "\"hidden_size\": 56,",
            "\"hidden_size\": 56",
            "expected `,` or `}`",
        ),
        (
            "\"rms_norm_eps\"",
            "\"rms_norm_epsilon\"",
            "rms_norm_eps is neither or both",
        ),
        (
            "\"qwen2\"",
            "\"qwen\\n2\"",
            "unknown model_type \"qwen\\n2\"",
        ),
        (
            "\"default\"",
            "\"de\\nfault\"",
            "rope type is de\\nfault: expected default",
        ),
        ("\"default\"", "[]", "rope_parameters"),
        (
            "\"num_attention_heads\": 7",
            "\"num_attention_heads\": 0",
            "num_attention_heads is 0: expected 1..=",
        ),
        (
            "\"num_attention_heads\": 7",
            "\"num_attention_heads\": 18446744073709551615",
            "num_attention_heads is 18446744073709551615: expected 1..=",
        ),
    ] {
        let error = broken("qwen2-gqa", |folder| {
            edit(&folder.join("config.json"), from, to);
        });
        assert!(
            error.contains("config.json") && error.contains(expected),
            "{error}"
        );
    }
}
