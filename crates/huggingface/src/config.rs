//! What a configuration becomes in a GGUF file: metadata, and tensors of factors.

use redline_gguf::{Value, Writer};
use serde::Deserialize;

use crate::names::gguf_name;
use crate::{Change, Error, Place, experts};

/// What transformers calls a model, and what GGUF files call it.
const ARCHITECTURES: [(&str, &str); 10] = [
    ("llama", "llama"),
    ("mistral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gpt2", "gpt2"),
    ("bert", "bert"),
    ("nomic_bert", "nomic-bert"),
    ("phi3", "phi3"),
    ("gpt_oss", "gpt-oss"),
    ("gemma3_text", "gemma3"),
];

/// More than any model's heads, or their elements.
const MAX_SIZE: usize = 1 << 24;
/// What readers assume where the file is silent: of `gpt-oss`, and of `gemma3`.
const DEFAULT_PATTERNS: [usize; 2] = [2, 6];
const DEFAULT_LOCAL_BASE: f32 = 10_000.0;

/// The parts of `config.json` that a GGUF file carries.
#[derive(Debug)]
pub struct Config {
    architecture: &'static str,
    raw: Raw,
    kv_heads: usize,
    head_dim: usize,
    rope: Rope,
    /// The rotation of layers with a window, where it is another.
    local_rope: Option<Rope>,
}

