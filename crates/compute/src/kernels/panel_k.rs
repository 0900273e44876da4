//! Panels of the K formats: one block of 256 columns, groups of 32 or 16 with integer scales.

use std::marker::PhantomData;

use super::formats_k::KFormat;
use super::panel::{Chains, Panel, PanelFormat};
use super::slabs::Slab;
use crate::quant::{BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};
use crate::simd::{Lanes, Stored};

/// A K format in panels.
pub(super) struct Large<F>(PhantomData<F>);

/// What a panel needs to know of a K format beyond [`KFormat`].
pub(super) trait PanelK: KFormat {
    /// Largest stored integer.
    const LARGEST: i32;
    /// Subtracted from every stored integer.
    const OFFSET: i16;
    /// Whether groups have minima.
    const MINIMUM: bool;
    /// Groups whose scaled sums add up exactly in F32, or 1 where that is not worth it.
    const EXACT: usize;
    /// Where tiles split an integer times its scale into two signed bytes: 3 for unsigned integers up
    /// to 15 in groups of 32 with unsigned scales, else 7. 0: it is a byte, beside the group's minimum.
    const SPLIT: u32 = 7;
}

impl PanelK for BlockQ4K {
    const LARGEST: i32 = 15;
    const OFFSET: i16 = 0;
    const MINIMUM: bool = true;
    const EXACT: usize = 4;
    const SPLIT: u32 = 3;
}

// 63 · 32 · 15 · 127 · 4 is the largest sum.
const _: () = assert!(63 * 32 * BlockQ4K::LARGEST * 127 * 4 <= 1 << 24);

impl PanelK for BlockQ5K {
    const LARGEST: i32 = 31;
    const OFFSET: i16 = 0;
    const MINIMUM: bool = true;
    const EXACT: usize = 1;
}

impl PanelK for BlockQ6K {
    const LARGEST: i32 = 63;
    const OFFSET: i16 = 32;
    const MINIMUM: bool = false;
    const EXACT: usize = 1;
}

impl PanelK for BlockQ2K {
    const LARGEST: i32 = 3;
    const OFFSET: i16 = 0;
    const MINIMUM: bool = true;
    const EXACT: usize = 1;
    const SPLIT: u32 = 0;
}

const _: () = assert!(BlockQ2K::LARGEST * 15 <= 127);

impl PanelK for BlockQ3K {
    const LARGEST: i32 = 7;
    const OFFSET: i16 = 4;
    const MINIMUM: bool = false;
    const EXACT: usize = 1;
}

impl PanelK for BlockIq4Xs {
    const LARGEST: i32 = 127;
    const OFFSET: i16 = 0;
    const MINIMUM: bool = false;
    const EXACT: usize = 1;
}

impl<F: PanelK> Stored for Large<F> {
    const LARGEST: i32 = F::LARGEST;
    const SIGNED: bool = F::SIGNED;
}

impl<F: PanelK> PanelFormat for Large<F> {
    type Block = F;

