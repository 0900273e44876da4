//! Q4_1: 32 weights, a scale and a minimum, 4 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, SMALL_BLOCK, nibbles, one_block, pack_nibbles, range, reciprocal};
use crate::Format;

/// Weight `i` is `d · q[i] + m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "the format's own name")]
pub struct BlockQ4_1 {
    /// Scale.
    pub d: Half,
    /// Minimum, added.
    pub m: Half,
    /// `[16]`: element `j` in the low nibble of byte `j`, element `j + 16` in the high one.
    pub qs: [u8; SMALL_BLOCK / 2],
}

impl BlockQ4_1 {
    /// `q` in element order, in `0..=15`.
    #[must_use]
    pub fn unpack(&self) -> [u8; SMALL_BLOCK] {
        nibbles(&self.qs)
    }
}

impl Block for BlockQ4_1 {
    const FORMAT: Format = Format::Q4_1;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), SMALL_BLOCK);
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (out, q) in out.iter_mut().zip(self.unpack()) {
            *out = d * f32::from(q) + m;
        }
    }

    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; SMALL_BLOCK] = one_block(values);
        let (min, max) = range(values);
        let d = (max - min) / 15.0;
        let inverse = reciprocal(d);
        let qs = values.map(|value| (((value - min) * inverse + 0.5) as u8).min(15));
        Self {
            d: Half::from_f32(d),
            m: Half::from_f32(min),
            qs: pack_nibbles(&qs),
        }
    }
}
