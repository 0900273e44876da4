//! Many tokens times a panel of rows of a float format: the panel's weights are widened once for
//! each piece of columns and multiplied with every token, whose sixteen chains are kept between
//! pieces.

use std::ops::Range;

use super::matmul::{Tile, Weights};
use super::rows_float::FloatFormat;
use crate::pool::ColumnsPart;
use crate::simd::{Isa, Kernel, Lanes, Sixteen};

/// Rows of a panel.
const ROWS: usize = 16;
/// Panels that share a piece of the activations.
const PANELS: usize = 4;
/// Columns widened at a time: a panel and six tokens of them fit the nearest cache.
const PIECE: usize = 384;
/// Tokens whose chains are kept at a time.
const BATCH: usize = 60;
/// Tokens that make do with less room for chains.
const FEW: usize = 12;
/// Tokens for which the row kernels are slower.
const MIN_TOKENS: usize = 6;

/// Whether products of so many tokens take the panel kernels.
pub(super) fn wanted(isa: Isa, tokens: usize) -> bool {
    isa != Isa::Scalar && tokens >= MIN_TOKENS
}

/// A row's columns of a piece, padded with zeros.
type Row = [Sixteen<f32>; PIECE / 16];
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
        // Clearing the larger one would cost more than a product of few tokens.
        let (mut few, mut many);
        let (rows, chains): (&mut [Row], &mut [Chains]) = if tile.tokens <= FEW {
            few = (
                [[Sixteen([0.0; 16]); PIECE / 16]; FEW],
                [[Sixteen([0.0; 16]); ROWS]; PANELS * FEW],
            );
            (&mut few.0, &mut few.1)
        } else {
            many = (
                [[Sixteen([0.0; 16]); PIECE / 16]; BATCH],
                [[Sixteen([0.0; 16]); ROWS]; PANELS * BATCH],
            );
            (&mut many.0, &mut many.1)
        };
        let range = tile.out.range();
        for first_row in range.clone().step_by(PANELS * ROWS) {
            let block = first_row..(first_row + PANELS * ROWS).min(range.end);
            for first in (0..tile.tokens).step_by(BATCH) {
                let tokens = first..(first + BATCH).min(tile.tokens);
                let chains = &mut chains[..block.len().div_ceil(ROWS) * tokens.len()];
                let rows = &mut rows[..tokens.len()];
                products::<F, S>(s, (tile.weights, &block), (x, &tokens), rows, chains);
                for (i, chains) in chains.chunks_exact(tokens.len()).enumerate() {
                    let first = block.start + i * ROWS;
                    let rows = first..(first + ROWS).min(block.end);
                    write(s, chains, &rows, tokens.start, tile.out);
                }
            }
        }
    }
}

/// The chains of some rows of weights and some tokens, `chains: [panels][tokens]`.
#[inline(always)]
fn products<F: FloatFormat, S: Lanes>(
    s: S,
    (weights, block): (Weights<'_>, &Range<usize>),
    (x, tokens): (&[f32], &Range<usize>),
    rows: &mut [Row],
    chains: &mut [Chains],
) {
    let cols = weights.cols;
    let mut panel = [[Sixteen([0.0; 16]); PIECE / 16]; ROWS];
    chains.fill([Sixteen([0.0; 16]); ROWS]);
    for first in (0..cols).step_by(PIECE) {
        let columns = first..(first + PIECE).min(cols);
        for (row, token) in rows.iter_mut().zip(tokens.clone()) {
            copy(s, &x[token * cols..][columns.clone()], row);
        }
        for (i, chains) in chains.chunks_exact_mut(tokens.len()).enumerate() {
            let first = block.start + i * ROWS;
            let panel_rows = first..(first + ROWS).min(block.end);
            widen::<F, S>(s, weights, &panel_rows, &columns, &mut panel);
            multiply_all(s, &panel, rows, columns.len().div_ceil(16), chains);
        }
    }
}

/// Activations to where their cache lines begin, and zeros after them.
#[inline(always)]
fn copy<S: Lanes>(s: S, x: &[f32], to: &mut Row) {
    let (whole, tail) = x.as_chunks::<16>();
    for (to, x) in to.iter_mut().zip(whole) {
        s.store(s.load(x), &mut to.0);
    }
    if !tail.is_empty() {
        s.store(s.load_partial(tail), &mut to[whole.len()].0);
    }
}

/// Sums the finished chains of a panel's rows into the rows of the output from `first_token`.
#[inline(always)]
fn write<S: Lanes>(
    s: S,
    chains: &[Chains],
    rows: &Range<usize>,
    first_token: usize,
    out: &mut ColumnsPart<'_>,
) {
    for (i, chains) in chains.iter().enumerate() {
        let mut vectors = [s.zero(); ROWS];
        for (vector, chain) in vectors.iter_mut().zip(chains) {
            *vector = s.load(&chain.0);
        }
        let out = out.row(first_token + i, rows.clone());
        s.store_partial(s.sum_each(vectors), out);
    }
}

/// Widens columns `columns` of `rows`, the last row standing in for those that are missing.
#[inline(always)]
fn widen<F: FloatFormat, S: Lanes>(
    s: S,
    weights: Weights<'_>,
    rows: &Range<usize>,
    columns: &Range<usize>,
    panel: &mut [Row; ROWS],
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

/// One piece of `16 · steps` columns for all tokens of a batch.
#[inline(always)]
fn multiply_all<S: Lanes>(
    s: S,
    panel: &[Row; ROWS],
    x: &[Row],
    steps: usize,
    chains: &mut [Chains],
) {
    let mut done = 0;
    macro_rules! tokens {
        ($rows:literal, $tokens:literal) => {
            while chains.len() - done >= $tokens {
                let chains = &mut chains[done..done + $tokens];
                let x = &x[done..done + $tokens];
                for first in (0..ROWS).step_by($rows) {
                    let weights = &panel[first..first + $rows];
                    multiply::<S, $rows, $tokens>(s, (weights, first), x, steps, chains);
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

/// `R` rows, from row `first` of their panel, times `T` tokens.
#[inline(always)]
fn multiply<S: Lanes, const R: usize, const T: usize>(
    s: S,
    (weights, first): (&[Row], usize),
    x: &[Row],
    steps: usize,
    chains: &mut [Chains],
) {
    assert!(
        weights.len() == R && x.len() == T && chains.len() == T && steps <= PIECE / 16,
        "R rows and T tokens of a piece"
    );
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
            let x = s.load(&x[t][k].0);
            for r in 0..R {
                acc[t][r] = s.fma(w[r], x, acc[t][r]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            s.store(acc[t][r], &mut chains[t][first + r].0);
        }
    }
}
