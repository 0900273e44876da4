//! Attention over cached keys and values.

use redline_compute::{
    AttentionJob, AttentionShape, AttentionSpan, Backend, Cpu, Isa, KvFormat, KvShape, KvSlot,
    PAGE_POSITIONS, PageId,
};

use super::lab::{self, Lab};
use super::{Cost, Outputs, Work};

/// Heads of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// Layers whose keys and values are read in turn.
const LAYERS: usize = 8;

/// Queries at the end of a sequence, in one layer after the other.
pub(super) struct Attention {
    backend: Cpu,
    heads: Heads,
    stored: KvShape,
    tokens: usize,
    depth: usize,
    cache: <Cpu as Backend>::KvCache,
    pages: Vec<PageId>,
    /// `[tokens, heads · head_dim]`
    queries: Vec<f32>,
    q: <Cpu as Backend>::Buffer,
    /// `[tokens, heads · head_dim]`
    out: <Cpu as Backend>::Buffer,
    layer: usize,
}

impl Attention {
    pub(super) fn new(
        lab: &Lab,
        (heads, format): (Heads, KvFormat),
        tokens: usize,
        depth: usize,
    ) -> Self {
        let mut backend = lab.backend();
        let positions = depth + tokens;
        let pages: Vec<PageId> = (0..positions.div_ceil(PAGE_POSITIONS) as u32)
            .map(PageId)
            .collect();
        let stored = KvShape {
            layers: LAYERS,
            pages: pages.len(),
            kv_heads: heads.kv_heads,
            head_dim: heads.head_dim,
            format,
        };
        let mut cache = backend.kv_cache(stored);
        let width = heads.kv_heads * heads.head_dim;
        let keys = lab::values(3, positions * width);
        let keys = lab::buffer(&mut backend, width, &keys);
        let values = lab::values(4, positions * width);
        let values = lab::buffer(&mut backend, width, &values);
        let slots: Vec<KvSlot> = (0..positions)
            .map(|position| KvSlot {
                page: pages[position / PAGE_POSITIONS],
                offset: position % PAGE_POSITIONS,
            })
            .collect();
        for layer in 0..LAYERS {
            backend.append_kv(&mut cache, layer, &slots, &keys, &values);
        }
        let width = heads.heads * heads.head_dim;
        let queries = lab::values(5, tokens * width);
        let q = lab::buffer(&mut backend, width, &queries);
        let out = backend.buffer(tokens, width);
        Self {
            backend,
            heads,
            stored,
            tokens,
            depth,
            cache,
            pages,
            queries,
            q,
            out,
            layer: 0,
        }
    }

    fn job(&self) -> AttentionJob<'static, Cpu> {
        let shape = AttentionShape {
            layer: self.layer,
            heads: self.heads.heads,
            kv_heads: self.heads.kv_heads,
            head_dim: self.heads.head_dim,
            scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            window: None,
            causal: true,
        };
        AttentionJob { shape, sinks: None }
    }

    /// The last query's result, by scalar code.
    fn scalar(&self) -> Vec<f32> {
        let width = self.heads.heads * self.heads.head_dim;
        let mut backend = Cpu::new(Isa::Scalar, 1);
        // What a backend needs for a cache's sizes, it makes together with a cache.
        let _unused = backend.kv_cache(self.stored);
        let query = &self.queries[self.queries.len() - width..];
        let q = lab::buffer(&mut backend, width, query);
        let mut out = backend.buffer(1, width);
        let span = AttentionSpan {
            row: 0,
            rows: 1,
            position: self.depth + self.tokens - 1,
            pages: &self.pages,
        };
        backend.attention(&self.cache, self.job(), &[span], &q, &mut out);
        backend.read(&out).to_vec()
    }
}

impl Work for Attention {
    fn cost(&self) -> Cost {
        let Heads {
            heads,
            kv_heads,
            head_dim,
        } = self.heads;
        let positions = self.depth + self.tokens;
        let bytes = positions * 2 * kv_heads * self.stored.format.vector_bytes(head_dim);
        // Each query sees the positions up to its own.
        let seen: usize = (self.depth + 1..=positions).sum();
        Cost {
            set_bytes: LAYERS * bytes,
            bytes: bytes as f64,
            int8: 0.0,
            f32: 2.0 * 2.0 * (heads * head_dim * seen) as f64,
        }
    }

    fn outputs(&mut self) -> Outputs {
        let scalar = self.scalar();
        self.call();
        let out = self.backend.read(&self.out);
        Outputs {
            ours: out[out.len() - scalar.len()..].to_vec(),
            scalar,
        }
    }

    fn call(&mut self) {
        let span = AttentionSpan {
            row: 0,
            rows: self.tokens,
            position: self.depth,
            pages: &self.pages,
        };
        let job = self.job();
        (self.backend).attention(&self.cache, job, &[span], &self.q, &mut self.out);
        self.layer = (self.layer + 1) % LAYERS;
    }
}
