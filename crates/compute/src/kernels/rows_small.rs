//! Four weight rows of a 32-weight format times a few tokens: a few blocks of each row a step, a
//! 128-bit lane for each block.

use std::arch::x86_64::{__m128, __m256i};

use super::matmul::prefetch;
use super::quantized::QuantizedRow;
use crate::quant::{Block, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, Half, blocks};
use crate::simd::{BlockLanes, IntSimd};

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

    /// The integers `+ OFFSET` of consecutive blocks: each block's first sixteen, then its last.
    fn halves<S: BlockLanes<B>, const B: usize>(s: S, blocks: &[Self; B]) -> [S::Ints; 2];
    /// The scales, and the minima where there are any, of `B` blocks of four rows.
    fn scales<S: BlockLanes<B>, const B: usize>(
        s: S,
        rows: [&[u8]; 4],
    ) -> (S::Floats, Option<S::Floats>);
}

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: SmallFormat, S: BlockLanes<B>, const B: usize, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = rows.map(
        #[inline(always)]
        |row| blocks::<F>(row),
    );
    let (steps, rest) = (rows[0].len() / B, rows[0].len() % B);
    let none = [F::zeroed(); B];
    let mut acc = [s.rows_splat(0.0); T];
    for i in 0..steps {
        let mut weights = [&none; 4];
        for r in 0..4 {
            weights[r] = &rows[r].as_chunks().0[i];
            prefetch(s, bytemuck::cast_slice(weights[r]));
        }
        let mut inputs = [Activations::NONE; T];
        for t in 0..T {
            inputs[t] = Activations {
                q: &x[t].q.as_chunks().0.as_chunks().0[i],
                scales: &x[t].scales.as_chunks().0[i],
                sums: &x[t].sums.as_chunks().0.as_chunks().0[i],
            };
        }
        step(s, weights, inputs, 0, &mut acc);
    }
    if rest > 0 {
        // The last blocks again, of which only the rest takes chain steps.
        step_back(s, rows, x, rest, &mut acc);
    }
    let mut out = [[0.0; 4]; T];
    for t in 0..T {
        out[t] = s.rows_array(acc[t]);
    }
    out
}

/// The chain steps of a row's last `rest` blocks, fewer than `B`.
#[inline(always)]
fn step_back<F: SmallFormat, S: BlockLanes<B>, const B: usize, const T: usize>(
    s: S,
    rows: [&[F]; 4],
    x: [QuantizedRow<'_>; T],
    rest: usize,
    acc: &mut [__m128; T],
) {
    let none = [F::zeroed(); B];
    let blocks = rows[0].len();
    if blocks >= B {
        let from = blocks - B;
        let mut weights = [&none; 4];
        for r in 0..4 {
            weights[r] = rows[r].last_chunk().expect("as many blocks");
        }
        let mut inputs = [Activations::NONE; T];
        for t in 0..T {
            inputs[t] = Activations {
                q: &x[t].q[32 * from..].as_chunks().0.as_chunks().0[0],
                scales: &x[t].scales[from..].as_chunks().0[0],
                sums: &x[t].sums[2 * from..].as_chunks().0.as_chunks().0[0],
            };
        }
        step(s, weights, inputs, B - rest, acc);
        return;
    }
    // Zeros stand before the blocks of a row this short.
    let skip = B - rest;
    let mut padded = [none; 4];
    for r in 0..4 {
        padded[r][skip..].copy_from_slice(rows[r]);
    }
    for t in 0..T {
        let (mut q, mut scales, mut sums) = ([[0; 32]; B], [0.0; B], [[0; 2]; B]);
        q[skip..].copy_from_slice(x[t].q.as_chunks().0);
        scales[skip..].copy_from_slice(x[t].scales);
        sums[skip..].copy_from_slice(x[t].sums.as_chunks().0);
        let input = Activations {
            q: &q,
            scales: &scales,
            sums: &sums,
        };
        let mut one = [acc[t]];
        step(s, padded.each_ref(), [input], skip, &mut one);
        [acc[t]] = one;
    }
}

/// The activations of `B` blocks.
#[derive(Clone, Copy)]
struct Activations<'a, const B: usize> {
    q: &'a [[i8; 32]; B],
    scales: &'a [f32; B],
    sums: &'a [[i16; 2]; B],
}

impl<const B: usize> Activations<'_, B> {
    const NONE: Self = Self {
        q: &[[0; 32]; B],
        scales: &[0.0; B],
        sums: &[[0; 2]; B],
    };
}

