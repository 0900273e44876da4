//! Configurations as published models have them, of transformers 4 and 5.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use redline_gguf::{Gguf, Writer};
use redline_huggingface::{Change, Config};

/// The metadata that a configuration becomes.
fn declared(json: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    let config = Config::parse(json).unwrap();
    config.declare("m", &mut writer).unwrap();
    writer.start(Vec::new()).unwrap().finish().unwrap()
}

fn check(json: &str, numbers: &[(&str, Option<u64>)], floats: &[(&str, Option<f32>)]) {
    let file = declared(json);
    let gguf = Gguf::parse(&[&file]).unwrap();
    let metadata = gguf.metadata();
    for (key, expected) in numbers {
        assert_eq!(metadata.u64(key).unwrap(), *expected, "{key}");
    }
    for (key, expected) in floats {
        assert_eq!(metadata.f32(key).unwrap(), *expected, "{key}");
    }
}

/// Llama 3.2 1B: `rope_scaling` beside `rope_theta`, and no `head_dim`.
const LLAMA: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
  "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
  "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "tie_word_embeddings": true, "eos_token_id": [128001, 128008, 128009]
}"#;

#[test]
fn llama_3() {
    check(
        LLAMA,
        &[
            ("llama.attention.key_length", Some(64)),
            ("llama.attention.head_count_kv", Some(8)),
            ("llama.rope.dimension_count", Some(64)),
            ("llama.attention.sliding_window", None),
        ],
        &[("llama.rope.freq_base", Some(500_000.0))],
    );
    let config = Config::parse(LLAMA).unwrap();
    let factors = config.rope_factors();
    let [(name, factors)] = factors.as_slice() else {
        panic!("{factors:?}")
    };
    assert_eq!((*name, factors.len()), ("rope_freqs.weight", 32));
    // Fast pairs are kept, slow ones stretched by the factor.
    assert_eq!((factors[0], factors[31]), (1.0, 32.0));
    assert!(factors.is_sorted());
}

#[test]
fn where_tensors_go() {
    let config = Config::parse(LLAMA).unwrap();
    let place = |name: &str| config.places(name).unwrap().pop();
    let key = place("model.layers.3.self_attn.k_proj.weight").unwrap();
    assert_eq!(key.name, "blk.3.attn_k.weight");
    let (heads, head_dim) = (8, 64);
    assert_eq!(key.change, Change::Interleave { heads, head_dim });
    let value = place("model.layers.3.self_attn.v_proj.weight").unwrap();
    assert_eq!(value.change, Change::None);
    // The same weights as the embedding, and tables that old files carry.
    assert_eq!(place("lm_head.weight"), None);
    assert_eq!(place("model.layers.0.self_attn.rotary_emb.inv_freq"), None);
    let error = config.places("model.layers.0.mlp.router.weight");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("router") && error.contains("llama"),
        "{error}"
    );
}

#[test]
fn a_window_that_is_not_used_is_none() {
    let qwen = |used: bool| {
        format!(
            r#"{{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": {used}}}"#
        )
    };
    let key = "qwen2.attention.sliding_window";
    check(&qwen(false), &[(key, None)], &[]);
    check(&qwen(true), &[(key, Some(32_768))], &[]);
}

#[test]
fn phi_3_of_transformers_4() {
    let factors = |first: u32| {
        let all: Vec<String> = (first..first + 48).map(|i| format!("{i}.0")).collect();
        all.join(",")
    };
    let json = format!(
        r#"{{"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "vocab_size": 32064, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "original_max_position_embeddings": 4096, "rope_theta": 10000.0, "sliding_window": 262144,
        "rope_scaling": {{"type": "longrope", "short_factor": [{}], "long_factor": [{}]}}}}"#,
        factors(1),
        factors(2),
    );
    check(
        &json,
        &[("phi3.rope.scaling.original_context_length", Some(4096))],
        // sqrt(1 + ln 32 / ln 4096)
        &[("phi3.rope.scaling.attn_factor", Some(1.190_238_1))],
    );
    let factors = Config::parse(&json).unwrap().rope_factors();
    assert_eq!(factors.iter().map(|(_, f)| f.len()).sum::<usize>(), 96);
}

#[test]
fn gemma_3_of_transformers_4() {
    let json = r#"{"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048,
        "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_local_base_freq": 20000.0,
        "sliding_window": 512, "sliding_window_pattern": 3, "rope_scaling": null}"#;
    check(
        json,
        &[
            ("gemma3.attention.key_length", Some(256)),
            ("gemma3.attention.sliding_window", Some(512)),
            ("gemma3.attention.sliding_window_pattern", Some(3)),
        ],
        &[("gemma3.rope.freq_base_swa", Some(20_000.0))],
    );
}

