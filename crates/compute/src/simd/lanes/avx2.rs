//! Sixteen tokens in two 256-bit vectors.
#![allow(
    clippy::needless_range_loop,
    reason = "one index for a row, a slab or a step names the same thing in several arrays"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Lanes, Quad, Sixteen, Stored};
use crate::simd::{Avx2, IntSimd};

impl Lanes for Avx2 {
    const WIDE: bool = false;
    const SIGNED_BIAS: u8 = 0;
    type I32 = [__m256i; 2];

    #[inline(always)]
    fn i32_zero(self) -> [__m256i; 2] {
        [self.zero_i32(); 2]
    }

    #[inline(always)]
    fn i32_load(self, x: &Sixteen<i32>) -> [__m256i; 2] {
        let (halves, _) = x.0.as_chunks::<8>();
        [&halves[0], &halves[1]].map(
            #[inline(always)]
            |half| op!(_mm256_load_si256(half.as_ptr().cast())),
        )
    }

    #[inline(always)]
    fn i32_to_f32(self, x: [__m256i; 2]) -> [__m256; 2] {
        x.map(
            #[inline(always)]
            |x| op!(_mm256_cvtepi32_ps(x)),
        )
    }

    #[inline(always)]
    fn mul_add(self, acc: [__m256i; 2], a: [__m256i; 2], b: i32) -> [__m256i; 2] {
        let mut out = acc;
        for h in 0..2 {
            let product = op!(_mm256_mullo_epi32(a[h], _mm256_set1_epi32(b)));
            out[h] = op!(_mm256_add_epi32(acc[h], product));
        }
        out
    }

    #[inline(always)]
    fn dot2(self, acc: [__m256i; 2], x: &Sixteen<[i16; 2]>, w: [i16; 2]) -> [__m256i; 2] {
        let mut out = acc;
        for (h, x) in x.0.as_chunks::<8>().0.iter().enumerate() {
            let x = op!(_mm256_load_si256(x.as_ptr().cast()));
            let product = op!(_mm256_madd_epi16(x, _mm256_set1_epi32(bytemuck::cast(w))));
            out[h] = op!(_mm256_add_epi32(acc[h], product));
        }
        out
    }

    #[inline(always)]
    fn dots<F: Stored, const Q: usize, const R: usize, const V: usize>(
        self,
        start: [[__m256i; 2]; V],
        weights: [&[[u8; 4]; Q]; R],
        x: [&[Sixteen<Quad>; Q]; V],
    ) -> [[[__m256i; 2]; V]; R] {
        // Sums of pairs that stay within i16, before they are widened.
        let together = if F::SIGNED {
            1
        } else {
            (32767 / (2 * 127 * F::LARGEST)) as usize
        };
        let ones = op!(_mm256_set1_epi16(1));
        let mut acc = [start; R];
        let mut k = 0;
        while k < Q {
            let mut pairs = [[self.i32_zero(); V]; R];
            let first = k;
            while k < Q && k < first + together {
                for v in 0..V {
                    for (h, x) in x[v][k].0.as_chunks::<8>().0.iter().enumerate() {
                        let x = op!(_mm256_load_si256(x.as_ptr().cast()));
                        for r in 0..R {
                            let w = i32::from_ne_bytes(weights[r][k]);
                            let w = op!(_mm256_set1_epi32(w));
                            let sums = if F::SIGNED {
                                op!(maddubs_signed(w, x))
                            } else {
                                op!(_mm256_maddubs_epi16(w, x))
                            };
                            pairs[r][v][h] = if k == first {
                                sums
                            } else {
                                op!(_mm256_add_epi16(pairs[r][v][h], sums))
                            };
                        }
                    }
                }
                for r in 0..R {
                    for v in 0..V {
                        for h in 0..2 {
                            pairs[r][v][h] = op!(keep_256(pairs[r][v][h]));
                        }
                    }
                }
                k += 1;
            }
            for r in 0..R {
                for v in 0..V {
                    for h in 0..2 {
                        let sums = op!(_mm256_madd_epi16(pairs[r][v][h], ones));
                        acc[r][v][h] = op!(_mm256_add_epi32(acc[r][v][h], sums));
                    }
                }
            }
        }
        acc
    }