/// The chain steps of `B` blocks but the first `skip`.
#[inline(always)]
fn step<F: SmallFormat, S: BlockLanes<B>, const B: usize, const T: usize>(
    s: S,
    rows: [&[F; B]; 4],
    x: [Activations<'_, B>; T],
    skip: usize,
    acc: &mut [__m128; T],
) {
    let mut weights = [[s.no_sum(); 2]; 4];
    for r in 0..4 {
        weights[r] = F::halves(s, rows[r]);
    }
    let (scales, minima) = F::scales(
        s,
        rows.map(
            #[inline(always)]
            |row| bytemuck::cast_slice(row),
        ),
    );
    let offset = if F::SIGNED {
        S::SIGNED_OFFSET
    } else {
        F::OFFSET
    };
    for t in 0..T {
        let q = s.halves(x[t].q);
        let mut sums = [s.no_sum(); 4];
        for r in 0..4 {
            for half in 0..2 {
                sums[r] = if F::SIGNED {
                    s.dot_lanes_signed(sums[r], weights[r][half], q[half])
                } else {
                    s.dot_lanes(sums[r], weights[r][half], q[half])
                };
            }
        }
        let sums = s.transposed_sums(sums, s.block_sums(x[t].sums, offset));
        let d_x = s.spread(x[t].scales);
        let (scales, sums) = (s.split(s.lanes_mul(scales, d_x)), s.split(sums));
        if let Some(minima) = minima {
            let minima = s.split(s.lanes_mul(minima, d_x));
            let sums_x = s.split(s.lanes_to_floats(s.block_sums(x[t].sums, 1)));
            for b in skip..B {
                acc[t] = s.rows_fma(scales[b], sums[b], acc[t]);
                acc[t] = s.rows_fma(minima[b], sums_x[b], acc[t]);
            }
        } else {
            for b in skip..B {
                acc[t] = s.rows_fma(scales[b], sums[b], acc[t]);
            }
        }
    }
}

/// The parts that are alike in all five formats: numbers first, then packed integers.
macro_rules! header {
    () => {
        #[inline(always)]
        fn scale(&self) -> Half {
            self.d
        }

        #[inline(always)]
        fn scales<S: BlockLanes<B>, const B: usize>(
            s: S,
            rows: [&[u8]; 4],
        ) -> (S::Floats, Option<S::Floats>) {
            (s.block_scales::<{ size_of::<Self>() }>(rows), None)
        }
    };
    (with minimum) => {
        const MINIMUM: bool = true;

        #[inline(always)]
        fn scale(&self) -> Half {
            self.d
        }

        #[inline(always)]
        fn minimum(&self) -> Half {
            self.m
        }

        #[inline(always)]
        fn scales<S: BlockLanes<B>, const B: usize>(
            s: S,
            rows: [&[u8]; 4],
        ) -> (S::Floats, Option<S::Floats>) {
            let [d, m] = s.block_scales_and_minima::<{ size_of::<Self>() }>(rows);
            (d, Some(m))
        }
    };
}

impl SmallFormat for BlockQ8_0 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 127;
    const SIGNED: bool = true;
    header!();

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.bytes_i8(&self.qs)
    }

    #[inline(always)]
    fn halves<S: BlockLanes<B>, const B: usize>(s: S, blocks: &[Self; B]) -> [S::Ints; 2] {
        let (mut first, mut last) = ([&[0; 16]; B], [&[0; 16]; B]);
        for b in 0..B {
            let (halves, _) = bytemuck::cast_ref::<_, [u8; 32]>(&blocks[b].qs).as_chunks::<16>();
            (first[b], last[b]) = (&halves[0], &halves[1]);
        }
        [s.lanes(first), s.lanes(last)]
    }
}

impl SmallFormat for BlockQ4_0 {
    const OFFSET: i16 = 8;
    const LARGEST: i32 = 15;
    header!();

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.nibbles(&self.qs)
    }

    #[inline(always)]
    fn halves<S: BlockLanes<B>, const B: usize>(s: S, blocks: &[Self; B]) -> [S::Ints; 2] {
        nibbles(
            s,
            blocks.each_ref().map(
                #[inline(always)]
                |block| &block.qs,
            ),
        )
    }
}

impl SmallFormat for BlockQ4_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 15;
    header!(with minimum);

    #[inline(always)]
    fn integers<S: IntSimd>(&self, s: S) -> __m256i {
        s.nibbles(&self.qs)
    }

    #[inline(always)]
    fn halves<S: BlockLanes<B>, const B: usize>(s: S, blocks: &[Self; B]) -> [S::Ints; 2] {
        nibbles(
            s,
            blocks.each_ref().map(
                #[inline(always)]
                |block| &block.qs,
            ),
        )
    }
}

macro_rules! five_bits {
    () => {
        #[inline(always)]
        fn integers<S: IntSimd>(&self, s: S) -> __m256i {
            s.or(
                s.nibbles(&self.qs),
                s.spread_bits(u32::from_le_bytes(self.qh), 16),
            )
        }

        #[inline(always)]
        fn halves<S: BlockLanes<B>, const B: usize>(s: S, blocks: &[Self; B]) -> [S::Ints; 2] {
            let four = nibbles(
                s,
                blocks.each_ref().map(
                    #[inline(always)]
                    |block| &block.qs,
                ),
            );
            s.fifth_bits(
                four,
                blocks.each_ref().map(
                    #[inline(always)]
                    |block| &block.qh,
                ),
            )
        }
    };
}

impl SmallFormat for BlockQ5_0 {
    const OFFSET: i16 = 16;
    const LARGEST: i32 = 31;
    header!();
    five_bits!();
}

impl SmallFormat for BlockQ5_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 31;
    header!(with minimum);
    five_bits!();
}

#[inline(always)]
fn nibbles<S: BlockLanes<B>, const B: usize>(s: S, packed: [&[u8; 16]; B]) -> [S::Ints; 2] {
    let packed = s.lanes(packed);
    [s.low_nibbles(packed), s.high_nibbles(packed)]
}
