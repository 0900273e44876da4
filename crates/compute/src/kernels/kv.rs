//! Stored keys and values: how they are written, and how they are widened to F32.
//!
//! Of each page and head there are two slabs. Keys stand in blocks of sixteen positions,
//! `[4][head_dim][16 positions]`, so that a vector holds one element of sixteen keys; values are
//! `[64 positions][head_dim]`. In [`KvFormat::Q8_0`] every position's key (or value) is quantised in
//! groups of 32 elements, the last perhaps shorter, and the scales, in half precision, follow the
//! quants they belong to: `[groups][16 positions]` a block of keys, `[groups]` a value.

mod values;

use std::ops::Range;

use crate::KvFormat;
use crate::backend::PAGE_POSITIONS;
use crate::simd::{Isa, Kernel, Simd, dispatch};

pub(crate) use values::{Values, Widened};

/// Elements that share a scale.
const GROUP: usize = 32;
/// A larger scale would be an infinity, and its zeros no numbers.
const LARGEST_HALF: f32 = 65504.0;

/// Keys or values of one head in one page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slab<'a> {
    pub(crate) format: KvFormat,
    pub(crate) head_dim: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Slab<'a> {
    /// Bytes of one position's key or value.
    fn vector_bytes(&self) -> usize {
        self.format.vector_bytes(self.head_dim)
    }

    /// Keys of positions `16 block ..`, or the value of position `block`.
    #[inline(always)]
    fn block(&self, block: usize, positions: usize) -> &'a [u8] {
        let bytes = self.vector_bytes() * positions;
        &self.bytes[block * bytes..][..bytes]
    }
}

/// Stores a token's keys, or values, of all heads (`[heads, head_dim]`) at position `offset` of
/// consecutive `slabs`.
pub(crate) fn store(
    isa: Isa,
    (format, is_value): (KvFormat, bool),
    head_dim: usize,
    offset: usize,
    (row, slabs): (&[f32], &mut [u8]),
) {
    dispatch(
        isa,
        Store {
            format,
            is_value,
            head_dim,
            offset,
            row,
            slabs,
        },
    );
}

struct Store<'a> {
    format: KvFormat,
    is_value: bool,
    head_dim: usize,
    offset: usize,
    row: &'a [f32],
    slabs: &'a mut [u8],
}

impl<S: Simd> Kernel<S> for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self {
            head_dim, offset, ..
        } = self;
        let width = self.format.vector_bytes(head_dim);
        let (block, lane) = (offset / 16 * 16, offset % 16);
        let heads = self.row.chunks_exact(head_dim);
        for (x, slab) in heads.zip(self.slabs.chunks_exact_mut(PAGE_POSITIONS * width)) {
            let value = offset * width..(offset + 1) * width;
            let keys = block * width..(block + 16) * width;
            match (self.format, self.is_value) {
                (KvFormat::F16, true) => store_halves(s, x, &mut slab[value]),
                (KvFormat::F16, false) => spread_halves(s, x, lane, &mut slab[keys]),
                (KvFormat::F32, true) => {
                    for (x, to) in x.iter().zip(slab[value].as_chunks_mut().0) {
                        *to = x.to_le_bytes();
                    }
                }
                (KvFormat::F32, false) => {
                    for (x, to) in x.iter().zip(slab[keys].as_chunks_mut::<64>().0) {
                        to.as_chunks_mut().0[lane] = x.to_le_bytes();
                    }
                }
                (KvFormat::Q8_0, true) => {
                    let (quants, scales) = slab[value].split_at_mut(head_dim);
                    let groups = x.chunks(GROUP).zip(quants.chunks_mut(GROUP));
                    for ((x, to), scale) in groups.zip(scales.as_chunks_mut().0) {
                        let (q, d) = quantize(s, x);
                        to.copy_from_slice(&bytemuck::cast_slice(&q)[..x.len()]);
                        *scale = d;
                    }
                }
                (KvFormat::Q8_0, false) => {
                    let (quants, scales) = slab[keys].split_at_mut(16 * head_dim);
                    let groups = x
                        .chunks(GROUP)
                        .zip(quants.as_chunks_mut::<16>().0.chunks_mut(GROUP));
                    for ((x, to), scales) in groups.zip(scales.as_chunks_mut::<32>().0) {
                        let (q, d) = quantize(s, x);
                        for (q, to) in q.iter().zip(to) {
                            to[lane] = q.cast_unsigned();
                        }
                        scales.as_chunks_mut().0[lane] = d;
                    }
                }
            }
        }
    }
}

