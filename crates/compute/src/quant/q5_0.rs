//! Q5_0: 32 weights, one scale, 5 bits each around 16.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, SMALL_BLOCK, nibbles, one_block, pack_nibbles, peak, reciprocal};
use crate::Format;

/// Weight `i` is `d · (q[i] − 16)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "the format's own name")]
pub struct BlockQ5_0 {
    /// Scale.
    pub d: Half,
    /// Fifth bits, little-endian: bit `i` belongs to element `i`.
    pub qh: [u8; 4],
    /// `[16]`: element `j` in the low nibble of byte `j`, element `j + 16` in the high one.
    pub qs: [u8; SMALL_BLOCK / 2],
}

impl BlockQ5_0 {
    /// `q − 16` in element order, in `−16..=15`.
    #[must_use]
    pub fn unpack(&self) -> [i8; SMALL_BLOCK] {
        five_bits(self.qh, &self.qs).map(|q| q as i8 - 16)
    }
}

impl Block for BlockQ5_0 {
    const FORMAT: Format = Format::Q5_0;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), SMALL_BLOCK);
        let d = self.d.to_f32();
        for (out, q) in out.iter_mut().zip(self.unpack()) {
            *out = d * f32::from(q);
        }
    }

    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; SMALL_BLOCK] = one_block(values);
        let d = peak(values) / -16.0;
        let inverse = reciprocal(d);
        let (qh, qs) = pack_five_bits(&values.map(|value| (value * inverse + 16.5) as u8));
        Self {
            d: Half::from_f32(d),
            qh,
            qs,
        }
    }
}

/// Five-bit values from their fifth bits and nibbles, in element order, in `0..=31`.
pub(super) fn five_bits(qh: [u8; 4], qs: &[u8; SMALL_BLOCK / 2]) -> [u8; SMALL_BLOCK] {
    let high = u32::from_le_bytes(qh);
    let low: [u8; SMALL_BLOCK] = nibbles(qs);
    std::array::from_fn(|i| low[i] | ((high >> i & 1) << 4) as u8)
}

/// Inverse of [`five_bits`]; values beyond 31 count as 31.
pub(super) fn pack_five_bits(values: &[u8; SMALL_BLOCK]) -> ([u8; 4], [u8; SMALL_BLOCK / 2]) {
    let values = values.map(|value| value.min(31));
    let high = values
        .iter()
        .rev()
        .fold(0_u32, |bits, value| bits << 1 | u32::from(value >> 4));
    (
        high.to_le_bytes(),
        pack_nibbles(&values.map(|value| value & 15)),
    )
}
