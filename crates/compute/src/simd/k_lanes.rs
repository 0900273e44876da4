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
    /// The entries of a table that IQ4_XS's integers name, halved.
    fn iq4_xs(self, qs: &[[u8; 16]; 8], table: &[u8; 16]) -> [Self::Vector; N];
    /// Activations, straight.
    fn straight(self, q: &[i8; 256]) -> [Self::Vector; N];
    /// Activations, paired.
    fn paired(self, q: &[i8; 256]) -> [Self::Vector; N];

    /// Activations, halved.
    fn halved(self, q: &[i8; 256]) -> [Self::Vector; N];

    /// From the first sixteen bytes of four blocks of Q4_K or Q5_K: d, dmin, packed scales.
    fn header(self, rows: [&[u8; 16]; 4]) -> Self::Header;
    /// The scales of one row for [`Self::dot_runs`], paired.
    fn run_scales(self, header: Self::Header, row: usize) -> [Self::Vector; N];
    /// `Σ minimum · Σ x` of each row; `sums` are those of every sixteen activations.
    fn minima(self, header: Self::Header, sums: &[i16; 16]) -> __m128i;
    /// d and dmin of each row.
    fn header_floats(self, header: Self::Header) -> [__m128; 2];
    /// Sixteen scales, each of sixteen elements, for [`Self::dot_runs`], straight.
    fn narrow_scales(self, scales: &[i8; 16]) -> [Self::Vector; N];
    /// Eight scales, each of 32 elements, for [`Self::dot_signed_runs`], halved.
    fn halved_scales(self, scales: &[i8; 8]) -> [Self::Vector; N];
    /// A start for sums: `−2^SHIFT · Σ scale · Σ x`.
    fn centre<const SHIFT: i32>(self, scales: &[i8; 16], sums: &[i16; 16]) -> Self::Vector;
    /// Sums that are `Σ minimum · Σ x` in all.
    fn narrow_minima(self, mins: &[i8; 16], sums: &[i16; 16]) -> Self::Vector;

    fn no_dots(self) -> Self::Vector;
    /// Adds `scale · u · x`: `u` at most 63, `x` at least −127.
    fn dot_runs(
        self,
        acc: Self::Vector,
        u: Self::Vector,
        x: Self::Vector,
        scales: Self::Vector,
    ) -> Self::Vector;
    /// The same for signed bytes `w`, at least −127.
    fn dot_signed_runs(
        self,
        acc: Self::Vector,
        w: Self::Vector,
        x: Self::Vector,
        scales: Self::Vector,
    ) -> Self::Vector;
    /// Each row's sum of all lanes.
    fn total(self, rows: [Self::Vector; 4]) -> __m128i;
    fn rows_to_floats(self, x: __m128i) -> __m128 {
        op!(_mm_cvtepi32_ps(x))
    }
    /// `c − a · b`, rounded once.
    fn rows_fnma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        op!(_mm_fnmadd_ps(a, b, c))
    }
}

/// `−2^SHIFT · Σ scale · Σ x` in eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn centre256<const SHIFT: i32>(scales: __m256i, sums: __m256i) -> __m256i {
    let dots = _mm256_slli_epi32::<SHIFT>(_mm256_madd_epi16(scales, sums));
    _mm256_sub_epi32(_mm256_setzero_si256(), dots)
}
