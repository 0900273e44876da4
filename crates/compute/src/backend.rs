//! The verbs a transformer is written in.
//!
//! About sixteen coarse operations on `[tokens, width]` buffers: no broadcasting, no graph, no
//! shapes beyond what a transformer has. A new verb needs a decision record. A GPU backend is the
//! same verbs in another crate.

use crate::{ExpertJob, ExpertRows, Format, RouteShape, Routing, WeightBytes};

/// Positions in one KV page.
pub const PAGE_POSITIONS: usize = 64;

/// One page of a KV cache, an index below the cache's page count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

/// How a row is normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `x / sqrt(mean(x²) + eps) · w` (Zhang & Sennrich 2019).
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
    /// `(x − mean) / sqrt(var + eps) · w + b` (Ba et al. 2016).
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

/// The nonlinearity of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `0.5 x (1 + tanh(√(2/π)(x + 0.044715 x³)))`.
    GeluTanh,
    /// `0.5 x (1 + erf(x / √2))`.
    GeluErf,
    /// `x · sigmoid(1.702 x)` of a gate that is at most 7, times 1 and an `up` that is from −7 to 7
    /// (OpenAI 2025, gpt-oss).
    ClampedSwiglu,
}

/// Which elements of a head a rotation pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `2i` with `2i + 1` (GGUF `llama`).
    Interleaved,
    /// Element `i` with `i + dims/2` (GPT-NeoX; GGUF `qwen2`, `gemma3`).
    Neox,
}

/// Cosines and sines for every position, computed once with scalar F64 code.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// Which elements are paired.
    pub style: RopeStyle,
    /// Rotated elements of each head, even, at most the head's size.
    pub dims: usize,
    /// `[positions, dims/2]`, each `(cos, sin)`.
    pub table: Vec<(f32, f32)>,
}

impl RopeTable {
    /// Tables for positions `0..positions`: angle = `position · frequency`, with
    /// `frequencies[i]` the angular frequency of pair `i` in radians per position. Cosines and
    /// sines are multiplied by `magnitude` before they are rounded: 1 for a rotation proper.
    ///
    /// # Panics
    /// If `dims` is not twice the number of frequencies.
    #[must_use]
    pub fn new(
        style: RopeStyle,
        dims: usize,
        frequencies: &[f64],
        magnitude: f64,
        positions: usize,
    ) -> Self {
        assert_eq!(
            dims,
            2 * frequencies.len(),
            "one frequency for each pair of dims"
        );
        let table = (0..positions)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let angle = position as f64 * frequency;
                    let (cos, sin) = (libm::cos(angle), libm::sin(angle));
                    ((cos * magnitude) as f32, (sin * magnitude) as f32)
                })
            })
            .collect();
        Self { style, dims, table }
    }

    /// The plain frequencies `base^(−2i/dims)`, `i` in `0..dims/2` (Su et al. 2021).
    #[must_use]
    pub fn frequencies(base: f64, dims: usize) -> Vec<f64> {
        (0..dims / 2)
            .map(|i| libm::pow(base, -2.0 * i as f64 / dims as f64))
            .collect()
    }
}

/// Storage of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(non_camel_case_types, reason = "the formats' own names")]
pub enum KvFormat {
    /// Half precision, rounded to nearest even.
    #[default]
    F16,
    /// As they are computed.
    F32,
    /// Eight bits by the rule of activations, in groups of 32 elements of a head (the last may be
    /// shorter) with a scale in half precision.
    Q8_0,
}

/// Dimensions of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Transformer layers.
    pub layers: usize,
    /// Pages of [`PAGE_POSITIONS`] positions.
    pub pages: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Storage format.
    pub format: KvFormat,
}

impl KvFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::F16, Self::F32, Self::Q8_0];

    /// `f16`, `f32` or `q8_0`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of one key or value of `head_dim` elements.
    #[must_use]
    pub const fn vector_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F16 => 2 * head_dim,
            Self::F32 => 4 * head_dim,
            Self::Q8_0 => head_dim + 2 * head_dim.div_ceil(32),
        }
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for KvFormat {
    type Err = UnknownKvFormat;

    fn from_str(s: &str) -> Result<Self, UnknownKvFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == s)
            .ok_or_else(|| UnknownKvFormat {
                found: s.to_owned(),
            })
    }
}

