//! Q5_1: 32 weights, a scale and a minimum, 5 bits each.

use bytemuck::{Pod, Zeroable};

use super::q5_0::{five_bits, pack_five_bits};
use super::{Block, Half, SMALL_BLOCK, one_block, range, reciprocal};
use crate::Format;

/// Weight `i` is `d · q[i] + m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "the format's own name")]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: Half,
    /// Minimum, added.
    pub m: Half,
    /// Fifth bits, little-endian: bit `i` belongs to element `i`.
    pub qh: [u8; 4],
    /// `[16]`: element `j` in the low nibble of byte `j`, element `j + 16` in the high one.
    pub qs: [u8; SMALL_BLOCK / 2],
}

impl BlockQ5_1 {
    /// `q` in element order, in `0..=31`.
    #[must_use]
    pub fn unpack(&self) -> [u8; SMALL_BLOCK] {
        five_bits(self.qh, &self.qs)
    }
}

impl Block for BlockQ5_1 {
    const FORMAT: Format = Format::Q5_1;

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
        let d = (max - min) / 31.0;
        let inverse = reciprocal(d);
        let (qh, qs) = pack_five_bits(&values.map(|value| ((value - min) * inverse + 0.5) as u8));
        Self {
            d: Half::from_f32(d),
            m: Half::from_f32(min),
            qh,
            qs,
        }
    }
}
