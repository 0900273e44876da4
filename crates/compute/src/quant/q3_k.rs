//! Q3_K: 256 weights in 16 groups of 16; 3 bits a weight around 4, 6 bits for each group's scale.

use bytemuck::{Pod, Zeroable};

use super::q2_k::{pack_two_bits, two_bits};
use super::search::{ALL_ZERO, nearest};
use super::{Block, Half, K_BLOCK, peak};
use crate::Format;

/// Groups of a block.
const GROUPS: usize = 16;
/// Subtracted from the stored integers.
const HALF: i32 = 4;

/// Weight `i` of group `g = i / 16` is `d · scale[g] · (q[i] − 4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Third bits: bit `i / 32` of byte `i % 32` belongs to element `i`.
    pub hmask: [u8; K_BLOCK / 8],
    /// `[64]` low two bits, laid out as in Q2_K.
    pub qs: [u8; K_BLOCK / 4],
    /// Scales, 6 bits each; see [`Self::scales`].
    pub scales: [u8; 12],
    /// Scale of the groups' scales.
    pub d: Half,
}

impl BlockQ3K {
    /// `[16]` scales of the groups, each in `-32..=31`. Low nibbles: groups 0..8 in the low nibbles of
    /// bytes 0..8, groups 8..16 in their high ones; top bits: bits `2 (g / 4) ..` of byte `8 + g % 4`.
    #[must_use]
    #[inline(always)]
    pub fn scales(&self) -> [i8; GROUPS] {
        let (words, _) = self.scales.as_chunks::<4>();
        let [first, second, top] = [0, 1, 2].map(
            #[inline(always)]
            |i| u32::from_le_bytes(words[i]),
        );
        const NIBBLES: u32 = 0x0f0f_0f0f;
        const TWO: u32 = 0x3030_3030;
        let groups = [
            first & NIBBLES | top << 4 & TWO,
            second & NIBBLES | top << 2 & TWO,
            first >> 4 & NIBBLES | top & TWO,
            second >> 4 & NIBBLES | top >> 2 & TWO,
        ];
        // Less 32 in every byte: no borrow leaves one.
        bytemuck::cast(groups.map(
            #[inline(always)]
            |bytes| (((bytes | 0x8080_8080) - 0x2020_2020) ^ 0x8080_8080).to_le_bytes(),
        ))
    }

    /// `q − 4` in element order, in `−4..=3`.
    #[must_use]
    pub fn unpack(&self) -> [i8; K_BLOCK] {
        let low = two_bits(&self.qs);
        std::array::from_fn(|i| {
            let third = self.hmask[i % 32] >> (i / 32) & 1;
            (low[i] | third << 2) as i8 - HALF as i8
        })
    }
}

impl Block for BlockQ3K {
    const FORMAT: Format = Format::Q3_K;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), K_BLOCK);
        let d = self.d.to_f32();
        let unpacked = self.unpack();
        let groups = out.chunks_exact_mut(16).zip(unpacked.chunks_exact(16));
        for ((out, qs), scale) in groups.zip(self.scales()) {
            let scale = d * f32::from(scale);
            for (out, &q) in out.iter_mut().zip(qs) {
                *out = scale * f32::from(q);
            }
        }
    }

    /// Fits each group, rounds the scales to six bits, then rounds each value anew with what is
    /// really stored. A group whose stored scale is zero keeps the fit's levels.
    fn quantize(values: &[f32]) -> Self {
        let (groups, _) = values.as_chunks::<16>();
        assert_eq!(groups.len(), GROUPS);
        let mut fits = [(0.0, [0; 16]); GROUPS];
        for (fit_of, group) in fits.iter_mut().zip(groups) {
            *fit_of = fit(group);
        }
        let largest = peak(&fits.map(|(scale, _)| scale));
        let mut block = Self::zeroed();
        if largest != 0.0 {
            let inverse = -32.0 / largest;
            block.d = Half::from_f32(1.0 / inverse);
            let scales = fits.map(|(scale, _)| nearest(inverse * scale).clamp(-32, 31));
            block.scales = pack_scales(&scales.map(|scale| (scale + 32) as u8));
        } else {
            // As the reference leaves them: every scale is −32, and the scale of all is zero.
            block.d = Half::from_f32(0.0);
        }
        let mut levels = [0; K_BLOCK];
        let scales = block.scales();
        for (g, (values, (_, fitted))) in groups.iter().zip(fits).enumerate() {
            let scale = block.d.to_f32() * f32::from(scales[g]);
            let levels = &mut levels[16 * g..][..16];
            for ((level, value), fitted) in levels.iter_mut().zip(values).zip(fitted) {
                *level = if scale == 0.0 {
                    fitted
                } else {
                    (nearest(value / scale).clamp(-HALF, HALF - 1) + HALF) as u8
                };
            }
        }
        block.qs = pack_two_bits(&levels.map(|level| level & 3));
        for (i, level) in levels.into_iter().enumerate() {
            block.hmask[i % 32] |= level >> 2 << (i / 32);
        }
        block
    }
}

/// Inverse of [`BlockQ3K::scales`], of scales from 0.
fn pack_scales(scales: &[u8; GROUPS]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (g, scale) in scales.iter().enumerate() {
        packed[g % 8] |= (scale & 15) << (4 * (g / 8));
        packed[8 + g % 4] |= scale >> 4 << (2 * (g / 4));
    }
    packed
}

/// A group's scale and levels from 0: of the largest value's grid, then each level in turn moved to
/// where the fit, weighted by the value's square, is best, up to five times.
///
/// Source: ggml's `make_q3_quants` (`ggml-quants.c`).
fn fit(x: &[f32; 16]) -> (f32, [u8; 16]) {
    let peak = peak(x);
    if peak.abs() < ALL_ZERO {
        return (0.0, [0; 16]);
    }
    let grid = |level: f32| nearest(level).clamp(-HALF, HALF - 1);
    let inverse = -(HALF as f32) / peak;
    let mut levels = x.map(|x| grid(inverse * x));
    let (mut sum_xl, mut sum_l2) = (0.0_f32, 0.0_f32);
    for (x, level) in x.iter().zip(levels) {
        let (weight, level) = (x * x, level as f32);
        sum_xl += weight * x * level;
        sum_l2 += weight * level * level;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, level) in x.iter().zip(&mut levels) {
            let (weight, old) = (x * x, *level as f32);
            let others_xl = sum_xl - weight * x * old;
            if others_xl <= 0.0 || others_xl.is_nan() {
                continue;
            }
            let others_l2 = sum_l2 - weight * old * old;
            let moved = grid(x * others_l2 / others_xl);
            if moved == *level {
                continue;
            }
            let new = moved as f32;
            let (xl, l2) = (others_xl + weight * x * new, others_l2 + weight * new * new);
            if l2 > 0.0 && xl * xl * sum_l2 > sum_xl * sum_xl * l2 {
                (*level, sum_xl, sum_l2) = (moved, xl, l2);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let scale = if sum_l2 > 0.0 { sum_xl / sum_l2 } else { 0.0 };
    (scale, levels.map(|level| (level + HALF) as u8))
}
