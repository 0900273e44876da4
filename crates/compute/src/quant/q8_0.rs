//! Q8_0: 32 weights, one scale, 8 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, SMALL_BLOCK, one_block, peak, reciprocal};
use crate::Format;

/// Weight `i` is `d · qs[i]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "the format's own name")]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: Half,
    /// `[32]`, in element order.
    pub qs: [i8; SMALL_BLOCK],
}

impl Block for BlockQ8_0 {
    const FORMAT: Format = Format::Q8_0;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), SMALL_BLOCK);
        let d = self.d.to_f32();
        for (out, q) in out.iter_mut().zip(self.qs) {
            *out = d * f32::from(q);
        }
    }

    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; SMALL_BLOCK] = one_block(values);
        let d = peak(values).abs() / 127.0;
        let inverse = reciprocal(d);
        Self {
            d: Half::from_f32(d),
            qs: values.map(|value| round_half_away(value * inverse)),
        }
    }
}

/// The nearest integer, halves away from zero, of magnitudes that fit an `i8`.
fn round_half_away(value: f32) -> i8 {
    let magnitude = value.abs();
    let whole = magnitude as i32;
    let rounded = whole + i32::from(magnitude - whole as f32 >= 0.5);
    (if value < 0.0 { -rounded } else { rounded }) as i8
}
