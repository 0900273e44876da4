//! Instruction sets as values.
//!
//! An ISA token ([`Scalar`], `Avx2`, `Avx512`) can only be made by its `detect`, so holding one is
//! the proof that this machine has the instructions. A kernel is written once over [`Simd`] (sixteen
//! F32 lanes, the sixteen chains of the canonical arithmetic) or `IntSimd` (32-byte integer
//! vectors) and instantiated for each token by [`dispatch`].
//!
//! Every method of a token is `inline(always)`: target features do not cross a call that is not
//! inlined, so a kernel, and all it calls, must end up inside the token's `vectorize`.
#![allow(unsafe_code, reason = "intrinsics: one of the three homes of unsafe")]

use std::fmt;
use std::str::FromStr;

/// One operation under a token's proof.
#[cfg(target_arch = "x86_64")]
macro_rules! op {
    ($call:expr) => {
        // SAFETY: the token at hand proves the instructions (that of an `IntSimd` AVX2, FMA and F16C,
        // and `Avx512` also AVX-512 VL and VNNI); pointers come from references to exactly the
        // bytes read or written.
        unsafe { $call }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod block_lanes;
#[cfg(target_arch = "x86_64")]
mod int256;
#[cfg(target_arch = "x86_64")]
mod k_lanes;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub(crate) mod limit_loops;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod planes;
#[cfg(target_arch = "x86_64")]
mod strips;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use block_lanes::BlockLanes;
#[cfg(target_arch = "x86_64")]
pub(crate) use int256::IntSimd;
#[cfg(target_arch = "x86_64")]
pub(crate) use k_lanes::KLanes;
#[cfg(target_arch = "x86_64")]
pub(crate) use lanes::{Lanes, Quad, Sixteen, Stored};
pub(crate) use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) use strips::Quads;
#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::Amx;

/// Which instructions the kernels use. The results' bits do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable code: the specification.
    Scalar,
    /// AVX2, FMA and F16C (Haswell, Zen and later).
    Avx2,
    /// AVX-512 F, BW, DQ, VL, VBMI and VNNI (Ice Lake, Zen 4 and later).
    Avx512,
    /// The same, and int8 products of AMX tiles where many tokens meet quantised weights (Sapphire
    /// Rapids and later, where the system permits it).
    Amx,
}

impl Isa {
    /// All of them, slowest first.
    const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// The ISAs of this machine, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// The best ISA of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// Whether this machine has the instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Amx::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Amx => false,
        }
    }

    /// `scalar`, `avx2`, `avx512` or `amx`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(s: &str) -> Result<Self, UnknownIsa> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == s)
            .ok_or_else(|| UnknownIsa {
                found: s.to_owned(),
            })
    }
}

/// A name that is no [`Isa`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set {found:?}: expected scalar, avx2, avx512 or amx")]
pub struct UnknownIsa {
    found: String,
}

/// Code that can run under the token `S`. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel<S> {
    type Output;
    fn run(self, simd: S) -> Self::Output;
}

/// Runs a floating-point kernel with the instructions of `isa`.
///
/// # Panics
/// If this machine lacks them.
pub(crate) fn dispatch<O, K>(isa: Isa, kernel: K) -> O
where
    K: Kernel<Scalar, Output = O> + KernelX86<O>,
{
    match isa {
        Isa::Scalar => kernel.run(Scalar),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Avx2::detect()
            .expect("AVX2, checked at start")
            .vectorize(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => Avx512::detect()
            .expect("AVX-512, checked at start")
            .vectorize(kernel),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => {
            panic!("{isa} is not an instruction set of this machine")
        }
    }
}

/// Runs a kernel that needs vector instructions.
///
/// # Panics
/// If `isa` has none, or this machine lacks them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn dispatch_x86<O, K: KernelX86<O>>(isa: Isa, kernel: K) -> O {
    match isa {
        Isa::Scalar => panic!("a vector kernel on {isa}"),
        Isa::Avx2 => Avx2::detect()
            .expect("AVX2, checked at start")
            .vectorize(kernel),
        Isa::Avx512 | Isa::Amx => Avx512::detect()
            .expect("AVX-512, checked at start")
            .vectorize(kernel),
    }
}

/// The kernel under every x86 token; nothing to ask for on other machines.
#[cfg(target_arch = "x86_64")]
pub(crate) trait KernelX86<O>:
    Kernel<Avx2, Output = O> + Kernel<Avx512, Output = O>
{
}
#[cfg(target_arch = "x86_64")]
impl<O, K: Kernel<Avx2, Output = O> + Kernel<Avx512, Output = O>> KernelX86<O> for K {}
/// The kernel under every x86 token; nothing to ask for on other machines.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) trait KernelX86<O> {}
#[cfg(not(target_arch = "x86_64"))]
impl<O, K> KernelX86<O> for K {}

/// Sixteen F32 lanes: one lane per chain of the canonical arithmetic.
pub(crate) trait Simd: Copy {
    /// Sixteen F32 values.
    type F32: Copy;
    /// Queries that attention takes at a time, 1 to 4: their sums stay in registers.
    const QUERIES: usize;
    /// Queries of one row that attention gives values to as they are stored, at most 8, of which two
    /// vectors of sums each stay in registers; 0: values are always widened first.
    const ROW_QUERIES: usize;

