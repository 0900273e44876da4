//! AVX2: sixteen F32 lanes in two registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that this machine has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, where the machine has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }

    /// Runs a kernel compiled with these instructions.
    #[inline]
    pub(crate) fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: Kernel<Avx2>>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists, so `detect` has seen every feature `inner` enables.
        unsafe { inner(self, kernel) }
    }
}

/// Lanes 0..8 and 8..16.
type Pair = [__m256; 2];

/// The two halves of an array.
#[inline(always)]
fn halves<T, const HALF: usize, const WHOLE: usize>(x: &[T; WHOLE]) -> [&[T; HALF]; 2] {
    const { assert!(WHOLE == 2 * HALF) };
    let (halves, _) = x.as_chunks::<HALF>();
    [&halves[0], &halves[1]]
}

impl Simd for Avx2 {
    type F32 = Pair;
    const QUERIES: usize = 1;
    const ROW_QUERIES: usize = 0;

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        [op!(_mm256_set1_ps(x)); 2]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Pair {
        let [low, high] = halves::<_, 8, 16>(x);
        [
            op!(_mm256_loadu_ps(low.as_ptr())),
            op!(_mm256_loadu_ps(high.as_ptr())),
        ]
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> Pair {
        let [low, high] = halves::<_, 32, 64>(x);
        [
            op!(_mm256_loadu_ps(low.as_ptr().cast())),
            op!(_mm256_loadu_ps(high.as_ptr().cast())),
        ]
    }

    #[inline(always)]
    fn store(self, x: Pair, to: &mut [f32; 16]) {
        let (low, high) = to.split_at_mut(8);
        op!(_mm256_storeu_ps(low.as_mut_ptr(), x[0]));
        op!(_mm256_storeu_ps(high.as_mut_ptr(), x[1]));
    }

    #[inline(always)]
    fn widen_f16(self, x: &[u8; 32]) -> Pair {
        let [low, high] = halves::<_, 16, 32>(x);
        [op!(widen_f16(low)), op!(widen_f16(high))]
    }

    #[inline(always)]
    fn widen_bf16(self, x: &[u8; 32]) -> Pair {
        let [low, high] = halves::<_, 16, 32>(x);
        [op!(widen_bf16(low)), op!(widen_bf16(high))]
    }

    #[inline(always)]
    fn convert_i8(self, x: &[u8; 16]) -> Pair {
        let [low, high] = halves::<_, 8, 16>(x);
        [op!(widen_i8(low)), op!(widen_i8(high))]
    }

    #[inline(always)]
    fn narrow_f16(self, x: Pair, to: &mut [u8; 32]) {
        for (half, to) in x.into_iter().zip(to.chunks_exact_mut(16)) {
            let bits = op!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(half));
            op!(_mm_storeu_si128(to.as_mut_ptr().cast(), bits));
        }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        [
            op!(_mm256_add_ps(a[0], b[0])),
            op!(_mm256_add_ps(a[1], b[1])),
        ]
    }

    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        [
            op!(_mm256_sub_ps(a[0], b[0])),
            op!(_mm256_sub_ps(a[1], b[1])),
        ]
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        [
            op!(_mm256_mul_ps(a[0], b[0])),
            op!(_mm256_mul_ps(a[1], b[1])),
        ]
    }

    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        [
            op!(_mm256_div_ps(a[0], b[0])),
            op!(_mm256_div_ps(a[1], b[1])),
        ]
    }

    #[inline(always)]
    fn fma(self, a: Pair, b: Pair, c: Pair) -> Pair {
        [
            op!(_mm256_fmadd_ps(a[0], b[0], c[0])),
            op!(_mm256_fmadd_ps(a[1], b[1], c[1])),
        ]
    }

    #[inline(always)]
    fn select_lt(self, a: Pair, b: Pair, x: Pair, y: Pair) -> Pair {
        [
            op!(select_lt(a[0], b[0], x[0], y[0])),
            op!(select_lt(a[1], b[1], x[1], y[1])),
        ]
    }

    // The instructions give their second operand where either is NaN.
    #[inline(always)]
    fn max_of(self, a: Pair, b: Pair) -> Pair {
        [
            op!(_mm256_max_ps(b[0], a[0])),
            op!(_mm256_max_ps(b[1], a[1])),
        ]
    }

    #[inline(always)]
    fn min_of(self, a: Pair, b: Pair) -> Pair {
        [
            op!(_mm256_min_ps(b[0], a[0])),
            op!(_mm256_min_ps(b[1], a[1])),
        ]
    }

    #[inline(always)]
    fn abs(self, x: Pair) -> Pair {
        [op!(abs(x[0])), op!(abs(x[1]))]
    }

    #[inline(always)]
    fn max_magnitude(self, a: Pair, x: Pair) -> Pair {
        [
            op!(max_magnitude(a[0], x[0])),
            op!(max_magnitude(a[1], x[1])),
        ]
    }

    #[inline(always)]
    fn round(self, x: Pair) -> Pair {
        [op!(round(x[0])), op!(round(x[1]))]
    }

    #[inline(always)]
    fn exp2_integer(self, n: Pair) -> Pair {
        [op!(exp2_integer(n[0])), op!(exp2_integer(n[1]))]
    }

    #[inline(always)]
    fn narrow_i8(self, x: Pair, to: &mut [i8; 16]) {
        let bytes = op!(narrow_i8(x));
        op!(_mm_storeu_si128(to.as_mut_ptr().cast(), bytes));
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], ahead: usize) {
        // SAFETY: a prefetch is a hint: no address can fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(ahead).cast()) };
    }

    #[inline(always)]
    fn prefetch_far(self, bytes: &[u8], ahead: usize) {
        // SAFETY: a prefetch is a hint: no address can fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().wrapping_add(ahead).cast()) };
    }

    #[inline(always)]
    fn sum(self, x: Pair) -> f32 {
        op!(sum(x))
    }
}

