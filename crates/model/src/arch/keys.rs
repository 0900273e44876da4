//! The metadata keys that architectures share, read and cross-checked against the tensors.
//!
//! Source of the names: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use redline_compute::{Activation, MAX_EXPERTS_PER_TOKEN, Norm, RopeStyle, Routing};
use redline_gguf::{Gguf, Tensor};

use crate::weights::{LONG_ROPE_FACTORS, ROPE_FACTORS, TOKEN_TYPES, vector_values};
use crate::{
    Biases, Error, Experts, LayerAttention, LongFactors, NormPlacement, Pooling, Properties, Rope,
    Yarn,
};

/// No dimension of a model is larger: products of two stay far from overflow.
const MAX_DIMENSION: usize = 1 << 24;
/// Positions no model was trained for: the context is a count of table rows, not of tensor dims.
const MAX_CONTEXT: usize = 1 << 30;

/// A file's metadata under its architecture's prefix.
pub(super) struct Keys<'g, 'a> {
    gguf: &'g Gguf<'a>,
    prefix: &'static str,
}

impl<'g, 'a> Keys<'g, 'a> {
    pub(super) fn new(gguf: &'g Gguf<'a>, prefix: &'static str) -> Self {
        Self { gguf, prefix }
    }

    /// The plain pre-norm decoder: RMS norms, gated SiLU, full attention, plain or linearly scaled
    /// rotation. An architecture then says what is different about it.
    pub(super) fn decoder(&self, style: RopeStyle) -> Result<Properties, Error> {
        let norm = Norm::Rms {
            eps: self.eps("attention.layer_norm_rms_epsilon")?,
        };
        self.transformer(norm, Some(style))
    }

    /// [`Keys::decoder`] with norms and a rotation of the caller's choice.
    pub(super) fn transformer(
        &self,
        norm: Norm,
        style: Option<RopeStyle>,
    ) -> Result<Properties, Error> {
        let hidden = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let kv_heads = self.size_or("attention.head_count_kv", heads)?;
        let head_dim = self.head_dim(hidden, heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return self.senseless(
                "attention.head_count_kv",
                &format!("a divisor of the {heads} heads"),
                &kv_heads,
            );
        }
        let ropes: Vec<Rope> = style
            .map(|style| self.rope(style, head_dim))
            .into_iter()
            .collect::<Result<_, _>>()?;
        let rope = (!ropes.is_empty()).then_some(0);
        Ok(Properties {
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: self.size("feed_forward_length")?,
            vocab: self.vocab(hidden)?,
            context_length: self.bounded("context_length", MAX_CONTEXT)?,
            norm,
            norm_placement: NormPlacement::Before,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            activation: Activation::Silu,
            gated: true,
            qk_norm: false,
            biases: Biases::None,
            fused_qkv: false,
            fused_gate_up: false,
            causal: true,
            head: true,
            embedding_norm: false,
            token_types: None,
            pooling: self.pooling_or(Pooling::Last)?,
            learned_positions: false,
            sinks: false,
            experts: None,
            ropes,
            layers: vec![LayerAttention { window: None, rope }; self.layer_count()?],
        })
    }

    /// A number that must be there, from 1 to [`MAX_DIMENSION`].
    pub(super) fn size(&self, key: &str) -> Result<usize, Error> {
        self.bounded(key, MAX_DIMENSION)
    }

