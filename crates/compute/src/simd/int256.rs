//! 32-byte integer vectors: the insides of quant blocks. All sums are exact in i32.

use std::arch::x86_64::*;

use super::{Avx2, Avx512, Simd};

/// Integer dot products over 32 bytes, for tokens that prove at least AVX2, FMA and F16C.
pub(crate) trait IntSimd: Simd {
    /// Adds to lane `i` the products of bytes `4i..4i+4`: `u` unsigned and at most 128, `x` signed
    /// and at least −127.
    fn dot(self, acc: __m256i, u: __m256i, x: __m256i) -> __m256i;

    /// Adds `scale · Σ u·x` over lane-wise groups, `scales` holding the scale of each byte pair;
    /// `u` at most 63.
    fn dot_scaled(self, acc: __m256i, u: __m256i, x: __m256i, scales: __m256i) -> __m256i;

    /// The same as [`Self::dot`] for signed weights (−128 allowed).
    #[inline(always)]
    fn dot_signed(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // w·x = |w| · (sign(w) x), and |−128| is 128 as an unsigned byte.
        let magnitude = op!(_mm256_abs_epi8(w));
        let signed = op!(_mm256_sign_epi8(x, w));
        self.dot(acc, magnitude, signed)
    }

    #[inline(always)]
    fn bytes(self, x: &[u8; 32]) -> __m256i {
        op!(_mm256_loadu_si256(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn bytes_i8(self, x: &[i8; 32]) -> __m256i {
        op!(_mm256_loadu_si256(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn array(self, x: __m256i) -> [u8; 32] {
        let mut out = [0; 32];
        op!(_mm256_storeu_si256(out.as_mut_ptr().cast(), x));
        out
    }

    /// Exact widening of one stored half-precision value.
    #[inline(always)]
    fn widen_one(self, x: [u8; 2]) -> f32 {
        op!(widen_one(x))
    }

    /// Sixteen bytes' low nibbles, then their high nibbles.
    #[inline(always)]
    fn nibbles(self, x: &[u8; 16]) -> __m256i {
        let packed = op!(_mm_loadu_si128(x.as_ptr().cast()));
        op!(nibbles(packed))
    }

    /// The entries of a table that bytes up to 15 name.
    #[inline(always)]
    fn table_bytes(self, table: &[u8; 16], x: __m256i) -> __m256i {
        let table = op!(_mm_loadu_si128(table.as_ptr().cast()));
        op!(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), x))
    }

    /// `(x >> SHIFT) & mask` of each byte.
    #[inline(always)]
    fn field<const SHIFT: i32>(self, x: __m256i, mask: u8) -> __m256i {
        op!(field::<SHIFT>(x, mask))
    }

    /// `a | (b << LEFT)` of each byte; no bit of `b` may leave its byte.
    #[inline(always)]
    fn merge<const LEFT: i32>(self, a: __m256i, b: __m256i) -> __m256i {
        op!(merge::<LEFT>(a, b))
    }

    /// Q2_K's integers, 32 elements a vector.
    #[inline(always)]
    fn two_bits(self, qs: &[u8; 64]) -> [__m256i; 8] {
        let (halves, _) = qs.as_chunks::<32>();
        let (first, last) = (self.bytes(&halves[0]), self.bytes(&halves[1]));
        [
            self.field::<0>(first, 3),
            self.field::<2>(first, 3),
            self.field::<4>(first, 3),
            self.field::<6>(first, 3),
            self.field::<0>(last, 3),
            self.field::<2>(last, 3),
            self.field::<4>(last, 3),
            self.field::<6>(last, 3),
        ]
    }

    /// Q3_K's integers (`q + 4`), 32 elements a vector.
    #[inline(always)]
    fn three_bits(self, qs: &[u8; 64], hmask: &[u8; 32]) -> [__m256i; 8] {
        let (low, high) = (self.two_bits(qs), self.bytes(hmask));
        // Bit r of byte j is the third bit of element j of run r.
        [
            self.merge::<2>(low[0], self.field::<0>(high, 1)),
            self.merge::<1>(low[1], self.field::<0>(high, 2)),
            self.or(low[2], self.field::<0>(high, 4)),
            self.or(low[3], self.field::<1>(high, 4)),
            self.or(low[4], self.field::<2>(high, 4)),
            self.or(low[5], self.field::<3>(high, 4)),
            self.or(low[6], self.field::<4>(high, 4)),
            self.or(low[7], self.field::<5>(high, 4)),
        ]
    }

    /// `value` in byte `i` where bit `i` of `bits` is set, zero elsewhere.
    #[inline(always)]
    fn spread_bits(self, bits: u32, value: u8) -> __m256i {
        op!(spread_bits(bits, value))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn zero_i32(self) -> __m256i {
        op!(_mm256_setzero_si256())
    }

    /// Sixteen i16 scales, each of sixteen bytes, as the scales of byte pairs: vector `g` has scale
    /// `2g` in its first eight lanes, `2g + 1` in its last.
    #[inline(always)]
    fn scale_pairs(self, scales: __m256i) -> [__m256i; 8] {
        op!(scale_pairs(scales))
    }

    /// Each of eight bytes (of a little-endian u64) twice, as i16.
    #[inline(always)]
    fn widen_twice(self, x: u64) -> __m256i {
        op!(widen_twice(x))
    }

    /// Sixteen i8 as i16.
    #[inline(always)]
    fn widen_i8(self, x: &[i8; 16]) -> __m256i {
        let x = op!(_mm_loadu_si128(x.as_ptr().cast()));
        op!(_mm256_cvtepi8_epi16(x))
    }

    #[inline(always)]
    fn array_i16(self, x: __m256i) -> [i16; 16] {
        bytemuck::cast(self.array(x))
    }

    /// One value for each of four weight rows.
    #[inline(always)]
    fn rows_splat(self, x: f32) -> __m128 {
        op!(_mm_set1_ps(x))
    }

    #[inline(always)]
    fn rows_load(self, x: &[f32; 4]) -> __m128 {
        op!(_mm_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn rows_widen_f16(self, x: [[u8; 2]; 4]) -> __m128 {
        op!(rows_widen_f16(x))
    }

    #[inline(always)]
    fn rows_mul(self, a: __m128, b: __m128) -> __m128 {
        op!(_mm_mul_ps(a, b))
    }

    #[inline(always)]
    fn rows_fma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        op!(_mm_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn rows_array(self, x: __m128) -> [f32; 4] {
        let mut out = [0.0; 4];
        op!(_mm_storeu_ps(out.as_mut_ptr(), x));
        out
    }
}

impl IntSimd for Avx2 {
    #[inline(always)]
    fn dot(self, acc: __m256i, u: __m256i, x: __m256i) -> __m256i {
        op!(dot_avx2(acc, u, x))
    }

    #[inline(always)]
    fn dot_scaled(self, acc: __m256i, u: __m256i, x: __m256i, scales: __m256i) -> __m256i {
        op!(dot_scaled_avx2(acc, u, x, scales))
    }
}

impl IntSimd for Avx512 {
    #[inline(always)]
    fn dot(self, acc: __m256i, u: __m256i, x: __m256i) -> __m256i {
        op!(_mm256_dpbusd_epi32(acc, u, x))
    }

    #[inline(always)]
    fn dot_scaled(self, acc: __m256i, u: __m256i, x: __m256i, scales: __m256i) -> __m256i {
        // Pairs of products stay within i16: 2 · 63 · 127.
        let pairs = op!(_mm256_maddubs_epi16(u, x));
        op!(_mm256_dpwssd_epi32(acc, pairs, scales))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_avx2(acc: __m256i, u: __m256i, x: __m256i) -> __m256i {
    // Pairs of products stay within i16: 2 · 128 · 127.
    let pairs = _mm256_maddubs_epi16(u, x);
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_scaled_avx2(acc: __m256i, u: __m256i, x: __m256i, scales: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), scales))
}

#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(packed: __m128i) -> __m256i {
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2")]
fn field<const SHIFT: i32>(x: __m256i, mask: u8) -> __m256i {
    _mm256_and_si256(_mm256_srli_epi16::<SHIFT>(x), _mm256_set1_epi8(mask as i8))
}

#[inline]
#[target_feature(enable = "avx2")]
fn merge<const LEFT: i32>(a: __m256i, b: __m256i) -> __m256i {
    _mm256_or_si256(a, _mm256_slli_epi16::<LEFT>(b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn spread_bits(bits: u32, value: u8) -> __m256i {
    // Byte i of the 32 bits repeated over bytes 8i..8i+8, then one bit tested in each.
    let repeat = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3,
        3, 3,
    );
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits.cast_signed()), repeat);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(value.cast_signed()))
}

#[inline]
#[target_feature(enable = "avx2")]
fn scale_pairs(scales: __m256i) -> [__m256i; 8] {
    // The first i16 of each dword in the low half, the second in the high half.
    let spread = _mm256_setr_epi8(
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3,
        2, 3,
    );
    let mut pairs = [scales; 8];
    for (g, pair) in pairs.iter_mut().enumerate() {
        let dword = _mm256_permutevar8x32_epi32(scales, _mm256_set1_epi32(g as i32));
        *pair = _mm256_shuffle_epi8(dword, spread);
    }
    pairs
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen_twice(x: u64) -> __m256i {
    let bytes = _mm_cvtsi64_si128(x.cast_signed());
    _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_one(x: [u8; 2]) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(
        u16::from_le_bytes(x),
    ))))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn rows_widen_f16(x: [[u8; 2]; 4]) -> __m128 {
    let bits: u64 = bytemuck::cast(x.map(u16::from_ne_bytes));
    _mm_cvtph_ps(_mm_cvtsi64_si128(bits.cast_signed()))
}
