//! Q4_K: 256 weights in 8 groups of 32; 4 bits a weight, 6 bits for each group's scale and minimum.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, K_BLOCK, nibbles};
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
}

/// Six-bit scales and minima of eight groups. Bytes 0..4 and 4..8 hold scales and minima of groups
/// 0..4 in their low six bits, and above those the top two bits of groups 4..8, whose low four bits
/// are the nibbles of bytes 8..12.
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
