//! Many tokens times a panel of weight rows, by products of 16 × 16 tiles: the panel is unpacked as
//! for the vector kernels, tiles multiply 16 rows with a slab, and vectors take the chain steps from
//! the sums that the tiles leave in the nearest cache.
//!
//! Both work at once: a step of vectors follows the tile products of the step after it, which the
//! processor has not finished by then.

use std::marker::PhantomData;
use std::ops::Range;

use super::matmul::{Tile, Weights};
use super::panel::{self, Chains, PIECE, ROWS};
use super::slabs::{self, Slab, Slabs};
use crate::quant::{Block, blocks};
use crate::simd::tiles::{Amx, Sums, Tiles};
use crate::simd::{Avx512, Kernel, Simd, Sixteen};

/// Weight rows of a tile.
pub(super) const TILE: usize = 16;
/// Slabs whose chains are kept at a time.
const BATCH: usize = 32;
/// Sums of one step.
pub(super) type Scratch = [Sums; 8];

/// What a quant format does with tiles.
pub(super) trait TileFormat<const DEPTH: usize> {
    /// The format's block.
    type Block: Block;
    /// A piece of 256 columns of [`ROWS`] rows, unpacked.
    type Panel;
    const EMPTY: Self::Panel;
    /// Columns of a step.
    const COLUMNS: usize;

    /// Unpacks block `b` of the piece into row `row`.
    fn place(s: Avx512, block: &Self::Block, panel: &mut Self::Panel, row: usize, b: usize);

    /// The tile products of a step.
    fn multiply<const SLABS: usize>(
        tiles: &Tiles<DEPTH>,
        panel: &Self::Panel,
        step: &Step<'_, SLABS>,
        out: &mut Scratch,
    );

    /// The chain steps that follow.
    fn advance<const SLABS: usize>(
        s: Avx512,
        panel: &Self::Panel,
        step: &Step<'_, SLABS>,
        sums: &Scratch,
        chains: &mut Chains,
    );
}

/// Some columns of sixteen rows and one or two slabs.
#[derive(Clone, Copy)]
pub(super) struct Step<'a, const SLABS: usize> {
    /// Which sixteen rows of the panel.
    pub(super) tile: usize,
    /// Where its columns start in the piece.
    pub(super) column: usize,
    /// Where its chains are.
    pub(super) first: usize,
    pub(super) x: [Slab<'a>; SLABS],
}

/// A tile of the output to fill.
pub(super) struct Fill<'a, 'b, F, const DEPTH: usize> {
    tiles: Tiles<DEPTH>,
    tile: Tile<'a, 'b>,
    x: &'a Slabs,
    format: PhantomData<F>,
}

/// Fills a tile with the instructions of `amx`.
pub(super) fn fill_32<F: TileFormat<32>>(amx: Amx, tile: Tile<'_, '_>, x: &Slabs) {
    let tiles = amx.tiles_of_32();
    amx.vectors().vectorize(Fill::<F, 32> {
        tiles,
        tile,
        x,
        format: PhantomData,
    });
}

/// The same for operands of 64 columns.
pub(super) fn fill_64<F: TileFormat<64>>(amx: Amx, tile: Tile<'_, '_>, x: &Slabs) {
    let tiles = amx.tiles_of_64();
    amx.vectors().vectorize(Fill::<F, 64> {
        tiles,
        tile,
        x,
        format: PhantomData,
    });
}

impl<F: TileFormat<DEPTH>, const DEPTH: usize> Kernel<Avx512> for Fill<'_, '_, F, DEPTH> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: Avx512) {
        let Self {
            tiles, mut tile, x, ..
        } = self;
        let mut panel = F::EMPTY;
        let mut scratch = [[[Sixteen([0; 16]); 16]; 8]; 2];
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
                    unpack::<F, DEPTH>(s, tile.weights, &rows, &columns, &mut panel);
                    let piece = Piece {
                        tiles: &tiles,
                        panel: &panel,
                        row_tiles: rows.len().div_ceil(TILE),
                        x,
                        first_slab,
                        columns,
                    };
                    let pairs = chains.len() / 2 * 2;
                    steps::<F, DEPTH, 2>(s, &piece, 0..pairs, &mut scratch, chains);
                    steps::<F, DEPTH, 1>(s, &piece, pairs..chains.len(), &mut scratch, chains);
                }
                for (i, chains) in chains.iter().enumerate() {
                    panel::write(
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
}

/// Unpacks columns `columns` of `rows`, the last row standing in for those that are missing, and
/// asks for the columns after them.
#[inline(always)]
fn unpack<F: TileFormat<DEPTH>, const DEPTH: usize>(
    s: Avx512,
    weights: Weights<'_>,
    rows: &Range<usize>,
    columns: &Range<usize>,
    panel: &mut F::Panel,
) {
    let width = F::Block::FORMAT.block_weights();
    let piece = PIECE / width * size_of::<F::Block>();
    for row in 0..rows.len().next_multiple_of(TILE) {
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

/// An unpacked piece and what it is multiplied with.
struct Piece<'a, P, const DEPTH: usize> {
    tiles: &'a Tiles<DEPTH>,
    panel: &'a P,
    row_tiles: usize,
    x: &'a Slabs,
    first_slab: usize,
    columns: Range<usize>,
}

/// All steps of a piece for slabs `slabs` of the batch, `SLABS` at a time.
#[inline(always)]
fn steps<F: TileFormat<DEPTH>, const DEPTH: usize, const SLABS: usize>(
    s: Avx512,
    piece: &Piece<'_, F::Panel, DEPTH>,
    slabs: Range<usize>,
    scratch: &mut [Scratch; 2],
    chains: &mut Chains,
) {
    let mut before: Option<Step<'_, SLABS>> = None;
    let mut turn = 0;
    for first in slabs.step_by(SLABS) {
        for tile in 0..piece.row_tiles {
            for column in piece.columns.clone().step_by(F::COLUMNS) {
                let columns = column..(column + F::COLUMNS).min(piece.columns.end);
                let slab = piece.first_slab + first;
                let mut step = Step {
                    tile,
                    column: column - piece.columns.start,
                    first,
                    x: [piece.x.slab(slab, columns.clone()); SLABS],
                };
                for v in 1..SLABS {
                    step.x[v] = piece.x.slab(slab + v, columns.clone());
                }
                F::multiply(piece.tiles, piece.panel, &step, &mut scratch[turn]);
                if let Some(before) = before.replace(step) {
                    F::advance(s, piece.panel, &before, &scratch[1 - turn], chains);
                }
                turn = 1 - turn;
            }
        }
    }
    if let Some(last) = before {
        F::advance(s, piece.panel, &last, &scratch[1 - turn], chains);
    }
}
