//! Many tokens times a panel of weight rows, by products of 16 × 16 tiles: the panel is unpacked as
//! for the vector kernels, tiles multiply 16 rows with a slab, and vectors take the chain steps from
//! the sums that the tiles leave in the nearest cache.
//!
//! Both work at once: a quarter of a step's vector work follows each quarter of the tile products of
//! the step after it.

use std::marker::PhantomData;
use std::ops::Range;

use super::matmul::Tile;
use super::panel::{self, Chains, Multiply, Piece};
use super::slabs::{Slab, Slabs};
use crate::quant::Block;
use crate::simd::tiles::{Amx, Sums, Tiles};
use crate::simd::{Avx512, Kernel, Sixteen};

/// Weight rows of a tile.
pub(super) const TILE: usize = 16;
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

    /// Quarter `quarter` of a step's tile products. After the last, `out` has all sums; in between,
    /// some may still be in the tiles.
    fn multiply<const SLABS: usize>(
        tiles: &Tiles<DEPTH>,
        panel: &Self::Panel,
        step: &Step<'_, SLABS>,
        quarter: usize,
        out: &mut Scratch,
    );

    /// The chain steps that follow, of rows `4 · quarter ..` of the sixteen.
    fn advance<const SLABS: usize>(
        s: Avx512,
        panel: &Self::Panel,
        step: &Step<'_, SLABS>,
        quarter: usize,
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
        let by = ByTiles::<F, DEPTH> {
            tiles: self.tiles,
            panel: F::EMPTY,
            scratch: [[[Sixteen([0; 16]); 16]; 8]; 2],
            asked: 0,
        };
        panel::fill(s, self.tile, self.x, by);
    }
}

/// The tiles, and what they work on.
struct ByTiles<F: TileFormat<DEPTH>, const DEPTH: usize> {
    tiles: Tiles<DEPTH>,
    panel: F::Panel,
    scratch: [Scratch; 2],
    /// Rows of the next piece that have been asked for.
    asked: usize,
}

impl<F: TileFormat<DEPTH>, const DEPTH: usize> Multiply<Avx512> for ByTiles<F, DEPTH> {
    #[inline(always)]
    fn multiply(&mut self, s: Avx512, piece: &Piece<'_>, chains: &mut Chains) {
        let panel = &mut self.panel;
        piece.unpack(
            #[inline(always)]
            |block: &F::Block, row, b| F::place(s, block, panel, row, b),
        );
        let pairs = chains.len() / 2 * 2;
        self.asked = 0;
        steps::<F, DEPTH, 2>(s, self, piece, 0..pairs, chains);
        steps::<F, DEPTH, 1>(s, self, piece, pairs..chains.len(), chains);
    }
}

/// All steps of a piece for slabs `slabs` of the batch, `SLABS` at a time.
#[inline(always)]
fn steps<F: TileFormat<DEPTH>, const DEPTH: usize, const SLABS: usize>(
    s: Avx512,
    by: &mut ByTiles<F, DEPTH>,
    piece: &Piece<'_>,
    slabs: Range<usize>,
    chains: &mut Chains,
) {
    let ByTiles {
        tiles,
        panel,
        scratch,
        asked,
    } = by;
    let mut before: Option<Step<'_, SLABS>> = None;
    let mut turn = false;
    for first in slabs.step_by(SLABS) {
        for tile in 0..piece.padded_rows() / TILE {
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
                let [even, odd] = scratch;
                let (out, sums) = if turn { (odd, even) } else { (even, odd) };
                for quarter in 0..4 {
                    // A piece has a step for each tile at least: a quarter of its rows.
                    for row in *asked..piece.padded_rows().min(*asked + TILE / 4) {
                        piece.ask::<F::Block, _>(s, row);
                        *asked = row + 1;
                    }
                    F::multiply(tiles, panel, &step, quarter, out);
                    if let Some(before) = &before {
                        F::advance(s, panel, before, quarter, sums, chains);
                    }
                }
                before = Some(step);
                turn = !turn;
            }
        }
    }
    if let Some(last) = before {
        for quarter in 0..4 {
            let sums = &scratch[usize::from(!turn)];
            F::advance(s, panel, &last, quarter, sums, chains);
        }
    }
}
