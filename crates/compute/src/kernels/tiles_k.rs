//! Tile products of the K formats: the integer scales are multiplied into the weights when they are
//! unpacked, as two signed bytes each, so that a block of 256 columns is two results.

use std::ops::Range;

use super::panel::{Chains, Piece, ROWS};
use super::panel_k::{Large, PanelK};
use super::slabs::Slab;
use super::tiles::{Ahead, TILE, TileFormat};
use crate::simd::tiles::{Sums, Tiles};
use crate::simd::{Avx512, IntSimd, Lanes, Simd, Sixteen};

/// A piece of a panel, unpacked.
#[repr(C, align(64))]
pub(super) struct LargePanel {
    /// `[tiles][low, high][rows]`: parts of integer times scale, in element order.
    products: [[[[i8; 256]; TILE]; 2]; ROWS / TILE],
    /// Scales.
    d: [f32; ROWS],
    /// Scales of minima, negated.
    m: [f32; ROWS],
    /// Integer minima of groups of 32.
    mins: [[[i16; 2]; 4]; ROWS],
}

/// Sums of one step: of two slabs, low and high part.
type Scratch = [Sums; 4];

/// Sixteen rows and one or two slabs.
#[derive(Clone, Copy)]
struct Step<'a, const SLABS: usize> {
    /// Which sixteen rows of the panel.
    tile: usize,
    /// Where its chains are.
    first: usize,
    x: [Slab<'a>; SLABS],
}

impl<F: PanelK> TileFormat<64> for Large<F> {
    type Block = F;
    type Room = (LargePanel, [Scratch; 2]);
    const EMPTY: Self::Room = (
        LargePanel {
            products: [[[[0; 256]; TILE]; 2]; ROWS / TILE],
            d: [0.0; ROWS],
            m: [0.0; ROWS],
            mins: [[[0; 2]; 4]; ROWS],
        },
        [[[Sixteen([0; 16]); 16]; 4]; 2],
    );

    #[inline(always)]
    fn place(s: Avx512, block: &F, (panel, _): &mut Self::Room, row: usize, _: usize) {
        let [low, high] = &mut panel.products[row / TILE];
        let (low, _) = low[row % TILE].as_chunks_mut::<32>();
        let (high, _) = high[row % TILE].as_chunks_mut::<32>();
        let scales = s.scale_bytes(block.scales(s));
        for (g, weights) in block.weights(s).into_iter().enumerate() {
            let to = [&mut low[g], &mut high[g]];
            if F::LARGEST <= 15 {
                s.small_products(weights, scales[2 * g], to);
            } else {
                s.wide_products(weights, F::OFFSET as i8, (&scales, g), to);
            }
        }
        let (d, dmin) = block.d_and_dmin();
        panel.d[row] = s.widen_one(d.0);
        if F::MINIMUM {
            // −(dmin · d_x) = (−dmin) · d_x
            panel.m[row] = -s.widen_one(dmin.0);
            panel.mins[row] = bytemuck::cast(s.every_second(block.per_sum(s)));
        }
    }

    #[inline(always)]
    fn multiply(
        s: Avx512,
        tiles: &Tiles<64>,
        (panel, scratch): &mut Self::Room,
        piece: &Piece<'_>,
        chains: &mut Chains,
    ) {
        let pairs = chains.len() / 2 * 2;
        let mut run = Run {
            tiles,
            panel,
            scratch,
            piece,
            ahead: Ahead::<F>::of(piece),
        };
        run.steps::<2>(s, 0..pairs, chains);
        run.steps::<1>(s, pairs..chains.len(), chains);
    }
}

/// The work on an unpacked piece.
struct Run<'a, 'b, F> {
    tiles: &'a Tiles<64>,
    panel: &'a LargePanel,
    scratch: &'a mut [Scratch; 2],
    piece: &'a Piece<'b>,
    ahead: Ahead<'a, 'b, F>,
}

