//! Tile products of the 32-weight formats: a result for each block of 32 columns, since each takes a
//! chain step of its own.

use super::formats_small::SmallFormat;
use super::panel::{Chains, Piece, ROWS};
use super::panel_small::Small;
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
    /// Sums of all blocks of the piece.
    type Room = (SmallPanel, [[Sums; 8]; ROWS / TILE]);
    const EMPTY: Self::Room = (
        SmallPanel {
            weights: [[[[0; 32]; TILE]; 8]; ROWS / TILE],
            d: [[[0.0; TILE]; 8]; ROWS / TILE],
            m: [[[0.0; TILE]; 8]; ROWS / TILE],
        },
        [[[Sixteen([0; 16]); 16]; 8]; ROWS / TILE],
    );

    #[inline(always)]
    fn place(s: Avx512, block: &F, (panel, _): &mut Self::Room, row: usize, b: usize) {
        let integers = s.less(block.integers(s), F::OFFSET as i8);
        panel.weights[row / TILE][b][row % TILE] = bytemuck::cast(s.array(integers));
        panel.d[row / TILE][b][row % TILE] = block.scale(s);
        if F::MINIMUM {
            panel.m[row / TILE][b][row % TILE] = block.minimum(s);
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
        let sums = scratch.as_flattened_mut();
        // A step is as many blocks as always fit.
        macro_rules! by_steps_of {
            ($blocks:literal) => {
                if F::MINIMUM {
                    by_turns::<F, $blocks>(s, tiles, (panel, sums), piece, chains);
                } else {
                    at_once::<F, $blocks>(s, tiles, (panel, sums), piece, chains);
                }
            };
        }
        match piece.columns.len() / 32 {
            4 | 8 => by_steps_of!(4),
            2 | 6 => by_steps_of!(2),
            _ => by_steps_of!(1),
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

/// All products of a slab, then all of its chain steps. With minima these are so many that they are
/// better off alone: a second multiplier of the vectors stands still while tiles are at work, and some
/// time after.
#[inline(always)]
fn by_turns<F: SmallFormat, const B: usize>(
    s: Avx512,
    tiles: &Tiles<32>,
    (panel, sums): (&SmallPanel, &mut [Sums]),
    piece: &Piece<'_>,
    chains: &mut Chains,
) {
    let steps = piece.columns.len() / 32 / B;
    let mut ahead = Ahead::<F>::of(piece);
    for slab in 0..chains.len() {
        let x = piece.x.slab(piece.first_slab + slab, piece.columns.clone());
        let parts = 0..piece.padded_rows() / TILE;
        let (sums, _) = sums.as_chunks_mut::<B>();
        for tile in parts.clone() {
            for step in 0..steps {
                let out = &mut sums[tile * steps + step];
                let step = Step::<B>::new(panel, x, (slab, tile), step);
                blocks!(B, N => {
                    product::<B, N>(tiles, &step, out);
                    ahead.ask(s);
                });
                store(tiles, B - 1, &mut out[B - 1]);
            }
        }
        for tile in parts {
            let mut acc = [s.zero(); TILE];
            for step in 0..steps {
                let sums = &sums[tile * steps + step];
                let step = Step::<B>::new(panel, x, (slab, tile), step);
                if let [true, _] = step.ends {
                    begin(s, &step, chains, &mut acc);
                }
                for n in 0..B {
                    advance::<F, B>(s, &step, n, sums, &mut acc);
                }
                if let [_, true] = step.ends {
                    end(s, &step, chains, &acc);
                }
            }
        }
    }
}

/// All steps of a piece, each of `B` blocks: the tile products of one, and between them the chain
/// steps of the one before.
#[inline(always)]
fn at_once<F: SmallFormat, const B: usize>(
    s: Avx512,
    tiles: &Tiles<32>,
    (panel, sums): (&SmallPanel, &mut [Sums]),
    piece: &Piece<'_>,
    chains: &mut Chains,
) {
    let blocks = piece.columns.len() / 32;
    let mut ahead = Ahead::<F>::of(piece);
    let mut acc = [s.zero(); TILE];
    let mut before: Option<Step<'_, B>> = None;
    let (sums, _) = sums.as_chunks_mut::<B>();
    let [mut sums, mut out] = sums
        .first_chunk_mut()
        .expect("room for two steps")
        .each_mut();
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
                        advance::<F, B>(s, before, N, sums, &mut acc);
                        s.settle(&mut acc);
                    });
                    if let [_, true] = before.ends {
                        end(s, before, chains, &acc);
                    }
                } else {
                    blocks!(B, N => {
                        product::<B, N>(tiles, &step, out);
                    });
                }
                store(tiles, B - 1, &mut out[B - 1]);
                before = Some(step);
                std::mem::swap(&mut sums, &mut out);
            }
        }
    }
    if let Some(last) = &before {
        if let [true, _] = last.ends {
            begin(s, last, chains, &mut acc);
        }
        for n in 0..B {
            advance::<F, B>(s, last, n, sums, &mut acc);
        }
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
    out: &mut [Sums; B],
) {
    if N > 0 {
        store(tiles, N - 1, &mut out[N - 1]);
    }
    tiles.product::<N>(&step.weights[N], &step.x[N]);
}

#[inline(always)]
fn store(tiles: &Tiles<32>, n: usize, out: &mut Sums) {
    match n {
        0 => tiles.store::<0>(out),
        1 => tiles.store::<1>(out),
        2 => tiles.store::<2>(out),
        _ => tiles.store::<3>(out),
    }
}

/// The chain steps of block `n` of a step.
#[inline(always)]
fn advance<F: SmallFormat, const B: usize>(
    s: Avx512,
    step: &Step<'_, B>,
    n: usize,
    sums: &[Sums; B],
    acc: &mut Accumulators,
) {
    let d_x = s.load(&step.d_x[n].0);
    let total = s.load(&step.totals[n].0);
    for r in 0..TILE {
        let sum = s.i32_to_f32(s.i32_load(&sums[n][r]));
        acc[r] = s.fma(s.mul(s.splat(step.d[n][r]), d_x), sum, acc[r]);
        if F::MINIMUM {
            acc[r] = s.fma(s.mul(s.splat(step.m[n][r]), d_x), total, acc[r]);
        }
    }
}
