//! K-format blocks in 256-bit vectors: a run of 32 elements a vector.
#![allow(
    clippy::needless_range_loop,
    reason = "one index for a row in several arrays; a closure would lose the instruction set"
)]

use std::arch::x86_64::*;

use super::{KLanes, centre256, level_scales};
use crate::simd::{Avx2, IntSimd};

impl KLanes<8> for Avx2 {
    type Vector = __m256i;
    type Scales = [__m256i; 8];
    type Header = Header128;

    #[inline(always)]
    fn q4_k(self, qs: &[u8; 128]) -> [__m256i; 8] {
        let (packed, _) = qs.as_chunks::<32>();
        let mut out = [self.zero_i32(); 8];
        for pair in 0..4 {
            let bytes = self.bytes(&packed[pair]);
            out[2 * pair] = self.field::<0>(bytes, 15);
            out[2 * pair + 1] = self.field::<4>(bytes, 15);
        }
        out
    }

    #[inline(always)]
    fn q5_k(self, qs: &[u8; 128], qh: &[u8; 32]) -> [__m256i; 8] {
        let low = self.q4_k(qs);
        let high = self.bytes(qh);
        // Bit g of byte j is the fifth bit of element j of run g.
        [
            self.merge::<4>(low[0], self.field::<0>(high, 1)),
            self.merge::<4>(low[1], self.field::<1>(high, 1)),
            self.merge::<4>(low[2], self.field::<2>(high, 1)),
            self.merge::<4>(low[3], self.field::<3>(high, 1)),
            self.or(low[4], self.field::<0>(high, 16)),
            self.or(low[5], self.field::<1>(high, 16)),
            self.or(low[6], self.field::<2>(high, 16)),
            self.or(low[7], self.field::<3>(high, 16)),
        ]
    }

    #[inline(always)]
    fn q6_k(self, ql: &[u8; 128], qh: &[u8; 64]) -> [__m256i; 8] {
        let (low, _) = ql.as_chunks::<32>();
        let (high, _) = qh.as_chunks::<32>();
        let mut out = [self.zero_i32(); 8];
        for half in 0..2 {
            let (first, second) = (self.bytes(&low[2 * half]), self.bytes(&low[2 * half + 1]));
            let top = self.bytes(&high[half]);
            // Bits 2 i and 2 i + 1 of byte j are the top bits of element j of run i of a half.
            let runs = &mut out[4 * half..][..4];
            runs[0] = self.merge::<4>(self.field::<0>(first, 15), self.field::<0>(top, 3));
            runs[1] = self.merge::<2>(self.field::<0>(second, 15), self.field::<0>(top, 12));
            runs[2] = self.or(self.field::<4>(first, 15), self.field::<0>(top, 48));
            runs[3] = self.or(self.field::<4>(second, 15), self.field::<2>(top, 48));
        }
        out
    }

    #[inline(always)]
    fn q2_k(self, qs: &[u8; 64]) -> [__m256i; 8] {
        self.two_bits(qs)
    }

    #[inline(always)]
    fn q3_k(self, qs: &[u8; 64], hmask: &[u8; 32]) -> [__m256i; 8] {
        self.three_bits(qs, hmask)
    }

    #[inline(always)]
    fn levels(self, qs: &[[u8; 16]; 8], table: &[u8; 16]) -> [__m256i; 8] {
        let mut out = [self.zero_i32(); 8];
        for (out, qs) in out.iter_mut().zip(qs) {
            *out = self.table_bytes(table, self.nibbles(qs));
        }
        out
    }

    #[inline(always)]
    fn straight(self, q: &[i8; 256]) -> [__m256i; 8] {
        let (runs, _) = q.as_chunks::<32>();
        let mut out = [self.no_dots(); 8];
        for i in 0..8 {
            out[i] = self.bytes_i8(&runs[i]);
        }
        out
    }

    /// One run fills a vector: pairs are already side by side.
    #[inline(always)]
    fn paired(self, q: &[i8; 256]) -> [__m256i; 8] {
        self.straight(q)
    }

