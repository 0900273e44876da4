//! Many tokens times a panel of 32 weight rows (prefill): the panel's weights are unpacked once for
//! each piece of 256 columns and multiplied with every token; lanes are rows.
//!
//! Only the order of exact integer sums differs from the row kernels. The F32 chain of each
//! (row, token) takes the same steps in the same order, kept between pieces in a small buffer.

use super::matmul::Tile;
use super::quantized::{QuantizedRow, QuantizedRows};
use crate::quant::{Block, K_BLOCK, blocks};
use crate::simd::Lanes;

/// Rows of a panel.
pub(super) const ROWS: usize = 32;
/// Columns unpacked at a time.
pub(super) const PIECE: usize = K_BLOCK;
/// Tokens for which unpacking a panel is cheaper than the row kernels.
pub(super) const MIN_TOKENS: usize = 6;
/// Tokens whose chains are kept at a time.
const BATCH: usize = 512;

/// A piece of a panel, unpacked.
pub(super) struct Panel {
    /// `[PIECE / 4][ROWS]`: four consecutive integers of a row.
    pub(super) weights: [[u8; 4]; PIECE / 4 * ROWS],
    /// `[8][ROWS]`: scales of the blocks (32-weight formats), or `[ROWS]` (K formats).
    pub(super) d: [f32; 8 * ROWS],
    /// Minima, likewise.
    pub(super) m: [f32; 8 * ROWS],
    /// `[16][ROWS]`: integer scales of groups, little-endian i32 (K formats).
    pub(super) scales: [[u8; 4]; 16 * ROWS],
    /// `[8][ROWS]`: what multiplies two consecutive sums of 16 activations, two i16 (K formats).
    pub(super) per_sum: [[u8; 4]; 8 * ROWS],
}

impl Panel {
    const ZERO: Self = Self {
        weights: [[0; 4]; PIECE / 4 * ROWS],
        d: [0.0; 8 * ROWS],
        m: [0.0; 8 * ROWS],
        scales: [[0; 4]; 16 * ROWS],
        per_sum: [[0; 4]; 8 * ROWS],
    };

    /// Places 32 consecutive integers of `row`, from column `32 · block` of the piece.
    #[inline(always)]
    pub(super) fn place(&mut self, row: usize, block: usize, integers: &[u8; 32]) {
        let (quads, _) = integers.as_chunks::<4>();
        let to = &mut self.weights[8 * block * ROWS..][..8 * ROWS];
        for (quad, to) in quads.iter().zip(to.chunks_exact_mut(ROWS)) {
            to[row] = *quad;
        }
    }
}

/// What a quant format does in a panel.
pub(super) trait PanelFormat {
    /// The format's block.
    type Block: Block;

    /// Unpacks block `b` of the piece into row `row`.
    fn place<S: Lanes>(s: S, block: &Self::Block, panel: &mut Panel, row: usize, b: usize);

    /// Takes the chain steps of columns `first .. first + columns` (a piece) for `V` vectors of rows
    /// from vector `v` and `T` tokens; `acc[t]` is `[ROWS]`.
    fn advance<S: Lanes, const V: usize, const T: usize>(
        s: S,
        panel: &Panel,
        v: usize,
        x: [Piece<'_>; T],
        acc: &mut [[f32; ROWS]],
    );
}

/// A token's activations in one piece of columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    /// `[columns]`
    pub(super) q: &'a [i8],
    /// One for each activation group.
    pub(super) scales: &'a [f32],
    /// `[columns / 16]`
    pub(super) sums: &'a [i16],
}

impl<'a> Piece<'a> {
    #[inline(always)]
    fn of(row: QuantizedRow<'a>, first: usize, columns: usize, group: usize) -> Self {
        Self {
            q: &row.q[first..first + columns],
            scales: &row.scales[first / group..(first + columns) / group],
            sums: &row.sums[first / 16..(first + columns) / 16],
        }
    }

    const EMPTY: Self = Self {
        q: &[],
        scales: &[],
        sums: &[],
    };
}

/// Fills a tile, panel after panel.
#[inline(always)]
pub(super) fn fill<F: PanelFormat, S: Lanes>(s: S, tile: Tile<'_, '_>, x: &QuantizedRows) {
    let width = F::Block::FORMAT.block_weights();
    let mut panel = Panel::ZERO;
    let mut chains = [[0.0; ROWS]; BATCH];
    let range = tile.out.range();
    for first_row in range.clone().step_by(ROWS) {
        let rows = first_row..(first_row + ROWS).min(range.end);
        for first_token in (0..tile.tokens).step_by(BATCH) {
            let tokens = first_token..(first_token + BATCH).min(tile.tokens);
            let chains = &mut chains[..tokens.len()];
            chains.fill([0.0; ROWS]);
            for first in (0..tile.weights.cols).step_by(PIECE) {
                let columns = PIECE.min(tile.weights.cols - first);
                for row in 0..ROWS {
                    let bytes = tile.weights.row((rows.start + row).min(rows.end - 1));
                    let blocks = &blocks::<F::Block>(bytes)[first / width..][..columns / width];
                    for (b, block) in blocks.iter().enumerate() {
                        F::place(s, block, &mut panel, row, b);
                    }
                }
                advance_all::<F, S>(s, &panel, x, (tokens.start, first, columns), chains);
            }
            for (token, chain) in tokens.zip(chains) {
                let out = tile.out.row(token, rows.clone());
                out.copy_from_slice(&chain[..out.len()]);
            }
        }
    }
}

/// One piece of columns for all tokens of a batch.
#[inline(always)]
fn advance_all<F: PanelFormat, S: Lanes>(
    s: S,
    panel: &Panel,
    x: &QuantizedRows,
    (token, first, columns): (usize, usize, usize),
    chains: &mut [[f32; ROWS]],
) {
    let group = F::Block::FORMAT.block_weights();
    macro_rules! tokens {
        ($count:literal, $done:ident) => {
            while chains.len() - $done >= $count {
                let mut pieces = [Piece::EMPTY; $count];
                for t in 0..$count {
                    pieces[t] = Piece::of(x.row(token + $done + t), first, columns, group);
                }
                let acc = &mut chains[$done..$done + $count];
                if S::LANES == 16 {
                    F::advance::<S, 2, $count>(s, panel, 0, pieces, acc);
                } else {
                    for v in 0..ROWS / S::LANES {
                        F::advance::<S, 1, $count>(s, panel, v, pieces, acc);
                    }
                }
                $done += $count;
            }
        };
    }
    let mut done = 0;
    if S::LANES == 16 {
        tokens!(6, done);
    }
    tokens!(4, done);
    tokens!(1, done);
}
