//! Four weight rows of a K format times a few tokens: a block of 256 is unpacked once and
//! multiplied with every token.

use std::arch::x86_64::__m256i;

use super::quantized::QuantizedRow;
use crate::quant::{Block, BlockQ4K, BlockQ5K, BlockQ6K, Half, blocks};
use crate::simd::IntSimd;

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

    /// The chain steps of one row, from the scales times the activations' scale.
    fn chain(scales: (f32, f32), sums: (i32, i32), acc: f32) -> f32;
}

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: KFormat, S: IntSimd, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = rows.map(blocks::<F>);
    let mut acc = [[0.0; 4]; T];
    for b in 0..rows[0].len() {
        for r in 0..4 {
            let block = &rows[r][b];
            let weights = block.weights(s);
            let scales = s.scale_pairs(block.scales(s));
            let per_sum = block.per_sum(s);
            let (d, dmin) = block.d_and_dmin();
            let (d, dmin) = (s.widen_one(d.0), s.widen_one(dmin.0));
            for t in 0..T {
                let (q, _) = x[t].q.as_chunks::<256>().0[b].as_chunks::<32>();
                let mut dots = s.zero_i32();
                for g in 0..8 {
                    dots = s.dot_scaled(dots, weights[g], s.bytes_i8(&q[g]), scales[g]);
                }
                let sums = s.dot_i16(per_sum, &x[t].sums.as_chunks().0[b]);
                let d_x = x[t].scales[b];
                acc[t][r] = F::chain((d * d_x, dmin * d_x), (s.sum_i32(dots), sums), acc[t][r]);
            }
        }
    }
    acc
}

/// `acc + d·d_x·S − dmin·d_x·M`, in two fused steps.
#[inline(always)]
fn affine_chain((d, dmin): (f32, f32), (products, minima): (i32, i32), acc: f32) -> f32 {
    let acc = d.mul_add(products as f32, acc);
    (-dmin).mul_add(minima as f32, acc)
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
        fn chain(scales: (f32, f32), sums: (i32, i32), acc: f32) -> f32 {
            affine_chain(scales, sums, acc)
        }
    };
}

impl KFormat for BlockQ4K {
    affine!();

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

    // Σ sc·(q − 32)·x = Σ sc·q·x − 32 Σ sc·x
    #[inline(always)]
    fn chain((d, _): (f32, f32), (products, sums): (i32, i32), acc: f32) -> f32 {
        d.mul_add((products - 32 * sums) as f32, acc)
    }
}
