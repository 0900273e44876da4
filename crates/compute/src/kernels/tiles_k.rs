//! Tile products of the K formats: the integer scales are multiplied into the weights when they are
//! unpacked, as two signed bytes each, so that a block of 256 columns is two results. Where one byte
//! is enough, the other is the minimum, and its result the sum of the minima.

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
    /// `[tiles][quarters][low, high][rows]`: parts of integer times scale, or that and the minimum, in
    /// element order.
    products: [[[[[i8; 64]; TILE]; 2]; 4]; ROWS / TILE],
    /// Scales.
    d: [f32; ROWS],
    /// Scales of minima, negated.
    m: [f32; ROWS],
    /// Integer minima of groups.
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
            products: [[[[[0; 64]; TILE]; 2]; 4]; ROWS / TILE],
            d: [0.0; ROWS],
            m: [0.0; ROWS],
            mins: [[[0; 2]; 4]; ROWS],
        },
        [[[Sixteen([0; 16]); 16]; 4]; 2],
    );

    #[inline(always)]
    fn place(s: Avx512, block: &F, (panel, _): &mut Self::Room, row: usize, _: usize) {
        let quarters = &mut panel.products[row / TILE];
        let scales = s.scale_bytes(block.scales(s));
        for (g, weights) in block.weights(s).into_iter().enumerate() {
            let to = quarters[g / 2]
                .each_mut()
                .map(|rows| &mut rows[row % TILE].as_chunks_mut::<32>().0[g % 2]);
            if F::SPLIT == 0 {
                let mins = s.scale_bytes(block.per_sum(s));
                s.byte_products(weights, [&scales, &mins], g, to);
            } else if F::SPLIT == 3 {
                s.small_products(weights, scales[2 * g], to);
            } else if F::SIGNED {
                s.signed_products(weights, (&scales, g), to);
            } else {
                s.wide_products(weights, F::OFFSET as i8, (&scales, g), to);
            }
        }
        let (d, dmin) = block.d_and_dmin();
        panel.d[row] = s.widen_one(d.0);
        if F::MINIMUM {
            // −(dmin · d_x) = (−dmin) · d_x
            panel.m[row] = -s.widen_one(dmin.0);
            if F::SPLIT > 0 {
                const { assert!(F::SPLIT == 0 || F::GROUPS == 8 || !F::MINIMUM) };
                panel.mins[row] = bytemuck::cast(s.every_second(block.per_sum(s)));
            }
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
    /// All steps for slabs `slabs` of the batch, `SLABS` at a time. A step's vector work follows, in
    /// as many parts, the tile products of the step after it.
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
                self.tiles.clear();
                for quarter in 0..4 {
                    macro_rules! products {
                        ($($p:literal)*) => {$(
                            if $p < 2 * SLABS {
                                product::<SLABS, $p>(self.tiles, self.panel, &step, quarter);
                                self.ahead.ask(s);
                                if let Some(before) = &before {
                                    let rows = [4 * quarter + 2 * ($p % 2), $p / 2];
                                    advance::<F, SLABS>(s, self.panel, before, rows, sums, chains);
                                }
                            }
                        )*};
                    }
                    products!(0 1 2 3);
                }
                self.tiles
                    .store(&mut out.as_chunks_mut::<2>().0.as_chunks_mut::<SLABS>().0[0]);
                before = Some(step);
                turn = !turn;
            }
        }
        if let Some(last) = before {
            let sums = &self.scratch[usize::from(!turn)];
            for row in (0..TILE).step_by(2) {
                for v in 0..SLABS {
                    advance::<F, SLABS>(s, self.panel, &last, [row, v], sums, chains);
                }
            }
        }
    }
}

/// The products of a quarter of the columns: result `P` is slab `P / 2` times the low or the high parts.
#[inline(always)]
fn product<const SLABS: usize, const P: usize>(
    tiles: &Tiles<64>,
    panel: &LargePanel,
    step: &Step<'_, SLABS>,
    quarter: usize,
) {
    let weights = &panel.products[step.tile][quarter];
    let slab = |v: usize| &step.x[v].q.as_chunks::<16>().0[quarter];
    match P {
        0 => {
            tiles.load_slab::<0>(slab(0));
            tiles.load_weights::<0>(&weights[0]);
        }
        1 => tiles.load_weights::<1>(&weights[1]),
        2 => tiles.load_slab::<1>(slab(1)),
        _ => {}
    }
    tiles.add::<P>();
}

/// The chain steps of two rows from `row` of the sixteen, and slab `v`.
#[inline(always)]
fn advance<F: PanelK, const SLABS: usize>(
    s: Avx512,
    panel: &LargePanel,
    step: &Step<'_, SLABS>,
    [first, v]: [usize; 2],
    sums: &Scratch,
    chains: &mut Chains,
) {
    let row = TILE * step.tile + first;
    let d = &panel.d[row..].as_chunks::<2>().0[0];
    let m = &panel.m[row..].as_chunks::<2>().0[0];
    let mins = &panel.mins[row..].as_chunks::<2>().0[0];
    let chains = &mut chains[step.first + v][row..];
    let chains = &mut chains.as_chunks_mut::<2>().0[0];
    let d_x = s.load(&step.x[v].scales[0].0);
    let [low, high] = &sums.as_chunks::<2>().0[v];
    for r in 0..2 {
        let (low, high) = (&low[first + r], &high[first + r]);
        let products = match F::SPLIT {
            0 => s.load_i32(low),
            3 => s.join::<3>(low, high),
            _ => s.join::<7>(low, high),
        };
        let scale = s.mul(s.splat(d[r]), d_x);
        let mut acc = s.fma(scale, s.i32_to_f32(products), s.load(&chains[r].0));
        if F::MINIMUM {
            let minima = if F::SPLIT == 0 {
                s.load_i32(high)
            } else {
                let mut minima = s.i32_zero();
                for g in 0..4 {
                    minima = s.dot2(minima, &step.x[v].wide_sums[g], mins[r][g]);
                }
                minima
            };
            let scale = s.mul(s.splat(m[r]), d_x);
            acc = s.fma(scale, s.i32_to_f32(minima), acc);
        }
        s.store(acc, &mut chains[r].0);
    }
}
