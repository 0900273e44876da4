//! Four weight rows of a 32-weight format times a few tokens: one block a step, lanes are rows.

use std::arch::x86_64::{__m128, __m256i};

use super::quantized::QuantizedRow;
use crate::quant::{Block, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, Half, blocks};
use crate::simd::IntSimd;

/// What a 32-weight format is made of.
pub(super) trait SmallFormat: Block {
    /// Subtracted from every unpacked integer.
    const OFFSET: i16;
    /// The largest of them, where they are unsigned.
    const LARGEST: i32;
    /// Whether the unpacked integers are signed bytes.
    const SIGNED: bool = false;
    /// Whether weights have a minimum beside the scale.
    const MINIMUM: bool = false;

    /// The integers `+ OFFSET` in element order.
    fn integers<S: IntSimd>(&self, s: S) -> __m256i;
    fn scale(&self) -> Half;
    fn minimum(&self) -> Half {
        Half([0; 2])
    }
}

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: SmallFormat, S: IntSimd, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = rows.map(blocks::<F>);
    let mut acc = [s.rows_splat(0.0); T];
    for b in 0..rows[0].len() {
        let mut weights = [s.zero_i32(); 4];
        let mut scales = [[0; 2]; 4];
        let mut minima = [[0; 2]; 4];
        for r in 0..4 {
            let block = &rows[r][b];
            weights[r] = block.integers(s);
            scales[r] = block.scale().0;
            minima[r] = block.minimum().0;
        }
        let (scales, minima) = (s.rows_widen_f16(scales), s.rows_widen_f16(minima));
        for t in 0..T {
            let block = (weights, scales, minima);
            acc[t] = step::<F, S>(s, acc[t], block, x[t], b);
        }
    }
    let mut out = [[0.0; 4]; T];
    for t in 0..T {
        out[t] = s.rows_array(acc[t]);
    }
    out
}

/// One chain step of four rows: block `b` of one token.
#[inline(always)]
fn step<F: SmallFormat, S: IntSimd>(
    s: S,
    acc: __m128,
    (weights, scales, minima): ([__m256i; 4], __m128, __m128),
    x: QuantizedRow<'_>,
    b: usize,
) -> __m128 {
    let q = s.bytes_i8(&x.q.as_chunks().0[b]);
    let [low, high] = x.sums.as_chunks::<2>().0[b];
    let sum_x = i32::from(low) + i32::from(high);
    let d_x = s.rows_splat(x.scales[b]);
    let mut dots = [s.zero_i32(); 4];
    for r in 0..4 {
        dots[r] = if F::SIGNED {
            s.dot_signed(s.zero_i32(), weights[r], q)
        } else {
            s.dot(s.zero_i32(), weights[r], q)
        };
    }
    let sums = s.rows_sums(dots, i32::from(F::OFFSET) * sum_x);
    let mut acc = s.rows_fma(s.rows_mul(scales, d_x), sums, acc);
    if F::MINIMUM {
        acc = s.rows_fma(s.rows_mul(minima, d_x), s.rows_splat(sum_x as f32), acc);
    }
    acc
}

impl SmallFormat for BlockQ8_0 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 127;
    const SIGNED: bool = true;

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.bytes_i8(&self.qs)
    }

    #[inline(always)]
    fn scale(&self) -> Half {
        self.d
    }
}

impl SmallFormat for BlockQ4_0 {
    const OFFSET: i16 = 8;
    const LARGEST: i32 = 15;

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.nibbles(&self.qs)
    }

    #[inline(always)]
    fn scale(&self) -> Half {
        self.d
    }
}

impl SmallFormat for BlockQ4_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 15;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.nibbles(&self.qs)
    }

    #[inline(always)]
    fn scale(&self) -> Half {
        self.d
    }

    #[inline(always)]
    fn minimum(&self) -> Half {
        self.m
    }
}

impl SmallFormat for BlockQ5_0 {
    const OFFSET: i16 = 16;
    const LARGEST: i32 = 31;

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.or(
            s.nibbles(&self.qs),
            s.spread_bits(u32::from_le_bytes(self.qh), 16),
        )
    }

    #[inline(always)]
    fn scale(&self) -> Half {
        self.d
    }
}

impl SmallFormat for BlockQ5_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 31;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.or(
            s.nibbles(&self.qs),
            s.spread_bits(u32::from_le_bytes(self.qh), 16),
        )
    }

    #[inline(always)]
    fn scale(&self) -> Half {
        self.d
    }

    #[inline(always)]
    fn minimum(&self) -> Half {
        self.m
    }
}