#[test]
fn what_cannot_be_taken_is_named() {
    let error = |json: &str| Config::parse(json).unwrap_err().to_string();
    let edited = |from: &str, to: &str| {
        assert!(LLAMA.contains(from));
        LLAMA.replace(from, to)
    };
    assert!(error("{").starts_with("config.json: "));
    assert!(error(r#"{"model_type": "llama"}"#).contains("missing field"));
    let unknown = error(&edited("\"llama\"", "\"llama9\""));
    assert!(unknown.contains("unknown model_type \"llama9\": expected one of llama, mistral"));
    let headless = error(&edited(
        "\"num_attention_heads\": 32",
        "\"num_attention_heads\": 0",
    ));
    assert!(headless.contains("num_attention_heads is 0"), "{headless}");
    let huge = edited(
        "\"num_key_value_heads\": 8",
        "\"num_key_value_heads\": 18446744073709551615",
    );
    assert!(error(&huge).contains("num_key_value_heads is 18446744073709551615"));
    let config = Config::parse(&edited("\"llama3\"", "\"spiral\"")).unwrap();
    let error = config.declare("m", &mut Writer::new()).unwrap_err();
    assert!(error.to_string().contains("rope type is spiral"), "{error}");
}

/// GPT-2 small: names of its own, and a network's width left out.
#[test]
fn gpt_2() {
    let json = r#"{
  "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
  "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
  "n_positions": 1024, "vocab_size": 50257
}"#;
    check(
        json,
        &[
            ("gpt2.embedding_length", Some(768)),
            ("gpt2.feed_forward_length", Some(3072)),
            ("gpt2.attention.head_count", Some(12)),
            ("gpt2.context_length", Some(1024)),
            ("gpt2.rope.dimension_count", None),
        ],
        &[("gpt2.attention.layer_norm_epsilon", Some(1e-5))],
    );
    let config = Config::parse(json).unwrap();
    let place = config.places("h.0.attn.c_attn.weight").unwrap().remove(0);
    assert_eq!(place.change, Change::Transpose);
    assert!(config.places("h.0.attn.bias").unwrap().is_empty());
}

/// all-MiniLM-L6-v2.
#[test]
fn minilm() {
    let json = r#"{
  "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
  "hidden_size": 384, "intermediate_size": 1536, "layer_norm_eps": 1e-12,
  "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 6,
  "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": 30522
}"#;
    check(
        json,
        &[
            ("bert.feed_forward_length", Some(1536)),
            ("bert.context_length", Some(512)),
        ],
        &[("bert.attention.layer_norm_epsilon", Some(1e-12))],
    );
    let config = Config::parse(json).unwrap();
    assert!(config.places("pooler.dense.weight").unwrap().is_empty());
    assert!(config.places("embeddings.position_ids").unwrap().is_empty());
}

/// nomic-embed-text-v1.5, as its repository has it.
#[test]
fn nomic_embed_text() {
    let json = r#"{
  "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "activation_function": "swiglu",
  "layer_norm_epsilon": 1e-12, "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12,
  "n_positions": 2048, "qkv_proj_bias": false, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
  "type_vocab_size": 2, "vocab_size": 30528
}"#;
    check(
        json,
        &[("nomic-bert.rope.dimension_count", Some(64))],
        &[("nomic-bert.rope.freq_base", Some(1000.0))],
    );
}

/// gpt-oss-20b.
const GPT_OSS: &str = r#"{
  "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 2880,
  "intermediate_size": 2880, "num_hidden_layers": 2, "num_attention_heads": 64,
  "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088, "num_local_experts": 32,
  "num_experts_per_tok": 4, "sliding_window": 128, "max_position_embeddings": 131072,
  "layer_types": ["sliding_attention", "full_attention"], "rms_norm_eps": 1e-05,
  "rope_theta": 150000, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
    "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false}
}"#;

#[test]
fn gpt_oss() {
    check(
        GPT_OSS,
        &[
            ("gpt-oss.expert_count", Some(32)),
            ("gpt-oss.expert_used_count", Some(4)),
            ("gpt-oss.expert_feed_forward_length", Some(2880)),
            ("gpt-oss.attention.sliding_window", Some(128)),
            // What readers assume.
            ("gpt-oss.attention.sliding_window_pattern", None),
            ("gpt-oss.rope.scaling.original_context_length", Some(4096)),
        ],
        &[
            ("gpt-oss.rope.scaling.factor", Some(32.0)),
            ("gpt-oss.rope.scaling.yarn_beta_fast", Some(32.0)),
            ("gpt-oss.rope.freq_base", Some(150_000.0)),
        ],
    );
    let config = Config::parse(GPT_OSS).unwrap();
    let names = |name: &str| -> Vec<String> {
        let places = config.places(name).unwrap();
        places.into_iter().map(|place| place.name).collect()
    };
    assert_eq!(
        names("model.layers.1.mlp.experts.gate_up_proj"),
        ["blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight"]
    );
    assert_eq!(
        names("model.layers.1.post_attention_layernorm.weight"),
        ["blk.1.post_attention_norm.weight"]
    );
    let blocks = "model.layers.1.mlp.experts.gate_up_proj_blocks";
    assert_eq!(
        names(blocks),
        ["blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight"]
    );
    let scales = config.scales(blocks).unwrap();
    assert_eq!(scales, "model.layers.1.mlp.experts.gate_up_proj_scales");
    assert!(names(&scales).is_empty());
    let packed = config.places("model.layers.1.self_attn.q_proj_blocks");
    let error = packed.unwrap_err().to_string();
    assert!(error.contains("q_proj_blocks"), "{error}");
}

#[test]
fn a_blend_at_whole_pairs_is_not_gpt_oss() {
    let json = GPT_OSS.replace("\"truncate\": false", "\"truncate\": true");
    let mut writer = Writer::new();
    let config = Config::parse(&json).unwrap();
    let error = config.declare("m", &mut writer).unwrap_err().to_string();
    assert!(
        error.contains("truncate") && error.contains("false"),
        "{error}"
    );
}
