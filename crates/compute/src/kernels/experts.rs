//! Choosing experts, and the weighted sum of what they give.

use super::math;
use crate::Routing;
use crate::experts::MAX_EXPERTS_PER_TOKEN;
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Chooses the experts of consecutive tokens: `ids.len() / tokens` of the logits of each, in
/// ascending order, and their weights.
///
/// The largest logits win, the lower id among equal ones; a NaN is less than any number. With m the
/// largest logit and p = exp(logit − m), a weight is p / Σ p, the sum in sixteen chains over the
/// chosen experts or over all, by ascending id.
pub(crate) fn choose(
    isa: Isa,
    routing: Routing,
    logits: &[f32],
    experts: usize,
    (ids, weights): (&mut [u32], &mut [f32]),
) {
    assert!(logits.len().is_multiple_of(experts), "whole tokens");
    assert_eq!(ids.len(), weights.len());
    let tokens = logits.len() / experts;
    if tokens == 0 {
        return;
    }
    let per_token = ids.len() / tokens;
    assert!((1..=experts.min(MAX_EXPERTS_PER_TOKEN)).contains(&per_token));
    for ((logits, ids), weights) in logits
        .chunks_exact(experts)
        .zip(ids.chunks_exact_mut(per_token))
        .zip(weights.chunks_exact_mut(per_token))
    {
        let largest = largest(logits, ids);
        for (weight, id) in weights.iter_mut().zip(&*ids) {
            *weight = logits[*id as usize];
        }
        let all = match routing {
            Routing::SoftmaxOfChosen => None,
            Routing::SoftmaxOfAll => Some(logits),
        };
        dispatch(
            isa,
            Softmax {
                all,
                largest,
                weights,
            },
        );
    }
}

/// The ids of the largest logits, ascending; gives the largest logit.
fn largest(logits: &[f32], ids: &mut [u32]) -> f32 {
    let mut best = [(f32::NEG_INFINITY, 0_u32); MAX_EXPERTS_PER_TOKEN];
    let best = &mut best[..ids.len()];
    let mut found = 0;
    for (id, logit) in (0..).zip(logits) {
        let logit = if logit.is_nan() {
            f32::NEG_INFINITY
        } else {
            *logit
        };
        let mut at = found;
        while at > 0 && best[at - 1].0 < logit {
            at -= 1;
        }
        if at < best.len() {
            found = (found + 1).min(best.len());
            best[at..found].rotate_right(1);
            best[at] = (logit, id);
        }
    }
    let largest = best[0].0;
    for (id, (_, chosen)) in ids.iter_mut().zip(&*best) {
        *id = *chosen;
    }
    ids.sort_unstable();
    largest
}

/// Chosen logits to weights, in place.
struct Softmax<'a> {
    /// All logits, where the sum is over all.
    all: Option<&'a [f32]>,
    largest: f32,
    weights: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let largest = s.splat(self.largest);
        let (vectors, tail) = self.weights.as_chunks_mut::<16>();
        for weights in vectors.iter_mut() {
            s.store(math::exp(s, s.sub(s.load(weights), largest)), weights);
        }
        if !tail.is_empty() {
            let p = math::exp(s, s.sub(s.load_partial(tail), largest));
            s.store_partial(p, tail);
        }
        let mut chains = s.zero();
        match self.all {
            None => {
                for weights in vectors.iter() {
                    chains = s.add(chains, s.load(weights));
                }
                if !tail.is_empty() {
                    chains = s.add(chains, s.load_partial(tail));
                }
            }
            Some(logits) => {
                let (logits, rest) = logits.as_chunks::<16>();
                for logits in logits {
                    chains = s.add(chains, math::exp(s, s.sub(s.load(logits), largest)));
                }
                if !rest.is_empty() {
                    // Padding must be zero after the exponential is taken.
                    let mut p = [0.0; 16];
                    let part = &mut p[..rest.len()];
                    s.store_partial(math::exp(s, s.sub(s.load_partial(rest), largest)), part);
                    chains = s.add(chains, s.load(&p));
                }
            }
        }
        let sum = s.sum(chains);
        for weight in self.weights {
            *weight /= sum;
        }
    }
}

/// `out = Σ weights[i] · pairs[rows[i]]` for a token's pairs, `i` ascending, each element one chain of
/// fused multiply-adds from +0; `pairs` are rows as wide as `out`.
pub(crate) fn combine(isa: Isa, weights: &[f32], rows: &[u32], pairs: &[f32], out: &mut [f32]) {
    assert_eq!(weights.len(), rows.len());
    dispatch(
        isa,
        Combine {
            weights,
            rows,
            pairs,
            out,
        },
    );
}

struct Combine<'a> {
    weights: &'a [f32],
    rows: &'a [u32],
    pairs: &'a [f32],
    out: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let width = self.out.len();
        let row = |row: u32| &self.pairs[row as usize * width..][..width];
        let (out, tail) = self.out.as_chunks_mut::<16>();
        let whole = out.len() * 16;
        for (i, out) in out.iter_mut().enumerate() {
            let mut sum = s.zero();
            for (weight, at) in self.weights.iter().zip(self.rows) {
                let x = s.load(&row(*at).as_chunks().0[i]);
                sum = s.fma(s.splat(*weight), x, sum);
            }
            s.store(sum, out);
        }
        if !tail.is_empty() {
            let mut sum = s.zero();
            for (weight, at) in self.weights.iter().zip(self.rows) {
                let x = s.load_partial(&row(*at)[whole..]);
                sum = s.fma(s.splat(*weight), x, sum);
            }
            s.store_partial(sum, tail);
        }
    }
}