/// A name that is no [`KvFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format of keys and values {found:?}: expected f16, f32 or q8_0")]
pub struct UnknownKvFormat {
    found: String,
}

impl KvShape {
    /// Bytes of one page: all layers, keys and values.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        let vector = self.format.vector_bytes(self.head_dim);
        2 * self.layers * PAGE_POSITIONS * self.kv_heads * vector
    }
}

/// Where one token's key and value go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvSlot {
    /// The page.
    pub page: PageId,
    /// Position within it, below [`PAGE_POSITIONS`].
    pub offset: usize,
}

/// The attention of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// The layer whose keys and values are read.
    pub layer: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Multiplied into each score.
    pub scale: f32,
    /// A query at position p sees positions above `p − window`; `None`: all up to p.
    pub window: Option<usize>,
    /// A query sees no position after its own; else it sees all up to its span's last. Windows are
    /// for causal attention only.
    pub causal: bool,
}

/// Consecutive query tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSpan<'a> {
    /// First row of the span in the query buffer.
    pub row: usize,
    /// Rows (tokens) of the span.
    pub rows: usize,
    /// Position of the first query; row `i` is at `position + i` and its own key is already stored.
    pub position: usize,
    /// The sequence's pages, in order: page `i` holds positions `64 i ..`.
    pub pages: &'a [PageId],
}

/// Attention and what a model has learned for it.
#[derive(Debug)]
pub struct AttentionJob<'a, B: Backend + ?Sized> {
    /// Its sizes.
    pub shape: AttentionShape,
    /// `[heads]`: a score of each head that takes its part of the softmax and has no value.
    pub sinks: Option<&'a B::Vector>,
}

/// One product `out = input · weightsᵀ (+ bias)` of a [`Backend::matmul`] dispatch.
#[derive(Debug)]
pub struct MatmulJob<'a, B: Backend + ?Sized> {
    /// `[rows, cols]`.
    pub weights: &'a B::Matrix,
    /// `[rows]`.
    pub bias: Option<&'a B::Vector>,
    /// `[tokens, rows]`.
    pub out: &'a mut B::Buffer,
}

/// A gated feed-forward network, `down · (activation(gate · x) · (up · x))`.
#[derive(Debug)]
pub struct FeedForward<'a, B: Backend + ?Sized> {
    /// Between the two halves.
    pub activation: Activation,
    /// Gate and up, with weights alike. Their outputs are room to work in.
    pub gate_up: [MatmulJob<'a, B>; 2],
    /// Down, and where the result goes.
    pub down: MatmulJob<'a, B>,
}

/// The verbs. Rows of a buffer are tokens; every verb treats each row alone, so that a token's
/// result never depends on its neighbours (canonical arithmetic, `docs/arithmetic.md`).
///
/// # Panics
/// Every verb asserts that its arguments' shapes agree: a mismatch is a bug of the caller.
pub trait Backend {
    /// Immutable weights `[rows, cols]`, where they are mapped.
    type Matrix: std::fmt::Debug;
    /// Immutable F32 weights of a norm or a bias.
    type Vector: std::fmt::Debug;
    /// Activations `[tokens, width]`, F32.
    type Buffer: std::fmt::Debug;
    /// Paged keys and values of all layers.
    type KvCache: std::fmt::Debug;
    /// Which experts a step's tokens go to.
    type Routes: std::fmt::Debug;

