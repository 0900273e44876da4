//! Sixteen lanes in an array: portable, and the meaning of every other implementation.

use half::{bf16, f16};

use super::Simd;

/// The token everyone has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

fn map(x: [f32; 16], f: impl Fn(f32) -> f32) -> [f32; 16] {
    x.map(f)
}

fn zip(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Element `i` of `N` bytes each.
fn at<const N: usize>(bytes: &[u8], i: usize) -> &[u8; N] {
    &bytes.as_chunks().0[i]
}

impl Simd for Scalar {
    type F32 = [f32; 16];
    const QUERIES: usize = 1;
    const ROW_QUERIES: usize = 0;

    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }

    fn load(self, x: &[f32; 16]) -> [f32; 16] {
        *x
    }

    fn load_bytes(self, x: &[u8; 64]) -> [f32; 16] {
        std::array::from_fn(|i| f32::from_le_bytes(*at(x, i)))
    }

    fn store(self, x: [f32; 16], to: &mut [f32; 16]) {
        *to = x;
    }

    fn widen_f16(self, x: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| f16::from_le_bytes(*at(x, i)).to_f32())
    }

    fn widen_bf16(self, x: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| bf16::from_le_bytes(*at(x, i)).to_f32())
    }

    fn convert_i8(self, x: &[u8; 16]) -> [f32; 16] {
        x.map(|x| f32::from(x.cast_signed()))
    }

    fn narrow_f16(self, x: [f32; 16], to: &mut [u8; 32]) {
        for (to, x) in to.chunks_exact_mut(2).zip(x) {
            to.copy_from_slice(&f16::from_f32(x).to_le_bytes());
        }
    }

    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a + b)
    }

    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a - b)
    }

    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a * b)
    }

    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a / b)
    }

    fn fma(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    fn select_lt(self, a: [f32; 16], b: [f32; 16], x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    fn max_of(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        self.select_lt(a, b, b, a)
    }

    fn min_of(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        self.select_lt(b, a, b, a)
    }

    fn abs(self, x: [f32; 16]) -> [f32; 16] {
        map(x, f32::abs)
    }

    fn max_magnitude(self, a: [f32; 16], x: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| f32::from_bits(a[i].to_bits().max(x[i].abs().to_bits())))
    }

    fn round(self, x: [f32; 16]) -> [f32; 16] {
        map(x, f32::round_ties_even)
    }

    fn exp2_integer(self, n: [f32; 16]) -> [f32; 16] {
        // The exponent field of 2ⁿ; n is integer-valued, so the conversion is exact.
        map(n, |n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }

    fn narrow_i8(self, x: [f32; 16], to: &mut [i8; 16]) {
        *to = x.map(|x| x as i8);
    }

    #[inline(always)]
    fn prefetch(self, _: &[u8], _: usize) {}

    fn prefetch_far(self, _: &[u8], _: usize) {}
}
