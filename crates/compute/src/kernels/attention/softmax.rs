//! Weights of a chunk's positions, and how chunks merge.

use std::ops::Range;

use super::CHUNK;
use super::scratch::QUERIES;
use crate::kernels::math;
use crate::simd::Simd;

/// The maximum score and the sum of weights of each query.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) maxima: [f32; QUERIES],
    pub(super) sums: [f32; QUERIES],
}

impl Moments {
    pub(super) const NONE: Self = Self {
        maxima: [0.0; QUERIES],
        sums: [0.0; QUERIES],
    };

    pub(super) fn copy(&mut self, from: &Self, queries: Range<usize>) {
        self.maxima[queries.clone()].copy_from_slice(&from.maxima[queries.clone()]);
        self.sums[queries.clone()].copy_from_slice(&from.sums[queries]);
    }
}

/// Turns scores of `seen` positions, an offset within the chunk each, into `exp(score − maximum)`,
/// zero elsewhere in their vectors; gives the maximum and the weights' sum.
#[inline(always)]
pub(super) fn weigh<S: Simd>(s: S, seen: Range<usize>, weights: &mut [f32; CHUNK]) -> (f32, f32) {
    let (first, end) = (seen.start / 16, seen.end.div_ceil(16));
    weights[first * 16..seen.start].fill(f32::NEG_INFINITY);
    weights[seen.end..end * 16].fill(f32::NEG_INFINITY);
    let vectors = &mut weights.as_chunks_mut::<16>().0[first..end];
    let mut largest = s.splat(f32::NEG_INFINITY);
    for scores in vectors.iter() {
        let scores = s.load(scores);
        largest = s.max_of(largest, scores);
    }
    let maximum = s.max(largest);
    let mut sum = s.zero();
    for weights in vectors {
        let p = math::exp_up_to_88(s, s.sub(s.load(weights), s.splat(maximum)));
        sum = s.add(sum, p);
        s.store(p, weights);
    }
    (maximum, s.sum(sum))
}

/// What a sink makes of a maximum and a sum: the factor of the outputs and the new sum.
#[inline(always)]
pub(super) fn merge_sink<S: Simd>(
    s: S,
    maximum: S::F32,
    sum: S::F32,
    sink: S::F32,
) -> (S::F32, S::F32) {
    let larger = s.max_of(maximum, sink);
    let a = math::exp_up_to_88(s, s.sub(maximum, larger));
    let b = math::exp_up_to_88(s, s.sub(sink, larger));
    (a, s.add(b, s.mul(sum, a)))
}

/// What the merge of a chunk into the chunks before it multiplies outputs with.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    merged: Moments,
    /// exp(m − m')
    a: [f32; QUERIES],
    /// exp(m_c − m')
    b: [f32; QUERIES],
}

impl Merge {
    pub(super) const NONE: Self = Self {
        merged: Moments::NONE,
        a: [0.0; QUERIES],
        b: [0.0; QUERIES],
    };

    /// Computes the factors of `queries`, and perhaps of some beside them.
    #[inline(always)]
    pub(super) fn prepare<S: Simd>(
        &mut self,
        s: S,
        queries: &Range<usize>,
        before: &Moments,
        chunk: &Moments,
    ) {
        for i in queries.start / 16..queries.end.div_ceil(16) {
            let at = |x: &[f32; QUERIES]| x.as_chunks::<16>().0[i];
            let (m, m_c) = (s.load(&at(&before.maxima)), s.load(&at(&chunk.maxima)));
            let larger = s.max_of(m, m_c);
            let a = math::exp_up_to_88(s, s.sub(m, larger));
            let b = math::exp_up_to_88(s, s.sub(m_c, larger));
            let (l, l_c) = (s.load(&at(&before.sums)), s.load(&at(&chunk.sums)));
            let sum = s.fma(l_c, b, s.mul(l, a));
            s.store(larger, &mut self.merged.maxima.as_chunks_mut().0[i]);
            s.store(sum, &mut self.merged.sums.as_chunks_mut().0[i]);
            s.store(a, &mut self.a.as_chunks_mut().0[i]);
            s.store(b, &mut self.b.as_chunks_mut().0[i]);
        }
    }

    /// Merges query `query`: `out = fma(chunk, b, out · a)`.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(
        &self,
        s: S,
        query: usize,
        moments: &mut Moments,
        (out, chunk): (&mut [[f32; 16]], &[[f32; 16]]),
    ) {
        moments.maxima[query] = self.merged.maxima[query];
        moments.sums[query] = self.merged.sums[query];
        let (a, b) = (s.splat(self.a[query]), s.splat(self.b[query]));
        for (out, chunk) in out.iter_mut().zip(chunk) {
            s.store(s.fma(s.load(chunk), b, s.mul(s.load(out), a)), out);
        }
    }
}
