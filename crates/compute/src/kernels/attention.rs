//! Causal attention of one query head over paged keys and values.
//!
//! Positions are taken in chunks of 256, fixed by absolute position. In a chunk: scores by the
//! sixteen-chain dot product times the scale; their maximum m; p = exp(s − m); sum of p in sixteen
//! chains (chain = position mod 16) and the tree; the output one chain for each dimension,
//! `o = fma(p, v, o)` in position order. Chunks merge ascending by the online-softmax rule (Milakov &
//! Gimelshein 2018): with m' the larger maximum, a = exp(m − m'), b = exp(m_c − m'),
//! `l = fma(l_c, b, l·a)` and `o = fma(o_c, b, o·a)`; at the end `o / l`. Positions that a query does
//! not see are not visited.

use super::math;
use crate::backend::PAGE_POSITIONS;
use crate::cpu::KvCache;
use crate::pool::ColumnsPart;
use crate::simd::{Isa, Kernel, Simd, dispatch};
use crate::{AttentionShape, AttentionSpan, PageId};

/// Positions reduced together, a whole number of pages.
const CHUNK: usize = 256;
const _: () = assert!(CHUNK.is_multiple_of(PAGE_POSITIONS) && PAGE_POSITIONS.is_multiple_of(16));
/// Vectors of output dimensions held in registers.
const GROUP: usize = 4;

/// Attention of every token of every span, for the heads whose columns `out` has.
pub(crate) fn heads(
    isa: Isa,
    cache: &KvCache,
    shape: AttentionShape,
    spans: &[AttentionSpan<'_>],
    (q, out): (&[f32], &mut ColumnsPart<'_>),
) {
    dispatch(
        isa,
        Heads {
            cache,
            shape,
            spans,
            q,
            out,
        },
    );
}

struct Heads<'a, 'b> {
    cache: &'a KvCache,
    shape: AttentionShape,
    spans: &'a [AttentionSpan<'a>],
    q: &'a [f32],
    out: &'a mut ColumnsPart<'b>,
}

impl<S: Simd> Kernel<S> for Heads<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let AttentionShape {
            layer,
            heads,
            kv_heads,
            head_dim,
            scale,
            window,
        } = self.shape;
        let columns = self.out.range();
        for head in columns.start / head_dim..columns.end / head_dim {
            let column = head * head_dim;
            for span in self.spans {
                for i in 0..span.rows {
                    let row = span.row + i;
                    let end = span.position + i + 1;
                    let query = Query {
                        cache: self.cache,
                        layer,
                        kv_head: head / (heads / kv_heads),
                        pages: span.pages,
                        start: window.map_or(0, |window| end.saturating_sub(window)),
                        end,
                        scale,
                        q: &self.q[row * heads * head_dim + column..][..head_dim],
                    };
                    query.attend(s, self.out.row(row, column..column + head_dim));
                }
            }
        }
    }
}

/// One query head and the positions `start..end` it sees.
struct Query<'a> {
    cache: &'a KvCache,
    layer: usize,
    kv_head: usize,
    pages: &'a [PageId],
    start: usize,
    end: usize,
    scale: f32,
    q: &'a [f32],
}

