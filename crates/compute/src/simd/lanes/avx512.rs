//! Sixteen tokens in one 512-bit vector.
#![allow(
    clippy::needless_range_loop,
    reason = "one index for a row, a slab or a step names the same thing in several arrays"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Lanes, Quad, Sixteen, Stored};
use crate::simd::Avx512;
use crate::simd::avx512::dpwssd;

impl Lanes for Avx512 {
    const WIDE: bool = true;
    // `vpdpbusd` sums without saturation, so the biased weights may use the whole byte.
    const SIGNED_BIAS: u8 = 128;
    type I32 = __m512i;

    #[inline(always)]
    fn i32_zero(self) -> __m512i {
        op!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn i32_load(self, x: &Sixteen<i32>) -> __m512i {
        op!(_mm512_load_si512(x.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn i32_to_f32(self, x: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn mul_add(self, acc: __m512i, a: __m512i, b: i32) -> __m512i {
        let product = op!(_mm512_mullo_epi32(a, _mm512_set1_epi32(b)));
        op!(_mm512_add_epi32(acc, product))
    }

    #[inline(always)]
    fn dot2(self, acc: __m512i, x: &Sixteen<[i16; 2]>, w: [i16; 2]) -> __m512i {
        let x = op!(_mm512_load_si512(x.0.as_ptr().cast()));
        op!(dpwssd(acc, x, _mm512_set1_epi32(bytemuck::cast(w))))
    }

    #[inline(always)]
    fn dots<F: Stored, const Q: usize, const R: usize, const V: usize>(
        self,
        start: [__m512i; V],
        weights: [&[[u8; 4]; Q]; R],
        x: [&[Sixteen<Quad>; Q]; V],
    ) -> [[__m512i; V]; R] {
        let mut acc = [start; R];
        for k in 0..Q {
            let mut lanes = [self.i32_zero(); V];
            for v in 0..V {
                lanes[v] = op!(_mm512_load_si512(x[v][k].0.as_ptr().cast()));
            }
            for r in 0..R {
                let w = op!(_mm512_set1_epi32(i32::from_ne_bytes(weights[r][k])));
                for v in 0..V {
                    acc[r][v] = op!(_mm512_dpbusd_epi32(acc[r][v], w, lanes[v]));
                }
            }
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = op!(keep_512(acc[r][v]));
                }
            }
        }
        acc
    }

    #[inline(always)]
    fn sums(self, first: &[Sixteen<Quad>; 4], second: &[Sixteen<Quad>; 4]) -> [[i16; 2]; 16] {
        let mut sums = [self.i32_zero(); 2];
        for (sums, quads) in sums.iter_mut().zip([first, second]) {
            for quad in quads {
                let x = op!(_mm512_load_si512(quad.0.as_ptr().cast()));
                *sums = op!(_mm512_dpbusd_epi32(*sums, _mm512_set1_epi8(1), x));
            }
        }
        let [first, second] = sums;
        let high = op!(_mm512_slli_epi32::<16>(second));
        let pairs = op!(_mm512_mask_blend_epi16(0xaaaa_aaaa, first, high));
        let mut out = [[0; 2]; 16];
        op!(_mm512_storeu_si512(out.as_mut_ptr().cast(), pairs));
        out
    }

    #[inline(always)]
    fn quads(self, values: [__m512; 4]) -> Sixteen<Quad> {
        let mut out = Sixteen([[0; 4]; 16]);
        let quads = op!(quads(values));
        op!(_mm512_store_si512(out.0.as_mut_ptr().cast(), quads));
        out
    }

    #[inline(always)]
    fn sum_each(self, x: [__m512; 16]) -> __m512 {
        op!(sum_each_512(x))
    }

    #[inline(always)]
    fn transpose(self, x: [__m512; 16]) -> [__m512; 16] {
        op!(transpose_512(x))
    }
}

/// Holds a step's sum in a register before the next step begins. Left alone, the compiler takes all
/// steps of one slab, then all of the next, and the weights' broadcasts go through the stack.
#[inline]
#[target_feature(enable = "avx512f")]
fn keep_512(mut x: __m512i) -> __m512i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {} */", inout(zmm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}

/// Each of four steps adds halves of two vectors at once: the canonical tree's own steps.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_each_512(x: [__m512; 16]) -> __m512 {
    let mut groups = [x[0]; 4];
    for i in 0..4 {
        // x0+x2 and x1+x3 of two vectors, then their sums: the four groups' sums of four vectors.
        let pairs = |a, b| {
            _mm512_add_ps(
                _mm512_shuffle_ps::<0b01_00_01_00>(a, b),
                _mm512_shuffle_ps::<0b11_10_11_10>(a, b),
            )
        };
        let (first, second) = (
            pairs(x[4 * i], x[4 * i + 1]),
            pairs(x[4 * i + 2], x[4 * i + 3]),
        );
        groups[i] = _mm512_add_ps(
            _mm512_shuffle_ps::<0b10_00_10_00>(first, second),
            _mm512_shuffle_ps::<0b11_01_11_01>(first, second),
        );
    }
    // g0+g2 and g1+g3, then their sum.
    let halves = |a, b| {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        )
    };
    let (first, second) = (halves(groups[0], groups[1]), halves(groups[2], groups[3]));
    _mm512_add_ps(
        _mm512_shuffle_f32x4::<0b10_00_10_00>(first, second),
        _mm512_shuffle_f32x4::<0b11_01_11_01>(first, second),
    )
}

/// Four steps of pairs: within 128 bits by ones and twos, then the 128-bit quarters likewise.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_512(x: [__m512; 16]) -> [__m512; 16] {
    let mut y = x;
    for i in (0..16).step_by(4) {
        let low = [
            _mm512_unpacklo_ps(x[i], x[i + 1]),
            _mm512_unpacklo_ps(x[i + 2], x[i + 3]),
        ];
        let high = [
            _mm512_unpackhi_ps(x[i], x[i + 1]),
            _mm512_unpackhi_ps(x[i + 2], x[i + 3]),
        ];
        y[i] = _mm512_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
        y[i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
        y[i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
        y[i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
    }
    // Quarter q of `y[4 i + j]` has lanes 4 i .. 4 i + 4 of result 4 q + j.
    let mut out = y;
    for j in 0..4 {
        let first = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(y[j], y[4 + j]),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(y[8 + j], y[12 + j]),
        ];
        let second = [
            _mm512_shuffle_f32x4::<0b11_01_11_01>(y[j], y[4 + j]),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(y[8 + j], y[12 + j]),
        ];
        out[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(first[0], first[1]);
        out[8 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(first[0], first[1]);
        out[4 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(second[0], second[1]);
        out[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(second[0], second[1]);
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn quads([a, b, c, d]: [__m512; 4]) -> __m512i {
    let first = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    let second = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
    // Of every four tokens all of `a`, all of `b` and so on: a byte of each in turn.
    let in_turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_shuffle_epi8(
        _mm512_packs_epi16(first, second),
        _mm512_broadcast_i32x4(in_turn),
    )
}
