//! Q4_K: 256 weights in 8 groups of 32; 4 bits a weight, 6 bits for each group's scale and minimum.

use bytemuck::{Pod, Zeroable};

use super::search::{Candidates, Error, fit_affine, lanes, nearest};
use super::{Block, Half, K_BLOCK, nibbles, pack_nibbles};
use crate::Format;

/// Groups of 32 in a block of Q4_K or Q5_K.
pub(super) const GROUPS: usize = 8;

/// Weight `i` of group `g = i / 32` is `d · scale[g] · q[i] − dmin · min[g]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the groups' scales.
    pub d: Half,
    /// Scale of the groups' minima, subtracted.
    pub dmin: Half,
    /// Scales and minima, 6 bits each; see [`Self::scales_and_mins`].
    pub scales: [u8; 12],
    /// `[128]`: bytes `32 j ..` hold group `2 j` in their low nibbles, `2 j + 1` in their high ones.
    pub qs: [u8; K_BLOCK / 2],
}

impl BlockQ4K {
    /// The bytes before the integers: d, dmin, and the packed scales and minima.
    #[inline(always)]
    pub(crate) fn header(&self) -> &[u8; 16] {
        bytemuck::bytes_of(self)
            .first_chunk()
            .expect("a block is longer")
    }

    /// `[8]` scales and `[8]` minima of the groups, each in `0..=63`.
    #[must_use]
    pub fn scales_and_mins(&self) -> ([u8; GROUPS], [u8; GROUPS]) {
        scales_and_mins(&self.scales)
    }

    /// `q` in element order, in `0..=15`.
    #[must_use]
    pub fn unpack(&self) -> [u8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        let (bytes, _) = self.qs.as_chunks::<32>();
        let (pairs, _) = out.as_chunks_mut::<64>();
        for (pair, bytes) in pairs.iter_mut().zip(bytes) {
            *pair = nibbles(bytes);
        }
        out
    }
}

impl Block for BlockQ4K {
    const FORMAT: Format = Format::Q4_K;

    fn dequantize(&self, out: &mut [f32]) {
        let coefficients = (self.d.to_f32(), self.dmin.to_f32(), self.scales_and_mins());
        dequantize_groups(coefficients, &self.unpack(), out);
    }

    fn quantize(values: &[f32]) -> Self {
        let candidates = Candidates {
            largest: 15,
            first: -1.0,
            last_step: 20,
            error: Error::Squared,
        };
        let GroupLevels {
            d,
            dmin,
            scales,
            levels,
        } = GroupLevels::of(values, candidates);
        let mut qs = [0; K_BLOCK / 2];
        let (pairs, _) = levels.as_chunks::<64>();
        let (bytes, _) = qs.as_chunks_mut::<32>();
        for (bytes, pair) in bytes.iter_mut().zip(pairs) {
            *bytes = pack_nibbles(pair);
        }
        Self {
            d,
            dmin,
            scales,
            qs,
        }
    }
}

/// Six-bit scales and minima of eight groups. Bytes 0..4 and 4..8 hold scales and minima of groups
/// 0..4 in their low six bits, and above those the top two bits of groups 4..8, whose low four bits
/// are the nibbles of bytes 8..12.
#[inline]
pub(super) fn scales_and_mins(packed: &[u8; 12]) -> ([u8; GROUPS], [u8; GROUPS]) {
    let mut scales = [0; GROUPS];
    let mut mins = [0; GROUPS];
    for g in 0..4 {
        scales[g] = packed[g] & 63;
        mins[g] = packed[g + 4] & 63;
        scales[g + 4] = packed[g + 8] & 15 | packed[g] >> 6 << 4;
        mins[g + 4] = packed[g + 8] >> 4 | packed[g + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// Weights of a Q4_K or Q5_K block from `(d, dmin, (scales, mins))` and its integers.
pub(super) fn dequantize_groups(
    (d, dmin, (scales, mins)): (f32, f32, ([u8; GROUPS], [u8; GROUPS])),
    qs: &[u8; K_BLOCK],
    out: &mut [f32],
) {
    assert_eq!(out.len(), K_BLOCK);
    for (g, (out, qs)) in out
        .chunks_exact_mut(32)
        .zip(qs.chunks_exact(32))
        .enumerate()
    {
        let scale = d * f32::from(scales[g]);
        let min = dmin * f32::from(mins[g]);
        for (out, &q) in out.iter_mut().zip(qs) {
            *out = scale * f32::from(q) - min;
        }
    }
}

/// Inverse of [`scales_and_mins`].
fn pack_scales_and_mins(scales: &[u8; GROUPS], mins: &[u8; GROUPS]) -> [u8; 12] {
    let mut packed = [0; 12];
    for g in 0..4 {
        packed[g] = scales[g] | scales[g + 4] >> 4 << 6;
        packed[g + 4] = mins[g] | mins[g + 4] >> 4 << 6;
        packed[g + 8] = scales[g + 4] & 15 | mins[g + 4] << 4;
    }
    packed
}

/// A quantised Q4_K or Q5_K block before its levels are packed.
pub(super) struct GroupLevels {
    pub(super) d: Half,
    pub(super) dmin: Half,
    pub(super) scales: [u8; 12],
    /// In element order.
    pub(super) levels: [u8; K_BLOCK],
}

impl GroupLevels {
    /// Fits each group, rounds the scales and minima to six bits, then rounds each value anew with
    /// what is really stored. A group whose stored scale is zero keeps the fit's levels.
    pub(super) fn of(values: &[f32], candidates: Candidates) -> Self {
        let fit = fit_affine::<GROUPS, 32>(&lanes(values), candidates);
        let max_scale = fit
            .scale
            .iter()
            .fold(0.0, |max, &scale| if scale > max { scale } else { max });
        let max_min = fit
            .min
            .iter()
            .fold(0.0, |max, &min| if -min > max { -min } else { max });
        let six_bits = |max: f32, value: f32| {
            let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
            (nearest(inverse * value) as u8).min(63)
        };
        let scales = fit.scale.map(|scale| six_bits(max_scale, scale));
        let mins = fit.min.map(|min| six_bits(max_min, -min));
        let (d, dmin) = (
            Half::from_f32(max_scale / 63.0),
            Half::from_f32(max_min / 63.0),
        );

        let mut levels = [0; K_BLOCK];
        let groups = levels.chunks_exact_mut(32).zip(values.chunks_exact(32));
        for (g, (levels, values)) in groups.enumerate() {
            let scale = d.to_f32() * f32::from(scales[g]);
            let min = dmin.to_f32() * f32::from(mins[g]);
            for (i, (level, value)) in levels.iter_mut().zip(values).enumerate() {
                *level = if scale == 0.0 {
                    fit.levels[i][g] as u8
                } else {
                    nearest((value + min) / scale).clamp(0, candidates.largest) as u8
                };
            }
        }
        Self {
            d,
            dmin,
            scales: pack_scales_and_mins(&scales, &mins),
            levels,
        }
    }
}
