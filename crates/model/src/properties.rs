//! What a model is, once its architecture's name no longer matters.

#[cfg(doc)]
use redline_compute::MAX_EXPERTS_PER_TOKEN;
use redline_compute::{Activation, AttentionShape, Norm, RopeStyle, RopeTable, Routing};

use crate::Pooling;

/// The transformer's shape and kinds: everything `forward` needs to know besides the weights.
///
/// Made by `arch/`; every size is nonzero and agrees with a tensor that is in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// Elements of a token's residual stream.
    pub hidden: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements between the two halves of the feed-forward network, or of each expert's.
    pub feed_forward: usize,
    /// Token ids.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Every norm of the model. Those of [`Norm::Layer`] must have a bias.
    pub norm: Norm,
    /// Where a layer's norms stand.
    pub norm_placement: NormPlacement,
    /// Multiplied into each token embedding.
    pub embedding_scale: f32,
    /// Multiplied into each attention score.
    pub attention_scale: f32,
    /// The feed-forward network's nonlinearity.
    pub activation: Activation,
    /// The feed-forward network is `down(activation(gate(x)) · up(x))`, else `down(activation(up(x)))`.
    pub gated: bool,
    /// Each query and key head is normalised before it is rotated.
    pub qk_norm: bool,
    /// The projections that must have a bias. (One that is in the file is used anyway.)
    pub biases: Biases,
    /// The file has the rows of query, key and value as one tensor.
    pub fused_qkv: bool,
    /// The file has the rows of gate and up as one tensor.
    pub fused_gate_up: bool,
    /// A token sees none after it. Else the model is an encoder: a sequence is computed whole.
    pub causal: bool,
    /// Logits follow the last layer; without them hidden state is all there is.
    pub head: bool,
    /// Token embeddings are normalised before the first layer.
    pub embedding_norm: bool,
    /// Rows of a table of token types, the first of which is added to every token's embedding.
    pub token_types: Option<usize>,
    /// What a sequence's embedding is made of.
    pub pooling: Pooling,
    /// A learned table has a row for each of `context_length` positions, added to token embeddings.
    pub learned_positions: bool,
    /// Each head's attention has a sink.
    pub sinks: bool,
    /// A mixture of networks stands for the feed-forward network.
    pub experts: Option<Experts>,
    /// The kinds of rotation; none where positions are learned.
    pub ropes: Vec<Rope>,
    /// What differs from layer to layer; as long as the model is deep.
    pub layers: Vec<LayerAttention>,
}

impl Properties {
    /// The attention of one layer.
    ///
    /// # Panics
    /// If the model has no such layer.
    #[must_use]
    pub fn attention(&self, layer: usize) -> AttentionShape {
        AttentionShape {
            layer,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.attention_scale,
            window: self.layers[layer].window,
            causal: self.causal,
        }
    }

    /// A distance so that no layer looks at positions further back; `None` if some layer sees all.
    #[must_use]
    pub fn attention_window(&self) -> Option<usize> {
        let windows = self.layers.iter().map(|layer| layer.window);
        windows.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// Where a layer's norms stand, around attention and around the feed-forward network (`f`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// `x + f(norm(x))`, and one norm after the last layer.
    Before,
    /// `x + norm(f(norm(x)))`, and one norm after the last layer.
    Around,
    /// `norm(x + f(x))`, and no norm after the last layer.
    AfterSum,
}

/// Which projections must have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Biases {
    /// None.
    None,
    /// Query, key and value.
    Qkv,
    /// All of attention and of the feed-forward network.
    All,
}

/// A mixture of gated feed-forward networks, of which each token takes a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Networks.
    pub count: usize,
    /// Those of each token, at most `count` and [`MAX_EXPERTS_PER_TOKEN`].
    pub per_token: usize,
    /// What makes weights of the router's logits.
    pub routing: Routing,
}

/// What differs between the layers' attentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerAttention {
    /// A query at position p sees positions above `p - window`; `None`: all up to p.
    pub window: Option<usize>,
    /// Its rotation, an index into [`Properties::ropes`]; `None`: heads are not rotated.
    pub rope: Option<usize>,
}

/// One kind of rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which elements are paired.
    pub style: RopeStyle,
    /// Rotated elements of each head, even, at most the head's size.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f64,
    /// Positions are divided by this (linear scaling, Chen et al. 2023).
    pub linear_factor: f64,
    /// `[dims/2]`: each pair's frequency is divided by its factor (Llama 3 scaling, stored in the
    /// tensor `rope_freqs.weight`; LongRoPE's factors for short contexts).
    pub factors: Option<Vec<f32>>,
    /// LongRoPE's factors for long contexts.
    pub long: Option<LongFactors>,
    /// Stretches the slow rotations.
    pub yarn: Option<Yarn>,
    /// Multiplied into cosines and sines (the attention factor of LongRoPE and YaRN); 1 elsewhere.
    pub magnitude: f64,
}

/// YaRN (Peng et al. 2023, <https://arxiv.org/abs/2309.00071>): slow rotations become slower by a factor,
/// fast ones stay as they are, and between them it is blended linearly in the number of the pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// What the frequencies of slow rotations are divided by.
    pub factor: f64,
    /// Positions of the original context.
    pub original_context: usize,
    /// Turns within the original context from which on a rotation is fast.
    pub fast_turns: f64,
    /// Turns down to which a rotation is slow.
    pub slow_turns: f64,
    /// Whether the blend begins and ends at whole pairs.
    pub whole_pairs: bool,
}

impl Yarn {
    /// What the frequency of pair `pair` of `dims / 2` is multiplied by.
    fn stretch(&self, base: f64, dims: usize, pair: usize) -> f64 {
        let pair_of = |turns: f64| {
            let wavelengths = self.original_context as f64 / (turns * std::f64::consts::TAU);
            dims as f64 * libm::log(wavelengths) / (2.0 * libm::log(base))
        };
        let (mut low, mut high) = (pair_of(self.fast_turns), pair_of(self.slow_turns));
        if self.whole_pairs {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
        // Where both ends are one, the step between them has some width.
        let width = if low == high { 0.001 } else { high - low };
        let slow = ((pair as f64 - low) / width).clamp(0.0, 1.0);
        slow / self.factor + (1.0 - slow)
    }
}

/// Factors that replace [`Rope::factors`] in long contexts (Ding et al. 2024,
/// <https://arxiv.org/abs/2402.13753>).
///
/// Which of them rotate is decided once for a load, by the positions a sequence can have: were it
/// decided by a sequence's length, keys already stored would have been rotated otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct LongFactors {
    /// Contexts of more positions than this are long.
    pub beyond: usize,
    /// `[dims/2]`, as [`Rope::factors`].
    pub factors: Vec<f32>,
}

impl Rope {
    /// Cosines and sines for a context of `positions` positions.
    ///
    /// # Panics
    /// If there are factors, but not one for each pair.
    #[must_use]
    pub fn table(&self, positions: usize) -> RopeTable {
        let mut frequencies = RopeTable::frequencies(self.base, self.dims);
        let long = self.long.as_ref().filter(|long| positions > long.beyond);
        let factors = long.map(|long| &long.factors).or(self.factors.as_ref());
        for (pair, frequency) in frequencies.iter_mut().enumerate() {
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            *frequency /= factor * self.linear_factor;
            if let Some(yarn) = &self.yarn {
                *frequency *= yarn.stretch(self.base, self.dims, pair);
            }
        }
        let (style, dims, magnitude) = (self.style, self.dims, self.magnitude);
        RopeTable::new(style, dims, &frequencies, magnitude, positions)
    }
}
