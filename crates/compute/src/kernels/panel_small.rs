//! Panels of the 32-weight formats: one chain step for each block of 32 columns.

use std::marker::PhantomData;

use super::formats_small::SmallFormat;
use super::panel::{Chains, PIECE, Panel, PanelFormat};
use super::slabs::Slab;
use crate::simd::{Lanes, Stored};

/// A 32-weight format in panels.
pub(super) struct Small<F>(PhantomData<F>);

impl<F: SmallFormat> Stored for Small<F> {
    const LARGEST: i32 = F::LARGEST;
    const SIGNED: bool = F::SIGNED;
}

impl<F: SmallFormat> PanelFormat for Small<F> {
    type Block = F;

    #[inline(always)]
    fn place<S: Lanes>(s: S, block: &F, panel: &mut Panel, row: usize, b: usize) {
        let mut integers = s.array(block.integers(s));
        if F::SIGNED {
            for byte in &mut integers {
                *byte = byte.wrapping_add(S::SIGNED_BIAS);
            }
        }
        panel.weights[row].as_chunks_mut::<32>().0[b] = integers;
        panel.d[row][b] = block.scale(s);
        if F::MINIMUM {
            panel.m[row][b] = block.minimum(s);
        }
    }

    #[inline(always)]
    fn advance<S: Lanes, const R: usize, const V: usize>(
        s: S,
        panel: &Panel,
        row: usize,
        x: [Slab<'_>; V],
        chains: &mut Chains,
    ) {
        let blocks = x[0].scales.len();
        assert!(
            blocks <= PIECE / 32 && chains.len() == V,
            "a piece of V slabs"
        );
        let rows = &panel.weights[row..row + R];
        let (d, m) = (&panel.d[row..row + R], &panel.m[row..row + R]);
        let offset = if F::SIGNED {
            i16::from(S::SIGNED_BIAS)
        } else {
            F::OFFSET
        };
        for b in 0..blocks {
            let mut start = [s.i32_zero(); V];
            let mut q = [&x[0].q.as_chunks::<8>().0[b]; V];
            for v in 0..V {
                q[v] = &x[v].q.as_chunks::<8>().0[b];
                if offset != 0 {
                    start[v] = s.dot2(start[v], &x[v].sums[b], [-offset; 2]);
                }
            }
            let mut weights = [&rows[0].as_chunks::<4>().0.as_chunks::<8>().0[b]; R];
            for r in 0..R {
                weights[r] = &rows[r].as_chunks::<4>().0.as_chunks::<8>().0[b];
            }
            let dots = s.dots::<Self, 8, R, V>(start, weights, q);
            for v in 0..V {
                let d_x = s.load(&x[v].scales[b].0);
                let sum_x = s.load(&x[v].totals[b].0);
                for r in 0..R {
                    let chain = &mut chains[v][row + r].0;
                    let scale = s.mul(s.splat(d[r][b]), d_x);
                    let mut acc = s.fma(scale, s.i32_to_f32(dots[r][v]), s.load(chain));
                    if F::MINIMUM {
                        acc = s.fma(s.mul(s.splat(m[r][b]), d_x), sum_x, acc);
                    }
                    s.store(acc, chain);
                }
            }
        }
    }
}
