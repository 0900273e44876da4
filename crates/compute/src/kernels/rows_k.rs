//! Four weight rows of a K format times a few tokens: a block of 256 is unpacked once and
//! multiplied with every token.

use std::arch::x86_64::__m256i;

use super::quantized::QuantizedRow;
use crate::quant::{Block, BlockQ4K, BlockQ5K, BlockQ6K, blocks};
use crate::simd::IntSimd;

/// A block of 256 weights, unpacked.
pub(super) struct Unpacked {
    /// Unsigned integers in element order, 32 a vector, at most 63.
    weights: [__m256i; 8],
    /// The scale of each byte pair.
    scales: [__m256i; 8],
    /// Multiplied with the activations' sums of 16.
    per_sum: [i16; 16],
    d: f32,
    dmin: f32,
}

/// What a K format is made of.
pub(super) trait KFormat: Block {
    fn unpack<S: IntSimd>(&self, s: S) -> Unpacked;

    /// The chain steps of one block, from `products = Σ scale · Σ u·x` and
    /// `sums = Σ per_sum · Σ₁₆ x`.
    fn chain(block: &Unpacked, products: i32, sums: i32, d_x: f32, acc: f32) -> f32;
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
            let block = rows[r][b].unpack(s);
            for t in 0..T {
                let (q, _) = x[t].q.as_chunks::<256>().0[b].as_chunks::<32>();
                let mut dots = s.zero_i32();
                for g in 0..8 {
                    let x = s.bytes_i8(&q[g]);
                    dots = s.dot_scaled(dots, block.weights[g], x, block.scales[g]);
                }
                let sums = s.dot_i16(&block.per_sum, &x[t].sums.as_chunks().0[b]);
                let products = s.sum_i32(dots);
                acc[t][r] = F::chain(&block, products, sums, x[t].scales[b], acc[t][r]);
            }
        }
    }
    acc
}

/// `acc + d·d_x·S − dmin·d_x·M`, in two fused steps.
#[inline(always)]
fn affine_chain(block: &Unpacked, products: i32, minima: i32, d_x: f32, acc: f32) -> f32 {
    let acc = (block.d * d_x).mul_add(products as f32, acc);
    (-(block.dmin * d_x)).mul_add(minima as f32, acc)
}

/// Eight groups of 32 with six-bit scales and minima.
#[inline(always)]
fn affine_block<S: IntSimd>(
    s: S,
    weights: [__m256i; 8],
    (scales, mins): ([u8; 8], [u8; 8]),
    (d, dmin): (f32, f32),
) -> Unpacked {
    let mut scale_vectors = [s.zero_i32(); 8];
    let mut per_sum = [0; 16];
    for g in 0..8 {
        let scale = i16::from(scales[g]);
        scale_vectors[g] = s.scale_pair(scale, scale);
        per_sum[2 * g] = i16::from(mins[g]);
        per_sum[2 * g + 1] = i16::from(mins[g]);
    }
    Unpacked {
        weights,
        scales: scale_vectors,
        per_sum,
        d,
        dmin,
    }
}

impl KFormat for BlockQ4K {
    #[inline(always)]
    fn unpack<S: IntSimd>(&self, s: S) -> Unpacked {
        let (packed, _) = self.qs.as_chunks::<32>();
        let mut weights = [s.zero_i32(); 8];
        for pair in 0..4 {
            let bytes = s.bytes(&packed[pair]);
            weights[2 * pair] = s.field::<0>(bytes, 15);
            weights[2 * pair + 1] = s.field::<4>(bytes, 15);
        }
        let coefficients = (self.d.to_f32(), self.dmin.to_f32());
        affine_block(s, weights, self.scales_and_mins(), coefficients)
    }

    #[inline(always)]
    fn chain(block: &Unpacked, products: i32, sums: i32, d_x: f32, acc: f32) -> f32 {
        affine_chain(block, products, sums, d_x, acc)
    }
}

impl KFormat for BlockQ5K {
    #[inline(always)]
    fn unpack<S: IntSimd>(&self, s: S) -> Unpacked {
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
        let coefficients = (self.d.to_f32(), self.dmin.to_f32());
        affine_block(s, weights, self.scales_and_mins(), coefficients)
    }

    #[inline(always)]
    fn chain(block: &Unpacked, products: i32, sums: i32, d_x: f32, acc: f32) -> f32 {
        affine_chain(block, products, sums, d_x, acc)
    }
}

impl KFormat for BlockQ6K {
    #[inline(always)]
    fn unpack<S: IntSimd>(&self, s: S) -> Unpacked {
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
        let mut scales = [s.zero_i32(); 8];
        for g in 0..8 {
            let [first, last] = [self.scales[2 * g], self.scales[2 * g + 1]];
            scales[g] = s.scale_pair(i16::from(first), i16::from(last));
        }
        let per_sum = self.scales.map(i16::from);
        Unpacked {
            weights,
            scales,
            per_sum,
            d: self.d.to_f32(),
            dmin: 0.0,
        }
    }

    #[inline(always)]
    fn chain(block: &Unpacked, products: i32, sums: i32, d_x: f32, acc: f32) -> f32 {
        // Σ sc·(q − 32)·x = Σ sc·q·x − 32 Σ sc·x
        (block.d * d_x).mul_add((products - 32 * sums) as f32, acc)
    }
}
