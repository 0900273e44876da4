//! Stored keys and values: how they are written, and how they are widened to F32.
//!
//! Of each page and head there are two slabs. Keys stand in blocks of sixteen positions,
//! `[4][head_dim][16 positions]`, so that a vector holds one element of sixteen keys; values are
//! `[64 positions][head_dim]`. In [`KvFormat::Q8_0`] every position's key (or value) is quantised in
//! groups of 32 elements, the last perhaps shorter, and the scales, in half precision, follow the
//! quants they belong to: `[groups][16 positions]` a block of keys, `[groups]` a value.

use std::ops::Range;

use crate::KvFormat;
use crate::backend::PAGE_POSITIONS;
use crate::simd::{Isa, Kernel, Simd, dispatch};

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
        let width = self.format.vector_bytes(self.head_dim);
        let heads = self.row.chunks_exact(self.head_dim);
        for (x, slab) in heads.zip(self.slabs.chunks_exact_mut(PAGE_POSITIONS * width)) {
            // Where the position's elements begin, and how far apart they are.
            let (start, stride) = if self.is_value {
                (self.offset * width, 1)
            } else {
                (self.offset / 16 * 16 * width, 16)
            };
            let lane = if self.is_value { 0 } else { self.offset % 16 };
            let to = &mut slab[start..][..stride * width];
            match self.format {
                KvFormat::F16 => {
                    let (to, _) = to.as_chunks_mut::<2>();
                    let to = &mut to[lane..];
                    for (x, to) in x.chunks(16).zip(to.chunks_mut(16 * stride)) {
                        let mut halves = [0; 32];
                        s.narrow_f16(s.load_partial(x), &mut halves);
                        for (half, to) in halves.as_chunks::<2>().0[..x.len()]
                            .iter()
                            .zip(to.iter_mut().step_by(stride))
                        {
                            *to = *half;
                        }
                    }
                }
            }
        }
    }
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
                    s.prefetch(ahead, offset + 32 * i);
                }
                s.store(s.widen_f16(halves), to);
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
    to: &mut [[[f32; 16]; V]; PAGE_POSITIONS],
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
                    s.prefetch(ahead, position * width + 2 * elements.start + line);
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
        }
    }
}
