//! MXFP4: 32 weights, a power of two as the scale, 4-bit floats (E2M1).
//!
//! Source: OCP Microscaling Formats (MX) Specification 1.0, in GGUF's layout.

use bytemuck::{Pod, Zeroable};

use super::{Block, SMALL_BLOCK, nibbles, one_block, pack_nibbles, peak};
use crate::Format;

/// Twice the values that four bits stand for, sign bit first: exact in an `i8`.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// A stored power of two, E8M0: `2^(e − 127)`. Every byte is a number, as in the reference; the
/// specification's NaN, 255, is `2^128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Power(pub u8);

impl Power {
    /// Half of it, `2^(e − 128)`: always a finite F32, of which the two least are subnormal.
    #[must_use]
    pub const fn half(self) -> f32 {
        let e = self.0 as u32;
        f32::from_bits(if e < 2 {
            0x0020_0000 << e
        } else {
            (e - 1) << 23
        })
    }
}

/// Weight `i` is `e · value[i]`, computed as half of `e` times twice the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMxfp4 {
    /// Scale.
    pub e: Power,
    /// `[16]`: element `j` in the low nibble of byte `j`, element `j + 16` in the high one.
    pub qs: [u8; SMALL_BLOCK / 2],
}

impl BlockMxfp4 {
    /// Twice the values in element order, in `−12..=12`.
    #[must_use]
    pub fn unpack(&self) -> [i8; SMALL_BLOCK] {
        nibbles(&self.qs).map(|q: u8| DOUBLED[usize::from(q)])
    }
}

impl Block for BlockMxfp4 {
    const FORMAT: Format = Format::MXFP4;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), SMALL_BLOCK);
        let d = self.e.half();
        for (out, q) in out.iter_mut().zip(self.unpack()) {
            *out = d * f32::from(q);
        }
    }

    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; SMALL_BLOCK] = one_block(values);
        let e = exponent(peak(values).abs());
        let levels = DOUBLED.map(|level| e.half() * f32::from(level));
        let qs = values.map(|value| nearest(&levels, value));
        Self {
            e,
            qs: pack_nibbles(&qs),
        }
    }
}

/// The exponent of the largest power of two up to `magnitude`, less the 2 of the largest value, which
/// is 6. By the rounded logarithm, as the reference has it, which is one too large just below a power
/// of two; and modulo 256 where there is no such exponent.
fn exponent(magnitude: f32) -> Power {
    if magnitude > 0.0 {
        let logarithm = libm::log2(f64::from(magnitude)) as f32;
        Power((logarithm.floor() - 2.0 + 127.0) as i32 as u8)
    } else {
        Power(0)
    }
}

/// The first of the nearest levels.
fn nearest(levels: &[f32; 16], value: f32) -> u8 {
    let (mut best, mut least) = (0, (levels[0] - value).abs());
    for (level, name) in levels.iter().zip(0..) {
        let error = (level - value).abs();
        if error < least {
            (best, least) = (name, error);
        }
    }
    best
}
