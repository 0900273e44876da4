//! Q6_K: 256 weights in 16 groups of 16; 6 bits a weight around 32, 8 bits for each group's scale.

use bytemuck::{Pod, Zeroable};

use super::{Block, Half, K_BLOCK};
use crate::Format;

/// Weight `i` of group `g = i / 16` is `d · scales[g] · (q[i] − 32)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// `[128]` low nibbles; for each half `h` of the block (128 elements, bytes `64 h ..`), in rows
    /// of 32 elements: row 0 low and row 2 high in bytes 0..32, row 1 low and row 3 high in 32..64.
    pub ql: [u8; K_BLOCK / 2],
    /// `[64]` top bits; for each half (bytes `32 h ..`): bits `2 r ..` of byte `j` belong to
    /// element `j` of row `r`.
    pub qh: [u8; K_BLOCK / 4],
    /// `[16]` scales of the groups.
    pub scales: [i8; K_BLOCK / 16],
    /// Scale of the groups' scales.
    pub d: Half,
}

impl BlockQ6K {
    /// `q − 32` in element order, in `−32..=31`.
    #[must_use]
    pub fn unpack(&self) -> [i8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        let (halves, _) = out.as_chunks_mut::<128>();
        for (h, out) in halves.iter_mut().enumerate() {
            let low = &self.ql[64 * h..][..64];
            let high = &self.qh[32 * h..][..32];
            for j in 0..32 {
                out[j] = join(low[j] & 15, high[j]);
                out[j + 32] = join(low[j + 32] & 15, high[j] >> 2);
                out[j + 64] = join(low[j] >> 4, high[j] >> 4);
                out[j + 96] = join(low[j + 32] >> 4, high[j] >> 6);
            }
        }
        out
    }
}

fn join(low: u8, high: u8) -> i8 {
    (low | (high & 3) << 4) as i8 - 32
}

impl Block for BlockQ6K {
    const FORMAT: Format = Format::Q6_K;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), K_BLOCK);
        let d = self.d.to_f32();
        let unpacked = self.unpack();
        let groups = out.chunks_exact_mut(16).zip(unpacked.chunks_exact(16));
        for ((out, qs), scale) in groups.zip(self.scales) {
            let scale = d * f32::from(scale);
            for (out, &q) in out.iter_mut().zip(qs) {
                *out = scale * f32::from(q);
            }
        }
    }
}
