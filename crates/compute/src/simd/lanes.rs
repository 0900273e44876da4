//! Vectors whose lanes are weight rows: the insides of the panel kernels.

use std::arch::x86_64::*;

use super::{Avx2, Avx512, IntSimd};

/// One operation under the token's proof.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: the token `self` proves the instructions; pointers come from references to
        // exactly the bytes read or written.
        unsafe { $call }
    };
}

/// Integer and F32 vectors of [`Self::LANES`] weight rows.
pub(crate) trait Lanes: IntSimd {
    /// Rows in a vector; 32 is a multiple of it.
    const LANES: usize;
    /// Added to signed weights (wrapping), so that [`Self::dot4_signed`] sees what it wants.
    const SIGNED_BIAS: u8;
    /// One i32, or four bytes, or two i16, a row.
    type Ints: Copy;
    /// One F32 a row.
    type Floats: Copy;

    /// The first `LANES` values.
    fn ints(self, x: &[[u8; 4]]) -> Self::Ints;
    fn ints_splat(self, x: i32) -> Self::Ints;
    /// Adds each row's four products of bytes: `u` at most 128, `x` the same for all rows, each at
    /// least −127.
    fn dot4(self, acc: Self::Ints, u: Self::Ints, x: [u8; 4]) -> Self::Ints;
    /// The same for weights of `−128..=127` that were stored with [`Self::SIGNED_BIAS`] added; the
    /// sum is of the stored values.
    fn dot4_signed(self, acc: Self::Ints, w: Self::Ints, x: [u8; 4]) -> Self::Ints;
    /// Adds each row's two products of i16.
    fn dot2_i16(self, acc: Self::Ints, w: Self::Ints, x: [i16; 2]) -> Self::Ints;
    /// `acc + a · b`.
    fn mul_add_i32(self, acc: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn to_floats(self, x: Self::Ints) -> Self::Floats;

    /// The first `LANES` values.
    fn floats(self, x: &[f32]) -> Self::Floats;
    fn floats_splat(self, x: f32) -> Self::Floats;
    fn floats_store(self, x: Self::Floats, to: &mut [f32]);
    fn floats_mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn floats_fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

impl Lanes for Avx512 {
    const LANES: usize = 16;
    const SIGNED_BIAS: u8 = 128;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    fn ints(self, x: &[[u8; 4]]) -> __m512i {
        let x = &x.as_chunks::<16>().0[0];
        op!(_mm512_loadu_si512(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn ints_splat(self, x: i32) -> __m512i {
        op!(_mm512_set1_epi32(x))
    }

    #[inline(always)]
    fn dot4(self, acc: __m512i, u: __m512i, x: [u8; 4]) -> __m512i {
        let x = self.ints_splat(i32::from_ne_bytes(x));
        op!(_mm512_dpbusd_epi32(acc, u, x))
    }

    #[inline(always)]
    fn dot4_signed(self, acc: __m512i, w: __m512i, x: [u8; 4]) -> __m512i {
        // VNNI sums without saturation, so the biased weights may use the whole byte.
        self.dot4(acc, w, x)
    }

    #[inline(always)]
    fn dot2_i16(self, acc: __m512i, w: __m512i, x: [i16; 2]) -> __m512i {
        let x = self.ints_splat(bytemuck::cast(x));
        op!(_mm512_dpwssd_epi32(acc, w, x))
    }

    #[inline(always)]
    fn mul_add_i32(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        let product = op!(_mm512_mullo_epi32(a, b));
        op!(_mm512_add_epi32(acc, product))
    }

    #[inline(always)]
    fn to_floats(self, x: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn floats(self, x: &[f32]) -> __m512 {
        let x = &x.as_chunks::<16>().0[0];
        op!(_mm512_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn floats_splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn floats_store(self, x: __m512, to: &mut [f32]) {
        let to = &mut to.as_chunks_mut::<16>().0[0];
        op!(_mm512_storeu_ps(to.as_mut_ptr(), x));
    }

    #[inline(always)]
    fn floats_mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn floats_fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
}

impl Lanes for Avx2 {
    const LANES: usize = 8;
    const SIGNED_BIAS: u8 = 0;
    type Ints = __m256i;
    type Floats = __m256;

    #[inline(always)]
    fn ints(self, x: &[[u8; 4]]) -> __m256i {
        let x = &x.as_chunks::<8>().0[0];
        op!(_mm256_loadu_si256(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn ints_splat(self, x: i32) -> __m256i {
        op!(_mm256_set1_epi32(x))
    }

    #[inline(always)]
    fn dot4(self, acc: __m256i, u: __m256i, x: [u8; 4]) -> __m256i {
        self.dot(acc, u, self.ints_splat(i32::from_ne_bytes(x)))
    }

    #[inline(always)]
    fn dot4_signed(self, acc: __m256i, w: __m256i, x: [u8; 4]) -> __m256i {
        self.dot_signed(acc, w, self.ints_splat(i32::from_ne_bytes(x)))
    }

    #[inline(always)]
    fn dot2_i16(self, acc: __m256i, w: __m256i, x: [i16; 2]) -> __m256i {
        let x = self.ints_splat(bytemuck::cast(x));
        let product = op!(_mm256_madd_epi16(w, x));
        op!(_mm256_add_epi32(acc, product))
    }

    #[inline(always)]
    fn mul_add_i32(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        let product = op!(_mm256_mullo_epi32(a, b));
        op!(_mm256_add_epi32(acc, product))
    }

    #[inline(always)]
    fn to_floats(self, x: __m256i) -> __m256 {
        op!(_mm256_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn floats(self, x: &[f32]) -> __m256 {
        let x = &x.as_chunks::<8>().0[0];
        op!(_mm256_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn floats_splat(self, x: f32) -> __m256 {
        op!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn floats_store(self, x: __m256, to: &mut [f32]) {
        let to = &mut to.as_chunks_mut::<8>().0[0];
        op!(_mm256_storeu_ps(to.as_mut_ptr(), x));
    }

    #[inline(always)]
    fn floats_mul(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn floats_fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        op!(_mm256_fmadd_ps(a, b, c))
    }
}