    /// One run fills a vector: its halves are already side by side.
    #[inline(always)]
    fn halved(self, q: &[i8; 256]) -> [__m256i; 8] {
        self.straight(q)
    }

    #[inline(always)]
    fn header(self, rows: [&[u8; 16]; 4]) -> Header128 {
        let zero = [op!(_mm_setzero_si128()); 4];
        let mut header = Header128 {
            packed: zero,
            bytes: zero,
        };
        for row in 0..4 {
            header.packed[row] = op!(_mm_loadu_si128(rows[row].as_ptr().cast()));
            header.bytes[row] = op!(header128(header.packed[row]));
        }
        header
    }

    #[inline(always)]
    fn run_scales(self, header: Header128, row: usize) -> [__m256i; 8] {
        op!(run_scales256(header.bytes[row]))
    }

    #[inline(always)]
    fn minima(self, header: Header128, sums: &[i16; 16]) -> __m128i {
        let sums = op!(_mm256_loadu_si256(sums.as_ptr().cast()));
        let mut dots = [sums; 4];
        for row in 0..4 {
            dots[row] = op!(minima256(header.bytes[row], sums));
        }
        self.total(dots)
    }

    #[inline(always)]
    fn header_floats(self, header: Header128) -> [__m128; 2] {
        op!(header_floats128(header.packed))
    }

    #[inline(always)]
    fn narrow_scales(self, scales: &[i8; 16]) -> [__m256i; 8] {
        self.scale_pairs(self.widen_i8(scales))
    }

    #[inline(always)]
    fn level_scales(self, packed: &[[u8; 4]; 2]) -> [__m256i; 8] {
        let scales = op!(level_scales(packed.map(i32::from_le_bytes)));
        op!(twice_each(scales))
    }

    #[inline(always)]
    fn centre<const SHIFT: i32>(self, scales: &[i8; 16], sums: &[i16; 16]) -> __m256i {
        let sums = op!(_mm256_loadu_si256(sums.as_ptr().cast()));
        op!(centre256::<SHIFT>(self.widen_i8(scales), sums))
    }

    #[inline(always)]
    fn narrow_header(self, rows: [&[u8; 16]; 4]) -> Header128 {
        let zero = [op!(_mm_setzero_si128()); 4];
        let mut header = Header128 {
            packed: zero,
            bytes: zero,
        };
        for row in 0..4 {
            header.packed[row] = op!(_mm_loadu_si128(rows[row].as_ptr().cast()));
            header.bytes[row] = op!(_mm_and_si128(header.packed[row], _mm_set1_epi8(15)));
        }
        header
    }

    #[inline(always)]
    fn narrow_run_scales(self, header: Header128, row: usize) -> [__m256i; 8] {
        self.scale_pairs(op!(_mm256_cvtepu8_epi16(header.bytes[row])))
    }

    #[inline(always)]
    fn narrow_minima(self, header: Header128, sums: &[i16; 16]) -> __m128i {
        let sums = op!(_mm256_loadu_si256(sums.as_ptr().cast()));
        let mut dots = [sums; 4];
        for row in 0..4 {
            dots[row] = op!(narrow_minima256(header.packed[row], sums));
        }
        self.total(dots)
    }

    #[inline(always)]
    fn no_dots(self) -> __m256i {
        self.zero_i32()
    }

    #[inline(always)]
    fn dots(
        self,
        mut acc: __m256i,
        u: [__m256i; 8],
        x: [__m256i; 8],
        scales: [__m256i; 8],
    ) -> __m256i {
        for v in 0..8 {
            acc = self.dot_scaled(acc, u[v], x[v], scales[v]);
        }
        acc
    }

    #[inline(always)]
    fn level_dots(
        self,
        w: [__m256i; 8],
        x: [__m256i; 8],
        scales: [__m256i; 8],
        _: &[i16; 16],
    ) -> __m256i {
        let mut acc = self.no_dots();
        for v in 0..8 {
            // w·x = |w| · (sign(w) x). Pairs of products stay within i16: 2 · 127 · 127.
            let magnitude = op!(_mm256_abs_epi8(w[v]));
            let signed = op!(_mm256_sign_epi8(x[v], w[v]));
            acc = self.dot_scaled(acc, magnitude, signed, scales[v]);
        }
        acc
    }

