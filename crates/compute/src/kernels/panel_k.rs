//! Panels of the K formats: one block of 256 columns, groups of 32 or 16 with integer scales.

use std::marker::PhantomData;

use super::panel::{Panel, PanelFormat, Piece, ROWS};
use super::rows_k::KFormat;
use crate::simd::Lanes;

/// A K format in panels.
pub(super) struct Large<F>(PhantomData<F>);

impl<F: KFormat> PanelFormat for Large<F> {
    type Block = F;

    #[inline(always)]
    fn place<S: Lanes>(s: S, block: &F, panel: &mut Panel, row: usize, _: usize) {
        for (g, weights) in block.weights(s).into_iter().enumerate() {
            panel.place(row, g, &s.array(weights));
        }
        let scales = s.array_i16(block.scales(s));
        for g in 0..F::GROUPS {
            panel.scales[g * ROWS + row] = i32::from(scales[g * 16 / F::GROUPS]).to_ne_bytes();
        }
        let per_sum = s.array_i16(block.per_sum(s));
        for (g, pair) in per_sum.as_chunks::<2>().0.iter().enumerate() {
            panel.per_sum[g * ROWS + row] = bytemuck::cast(*pair);
        }
        let (d, dmin) = block.d_and_dmin();
        panel.d[row] = s.widen_one(d.0);
        panel.m[row] = s.widen_one(dmin.0);
    }

    #[inline(always)]
    fn advance<S: Lanes, const V: usize, const T: usize>(
        s: S,
        panel: &Panel,
        v: usize,
        x: [Piece<'_>; T],
        acc: &mut [[f32; ROWS]],
    ) {
        assert_eq!(acc.len(), T, "one chain buffer a token");
        let lane = |i: usize| (v + i) * S::LANES;
        let zero = s.ints_splat(0);
        let mut products = [[zero; V]; T];
        let quads_per_group = 64 / F::GROUPS;
        for g in 0..F::GROUPS {
            let mut dots = [[zero; V]; T];
            for k in g * quads_per_group..(g + 1) * quads_per_group {
                let mut w = [zero; V];
                for i in 0..V {
                    w[i] = s.ints(&panel.weights[k * ROWS + lane(i)..]);
                }
                for t in 0..T {
                    let quad = x[t].q.as_chunks::<4>().0[k].map(i8::cast_unsigned);
                    for i in 0..V {
                        dots[t][i] = s.dot4(dots[t][i], w[i], quad);
                    }
                }
            }
            for i in 0..V {
                let scale = s.ints(&panel.scales[g * ROWS + lane(i)..]);
                for t in 0..T {
                    products[t][i] = s.mul_add_i32(products[t][i], dots[t][i], scale);
                }
            }
        }
        for i in 0..V {
            let d = s.floats(&panel.d[lane(i)..]);
            let m = s.floats(&panel.m[lane(i)..]);
            for t in 0..T {
                let mut sums = zero;
                for g in 0..8 {
                    let w = s.ints(&panel.per_sum[g * ROWS + lane(i)..]);
                    sums = s.dot2_i16(sums, w, x[t].sums.as_chunks::<2>().0[g]);
                }
                let d_x = s.floats_splat(x[t].scales[0]);
                let chain = s.floats(&acc[t][lane(i)..]);
                let scales = (s.floats_mul(d, d_x), s.floats_mul(m, d_x));
                let chain = F::chain_lanes(s, scales, (products[t][i], sums), chain);
                s.floats_store(chain, &mut acc[t][lane(i)..]);
            }
        }
    }
}
