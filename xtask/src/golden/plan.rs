//! What a model's configuration becomes in a GGUF file: metadata, and which weights change on the way.

use anyhow::{Context, Result, bail};
use redline_gguf::{ArrayBuf, Error, Value, Writer};
use serde::Deserialize;

/// The parts of transformers' configuration that a GGUF file carries.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    vocab_size: u32,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) head_dim: usize,
    max_position_embeddings: u32,
    /// LongRoPE's.
    original_max_position_embeddings: Option<u32>,
    rms_norm_eps: f32,
    rope_parameters: Ropes,
    sliding_window: Option<u32>,
    layer_types: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ropes {
    ByLayer {
        full_attention: Rope,
        sliding_attention: Rope,
    },
    Same(Rope),
}

#[derive(Debug, Deserialize)]
struct Rope {
    rope_type: String,
    rope_theta: f32,
    partial_rotary_factor: Option<f32>,
    factor: Option<f32>,
    /// Llama 3's.
    original_max_position_embeddings: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
}

/// What a reader of `gemma3` assumes where the file is silent.
const DEFAULT_PATTERN: usize = 6;
const DEFAULT_LOCAL_BASE: f32 = 10_000.0;

impl Config {
    fn rope(&self) -> &Rope {
        match &self.rope_parameters {
            Ropes::ByLayer { full_attention, .. } => full_attention,
            Ropes::Same(rope) => rope,
        }
    }

    /// Declares the metadata of the model; what equals the reader's default is left out.
    pub(super) fn declare(&self, architecture: &str, name: &str, out: &mut Writer) -> Result<()> {
        out.metadata("general.architecture", architecture)?;
        out.metadata("general.name", name)?;
        let mut set = |key: &str, value: Value<'_>| -> Result<(), Error> {
            out.metadata(&format!("{architecture}.{key}"), value)?;
            Ok(())
        };
        set("vocab_size", self.vocab_size.into())?;
        set("context_length", self.max_position_embeddings.into())?;
        set("embedding_length", self.hidden_size.into())?;
        set("block_count", self.num_hidden_layers.into())?;
        set("feed_forward_length", self.intermediate_size.into())?;
        set(
            "attention.head_count",
            (self.num_attention_heads as u32).into(),
        )?;
        set(
            "attention.head_count_kv",
            (self.num_key_value_heads as u32).into(),
        )?;
        set("attention.key_length", (self.head_dim as u32).into())?;
        set("attention.value_length", (self.head_dim as u32).into())?;
        set("attention.layer_norm_rms_epsilon", self.rms_norm_eps.into())?;
        if let Some(window) = self.sliding_window {
            set("attention.sliding_window", window.into())?;
        }
        if let Some(pattern) = self.pattern().filter(|pattern| *pattern != DEFAULT_PATTERN) {
            set("attention.sliding_window_pattern", (pattern as u32).into())?;
        }
        let rope = self.rope();
        let rotated = self.head_dim as f32 * rope.partial_rotary_factor.unwrap_or(1.0);
        set("rope.dimension_count", (rotated as u32).into())?;
        set("rope.freq_base", rope.rope_theta.into())?;
        match (rope.rope_type.as_str(), rope.factor) {
            ("default", _) => {}
            ("linear", Some(factor)) => {
                set("rope.scaling.type", "linear".into())?;
                set("rope.scaling.factor", factor.into())?;
            }
            // In the tensor `rope_freqs.weight`.
            ("llama3", _) => {}
            ("longrope", None) => {
                let original = self
                    .original_max_position_embeddings
                    .context("longrope without original_max_position_embeddings")?;
                let magnitude = long_rope_magnitude(self.max_position_embeddings, original);
                set("rope.scaling.original_context_length", original.into())?;
                set("rope.scaling.attn_factor", magnitude.into())?;
            }
            (other, _) => {
                bail!("rope type {other:?}: expected default, linear, llama3 or longrope")
            }
        }
        if let Ropes::ByLayer {
            sliding_attention, ..
        } = &self.rope_parameters
            && sliding_attention.rope_theta != DEFAULT_LOCAL_BASE
        {
            set("rope.freq_base_swa", sliding_attention.rope_theta.into())?;
        }
        declare_vocabulary(self.vocab_size, out)
    }

    /// Every how many layers one sees the whole context, where not all do.
    fn pattern(&self) -> Option<usize> {
        let kinds = self.layer_types.as_ref()?;
        let first = kinds.iter().position(|kind| kind == "full_attention")?;
        Some(first + 1)
    }

    /// Tensors `[rotated / 2]` of factors that each pair's frequency is divided by, and their names.
    pub(super) fn rope_factors(&self) -> Vec<(&'static str, Vec<f32>)> {
        let rope = self.rope();
        [
            ("rope_freqs.weight", self.llama3_factors()),
            ("rope_factors_short.weight", rope.short_factor.clone()),
            ("rope_factors_long.weight", rope.long_factor.clone()),
        ]
        .into_iter()
        .filter_map(|(name, factors)| Some((name, factors?)))
        .collect()
    }

    /// Llama-3 scaling.
    ///
    /// Wavelengths beyond the original context over `low_freq_factor` are stretched by `factor`,
    /// those under it over `high_freq_factor` are kept, and between them it is blended linearly in
    /// the number of waves. Source: transformers, `modeling_rope_utils.py`,
    /// `_compute_llama3_parameters`.
    fn llama3_factors(&self) -> Option<Vec<f32>> {
        let rope = self.rope();
        if rope.rope_type != "llama3" {
            return None;
        }
        let (factor, low, high) = (rope.factor?, rope.low_freq_factor?, rope.high_freq_factor?);
        let context = rope.original_max_position_embeddings?;
        let factor_of = |pair: usize| {
            let exponent = 2.0 * pair as f32 / self.head_dim as f32;
            let wavelength = std::f32::consts::TAU * rope.rope_theta.powf(exponent);
            let waves = context / wavelength;
            if waves > high {
                1.0
            } else if waves < low {
                factor
            } else {
                let kept = (waves - low) / (high - low);
                1.0 / ((1.0 - kept) / factor + kept)
            }
        };
        Some((0..self.head_dim / 2).map(factor_of).collect())
    }
}