impl<F: PanelK> Run<'_, '_, F> {
    /// All steps for slabs `slabs` of the batch, `SLABS` at a time: a quarter of a step's vector work
    /// follows each quarter of the tile products of the step after it.
    #[inline(always)]
    fn steps<const SLABS: usize>(&mut self, s: Avx512, slabs: Range<usize>, chains: &mut Chains) {
        let mut before: Option<Step<'_, SLABS>> = None;
        let mut turn = false;
        for first in slabs.step_by(SLABS) {
            let slab = self.piece.first_slab + first;
            let mut x = [self.piece.x.slab(slab, self.piece.columns.clone()); SLABS];
            for v in 1..SLABS {
                x[v] = self.piece.x.slab(slab + v, self.piece.columns.clone());
            }
            for tile in 0..self.piece.padded_rows() / TILE {
                let step = Step { tile, first, x };
                let [even, odd] = &mut *self.scratch;
                let (out, sums) = if turn { (odd, even) } else { (even, odd) };
                for quarter in 0..4 {
                    for _ in 0..TILE / 4 {
                        self.ahead.ask(s);
                    }
                    products(self.tiles, self.panel, &step, quarter, out);
                    if let Some(before) = &before {
                        advance::<F, SLABS>(s, self.panel, before, quarter, sums, chains);
                    }
                }
                before = Some(step);
                turn = !turn;
            }
        }
        if let Some(last) = before {
            let sums = &self.scratch[usize::from(!turn)];
            for quarter in 0..4 {
                advance::<F, SLABS>(s, self.panel, &last, quarter, sums, chains);
            }
        }
    }
}

#[inline(always)]
fn products<const SLABS: usize>(
    tiles: &Tiles<64>,
    panel: &LargePanel,
    step: &Step<'_, SLABS>,
    quarter: usize,
    out: &mut Scratch,
) {
    let mut q = [&step.x[0].q.as_chunks::<16>().0[quarter]; SLABS];
    for v in 1..SLABS {
        q[v] = &step.x[v].q.as_chunks::<16>().0[quarter];
    }
    if quarter == 0 {
        tiles.clear();
    }
    tiles.add(&panel.products[step.tile], 64 * quarter, q);
    if quarter == 3 {
        tiles.store(&mut out.as_chunks_mut::<2>().0.as_chunks_mut::<SLABS>().0[0]);
    }
}

#[inline(always)]
fn advance<F: PanelK, const SLABS: usize>(
    s: Avx512,
    panel: &LargePanel,
    step: &Step<'_, SLABS>,
    quarter: usize,
    sums: &Scratch,
    chains: &mut Chains,
) {
    let row = TILE * step.tile + 4 * quarter;
    let d = &panel.d[row..].as_chunks::<4>().0[0];
    let m = &panel.m[row..].as_chunks::<4>().0[0];
    let mins = &panel.mins[row..].as_chunks::<4>().0[0];
    for v in 0..SLABS {
        let chains = &mut chains[step.first + v][row..];
        let chains = &mut chains.as_chunks_mut::<4>().0[0];
        let sum_x = &step.x[v].wide_sums.as_chunks::<4>().0;
        let d_x = s.load(&step.x[v].scales[0].0);
        let [low, high] = &sums.as_chunks::<2>().0[v];
        for r in 0..4 {
            let (low, high) = (&low[4 * quarter + r], &high[4 * quarter + r]);
            let products = if F::LARGEST <= 15 {
                s.join::<3>(low, high)
            } else {
                s.join::<7>(low, high)
            };
            let scale = s.mul(s.splat(d[r]), d_x);
            let mut acc = s.fma(scale, s.i32_to_f32(products), s.load(&chains[r].0));
            if F::MINIMUM {
                let mut minima = s.i32_zero();
                for g in 0..4 {
                    minima = s.dot2(minima, &sum_x[0][g], mins[r][g]);
                }
                let scale = s.mul(s.splat(m[r]), d_x);
                acc = s.fma(scale, s.i32_to_f32(minima), acc);
            }
            s.store(acc, &mut chains[r].0);
        }
    }
}
