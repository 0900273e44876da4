//! Names of tensors: from transformers' to GGUF's.

use crate::Error;

/// The GGUF name of a tensor that transformers calls `name`.
///
/// Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, "Standardized tensor names",
/// and the names in published files of each architecture.
pub(crate) fn gguf_name(architecture: &'static str, name: &str) -> Result<String, Error> {
    let other = match architecture {
        "gpt2" => Some(gpt2_name(name)),
        "bert" => Some(bert_name(name)),
        "nomic-bert" => Some(nomic_name(name)),
        _ => None,
    };
    if let Some(found) = other {
        return found.ok_or_else(|| Error::Tensor {
            name: name.to_owned(),
            architecture,
        });
    }
    let plain = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(plain) = plain {
        return Ok(plain.to_owned());
    }
    let unknown = || Error::Tensor {
        name: name.to_owned(),
        architecture,
    };
    let (layer, rest) = of_layer(name, "model.layers.").ok_or_else(unknown)?;
    let (module, kind) = rest.rsplit_once('.').ok_or_else(unknown)?;
    if (module, kind) == ("self_attn", "sinks") {
        return Ok(format!("blk.{layer}.attn_sinks.weight"));
    }
    // Gemma norms a sub-layer's result too, and calls that norm what others call the next one's; files of
    // gpt-oss keep transformers' name.
    let sandwich = architecture == "gemma3" || architecture == "gpt-oss";
    let short = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" if sandwich => "post_attention_norm",
        "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        // Gate rows first; a tensor of its own in the files of other architectures.
        "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "mlp.router" if architecture == "gpt-oss" => "ffn_gate_inp",
        _ => return Err(unknown()),
    };
    Ok(format!("blk.{layer}.{short}.{kind}"))
}

/// The number of a layer and the rest, of a tensor called `<layers><number>.<rest>`.
pub(crate) fn of_layer<'n>(name: &'n str, layers: &str) -> Option<(&'n str, &'n str)> {
    let (layer, rest) = name.strip_prefix(layers)?.split_once('.')?;
    let number = layer.bytes().all(|byte| byte.is_ascii_digit());
    number.then_some((layer, rest))
}

/// GPT-2's names, with or without transformers' own prefix.
fn gpt2_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("transformer.").unwrap_or(name);
    let plain = match name {
        "wte.weight" => Some("token_embd.weight"),
        "wpe.weight" => Some("position_embd.weight"),
        "ln_f.weight" => Some("output_norm.weight"),
        "ln_f.bias" => Some("output_norm.bias"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(plain) = plain {
        return Some(plain.to_owned());
    }
    let (layer, rest) = of_layer(name, "h.")?;
    let (module, kind) = rest.rsplit_once('.')?;
    let short = match module {
        "ln_1" => "attn_norm",
        "attn.c_attn" => "attn_qkv",
        "attn.c_proj" => "attn_output",
        "ln_2" => "ffn_norm",
        "mlp.c_fc" => "ffn_up",
        "mlp.c_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{short}.{kind}"))
}

/// BERT's names, with or without transformers' own prefix.
fn bert_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    let plain = match name {
        "embeddings.word_embeddings.weight" => Some("token_embd.weight"),
        "embeddings.position_embeddings.weight" => Some("position_embd.weight"),
        "embeddings.token_type_embeddings.weight" => Some("token_types.weight"),
        "embeddings.LayerNorm.weight" | "emb_ln.weight" => Some("token_embd_norm.weight"),
        "embeddings.LayerNorm.bias" | "emb_ln.bias" => Some("token_embd_norm.bias"),
        _ => None,
    };
    if let Some(plain) = plain {
        return Some(plain.to_owned());
    }
    let (layer, rest) = of_layer(name, "encoder.layer.")?;
    let (module, kind) = rest.rsplit_once('.')?;
    let short = match module {
        "attention.self.query" => "attn_q",
        "attention.self.key" => "attn_k",
        "attention.self.value" => "attn_v",
        "attention.output.dense" => "attn_output",
        "attention.output.LayerNorm" => "attn_output_norm",
        "intermediate.dense" => "ffn_up",
        "output.dense" => "ffn_down",
        "output.LayerNorm" => "layer_output_norm",
        _ => return None,
    };
    Some(format!("blk.{layer}.{short}.{kind}"))
}

/// The names of nomic-embed-text's own repository.
fn nomic_name(name: &str) -> Option<String> {
    let Some((layer, rest)) = of_layer(name, "encoder.layers.") else {
        return bert_name(name);
    };
    let (module, kind) = rest.rsplit_once('.')?;
    let short = match module {
        "attn.Wqkv" => "attn_qkv",
        "attn.out_proj" => "attn_output",
        "norm1" => "attn_output_norm",
        "mlp.fc11" => "ffn_up",
        "mlp.fc12" => "ffn_gate",
        "mlp.fc2" => "ffn_down",
        "norm2" => "layer_output_norm",
        _ => return None,
    };
    Some(format!("blk.{layer}.{short}.{kind}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_published_files() {
        for (architecture, theirs, ours) in [
            ("llama", "lm_head.weight", "output.weight"),
            (
                "qwen2",
                "model.layers.11.self_attn.q_proj.bias",
                "blk.11.attn_q.bias",
            ),
            (
                "llama",
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.ffn_norm.weight",
            ),
            ("gpt2", "transformer.wpe.weight", "position_embd.weight"),
            (
                "bert",
                "encoder.layer.5.output.LayerNorm.bias",
                "blk.5.layer_output_norm.bias",
            ),
            (
                "nomic-bert",
                "encoder.layers.0.mlp.fc12.weight",
                "blk.0.ffn_gate.weight",
            ),
            ("gpt2", "h.11.mlp.c_proj.bias", "blk.11.ffn_down.bias"),
            (
                "gpt-oss",
                "model.layers.0.self_attn.sinks",
                "blk.0.attn_sinks.weight",
            ),
            (
                "gpt-oss",
                "model.layers.5.mlp.router.bias",
                "blk.5.ffn_gate_inp.bias",
            ),
            (
                "gemma3",
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.post_attention_norm.weight",
            ),
        ] {
            assert_eq!(gguf_name(architecture, theirs).unwrap(), ours);
        }
    }

    #[test]
    fn an_unknown_tensor_is_refused() {
        for name in [
            "model.layers.0.mlp.router.weight",
            "model.layers.x.mlp.up_proj.weight",
            "model.layers.0",
            "x",
        ] {
            let error = gguf_name("llama", name).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