/// What LongRoPE multiplies cosines and sines by.
///
/// Source: transformers, `modeling_rope_utils.py`, `_compute_longrope_parameters`.
fn long_rope_magnitude(context: u32, original: u32) -> f32 {
    let (context, original) = (f64::from(context), f64::from(original));
    (1.0 + (context / original).max(1.0).ln() / original.ln()).sqrt() as f32
}

/// A byte-level vocabulary of ASCII and as many merges as fill it up: id = byte below 128.
fn declare_vocabulary(size: u32, out: &mut Writer) -> Result<()> {
    const MERGES: [&str; 3] = ["\u{120} t", "h e", "i n"];
    let bytes = (0..128_u8).map(|byte| byte_character(byte).to_string());
    let merged = MERGES.map(|merge| merge.replace(' ', ""));
    let tokens: Vec<String> = bytes.chain(merged).collect();
    if tokens.len() != size as usize {
        bail!("a vocabulary of {size}: expected {}", tokens.len());
    }
    // Normal tokens, but for the control token NUL which ends a text.
    let kinds: Vec<i32> = (0..size).map(|id| if id == 0 { 3 } else { 1 }).collect();
    out.metadata("tokenizer.ggml.model", "gpt2")?;
    out.metadata("tokenizer.ggml.pre", "gpt-2")?;
    out.metadata("tokenizer.ggml.tokens", &ArrayBuf::strings(&tokens))?;
    out.metadata(
        "tokenizer.ggml.token_type",
        &ArrayBuf::from(kinds.as_slice()),
    )?;
    out.metadata("tokenizer.ggml.merges", &ArrayBuf::strings(MERGES))?;
    out.metadata("tokenizer.ggml.bos_token_id", 0_u32)?;
    out.metadata("tokenizer.ggml.eos_token_id", 0_u32)?;
    out.metadata("tokenizer.ggml.add_bos_token", false)?;
    Ok(())
}

/// The character that stands for an ASCII byte in a byte-level vocabulary: itself if visible, else
/// the next one from U+0100 on. Source: GPT-2, `encoder.py`, `bytes_to_unicode`.
fn byte_character(byte: u8) -> char {
    let hidden = match byte {
        b'!'..=b'~' => return byte.into(),
        0..=b' ' => u32::from(byte),
        _ => 33 + u32::from(byte - 127),
    };
    char::from_u32(0x100 + hidden).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_bytes_have_the_usual_characters() {
        let shown: String = [0, b'\n', b' ', b'!', b'~', 127]
            .map(byte_character)
            .iter()
            .collect();
        assert_eq!(shown, "\u{100}\u{10a}\u{120}!~\u{121}");
    }
}
