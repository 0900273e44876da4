//! Tile products of the 32-weight formats: a result for each block of 32 columns, since each takes a
//! chain step of its own.

use super::panel::{Chains, ROWS};
use super::panel_small::Small;
use super::rows_small::SmallFormat;
use super::tiles::{Scratch, Step, TILE, TileFormat};
use crate::simd::tiles::Tiles;
use crate::simd::{Avx512, IntSimd, Lanes, Simd};

/// Blocks of a step.
const BLOCKS: usize = 4;

/// A piece of a panel, unpacked.
#[repr(C, align(64))]
pub(super) struct SmallPanel {
    /// `[tiles][blocks][rows]`: signed integers in element order.
    weights: [[[[i8; 32]; TILE]; 8]; ROWS / TILE],
    /// `[rows][blocks]`: scales.
    d: [[f32; 8]; ROWS],
    /// Minima, likewise.
    m: [[f32; 8]; ROWS],
}

impl<F: SmallFormat> TileFormat<32> for Small<F> {
    type Block = F;
    type Panel = SmallPanel;
    const EMPTY: SmallPanel = SmallPanel {
        weights: [[[[0; 32]; TILE]; 8]; ROWS / TILE],
        d: [[0.0; 8]; ROWS],
        m: [[0.0; 8]; ROWS],
    };
    const COLUMNS: usize = 32 * BLOCKS;

    #[inline(always)]
    fn place(s: Avx512, block: &F, panel: &mut SmallPanel, row: usize, b: usize) {
        let integers = s.less(block.integers(s), F::OFFSET as i8);
        panel.weights[row / TILE][b][row % TILE] = bytemuck::cast(s.array(integers));
        panel.d[row][b] = s.widen_one(block.scale().0);
        if F::MINIMUM {
            panel.m[row][b] = s.widen_one(block.minimum().0);
        }
    }

    #[inline(always)]
    fn multiply<const SLABS: usize>(
        tiles: &Tiles<32>,
        panel: &SmallPanel,
        step: &Step<'_, SLABS>,
        quarter: usize,
        out: &mut Scratch,
    ) {
        // A quarter is a block, if the step has so many.
        if quarter < step.x[0].scales.len() {
            let mut q = [&step.x[0].q.as_chunks::<8>().0[quarter]; SLABS];
            for v in 1..SLABS {
                q[v] = &step.x[v].q.as_chunks::<8>().0[quarter];
            }
            let weights = &panel.weights[step.tile][step.column / 32 + quarter];
            tiles.block(weights, q, &mut out.as_chunks_mut::<SLABS>().0[quarter]);
        }
    }

    #[inline(always)]
    fn advance<const SLABS: usize>(
        s: Avx512,
        panel: &SmallPanel,
        step: &Step<'_, SLABS>,
        quarter: usize,
        sums: &Scratch,
        chains: &mut Chains,
    ) {
        let row = TILE * step.tile + 4 * quarter;
        if step.x[0].scales.len() == BLOCKS {
            blocks::<F, SLABS, BLOCKS>(s, panel, step, (row, 0), sums, chains);
        } else {
            for b in 0..step.x[0].scales.len() {
                blocks::<F, SLABS, 1>(s, panel, step, (row, b), sums, chains);
            }
        }
    }
}

/// The chain steps of four rows from `row` of the panel, of `BLOCKS` blocks from block `first` of the
/// step.
#[inline(always)]
fn blocks<F: SmallFormat, const SLABS: usize, const BLOCKS: usize>(
    s: Avx512,
    panel: &SmallPanel,
    step: &Step<'_, SLABS>,
    (row, first): (usize, usize),
    sums: &Scratch,
    chains: &mut Chains,
) {
    let at = step.column / 32 + first;
    let d = &panel.d[row..].as_chunks::<4>().0[0];
    let m = &panel.m[row..].as_chunks::<4>().0[0];
    let (sums, _) = sums.as_chunks::<SLABS>();
    let sums = &sums[first..first + BLOCKS];
    assert!(at + BLOCKS <= 8, "blocks of a piece");
    for v in 0..SLABS {
        let chains = &mut chains[step.first + v][row..];
        let chains = &mut chains.as_chunks_mut::<4>().0[0];
        let mut d_x = [s.zero(); BLOCKS];
        let mut sum_x = [s.zero(); BLOCKS];
        for b in 0..BLOCKS {
            d_x[b] = s.load(&step.x[v].scales[first + b].0);
            if F::MINIMUM {
                let sum = s.dot2(s.i32_zero(), &step.x[v].sums[first + b], [1; 2]);
                sum_x[b] = s.i32_to_f32(sum);
            }
        }
        for r in 0..4 {
            let mut acc = s.load(&chains[r].0);
            for b in 0..BLOCKS {
                let sum = s.i32_to_f32(s.i32_load(&sums[b][v][row % TILE + r]));
                acc = s.fma(s.mul(s.splat(d[r][at + b]), d_x[b]), sum, acc);
                if F::MINIMUM {
                    acc = s.fma(s.mul(s.splat(m[r][at + b]), d_x[b]), sum_x[b], acc);
                }
            }
            s.store(acc, &mut chains[r].0);
        }
    }
}