/// Rounds to half precision.
#[inline(always)]
fn store_halves<S: Simd>(s: S, x: &[f32], to: &mut [u8]) {
    let (vectors, tail) = x.as_chunks::<16>();
    let (to, to_tail) = to.as_chunks_mut::<32>();
    for (x, to) in vectors.iter().zip(to) {
        s.narrow_f16(s.load(x), to);
    }
    if !tail.is_empty() {
        let mut halves = [0; 32];
        s.narrow_f16(s.load_partial(tail), &mut halves);
        to_tail.copy_from_slice(&halves[..to_tail.len()]);
    }
}

/// Rounds to half precision, into one lane of a block of keys.
#[inline(always)]
fn spread_halves<S: Simd>(s: S, x: &[f32], lane: usize, block: &mut [u8]) {
    let (block, _) = block.as_chunks_mut::<32>();
    for (x, to) in x.chunks(16).zip(block.chunks_mut(16)) {
        let mut halves = [0; 32];
        match x.first_chunk() {
            Some(x) => s.narrow_f16(s.load(x), &mut halves),
            None => s.narrow_f16(s.load_partial(x), &mut halves),
        }
        for (half, to) in halves.as_chunks::<2>().0.iter().zip(to) {
            to.as_chunks_mut().0[lane] = *half;
        }
    }
}

/// Quants of up to [`GROUP`] elements, by the rule of activations, and their scale in half precision.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32]) -> ([i8; GROUP], [u8; 2]) {
    let mut padded = [0.0; GROUP];
    padded[..x.len()].copy_from_slice(x);
    let (x, _) = padded.as_chunks::<16>();
    let (low, high) = (s.load(&x[0]), s.load(&x[1]));
    let largest = s.max_of_magnitudes(s.max_magnitude(s.abs(low), high));
    let (scale, inverse) = if largest < 1e-30 {
        (0.0, 0.0)
    } else if largest / 127.0 > LARGEST_HALF {
        (LARGEST_HALF, 127.0 / largest)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    let mut quants = [0; GROUP];
    let (to, _) = quants.as_chunks_mut::<16>();
    s.narrow_i8(s.round(s.mul(low, s.splat(inverse))), &mut to[0]);
    s.narrow_i8(s.round(s.mul(high, s.splat(inverse))), &mut to[1]);
    let mut halves = [0; 32];
    s.narrow_f16(s.splat(scale), &mut halves);
    (quants, [halves[0], halves[1]])
}

/// Widens the keys of positions `16 block ..` of a page: `to[i][c]` gets element `16 i + c` of each,
/// zero past the head's last. `ahead` is asked for meanwhile, at the same place.
#[inline(always)]
pub(crate) fn widen_keys<S: Simd>(
    s: S,
    slab: Slab<'_>,
    block: usize,
    ahead: &[u8],
    to: &mut [[[f32; 16]; 16]],
) {
    let bytes = slab.block(block, 16);
    let offset = block * bytes.len();
    let to = to.as_flattened_mut();
    match slab.format {
        KvFormat::F16 => {
            let (halves, _) = bytes.as_chunks::<32>();
            for (i, (halves, to)) in halves.iter().zip(&mut *to).enumerate() {
                if i % 2 == 0 {
                    s.prefetch_far(ahead, offset + 32 * i);
                }
                s.store(s.widen_f16(halves), to);
            }
        }
        KvFormat::F32 => {
            let (keys, _) = bytes.as_chunks::<64>();
            for (i, (keys, to)) in keys.iter().zip(&mut *to).enumerate() {
                s.prefetch_far(ahead, offset + 64 * i);
                s.store(s.load_bytes(keys), to);
            }
        }
        KvFormat::Q8_0 => {
            let (quants, scales) = bytes.split_at(16 * slab.head_dim);
            let groups = quants
                .as_chunks::<16>()
                .0
                .chunks(GROUP)
                .zip(to.chunks_mut(GROUP));
            for (g, ((quants, to), scale)) in groups.zip(scales.as_chunks().0).enumerate() {
                let scale = s.widen_f16(scale);
                for (i, (q, to)) in quants.iter().zip(to).enumerate() {
                    if i % 4 == 0 {
                        s.prefetch_far(ahead, offset + 16 * (GROUP * g + i));
                    }
                    s.store(s.mul(s.convert_i8(q), scale), to);
                }
            }
        }
    }
    for to in &mut to[slab.head_dim..] {
        s.store(s.zero(), to);
    }
}

