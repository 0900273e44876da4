//! Q6_K: 256 weights in 16 groups of 16; 6 bits a weight around 32, 8 bits for each group's scale.

use bytemuck::{Pod, Zeroable};

use super::search::{ALL_ZERO, fit_symmetric, lanes, nearest};
use super::{Block, Half, K_BLOCK, peak};
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

    fn quantize(values: &[f32]) -> Self {
        let fit = fit_symmetric::<16, 16>(&lanes(values), 32);
        let largest = peak(&fit.scale);
        if largest.abs() < ALL_ZERO {
            return Self::zeroed();
        }
        let inverse = -128.0 / largest;
        let d = Half::from_f32(1.0 / inverse);
        let scales = fit
            .scale
            .map(|scale| nearest(inverse * scale).min(127) as i8);
        let mut levels = [0; K_BLOCK];
        let groups = levels.chunks_exact_mut(16).zip(values.chunks_exact(16));
        for (g, (levels, values)) in groups.enumerate() {
            let scale = d.to_f32() * f32::from(scales[g]);
            for (i, (level, value)) in levels.iter_mut().zip(values).enumerate() {
                *level = if scale == 0.0 {
                    fit.levels[i][g] as u8
                } else {
                    (nearest(value / scale).clamp(-32, 31) + 32) as u8
                };
            }
        }
        let (ql, qh) = split(&levels);
        Self { ql, qh, scales, d }
    }
}

/// Low nibbles and top bits of levels in element order, laid out as in [`BlockQ6K`].
fn split(levels: &[u8; K_BLOCK]) -> ([u8; K_BLOCK / 2], [u8; K_BLOCK / 4]) {
    let mut ql = [0; K_BLOCK / 2];
    let mut qh = [0; K_BLOCK / 4];
    for (h, q) in levels.chunks_exact(128).enumerate() {
        for j in 0..32 {
            let rows = [q[j], q[j + 32], q[j + 64], q[j + 96]];
            ql[64 * h + j] = rows[0] & 15 | rows[2] << 4;
            ql[64 * h + j + 32] = rows[1] & 15 | rows[3] << 4;
            qh[32 * h + j] =
                rows[0] >> 4 | rows[1] >> 4 << 2 | rows[2] >> 4 << 4 | rows[3] >> 4 << 6;
        }
    }
    (ql, qh)
}