impl Query<'_> {
    #[inline(always)]
    fn attend<S: Simd>(&self, s: S, out: &mut [f32]) {
        let mut maximum = f32::NEG_INFINITY;
        let mut sum = 0.0_f32;
        for chunk in self.start / CHUNK..self.end.div_ceil(CHUNK) {
            let start = self.start.max(chunk * CHUNK);
            let end = self.end.min((chunk + 1) * CHUNK);
            let mut weights = [0.0; CHUNK];
            let (chunk_maximum, chunk_sum) = self.weights(s, start..end, &mut weights);
            if maximum == f32::NEG_INFINITY {
                self.mix(s, start..end, &weights, None, out);
                (maximum, sum) = (chunk_maximum, chunk_sum);
                continue;
            }
            let larger = if maximum < chunk_maximum {
                chunk_maximum
            } else {
                maximum
            };
            let a = exp_one(s, maximum - larger);
            let b = exp_one(s, chunk_maximum - larger);
            self.mix(s, start..end, &weights, Some((a, b)), out);
            sum = chunk_sum.mul_add(b, sum * a);
            maximum = larger;
        }
        for o in out {
            *o /= sum;
        }
    }

    /// Fills `weights[position mod 256]` with exp(score − maximum), zero for positions not in
    /// `positions`; gives the maximum and the weights' sum.
    #[inline(always)]
    fn weights<S: Simd>(
        &self,
        s: S,
        positions: std::ops::Range<usize>,
        weights: &mut [f32; CHUNK],
    ) -> (f32, f32) {
        weights.fill(f32::NEG_INFINITY);
        let width = 2 * self.q.len();
        let mut position = positions.start;
        while position < positions.end {
            let keys = self
                .cache
                .keys(self.layer, self.page(position), self.kv_head);
            let page_end = positions
                .end
                .min((position / PAGE_POSITIONS + 1) * PAGE_POSITIONS);
            while position < page_end {
                let key = &keys[position % PAGE_POSITIONS * width..][..width];
                weights[position % CHUNK] = dot(s, self.q, key) * self.scale;
                position += 1;
            }
        }
        let mut largest = s.splat(f32::NEG_INFINITY);
        let (vectors, _) = weights.as_chunks_mut::<16>();
        for scores in vectors.iter() {
            let scores = s.load(scores);
            largest = s.select_lt(largest, scores, scores, largest);
        }
        let maximum = s.max(largest);
        let mut sum = s.zero();
        for weights in vectors {
            let p = math::exp(s, s.sub(s.load(weights), s.splat(maximum)));
            sum = s.add(sum, p);
            s.store(p, weights);
        }
        (maximum, s.sum(sum))
    }

    /// `out = Σ weight · value` over the positions, or, with `(a, b)`,
    /// `out = fma(Σ weight · value, b, out · a)`.
    #[inline(always)]
    fn mix<S: Simd>(
        &self,
        s: S,
        positions: std::ops::Range<usize>,
        weights: &[f32; CHUNK],
        merge: Option<(f32, f32)>,
        out: &mut [f32],
    ) {
        let head_dim = out.len();
        for (group, out) in out.chunks_mut(16 * GROUP).enumerate() {
            let mut acc = [s.zero(); GROUP];
            let offset = 2 * 16 * GROUP * group;
            let mut position = positions.start;
            while position < positions.end {
                let values = self
                    .cache
                    .values(self.layer, self.page(position), self.kv_head);
                let page_end = positions
                    .end
                    .min((position / PAGE_POSITIONS + 1) * PAGE_POSITIONS);
                while position < page_end {
                    let at = position % PAGE_POSITIONS * 2 * head_dim + offset;
                    let value = &values[at..][..2 * out.len()];
                    let p = s.splat(weights[position % CHUNK]);
                    if let Some(value) = value.first_chunk::<{ 2 * 16 * GROUP }>() {
                        let (value, _) = value.as_chunks::<32>();
                        for i in 0..GROUP {
                            acc[i] = s.fma(p, s.widen_f16(&value[i]), acc[i]);
                        }
                    } else {
                        for (acc, value) in acc.iter_mut().zip(value.chunks(32)) {
                            *acc = s.fma(p, widen_partial(s, value), *acc);
                        }
                    }
                    position += 1;
                }
            }
            for (out, mut acc) in out.chunks_mut(16).zip(acc) {
                if let Some((a, b)) = merge {
                    let before = s.mul(s.load_partial(out), s.splat(a));
                    acc = s.fma(acc, s.splat(b), before);
                }
                s.store_partial(acc, out);
            }
        }
    }

    #[inline(always)]
    fn page(&self, position: usize) -> PageId {
        self.pages[position / PAGE_POSITIONS]
    }
}

/// Sixteen-chain dot product of F32 values and stored half-precision values.
#[inline(always)]
fn dot<S: Simd>(s: S, q: &[f32], key: &[u8]) -> f32 {
    let (q_vectors, q_tail) = q.as_chunks::<16>();
    let (key_vectors, key_tail) = key.as_chunks::<32>();
    let mut acc = s.zero();
    for (q, key) in q_vectors.iter().zip(key_vectors) {
        acc = s.fma(s.load(q), s.widen_f16(key), acc);
    }
    if !q_tail.is_empty() {
        acc = s.fma(s.load_partial(q_tail), widen_partial(s, key_tail), acc);
    }
    s.sum(acc)
}

/// Up to sixteen stored half-precision values, zero-padded.
#[inline(always)]
fn widen_partial<S: Simd>(s: S, bytes: &[u8]) -> S::F32 {
    let mut padded = [0; 32];
    padded[..bytes.len()].copy_from_slice(bytes);
    s.widen_f16(&padded)
}

#[inline(always)]
fn exp_one<S: Simd>(s: S, x: f32) -> f32 {
    let mut lanes = [0.0; 16];
    s.store(math::exp(s, s.splat(x)), &mut lanes);
    lanes[0]
}

/// Stores `x` in half precision, rounded to nearest even.
pub(crate) fn store_half(isa: Isa, x: &[f32], to: &mut [u8]) {
    assert_eq!(2 * x.len(), to.len());
    dispatch(isa, StoreHalf { x, to });
}

struct StoreHalf<'a> {
    x: &'a [f32],
    to: &'a mut [u8],
}

impl<S: Simd> Kernel<S> for StoreHalf<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (x, x_tail) = self.x.as_chunks::<16>();
        let (to, to_tail) = self.to.as_chunks_mut::<32>();
        for (x, to) in x.iter().zip(to) {
            s.narrow_f16(s.load(x), to);
        }
        let mut half = [0; 32];
        s.narrow_f16(s.load_partial(x_tail), &mut half);
        to_tail.copy_from_slice(&half[..to_tail.len()]);
    }
}
