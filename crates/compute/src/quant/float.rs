//! Floats as stored: F32, F16, BF16, little-endian, of alignment 1.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::{Block, one_block};
use crate::Format;

/// A stored F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Float(pub [u8; 4]);

/// A stored F16 (IEEE binary16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Half(pub [u8; 2]);

/// A stored BF16 (the upper half of an F32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct BFloat(pub [u8; 2]);

impl Float {
    /// The stored value.
    #[must_use]
    pub fn to_f32(self) -> f32 {
        f32::from_le_bytes(self.0)
    }
}

impl Half {
    /// The stored value, exact.
    #[must_use]
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }

    /// The nearest F16, ties to even; beyond the largest, infinity.
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        Self(f16::from_f32(value).to_le_bytes())
    }
}

impl BFloat {
    /// The stored value, exact.
    #[must_use]
    pub fn to_f32(self) -> f32 {
        bf16::from_le_bytes(self.0).to_f32()
    }

    /// The nearest BF16, ties to even; a NaN stays a NaN and becomes quiet.
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        Self(bf16::from_f32(value).to_le_bytes())
    }
}

impl Block for Float {
    const FORMAT: Format = Format::F32;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), 1);
        out[0] = self.to_f32();
    }

    fn quantize(values: &[f32]) -> Self {
        let &[value] = one_block(values);
        Self(value.to_le_bytes())
    }
}

impl Block for Half {
    const FORMAT: Format = Format::F16;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), 1);
        out[0] = self.to_f32();
    }

    fn quantize(values: &[f32]) -> Self {
        let &[value] = one_block(values);
        Self::from_f32(value)
    }
}

impl Block for BFloat {
    const FORMAT: Format = Format::BF16;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), 1);
        out[0] = self.to_f32();
    }

    fn quantize(values: &[f32]) -> Self {
        let &[value] = one_block(values);
        Self::from_f32(value)
    }
}
