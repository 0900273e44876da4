//! How much memory a model will take, before any of it is taken.

use redline_compute::{KvFormat, KvShape};
use redline_gguf::Gguf;

use crate::load::{Limits, Output};
use crate::{Error, LoadOptions, Properties};

/// Bytes a loaded model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights, mapped from the file.
    pub weight_bytes: u64,
    /// The KV cache.
    pub kv_bytes: u64,
    /// Activations, logits and rotation tables. What a backend keeps for itself is not among them:
    /// with `Cpu` 6.5 bytes for each value of the largest buffer (activations quantised in two
    /// groupings, by rows and by slabs, and once more between the halves of a feed-forward network);
    /// and for each thread 1 MiB (float products, gated panels), 0.15 MiB (attention) and, for every
    /// 16 elements of a head, 25 KiB and 2 KiB more for each 256 positions of the cache. Of the 6.5
    /// bytes and the 1 MiB only what steps touch becomes resident.
    pub scratch_bytes: u64,
}

impl MemoryPlan {
    /// Plans a load with `options`.
    ///
    /// # Errors
    /// If the metadata or the options make no sense, or the sum overflows 64 bits.
    pub fn new(gguf: &Gguf<'_>, options: &LoadOptions) -> Result<Self, Error> {
        let properties = Properties::from_gguf(gguf)?;
        let limits = Limits::resolve(&properties, options)?;
        Self::with_limits(gguf, &properties, &limits)
    }

    pub(crate) fn with_limits(
        gguf: &Gguf<'_>,
        properties: &Properties,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let weight_bytes = gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.data.len() as u64)
            .sum();
        let too_large = |option, found| Error::Option {
            option,
            expected: "a size below 2^64 bytes".to_owned(),
            found,
        };
        let page_bytes = kv_shape(properties, limits.kv_format, 1).page_bytes() as u64;
        let kv_bytes = page_bytes
            .checked_mul(limits.kv_pages as u64)
            .ok_or_else(|| too_large("kv_pages", limits.kv_pages))?;
        let scratch_bytes = scratch_bytes(properties, limits)
            .ok_or_else(|| too_large("max_step_tokens", limits.max_step_tokens))?;
        Ok(Self {
            weight_bytes,
            kv_bytes,
            scratch_bytes,
        })
    }

    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes
            .saturating_add(self.kv_bytes)
            .saturating_add(self.scratch_bytes)
    }
}

/// The model's KV cache with `pages` pages.
pub(crate) fn kv_shape(properties: &Properties, format: KvFormat, pages: usize) -> KvShape {
    KvShape {
        layers: properties.layers.len(),
        pages,
        kv_heads: properties.kv_heads,
        head_dim: properties.head_dim,
        format,
    }
}

/// The buffers of `Scratch` and the tables of cosines and sines.
fn scratch_bytes(properties: &Properties, limits: &Limits) -> Option<u64> {
    let float = size_of::<f32>() as u64;
    let p = properties;
    // Networks of a token, and what a mixture adds: logits, results, and the rows of one expert.
    let (networks, mixture) = p.experts.map_or((1, 0), |experts| {
        let results = experts.per_token * p.hidden;
        (experts.per_token, experts.count + results + p.hidden)
    });
    let heads = 2 * p.heads * p.head_dim + 2 * p.kv_heads * p.head_dim;
    let token_width = 3 * p.hidden + heads + 2 * networks * p.feed_forward + mixture;
    let row_width = match limits.output {
        Output::Logits => 2 * p.hidden + p.vocab,
        Output::Hidden => 2 * p.hidden,
    };
    let rope_width: usize = p.ropes.iter().map(|rope| rope.dims).sum();
    let product =
        |count: usize, width: usize| (count as u64).checked_mul(width as u64)?.checked_mul(float);
    product(limits.max_step_tokens, token_width)?
        .checked_add(product(limits.max_logit_rows, row_width)?)?
        .checked_add(product(limits.context, rope_width)?)
}
