//! Many tokens times rows of a float format. A few rows are widened once for each block of tokens and
//! stay in the nearest cache; the activations of the block, in tiles of a few tokens, stream past them
//! from the next one. A row and a token have one vector, their sixteen chains, from the first column
//! to the last, or in the scratch where the rows are cut into pieces.

#![allow(
    clippy::needless_range_loop,
    reason = "one index for a row or a token names the same thing in several arrays"
)]

use std::marker::PhantomData;
use std::ops::Range;

use super::matmul::{FLOAT_ROOM, Tile, Vector, Weights, far, prefetch};
use super::rows_float::FloatFormat;
use crate::pool::ColumnsPart;
use crate::simd::{Isa, Kernel, Lanes};

/// Steps of sixteen columns in a piece, at most: six rows of them are half the nearest cache.
const PIECE: usize = 64;
/// Vectors of a piece of the rows.
const ROWS: usize = 6 * PIECE;
/// Vectors of a block's chains.
const CHAINS: usize = 6 * MOST_TOKENS;
/// Tokens of a block, at most.
const MOST_TOKENS: usize = 256;
/// Vectors of a block's activations: less than half of a second cache of 2 MiB.
const ACTIVATIONS: usize = FLOAT_ROOM - ROWS - CHAINS;
/// Tokens for which the row kernels are slower.
const MIN_TOKENS: usize = 6;
/// Tokens whose product waits for memory, so that rows are taken far apart, see [`Tile::fill`].
const FEW: usize = 24;
/// Tokens whose chains are summed together, while they are near.
const TOGETHER: usize = 16;
/// Vectors between an activation and what is asked for meanwhile.
const AHEAD: usize = 16;

/// Whether products of so many tokens with rows of so many columns take the panel kernels.
pub(super) fn wanted(isa: Isa, tokens: usize, cols: usize) -> bool {
    isa != Isa::Scalar && tokens >= MIN_TOKENS && cols <= 16 * (ACTIVATIONS / 4)
}

/// A tile of the output to fill from F32 rows `x: [tokens, cols]`.
pub(super) struct Fill<'a, 'b, F> {
    pub(super) tile: Tile<'a, 'b>,
    pub(super) x: &'a [f32],
    /// [`FLOAT_ROOM`] vectors.
    pub(super) room: &'a mut [Vector],
    pub(super) format: PhantomData<F>,
}

impl<F: FloatFormat, S: Lanes> Kernel<S> for Fill<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        if S::WIDE {
            self.fill::<S, 6, 4>(s);
        } else {
            self.fill::<S, 3, 2>(s);
        }
    }
}

impl<F: FloatFormat> Fill<'_, '_, F> {
    /// `R` rows at a time, times tiles of `T` tokens.
    #[inline(always)]
    fn fill<S: Lanes, const R: usize, const T: usize>(self, s: S) {
        let Self { tile, x, room, .. } = self;
        let (rows, room) = room.split_at_mut(ROWS);
        let (chains, activations) = room.split_at_mut(CHAINS);
        let steps = tile.weights.cols.div_ceil(16);
        let most = (activations.len() / steps).min(MOST_TOKENS) / T * T;
        let block = tile.tokens.div_ceil(tile.tokens.div_ceil(most));
        for first in (0..tile.tokens).step_by(block.next_multiple_of(T)) {
            let tokens = first..(first + block.next_multiple_of(T)).min(tile.tokens);
            let cols = tile.weights.cols;
            let x = &x[tokens.start * cols..tokens.end * cols];
            arrange::<S, T>(s, x, cols, activations);
            let block = Block {
                weights: tile.weights,
                tokens,
                activations,
                spread: tile.tokens <= FEW,
            };
            block.products::<F, S, R, T>(s, (rows, chains), tile.out);
        }
    }
}

/// The pieces of rows of `steps` steps, of equal length as far as may be.
#[inline(always)]
fn pieces(steps: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = steps.div_ceil(steps.div_ceil(PIECE));
    (0..steps)
        .step_by(piece)
        .map(move |first| first..(first + piece).min(steps))
}