    #[inline(always)]
    fn place<S: Lanes>(s: S, block: &F, panel: &mut Panel, row: usize, _: usize) {
        let (to, _) = panel.weights[row].as_chunks_mut::<32>();
        for (to, weights) in to.iter_mut().zip(block.weights(s)) {
            *to = s.array(weights);
            if F::SIGNED {
                for byte in to {
                    *byte = byte.wrapping_add(S::SIGNED_BIAS);
                }
            }
        }
        let scales = s.array_i16(block.scales(s));
        for g in 0..F::GROUPS {
            let scale = i32::from(scales[g * 16 / F::GROUPS]);
            panel.scales[row][g] = if F::EXACT > 1 {
                (scale as f32).to_bits().cast_signed()
            } else {
                scale
            };
        }
        let (d, dmin) = block.d_and_dmin();
        panel.d[row][0] = s.widen_one(d.0);
        if F::MINIMUM {
            // −(dmin · d_x) = (−dmin) · d_x
            panel.m[row][0] = -s.widen_one(dmin.0);
            let mins = s.array_i16(block.per_sum(s));
            for g in 0..F::GROUPS {
                panel.mins[row][g] = mins[g * 16 / F::GROUPS];
            }
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
        assert!(chains.len() == V, "V slabs");
        let products = products::<F, S, R, V>(s, panel, row, x);
        let (d, m) = (&panel.d[row..row + R], &panel.m[row..row + R]);
        let mins = &panel.mins[row..row + R];
        for v in 0..V {
            let d_x = s.load(&x[v].scales[0].0);
            for r in 0..R {
                let chain = &mut chains[v][row + r].0;
                let scale = s.mul(s.splat(d[r][0]), d_x);
                let mut acc = s.fma(scale, products[r][v], s.load(chain));
                if F::MINIMUM {
                    let mut minima = s.i32_zero();
                    let sums = if F::GROUPS == 8 {
                        x[v].wide_sums
                    } else {
                        x[v].sums
                    };
                    for g in 0..F::GROUPS / 2 {
                        let pair = mins[r].as_chunks::<2>().0[g];
                        minima = s.dot2(minima, &sums[g], pair);
                    }
                    let scale = s.mul(s.splat(m[r][0]), d_x);
                    acc = s.fma(scale, s.i32_to_f32(minima), acc);
                }
                s.store(acc, chain);
            }
        }
    }
}

/// `Σ scale · Σ (q − OFFSET) · x` of a block, rounded once.
#[inline(always)]
fn products<F: PanelK, S: Lanes, const R: usize, const V: usize>(
    s: S,
    panel: &Panel,
    row: usize,
    x: [Slab<'_>; V],
) -> [[S::F32; V]; R] {
    if F::EXACT == 1 {
        let mut sums = [[s.i32_zero(); V]; R];
        for g in 0..F::GROUPS {
            let dots = group::<F, S, R, V>(s, panel, row, x, g);
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = s.mul_add(sums[r][v], dots[r][v], panel.scales[row + r][g]);
                }
            }
        }
        let mut out = [[s.zero(); V]; R];
        for r in 0..R {
            for v in 0..V {
                out[r][v] = s.i32_to_f32(sums[r][v]);
            }
        }
        return out;
    }
    // Two sums that are exact in F32: adding them rounds once, as converting the integer would.
    const { assert!(F::EXACT == 1 || 2 * F::EXACT == F::GROUPS) };
    let mut out = [[s.zero(); V]; R];
    for half in 0..2 {
        let mut sums = [[s.zero(); V]; R];
        for g in half * F::EXACT..(half + 1) * F::EXACT {
            let dots = group::<F, S, R, V>(s, panel, row, x, g);
            for r in 0..R {
                let scale = s.splat(f32::from_bits(panel.scales[row + r][g].cast_unsigned()));
                for v in 0..V {
                    sums[r][v] = s.fma(s.i32_to_f32(dots[r][v]), scale, sums[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                out[r][v] = if half == 0 {
                    sums[r][v]
                } else {
                    s.add(out[r][v], sums[r][v])
                };
            }
        }
    }
    out
}

/// `Σ (q − OFFSET) · x` of group `g`.
#[inline(always)]
fn group<F: PanelK, S: Lanes, const R: usize, const V: usize>(
    s: S,
    panel: &Panel,
    row: usize,
    x: [Slab<'_>; V],
    g: usize,
) -> [[S::I32; V]; R] {
    let rows = &panel.weights[row..row + R];
    macro_rules! dots {
        ($quads:literal) => {{
            let mut start = [s.i32_zero(); V];
            let mut q = [&x[0].q.as_chunks::<$quads>().0[g]; V];
            for v in 0..V {
                q[v] = &x[v].q.as_chunks::<$quads>().0[g];
                let offset = if F::SIGNED {
                    i16::from(S::SIGNED_BIAS)
                } else {
                    F::OFFSET
                };
                if offset != 0 {
                    // A group of 32 has both sums, one of 16 one of the two.
                    let (sums, offset) = if F::GROUPS == 8 {
                        (g, [-offset; 2])
                    } else {
                        (g / 2, [[-offset, 0], [0, -offset]][g % 2])
                    };
                    start[v] = s.dot2(start[v], &x[v].sums[sums], offset);
                }
            }
            let mut weights = [&rows[0].as_chunks::<4>().0.as_chunks::<$quads>().0[g]; R];
            for r in 0..R {
                weights[r] = &rows[r].as_chunks::<4>().0.as_chunks::<$quads>().0[g];
            }
            s.dots::<Large<F>, $quads, R, V>(start, weights, q)
        }};
    }
    if F::GROUPS == 8 { dots!(8) } else { dots!(4) }
}
