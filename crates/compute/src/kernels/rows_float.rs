//! Four weight rows of a float format times a few tokens: sixteen chains, chain = k mod 16.

use super::matmul::prefetch;
use crate::quant::{BFloat, Block, Float, Half};
use crate::simd::Simd;

/// A float storage format.
pub(super) trait FloatFormat: Block {
    /// Sixteen consecutive weights, widened exactly. `bytes` holds exactly those.
    fn sixteen<S: Simd>(s: S, bytes: &[u8]) -> S::F32;
}

impl FloatFormat for Float {
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, bytes: &[u8]) -> S::F32 {
        s.load_bytes(&bytes.as_chunks().0[0])
    }
}

impl FloatFormat for Half {
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, bytes: &[u8]) -> S::F32 {
        s.widen_f16(&bytes.as_chunks().0[0])
    }
}

impl FloatFormat for BFloat {
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, bytes: &[u8]) -> S::F32 {
        s.widen_bf16(&bytes.as_chunks().0[0])
    }
}

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: FloatFormat, S: Simd, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [&[f32]; T],
) -> [[f32; 4]; T] {
    let step = 16 * size_of::<F>();
    let steps = x[0].len() / 16;
    let mut acc = [[s.zero(); 4]; T];
    for i in 0..steps {
        let mut weights = [s.zero(); 4];
        for r in 0..4 {
            let bytes = &rows[r][i * step..][..step];
            prefetch(s, bytes);
            weights[r] = F::sixteen(s, bytes);
        }
        for t in 0..T {
            let x = s.load(&x[t].as_chunks().0[i]);
            for r in 0..4 {
                acc[t][r] = s.fma(weights[r], x, acc[t][r]);
            }
        }
    }
    if !x[0].len().is_multiple_of(16) {
        // The tail, zero-padded.
        for r in 0..4 {
            let mut bytes = [0; 64];
            let tail = &rows[r][steps * step..];
            bytes[..tail.len()].copy_from_slice(tail);
            let weights = F::sixteen(s, &bytes[..step]);
            for t in 0..T {
                let x = s.load_partial(&x[t][steps * 16..]);
                acc[t][r] = s.fma(weights, x, acc[t][r]);
            }
        }
    }
    let mut out = [[0.0; 4]; T];
    for t in 0..T {
        for r in 0..4 {
            out[t][r] = s.sum(acc[t][r]);
        }
    }
    out
}
