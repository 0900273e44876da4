//! Four weight rows of a 32-weight format times a few tokens: a few blocks of each row a step, a
//! 128-bit lane for each block.

use std::arch::x86_64::{__m128, __m256i};
use std::mem::offset_of;

use super::matmul::{four_blocks, prefetch};
use super::quantized::QuantizedRow;
use crate::quant::{Block, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, Half};
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

    /// `B` blocks of each of four rows.
    fn unpack<S: BlockLanes<B>, const B: usize>(s: S, rows: [&[u8]; 4]) -> Unpacked<S, B>;
}

/// `B` blocks of each of four rows.
pub(super) struct Unpacked<S: BlockLanes<B>, const B: usize> {
    /// The integers `+ OFFSET`: each block's first sixteen, and its last.
    halves: [[S::Ints; 2]; 4],
    scales: S::Floats,
    minima: Option<S::Floats>,
}

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: SmallFormat, S: BlockLanes<B>, const B: usize, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = four_blocks::<F>(rows);
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
    let rows = [
        bytemuck::cast_slice(rows[0]),
        bytemuck::cast_slice(rows[1]),
        bytemuck::cast_slice(rows[2]),
        bytemuck::cast_slice(rows[3]),
    ];
    let Unpacked {
        halves,
        scales,
        minima,
    } = F::unpack(s, rows);
    let offset = if F::SIGNED {
        S::SIGNED_OFFSET
    } else {
        F::OFFSET
    };
    for t in 0..T {
        let q = s.halves(x[t].q);
        let mut sums = [s.zero_lanes(); 4];
        for r in 0..4 {
            sums[r] = if F::SIGNED {
                s.dot_signed_halves(halves[r], q)
            } else {
                s.dot_halves(halves[r], q, F::LARGEST)
            };
        }
        let largest = if F::SIGNED { 255 } else { F::LARGEST };
        let sums = s.transposed_sums((sums, largest), x[t].sums, offset);
        let scales = s.lanes_mul(scales, x[t].scales);
        acc[t] = if let Some(minima) = minima {
            let minima = s.lanes_mul(minima, x[t].scales);
            s.chain_with_minima(acc[t], skip, (scales, minima), (sums, x[t].sums))
        } else {
            s.chain(acc[t], skip, scales, sums)
        };
    }
}

/// The parts that are alike in all five formats: numbers first, then packed integers.
macro_rules! header {
    () => {
        #[inline(always)]
        fn scale(&self) -> Half {
            self.d
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
    };
}

/// [`SmallFormat::unpack`]: from a row's blocks (and their heads, where more than the scales is needed
/// of those), its integers.
macro_rules! unpack {
    (@scales $s:ident, $rows:ident, $heads:expr) => {
        if Self::MINIMUM {
            let [scales, minima] =
                $s.block_scales_and_minima::<{ size_of::<Self>() }>($rows, $heads);
            (scales, Some(minima))
        } else {
            let scales = $s.block_scales::<{ size_of::<Self>() }>($rows, $heads);
            (scales, None)
        }
    };
    (|$s:ident, $row:ident| $halves:expr) => {
        #[inline(always)]
        fn unpack<S: BlockLanes<B>, const B: usize>($s: S, rows: [&[u8]; 4]) -> Unpacked<S, B> {
            let mut halves = [[$s.zero_lanes(); 2]; 4];
            for r in 0..4 {
                let $row = rows[r];
                halves[r] = $halves;
            }
            let (scales, minima) = unpack!(@scales $s, rows, None);
            Unpacked {
                halves,
                scales,
                minima,
            }
        }
    };
    (|$s:ident, $row:ident, $head:ident| $halves:expr) => {
        #[inline(always)]
        fn unpack<S: BlockLanes<B>, const B: usize>($s: S, rows: [&[u8]; 4]) -> Unpacked<S, B> {
            let mut heads = [$s.zero_lanes(); 4];
            let mut halves = [[$s.zero_lanes(); 2]; 4];
            for r in 0..4 {
                heads[r] = $s.heads::<{ size_of::<Self>() }>(rows[r]);
                let ($row, $head) = (rows[r], heads[r]);
                halves[r] = $halves;
            }
            let (scales, minima) = unpack!(@scales $s, rows, Some(heads));
            Unpacked {
                halves,
                scales,
                minima,
            }
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

    unpack!(|s, row| [
        s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row),
        s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) + 16 }>(row),
    ]);
}

macro_rules! four_bits {
    () => {
        #[inline(always)]
        fn integers<S: IntSimd>(&self, s: S) -> __m256i {
            s.nibbles(&self.qs)
        }

        unpack!(|s, row| nibbles(
            s,
            s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row)
        ));
    };
}

impl SmallFormat for BlockQ4_0 {
    const OFFSET: i16 = 8;
    const LARGEST: i32 = 15;
    header!();
    four_bits!();
}

impl SmallFormat for BlockQ4_1 {
    const OFFSET: i16 = 0;
    const LARGEST: i32 = 15;
    header!(with minimum);
    four_bits!();
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

        unpack!(|s, row, head| s.fifth_bits::<{ offset_of!(Self, qh) }>(
            nibbles(
                s,
                s.lanes::<{ size_of::<Self>() }, { offset_of!(Self, qs) }>(row)
            ),
            head
        ));
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
fn nibbles<S: BlockLanes<B>, const B: usize>(s: S, packed: S::Ints) -> [S::Ints; 2] {
    [s.low_nibbles(packed), s.high_nibbles(packed)]
}
