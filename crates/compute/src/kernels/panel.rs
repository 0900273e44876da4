//! Many tokens times a panel of weight rows (prefill): the panel's weights are unpacked once for
//! each piece of 256 columns and multiplied with every slab of tokens; lanes are tokens.
//!
//! Only the order of exact integer sums differs from the row kernels. The F32 chain of each
//! (row, token) takes the same steps in the same order, kept between pieces in a small buffer.

use std::ops::Range;

use super::matmul::{Tile, Weights};
use super::slabs::{self, Slab, Slabs};
use crate::quant::{Block, K_BLOCK, blocks};
use crate::simd::{Isa, Lanes, Sixteen};

/// Rows of a panel.
pub(super) const ROWS: usize = 32;
/// Columns unpacked at a time.
pub(super) const PIECE: usize = K_BLOCK;
/// Tokens for which the row kernels are slower.
const MIN_TOKENS: usize = 6;
/// Slabs whose chains are kept at a time.
const BATCH: usize = 32;

/// Whether products of so many tokens take the panel kernels.
pub(crate) fn wanted(isa: Isa, tokens: usize) -> bool {
    isa != Isa::Scalar && tokens >= MIN_TOKENS
}

/// A piece of a panel, unpacked; every field row after row.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Integers in element order.
    pub(super) weights: [[u8; PIECE]; ROWS],
    /// Scales of the blocks (32-weight formats), or one (K formats).
    pub(super) d: [[f32; 8]; ROWS],
    /// Minima, likewise.
    pub(super) m: [[f32; 8]; ROWS],
    /// Integer scales of groups (K formats).
    pub(super) scales: [[i32; 16]; ROWS],
    /// Integer minima of groups of 32 (K formats).
    pub(super) mins: [[i16; 8]; ROWS],
}

impl Panel {
    pub(super) const ZERO: Self = Self {
        weights: [[0; PIECE]; ROWS],
        d: [[0.0; 8]; ROWS],
        m: [[0.0; 8]; ROWS],
        scales: [[0; 16]; ROWS],
        mins: [[0; 8]; ROWS],
    };
}

/// The F32 chains of some slabs, `[slabs][ROWS]`.
pub(super) type Chains = [[Sixteen<f32>; ROWS]];

/// What a quant format does in a panel.
pub(super) trait PanelFormat {
    /// The format's block.
    type Block: Block;

    /// Unpacks block `b` of the piece into row `row`.
    fn place<S: Lanes>(s: S, block: &Self::Block, panel: &mut Panel, row: usize, b: usize);

    /// Takes the chain steps of a piece for `R` rows from `row` and `V` slabs.
    fn advance<S: Lanes, const R: usize, const V: usize>(
        s: S,
        panel: &Panel,
        row: usize,
        x: [Slab<'_>; V],
        chains: &mut Chains,
    );
}

/// Fills a tile, panel after panel.
#[inline(always)]
pub(super) fn fill<F: PanelFormat, S: Lanes>(s: S, mut tile: Tile<'_, '_>, x: &Slabs) {
    let mut panel = Panel::ZERO;
    let mut chains = [[Sixteen([0.0; 16]); ROWS]; BATCH];
    let range = tile.out.range();
    let slabs = tile.tokens.div_ceil(slabs::TOKENS);
    for first_row in range.clone().step_by(ROWS) {
        let rows = first_row..(first_row + ROWS).min(range.end);
        for first_slab in (0..slabs).step_by(BATCH) {
            let chains = &mut chains[..BATCH.min(slabs - first_slab)];
            chains.fill([Sixteen([0.0; 16]); ROWS]);
            for first in (0..tile.weights.cols).step_by(PIECE) {
                let columns = first..(first + PIECE).min(tile.weights.cols);
                unpack::<F, S>(s, tile.weights, &rows, &columns, &mut panel);
                let used = rows.len().next_multiple_of(16);
                advance_all::<F, S>(s, (&panel, used), (x, first_slab), &columns, chains);
            }
            for (i, chains) in chains.iter().enumerate() {
                write(
                    s,
                    chains,
                    &rows,
                    (first_slab + i) * slabs::TOKENS,
                    &mut tile,
                );
            }
        }
    }
}

/// Unpacks columns `columns` of `rows`, the last row standing in for those that are missing, and
/// asks for the columns after them.
#[inline(always)]
fn unpack<F: PanelFormat, S: Lanes>(
    s: S,
    weights: Weights<'_>,
    rows: &Range<usize>,
    columns: &Range<usize>,
    panel: &mut Panel,
) {
    let width = F::Block::FORMAT.block_weights();
    let piece = PIECE / width * size_of::<F::Block>();
    for row in 0..rows.len().next_multiple_of(16) {
        let bytes = weights.row((rows.start + row).min(rows.end - 1));
        let present = &blocks::<F::Block>(bytes)[columns.start / width..columns.end / width];
        let next = (columns.start / PIECE + 1) * piece;
        for line in 0..piece.div_ceil(64) {
            s.prefetch(bytes, next + 64 * line);
        }
        for (b, block) in present.iter().enumerate() {
            F::place(s, block, panel, row, b);
        }
    }
}

/// One piece of columns for all slabs of a batch.
#[inline(always)]
fn advance_all<F: PanelFormat, S: Lanes>(
    s: S,
    (panel, rows): (&Panel, usize),
    (x, first): (&Slabs, usize),
    columns: &Range<usize>,
    chains: &mut Chains,
) {
    let mut done = 0;
    macro_rules! slabs {
        ($rows:literal, $slabs:literal) => {
            while chains.len() - done >= $slabs {
                let mut slabs = [x.slab(first + done, columns.clone()); $slabs];
                for (v, slab) in slabs.iter_mut().enumerate() {
                    *slab = x.slab(first + done + v, columns.clone());
                }
                let chains = &mut chains[done..done + $slabs];
                for row in (0..rows).step_by($rows) {
                    F::advance::<S, $rows, $slabs>(s, panel, row, slabs, chains);
                }
                done += $slabs;
            }
        };
    }
    if S::WIDE {
        slabs!(4, 4);
        slabs!(16, 1);
    } else {
        slabs!(4, 1);
    }
}

/// Writes a slab's finished chains to its rows of the output, those that exist.
#[inline(always)]
pub(super) fn write<S: Lanes>(
    s: S,
    chains: &[Sixteen<f32>; ROWS],
    rows: &Range<usize>,
    first_token: usize,
    tile: &mut Tile<'_, '_>,
) {
    let tokens = first_token..(first_token + slabs::TOKENS).min(tile.tokens);
    for (half, chains) in chains.chunks_exact(16).enumerate() {
        let first_row = rows.start + 16 * half;
        if first_row >= rows.end {
            break;
        }
        let columns = first_row..(first_row + 16).min(rows.end);
        let mut vectors = [s.zero(); 16];
        for i in 0..16 {
            vectors[i] = s.load(&chains[i].0);
        }
        for (token, vector) in tokens.clone().zip(s.transpose(vectors)) {
            s.store_partial(vector, tile.out.row(token, columns.clone()));
        }
    }
}
