//! Q2_K: 256 weights in 16 groups of 16; 2 bits a weight, 4 bits for each group's scale and minimum.

use bytemuck::{Pod, Zeroable};

use super::search::{Candidates, Error, fit_affine, lanes, nearest};
use super::{Block, Half, K_BLOCK};
use crate::Format;

/// Groups of a block.
const GROUPS: usize = 16;

/// Weight `i` of group `g = i / 16` is `d · scale[g] · q[i] − dmin · min[g]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// `[16]`: group `g`'s scale in the low nibble of byte `g`, its minimum in the high one.
    pub scales: [u8; GROUPS],
    /// `[64]`; for each half of the block (128 elements, bytes `32 h ..`), in rows of 32 elements:
    /// bits `2 r ..` of byte `j` are element `j` of row `r`.
    pub qs: [u8; K_BLOCK / 4],
    /// Scale of the groups' scales.
    pub d: Half,
    /// Scale of the groups' minima, subtracted.
    pub dmin: Half,
}

impl BlockQ2K {
    /// `[16]` scales and `[16]` minima of the groups, each in `0..=15`.
    #[must_use]
    pub fn scales_and_mins(&self) -> ([u8; GROUPS], [u8; GROUPS]) {
        (
            self.scales.map(|byte| byte & 15),
            self.scales.map(|byte| byte >> 4),
        )
    }

    /// `q` in element order, in `0..=3`.
    #[must_use]
    pub fn unpack(&self) -> [u8; K_BLOCK] {
        two_bits(&self.qs)
    }
}

impl Block for BlockQ2K {
    const FORMAT: Format = Format::Q2_K;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), K_BLOCK);
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, mins) = self.scales_and_mins();
        let unpacked = self.unpack();
        let groups = out.chunks_exact_mut(16).zip(unpacked.chunks_exact(16));
        for (g, (out, qs)) in groups.enumerate() {
            let scale = d * f32::from(scales[g]);
            let min = dmin * f32::from(mins[g]);
            for (out, &q) in out.iter_mut().zip(qs) {
                *out = scale * f32::from(q) - min;
            }
        }
    }

    /// Fits each group, rounds the scales and minima to four bits, then rounds each value anew with
    /// what is really stored. A group whose stored scale is zero keeps the fit's levels.
    fn quantize(values: &[f32]) -> Self {
        let candidates = Candidates {
            largest: 3,
            first: -0.5,
            last_step: 15,
            error: Error::Absolute,
        };
        let fit = fit_affine::<GROUPS, 16>(&lanes(values), candidates);
        let larger = |max: f32, value: f32| if value > max { value } else { max };
        let max_scale = fit.scale.iter().fold(0.0, |max, &scale| larger(max, scale));
        let max_min = fit.min.iter().fold(0.0, |max, &min| larger(max, -min));
        let four_bits = |max: f32, value: f32| {
            let inverse = if max > 0.0 { 15.0 / max } else { 0.0 };
            nearest(inverse * value) as u8
        };
        let mut block = Self {
            d: Half::from_f32(max_scale / 15.0),
            dmin: Half::from_f32(max_min / 15.0),
            ..Self::zeroed()
        };
        for (g, scale) in block.scales.iter_mut().enumerate() {
            *scale = four_bits(max_scale, fit.scale[g]) | four_bits(max_min, -fit.min[g]) << 4;
        }
        let (scales, mins) = block.scales_and_mins();
        let mut levels = [0; K_BLOCK];
        let groups = levels.chunks_exact_mut(16).zip(values.chunks_exact(16));
        for (g, (levels, values)) in groups.enumerate() {
            let scale = block.d.to_f32() * f32::from(scales[g]);
            let min = block.dmin.to_f32() * f32::from(mins[g]);
            for (i, (level, value)) in levels.iter_mut().zip(values).enumerate() {
                *level = if scale == 0.0 {
                    fit.levels[i][g] as u8
                } else {
                    nearest((value + min) / scale).clamp(0, 3) as u8
                };
            }
        }
        block.qs = pack_two_bits(&levels);
        block
    }
}

/// Bits in element order, from the layout of [`BlockQ2K::qs`].
pub(super) fn two_bits(qs: &[u8; K_BLOCK / 4]) -> [u8; K_BLOCK] {
    std::array::from_fn(|i| qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3)
}

/// Inverse of [`two_bits`].
pub(super) fn pack_two_bits(levels: &[u8; K_BLOCK]) -> [u8; K_BLOCK / 4] {
    std::array::from_fn(|i| {
        let first = i / 32 * 128 + i % 32;
        levels[first] | levels[first + 32] << 2 | levels[first + 64] << 4 | levels[first + 96] << 6
    })
}
