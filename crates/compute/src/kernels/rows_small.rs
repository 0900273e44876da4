//! Four weight rows of a 32-weight format times a few tokens: a few blocks of each row a step, a
//! 128-bit lane for each block.

use std::arch::x86_64::__m128;
use std::ops::Range;

use super::formats_small::{SmallFormat, Unpacked};
use super::matmul::{Tile, four_blocks, prefetch};
use super::quantized::{QuantizedRow, QuantizedRows};
use crate::simd::BlockLanes;

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: SmallFormat, S: BlockLanes<B>, const B: usize, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = four_blocks::<F>(rows);
    let (steps, rest) = (rows[0].len() / B, rows[0].len() % B);
    let mut acc = [s.rows_splat(0.0); T];
    for i in 0..steps {
        let mut inputs = [Activations::NONE; T];
        for t in 0..T {
            inputs[t] = Activations::at(x[t], i);
        }
        step(s, weights(s, rows, i), inputs, 0, &mut acc);
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

/// Blocks `i · B` and on of each row, after asking for what follows them.
#[inline(always)]
fn weights<F: SmallFormat, S: BlockLanes<B>, const B: usize>(
    s: S,
    rows: [&[F]; 4],
    i: usize,
) -> [&[F; B]; 4] {
    let mut weights = [&rows[0].as_chunks().0[i]; 4];
    for r in 0..4 {
        weights[r] = &rows[r].as_chunks().0[i];
        prefetch(s, bytemuck::cast_slice(weights[r]));
    }
    weights
}

/// One token for [`pairs_of_rows`]: rows of some vectors of `B` blocks and a half.
pub(super) struct Halved<'a, const B: usize> {
    x: QuantizedRow<'a>,
    /// The last half vector of blocks, then the first.
    q: [[i8; 32]; B],
    scales: [f32; B],
    sums: [[i16; 2]; B],
}

impl<'a, const B: usize> Halved<'a, B> {
    /// `None`: there is more than one token, no pair of rows, or the rows are not of such a length.
    pub(super) fn of(tile: &Tile<'_, '_>, x: &'a QuantizedRows) -> Option<Self> {
        if tile.tokens > 1 || tile.out.range().len() < 2 {
            return None;
        }
        let x = x.row(0);
        let blocks = x.scales.len();
        if blocks < B || 2 * (blocks % B) != B {
            return None;
        }
        let (mut q, mut scales, mut sums) = ([[0; 32]; B], [0.0; B], [[0; 2]; B]);
        for b in 0..B {
            let from = (blocks - B / 2 + b) % blocks;
            q[b] = x.q.as_chunks().0[from];
            scales[b] = x.scales[from];
            sums[b] = x.sums.as_chunks().0[from];
        }
        Some(Self { x, q, scales, sums })
    }
}

/// Dot products of each first and each second row of four pairs of neighbours, which share the vector
/// where the one ends and the other begins.
#[inline(always)]
pub(super) fn pairs_of_rows<F: SmallFormat, S: BlockLanes<B>, const B: usize>(
    s: S,
    pairs: [&[u8]; 4],
    x: &Halved<'_, B>,
) -> [[f32; 4]; 2] {
    let pairs = four_blocks::<F>(pairs);
    let middle = pairs[0].len() / (2 * B);
    let mut first = [s.rows_splat(0.0)];
    for i in 0..middle {
        step(
            s,
            weights(s, pairs, i),
            [Activations::at(x.x, i)],
            0,
            &mut first,
        );
    }
    let between = Activations {
        q: &x.q,
        scales: &x.scales,
        sums: &x.sums,
    };
    let unpacked = F::unpack(s, bytes(weights(s, pairs, middle)));
    let terms = Terms::new::<F>(s, &unpacked, between);
    let first = terms.chain(s, 0..B / 2, first[0]);
    let mut second = [terms.chain(s, B / 2..B, s.rows_splat(0.0))];
    let rest = after(x.x, B / 2);
    for i in 0..middle {
        let inputs = [Activations::at(rest, i)];
        step(s, weights(s, pairs, middle + 1 + i), inputs, 0, &mut second);
    }
    [s.rows_array(first), s.rows_array(second[0])]
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
            inputs[t] = Activations::at(after(x[t], from), 0);
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

impl<'a, const B: usize> Activations<'a, B> {
    const NONE: Self = Self {
        q: &[[0; 32]; B],
        scales: &[0.0; B],
        sums: &[[0; 2]; B],
    };

    /// Those of blocks `i · B` and on.
    #[inline(always)]
    fn at(x: QuantizedRow<'a>, i: usize) -> Self {
        Self {
            q: &x.q.as_chunks().0.as_chunks().0[i],
            scales: &x.scales.as_chunks().0[i],
            sums: &x.sums.as_chunks().0.as_chunks().0[i],
        }
    }
}

/// What comes after the first `blocks` blocks.
#[inline(always)]
fn after(x: QuantizedRow<'_>, blocks: usize) -> QuantizedRow<'_> {
    QuantizedRow {
        q: &x.q[32 * blocks..],
        scales: &x.scales[blocks..],
        sums: &x.sums[2 * blocks..],
    }
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
    let unpacked = F::unpack(s, bytes(rows));
    for t in 0..T {
        acc[t] = Terms::new::<F>(s, &unpacked, x[t]).chain(s, skip..B, acc[t]);
    }
}

#[inline(always)]
fn bytes<F: SmallFormat, const B: usize>(rows: [&[F; B]; 4]) -> [&[u8]; 4] {
    [
        bytemuck::cast_slice(rows[0]),
        bytemuck::cast_slice(rows[1]),
        bytemuck::cast_slice(rows[2]),
        bytemuck::cast_slice(rows[3]),
    ]
}

/// What `B` blocks of four rows add to the chains of a token.
struct Terms<'a, S: BlockLanes<B>, const B: usize> {
    scales: S::Floats,
    sums: S::Floats,
    minima: Option<S::Floats>,
    x: Activations<'a, B>,
}

impl<'a, S: BlockLanes<B>, const B: usize> Terms<'a, S, B> {
    #[inline(always)]
    fn new<F: SmallFormat>(s: S, unpacked: &Unpacked<S, B>, x: Activations<'a, B>) -> Self {
        let Unpacked {
            halves,
            scales,
            minima,
        } = unpacked;
        let q = s.halves(x.q);
        let mut sums = [s.zero_lanes(); 4];
        for r in 0..4 {
            sums[r] = if F::SIGNED {
                s.dot_signed_halves(halves[r], q)
            } else {
                s.dot_halves(halves[r], q, F::LARGEST)
            };
        }
        let (largest, offset) = if F::SIGNED {
            (255, S::SIGNED_OFFSET)
        } else {
            (F::LARGEST, F::OFFSET)
        };
        Self {
            sums: s.transposed_sums((sums, largest), x.sums, offset),
            scales: s.lanes_mul(*scales, x.scales),
            minima: minima.map(
                #[inline(always)]
                |minima| s.lanes_mul(minima, x.scales),
            ),
            x,
        }
    }

    /// The steps of the blocks `lanes`.
    #[inline(always)]
    fn chain(&self, s: S, lanes: Range<usize>, acc: __m128) -> __m128 {
        if let Some(minima) = self.minima {
            let (scales, sums) = ((self.scales, minima), (self.sums, self.x.sums));
            s.chain_with_minima(acc, lanes, scales, sums)
        } else {
            s.chain(acc, lanes, self.scales, self.sums)
        }
    }
}
