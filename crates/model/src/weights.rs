//! The model's tensors, typed, each with the shape its metadata demands.

mod mixture;
mod tensors;

use std::sync::Arc;

use redline_compute::Backend;
use redline_gguf::Gguf;

use crate::{Biases, Error, ModelFile, NormPlacement, Properties};
pub(crate) use mixture::{Mixture, Stack};
use tensors::Tensors;
pub(crate) use tensors::vector_values;

/// Llama 3's frequency factors.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// LongRoPE's factors for short and for long contexts.
pub(crate) const LONG_ROPE_FACTORS: [&str; 2] =
    ["rope_factors_short.weight", "rope_factors_long.weight"];

/// Embeddings of token types.
pub(crate) const TOKEN_TYPES: &str = "token_types.weight";

/// All weights: matrices where the file is mapped, vectors in F32.
#[derive(Debug)]
pub(crate) struct Weights<B: Backend> {
    /// `[vocab, hidden]`
    pub(crate) embedding: Arc<B::Matrix>,
    /// `[context_length, hidden]`
    pub(crate) positions: Option<B::Matrix>,
    /// `[types, hidden]`
    pub(crate) token_types: Option<B::Matrix>,
    pub(crate) embedding_norm: Option<NormWeights<B>>,
    /// One for each layer.
    pub(crate) layers: Vec<LayerWeights<B>>,
    pub(crate) final_norm: Option<NormWeights<B>>,
    /// `[vocab, hidden]`; the embedding itself where the model ties them.
    pub(crate) head: Option<Arc<B::Matrix>>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(crate) struct LayerWeights<B: Backend> {
    pub(crate) attention_norms: HalfNorms<B>,
    /// `[heads · head_dim, hidden]`
    pub(crate) query: Linear<B>,
    /// `[kv_heads · head_dim, hidden]`
    pub(crate) key: Linear<B>,
    /// `[kv_heads · head_dim, hidden]`
    pub(crate) value: Linear<B>,
    /// `[head_dim]`
    pub(crate) query_norm: Option<B::Vector>,
    /// `[head_dim]`
    pub(crate) key_norm: Option<B::Vector>,
    /// `[hidden, heads · head_dim]`
    pub(crate) attention_output: Linear<B>,
    /// `[heads]`
    pub(crate) sinks: Option<B::Vector>,
    pub(crate) feed_forward_norms: HalfNorms<B>,
    pub(crate) network: Network<B>,
}

/// The norms of a half layer.
#[derive(Debug)]
pub(crate) struct HalfNorms<B: Backend> {
    /// Of its input.
    pub(crate) before: Option<NormWeights<B>>,
    /// Of its result, before that is added.
    pub(crate) after: Option<NormWeights<B>>,
    /// Of the sum.
    pub(crate) after_sum: Option<NormWeights<B>>,
}

/// What a norm multiplies with, and adds.
#[derive(Debug)]
pub(crate) struct NormWeights<B: Backend> {
    /// `[width]`
    pub(crate) weight: B::Vector,
    /// `[width]`
    pub(crate) bias: Option<B::Vector>,
}

/// A feed-forward network.
#[derive(Debug)]
pub(crate) enum Network<B: Backend> {
    /// `down(activation(gate(x)) · up(x))`
    Gated {
        /// `[feed_forward, hidden]`
        gate: Linear<B>,
        /// `[feed_forward, hidden]`
        up: Linear<B>,
        /// `[hidden, feed_forward]`
        down: Linear<B>,
    },
    /// `down(activation(up(x)))`
    Plain {
        /// `[feed_forward, hidden]`
        up: Linear<B>,
        /// `[hidden, feed_forward]`
        down: Linear<B>,
    },
    /// The weighted sum of a few of many.
    Mixture(Mixture<B>),
}

/// `x · weightsᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear<B: Backend> {
    /// `[rows, cols]`
    pub(crate) matrix: B::Matrix,
    /// `[rows]`
    pub(crate) bias: Option<B::Vector>,
}

impl<B: Backend> Weights<B> {
    /// Finds and checks every tensor. Nothing of a matrix is read yet.
    ///
    /// # Errors
    /// If a tensor is missing, misshapen, of an unusable type, or not part of the model.
    pub(crate) fn load(
        file: &ModelFile,
        gguf: &Gguf<'_>,
        properties: &Properties,
        backend: &B,
    ) -> Result<Self, Error> {
        let (hidden, vocab) = (properties.hidden, properties.vocab);
        let mut tensors = Tensors::new(file, gguf, backend);
        // Read by the architecture, if it is there at all.
        tensors.skip(&[ROPE_FACTORS]);
        if properties.ropes.iter().any(|rope| rope.long.is_some()) {
            tensors.skip(&LONG_ROPE_FACTORS);
        }
        let embedding = Arc::new(tensors.matrix("token_embd.weight", vocab, hidden)?);
        let head = if !properties.head {
            None
        } else if tensors.has("output.weight") {
            Some(Arc::new(tensors.matrix("output.weight", vocab, hidden)?))
        } else {
            Some(Arc::clone(&embedding))
        };
        let positions = properties
            .learned_positions
            .then(|| tensors.matrix("position_embd.weight", properties.context_length, hidden))
            .transpose()?;
        let token_types = properties
            .token_types
            .map(|types| tensors.matrix(TOKEN_TYPES, types, hidden))
            .transpose()?;
        let mut norm = |wanted: bool, name: &str| {
            wanted
                .then(|| tensors.norm(properties.norm, name, hidden))
                .transpose()
        };
        let embedding_norm = norm(properties.embedding_norm, "token_embd_norm")?;
        let normed_sums = properties.norm_placement == NormPlacement::AfterSum;
        let final_norm = norm(!normed_sums, "output_norm")?;
        let layers = (0..properties.layers.len())
            .map(|layer| LayerWeights::load(&mut tensors, properties, layer))
            .collect::<Result<_, _>>()?;
        tensors.all_used()?;
        Ok(Self {
            embedding,
            positions,
            token_types,
            embedding_norm,
            layers,
            final_norm,
            head,
        })
    }
}