/// The file's own fields, of any architecture.
#[derive(Debug, Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: u32,
    #[serde(alias = "n_embd")]
    hidden_size: u32,
    /// GPT-2 leaves it out where it is four times the hidden size.
    #[serde(alias = "n_inner")]
    intermediate_size: Option<u32>,
    #[serde(alias = "n_layer")]
    num_hidden_layers: u32,
    #[serde(alias = "n_head")]
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(alias = "n_positions")]
    max_position_embeddings: u32,
    /// LongRoPE's.
    original_max_position_embeddings: Option<u32>,
    rms_norm_eps: Option<f32>,
    #[serde(alias = "layer_norm_eps")]
    layer_norm_epsilon: Option<f32>,
    sliding_window: Option<u32>,
    /// Qwen2 names a window that it does not use.
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    num_local_experts: Option<u32>,
    num_experts_per_tok: Option<u32>,
    sliding_window_pattern: Option<usize>,
    #[serde(default)]
    tie_word_embeddings: bool,
    /// As transformers 5 writes it.
    rope_parameters: Option<Ropes>,
    /// As it was written before.
    #[serde(alias = "rotary_emb_base")]
    rope_theta: Option<f32>,
    rope_scaling: Option<Rope>,
    rope_local_base_freq: Option<f32>,
    partial_rotary_factor: Option<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "rope_parameters: expected a rotation, or one for each type of attention"
)]
enum Ropes {
    ByLayer {
        full_attention: Rope,
        sliding_attention: Rope,
    },
    Same(Rope),
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f32>,
    factor: Option<f32>,
    /// Llama 3's.
    original_max_position_embeddings: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
    /// YaRN's.
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    truncate: Option<bool>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no such file, or of a model that is not known.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let mut raw: Raw = serde_json::from_str(json)?;
        let found = &raw.model_type;
        let Some((_, architecture)) = ARCHITECTURES.iter().find(|(name, _)| name == found) else {
            return Err(Error::ModelType {
                found: found.clone(),
                known: ARCHITECTURES.map(|(name, _)| name).join(", "),
            });
        };
        let heads = size("num_attention_heads", raw.num_attention_heads)?;
        let kv_heads = raw.num_key_value_heads.unwrap_or(heads);
        let kv_heads = size("num_key_value_heads", kv_heads)?;
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size as usize / heads);
        let head_dim = size("head_dim", head_dim)?;
        let (mut rope, mut local_rope) = match raw.rope_parameters.take() {
            Some(Ropes::ByLayer {
                full_attention,
                sliding_attention,
            }) => (full_attention, Some(sliding_attention)),
            Some(Ropes::Same(rope)) => (rope, None),
            None => (raw.rope_scaling.take().unwrap_or_default(), None),
        };
        rope.rope_theta = rope.rope_theta.or(raw.rope_theta);
        rope.partial_rotary_factor = rope.partial_rotary_factor.or(raw.partial_rotary_factor);
        if local_rope.is_none() && raw.rope_local_base_freq.is_some() {
            local_rope = Some(Rope {
                rope_theta: raw.rope_local_base_freq,
                ..Rope::default()
            });
        }
        Ok(Self {
            architecture,
            raw,
            kv_heads,
            head_dim,
            rope,
            local_rope,
        })
    }

    /// `general.architecture` of a GGUF file of this model.
    #[must_use]
    pub const fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Token ids.
    #[must_use]
    pub const fn vocab_size(&self) -> u32 {
        self.raw.vocab_size
    }

    /// Where the tensor that transformers calls `name` goes; nowhere if a reader has its values already,
    /// to several places if it holds what files keep apart.
    ///
    /// # Errors
    /// If such a model has no such tensor.
    pub fn places(&self, name: &str) -> Result<Vec<Place>, Error> {
        let experts = match self.architecture {
            "gpt-oss" => experts::places(name),
            _ => None,
        };
        match experts {
            Some(places) => Ok(places),
            None => Ok(self.place(name)?.into_iter().collect()),
        }
    }

    /// The tensor of scales that belong to the blocks of weights called `name`, if it is such a tensor:
    /// [`Stored::mxfp4`](crate::Stored::mxfp4) makes one tensor of both, which has the places of the blocks.
    #[must_use]
    pub fn scales(&self, name: &str) -> Option<String> {
        match self.architecture {
            "gpt-oss" => experts::scales(name),
            _ => None,
        }
    }

    fn place(&self, name: &str) -> Result<Option<Place>, Error> {
        if self.encoder() && unread(name) {
            return Ok(None);
        }
        let repeated = self.raw.tie_word_embeddings && name == "lm_head.weight";
        // Masks of GPT-2's first files.
        let mask = self.architecture == "gpt2"
            && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
        if repeated || mask || name.ends_with(".rotary_emb.inv_freq") {
            return Ok(None);
        }
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => self.raw.num_attention_heads,
            Some("k_proj") => self.kv_heads,
            _ => 0,
        };
        let change = match self.architecture {
            "gemma3" if name.ends_with("norm.weight") => Change::AddOne,
            "llama" if heads > 0 => Change::Interleave {
                heads,
                head_dim: self.head_dim,
            },
            "gpt2" if conv1d(name) => Change::Transpose,
            _ => Change::None,
        };
        let name = gguf_name(self.architecture, name)?;
        Ok(Some(Place { name, change }))
    }

    /// Declares the metadata of the model; what equals the reader's default is left out.
    ///
    /// # Errors
    /// If the model rotates in a way that is not known, or `out` has one of the keys already.
    pub fn declare(&self, name: &str, out: &mut Writer) -> Result<(), Error> {
        let raw = &self.raw;
        out.metadata("general.architecture", self.architecture)?;
        out.metadata("general.name", name)?;
        let mut set = |key: &str, value: Value<'_>| -> Result<(), Error> {
            out.metadata(&format!("{}.{key}", self.architecture), value)?;
            Ok(())
        };
        set("vocab_size", raw.vocab_size.into())?;
        set("context_length", raw.max_position_embeddings.into())?;
        set("embedding_length", raw.hidden_size.into())?;
        set("block_count", raw.num_hidden_layers.into())?;
        let feed_forward = raw
            .intermediate_size
            .unwrap_or(raw.hidden_size.saturating_mul(4));
        set("feed_forward_length", feed_forward.into())?;
        let heads = raw.num_attention_heads as u32;
        set("attention.head_count", heads.into())?;
        set("attention.head_count_kv", (self.kv_heads as u32).into())?;
        set("attention.key_length", (self.head_dim as u32).into())?;
        set("attention.value_length", (self.head_dim as u32).into())?;
        match (raw.rms_norm_eps, raw.layer_norm_epsilon) {
            (Some(eps), None) => set("attention.layer_norm_rms_epsilon", eps.into())?,
            (None, Some(eps)) => set("attention.layer_norm_epsilon", eps.into())?,
            _ => {
                let expected = "one of it and layer_norm_epsilon";
                return value("rms_norm_eps", expected, &"neither or both");
            }
        }
        let window = raw.sliding_window;
        if let Some(window) = window.filter(|_| raw.use_sliding_window != Some(false)) {
            set("attention.sliding_window", window.into())?;
        }
        if let (Some(count), Some(used)) = (raw.num_local_experts, raw.num_experts_per_tok) {
            set("expert_count", count.into())?;
            set("expert_used_count", used.into())?;
            set("expert_feed_forward_length", feed_forward.into())?;
        }
        let default = DEFAULT_PATTERNS[usize::from(self.architecture != "gpt-oss")];
        if let Some(pattern) = self.pattern().filter(|pattern| *pattern != default) {
            set("attention.sliding_window_pattern", (pattern as u32).into())?;
        }
        if self.encoder() {
            set("attention.causal", false.into())?;
        }
        if self.learned_positions() {
            return Ok(());
        }
        self.declare_rope(&mut set)
    }

    fn declare_rope(
        &self,
        set: &mut dyn FnMut(&str, Value<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let rope = &self.rope;
        let rotated = self.head_dim as f32 * rope.partial_rotary_factor.unwrap_or(1.0);
        set("rope.dimension_count", (rotated as u32).into())?;
        if let Some(base) = rope.rope_theta {
            set("rope.freq_base", base.into())?;
        }
        match (rope.rope_type.as_deref(), rope.factor) {
            (None | Some("default"), _) => {}
            (Some("linear"), Some(factor)) => {
                set("rope.scaling.type", "linear".into())?;
                set("rope.scaling.factor", factor.into())?;
            }
            // In the tensor `rope_freqs.weight`.
            (Some("llama3"), _) => {}
            (Some("longrope"), None) => {
                let context = self.raw.max_position_embeddings;
                let Some(original) = self.raw.original_max_position_embeddings else {
                    let key = "original_max_position_embeddings";
                    return value(key, "a number, for longrope", &"absent");
                };
                let magnitude = long_rope_magnitude(context, original);
                set("rope.scaling.original_context_length", original.into())?;
                set("rope.scaling.attn_factor", magnitude.into())?;
            }
            (Some("yarn"), Some(factor)) => self.declare_yarn(factor, set)?,
            (Some(other), _) => {
                let expected = "default, linear or yarn with a factor, llama3 or longrope";
                return value("rope type", expected, &other.escape_debug());
            }
        }
        let local = self.local_rope.as_ref().and_then(|rope| rope.rope_theta);
        match local.filter(|base| *base != DEFAULT_LOCAL_BASE) {
            Some(base) => set("rope.freq_base_swa", base.into()),
            None => Ok(()),
        }
    }

    /// Whether positions are rows of a table rather than angles.
    fn learned_positions(&self) -> bool {
        matches!(self.architecture, "gpt2" | "bert")
    }

    /// Whether tokens see those after them.
    fn encoder(&self) -> bool {
        matches!(self.architecture, "bert" | "nomic-bert")
    }

    /// Files have no key for `truncate`: readers know what each architecture does.
    fn declare_yarn(
        &self,
        factor: f32,
        set: &mut dyn FnMut(&str, Value<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (rope, whole_pairs) = (&self.rope, self.architecture != "gpt-oss");
        if rope.truncate.unwrap_or(true) != whole_pairs {
            return value("truncate", &whole_pairs.to_string(), &!whole_pairs);
        }
        let Some(original) = rope.original_max_position_embeddings else {
            let key = "original_max_position_embeddings";
            return value(key, "a number, for yarn", &"absent");
        };
        set("rope.scaling.type", "yarn".into())?;
        set("rope.scaling.factor", factor.into())?;
        set(
            "rope.scaling.original_context_length",
            (original as u32).into(),
        )?;
        for (key, turns) in [("fast", rope.beta_fast), ("slow", rope.beta_slow)] {
            if let Some(turns) = turns {
                set(&format!("rope.scaling.yarn_beta_{key}"), turns.into())?;
            }
        }
        Ok(())
    }

    /// Every how many layers one sees the whole context, where not all do.
    fn pattern(&self) -> Option<usize> {
        let Some(kinds) = &self.raw.layer_types else {
            return self.raw.sliding_window_pattern;
        };
        let first = kinds.iter().position(|kind| kind == "full_attention")?;
        Some(first + 1)
    }

    /// Tensors `[rotated / 2]` of factors that each pair's frequency is divided by, and their names.
    #[must_use]
    pub fn rope_factors(&self) -> Vec<(&'static str, Vec<f32>)> {
        let rope = &self.rope;
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
        let rope = &self.rope;
        if rope.rope_type.as_deref() != Some("llama3") {
            return None;
        }
        let (factor, low, high) = (rope.factor?, rope.low_freq_factor?, rope.high_freq_factor?);
        let (context, base) = (rope.original_max_position_embeddings?, rope.rope_theta?);
        let factor_of = |pair: usize| {
            let exponent = 2.0 * pair as f32 / self.head_dim as f32;
            let wavelength = std::f32::consts::TAU * base.powf(exponent);
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

/// A number of heads or of their elements: products of two stay far from overflow.
fn size(key: &'static str, found: usize) -> Result<usize, Error> {
    if (1..=MAX_SIZE).contains(&found) {
        return Ok(found);
    }
    value(key, &format!("1..={MAX_SIZE}"), &found)
}

/// Whether a tensor of an encoder is for its training: heads of tasks, and a buffer of 0, 1, 2, ….
fn unread(name: &str) -> bool {
    const PARTS: [&str; 3] = ["pooler.", "cls.", "embeddings.position_ids"];
    PARTS.iter().any(|part| name.contains(part))
}

/// Whether GPT-2 stores a weight `[inputs, outputs]`.
fn conv1d(name: &str) -> bool {
    const MODULES: [&str; 3] = ["c_attn.weight", "c_proj.weight", "c_fc.weight"];
    MODULES.iter().any(|module| name.ends_with(module))
}

fn value<T>(key: &'static str, expected: &str, found: &dyn std::fmt::Display) -> Result<T, Error> {
    Err(Error::Value {
        key,
        expected: expected.to_owned(),
        found: found.to_string(),
    })
}

/// What LongRoPE multiplies cosines and sines by.
///
/// Source: transformers, `modeling_rope_utils.py`, `_compute_longrope_parameters`.
fn long_rope_magnitude(context: u32, original: u32) -> f32 {
    let (context, original) = (f64::from(context), f64::from(original));
    (1.0 + (context / original).max(1.0).ln() / original.ln()).sqrt() as f32
}
