//! Values as attention multiplies them: widened before, or as they are stored.

use std::ops::Range;

use super::Slab;
use crate::KvFormat;
use crate::backend::PAGE_POSITIONS;
use crate::simd::Simd;

/// Values of some positions of a page, a vector of sixteen elements at a time.
pub(crate) trait Values: Copy {
    fn positions(self) -> usize;

    fn load<S: Simd>(self, s: S, position: usize, vector: usize) -> S::F32;

    /// Asks for a part of what is read after these, where two vectors at a time go through all
    /// positions: line after line, which the memory gives sooner than the lines of one vector.
    #[inline(always)]
    fn ask<S: Simd>(self, _: S, _position: usize, _vector: usize) {}
}

/// What [`widen_values`](super::widen_values) has widened.
#[derive(Clone, Copy)]
pub(crate) struct Widened<'a, const V: usize>(pub(crate) &'a [[[f32; 16]; V]]);

impl<const V: usize> Values for Widened<'_, V> {
    #[inline(always)]
    fn positions(self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn load<S: Simd>(self, s: S, position: usize, vector: usize) -> S::F32 {
        s.load(&self.0[position][vector])
    }
}

impl<'a> Slab<'a> {
    /// Values of `positions`, in half precision; `ahead`, a slab like this, is asked for meanwhile.
    #[inline(always)]
    pub(crate) fn halves(self, positions: Range<usize>, ahead: &'a [u8]) -> Halves<'a> {
        assert!(self.format == KvFormat::F16, "half precision");
        Halves(self.stored(positions, ahead))
    }

    /// Values of `positions`, in F32; `ahead`, a slab like this, is asked for meanwhile.
    #[inline(always)]
    pub(crate) fn floats(self, positions: Range<usize>, ahead: &'a [u8]) -> Floats<'a> {
        assert!(self.format == KvFormat::F32, "F32");
        Floats(self.stored(positions, ahead))
    }

    /// Values of `positions`, quantised; `ahead`, a slab like this, is asked for meanwhile.
    #[inline(always)]
    pub(crate) fn quants(self, positions: Range<usize>, ahead: &'a [u8]) -> Quants<'a> {
        assert!(self.format == KvFormat::Q8_0, "quantised values");
        Quants(self.stored(positions, ahead))
    }

    #[inline(always)]
    fn stored(self, positions: Range<usize>, ahead: &'a [u8]) -> Stored<'a> {
        let width = self.vector_bytes();
        Stored {
            width,
            head_dim: self.head_dim,
            positions: positions.len(),
            bytes: &self.bytes[positions.start * width..positions.end * width],
            ahead,
        }
    }
}

/// Values as they are stored, of whole vectors.
#[derive(Clone, Copy)]
struct Stored<'a> {
    /// Bytes of a value.
    width: usize,
    head_dim: usize,
    positions: usize,
    bytes: &'a [u8],
    ahead: &'a [u8],
}

impl<'a> Stored<'a> {
    #[inline(always)]
    fn value(self, position: usize) -> &'a [u8] {
        &self.bytes[position * self.width..][..self.width]
    }

    /// Asks for the next lines in the order of `ask`, with two vectors in `bytes`.
    #[inline(always)]
    fn ask<S: Simd>(self, s: S, position: usize, vector: usize, bytes: usize) {
        let before = vector / 2 * PAGE_POSITIONS + position;
        for line in (0..bytes).step_by(64) {
            s.prefetch_far(self.ahead, before * bytes + line);
        }
    }
}

/// Values in half precision.
#[derive(Clone, Copy)]
pub(crate) struct Halves<'a>(Stored<'a>);

impl Values for Halves<'_> {
    #[inline(always)]
    fn positions(self) -> usize {
        self.0.positions
    }

    #[inline(always)]
    fn load<S: Simd>(self, s: S, position: usize, vector: usize) -> S::F32 {
        s.widen_f16(&self.0.value(position).as_chunks().0[vector])
    }

    #[inline(always)]
    fn ask<S: Simd>(self, s: S, position: usize, vector: usize) {
        self.0.ask(s, position, vector, 64);
    }
}

/// Values in F32.
#[derive(Clone, Copy)]
pub(crate) struct Floats<'a>(Stored<'a>);

impl Values for Floats<'_> {
    #[inline(always)]
    fn positions(self) -> usize {
        self.0.positions
    }

    #[inline(always)]
    fn load<S: Simd>(self, s: S, position: usize, vector: usize) -> S::F32 {
        s.load_bytes(&self.0.value(position).as_chunks().0[vector])
    }

    #[inline(always)]
    fn ask<S: Simd>(self, s: S, position: usize, vector: usize) {
        self.0.ask(s, position, vector, 128);
    }
}

/// Quantised values.
#[derive(Clone, Copy)]
pub(crate) struct Quants<'a>(Stored<'a>);

impl Values for Quants<'_> {
    #[inline(always)]
    fn positions(self) -> usize {
        self.0.positions
    }

    #[inline(always)]
    fn load<S: Simd>(self, s: S, position: usize, vector: usize) -> S::F32 {
        let (quants, scales) = self.0.value(position).split_at(self.0.head_dim);
        let scale: [u8; 2] = scales.as_chunks().0[vector / 2];
        let scale = s.widen_f16(&bytemuck::cast([scale; 16]));
        s.mul(s.convert_i8(&quants.as_chunks().0[vector]), scale)
    }

    #[inline(always)]
    fn ask<S: Simd>(self, s: S, position: usize, vector: usize) {
        self.0.ask(s, position, vector, 34);
    }
}
