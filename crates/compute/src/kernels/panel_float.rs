//! Many tokens times a panel of rows of a float format: the panel's weights are widened once for
//! each piece of columns and multiplied with every token, whose sixteen chains are kept between
//! pieces.

use std::ops::Range;

use super::matmul::{Tile, Weights};
use super::rows_float::FloatFormat;
use crate::simd::{Isa, Kernel, Lanes, Sixteen};

/// Rows of a panel.
const ROWS: usize = 16;
/// Columns widened at a time.
const PIECE: usize = 256;
/// Tokens whose chains are kept at a time.
const BATCH: usize = 120;
/// Tokens for which the row kernels are slower.
const MIN_TOKENS: usize = 6;

/// Whether products of so many tokens take the panel kernels.
pub(super) fn wanted(isa: Isa, tokens: usize) -> bool {
    isa != Isa::Scalar && tokens >= MIN_TOKENS
}

/// Rows of widened weights, padded with zeros: `[ROWS][PIECE / 16]`.
type Panel = [[Sixteen<f32>; PIECE / 16]; ROWS];
/// Sixteen chains for each row of a panel.
type Chains = [Sixteen<f32>; ROWS];

/// A tile of the output to fill from F32 rows `x: [tokens, cols]`.
pub(super) struct Fill<'a, 'b, F> {
    pub(super) tile: Tile<'a, 'b>,
    pub(super) x: &'a [f32],
    pub(super) format: std::marker::PhantomData<F>,
}

impl<F: FloatFormat, S: Lanes> Kernel<S> for Fill<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { tile, x, .. } = self;
        let cols = tile.weights.cols;
        let mut panel: Panel = [[Sixteen([0.0; 16]); PIECE / 16]; ROWS];
        let mut chains = [[Sixteen([0.0; 16]); ROWS]; BATCH];
        let range = tile.out.range();
        for first_row in range.clone().step_by(ROWS) {
            let rows = first_row..(first_row + ROWS).min(range.end);
            for first_token in (0..tile.tokens).step_by(BATCH) {
                let chains = &mut chains[..BATCH.min(tile.tokens - first_token)];
                chains.fill([Sixteen([0.0; 16]); ROWS]);
                let x = &x[first_token * cols..];
                for first in (0..cols).step_by(PIECE) {
                    let columns = first..(first + PIECE).min(cols);
                    widen::<F, S>(s, tile.weights, &rows, &columns, &mut panel);
                    multiply_all(s, &panel, (x, cols), &columns, chains);
                }
                for (i, chains) in chains.iter().enumerate() {
                    let mut vectors = [s.zero(); ROWS];
                    for (vector, chain) in vectors.iter_mut().zip(chains) {
                        *vector = s.load(&chain.0);
                    }
                    let out = tile.out.row(first_token + i, rows.clone());
                    s.store_partial(s.sum_each(vectors), out);
                }
            }
        }
    }
}

/// Widens columns `columns` of `rows`, the last row standing in for those that are missing.
#[inline(always)]
fn widen<F: FloatFormat, S: Lanes>(
    s: S,
    weights: Weights<'_>,
    rows: &Range<usize>,
    columns: &Range<usize>,
    panel: &mut Panel,
) {
    let bytes = size_of::<F>();
    for (row, to) in panel.iter_mut().enumerate() {
        let row = weights.row((rows.start + row).min(rows.end - 1));
        for line in 0..PIECE * bytes / 64 {
            s.prefetch(row, (columns.start + PIECE) * bytes + 64 * line);
        }
        let present = &row[columns.start * bytes..columns.end * bytes];
        let whole = present.chunks_exact(16 * bytes);
        let tail = whole.remainder();
        for (to, sixteen) in to.iter_mut().zip(whole) {
            s.store(F::sixteen(s, sixteen), &mut to.0);
        }
        if !tail.is_empty() {
            let mut padded = [0; 64];
            padded[..tail.len()].copy_from_slice(tail);
            let sixteen = F::sixteen(s, &padded[..16 * bytes]);
            s.store(sixteen, &mut to[columns.len() / 16].0);
        }
    }
}

/// One piece of columns for all tokens of a batch.
#[inline(always)]
fn multiply_all<S: Lanes>(
    s: S,
    panel: &Panel,
    (x, cols): (&[f32], usize),
    columns: &Range<usize>,
    chains: &mut [Chains],
) {
    let mut done = 0;
    macro_rules! tokens {
        ($rows:literal, $tokens:literal) => {
            while chains.len() - done >= $tokens {
                let mut rows = [[].as_slice(); $tokens];
                for (t, row) in rows.iter_mut().enumerate() {
                    *row = &x[(done + t) * cols..][columns.clone()];
                }
                let chains = &mut chains[done..done + $tokens];
                for first in (0..ROWS).step_by($rows) {
                    multiply::<S, $rows, $tokens>(s, panel, first, rows, chains);
                }
                done += $tokens;
            }
        };
    }
    if S::WIDE {
        tokens!(4, 6);
    } else {
        tokens!(2, 3);
    }
    tokens!(4, 1);
}

/// `R` rows from `first` times `T` tokens.
#[inline(always)]
fn multiply<S: Lanes, const R: usize, const T: usize>(
    s: S,
    panel: &Panel,
    first: usize,
    x: [&[f32]; T],
    chains: &mut [Chains],
) {
    let columns = x[0].len();
    let steps = columns / 16;
    let weights = &panel[first..first + R];
    assert!(chains.len() == T && columns <= PIECE, "T tokens of a piece");
    let mut acc = [[s.zero(); R]; T];
    for t in 0..T {
        for r in 0..R {
            acc[t][r] = s.load(&chains[t][first + r].0);
        }
    }
    for k in 0..steps {
        let mut w = [s.zero(); R];
        for r in 0..R {
            w[r] = s.load(&weights[r][k].0);
        }
        for t in 0..T {
            let x = s.load(&x[t].as_chunks().0[k]);
            for r in 0..R {
                acc[t][r] = s.fma(w[r], x, acc[t][r]);
            }
        }
    }
    if !columns.is_multiple_of(16) {
        for t in 0..T {
            let x = s.load_partial(&x[t][16 * steps..]);
            for r in 0..R {
                acc[t][r] = s.fma(s.load(&weights[r][steps].0), x, acc[t][r]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            s.store(acc[t][r], &mut chains[t][first + r].0);
        }
    }
}
