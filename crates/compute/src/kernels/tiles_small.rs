//! Tile products of the 32-weight formats: a result for each block of 32 columns, since each takes a
//! chain step of its own.

use super::panel::{Chains, Piece, ROWS};
use super::panel_small::Small;
use super::rows_small::SmallFormat;
use super::slabs::Slab;
use super::tiles::{Ahead, TILE, TileFormat};
use crate::simd::tiles::{Quads, Sums, Tiles};
use crate::simd::{Avx512, IntSimd, Lanes, Simd, Sixteen};

/// A piece of a panel, unpacked; by tiles of sixteen rows and blocks.
#[repr(C, align(64))]
pub(super) struct SmallPanel {
    /// Signed integers in element order.
    weights: [[[[i8; 32]; TILE]; 8]; ROWS / TILE],
    /// Scales.
    d: [[[f32; TILE]; 8]; ROWS / TILE],
    /// Minima.
    m: [[[f32; TILE]; 8]; ROWS / TILE],
}

/// Sums of the blocks of a step.
type Scratch = [Sums; 4];

/// `B` blocks of sixteen rows and a slab.
#[derive(Clone, Copy)]
struct Step<'a, const B: usize> {
    slab: usize,
    tile: usize,
    /// Whether they are the first of the piece, or the last.
    ends: [bool; 2],
    weights: &'a [[[i8; 32]; TILE]; B],
    d: &'a [[f32; TILE]; B],
    m: &'a [[f32; TILE]; B],
    x: &'a [Quads<8>; B],
    d_x: &'a [Sixteen<f32>; B],
    totals: &'a [Sixteen<f32>; B],
}

impl<'a, const B: usize> Step<'a, B> {
    #[inline(always)]
    fn new(panel: &'a SmallPanel, x: Slab<'a>, (slab, tile): (usize, usize), step: usize) -> Self {
        Self {
            slab,
            tile,
            ends: [step == 0, (step + 1) * B == x.scales.len()],
            weights: &panel.weights[tile].as_chunks().0[step],
            d: &panel.d[tile].as_chunks().0[step],
            m: &panel.m[tile].as_chunks().0[step],
            x: &x.q.as_chunks().0.as_chunks().0[step],
            d_x: &x.scales.as_chunks().0[step],
            totals: &x.totals.as_chunks().0[step],
        }
    }
}

/// The chains of sixteen rows, while the blocks of a piece are worked on.
type Accumulators = [<Avx512 as Simd>::F32; TILE];

impl<F: SmallFormat> TileFormat<32> for Small<F> {
    type Block = F;
    type Room = (SmallPanel, [Scratch; 2]);
    const EMPTY: Self::Room = (
        SmallPanel {
            weights: [[[[0; 32]; TILE]; 8]; ROWS / TILE],
            d: [[[0.0; TILE]; 8]; ROWS / TILE],
            m: [[[0.0; TILE]; 8]; ROWS / TILE],
        },
        [[[Sixteen([0; 16]); 16]; 4]; 2],
    );

    #[inline(always)]
    fn place(s: Avx512, block: &F, (panel, _): &mut Self::Room, row: usize, b: usize) {
        let integers = s.less(block.integers(s), F::OFFSET as i8);
        panel.weights[row / TILE][b][row % TILE] = bytemuck::cast(s.array(integers));
        panel.d[row / TILE][b][row % TILE] = s.widen_one(block.scale().0);
        if F::MINIMUM {
            panel.m[row / TILE][b][row % TILE] = s.widen_one(block.minimum().0);
        }
    }

    #[inline(always)]
    fn multiply(
        s: Avx512,
        tiles: &Tiles<32>,
        (panel, scratch): &mut Self::Room,
        piece: &Piece<'_>,
        chains: &mut Chains,
    ) {
        // A step is as many blocks as always fit.
        match piece.columns.len() / 32 {
            4 | 8 => steps::<F, 4>(s, tiles, (panel, scratch), piece, chains),
            2 | 6 => steps::<F, 2>(s, tiles, (panel, scratch), piece, chains),
            _ => steps::<F, 1>(s, tiles, (panel, scratch), piece, chains),
        }
    }
}