/// Widens values of `positions` of a page from element `16 vector` on, as many vectors as `to` has
/// or the head, zero past the head's last element.
#[inline(always)]
pub(crate) fn widen_values<S: Simd, const V: usize>(
    s: S,
    slab: Slab<'_>,
    positions: Range<usize>,
    vector: usize,
    ahead: &[u8],
    to: &mut [[[f32; 16]; V]],
) {
    let width = slab.vector_bytes();
    let elements = 16 * vector..slab.head_dim.min(16 * (vector + V));
    for position in positions {
        let value = slab.block(position, 1);
        let to = &mut to[position];
        match slab.format {
            KvFormat::F16 => {
                let value = &value[2 * elements.start..2 * elements.end];
                for line in (0..value.len()).step_by(64) {
                    s.prefetch_far(ahead, position * width + 2 * elements.start + line);
                }
                let (vectors, tail) = value.as_chunks::<32>();
                for (halves, to) in vectors.iter().zip(to.iter_mut()) {
                    s.store(s.widen_f16(halves), to);
                }
                if !tail.is_empty() {
                    let mut padded = [0; 32];
                    padded[..tail.len()].copy_from_slice(tail);
                    s.store(s.widen_f16(&padded), &mut to[vectors.len()]);
                }
            }
            KvFormat::F32 => {
                let value = &value[4 * elements.start..4 * elements.end];
                for line in (0..value.len()).step_by(64) {
                    s.prefetch_far(ahead, position * width + 4 * elements.start + line);
                }
                let to = to.as_flattened_mut();
                for (x, to) in value.as_chunks().0.iter().zip(&mut *to) {
                    *to = f32::from_le_bytes(*x);
                }
                to[elements.len()..].fill(0.0);
            }
            KvFormat::Q8_0 => {
                s.prefetch_far(ahead, position * width + elements.start);
                let (quants, scales) = value.split_at(slab.head_dim);
                let (scales, _) = scales.as_chunks::<2>();
                for (i, (q, to)) in quants[elements.clone()]
                    .chunks(16)
                    .zip(to.iter_mut())
                    .enumerate()
                {
                    let mut padded = [0; 16];
                    padded[..q.len()].copy_from_slice(q);
                    let scale = half::f16::from_le_bytes(scales[(vector + i) / 2]).to_f32();
                    s.store(s.mul(s.convert_i8(&padded), s.splat(scale)), to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scale([f32; GROUP]);

    impl<S: Simd> Kernel<S> for Scale {
        type Output = half::f16;

        #[inline(always)]
        fn run(self, s: S) -> half::f16 {
            half::f16::from_le_bytes(quantize(s, &self.0).1)
        }
    }

    #[test]
    fn a_scale_is_finite_unless_there_is_a_nan() {
        for isa in Isa::available() {
            for place in 0..GROUP {
                let scale = |x: f32| {
                    let mut group = [1.0; GROUP];
                    group[place] = x;
                    dispatch(isa, Scale(group)).to_f32()
                };
                assert_eq!(scale(-127.0), 1.0, "{isa} {place}");
                assert_eq!(scale(f32::MAX), LARGEST_HALF, "{isa} {place}");
                assert_eq!(scale(f32::INFINITY), LARGEST_HALF, "{isa} {place}");
                assert!(scale(f32::NAN).is_nan(), "{isa} {place}");
            }
        }
    }
}
