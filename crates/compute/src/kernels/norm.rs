//! Row normalisation.

use crate::Norm;
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Normalises consecutive rows of `weight.len()` values from `input` into `out`.
///
/// Sums run in sixteen chains over the row (zero-padded tail) and the canonical tree;
/// `scale = 1 / sqrt(sum / n + eps)`, then `(x · scale) · w` (RMS) or
/// `fma((x − mean) · scale, w, b)` (layer norm; without bias the plain product).
pub(crate) fn rows(
    isa: Isa,
    norm: Norm,
    weight: &[f32],
    bias: Option<&[f32]>,
    input: &[f32],
    out: &mut [f32],
) {
    assert_eq!(input.len(), out.len());
    assert!(input.len().is_multiple_of(weight.len()), "whole rows");
    let width = weight.len();
    for (x, out) in input.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        dispatch(
            isa,
            Row {
                norm,
                weight,
                bias,
                x,
                out,
            },
        );
    }
}

/// Normalises in place.
pub(crate) fn rows_in_place(isa: Isa, norm: Norm, weight: &[f32], x: &mut [f32]) {
    assert!(x.len().is_multiple_of(weight.len()), "whole heads");
    for x in x.chunks_exact_mut(weight.len()) {
        dispatch(isa, RowInPlace { norm, weight, x });
    }
}

struct Row<'a> {
    norm: Norm,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (mean, scale) = moments(s, self.norm, self.x);
        let (mean, scale) = (s.splat(mean), s.splat(scale));
        let steps = self
            .x
            .chunks(16)
            .zip(self.weight.chunks(16))
            .zip(self.out.chunks_mut(16));
        for (i, ((x, w), out)) in steps.enumerate() {
            let w = s.load_partial(w);
            let mut y = s.load_partial(x);
            if let Norm::Layer { .. } = self.norm {
                y = s.sub(y, mean);
            }
            y = s.mul(y, scale);
            y = match self.bias {
                Some(bias) => s.fma(y, w, s.load_partial(&bias[i * 16..][..out.len()])),
                None => s.mul(y, w),
            };
            s.store_partial(y, out);
        }
    }
}

struct RowInPlace<'a> {
    norm: Norm,
    weight: &'a [f32],
    x: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for RowInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (mean, scale) = moments(s, self.norm, self.x);
        let (mean, scale) = (s.splat(mean), s.splat(scale));
        for (x, w) in self.x.chunks_mut(16).zip(self.weight.chunks(16)) {
            let mut y = s.load_partial(x);
            if let Norm::Layer { .. } = self.norm {
                y = s.sub(y, mean);
            }
            s.store_partial(s.mul(s.mul(y, scale), s.load_partial(w)), x);
        }
    }
}

/// What is subtracted from, then multiplied with each element.
#[inline(always)]
fn moments<S: Simd>(s: S, norm: Norm, x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let (mean, eps) = match norm {
        Norm::Rms { eps } => (0.0, eps),
        Norm::Layer { eps } => {
            let mut sum = s.zero();
            for x in x.chunks(16) {
                sum = s.add(sum, s.load_partial(x));
            }
            (s.sum(sum) / n, eps)
        }
    };
    let mut squares = s.zero();
    let mut chunks = x.chunks_exact(16);
    let centre = s.splat(mean);
    for x in &mut chunks {
        let deviation = s.sub(s.load_partial(x), centre);
        squares = s.fma(deviation, deviation, squares);
    }
    if !chunks.remainder().is_empty() {
        // Padding must stay zero after the mean is subtracted.
        let mut padded = [mean; 16];
        padded[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        let deviation = s.sub(s.load(&padded), centre);
        squares = s.fma(deviation, deviation, squares);
    }
    (mean, 1.0 / (s.sum(squares) / n + eps).sqrt())
}
