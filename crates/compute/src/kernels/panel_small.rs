//! Panels of the 32-weight formats: one chain step for each block of 32 columns.

use std::marker::PhantomData;

use super::panel::{PIECE, Panel, PanelFormat, Piece, ROWS};
use super::rows_small::SmallFormat;
use crate::simd::Lanes;

/// A 32-weight format in panels.
pub(super) struct Small<F>(PhantomData<F>);

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
        panel.place(row, b, &integers);
        panel.d[b * ROWS + row] = s.widen_one(block.scale().0);
        if F::MINIMUM {
            panel.m[b * ROWS + row] = s.widen_one(block.minimum().0);
        }
    }

    #[inline(always)]
    fn advance<S: Lanes, const V: usize, const T: usize>(
        s: S,
        panel: &Panel,
        v: usize,
        x: [Piece<'_>; T],
        acc: &mut [[f32; ROWS]],
    ) {
        let blocks = x[0].scales.len();
        assert!(blocks <= PIECE / 32 && acc.len() == T, "a piece of a batch");
        let lane = |i: usize| (v + i) * S::LANES;
        let mut chains = [[s.floats_splat(0.0); V]; T];
        for t in 0..T {
            for i in 0..V {
                chains[t][i] = s.floats(&acc[t][lane(i)..]);
            }
        }
        let offset = if F::SIGNED {
            i32::from(S::SIGNED_BIAS)
        } else {
            F::OFFSET
        };
        for b in 0..blocks {
            let mut sums_x = [0; T];
            let mut dots = [[s.ints_splat(0); V]; T];
            for t in 0..T {
                sums_x[t] = i32::from(x[t].sums[2 * b]) + i32::from(x[t].sums[2 * b + 1]);
                dots[t] = [s.ints_splat(-offset * sums_x[t]); V];
            }
            let weights = &panel.weights[8 * b * ROWS..][..8 * ROWS];
            for (k, weights) in weights.chunks_exact(ROWS).enumerate() {
                let mut w = [s.ints_splat(0); V];
                for i in 0..V {
                    w[i] = s.ints(&weights[lane(i)..]);
                }
                for t in 0..T {
                    let quad = x[t].q.as_chunks::<4>().0[8 * b + k].map(i8::cast_unsigned);
                    for i in 0..V {
                        dots[t][i] = if F::SIGNED {
                            s.dot4_signed(dots[t][i], w[i], quad)
                        } else {
                            s.dot4(dots[t][i], w[i], quad)
                        };
                    }
                }
            }
            for i in 0..V {
                let d = s.floats(&panel.d[b * ROWS + lane(i)..]);
                let m = s.floats(&panel.m[b * ROWS + lane(i)..]);
                for t in 0..T {
                    let d_x = s.floats_splat(x[t].scales[b]);
                    let sum = s.to_floats(dots[t][i]);
                    let mut chain = s.floats_fma(s.floats_mul(d, d_x), sum, chains[t][i]);
                    if F::MINIMUM {
                        let sum_x = s.floats_splat(sums_x[t] as f32);
                        chain = s.floats_fma(s.floats_mul(m, d_x), sum_x, chain);
                    }
                    chains[t][i] = chain;
                }
            }
        }
        for t in 0..T {
            for i in 0..V {
                s.floats_store(chains[t][i], &mut acc[t][lane(i)..]);
            }
        }
    }
}
