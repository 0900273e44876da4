//! Vectors whose lanes are tokens: the insides of the panel kernels.
#![allow(
    clippy::needless_range_loop,
    reason = "one index for a row, a slab or a step names the same thing in several arrays"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Avx2, Avx512, IntSimd};

/// One operation under the token's proof.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: the token `self` proves the instructions; pointers come from references to
        // exactly the bytes read or written.
        unsafe { $call }
    };
}

/// Four bytes for each of sixteen tokens: a cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Sixteen<T>(pub(crate) [T; 16]);

/// Four consecutive integers of one activation row.
pub(crate) type Quad = [i8; 4];

/// How a format's integers are stored in a panel.
pub(crate) trait Stored {
    /// The largest, where they are unsigned.
    const LARGEST: i32;
    /// Whether they are signed bytes, with [`Lanes::SIGNED_BIAS`] added.
    const SIGNED: bool;
}

/// Operations on sixteen tokens at once; [`super::Simd::F32`] is an F32 for each of them.
pub(crate) trait Lanes: IntSimd {
    /// Whether there are 32 registers of sixteen lanes, or only 16 of eight.
    const WIDE: bool;
    /// Added to signed weights (wrapping) in a panel.
    const SIGNED_BIAS: u8;
    /// An i32 for each token.
    type I32: Copy;

    fn i32_zero(self) -> Self::I32;
    fn i32_load(self, x: &Sixteen<i32>) -> Self::I32;
    fn i32_to_f32(self, x: Self::I32) -> Self::F32;
    /// `acc + a · b`.
    fn mul_add(self, acc: Self::I32, a: Self::I32, b: i32) -> Self::I32;
    /// Adds each token's two products with `w`.
    fn dot2(self, acc: Self::I32, x: &Sixteen<[i16; 2]>, w: [i16; 2]) -> Self::I32;

    /// The dot products of `R` weight rows and `V` times sixteen tokens over `Q` quads of columns,
    /// each added to its token's `start`. Products are of the weights as they are stored.
    fn dots<F: Stored, const Q: usize, const R: usize, const V: usize>(
        self,
        start: [Self::I32; V],
        weights: [&[[u8; 4]; Q]; R],
        x: [&[Sixteen<Quad>; Q]; V],
    ) -> [[Self::I32; V]; R];

    /// For each token, the sums of two times sixteen consecutive integers.
    fn sums(self, first: &[Sixteen<Quad>; 4], second: &[Sixteen<Quad>; 4]) -> [[i16; 2]; 16];

    /// The larger of two numbers that are not NaN.
    fn max_of(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// The canonical sums of sixteen vectors, see [`super::tree_sum`].
    fn sum_each(self, x: [Self::F32; 16]) -> Self::F32;

    /// Lane `i` of vector `j` becomes lane `j` of vector `i`; bits move as they are.
    fn transpose(self, x: [Self::F32; 16]) -> [Self::F32; 16];
}

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
        op!(dot2_512(acc, x, _mm512_set1_epi32(bytemuck::cast(w))))
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
    fn max_of(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
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

/// By assembly, since the compiler would take two instructions to have the sum earlier.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot2_512(mut acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
    // SAFETY: the instruction is AVX-512 VNNI and touches registers only.
    unsafe {
        asm!(
            "vpdpwssd {acc}, {x}, {w}",
            acc = inout(zmm_reg) acc,
            x = in(zmm_reg) x,
            w = in(zmm_reg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
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
    fn max_of(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        [
            op!(_mm256_max_ps(a[0], b[0])),
            op!(_mm256_max_ps(a[1], b[1])),
        ]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tree_sum;

    fn check<S: Lanes>(s: S) {
        let x: [[f32; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| (16 * i + j) as f32));
        let y = s.transpose(x.map(|x| s.load(&x)));
        for (i, y) in y.into_iter().enumerate() {
            let mut out = [0.0; 16];
            s.store(y, &mut out);
            assert_eq!(out, std::array::from_fn(|j| x[j][i]));
        }
        let x: [[f32; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| 1.0 / (16 * i + j + 1) as f32));
        let mut sums = [0.0; 16];
        s.store(s.sum_each(x.map(|x| s.load(&x))), &mut sums);
        assert_eq!(sums, x.map(|x| tree_sum(&x)));
    }

    #[test]
    fn vectors_are_transposed_and_summed() {
        if let Some(s) = Avx512::detect() {
            check(s);
        }
        if let Some(s) = Avx2::detect() {
            check(s);
        }
    }
}
