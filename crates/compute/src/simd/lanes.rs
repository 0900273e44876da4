//! Vectors whose lanes are tokens: the insides of the panel kernels.
#![allow(
    clippy::needless_range_loop,
    reason = "one index for a row, a slab or a step names the same thing in several arrays"
)]

mod avx2;
mod avx512;

use super::IntSimd;

/// Four bytes for each of sixteen tokens: a cache line.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Sixteen<T>(pub(crate) [T; 16]);

/// Four consecutive integers of one activation row.
pub(crate) type Quad = [i8; 4];

/// How a format's integers are stored in a panel.
pub(crate) trait Stored {
    /// The largest, where they are unsigned.
    const LARGEST: i32;
    /// Whether they are signed bytes, with [`Lanes::SIGNED_BIAS`] added.
    const SIGNED: bool;
}

/// Operations on sixteen tokens at once; [`super::Simd::F32`] is an F32 for each of them.
pub(crate) trait Lanes: IntSimd {
    /// Whether there are 32 registers of sixteen lanes, or only 16 of eight.
    const WIDE: bool;
    /// Added to signed weights (wrapping) in a panel.
    const SIGNED_BIAS: u8;
    /// An i32 for each token.
    type I32: Copy;

    fn i32_zero(self) -> Self::I32;
    fn i32_load(self, x: &Sixteen<i32>) -> Self::I32;
    fn i32_to_f32(self, x: Self::I32) -> Self::F32;
    /// `acc + a · b`.
    fn mul_add(self, acc: Self::I32, a: Self::I32, b: i32) -> Self::I32;
    /// Adds each token's two products with `w`.
    fn dot2(self, acc: Self::I32, x: &Sixteen<[i16; 2]>, w: [i16; 2]) -> Self::I32;

    /// The dot products of `R` weight rows and `V` times sixteen tokens over `Q` quads of columns,
    /// each added to its token's `start`. Products are of the weights as they are stored.
    fn dots<F: Stored, const Q: usize, const R: usize, const V: usize>(
        self,
        start: [Self::I32; V],
        weights: [&[[u8; 4]; Q]; R],
        x: [&[Sixteen<Quad>; Q]; V],
    ) -> [[Self::I32; V]; R];

    /// For each token, the sums of two times sixteen consecutive integers.
    fn sums(self, first: &[Sixteen<Quad>; 4], second: &[Sixteen<Quad>; 4]) -> [[i16; 2]; 16];

    /// Each token's four values, of at most 127, rounded to the nearest integers (ties to even).
    fn quads(self, values: [Self::F32; 4]) -> Sixteen<Quad>;

    /// The canonical sums of sixteen vectors, see [`super::tree_sum`].
    fn sum_each(self, x: [Self::F32; 16]) -> Self::F32;

    /// Lane `i` of vector `j` becomes lane `j` of vector `i`; bits move as they are.
    fn transpose(self, x: [Self::F32; 16]) -> [Self::F32; 16];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tree_sum;
    use crate::simd::{Avx2, Avx512};

    fn check<S: Lanes>(s: S) {
        let x: [[f32; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| (16 * i + j) as f32));
        let y = s.transpose(x.map(|x| s.load(&x)));
        for (i, y) in y.into_iter().enumerate() {
            let mut out = [0.0; 16];
            s.store(y, &mut out);
            assert_eq!(out, std::array::from_fn(|j| x[j][i]));
        }
        let x: [[f32; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| 1.0 / (16 * i + j + 1) as f32));
        let mut sums = [0.0; 16];
        s.store(s.sum_each(x.map(|x| s.load(&x))), &mut sums);
        assert_eq!(sums, x.map(|x| tree_sum(&x)));
    }

    #[test]
    fn vectors_are_transposed_and_summed() {
        if let Some(s) = Avx512::detect() {
            check(s);
        }
        if let Some(s) = Avx2::detect() {
            check(s);
        }
    }
}
