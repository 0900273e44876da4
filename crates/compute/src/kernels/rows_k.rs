//! Four weight rows of a K format times a few tokens: a block of 256 is unpacked once and
//! multiplied with every token.

use super::formats_k::KFormat;
use super::matmul::{four_blocks, prefetch};
use super::quantized::QuantizedRow;
use crate::simd::KLanes;

/// `[T][4]` dot products of four rows with `T` tokens.
#[inline(always)]
pub(super) fn four_rows<F: KFormat, S: KLanes<N>, const N: usize, const T: usize>(
    s: S,
    rows: [&[u8]; 4],
    x: [QuantizedRow<'_>; T],
) -> [[f32; 4]; T] {
    let rows = four_blocks::<F>(rows);
    let mut acc = [s.rows_splat(0.0); T];
    for b in 0..rows[0].len() {
        let block = [&rows[0][b], &rows[1][b], &rows[2][b], &rows[3][b]];
        let common = F::common(s, block);
        let mut dots = [[s.no_dots(); 4]; T];
        for r in 0..4 {
            prefetch(s, bytemuck::bytes_of(block[r]));
            let (weights, scales) = (block[r].vectors(s), block[r].vector_scales(s, common, r));
            for t in 0..T {
                let q = F::activations(s, &x[t].q.as_chunks().0[b]);
                let x = (q, &x[t].sums.as_chunks().0[b]);
                dots[t][r] = block[r].dots(s, (weights, scales), x);
            }
        }
        for t in 0..T {
            let products = s.rows_to_floats(s.total(dots[t]));
            let sums = x[t].sums.as_chunks().0[b];
            let d_x = s.rows_splat(x[t].scales[b]);
            acc[t] = F::rows_chain(s, (block, common), (d_x, products, &sums), acc[t]);
        }
    }
    let mut out = [[0.0; 4]; T];
    for t in 0..T {
        out[t] = s.rows_array(acc[t]);
    }
    out
}