/// Tiles of at most `most` (a power of two) of `count` tokens: the first token and the tokens.
#[inline(always)]
fn tiles(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = (count - first).min(most);
        let tile = (first, 1 << left.checked_ilog2()?);
        first += tile.1;
        Some(tile)
    })
}

/// Brings rows of activations into the order in which they are multiplied, `[pieces][tiles][steps of
/// the piece][tokens of the tile]`, padded with zeros.
#[inline(always)]
fn arrange<S: Lanes, const T: usize>(s: S, x: &[f32], cols: usize, to: &mut [Vector]) {
    let tokens = x.len() / cols;
    let mut to = to.iter_mut();
    for steps in pieces(cols.div_ceil(16)) {
        for (first, count) in tiles(tokens, T) {
            for step in steps.clone() {
                for token in first..first + count {
                    let x = &x[token * cols..][..cols][16 * step..];
                    // The same columns of the next tile.
                    s.prefetch(bytemuck::cast_slice(x), 4 * T * cols);
                    let x = match x.first_chunk() {
                        Some(x) => s.load(x),
                        None => s.load_partial(x),
                    };
                    s.store(x, to.next().expect("room for the block's activations"));
                }
            }
        }
    }
}

/// All rows times a block of tokens.
struct Block<'a> {
    weights: Weights<'a>,
    tokens: Range<usize>,
    /// See [`arrange`].
    activations: &'a [Vector],
    /// Whether rows that are taken together lie far apart.
    spread: bool,
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn products<F: FloatFormat, S: Lanes, const R: usize, const T: usize>(
        &self,
        s: S,
        (rows, chains): (&mut [Vector], &mut [Vector]),
        out: &mut ColumnsPart<'_>,
    ) {
        let (tokens, range) = (self.tokens.len(), out.range());
        let (all, steps) = (&mut chains[..R * tokens], self.weights.cols.div_ceil(16));
        let groups = range.len().div_ceil(R);
        for group in 0..groups {
            let columns = self.columns::<R>(&range, group);
            let next = self.columns::<R>(&range, (group + 1).min(groups - 1));
            for piece in pieces(steps) {
                self.widen::<F, S, R>(s, columns, &piece, rows);
                let (x, weights) = (
                    &self.activations[piece.start * tokens..piece.end * tokens],
                    &rows[..R * piece.len()],
                );
                for (i, (token, count)) in tiles(tokens, T).enumerate() {
                    let x = &x[token * piece.len()..][..count * piece.len()];
                    let chains = &mut all[R * token..][..R * count];
                    // A row's part of what is widened next, if there are so many tiles.
                    let row = i.min(R - 1);
                    let ahead = if piece.end < steps {
                        self.from::<F>(columns[row], piece.end)
                    } else {
                        self.from::<F>(next[row], 0)
                    };
                    let ahead = (ahead, 16 * size_of::<F>());
                    let first = piece.start == 0;
                    match count {
                        4 if T >= 4 => multiply::<S, R, 4>(s, weights, x, ahead, (first, chains)),
                        2 => multiply::<S, R, 2>(s, weights, x, ahead, (first, chains)),
                        1 => multiply::<S, R, 1>(s, weights, x, ahead, (first, chains)),
                        _ => unreachable!("tiles of at most T tokens"),
                    }
                    let end = token + count;
                    if piece.end == steps && (end.is_multiple_of(TOGETHER) || end == tokens) {
                        let first = (end - 1) / TOGETHER * TOGETHER;
                        self.write::<S, R>(s, (first, &all[R * first..R * end]), columns, out);
                    }
                }
            }
        }
    }

    /// The rows of a group, the last of `range` standing in for those that are missing.
    #[inline(always)]
    fn columns<const R: usize>(&self, range: &Range<usize>, group: usize) -> [usize; R] {
        if self.spread {
            return far(range, group);
        }
        let mut columns = [range.end - 1; R];
        for r in 0..R {
            columns[r] = (range.start + group * R + r).min(range.end - 1);
        }
        columns
    }

    /// A row's bytes from a step on.
    #[inline(always)]
    fn from<F: FloatFormat>(&self, row: usize, step: usize) -> &'a [u8] {
        &self.weights.row(row)[16 * step * size_of::<F>()..]
    }

    /// Widens a piece of some rows, `[steps][R]`, padded with zeros.
    #[inline(always)]
    fn widen<F: FloatFormat, S: Lanes, const R: usize>(
        &self,
        s: S,
        rows: [usize; R],
        piece: &Range<usize>,
        to: &mut [Vector],
    ) {
        let bytes = 16 * size_of::<F>();
        let mut present = [&[] as &[u8]; R];
        for r in 0..R {
            present[r] = self.from::<F>(rows[r], piece.start);
        }
        let (to, _) = to.as_chunks_mut::<R>();
        let whole = piece.len().min(present[0].len() / bytes);
        for (i, to) in to[..whole].iter_mut().enumerate() {
            for r in 0..R {
                let sixteen = &present[r][i * bytes..][..bytes];
                prefetch(s, sixteen);
                s.store(F::sixteen(s, sixteen), &mut to[r]);
            }
        }
        if whole < piece.len() {
            for r in 0..R {
                let mut padded = [0; 64];
                let tail = &present[r][whole * bytes..];
                padded[..tail.len()].copy_from_slice(tail);
                s.store(F::sixteen(s, &padded[..bytes]), &mut to[whole][r]);
            }
        }
    }

    /// Sums the finished chains, `[tokens][R]`, of at most [`TOGETHER`] tokens from `first` of the
    /// block on, into the output.
    #[inline(always)]
    fn write<S: Lanes, const R: usize>(
        &self,
        s: S,
        (first, chains): (usize, &[Vector]),
        columns: [usize; R],
        out: &mut ColumnsPart<'_>,
    ) {
        let mut sums = [[0.0; R]; TOGETHER];
        let all = sums.as_flattened_mut().as_chunks_mut().0;
        for (sums, chains) in all.iter_mut().zip(chains.chunks(16)) {
            let mut vectors = [s.zero(); 16];
            for (vector, chain) in vectors.iter_mut().zip(chains) {
                *vector = s.load(chain);
            }
            s.store(s.sum_each(vectors), sums);
        }
        let neighbours = columns[0]..columns[0] + R;
        let mut are_neighbours = true;
        for r in 0..R {
            are_neighbours &= columns[r] == columns[0] + r;
        }
        for (i, sums) in sums[..chains.len() / R].iter().enumerate() {
            let token = self.tokens.start + first + i;
            if are_neighbours {
                let to = out.row(token, neighbours.clone());
                to.as_chunks_mut().0[0] = *sums;
            } else {
                for (column, sum) in columns.iter().zip(sums) {
                    out.row(token, *column..*column + 1)[0] = *sum;
                }
            }
        }
    }
}