    #[inline(always)]
    fn total(self, rows: [__m256i; 4]) -> __m128i {
        op!(total256(rows))
    }
}

/// Four rows' headers.
#[derive(Clone, Copy)]
pub(crate) struct Header128 {
    /// As stored.
    packed: [__m128i; 4],
    /// Eight scales, then eight minima, a byte each.
    bytes: [__m128i; 4],
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn header_floats128(packed: [__m128i; 4]) -> [__m128; 2] {
    let first = _mm_unpacklo_epi32(packed[0], packed[1]);
    let last = _mm_unpacklo_epi32(packed[2], packed[3]);
    // Even words, then odd words.
    let order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    let halves = _mm_shuffle_epi8(_mm_unpacklo_epi64(first, last), order);
    let floats = _mm256_cvtph_ps(halves);
    [
        _mm256_castps256_ps128(floats),
        _mm256_extractf128_ps::<1>(floats),
    ]
}

/// As `header512`, one row.
#[inline]
#[target_feature(enable = "avx2")]
fn header128(packed: __m128i) -> __m128i {
    let own = _mm_shuffle_epi32::<0b10_10_01_01>(packed);
    let own = _mm_srlv_epi32(own, _mm_setr_epi32(0, 2, 0, 2));
    let six_two = _mm_setr_epi32(0x3f3f_3f3f, 0x3030_3030, 0x3f3f_3f3f, 0x3030_3030);
    let last = _mm_shuffle_epi32::<0b11_11_11_11>(packed);
    let last = _mm_srlv_epi32(last, _mm_setr_epi32(0, 0, 0, 4));
    let four = _mm_setr_epi32(0, 0x0f0f_0f0f, 0, 0x0f0f_0f0f);
    _mm_or_si128(_mm_and_si128(own, six_two), _mm_and_si128(last, four))
}

#[inline]
#[target_feature(enable = "avx2")]
fn run_scales256(header: __m128i) -> [__m256i; 8] {
    let header = _mm256_broadcastsi128_si256(header);
    // The byte, then zero.
    let mut index = _mm256_set1_epi16(0x8000_u16.cast_signed());
    let mut out = [header; 8];
    for scale in &mut out {
        *scale = _mm256_shuffle_epi8(header, index);
        index = _mm256_add_epi16(index, _mm256_set1_epi16(1));
    }
    out
}

#[inline]
#[target_feature(enable = "avx2")]
fn minima256(header: __m128i, sums: __m256i) -> __m256i {
    let twice = _mm256_setr_epi8(
        8, -1, 8, -1, 9, -1, 9, -1, 10, -1, 10, -1, 11, -1, 11, -1, 12, -1, 12, -1, 13, -1, 13, -1,
        14, -1, 14, -1, 15, -1, 15, -1,
    );
    let words = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(header), twice);
    _mm256_madd_epi16(words, sums)
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow_minima256(packed: __m128i, sums: __m256i) -> __m256i {
    let mins = _mm_and_si128(_mm_srli_epi16::<4>(packed), _mm_set1_epi8(15));
    _mm256_madd_epi16(_mm256_cvtepu8_epi16(mins), sums)
}

/// A vector of each dword, its low word in all words.
#[inline]
#[target_feature(enable = "avx2")]
fn twice_each(dwords: __m256i) -> [__m256i; 8] {
    let high = _mm256_slli_epi32::<16>(dwords);
    let both = _mm256_blend_epi16::<0b1010_1010>(dwords, high);
    let mut out = [both; 8];
    for (i, out) in out.iter_mut().enumerate() {
        *out = _mm256_permutevar8x32_epi32(both, _mm256_set1_epi32(i as i32));
    }
    out
}

/// As `total512`.
#[inline]
#[target_feature(enable = "avx2")]
fn total256(rows: [__m256i; 4]) -> __m128i {
    let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (ab, cd) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
    let all = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    _mm_add_epi32(
        _mm256_castsi256_si128(all),
        _mm256_extracti128_si256::<1>(all),
    )
}
