//! Many tokens times a panel of weight rows, by products of 16 × 16 tiles: the panel is unpacked as
//! for the vector kernels, tiles multiply 16 rows with a slab, and vectors take the chain steps from
//! the sums that the tiles leave in the nearest cache.
//!
//! Both work at once: between any two tile products stands vector work on earlier sums.

use std::marker::PhantomData;

use super::panel::{Chains, Multiply, Piece, Work};
use crate::quant::Block;
use crate::simd::tiles::{Amx, Tiles};
use crate::simd::{Avx512, Kernel};

/// Weight rows of a tile.
pub(super) const TILE: usize = 16;

/// What a quant format does with tiles.
pub(super) trait TileFormat<const DEPTH: usize> {
    /// The format's block.
    type Block: Block;
    /// A piece of 256 columns of a panel's rows, unpacked, and room for sums.
    type Room;
    const EMPTY: Self::Room;

    /// Unpacks block `b` of the piece into row `row`.
    fn place(s: Avx512, block: &Self::Block, room: &mut Self::Room, row: usize, b: usize);

    /// Takes the chain steps of the unpacked piece. Asks for the rows of the piece after it.
    fn multiply(
        s: Avx512,
        tiles: &Tiles<DEPTH>,
        room: &mut Self::Room,
        piece: &Piece<'_>,
        chains: &mut Chains,
    );
}

/// Does `work` on panels of a format with the instructions of `amx`.
pub(super) fn run<F: TileFormat<DEPTH>, const DEPTH: usize>(amx: Amx, work: impl Work) {
    let tiles = amx.tiles();
    amx.vectors().vectorize(Run::<F, _, DEPTH> {
        tiles,
        work,
        format: PhantomData,
    });
}

struct Run<F, W, const DEPTH: usize> {
    tiles: Tiles<DEPTH>,
    work: W,
    format: PhantomData<F>,
}

impl<F: TileFormat<DEPTH>, W: Work, const DEPTH: usize> Kernel<Avx512> for Run<F, W, DEPTH> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: Avx512) {
        let by = ByTiles::<F, DEPTH> {
            tiles: self.tiles,
            room: F::EMPTY,
        };
        self.work.run(s, by);
    }
}

/// The tiles, and what they work on.
struct ByTiles<F: TileFormat<DEPTH>, const DEPTH: usize> {
    tiles: Tiles<DEPTH>,
    room: F::Room,
}

impl<F: TileFormat<DEPTH>, const DEPTH: usize> Multiply<Avx512> for ByTiles<F, DEPTH> {
    #[inline(always)]
    fn multiply(&mut self, s: Avx512, piece: &Piece<'_>, chains: &mut Chains) {
        let room = &mut self.room;
        piece.unpack(
            #[inline(always)]
            |block: &F::Block, row, b| F::place(s, block, room, row, b),
        );
        F::multiply(s, &self.tiles, room, piece, chains);
    }
}

/// The rows of the next piece, asked for between products.
pub(super) struct Ahead<'a, 'b, B> {
    piece: &'a Piece<'b>,
    asked: usize,
    format: PhantomData<B>,
}

impl<'a, 'b, B: Block> Ahead<'a, 'b, B> {
    pub(super) fn of(piece: &'a Piece<'b>) -> Self {
        Self {
            piece,
            asked: 0,
            format: PhantomData,
        }
    }

    /// Asks for the next row, if there is one.
    #[inline(always)]
    pub(super) fn ask(&mut self, s: Avx512) {
        if self.asked < self.piece.padded_rows() {
            self.piece.ask::<B, _>(s, self.asked);
            self.asked += 1;
        }
    }
}
