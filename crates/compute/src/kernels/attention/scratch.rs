//! What one thread's attention works in.

use std::ops::Range;

use super::CHUNK;
use super::lines::Lines;
use super::records::Records;
use super::softmax::{self, Merge, Moments};
use crate::backend::PAGE_POSITIONS;
use crate::simd::Simd;

/// Queries of a tile, at most: enough that widening keys and values does not show, few enough that
/// their scores stay in the second cache.
pub(super) const QUERIES: usize = 128;
/// Vectors of output dimensions that values are widened in.
pub(super) const VECTORS: usize = 4;

/// Buffers that are as large as any piece needs.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Sixteen keys, `[vectors][16 elements][16 positions]`
    pub(super) keys: Lines,
    /// A page of values, 64 output dimensions of it
    pub(super) values: Lines,
    /// `[queries, vectors]`
    pub(super) q: Lines,
    /// `[queries, CHUNK]`: scores, then weights of a chunk's positions
    pub(super) weights: Lines,
    pub(super) chunk: Moments,
    moments: Moments,
    merge: Merge,
    /// `[queries, vectors]`
    pub(super) chunk_out: Lines,
    /// `[queries, vectors]`
    out: Lines,
    pub(super) records: Records,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            keys: Lines::default(),
            values: Lines::zeros(PAGE_POSITIONS * VECTORS),
            q: Lines::default(),
            weights: Lines::zeros(QUERIES * CHUNK / 16),
            chunk: Moments::NONE,
            moments: Moments::NONE,
            merge: Merge::NONE,
            chunk_out: Lines::default(),
            out: Lines::default(),
            records: Records::default(),
        }
    }

    /// Makes room for heads of `head_dim` elements and sequences of `positions`.
    pub(crate) fn reserve(&mut self, head_dim: usize, positions: usize) {
        let vectors = head_dim.div_ceil(16);
        if self.keys.len() < 16 * vectors {
            self.keys = Lines::zeros(16 * vectors);
            self.q = Lines::zeros(QUERIES * vectors);
            self.chunk_out = Lines::zeros(QUERIES * vectors);
            self.out = Lines::zeros(QUERIES * vectors);
        }
        self.records.reserve(vectors, positions.div_ceil(CHUNK));
    }

    /// Takes a recorded chunk for the one just computed.
    pub(super) fn load_chunk(&mut self, maxima: &[f32], sums: &[f32], outs: &[[f32; 16]]) {
        self.chunk.maxima[..maxima.len()].copy_from_slice(maxima);
        self.chunk.sums[..sums.len()].copy_from_slice(sums);
        self.chunk_out[..outs.len()].copy_from_slice(outs);
    }

    /// Merges the chunk just computed into the state of `queries`, or makes it their state.
    #[inline(always)]
    pub(super) fn merge_chunk<S: Simd>(
        &mut self,
        s: S,
        queries: Range<usize>,
        vectors: usize,
        is_first: bool,
    ) {
        if queries.is_empty() {
            return;
        }
        let columns = queries.start * vectors..queries.end * vectors;
        let (out, chunk_out) = (&mut self.out[columns.clone()], &self.chunk_out[columns]);
        if is_first {
            out.copy_from_slice(chunk_out);
            self.moments.copy(&self.chunk, queries);
            return;
        }
        self.merge.prepare(s, &queries, &self.moments, &self.chunk);
        for (query, (out, chunk_out)) in queries.zip(
            out.chunks_exact_mut(vectors)
                .zip(chunk_out.chunks_exact(vectors)),
        ) {
            self.merge
                .merge(s, query, &mut self.moments, (out, chunk_out));
        }
    }

    /// The outputs of `query`, divided, into `to`; `sink` is merged before.
    #[inline(always)]
    pub(super) fn divide<S: Simd>(
        &self,
        s: S,
        query: usize,
        vectors: usize,
        sink: Option<f32>,
        to: &mut [f32],
    ) {
        let sum = s.splat(self.moments.sums[query]);
        let out = &self.out[query * vectors..][..vectors];
        let places = out.iter().zip(to.chunks_mut(16));
        let Some(sink) = sink else {
            for (out, to) in places {
                s.store_partial(s.div(s.load(out), sum), to);
            }
            return;
        };
        let maximum = s.splat(self.moments.maxima[query]);
        let (a, sum) = softmax::merge_sink(s, maximum, sum, s.splat(sink));
        for (out, to) in places {
            s.store_partial(s.div(s.mul(s.load(out), a), sum), to);
        }
    }
}

/// Weights of `N` queries from `first` on.
#[inline(always)]
pub(super) fn weights_of<const N: usize>(
    weights: &[[f32; 16]],
    first: usize,
) -> &[[f32; CHUNK]; N] {
    let (weights, _) = weights.as_flattened().as_chunks();
    weights[first..]
        .first_chunk()
        .expect("weights of every query")
}
