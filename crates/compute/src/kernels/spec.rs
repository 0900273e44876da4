//! The canonical arithmetic of a dot product, written plainly: what `--isa scalar` runs, and what
//! every other kernel equals bit for bit.
//!
//! Inside a block, exact integers; across blocks, one chain of fused multiply-adds per output,
//! blocks ascending, from +0.0. See `docs/arithmetic.md`.

use super::quantized::QuantizedRow;
use crate::Format;
use crate::quant::{
    BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K,
    BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, blocks,
};

/// `Σ row · x` of one quantised weight row and one quantised activation row.
///
/// # Panics
/// If the lengths disagree, or the format is a float format (see [`super::rows_float`]).
pub(crate) fn dot(format: Format, row: &[u8], x: QuantizedRow<'_>) -> f32 {
    assert_eq!(row.len(), format.row_bytes(x.q.len()), "a row of {format}");
    match format {
        Format::Q8_0 => small(blocks::<BlockQ8_0>(row), x, |b| (b.qs, b.d.to_f32())),
        Format::Q4_0 => small(blocks::<BlockQ4_0>(row), x, |b| (b.unpack(), b.d.to_f32())),
        Format::Q5_0 => small(blocks::<BlockQ5_0>(row), x, |b| (b.unpack(), b.d.to_f32())),
        Format::IQ4_NL => small(blocks::<BlockIq4Nl>(row), x, |b| (b.unpack(), b.d.to_f32())),
        Format::MXFP4 => small(blocks::<BlockMxfp4>(row), x, |b| (b.unpack(), b.e.half())),
        Format::Q4_1 => small_with_minimum(blocks::<BlockQ4_1>(row), x, |b| {
            (b.unpack(), b.d.to_f32(), b.m.to_f32())
        }),
        Format::Q5_1 => small_with_minimum(blocks::<BlockQ5_1>(row), x, |b| {
            (b.unpack(), b.d.to_f32(), b.m.to_f32())
        }),
        Format::Q2_K => affine(blocks::<BlockQ2K>(row), x, |b| {
            (
                b.unpack(),
                b.scales_and_mins(),
                b.d.to_f32(),
                b.dmin.to_f32(),
            )
        }),
        Format::Q3_K => scaled(blocks::<BlockQ3K>(row), x, |b| {
            (b.unpack(), b.scales(), b.d.to_f32())
        }),
        Format::Q4_K => affine(blocks::<BlockQ4K>(row), x, |b| {
            (
                b.unpack(),
                b.scales_and_mins(),
                b.d.to_f32(),
                b.dmin.to_f32(),
            )
        }),
        Format::Q5_K => affine(blocks::<BlockQ5K>(row), x, |b| {
            (
                b.unpack(),
                b.scales_and_mins(),
                b.d.to_f32(),
                b.dmin.to_f32(),
            )
        }),
        Format::Q6_K => scaled(blocks::<BlockQ6K>(row), x, |b| {
            (b.unpack(), b.scales, b.d.to_f32())
        }),
        Format::IQ4_XS => scaled(blocks::<BlockIq4Xs>(row), x, |b| {
            (b.unpack(), b.scales(), b.d.to_f32())
        }),
        Format::F32 | Format::F16 | Format::BF16 => panic!("{format} is not a quant format"),
    }
}

/// `acc = fma(d_w · d_x, f32(Σ q·x), acc)` per block of 32.
fn small<B>(row: &[B], x: QuantizedRow<'_>, unpack: impl Fn(&B) -> ([i8; 32], f32)) -> f32 {
    let mut acc = 0.0_f32;
    for ((block, x), d_x) in row.iter().zip(x.q.chunks_exact(32)).zip(x.scales) {
        let (q, d_w) = unpack(block);
        let sum: i32 = q
            .iter()
            .zip(x)
            .map(|(q, x)| i32::from(*q) * i32::from(*x))
            .sum();
        acc = (d_w * d_x).mul_add(sum as f32, acc);
    }
    acc
}

/// The same, then `acc = fma(m_w · d_x, f32(Σ x), acc)`.
fn small_with_minimum<B>(
    row: &[B],
    x: QuantizedRow<'_>,
    unpack: impl Fn(&B) -> ([u8; 32], f32, f32),
) -> f32 {
    let mut acc = 0.0_f32;
    for ((block, x), d_x) in row.iter().zip(x.q.chunks_exact(32)).zip(x.scales) {
        let (q, d_w, m_w) = unpack(block);
        let sum: i32 = q
            .iter()
            .zip(x)
            .map(|(q, x)| i32::from(*q) * i32::from(*x))
            .sum();
        let sum_x: i32 = x.iter().map(|x| i32::from(*x)).sum();
        acc = (d_w * d_x).mul_add(sum as f32, acc);
        acc = (m_w * d_x).mul_add(sum_x as f32, acc);
    }
    acc
}

/// `S = Σ sc · Σ q·x` and `M = Σ m · Σ x` per block of 256 in groups, then
/// `acc = fma(d · d_x, f32(S), acc)` and `acc = fma(−(dmin · d_x), f32(M), acc)`.
fn affine<B, const GROUPS: usize>(
    row: &[B],
    x: QuantizedRow<'_>,
    unpack: impl Fn(&B) -> ([u8; 256], ([u8; GROUPS], [u8; GROUPS]), f32, f32),
) -> f32 {
    let mut acc = 0.0_f32;
    for ((block, x), d_x) in row.iter().zip(x.q.chunks_exact(256)).zip(x.scales) {
        let (q, (scales, mins), d, dmin) = unpack(block);
        let (mut products, mut minima) = (0_i32, 0_i32);
        let groups = q
            .chunks_exact(256 / GROUPS)
            .zip(x.chunks_exact(256 / GROUPS));
        for (g, (q, x)) in groups.enumerate() {
            let sum: i32 = q
                .iter()
                .zip(x)
                .map(|(q, x)| i32::from(*q) * i32::from(*x))
                .sum();
            let sum_x: i32 = x.iter().map(|x| i32::from(*x)).sum();
            products += i32::from(scales[g]) * sum;
            minima += i32::from(mins[g]) * sum_x;
        }
        acc = (d * d_x).mul_add(products as f32, acc);
        acc = (-(dmin * d_x)).mul_add(minima as f32, acc);
    }
    acc
}

/// `S = Σ sc · Σ q·x` per block of 256 in groups, `q` with its offset subtracted, then
/// `acc = fma(d · d_x, f32(S), acc)`.
fn scaled<B, const GROUPS: usize>(
    row: &[B],
    x: QuantizedRow<'_>,
    unpack: impl Fn(&B) -> ([i8; 256], [i8; GROUPS], f32),
) -> f32 {
    let mut acc = 0.0_f32;
    for ((block, x), d_x) in row.iter().zip(x.q.chunks_exact(256)).zip(x.scales) {
        let (q, scales, d) = unpack(block);
        let mut products = 0_i32;
        let groups = q
            .chunks_exact(256 / GROUPS)
            .zip(x.chunks_exact(256 / GROUPS));
        for ((q, x), scale) in groups.zip(scales) {
            let sum: i32 = q
                .iter()
                .zip(x)
                .map(|(q, x)| i32::from(*q) * i32::from(*x))
                .sum();
            products += i32::from(scale) * sum;
        }
        acc = (d * d_x).mul_add(products as f32, acc);
    }
    acc
}
