//! Vectors over a block of 256 weights of a K format: its integers, and the scale of each product.
//!
//! A block is `N` vectors of `256 / N` bytes. Three orders of the eight runs of 32 elements occur:
//! *straight*; *paired*, in which a vector holds the even or the odd runs of consecutive pairs, the way
//! Q4_K and Q5_K share bytes between the two runs of a pair; and *halved*, in which it holds the first
//! or the last halves of runs, the way IQ4_XS shares bytes between them.

mod avx2;
mod avx512;

use std::arch::x86_64::*;

use super::IntSimd;

/// The insides of K-format blocks.
pub(crate) trait KLanes<const N: usize>: IntSimd {
    /// Bytes of integers, or sums.
    type Vector: Copy;
    /// The scales of a block's products.
    type Scales: Copy;
    /// Scales and minima of four rows' blocks.
    type Header: Copy;

    /// Q4_K's integers, paired.
    fn q4_k(self, qs: &[u8; 128]) -> [Self::Vector; N];
    /// Q5_K's integers, paired.
    fn q5_k(self, qs: &[u8; 128], qh: &[u8; 32]) -> [Self::Vector; N];
    /// Q6_K's integers (`q + 32`), straight.
    fn q6_k(self, ql: &[u8; 128], qh: &[u8; 64]) -> [Self::Vector; N];
    /// Q2_K's integers, straight.
    fn q2_k(self, qs: &[u8; 64]) -> [Self::Vector; N];
    /// Q3_K's integers (`q + 4`), straight.
    fn q3_k(self, qs: &[u8; 64], hmask: &[u8; 32]) -> [Self::Vector; N];
    /// The entries of a table that IQ4_XS's integers name, halved, for [`Self::level_dots`].
    fn levels(self, qs: &[[u8; 16]; 8], table: &[u8; 16]) -> [Self::Vector; N];
    /// Activations, straight.
    fn straight(self, q: &[i8; 256]) -> [Self::Vector; N];
    /// Activations, paired.
    fn paired(self, q: &[i8; 256]) -> [Self::Vector; N];
    /// Activations, halved.
    fn halved(self, q: &[i8; 256]) -> [Self::Vector; N];

    /// From the first sixteen bytes of four blocks of Q4_K or Q5_K: d, dmin, packed scales.
    fn header(self, rows: [&[u8; 16]; 4]) -> Self::Header;
    /// The scales of one row for [`Self::dots`], paired.
    fn run_scales(self, header: Self::Header, row: usize) -> Self::Scales;
    /// `Σ minimum · Σ x` of each row; `sums` are those of every sixteen activations.
    fn minima(self, header: Self::Header, sums: &[i16; 16]) -> __m128i;
    /// d and dmin of each row.
    fn header_floats(self, header: Self::Header) -> [__m128; 2];
    /// Sixteen scales, each of sixteen elements, for [`Self::dots`], straight.
    fn narrow_scales(self, scales: &[i8; 16]) -> Self::Scales;
    /// IQ4_XS's scales for [`Self::level_dots`]: the word of their top bits, then their low nibbles.
    fn level_scales(self, packed: &[[u8; 4]; 2]) -> Self::Scales;
    /// A start for sums: `−2^SHIFT · Σ scale · Σ x`.
    fn centre<const SHIFT: i32>(self, scales: &[i8; 16], sums: &[i16; 16]) -> Self::Vector;
    /// From the scales (low nibbles) and minima (high ones) of four blocks of Q2_K.
    fn narrow_header(self, rows: [&[u8; 16]; 4]) -> Self::Header;
    /// As [`Self::narrow_scales`], from such a header.
    fn narrow_run_scales(self, header: Self::Header, row: usize) -> Self::Scales;
    /// As [`Self::minima`], from such a header.
    fn narrow_minima(self, header: Self::Header, sums: &[i16; 16]) -> __m128i;

    fn no_dots(self) -> Self::Vector;
    /// Adds a block's `scale · u · x`: `u` at most 63, `x` at least −127.
    fn dots(
        self,
        acc: Self::Vector,
        u: [Self::Vector; N],
        x: [Self::Vector; N],
        scales: Self::Scales,
    ) -> Self::Vector;
    /// A block's `scale · w · x`, `w` of [`Self::levels`]; `sums` are those of every sixteen `x`.
    fn level_dots(
        self,
        w: [Self::Vector; N],
        x: [Self::Vector; N],
        scales: Self::Scales,
        sums: &[i16; 16],
    ) -> Self::Vector;
    /// Each row's sum of all lanes.
    fn total(self, rows: [Self::Vector; 4]) -> __m128i;
    /// Pairs of half-precision values of four rows: each row's first, and each row's second.
    fn half_pairs(self, rows: [[[u8; 2]; 2]; 4]) -> [__m128; 2] {
        op!(half_pairs(bytemuck::cast(rows)))
    }
    fn rows_to_floats(self, x: __m128i) -> __m128 {
        op!(_mm_cvtepi32_ps(x))
    }
    /// `c − a · b`, rounded once.
    fn rows_fnma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        op!(_mm_fnmadd_ps(a, b, c))
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn half_pairs(rows: [i32; 4]) -> [__m128; 2] {
    let [a, b, c, d] = rows;
    // Even words, then odd words.
    let order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    let floats = _mm256_cvtph_ps(_mm_shuffle_epi8(_mm_setr_epi32(a, b, c, d), order));
    [
        _mm256_castps256_ps128(floats),
        _mm256_extractf128_ps::<1>(floats),
    ]
}

/// IQ4_XS's eight scales: the word of their top bits, then their low nibbles.
#[inline]
#[target_feature(enable = "avx2")]
fn level_scales([high, low]: [i32; 2]) -> __m256i {
    let fours = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    let low = _mm256_srlv_epi32(_mm256_set1_epi32(low), fours);
    let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    // Two bits of sixteen, moved to bit 4: the word starts at bit 4 for that.
    let twos = _mm256_srli_epi32::<1>(fours);
    let high = _mm256_srlv_epi32(_mm256_set1_epi32(high << 4), twos);
    let high = _mm256_and_si256(high, _mm256_set1_epi32(48));
    _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32))
}

/// `−2^SHIFT · Σ scale · Σ x` in eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn centre256<const SHIFT: i32>(scales: __m256i, sums: __m256i) -> __m256i {
    let dots = _mm256_slli_epi32::<SHIFT>(_mm256_madd_epi16(scales, sums));
    _mm256_sub_epi32(_mm256_setzero_si256(), dots)
}
