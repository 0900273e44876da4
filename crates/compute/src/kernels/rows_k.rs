//! Four weight rows of a K format times a few tokens: a block of 256 is unpacked once and
//! multiplied with every token.

use std::arch::x86_64::{__m128, __m256i};

use super::matmul::{four_blocks, prefetch};
use super::quantized::QuantizedRow;
use crate::quant::{Block, BlockQ4K, BlockQ5K, BlockQ6K, Half};
use crate::simd::{IntSimd, KLanes};

/// What a K format is made of. With `products = Σ scale · Σ u·x` over groups and
/// `sums = Σ per_sum · Σ₁₆ x`, both exact, a block takes one or two chain steps.
pub(super) trait KFormat: Block {
    /// Groups with a scale of their own: 8 or 16.
    const GROUPS: usize;

    /// Unsigned integers in element order, 32 a vector, at most 63.
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8];
    /// The scale of every 16 elements, sixteen i16.
    fn scales<S: IntSimd>(&self, s: S) -> __m256i;
    /// What multiplies the sums of every 16 activations, sixteen i16.
    fn per_sum<S: IntSimd>(&self, s: S) -> __m256i;
    /// The block's scale, and the scale of its minima (zero where it has none).
    fn d_and_dmin(&self) -> (Half, Half);

    /// The integers in the order of [`Self::activations`].
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N];
    /// Activations in the order of the format's integers.
    fn activations<S: KLanes<N>, const N: usize>(s: S, q: &[i8; 256]) -> [S::Vector; N];
    /// What four rows' blocks are better unpacked for together, if anything.
    fn common<S: KLanes<N>, const N: usize>(s: S, rows: [&Self; 4]) -> Option<S::Header>;
    /// The scale of each product of a row.
    fn vector_scales<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        common: Option<S::Header>,
        row: usize,
    ) -> [S::Vector; N];
    /// What the products are added to.
    fn start<S: KLanes<N>, const N: usize>(&self, s: S, sums: &[i16; 16]) -> S::Vector;
    /// The chain steps of four rows.
    fn rows_chain<S: KLanes<N>, const N: usize>(
        s: S,
        block: ([&Self; 4], Option<S::Header>),
        x: (__m128, __m128, &[i16; 16]),
        acc: __m128,
    ) -> __m128;
}

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: KFormat, S: KLanes<N>, const N: usize, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = four_blocks::<F>(rows);
    let mut acc = [s.rows_splat(0.0); T];
    for b in 0..rows[0].len() {
        let block = [&rows[0][b], &rows[1][b], &rows[2][b], &rows[3][b]];
        let common = F::common(s, block);
        let mut dots = [[s.no_dots(); 4]; T];
        for r in 0..4 {
            prefetch(s, bytemuck::bytes_of(block[r]));
            let (weights, scales) = (block[r].vectors(s), block[r].vector_scales(s, common, r));
            for t in 0..T {
                let q = F::activations(s, &x[t].q.as_chunks().0[b]);
                let mut sum = block[r].start(s, &x[t].sums.as_chunks().0[b]);
                for v in 0..N {
                    sum = s.dot_runs(sum, weights[v], q[v], scales[v]);
                }
                dots[t][r] = sum;
            }
        }
        for t in 0..T {
            let products = s.rows_to_floats(s.total(dots[t]));
            let sums = x[t].sums.as_chunks().0[b];
            let d_x = s.rows_splat(x[t].scales[b]);
            acc[t] = F::rows_chain(s, (block, common), (d_x, products, &sums), acc[t]);
        }
    }
    let mut out = [[0.0; 4]; T];
    for t in 0..T {
        out[t] = s.rows_array(acc[t]);
    }
    out
}

/// The eight scales and the eight minima of Q4_K and Q5_K, four bytes at a time: the same fields as
/// `quant::BlockQ4K::scales_and_mins`, each pair of words little-endian.
#[inline(always)]
fn scales_and_mins(packed: &[u8; 12]) -> (u64, u64) {
    const LOW_SIX: u32 = 0x3f3f_3f3f;
    const LOW_FOUR: u32 = 0x0f0f_0f0f;
    const TOP_TWO: u32 = 0x3030_3030;
    let (words, _) = packed.as_chunks::<4>();
    let [first, second, third] = [0, 1, 2].map(|i| u32::from_le_bytes(words[i]));
    let scales = third & LOW_FOUR | first >> 2 & TOP_TWO;
    let mins = third >> 4 & LOW_FOUR | second >> 2 & TOP_TWO;
    let join = |low: u32, high: u32| u64::from(low & LOW_SIX) | u64::from(high) << 32;
    (join(first, scales), join(second, mins))
}