/// Does something with each block of a step.
macro_rules! blocks {
    ($of:ident, $n:ident => $do:block) => {
        blocks!(@ 0 1 2 3, $of, $n => $do)
    };
    (@ $($b:literal)*, $of:ident, $n:ident => $do:block) => {
        $(if $b < $of {
            const $n: usize = $b;
            $do
        })*
    };
}

/// All steps of a piece, each of `B` blocks: the tile products of one, and between them the chain
/// steps of the one before.
#[inline(always)]
fn steps<F: SmallFormat, const B: usize>(
    s: Avx512,
    tiles: &Tiles<32>,
    (panel, scratch): (&SmallPanel, &mut [Scratch; 2]),
    piece: &Piece<'_>,
    chains: &mut Chains,
) {
    let blocks = piece.columns.len() / 32;
    let mut ahead = Ahead::<F>::of(piece);
    let mut acc = [s.zero(); TILE];
    let mut before: Option<Step<'_, B>> = None;
    let [sums, out] = scratch;
    let (mut sums, mut out) = (sums, out);
    for slab in 0..chains.len() {
        let x = piece.x.slab(piece.first_slab + slab, piece.columns.clone());
        for tile in 0..piece.padded_rows() / TILE {
            for step in 0..blocks / B {
                let step = Step::new(panel, x, (slab, tile), step);
                if let Some(before) = &before {
                    if let [true, _] = before.ends {
                        begin(s, before, chains, &mut acc);
                    }
                    blocks!(B, N => {
                        product::<B, N>(tiles, &step, out);
                        ahead.ask(s);
                        advance::<F, B, N>(s, before, sums, &mut acc);
                    });
                    if let [_, true] = before.ends {
                        end(s, before, chains, &acc);
                    }
                } else {
                    blocks!(B, N => {
                        product::<B, N>(tiles, &step, out);
                    });
                }
                match B {
                    1 => tiles.store::<0>(&mut out[0]),
                    2 => tiles.store::<1>(&mut out[1]),
                    _ => tiles.store::<3>(&mut out[3]),
                }
                before = Some(step);
                std::mem::swap(&mut sums, &mut out);
            }
        }
    }
    if let Some(last) = &before {
        if let [true, _] = last.ends {
            begin(s, last, chains, &mut acc);
        }
        blocks!(B, N => {
            advance::<F, B, N>(s, last, sums, &mut acc);
        });
        end(s, last, chains, &acc);
    }
}

/// Takes up the chains of a step's rows.
#[inline(always)]
fn begin<const B: usize>(s: Avx512, step: &Step<'_, B>, chains: &Chains, acc: &mut Accumulators) {
    let chains = &chains[step.slab].as_chunks::<TILE>().0[step.tile];
    for r in 0..TILE {
        acc[r] = s.load(&chains[r].0);
    }
}

/// Puts them down.
#[inline(always)]
fn end<const B: usize>(s: Avx512, step: &Step<'_, B>, chains: &mut Chains, acc: &Accumulators) {
    let chains = &mut chains[step.slab].as_chunks_mut::<TILE>().0[step.tile];
    for r in 0..TILE {
        s.store(acc[r], &mut chains[r].0);
    }
}

/// The product of block `N` of a step; stores that of the block before it, which is done by now.
#[inline(always)]
fn product<const B: usize, const N: usize>(
    tiles: &Tiles<32>,
    step: &Step<'_, B>,
    out: &mut Scratch,
) {
    match N {
        0 => {}
        1 => tiles.store::<0>(&mut out[0]),
        2 => tiles.store::<1>(&mut out[1]),
        _ => tiles.store::<2>(&mut out[2]),
    }
    tiles.product::<N>(&step.weights[N], &step.x[N]);
}

/// The chain steps of block `N` of a step.
#[inline(always)]
fn advance<F: SmallFormat, const B: usize, const N: usize>(
    s: Avx512,
    step: &Step<'_, B>,
    sums: &Scratch,
    acc: &mut Accumulators,
) {
    let d_x = s.load(&step.d_x[N].0);
    let total = s.load(&step.totals[N].0);
    for r in 0..TILE {
        let sum = s.i32_to_f32(s.i32_load(&sums[N][r]));
        acc[r] = s.fma(s.mul(s.splat(step.d[N][r]), d_x), sum, acc[r]);
        if F::MINIMUM {
            acc[r] = s.fma(s.mul(s.splat(step.m[N][r]), d_x), total, acc[r]);
        }
    }
    s.settle(acc);
}
