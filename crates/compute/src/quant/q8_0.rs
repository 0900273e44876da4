//! Q8_0: 32 weights, one scale, 8 bits each.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, SMALL_BLOCK};
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
}
