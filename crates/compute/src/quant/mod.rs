//! Quant block formats: layouts, dequantisation, quantisation.
//!
//! One file for each format. A block is plain bytes of alignment 1, so weights are read where the
//! file put them; `unpack` gives its integers in element order, and that is what the scalar
//! specification of a dot product multiplies.
//!
//! Layouts: GGUF, as defined by ggml's block structs (`ggml-common.h`) and by the `gguf` Python
//! package (`gguf/quants.py`).

mod float;
pub(crate) mod iq4_nl;
mod iq4_xs;
pub(crate) mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;

use crate::Format;

pub use float::{BFloat, Float, Half};
pub use iq4_nl::BlockIq4Nl;
pub use iq4_xs::BlockIq4Xs;
pub use mxfp4::{BlockMxfp4, Power};
pub use q2_k::BlockQ2K;
pub use q3_k::BlockQ3K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;

/// Weights in a block of the small formats.
pub const SMALL_BLOCK: usize = 32;
/// Weights in a block of the K formats.
pub const K_BLOCK: usize = 256;

/// A block as it lies in memory: consecutive weights of one row.
pub trait Block: bytemuck::Pod {
    /// The format this is a block of; `block_bytes` is the size of `Self`.
    const FORMAT: Format;

    /// The weights the block stands for, `out: [block_weights]`.
    ///
    /// # Panics
    /// If `out` is not one block long.
    fn dequantize(&self, out: &mut [f32]);

    /// The block nearest to `values: [block_weights]` by the format's reference rule.
    ///
    /// # Panics
    /// If `values` is not one block long.
    fn quantize(values: &[f32]) -> Self;
}

/// Bytes as blocks.
///
/// # Panics
/// If the bytes are not whole blocks.
#[must_use]
pub fn blocks<B: Block>(bytes: &[u8]) -> &[B] {
    const { assert!(size_of::<B>() == B::FORMAT.block_bytes()) };
    const { assert!(align_of::<B>() == 1) };
    bytemuck::cast_slice(bytes)
}

/// The weights that `bytes` stand for: `out[i]` is weight `i`.
///
/// Equal to the reference (`gguf.quants.dequantize`) bit for bit: products and sums are rounded
/// one by one, in F32, never fused.
///
/// # Panics
/// If `out` is not whole blocks of `format`, or `bytes` is not exactly those blocks.
pub fn dequantize(format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        bytes.len(),
        format.row_bytes(out.len()),
        "bytes of {} {format} weights",
        out.len()
    );
    match format {
        Format::F32 => each::<Float>(bytes, out),
        Format::F16 => each::<Half>(bytes, out),
        Format::BF16 => each::<BFloat>(bytes, out),
        Format::Q8_0 => each::<BlockQ8_0>(bytes, out),
        Format::Q4_0 => each::<BlockQ4_0>(bytes, out),
        Format::Q4_1 => each::<BlockQ4_1>(bytes, out),
        Format::Q5_0 => each::<BlockQ5_0>(bytes, out),
        Format::Q5_1 => each::<BlockQ5_1>(bytes, out),
        Format::IQ4_NL => each::<BlockIq4Nl>(bytes, out),
        Format::MXFP4 => each::<BlockMxfp4>(bytes, out),
        Format::Q2_K => each::<BlockQ2K>(bytes, out),
        Format::Q3_K => each::<BlockQ3K>(bytes, out),
        Format::Q4_K => each::<BlockQ4K>(bytes, out),
        Format::Q5_K => each::<BlockQ5K>(bytes, out),
        Format::Q6_K => each::<BlockQ6K>(bytes, out),
        Format::IQ4_XS => each::<BlockIq4Xs>(bytes, out),
    }
}

/// Stores `values` in `format`, block after block, into `out`.
///
/// Equal bit for bit to the reference where that is defined: floats and the 32-weight formats to
/// `gguf.quants.quantize`; the K formats to ggml's `quantize_row_*_K_ref`, IQ4_NL and IQ4_XS to its
/// `quantize_iq4_nl` and `quantize_iq4_xs` without an importance matrix, compiled without fused
/// multiply-add. Beyond that:
/// - a scale too small for its reciprocal to be finite counts as zero (the stored F16 is zero too);
/// - a scale beyond the largest F16 is stored as infinity, as in the reference;
/// - an infinity or a NaN among the values spoils its own block, never another: that block's
///   content is some function of its values alone.
///
/// # Panics
/// If `values` is not whole blocks of `format`, or `out` is not exactly those blocks.
pub fn quantize(format: Format, values: &[f32], out: &mut [u8]) {
    assert_eq!(
        out.len(),
        format.row_bytes(values.len()),
        "bytes of {} {format}",
        values.len()
    );
    match format {
        Format::F32 => store::<Float>(values, out),
        Format::F16 => store::<Half>(values, out),
        Format::BF16 => store::<BFloat>(values, out),
        Format::Q8_0 => store::<BlockQ8_0>(values, out),
        Format::Q4_0 => store::<BlockQ4_0>(values, out),
        Format::Q4_1 => store::<BlockQ4_1>(values, out),
        Format::Q5_0 => store::<BlockQ5_0>(values, out),
        Format::Q5_1 => store::<BlockQ5_1>(values, out),
        Format::IQ4_NL => store::<BlockIq4Nl>(values, out),
        Format::MXFP4 => store::<BlockMxfp4>(values, out),
        Format::Q2_K => store::<BlockQ2K>(values, out),
        Format::Q3_K => store::<BlockQ3K>(values, out),
        Format::Q4_K => store::<BlockQ4K>(values, out),
        Format::Q5_K => store::<BlockQ5K>(values, out),
        Format::Q6_K => store::<BlockQ6K>(values, out),
        Format::IQ4_XS => store::<BlockIq4Xs>(values, out),
    }
}

fn store<B: Block>(values: &[f32], out: &mut [u8]) {
    let blocks: &mut [B] = bytemuck::cast_slice_mut(out);
    for (block, values) in blocks
        .iter_mut()
        .zip(values.chunks_exact(B::FORMAT.block_weights()))
    {
        *block = B::quantize(values);
    }
}

fn each<B: Block>(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in blocks::<B>(bytes)
        .iter()
        .zip(out.chunks_exact_mut(B::FORMAT.block_weights()))
    {
        block.dequantize(out);
    }
}

/// The low, then the high nibbles of consecutive bytes: element `j` and element `j + N` share byte
/// `j`.
fn nibbles<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const { assert!(M == 2 * N) };
    std::array::from_fn(|i| {
        if i < N {
            bytes[i] & 15
        } else {
            bytes[i - N] >> 4
        }
    })
}

/// Inverse of [`nibbles`], of values up to 15.
fn pack_nibbles<const N: usize, const M: usize>(values: &[u8; N]) -> [u8; M] {
    const { assert!(N == 2 * M) };
    std::array::from_fn(|j| values[j] | values[j + M] << 4)
}

/// The first value of largest magnitude.
fn peak(values: &[f32]) -> f32 {
    let mut peak = 0.0_f32;
    for &value in values {
        if value.abs() > peak.abs() {
            peak = value;
        }
    }
    peak
}

/// Smallest and largest value.
fn range(values: &[f32]) -> (f32, f32) {
    values
        .iter()
        .fold((f32::MAX, f32::MIN), |(min, max), &value| {
            (
                if value < min { value } else { min },
                if value > max { value } else { max },
            )
        })
}

/// `1 / scale`, or 0 where that is not finite.
fn reciprocal(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// One block of values.
fn one_block<const N: usize>(values: &[f32]) -> &[f32; N] {
    values.try_into().expect("one block of values")
}
