//! AVX-512: sixteen F32 lanes in one register.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that this machine has AVX-512 F, BW, DQ, VL, VBMI and VNNI, AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The token, where the machine has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }

    /// Runs a kernel compiled with these instructions.
    #[inline]
    pub(crate) fn vectorize<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c"
        )]
        fn inner<K: Kernel<Avx512>>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` exists, so `detect` has seen every feature `inner` enables.
        unsafe { inner(self, kernel) }
    }

    /// Has `values` computed before the assembly that follows. The compiler would move work on
    /// registers behind it, but not what the work takes from memory.
    #[inline(always)]
    pub(crate) fn settle(self, values: &mut [__m512; 16]) {
        op!(settle(values));
    }
}

impl Simd for Avx512 {
    type F32 = __m512;
    const QUERIES: usize = 4;
    const ROW_QUERIES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> __m512 {
        op!(_mm512_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> __m512 {
        op!(_mm512_loadu_ps(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; 16]) {
        op!(_mm512_storeu_ps(to.as_mut_ptr(), x));
    }

    #[inline(always)]
    fn widen_f16(self, x: &[u8; 32]) -> __m512 {
        let bits = op!(_mm256_loadu_si256(x.as_ptr().cast()));
        // `_mm512_cvtph_ps` asks for no exceptions, which it cannot have of an operand in memory.
        op!(_mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(bits))
    }

    #[inline(always)]
    fn widen_bf16(self, x: &[u8; 32]) -> __m512 {
        let bits = op!(_mm256_loadu_si256(x.as_ptr().cast()));
        op!(widen_bf16(bits))
    }

    #[inline(always)]
    fn convert_i8(self, x: &[u8; 16]) -> __m512 {
        let bytes = op!(_mm_loadu_si128(x.as_ptr().cast()));
        op!(widen_i8(bytes))
    }

    #[inline(always)]
    fn narrow_f16(self, x: __m512, to: &mut [u8; 32]) {
        let bits = op!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
        op!(_mm256_storeu_si256(to.as_mut_ptr().cast(), bits));
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        let less = op!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b));
        op!(_mm512_mask_blend_ps(less, y, x))
    }

    // The instructions give their second operand where either is NaN.
    #[inline(always)]
    fn max_of(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(b, a))
    }

    #[inline(always)]
    fn min_of(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(b, a))
    }

    #[inline(always)]
    fn abs(self, x: __m512) -> __m512 {
        op!(_mm512_abs_ps(x))
    }

    #[inline(always)]
    fn max_magnitude(self, a: __m512, x: __m512) -> __m512 {
        op!(max_magnitude(a, x))
    }

    #[inline(always)]
    fn max_of_magnitudes(self, x: __m512) -> f32 {
        let bits = op!(_mm512_castps_si512(x));
        f32::from_bits(op!(_mm512_reduce_max_epi32(bits)).cast_unsigned())
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        op!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(x))
    }

    #[inline(always)]
    fn exp2_integer(self, n: __m512) -> __m512 {
        op!(exp2_integer(n))
    }

    #[inline(always)]
    fn narrow_i8(self, x: __m512, to: &mut [i8; 16]) {
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
    fn sum(self, x: __m512) -> f32 {
        op!(sum(x))
    }

    #[inline(always)]
    fn max(self, x: __m512) -> f32 {
        op!(_mm512_reduce_max_ps(x))
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widen_bf16(bits: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widen_i8(bytes: __m128i) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn max_magnitude(a: __m512, x: __m512) -> __m512 {
    let (a, x) = (
        _mm512_castps_si512(a),
        _mm512_castps_si512(_mm512_abs_ps(x)),
    );
    _mm512_castsi512_ps(_mm512_max_epi32(a, x))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn exp2_integer(n: __m512) -> __m512 {
    let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn narrow_i8(x: __m512) -> __m128i {
    _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))
}

/// The canonical tree, see [`super::tree_sum`].
#[inline]
#[target_feature(enable = "avx512f")]
fn sum(x: __m512) -> f32 {
    // In lanes 0 and 1 of each group: x0+x2, x1+x3; then the group's sum in its lane 0.
    let pairs = _mm512_add_ps(x, _mm512_permute_ps::<0b00_00_11_10>(x));
    let groups = _mm512_add_ps(pairs, _mm512_permute_ps::<0b01>(pairs));
    // g0+g2 and g1+g3, then their sum.
    let halves = _mm512_add_ps(
        groups,
        _mm512_shuffle_f32x4::<0b00_00_11_10>(groups, groups),
    );
    let all = _mm512_add_ps(halves, _mm512_shuffle_f32x4::<0b01>(halves, halves));
    _mm512_cvtss_f32(all)
}

/// `acc + a · b` over pairs of words. In assembly because the compiler, which may not assume a
/// processor as new as these, would make two instructions of a chain of these.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn dpwssd(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the instruction is enabled here and touches the named registers only.
    unsafe {
        asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

#[inline]
#[target_feature(enable = "avx512f")]
fn settle(values: &mut [__m512; 16]) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = values;
    // SAFETY: it is a comment.
    unsafe {
        asm!(
            "# {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}",
            inout(zmm_reg) * a,
            inout(zmm_reg) * b,
            inout(zmm_reg) * c,
            inout(zmm_reg) * d,
            inout(zmm_reg) * e,
            inout(zmm_reg) * f,
            inout(zmm_reg) * g,
            inout(zmm_reg) * h,
            inout(zmm_reg) * i,
            inout(zmm_reg) * j,
            inout(zmm_reg) * k,
            inout(zmm_reg) * l,
            inout(zmm_reg) * m,
            inout(zmm_reg) * n,
            inout(zmm_reg) * o,
            inout(zmm_reg) * p,
            options(nomem, nostack, preserves_flags),
        );
    }
}
