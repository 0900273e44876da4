//! IQ4_NL: 32 weights, one scale, 4 bits that name one of sixteen uneven levels.

use bytemuck::{Pod, Zeroable};

use super::search::ALL_ZERO;
use super::{Block, Half, SMALL_BLOCK, nibbles, one_block, pack_nibbles, peak, reciprocal};
use crate::Format;

/// What the four bits stand for: denser around zero, as weights are.
pub(crate) const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Weight `i` is `d · LEVELS[q[i]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale.
    pub d: Half,
    /// `[16]`: element `j` in the low nibble of byte `j`, element `j + 16` in the high one.
    pub qs: [u8; SMALL_BLOCK / 2],
}

impl BlockIq4Nl {
    /// The levels in element order.
    #[must_use]
    pub fn unpack(&self) -> [i8; SMALL_BLOCK] {
        levels(&self.qs)
    }
}

impl Block for BlockIq4Nl {
    const FORMAT: Format = Format::IQ4_NL;

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), SMALL_BLOCK);
        let d = self.d.to_f32();
        for (out, q) in out.iter_mut().zip(self.unpack()) {
            *out = d * f32::from(q);
        }
    }

    fn quantize(values: &[f32]) -> Self {
        let values: &[f32; SMALL_BLOCK] = one_block(values);
        let d = fit(values);
        Self {
            d: Half::from_f32(d),
            qs: pack(values, reciprocal(d)),
        }
    }
}

/// The levels that sixteen bytes of nibbles name.
pub(super) fn levels(qs: &[u8; SMALL_BLOCK / 2]) -> [i8; SMALL_BLOCK] {
    nibbles(qs).map(|q: u8| LEVELS[usize::from(q)])
}

/// The names of the levels nearest to `values · inverse`.
pub(super) fn pack(values: &[f32; SMALL_BLOCK], inverse: f32) -> [u8; SMALL_BLOCK / 2] {
    pack_nibbles(&values.map(|value| nearest(inverse * value)))
}

/// How many midpoints between levels are not above `value`: the name of the nearest level, of two
/// equally near ones the upper.
fn nearest(value: f32) -> u8 {
    let mut name = 0;
    for pair in LEVELS.array_windows() {
        let [below, above] = pair.map(f32::from);
        name += u8::from(value >= (below + above) * 0.5);
    }
    name
}

/// The scale that fits best of those that bring the largest value near the lowest level, errors
/// weighted by the value's square.
///
/// Source: ggml's `quantize_row_iq4_nl_impl` (`ggml-quants.c`), as `quantize_iq4_nl` calls it; the sums
/// run in element order.
pub(super) fn fit(values: &[f32; SMALL_BLOCK]) -> f32 {
    const LOWEST: f32 = LEVELS[0] as f32;
    let peak = peak(values);
    if peak.abs() < ALL_ZERO {
        return 0.0;
    }
    let products = |inverse: f32| {
        let q = values.map(|value| f32::from(LEVELS[usize::from(nearest(inverse * value))]));
        let (mut sum_xq, mut sum_q2) = (0.0_f32, 0.0_f32);
        for (value, q) in values.iter().zip(q) {
            let weight = value * value;
            sum_xq += weight * q * value;
            sum_q2 += weight * q * q;
        }
        (sum_xq, sum_q2)
    };
    let (sum_xq, sum_q2) = products(1.0 / (-peak / LOWEST));
    let mut scale = if sum_q2 > 0.0 { sum_xq / sum_q2 } else { 0.0 };
    let mut best = scale * sum_xq;
    for step in -7_i8..=7 {
        let (sum_xq, sum_q2) = products((f32::from(step) + LOWEST) / peak);
        if sum_q2 > 0.0 && sum_xq * sum_xq > best * sum_q2 {
            scale = sum_xq / sum_q2;
            best = scale * sum_xq;
        }
    }
    scale
}