macro_rules! affine {
    () => {
        const GROUPS: usize = 8;

        #[inline(always)]
        fn scales<S: IntSimd>(&self, s: S) -> __m256i {
            s.widen_twice(scales_and_mins(&self.scales).0)
        }

        #[inline(always)]
        fn per_sum<S: IntSimd>(&self, s: S) -> __m256i {
            s.widen_twice(scales_and_mins(&self.scales).1)
        }

        #[inline(always)]
        fn d_and_dmin(&self) -> (Half, Half) {
            (self.d, self.dmin)
        }

        #[inline(always)]
        fn activations<S: KLanes<N>, const N: usize>(s: S, q: &[i8; 256]) -> [S::Vector; N] {
            s.paired(q)
        }

        #[inline(always)]
        fn common<S: KLanes<N>, const N: usize>(s: S, rows: [&Self; 4]) -> Option<S::Header> {
            Some(s.header(rows.map(
                #[inline(always)]
                |row| row.header(),
            )))
        }

        #[inline(always)]
        fn vector_scales<S: KLanes<N>, const N: usize>(
            &self,
            s: S,
            common: Option<S::Header>,
            row: usize,
        ) -> [S::Vector; N] {
            s.run_scales(common.expect("of affine formats"), row)
        }

        #[inline(always)]
        fn start<S: KLanes<N>, const N: usize>(&self, s: S, _: &[i16; 16]) -> S::Vector {
            s.no_dots()
        }

        #[inline(always)]
        fn rows_chain<S: KLanes<N>, const N: usize>(
            s: S,
            (_, common): ([&Self; 4], Option<S::Header>),
            (d_x, products, sums): (__m128, __m128, &[i16; 16]),
            acc: __m128,
        ) -> __m128 {
            let header = common.expect("of affine formats");
            let [d, dmin] = s.header_floats(header);
            let minima = s.rows_to_floats(s.minima(header, sums));
            let acc = s.rows_fma(s.rows_mul(d, d_x), products, acc);
            s.rows_fnma(s.rows_mul(dmin, d_x), minima, acc)
        }
    };
}

impl KFormat for BlockQ4K {
    affine!();

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q4_k(&self.qs)
    }

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let (packed, _) = self.qs.as_chunks::<32>();
        let mut weights = [s.zero_i32(); 8];
        for pair in 0..4 {
            let bytes = s.bytes(&packed[pair]);
            weights[2 * pair] = s.field::<0>(bytes, 15);
            weights[2 * pair + 1] = s.field::<4>(bytes, 15);
        }
        weights
    }
}

impl KFormat for BlockQ5K {
    affine!();

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q5_k(&self.qs, &self.qh)
    }

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let (packed, _) = self.qs.as_chunks::<32>();
        let high = s.bytes(&self.qh);
        // Bit g of byte j is the fifth bit of element j of group g.
        let fifth = [
            s.field::<0>(high, 1),
            s.field::<1>(high, 1),
            s.field::<2>(high, 1),
            s.field::<3>(high, 1),
            s.field::<4>(high, 1),
            s.field::<5>(high, 1),
            s.field::<6>(high, 1),
            s.field::<7>(high, 1),
        ];
        let mut weights = [s.zero_i32(); 8];
        for pair in 0..4 {
            let bytes = s.bytes(&packed[pair]);
            weights[2 * pair] = s.merge::<4>(s.field::<0>(bytes, 15), fifth[2 * pair]);
            weights[2 * pair + 1] = s.merge::<4>(s.field::<4>(bytes, 15), fifth[2 * pair + 1]);
        }
        weights
    }
}

impl KFormat for BlockQ6K {
    const GROUPS: usize = 16;

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let (low, _) = self.ql.as_chunks::<32>();
        let (high, _) = self.qh.as_chunks::<32>();
        let mut weights = [s.zero_i32(); 8];
        for half in 0..2 {
            let (first, second) = (s.bytes(&low[2 * half]), s.bytes(&low[2 * half + 1]));
            let top = s.bytes(&high[half]);
            weights[4 * half] = s.merge::<4>(s.field::<0>(first, 15), s.field::<0>(top, 3));
            weights[4 * half + 1] = s.merge::<4>(s.field::<0>(second, 15), s.field::<2>(top, 3));
            weights[4 * half + 2] = s.merge::<4>(s.field::<4>(first, 15), s.field::<4>(top, 3));
            weights[4 * half + 3] = s.merge::<4>(s.field::<4>(second, 15), s.field::<6>(top, 3));
        }
        weights
    }

    #[inline(always)]
    fn scales<S: IntSimd>(&self, s: S) -> __m256i {
        s.widen_i8(&self.scales)
    }

    #[inline(always)]
    fn per_sum<S: IntSimd>(&self, s: S) -> __m256i {
        s.widen_i8(&self.scales)
    }

    #[inline(always)]
    fn d_and_dmin(&self) -> (Half, Half) {
        (self.d, Half([0; 2]))
    }

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q6_k(&self.ql, &self.qh)
    }

    #[inline(always)]
    fn activations<S: KLanes<N>, const N: usize>(s: S, q: &[i8; 256]) -> [S::Vector; N] {
        s.straight(q)
    }

    #[inline(always)]
    fn common<S: KLanes<N>, const N: usize>(_: S, _: [&Self; 4]) -> Option<S::Header> {
        None
    }

    #[inline(always)]
    fn vector_scales<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        _: Option<S::Header>,
        _: usize,
    ) -> [S::Vector; N] {
        s.narrow_scales(&self.scales)
    }

    // Σ sc·(q − 32)·x = Σ sc·q·x − 32 Σ sc·x
    #[inline(always)]
    fn start<S: KLanes<N>, const N: usize>(&self, s: S, sums: &[i16; 16]) -> S::Vector {
        s.centre(&self.scales, sums)
    }

    #[inline(always)]
    fn rows_chain<S: KLanes<N>, const N: usize>(
        s: S,
        (rows, _): ([&Self; 4], Option<S::Header>),
        (d_x, products, _): (__m128, __m128, &[i16; 16]),
        acc: __m128,
    ) -> __m128 {
        let d = s.rows_widen_f16(rows.map(
            #[inline(always)]
            |row| row.d.0,
        ));
        s.rows_fma(s.rows_mul(d, d_x), products, acc)
    }
}
