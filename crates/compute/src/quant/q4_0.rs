//! Q4_0: 32 weights, one scale, 4 bits each around 8.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, SMALL_BLOCK, nibbles, one_block, pack_nibbles, peak, reciprocal};
use crate::Format;

/// Weight `i` is `d · (q[i] − 8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "the format's own name")]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: Half,
    /// `[16]`: element `j` in the low nibble of byte `j`, element `j + 16` in the high one.
    pub qs: [u8; SMALL_BLOCK / 2],
}

impl BlockQ4_0 {
    /// `q − 8` in element order, in `−8..=7`.
    #[must_use]
    pub fn unpack(&self) -> [i8; SMALL_BLOCK] {
        nibbles(&self.qs).map(|q: u8| q as i8 - 8)
    }
}

impl Block for BlockQ4_0 {
    const FORMAT: Format = Format::Q4_0;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), SMALL_BLOCK);
        let d = self.d.to_f32();
        for (out, q) in out.iter_mut().zip(self.unpack()) {
            *out = d * f32::from(q);
        }
    }

    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; SMALL_BLOCK] = one_block(values);
        let d = peak(values) / -8.0;
        let inverse = reciprocal(d);
        let qs = values.map(|value| ((value * inverse + 8.5) as u8).min(15));
        Self {
            d: Half::from_f32(d),
            qs: pack_nibbles(&qs),
        }
    }
}