    /// A number from 1 to [`MAX_DIMENSION`], or `default`.
    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    /// A number from 1 to [`MAX_DIMENSION`]; absent or 0 (how some files say "none"): `None`.
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        match self.gguf.metadata().u64(&self.full(key))? {
            None | Some(0) => Ok(None),
            Some(_) => self.size(key).map(Some),
        }
    }

    /// A finite number above 0, or `default`.
    pub(super) fn float_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        match self.gguf.metadata().f32(&self.full(key))? {
            None => Ok(default),
            Some(value) if value.is_finite() && value > 0.0 => Ok(f64::from(value)),
            Some(value) => self.senseless(key, "a finite number above 0", &value),
        }
    }

    /// The factors of `rope_freqs.weight`, `[dims/2]`, if the file has it.
    pub(super) fn rope_factors(&self, dims: usize) -> Result<Option<Vec<f32>>, Error> {
        match self.gguf.tensor(ROPE_FACTORS) {
            None => Ok(None),
            Some(tensor) => factors(tensor, dims).map(Some),
        }
    }

    /// LongRoPE, if the file has its tensors: factors for contexts up to the original one and for
    /// longer ones, and what cosines and sines are multiplied by.
    pub(super) fn long_rope(&self, context: usize, rope: &mut Rope) -> Result<(), Error> {
        let (short, long) = match LONG_ROPE_FACTORS.map(|name| self.gguf.tensor(name)) {
            [Some(short), Some(long)] => (short, long),
            [None, None] => return Ok(()),
            [short, _] => {
                return Err(Error::MissingTensor {
                    name: LONG_ROPE_FACTORS[usize::from(short.is_some())].to_owned(),
                    expected: vec![rope.dims / 2],
                });
            }
        };
        let original = self.optional_size("rope.scaling.original_context_length")?;
        rope.magnitude = self.float_or("rope.scaling.attn_factor", 1.0)?;
        rope.factors = Some(factors(short, rope.dims)?);
        rope.long = Some(LongFactors {
            beyond: original.unwrap_or(context),
            factors: factors(long, rope.dims)?,
        });
        Ok(())
    }

    /// A mixture of experts, each as wide as its own key says.
    pub(super) fn experts(
        &self,
        properties: &mut Properties,
        routing: Routing,
    ) -> Result<(), Error> {
        let count = self.size("expert_count")?;
        let key = "expert_used_count";
        let per_token = self.size(key)?;
        let most = count.min(MAX_EXPERTS_PER_TOKEN);
        if per_token > most {
            return self.senseless(key, &format!("1..={most}"), &per_token);
        }
        let width = properties.feed_forward;
        properties.feed_forward = self.size_or("expert_feed_forward_length", width)?;
        properties.experts = Some(Experts {
            count,
            per_token,
            routing,
        });
        Ok(())
    }

    /// Mixtures of experts are another structure than this decoder.
    pub(super) fn refuse_experts(&self) -> Result<(), Error> {
        match self.optional_size("expert_count")? {
            None => Ok(()),
            Some(found) => self.unsupported("expert_count", "0 (dense models)", &found),
        }
    }

    /// Softcapped scores or logits are another structure too.
    pub(super) fn refuse_softcap(&self, key: &str) -> Result<(), Error> {
        match self.gguf.metadata().f32(&self.full(key))? {
            None | Some(0.0) => Ok(()),
            Some(found) => self.unsupported(key, "0 (no soft cap)", &found),
        }
    }

    fn head_dim(&self, hidden: usize, heads: usize) -> Result<usize, Error> {
        let (key, value) = ("attention.key_length", "attention.value_length");
        let head_dim = match self.optional_size(key)? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let expected = format!("a divisor of embedding_length {hidden}, or {key} given");
                return self.senseless("attention.head_count", &expected, &heads);
            }
        };
        match self.optional_size(value)? {
            Some(found) if found != head_dim => {
                self.unsupported(value, &format!("{key} ({head_dim})"), &found)
            }
            _ => Ok(head_dim),
        }
    }

    /// The vocabulary is what the embedding table has rows for; other counts must agree with it.
    fn vocab(&self, hidden: usize) -> Result<usize, Error> {
        let metadata = self.gguf.metadata();
        let tokens = metadata
            .str_array("tokenizer.ggml.tokens")?
            .map(|tokens| tokens.len());
        let declared = match tokens {
            Some(tokens) => Some(tokens),
            None => self.optional_size("vocab_size")?,
        };
        let Some(table) = self.gguf.tensor(EMBEDDING) else {
            return Err(Error::MissingTensor {
                name: EMBEDDING.to_owned(),
                expected: vec![hidden, declared.unwrap_or(0)],
            });
        };
        let rows = table_rows(table).unwrap_or(0);
        let expected = vec![hidden, declared.unwrap_or(rows).max(1)];
        if table.dims != expected {
            return Err(Error::TensorShape {
                name: EMBEDDING.to_owned(),
                expected,
                found: table.dims.clone(),
            });
        }
        if rows > MAX_DIMENSION {
            return self.senseless(
                "vocab_size",
                &format!("at most {MAX_DIMENSION} tokens"),
                &rows,
            );
        }
        Ok(rows)
    }

    fn rope(&self, style: RopeStyle, head_dim: usize) -> Result<Rope, Error> {
        let dims = self.size_or("rope.dimension_count", head_dim)?;
        if !dims.is_multiple_of(2) || dims > head_dim {
            let expected = format!("an even number, at most the head's {head_dim} elements");
            return self.senseless("rope.dimension_count", &expected, &dims);
        }
        let factor = self.float_or(
            "rope.scaling.factor",
            self.float_or("rope.scale_linear", 1.0)?,
        )?;
        let kind = self.gguf.metadata().str(&self.full("rope.scaling.type"))?;
        let linear_factor = match kind {
            // The oldest files scale linearly without saying so.
            None | Some("linear") => factor,
            Some("none" | "yarn") => 1.0,
            // Its factors are tensors, which only an architecture that reads them may have.
            Some("longrope") if self.gguf.tensor(LONG_ROPE_FACTORS[1]).is_some() => 1.0,
            Some(other) => {
                let expected = "none, linear or yarn, or longrope with its tensors";
                return self.unsupported("rope.scaling.type", expected, &other);
            }
        };
        let base = self.float_or("rope.freq_base", 10_000.0)?;
        let mut rope = Rope {
            style,
            dims,
            base,
            linear_factor,
            factors: None,
            long: None,
            yarn: None,
            magnitude: 1.0,
        };
        if kind == Some("yarn") {
            self.yarn(factor, &mut rope)?;
        }
        Ok(rope)
    }

    /// YaRN by `factor`. A base of at most 1 has no slow rotations to stretch.
    fn yarn(&self, factor: f64, rope: &mut Rope) -> Result<(), Error> {
        if rope.base <= 1.0 {
            return self.senseless("rope.freq_base", "a number above 1", &rope.base);
        }
        let key = "rope.scaling.yarn_log_multiplier";
        if let Some(found) = self.gguf.metadata().f32(&self.full(key))? {
            return self.unsupported(key, "none", &found);
        }
        let original = self.size("rope.scaling.original_context_length")?;
        rope.yarn = Some(Yarn {
            factor,
            original_context: original,
            fast_turns: self.float_or("rope.scaling.yarn_beta_fast", 32.0)?,
            slow_turns: self.float_or("rope.scaling.yarn_beta_slow", 1.0)?,
            whole_pairs: true,
        });
        // Scores are as large as in the paper, which stretches their temperature.
        let attention = self.float_or("rope.scaling.attn_factor", 1.0)?;
        rope.magnitude = attention * (0.1 * libm::log(factor.max(1.0)) + 1.0);
        Ok(())
    }

    /// Layers, each of which needs tensors of its own: a file cannot have more layers than tensors.
    fn layer_count(&self) -> Result<usize, Error> {
        let layers = self.size("block_count")?;
        let tensors = self.gguf.tensors().len();
        if layers > tensors {
            let expected = format!("at most the file's {tensors} tensors");
            return self.senseless("block_count", &expected, &layers);
        }
        Ok(layers)
    }

    /// The pooling a converter wrote down, or `default`.
    ///
    /// Source of the numbers: <https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h>,
    /// `llama_pooling_type`.
    pub(super) fn pooling_or(&self, default: Pooling) -> Result<Pooling, Error> {
        let key = "pooling_type";
        match self.gguf.metadata().u64(&self.full(key))? {
            None | Some(0) => Ok(default),
            Some(1) => Ok(Pooling::Mean),
            Some(2) => Ok(Pooling::Cls),
            Some(3) => Ok(Pooling::Last),
            Some(found) => self.unsupported(key, "0 to 3 (none, mean, CLS, last)", &found),
        }
    }

    /// An encoder of sentences in the manner of BERT: norms after the sums, types of tokens,
    /// attention to both sides, no head.
    pub(super) fn encoder(&self, style: Option<RopeStyle>) -> Result<Properties, Error> {
        let causal = self.gguf.metadata().bool(&self.full("attention.causal"))?;
        if causal == Some(true) {
            return self.unsupported("attention.causal", "false", &true);
        }
        let mut properties = self.transformer(self.layer_norm()?, style)?;
        properties.norm_placement = NormPlacement::AfterSum;
        properties.causal = false;
        properties.head = false;
        properties.pooling = self.pooling_or(Pooling::Mean)?;
        properties.embedding_norm = true;
        properties.token_types = self.token_types(properties.hidden)?;
        Ok(properties)
    }

    /// Rows of the table of token types, if the file has one.
    fn token_types(&self, hidden: usize) -> Result<Option<usize>, Error> {
        let Some(table) = self.gguf.tensor(TOKEN_TYPES) else {
            return Ok(None);
        };
        let declared = self
            .gguf
            .metadata()
            .u64("tokenizer.ggml.token_type_count")?;
        let declared = declared.and_then(|count| usize::try_from(count).ok());
        let rows = table_rows(table).unwrap_or(0);
        let expected = vec![hidden, declared.unwrap_or(rows).max(1)];
        if table.dims != expected {
            return Err(Error::TensorShape {
                name: TOKEN_TYPES.to_owned(),
                expected,
                found: table.dims.clone(),
            });
        }
        Ok(Some(rows))
    }

    /// Layer norms with the model's epsilon.
    pub(super) fn layer_norm(&self) -> Result<Norm, Error> {
        let eps = self.eps("attention.layer_norm_epsilon")?;
        Ok(Norm::Layer { eps })
    }

    fn eps(&self, key: &str) -> Result<f32, Error> {
        let eps = self.gguf.metadata().require_f32(&self.full(key))?;
        if eps.is_finite() && eps >= 0.0 {
            return Ok(eps);
        }
        self.senseless(key, "a finite number from 0", &eps)
    }

    fn bounded(&self, key: &str, max: usize) -> Result<usize, Error> {
        let found = self.gguf.metadata().require_u64(&self.full(key))?;
        match usize::try_from(found) {
            Ok(value) if (1..=max).contains(&value) => Ok(value),
            _ => self.senseless(key, &format!("1..={max}"), &found),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn senseless<T>(
        &self,
        key: &str,
        expected: &str,
        found: &dyn std::fmt::Display,
    ) -> Result<T, Error> {
        let (expected, found) = (expected.to_owned(), found.to_string());
        Err(Error::Metadata {
            key: self.full(key),
            expected,
            found,
        })
    }

    fn unsupported<T>(
        &self,
        key: &str,
        expected: &str,
        found: &dyn std::fmt::Display,
    ) -> Result<T, Error> {
        let (expected, found) = (expected.to_owned(), found.to_string());
        Err(Error::Unsupported {
            key: self.full(key),
            expected,
            found,
        })
    }
}

/// The token embedding table, `[vocab, hidden]`.
const EMBEDDING: &str = "token_embd.weight";
/// Factors `[dims/2]` that frequencies are divided by.
fn factors(tensor: &Tensor<'_>, dims: usize) -> Result<Vec<f32>, Error> {
    let factors = vector_values(tensor, dims / 2)?;
    let senseless = |factor: &&f32| !(factor.is_finite() && **factor > 0.0);
    match factors.iter().find(senseless) {
        None => Ok(factors),
        Some(found) => Err(Error::Metadata {
            key: tensor.name.to_owned(),
            expected: "finite factors above 0".to_owned(),
            found: found.to_string(),
        }),
    }
}

fn table_rows(table: &Tensor<'_>) -> Option<usize> {
    match table.dims.as_slice() {
        [_, rows] => Some(*rows),
        _ => None,
    }
}
