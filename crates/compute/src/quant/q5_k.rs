//! Q5_K: Q4_K with a fifth bit for each weight.

use bytemuck::{Pod, Zeroable};

use super::q4_k::{GROUPS, GroupLevels, dequantize_groups, scales_and_mins};
use super::search::{Candidates, Error};
use super::{Block, Half, K_BLOCK, nibbles, pack_nibbles};
use crate::Format;

/// Weight `i` of group `g = i / 32` is `d · scale[g] · q[i] − dmin · min[g]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the groups' scales.
    pub d: Half,
    /// Scale of the groups' minima, subtracted.
    pub dmin: Half,
    /// Scales and minima, 6 bits each; see [`Self::scales_and_mins`].
    pub scales: [u8; 12],
    /// `[32]`: bit `g` of byte `j` is the fifth bit of element `j` of group `g`.
    pub qh: [u8; K_BLOCK / 8],
    /// `[128]`: bytes `32 j ..` hold group `2 j` in their low nibbles, `2 j + 1` in their high ones.
    pub qs: [u8; K_BLOCK / 2],
}

impl BlockQ5K {
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

    /// `q` in element order, in `0..=31`.
    #[must_use]
    pub fn unpack(&self) -> [u8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        let (bytes, _) = self.qs.as_chunks::<32>();
        let (pairs, _) = out.as_chunks_mut::<64>();
        for (pair, bytes) in pairs.iter_mut().zip(bytes) {
            *pair = nibbles(bytes);
        }
        for (g, group) in out.chunks_exact_mut(32).enumerate() {
            for (q, high) in group.iter_mut().zip(self.qh) {
                *q |= (high >> g & 1) << 4;
            }
        }
        out
    }
}

impl Block for BlockQ5K {
    const FORMAT: Format = Format::Q5_K;

    fn dequantize(&self, out: &mut [f32]) {
        let coefficients = (self.d.to_f32(), self.dmin.to_f32(), self.scales_and_mins());
        dequantize_groups(coefficients, &self.unpack(), out);
    }

    fn quantize(values: &[f32]) -> Self {
        let candidates = Candidates {
            largest: 31,
            first: -0.5,
            last_step: 15,
            error: Error::Squared,
        };
        let GroupLevels {
            d,
            dmin,
            scales,
            levels,
        } = GroupLevels::of(values, candidates);
        let mut qh = [0; K_BLOCK / 8];
        for (g, group) in levels.chunks_exact(32).enumerate() {
            for (bits, level) in qh.iter_mut().zip(group) {
                *bits |= (level >> 4) << g;
            }
        }
        let mut qs = [0; K_BLOCK / 2];
        let low = levels.map(|level| level & 15);
        let (pairs, _) = low.as_chunks::<64>();
        let (bytes, _) = qs.as_chunks_mut::<32>();
        for (bytes, pair) in bytes.iter_mut().zip(pairs) {
            *bytes = pack_nibbles(pair);
        }
        Self {
            d,
            dmin,
            scales,
            qh,
            qs,
        }
    }
}