    fn splat(self, x: f32) -> Self::F32;
    fn load(self, x: &[f32; 16]) -> Self::F32;
    /// Sixteen little-endian F32 values.
    fn load_bytes(self, x: &[u8; 64]) -> Self::F32;
    fn store(self, x: Self::F32, to: &mut [f32; 16]);
    /// Exact widening of sixteen little-endian half-precision values.
    fn widen_f16(self, x: &[u8; 32]) -> Self::F32;
    /// Exact widening of sixteen little-endian bfloat16 values.
    fn widen_bf16(self, x: &[u8; 32]) -> Self::F32;
    /// Exact conversion of sixteen signed bytes.
    fn convert_i8(self, x: &[u8; 16]) -> Self::F32;
    /// Rounding to half precision, nearest even.
    fn narrow_f16(self, x: Self::F32, to: &mut [u8; 32]);
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a < b { x } else { y }` in each lane.
    fn select_lt(self, a: Self::F32, b: Self::F32, x: Self::F32, y: Self::F32) -> Self::F32;
    /// `if a < b { b } else { a }` in each lane: the first where either is NaN.
    fn max_of(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if b < a { b } else { a }` in each lane: the first where either is NaN.
    fn min_of(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn abs(self, x: Self::F32) -> Self::F32;
    /// The larger of `a`, which is not negative, and `|x|`, where NaN is larger than any number: so the
    /// bits are ordered.
    fn max_magnitude(self, a: Self::F32, x: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round(self, x: Self::F32) -> Self::F32;
    /// `2ⁿ` for integer-valued lanes, `-126 ≤ n ≤ 127`; anything for smaller ones.
    fn exp2_integer(self, n: Self::F32) -> Self::F32;
    /// Integer-valued lanes in `-127..=127` as bytes.
    fn narrow_i8(self, x: Self::F32, to: &mut [i8; 16]);
    /// Asks for the cache line `ahead` bytes after the start of `bytes`; it need not be theirs.
    fn prefetch(self, bytes: &[u8], ahead: usize);
    /// The same, but no nearer than the second cache.
    fn prefetch_far(self, bytes: &[u8], ahead: usize);

    /// Sum of the lanes by the canonical tree: `(x0+x2)+(x1+x3)` within each group of four lanes,
    /// then `(g0+g2)+(g1+g3)`.
    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(x, &mut lanes);
        tree_sum(&lanes)
    }

    /// Largest lane (any order gives the same value; NaN is not expected).
    #[inline(always)]
    fn max(self, x: Self::F32) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(x, &mut lanes);
        lanes
            .into_iter()
            .fold(f32::NEG_INFINITY, |a, b| if a < b { b } else { a })
    }

    /// Largest lane of magnitudes, as [`max_magnitude`](Self::max_magnitude) orders them.
    #[inline(always)]
    fn max_of_magnitudes(self, x: Self::F32) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(x, &mut lanes);
        let bits = lanes.map(f32::to_bits);
        f32::from_bits(bits.into_iter().fold(0, u32::max))
    }

    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// Up to sixteen values, zero-padded.
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::F32 {
        let mut lanes = [0.0; 16];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// The first `to.len()` lanes, at most sixteen.
    #[inline(always)]
    fn store_partial(self, x: Self::F32, to: &mut [f32]) {
        let mut lanes = [0.0; 16];
        self.store(x, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}

/// The canonical sum of sixteen chains.
#[inline(always)]
pub(crate) fn tree_sum(x: &[f32; 16]) -> f32 {
    let group = |g: usize| (x[4 * g] + x[4 * g + 2]) + (x[4 * g + 1] + x[4 * g + 3]);
    (group(0) + group(2)) + (group(1) + group(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The larger and the smaller of sixteen pairs.
    struct Extremes<'a>([&'a [f32; 16]; 2]);

    impl<S: Simd> Kernel<S> for Extremes<'_> {
        type Output = [[f32; 16]; 2];

        #[inline(always)]
        fn run(self, s: S) -> [[f32; 16]; 2] {
            let [a, b] = self.0.map(|x| s.load(x));
            let mut out = [[0.0; 16]; 2];
            s.store(s.max_of(a, b), &mut out[0]);
            s.store(s.min_of(a, b), &mut out[1]);
            out
        }
    }

    #[test]
    fn the_larger_and_the_smaller_are_the_first_where_neither_is() {
        let values = [f32::NAN, f32::INFINITY, -1.5, 0.0, -0.0];
        for first in values {
            for second in values {
                let larger = if first < second { second } else { first };
                let smaller = if second < first { second } else { first };
                for isa in Isa::available() {
                    let pairs = Extremes([&[first; 16], &[second; 16]]);
                    assert_eq!(
                        dispatch(isa, pairs).map(|x| x.map(f32::to_bits)),
                        [larger, smaller].map(|x| [x.to_bits(); 16]),
                        "{isa} of {first} and {second}"
                    );
                }
            }
        }
    }
}
