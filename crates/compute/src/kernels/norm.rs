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
        let moments = Moments::of(s, self.norm, self.x);
        let (x, x_tail) = self.x.as_chunks::<16>();
        let (w, w_tail) = self.weight.as_chunks::<16>();
        let (out, out_tail) = self.out.as_chunks_mut::<16>();
        for (i, ((x, w), out)) in x.iter().zip(w).zip(out).enumerate() {
            let y = moments.scaled(s, s.load(x));
            let y = match self.bias {
                Some(bias) => s.fma(y, s.load(w), s.load(&bias.as_chunks().0[i])),
                None => s.mul(y, s.load(w)),
            };
            s.store(y, out);
        }
        let y = moments.scaled(s, s.load_partial(x_tail));
        let w = s.load_partial(w_tail);
        let y = match self.bias {
            Some(bias) => s.fma(y, w, s.load_partial(bias.as_chunks::<16>().1)),
            None => s.mul(y, w),
        };
        s.store_partial(y, out_tail);
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
        let moments = Moments::of(s, self.norm, self.x);
        let (x, x_tail) = self.x.as_chunks_mut::<16>();
        let (w, w_tail) = self.weight.as_chunks::<16>();
        for (x, w) in x.iter_mut().zip(w) {
            s.store(s.mul(moments.scaled(s, s.load(x)), s.load(w)), x);
        }
        let y = moments.scaled(s, s.load_partial(x_tail));
        s.store_partial(s.mul(y, s.load_partial(w_tail)), x_tail);
    }
}

/// What is subtracted from, then multiplied with each element.
struct Moments {
    mean: Option<f32>,
    scale: f32,
}

impl Moments {
    #[inline(always)]
    fn scaled<S: Simd>(&self, s: S, x: S::F32) -> S::F32 {
        let centred = match self.mean {
            Some(mean) => s.sub(x, s.splat(mean)),
            None => x,
        };
        s.mul(centred, s.splat(self.scale))
    }

    #[inline(always)]
    fn of<S: Simd>(s: S, norm: Norm, x: &[f32]) -> Self {
        let n = x.len() as f32;
        let (vectors, tail) = x.as_chunks::<16>();
        let (mean, eps) = match norm {
            Norm::Rms { eps } => (None, eps),
            Norm::Layer { eps } => {
                let mut sum = s.zero();
                for x in vectors {
                    sum = s.add(sum, s.load(x));
                }
                if !tail.is_empty() {
                    sum = s.add(sum, s.load_partial(tail));
                }
                (Some(s.sum(sum) / n), eps)
            }
        };
        let centre = s.splat(mean.unwrap_or(0.0));
        let mut squares = s.zero();
        for x in vectors {
            let deviation = s.sub(s.load(x), centre);
            squares = s.fma(deviation, deviation, squares);
        }
        if !tail.is_empty() {
            // Padding must be zero after the mean is subtracted.
            let mut padded = [mean.unwrap_or(0.0); 16];
            padded[..tail.len()].copy_from_slice(tail);
            let deviation = s.sub(s.load(&padded), centre);
            squares = s.fma(deviation, deviation, squares);
        }
        let scale = 1.0 / (s.sum(squares) / n + eps).sqrt();
        Self { mean, scale }
    }
}
