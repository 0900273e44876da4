//! Quant block formats: layouts, dequantisation, quantisation.
//!
//! One file for each format. A block is plain bytes of alignment 1, so weights are read where the
//! file put them; `unpack` gives its integers in element order, and that is what the scalar
//! specification of a dot product multiplies.
//!
//! Layouts: GGUF, as defined by ggml's block structs (`ggml-common.h`) and by the `gguf` Python
//! package (`gguf/quants.py`).

mod float;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use crate::Format;

pub use float::{BFloat, Float, Half};
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
        Format::Q4_K => each::<BlockQ4K>(bytes, out),
        Format::Q5_K => each::<BlockQ5K>(bytes, out),
        Format::Q6_K => each::<BlockQ6K>(bytes, out),
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