// Every vector is two: both are named, because a closure over them may stay out of line, without
// the instruction set.

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16(x: &[u8; 16]) -> __m256 {
    // SAFETY: the pointer comes from a reference to exactly the bytes read.
    let bits = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
    _mm256_cvtph_ps(bits)
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen_i8(x: &[u8; 8]) -> __m256 {
    // SAFETY: the pointer comes from a reference to exactly the bytes read.
    let bytes = unsafe { _mm_loadl_epi64(x.as_ptr().cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx2")]
fn round(x: __m256) -> __m256 {
    _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen_bf16(x: &[u8; 16]) -> __m256 {
    // SAFETY: the pointer comes from a reference to exactly the bytes read.
    let bits = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn select_lt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
    _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn abs(x: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn max_magnitude(a: __m256, x: __m256) -> __m256 {
    let (a, x) = (_mm256_castps_si256(a), _mm256_castps_si256(abs(x)));
    _mm256_castsi256_ps(_mm256_max_epi32(a, x))
}

#[inline]
#[target_feature(enable = "avx2")]
fn exp2_integer(n: __m256) -> __m256 {
    let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow_i8(x: Pair) -> __m128i {
    let low = _mm256_cvtps_epi32(x[0]);
    let high = _mm256_cvtps_epi32(x[1]);
    // The pack interleaves 128-bit lanes; the permutation puts them back in order.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
    _mm_packs_epi16(
        _mm256_castsi256_si128(words),
        _mm256_extracti128_si256::<1>(words),
    )
}

/// The canonical tree, see [`super::tree_sum`].
#[inline]
#[target_feature(enable = "avx2")]
fn sum(x: Pair) -> f32 {
    // Groups 0 and 1 in one register, 2 and 3 in the other; each to its own sum in lane 0.
    let group_sums = |x: __m256| {
        let pairs = _mm256_add_ps(x, _mm256_permute_ps::<0b00_00_11_10>(x));
        _mm256_add_ps(pairs, _mm256_permute_ps::<0b01>(pairs))
    };
    // g0+g2 and g1+g3, then their sum.
    let halves = _mm256_add_ps(group_sums(x[0]), group_sums(x[1]));
    let all = _mm_add_ss(
        _mm256_castps256_ps128(halves),
        _mm256_extractf128_ps::<1>(halves),
    );
    _mm_cvtss_f32(all)
}