/// A piece of `R` rows times a tile of `T` tokens, whose chains begin, or go on, in `chains: [T][R]`.
/// A stride of the bytes `ahead` is asked for at each step.
#[inline(always)]
fn multiply<S: Lanes, const R: usize, const T: usize>(
    s: S,
    weights: &[Vector],
    x: &[Vector],
    (ahead, stride): (&[u8], usize),
    (first, chains): (bool, &mut [Vector]),
) {
    let (chains, _) = chains.as_chunks_mut::<R>();
    let mut acc = [[s.zero(); R]; T];
    if !first {
        for t in 0..T {
            for r in 0..R {
                acc[t][r] = s.load(&chains[t][r]);
            }
        }
    }
    let steps = weights.as_chunks::<R>().0.iter().zip(x.as_chunks::<T>().0);
    for (k, (weights, tokens)) in steps.enumerate() {
        s.prefetch_far(ahead, stride * k);
        let mut x = [s.zero(); T];
        for t in 0..T {
            s.prefetch(bytemuck::cast_slice(&tokens[t]), 64 * AHEAD);
            x[t] = s.load(&tokens[t]);
        }
        for r in 0..R {
            let w = s.load(&weights[r]);
            for t in 0..T {
                acc[t][r] = s.fma(w, x[t], acc[t][r]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            s.store(acc[t][r], &mut chains[t][r]);
        }
    }
}