    /// Takes weights stored row after row in `format`.
    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: WeightBytes) -> Self::Matrix;
    /// Takes the values of a norm or a bias.
    fn vector(&self, values: Vec<f32>) -> Self::Vector;
    /// Scratch for up to `max_tokens` rows of `width`, with no rows yet.
    fn buffer(&mut self, max_tokens: usize, width: usize) -> Self::Buffer;
    /// Room for `shape.pages` pages.
    fn kv_cache(&mut self, shape: KvShape) -> Self::KvCache;
    /// Room for the routes of `shape.max_tokens` tokens.
    fn routes(&mut self, shape: RouteShape) -> Self::Routes;

    /// Sets the number of rows of a buffer, at most its maximum. Contents are unspecified.
    fn resize(&self, buffer: &mut Self::Buffer, tokens: usize);
    /// The rows of a buffer, `[tokens, width]`.
    fn read<'a>(&self, buffer: &'a Self::Buffer) -> &'a [f32];

    /// `out[t] = table[ids[t]] · scale`; sets the rows of `out`.
    fn embed(&mut self, table: &Self::Matrix, ids: &[u32], scale: f32, out: &mut Self::Buffer);
    /// Normalises each row of `input`; sets the rows of `out`.
    fn norm(
        &mut self,
        norm: Norm,
        weight: &Self::Vector,
        bias: Option<&Self::Vector>,
        input: &Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// Normalises every head (consecutive `weight.len()` elements of a row) in place.
    fn norm_heads(&mut self, norm: Norm, weight: &Self::Vector, x: &mut Self::Buffer);
    /// All `jobs` on one input, in one dispatch; sets the rows of each `out`. `next` is what the
    /// matmul after this one will multiply first: no result depends on it, but a backend may ask
    /// for its memory in time.
    fn matmul(
        &mut self,
        input: &Self::Buffer,
        jobs: &mut [MatmulJob<'_, Self>],
        next: Option<&Self::Matrix>,
    );
    /// The feed-forward network of every row of `input`, as [`Self::matmul`] and
    /// [`Self::gated_activation`] would give it; `next` as there.
    fn feed_forward(
        &mut self,
        input: &Self::Buffer,
        network: FeedForward<'_, Self>,
        next: Option<&Self::Matrix>,
    );
    /// Rotates every head (consecutive `head_dim` elements) of row `t` by `positions[t]`, in place.
    fn rope(&mut self, table: &RopeTable, head_dim: usize, positions: &[u32], x: &mut Self::Buffer);
    /// Stores row `t` of `k` and `v` (`[tokens, kv_heads · head_dim]`) into `slots[t]` of `layer`.
    fn append_kv(
        &mut self,
        cache: &mut Self::KvCache,
        layer: usize,
        slots: &[KvSlot],
        k: &Self::Buffer,
        v: &Self::Buffer,
    );
    /// Copies the keys and values of all layers in a page to another.
    fn copy_page(&mut self, cache: &mut Self::KvCache, from: PageId, to: PageId);
    /// Attention of every span; sets the rows of `out` (`[tokens, heads · head_dim]`).
    fn attention(
        &mut self,
        cache: &Self::KvCache,
        job: AttentionJob<'_, Self>,
        spans: &[AttentionSpan<'_>],
        q: &Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// `gate = activation(gate) · up`, or what the activation makes of both.
    fn gated_activation(
        &mut self,
        activation: Activation,
        gate: &mut Self::Buffer,
        up: &Self::Buffer,
    );
    /// `x = activation(x)`.
    fn activate(&mut self, activation: Activation, x: &mut Self::Buffer);
    /// `x += y`.
    fn add(&mut self, x: &mut Self::Buffer, y: &Self::Buffer);
    /// Chooses each token's experts by the router's `logits`, `[tokens, experts]`.
    fn route_experts(&mut self, routing: Routing, logits: &Self::Buffer, routes: &mut Self::Routes);
    /// Multiplies each pair of a token and one of its experts with that expert's weights, for all
    /// `jobs`; sets the rows of each `out`. The weights of experts without a token are not touched.
    fn expert_matmul(
        &mut self,
        routes: &mut Self::Routes,
        rows: ExpertRows,
        input: &Self::Buffer,
        jobs: &mut [ExpertJob<'_, Self>],
    );
    /// `out[t] = Σ weight · pairs[row]` over token `t`'s experts; sets the rows of `out`.
    fn combine_experts(
        &mut self,
        routes: &Self::Routes,
        pairs: &Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// Copies the named rows of `input`, in order; sets the rows of `out`.
    fn select(&mut self, input: &Self::Buffer, rows: &[usize], out: &mut Self::Buffer);
}
