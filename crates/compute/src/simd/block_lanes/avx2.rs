//! Two blocks in a 256-bit vector.

use std::arch::x86_64::*;
use std::ops::Range;

use super::BlockLanes;
use crate::simd::{Avx2, IntSimd};

impl BlockLanes<2> for Avx2 {
    const SIGNED_OFFSET: i16 = 0;
    type Ints = __m256i;
    type Floats = __m256;

    #[inline(always)]
    fn zero_lanes(self) -> __m256i {
        self.zero_i32()
    }

    #[inline(always)]
    fn lanes<const STRIDE: usize, const AT: usize>(self, blocks: &[u8]) -> __m256i {
        op!(_mm256_set_m128i(
            load128(blocks, STRIDE + AT),
            load128(blocks, AT)
        ))
    }

    #[inline(always)]
    fn heads<const STRIDE: usize>(self, blocks: &[u8]) -> __m256i {
        op!(_mm256_set_m128i(load64(blocks, STRIDE), load64(blocks, 0)))
    }

    #[inline(always)]
    fn halves(self, q: &[[i8; 32]; 2]) -> [__m256i; 2] {
        op!(halves256(q))
    }

    #[inline(always)]
    fn low_nibbles(self, x: __m256i) -> __m256i {
        self.field::<0>(x, 15)
    }

    #[inline(always)]
    fn high_nibbles(self, x: __m256i) -> __m256i {
        self.field::<4>(x, 15)
    }

    #[inline(always)]
    fn table_halves(self, table: &[u8; 16], x: __m256i) -> [__m256i; 2] {
        [
            self.table_bytes(table, self.low_nibbles(x)),
            self.table_bytes(table, self.high_nibbles(x)),
        ]
    }

    #[inline(always)]
    fn fifth_bits<const AT: usize>(self, halves: [__m256i; 2], heads: __m256i) -> [__m256i; 2] {
        op!(fifth_bits256::<AT>(halves, heads))
    }

    #[inline(always)]
    fn dot_halves(self, u: [__m256i; 2], x: [__m256i; 2], largest: i32) -> __m256i {
        assert!(largest <= 31, "sums of four in i16");
        op!(dot_halves256(u, x))
    }

    #[inline(always)]
    fn dot_signed_halves(self, w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        let sum = self.dot_signed(self.zero_i32(), w[0], x[0]);
        self.dot_signed(sum, w[1], x[1])
    }

    #[inline(always)]
    fn transposed_sums(
        self,
        (rows, largest): ([__m256i; 4], i32),
        sums: &[[i16; 2]; 2],
        offset: i16,
    ) -> __m256 {
        op!(transposed_sums256(rows, largest, block_sums(sums, -offset)))
    }

    #[inline(always)]
    fn block_scales<const STRIDE: usize>(
        self,
        rows: [&[u8]; 4],
        heads: Option<[__m256i; 4]>,
    ) -> __m256 {
        let [scales, _] = self.block_scales_and_minima::<STRIDE>(rows, heads);
        scales
    }

    #[inline(always)]
    fn block_scales_and_minima<const STRIDE: usize>(
        self,
        rows: [&[u8]; 4],
        heads: Option<[__m256i; 4]>,
    ) -> [__m256; 2] {
        let heads = match heads {
            Some(heads) => heads,
            None => heads_of_rows::<STRIDE>(self, rows),
        };
        op!(widen_words(words_of_heads(heads)))
    }

    #[inline(always)]
    fn block_powers<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> __m256 {
        let heads = heads_of_rows::<STRIDE>(self, rows);
        op!(half_powers(words_of_heads(heads)))
    }

    #[inline(always)]
    fn lanes_mul(self, a: __m256, x: &[f32; 2]) -> __m256 {
        let x = op!(_mm256_set_m128(_mm_set1_ps(x[1]), _mm_set1_ps(x[0])));
        op!(_mm256_mul_ps(a, x))
    }

    #[inline(always)]
    fn chain(self, mut acc: __m128, lanes: Range<usize>, scales: __m256, sums: __m256) -> __m128 {
        let (scales, sums) = op!((split256(scales), split256(sums)));
        for b in lanes {
            acc = self.rows_fma(scales[b], sums[b], acc);
        }
        acc
    }

