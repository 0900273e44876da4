//! IQ4_XS: 256 weights in 8 groups of 32; the levels of IQ4_NL, 6 bits for each group's scale.

use bytemuck::{Pod, Zeroable};

use super::iq4_nl::{fit, levels, pack};
use super::search::nearest;
use super::{Block, Half, K_BLOCK, SMALL_BLOCK, one_block, peak, reciprocal};
use crate::Format;

/// Groups of a block.
const GROUPS: usize = 8;

/// Weight `i` of group `g = i / 32` is `d · scale[g] · LEVELS[q[i]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs {
    /// Scale of the groups' scales.
    pub d: Half,
    /// Top two bits of the scales, little-endian: bits `2 g ..` are group `g`'s.
    pub scales_h: [u8; 2],
    /// Low nibbles of the scales: group `2 j` in the low nibble of byte `j`, `2 j + 1` in the high one.
    pub scales_l: [u8; GROUPS / 2],
    /// `[8, 16]`: of group `g`, element `j` in the low nibble of byte `j`, `j + 16` in the high one.
    pub qs: [[u8; 16]; GROUPS],
}

impl BlockIq4Xs {
    /// `[8]` scales of the groups, each in `-32..=31`.
    #[must_use]
    #[inline(always)]
    pub fn scales(&self) -> [i8; GROUPS] {
        let high = u16::from_le_bytes(self.scales_h);
        let mut scales = [0; GROUPS];
        let mut g = 0;
        while g < GROUPS {
            let low = self.scales_l[g / 2] >> (4 * (g % 2)) & 15;
            let top = (high >> (2 * g)) as u8 & 3;
            scales[g] = (low | top << 4) as i8 - 32;
            g += 1;
        }
        scales
    }

    /// How the scales are stored: both fields, side by side.
    #[inline(always)]
    pub(crate) fn packed_scales(&self) -> [[u8; 4]; 2] {
        [[self.scales_h[0], self.scales_h[1], 0, 0], self.scales_l]
    }

    /// The levels in element order.
    #[must_use]
    pub fn unpack(&self) -> [i8; K_BLOCK] {
        bytemuck::cast(self.qs.map(|qs| levels(&qs)))
    }
}

impl Block for BlockIq4Xs {
    const FORMAT: Format = Format::IQ4_XS;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), K_BLOCK);
        let d = self.d.to_f32();
        let groups = out.chunks_exact_mut(SMALL_BLOCK).zip(&self.qs);
        for ((out, qs), scale) in groups.zip(self.scales()) {
            let scale = d * f32::from(scale);
            for (out, q) in out.iter_mut().zip(levels(qs)) {
                *out = scale * f32::from(q);
            }
        }
    }

    /// Fits each group, rounds the scales to six bits, then names levels anew with those.
    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; K_BLOCK] = one_block(values);
        let groups: &[[f32; SMALL_BLOCK]; GROUPS] = bytemuck::cast_ref(values);
        let fits = groups.map(|group| fit(&group));
        let d = -peak(&fits) / 32.0;
        let inverse = reciprocal(d);
        let mut block = Self {
            d: Half::from_f32(d),
            ..Self::zeroed()
        };
        let mut high = 0;
        for (g, (group, fit)) in groups.iter().zip(fits).enumerate() {
            let scale = nearest(inverse * fit).clamp(-32, 31);
            block.qs[g] = pack(group, reciprocal(d * scale as f32));
            let scale = (scale + 32) as u8;
            block.scales_l[g / 2] |= (scale & 15) << (4 * (g % 2));
            high |= u16::from(scale >> 4) << (2 * g);
        }
        block.scales_h = high.to_le_bytes();
        block
    }
}