    #[inline(always)]
    fn sums(self, first: &[Sixteen<Quad>; 4], second: &[Sixteen<Quad>; 4]) -> [[i16; 2]; 16] {
        let mut out = [[0; 2]; 16];
        let (halves, _) = out.as_chunks_mut::<8>();
        for (h, out) in halves.iter_mut().enumerate() {
            // Pairs of four quads fit i16 many times over; then pairs of pairs are i32.
            let mut sums = [self.zero_i32(); 2];
            for (sums, quads) in sums.iter_mut().zip([first, second]) {
                for quad in quads {
                    let x = &quad.0.as_chunks::<8>().0[h];
                    let x = op!(_mm256_load_si256(x.as_ptr().cast()));
                    let pairs = op!(_mm256_maddubs_epi16(_mm256_set1_epi8(1), x));
                    *sums = op!(_mm256_add_epi16(*sums, pairs));
                }
                *sums = op!(_mm256_madd_epi16(*sums, _mm256_set1_epi16(1)));
            }
            let high = op!(_mm256_slli_epi32::<16>(sums[1]));
            let pairs = op!(_mm256_blend_epi16::<0b1010_1010>(sums[0], high));
            op!(_mm256_storeu_si256(out.as_mut_ptr().cast(), pairs));
        }
        out
    }

    #[inline(always)]
    fn quads(self, values: [[__m256; 2]; 4]) -> Sixteen<Quad> {
        let mut out = Sixteen([[0; 4]; 16]);
        for (h, out) in out.0.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let [a, b, c, d] = values;
            let quads = op!(quads([a[h], b[h], c[h], d[h]]));
            op!(_mm256_storeu_si256(out.as_mut_ptr().cast(), quads));
        }
        out
    }

    #[inline(always)]
    fn sum_each(self, x: [[__m256; 2]; 16]) -> [__m256; 2] {
        let mut sums = [x[0][0]; 4];
        for (sums, x) in sums.iter_mut().zip(x.as_chunks::<4>().0) {
            *sums = op!(sum_four_256(x));
        }
        [
            op!(add_halves_256(sums[0], sums[1])),
            op!(add_halves_256(sums[2], sums[3])),
        ]
    }

    #[inline(always)]
    fn transpose(self, x: [[__m256; 2]; 16]) -> [[__m256; 2]; 16] {
        let mut out = x;
        for i in 0..2 {
            for j in 0..2 {
                let mut block = [x[0][0]; 8];
                for k in 0..8 {
                    block[k] = x[8 * i + k][j];
                }
                let block = op!(transpose_256(block));
                for k in 0..8 {
                    out[8 * j + k][i] = block[k];
                }
            }
        }
        out
    }
}

/// See [`keep_512`].
#[inline]
#[target_feature(enable = "avx2")]
fn keep_256(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {} */", inout(ymm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}

/// `w·x = |w| · (sign(w) x)`, and |−128| is 128 as an unsigned byte; pairs stay within i16.
#[inline]
#[target_feature(enable = "avx2")]
fn maddubs_signed(w: __m256i, x: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
}

/// Of four vectors: g0+g2 in the low half, g1+g3 in the high half.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_four_256(x: &[[__m256; 2]; 4]) -> __m256 {
    let mut halves = [x[0][0]; 2];
    for h in 0..2 {
        let pairs = |a, b| {
            _mm256_add_ps(
                _mm256_shuffle_ps::<0b01_00_01_00>(a, b),
                _mm256_shuffle_ps::<0b11_10_11_10>(a, b),
            )
        };
        let (first, second) = (pairs(x[0][h], x[1][h]), pairs(x[2][h], x[3][h]));
        halves[h] = _mm256_add_ps(
            _mm256_shuffle_ps::<0b10_00_10_00>(first, second),
            _mm256_shuffle_ps::<0b11_01_11_01>(first, second),
        );
    }
    _mm256_add_ps(halves[0], halves[1])
}

/// The sums of each vector's halves, side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn add_halves_256(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(
        _mm256_permute2f128_ps::<0x20>(a, b),
        _mm256_permute2f128_ps::<0x31>(a, b),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose_256(x: [__m256; 8]) -> [__m256; 8] {
    let mut y = x;
    for i in (0..8).step_by(4) {
        let low = [
            _mm256_unpacklo_ps(x[i], x[i + 1]),
            _mm256_unpacklo_ps(x[i + 2], x[i + 3]),
        ];
        let high = [
            _mm256_unpackhi_ps(x[i], x[i + 1]),
            _mm256_unpackhi_ps(x[i + 2], x[i + 3]),
        ];
        y[i] = _mm256_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
        y[i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
        y[i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
        y[i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
    }
    let mut out = y;
    for j in 0..4 {
        out[j] = _mm256_permute2f128_ps::<0x20>(y[j], y[4 + j]);
        out[4 + j] = _mm256_permute2f128_ps::<0x31>(y[j], y[4 + j]);
    }
    out
}

#[inline]
#[target_feature(enable = "avx2")]
fn quads([a, b, c, d]: [__m256; 4]) -> __m256i {
    let first = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    let second = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
    // Of every four tokens all of `a`, all of `b` and so on: a byte of each in turn.
    let in_turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm256_shuffle_epi8(
        _mm256_packs_epi16(first, second),
        _mm256_broadcastsi128_si256(in_turn),
    )
}