impl<B: Backend> LayerWeights<B> {
    fn load(
        tensors: &mut Tensors<'_, '_, B>,
        properties: &Properties,
        layer: usize,
    ) -> Result<Self, Error> {
        let (hidden, head_dim) = (properties.hidden, properties.head_dim);
        let (q_width, kv_width) = (properties.heads * head_dim, properties.kv_heads * head_dim);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (all, qkv) = match properties.biases {
            Biases::None => (false, false),
            Biases::Qkv => (false, true),
            Biases::All => (true, true),
        };
        let [query, key, value] = if properties.fused_qkv {
            let rows = [q_width, kv_width, kv_width];
            tensors.fused(&name("attn_qkv"), rows, hidden, qkv)?
        } else {
            [
                tensors.linear(&name("attn_q"), q_width, hidden, qkv)?,
                tensors.linear(&name("attn_k"), kv_width, hidden, qkv)?,
                tensors.linear(&name("attn_v"), kv_width, hidden, qkv)?,
            ]
        };
        // Named by what it stands before or by what it stands after.
        let after_attention = properties.norm_placement == NormPlacement::Before
            && tensors.has(&name("post_attention_norm.weight"));
        let before_network = if after_attention {
            "post_attention_norm"
        } else {
            "ffn_norm"
        };
        let mut head_norm = |part| tensors.vector_if(properties.qk_norm, &name(part), head_dim);
        Ok(Self {
            query_norm: head_norm("attn_q_norm.weight")?,
            key_norm: head_norm("attn_k_norm.weight")?,
            attention_norms: HalfNorms::load(
                tensors,
                properties,
                ["attn_norm", "post_attention_norm", "attn_output_norm"].map(name),
            )?,
            query,
            key,
            value,
            attention_output: tensors.linear(&name("attn_output"), hidden, q_width, all)?,
            sinks: tensors.vector_if(
                properties.sinks,
                &name("attn_sinks.weight"),
                properties.heads,
            )?,
            feed_forward_norms: HalfNorms::load(
                tensors,
                properties,
                [before_network, "post_ffw_norm", "layer_output_norm"].map(name),
            )?,
            network: Network::load(tensors, properties, name, all)?,
        })
    }
}

impl<B: Backend> HalfNorms<B> {
    fn load(
        tensors: &mut Tensors<'_, '_, B>,
        properties: &Properties,
        [before, after, after_sum]: [String; 3],
    ) -> Result<Self, Error> {
        let place = properties.norm_placement;
        let mut norm = |places: &[NormPlacement], name: &str| {
            let wanted = places.contains(&place);
            wanted
                .then(|| tensors.norm(properties.norm, name, properties.hidden))
                .transpose()
        };
        Ok(Self {
            before: norm(&[NormPlacement::Before, NormPlacement::Around], &before)?,
            after: norm(&[NormPlacement::Around], &after)?,
            after_sum: norm(&[NormPlacement::AfterSum], &after_sum)?,
        })
    }
}

impl<B: Backend> Network<B> {
    fn load(
        tensors: &mut Tensors<'_, '_, B>,
        properties: &Properties,
        name: impl Fn(&str) -> String,
        bias: bool,
    ) -> Result<Self, Error> {
        let (hidden, width) = (properties.hidden, properties.feed_forward);
        if let Some(experts) = &properties.experts {
            let mixture = Mixture::load(tensors, properties, experts, (name, bias))?;
            return Ok(Self::Mixture(mixture));
        }
        let down = tensors.linear(&name("ffn_down"), hidden, width, bias)?;
        if properties.fused_gate_up {
            let [gate, up] = tensors.fused(&name("ffn_up"), [width; 2], hidden, bias)?;
            return Ok(Self::Gated { gate, up, down });
        }
        let up = tensors.linear(&name("ffn_up"), width, hidden, bias)?;
        if properties.gated {
            let gate = tensors.linear(&name("ffn_gate"), width, hidden, bias)?;
            return Ok(Self::Gated { gate, up, down });
        }
        Ok(Self::Plain { up, down })
    }

    /// The matrix that is multiplied first.
    pub(crate) fn first(&self) -> &B::Matrix {
        match self {
            Self::Gated { gate, .. } => &gate.matrix,
            Self::Plain { up, .. } => &up.matrix,
            Self::Mixture(mixture) => &mixture.router.matrix,
        }
    }
}