    #[inline(always)]
    fn chain_with_minima(
        self,
        mut acc: __m128,
        lanes: Range<usize>,
        (scales, minima): (__m256, __m256),
        (sums, sums_x): (__m256, &[[i16; 2]; 2]),
    ) -> __m128 {
        let (scales, sums) = op!((split256(scales), split256(sums)));
        let minima = op!(split256(minima));
        let sums_x = op!(split256(_mm256_cvtepi32_ps(block_sums(sums_x, 1))));
        for b in lanes {
            acc = self.rows_fma(scales[b], sums[b], acc);
            acc = self.rows_fma(minima[b], sums_x[b], acc);
        }
        acc
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load128(bytes: &[u8], from: usize) -> __m128i {
    let bytes: &[u8; 16] = bytes[from..].first_chunk().expect("sixteen bytes");
    // SAFETY: the load reads exactly `bytes`.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Eight bytes, twice.
#[inline]
#[target_feature(enable = "avx2")]
fn load64(bytes: &[u8], from: usize) -> __m128i {
    let bytes: &[u8; 8] = bytes[from..].first_chunk().expect("eight bytes");
    _mm_set1_epi64x(i64::from_le_bytes(*bytes))
}

/// `factor · (Σ first 16 + Σ last 16)` of each block, four times in its lane.
#[inline]
#[target_feature(enable = "avx2")]
fn block_sums(sums: &[[i16; 2]; 2], factor: i16) -> __m256i {
    let sum = |b: usize| i32::from(factor) * (i32::from(sums[b][0]) + i32::from(sums[b][1]));
    _mm256_set_m128i(_mm_set1_epi32(sum(1)), _mm_set1_epi32(sum(0)))
}

#[inline(always)]
fn heads_of_rows<const STRIDE: usize>(s: Avx2, rows: [&[u8]; 4]) -> [__m256i; 4] {
    [
        s.heads::<STRIDE>(rows[0]),
        s.heads::<STRIDE>(rows[1]),
        s.heads::<STRIDE>(rows[2]),
        s.heads::<STRIDE>(rows[3]),
    ]
}

/// Each block's first word of four rows, then its second, in its lane.
#[inline]
#[target_feature(enable = "avx2")]
fn words_of_heads(heads: [__m256i; 4]) -> __m256i {
    let ab = _mm256_unpacklo_epi16(heads[0], heads[1]);
    let cd = _mm256_unpacklo_epi16(heads[2], heads[3]);
    _mm256_unpacklo_epi32(ab, cd)
}

/// The first four words of each lane, widened, and the last four.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_words(words: __m256i) -> [__m256; 2] {
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
    [
        _mm256_cvtph_ps(_mm256_castsi256_si128(words)),
        _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(words)),
    ]
}

/// `2^(e − 128)` of the low byte of the first four words of each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn half_powers(words: __m256i) -> __m256 {
    let e = _mm256_and_si256(
        _mm256_unpacklo_epi16(words, _mm256_setzero_si256()),
        _mm256_set1_epi32(255),
    );
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
    let is_normal = _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1));
    _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, is_normal))
}

/// From halves in memory: inserting those is no work for the port that permutes need.
#[inline]
#[target_feature(enable = "avx2")]
fn halves256(q: &[[i8; 32]; 2]) -> [__m256i; 2] {
    let q: &[u8; 64] = bytemuck::cast_ref(q);
    [
        _mm256_set_m128i(load128(q, 32), load128(q, 0)),
        _mm256_set_m128i(load128(q, 48), load128(q, 16)),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn fifth_bits256<const AT: usize>([low, high]: [__m256i; 2], heads: __m256i) -> [__m256i; 2] {
    // Each element's byte of the bits, then its bit tested.
    let byte = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let byte = _mm256_broadcastsi128_si256(byte);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let add = |x, first| {
        let bytes = _mm256_shuffle_epi8(heads, _mm256_add_epi8(byte, _mm256_set1_epi8(first)));
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        _mm256_or_si256(x, _mm256_and_si256(set, _mm256_set1_epi8(16)))
    };
    [add(low, AT as i8), add(high, AT as i8 + 2)]
}

/// Sums of eight products, of which four stay within i16.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_halves256(u: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    let words = _mm256_add_epi16(
        _mm256_maddubs_epi16(u[0], x[0]),
        _mm256_maddubs_epi16(u[1], x[1]),
    );
    _mm256_madd_epi16(words, _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn transposed_sums256(rows: [__m256i; 4], largest: i32, start: __m256i) -> __m256 {
    // [a0+a1, a2+a3, b0+b1, b2+b3] of rows a and b.
    let pair = |a, b| _mm256_hadd_epi32(a, b);
    let packed = |a, b| _mm256_madd_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16(1));
    let sums = if largest <= 15 {
        // Sums of eight, then of sixteen, products stay within i16: 16 · 15 · 127.
        packed(packed(rows[0], rows[1]), packed(rows[2], rows[3]))
    } else if largest <= 31 {
        // Sums of eight do: 8 · 31 · 127.
        pair(packed(rows[0], rows[1]), packed(rows[2], rows[3]))
    } else {
        pair(pair(rows[0], rows[1]), pair(rows[2], rows[3]))
    };
    _mm256_cvtepi32_ps(_mm256_add_epi32(sums, start))
}

#[inline]
#[target_feature(enable = "avx2")]
fn split256(x: __m256) -> [__m128; 2] {
    [_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)]
}
