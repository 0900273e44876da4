//! Names of tensors: from transformers' to GGUF's.

use crate::Error;

/// The GGUF name of a tensor that transformers calls `name`.
///
/// Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, "Standardized tensor names",
/// and the names in published files of each architecture.
pub(crate) fn gguf_name(architecture: &'static str, name: &str) -> Result<String, Error> {
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
    let rest = name.strip_prefix("model.layers.").ok_or_else(unknown)?;
    let (layer, rest) = rest.split_once('.').ok_or_else(unknown)?;
    let (module, kind) = rest.rsplit_once('.').ok_or_else(unknown)?;
    // Gemma norms a sub-layer's result too, and calls that norm what others call the next one's.
    let sandwich = architecture == "gemma3";
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
        _ => return Err(unknown()),
    };
    Ok(format!("blk.{layer}.{short}.{kind}"))
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
        for name in ["model.layers.0.mlp.router.weight", "model.layers.0", "x"] {
            let error = gguf_name("llama", name).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
