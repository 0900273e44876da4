//! Vectors of 128-bit lanes, one lane for each of a few consecutive 32-weight blocks of a row.
//!
//! A block's first sixteen elements make a lane of one vector, its last sixteen the same lane of
//! another. Four rows' lane sums, transposed, give one F32 a row in each block's lane.

mod avx2;
mod avx512;
mod gather;

use std::arch::x86_64::*;
use std::ops::Range;

use super::IntSimd;

/// Vectors of `B` lanes of 128 bits.
pub(crate) trait BlockLanes<const B: usize>: IntSimd {
    /// What [`Self::dot_signed_halves`] adds for each unit of an activation.
    const SIGNED_OFFSET: i16;
    /// Sixteen bytes, or four i32, a lane.
    type Ints: Copy;
    /// Four F32 a lane.
    type Floats: Copy;

    fn zero_lanes(self) -> Self::Ints;
    /// Lane `b` is the sixteen bytes from byte `AT` of block `b` on; blocks are `STRIDE` bytes.
    fn lanes<const STRIDE: usize, const AT: usize>(self, blocks: &[u8]) -> Self::Ints;
    /// The first eight bytes of each block, twice in its lane.
    fn heads<const STRIDE: usize>(self, blocks: &[u8]) -> Self::Ints;
    /// The blocks' first sixteen elements, and their last sixteen.
    fn halves(self, q: &[[i8; 32]; B]) -> [Self::Ints; 2];
    fn low_nibbles(self, x: Self::Ints) -> Self::Ints;
    fn high_nibbles(self, x: Self::Ints) -> Self::Ints;
    /// The entries of a table that the low nibbles name, and that the high nibbles do.
    fn table_halves(self, table: &[u8; 16], x: Self::Ints) -> [Self::Ints; 2];
    /// Adds 16 to element `e` of block `b` (lanes of both halves) where bit `e` is set of the four
    /// bytes from byte `AT` of its head on.
    fn fifth_bits<const AT: usize>(
        self,
        halves: [Self::Ints; 2],
        heads: Self::Ints,
    ) -> [Self::Ints; 2];
    /// Sums of eight products of each lane, in four i32: `u` unsigned and at most `largest`, which is at
    /// most 31, `x` at least −127.
    fn dot_halves(self, u: [Self::Ints; 2], x: [Self::Ints; 2], largest: i32) -> Self::Ints;
    /// The same for any signed bytes `w`, too much by `SIGNED_OFFSET · Σ x`.
    fn dot_signed_halves(self, w: [Self::Ints; 2], x: [Self::Ints; 2]) -> Self::Ints;
    /// Four rows' lane sums, made of integers of the size of `largest`, less `offset` times the block's
    /// two sums: lane `b` is `[row 0, row 1, row 2, row 3]` of block `b`.
    fn transposed_sums(
        self,
        rows: ([Self::Ints; 4], i32),
        sums: &[[i16; 2]; B],
        offset: i16,
    ) -> Self::Floats;
    /// The half-precision number that starts each block of `STRIDE` bytes, exactly widened: lane `b`
    /// is `[row 0, row 1, row 2, row 3]` of block `b`. Each row holds exactly `B` blocks; `heads` are
    /// theirs, where they are at hand.
    fn block_scales<const STRIDE: usize>(
        self,
        rows: [&[u8]; 4],
        heads: Option<[Self::Ints; 4]>,
    ) -> Self::Floats;
    /// The same for the first two numbers of each block.
    fn block_scales_and_minima<const STRIDE: usize>(
        self,
        rows: [&[u8]; 4],
        heads: Option<[Self::Ints; 4]>,
    ) -> [Self::Floats; 2];
    /// `2^(e − 128)` of the byte `e` that starts each block of `STRIDE` bytes, likewise.
    fn block_powers<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> Self::Floats;
    /// Lane `b` times `x[b]`.
    fn lanes_mul(self, a: Self::Floats, x: &[f32; B]) -> Self::Floats;
    /// `acc = scale · sum + acc`, rounded once, of each of `lanes` in turn.
    fn chain(
        self,
        acc: __m128,
        lanes: Range<usize>,
        scales: Self::Floats,
        sums: Self::Floats,
    ) -> __m128;
    /// The same, each step followed by `acc = minimum · (sum of x) + acc`.
    fn chain_with_minima(
        self,
        acc: __m128,
        lanes: Range<usize>,
        scales: (Self::Floats, Self::Floats),
        sums: (Self::Floats, &[[i16; 2]; B]),
    ) -> __m128;
}
