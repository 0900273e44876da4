//! Loops that do nothing but one thing, as fast as this machine can: the ceilings of `limits`.
//!
//! The arithmetic loops keep everything in registers: enough independent chains to cover the
//! instruction's latency, each step one instruction a chain.

#[cfg(target_arch = "x86_64")]
mod amx;

use crate::limits::{Pattern, Route};
#[cfg(target_arch = "x86_64")]
use crate::simd::tiles;

/// A cache line of a private slice.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u64; 8]);

/// Reads every line once with the widest loads and eight accumulators, in `pattern`'s order; the
/// result depends on all.
pub(crate) fn read(lines: &[Line], pattern: Pattern) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: AVX-512 F was detected.
            return unsafe { x86::read_512(lines, pattern) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: AVX2 was detected.
            return unsafe { x86::read_256(lines, pattern) };
        }
    }
    let _ = pattern;
    read_portable(lines)
}

fn read_portable(lines: &[Line]) -> u64 {
    let mut sums = [[0_u64; 8]; 8];
    let (groups, rest) = lines.as_chunks::<8>();
    for group in groups {
        for (sum, line) in sums.iter_mut().zip(group) {
            for (sum, word) in sum.iter_mut().zip(line.0) {
                *sum ^= word;
            }
        }
    }
    let words = sums
        .iter()
        .flatten()
        .chain(rest.iter().flat_map(|line| &line.0));
    words.fold(0, |all, word| all ^ word)
}

/// Whether this machine can run the route's loop.
pub(crate) fn is_available(route: Route) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        match route {
            Route::AmxInt8 => tiles::has_int8(),
            Route::AmxBf16 => tiles::has_bf16(),
            Route::Dot512 => is_x86_feature_detected!("avx512vnni"),
            Route::Dot256 => {
                is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
            }
            Route::PairwiseDot256 => is_x86_feature_detected!("avx2"),
            Route::BfloatDot512 => is_x86_feature_detected!("avx512bf16"),
            Route::Fma512 => is_x86_feature_detected!("avx512f"),
            Route::Fma256 => is_x86_feature_detected!("fma"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = route;
        false
    }
}

/// Runs `steps` steps of the route's loop; returns the operations done, a multiplication and an
/// addition counting two, and a value that depends on all of them.
///
/// # Panics
/// If the route is not available.
pub(crate) fn compute(route: Route, steps: u64) -> (u64, u64) {
    assert!(is_available(route), "{route:?} on this machine");
    #[cfg(target_arch = "x86_64")]
    {
        let (chains, products, result) = match route {
            Route::AmxInt8 => (amx::CHAINS, amx::INT8_PRODUCTS, amx::int8(steps)),
            Route::AmxBf16 => (amx::CHAINS, amx::BF16_PRODUCTS, amx::bf16(steps)),
            // SAFETY: `is_available` has detected AVX-512 VNNI.
            Route::Dot512 => (x86::CHAINS_512, 64, unsafe { x86::dot_512(steps) }),
            // SAFETY: `is_available` has detected AVX-512 VNNI and VL.
            Route::Dot256 => (x86::CHAINS_512, 32, unsafe { x86::dot_256(steps) }),
            // SAFETY: `is_available` has detected AVX2.
            Route::PairwiseDot256 => (x86::CHAINS_256, 32, unsafe { x86::pairwise_256(steps) }),
            // SAFETY: `is_available` has detected AVX-512 BF16.
            Route::BfloatDot512 => (x86::CHAINS_512, 32, unsafe { x86::bfloat_512(steps) }),
            // SAFETY: `is_available` has detected AVX-512 F.
            Route::Fma512 => (x86::CHAINS_512, 16, unsafe { x86::fma_512(steps) }),
            // SAFETY: `is_available` has detected FMA.
            Route::Fma256 => (x86::CHAINS_256, 8, unsafe { x86::fma_256(steps) }),
        };
        (steps * chains * products * 2, result)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = steps;
        unreachable!("no route is available on this machine")
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{Line, Pattern};

    /// Independent chains with 32 registers.
    pub(super) const CHAINS_512: u64 = 16;
    /// Independent chains with 16 registers.
    pub(super) const CHAINS_256: u64 = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn read_512(lines: &[Line], pattern: Pattern) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 8];
        let rest = each_group(lines, pattern, |group, ahead| {
            for (sum, line) in sums.iter_mut().zip(group) {
                prefetch(line, ahead);
                // SAFETY: a line is 64 readable bytes.
                let line = unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) };
                *sum = _mm512_xor_si512(*sum, line);
            }
        });
        let all = sums
            .into_iter()
            .fold(_mm512_setzero_si512(), |a, b| _mm512_xor_si512(a, b));
        _mm512_reduce_add_epi64(all) as u64 ^ super::read_portable(rest)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn read_256(lines: &[Line], pattern: Pattern) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        let rest = each_group(lines, pattern, |group, ahead| {
            for (i, line) in group.iter().enumerate() {
                prefetch(line, ahead);
                for (j, half) in line.0.as_chunks::<4>().0.iter().enumerate() {
                    // SAFETY: half a line is 32 readable bytes.
                    let half = unsafe { _mm256_load_si256(std::ptr::from_ref(half).cast()) };
                    let sum = &mut sums[(2 * i + j) % 8];
                    *sum = _mm256_xor_si256(*sum, half);
                }
            }
        });
        let all = sums
            .into_iter()
            .fold(_mm256_setzero_si256(), |a, b| _mm256_xor_si256(a, b));
        let mut words = [0_u64; 4];
        // SAFETY: 32 writable bytes.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
        words
            .into_iter()
            .fold(super::read_portable(rest), |a, b| a ^ b)
    }

    /// Calls `read` for each eight lines, the streams in turn, with the distance to prefetch as a
    /// constant of each call site; gives back the lines that were not covered.
    #[inline(always)]
    fn each_group(
        lines: &[Line],
        pattern: Pattern,
        mut read: impl FnMut(&[Line; 8], usize),
    ) -> &[Line] {
        let (groups, _) = lines.as_chunks::<8>();
        let part = groups.len() / pattern.streams();
        match pattern {
            Pattern::One => groups.iter().for_each(|group| read(group, 0)),
            Pattern::OneAhead => groups.iter().for_each(|group| read(group, 64)),
            Pattern::Four | Pattern::FourAhead => {
                let (first, second) = groups[..4 * part].split_at(2 * part);
                let streams = first[..part].iter().zip(&first[part..]);
                let streams = streams.zip(second[..part].iter().zip(&second[part..]));
                if pattern == Pattern::FourAhead {
                    for ((a, b), (c, d)) in streams {
                        [a, b, c, d].into_iter().for_each(|group| read(group, 16));
                    }
                } else {
                    for ((a, b), (c, d)) in streams {
                        [a, b, c, d].into_iter().for_each(|group| read(group, 0));
                    }
                }
            }
        }
        &lines[8 * part * pattern.streams()..]
    }

    /// Asks for the line `ahead` of this one; 0 asks for none.
    #[inline(always)]
    fn prefetch(line: &Line, ahead: usize) {
        if ahead > 0 {
            let ahead = std::ptr::from_ref(line).wrapping_add(ahead);
            // SAFETY: a prefetch may name any address; it cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn dot_512(steps: u64) -> u64 {
        let a = black_box(_mm512_set1_epi8(3));
        let b = black_box(_mm512_set1_epi8(-5));
        let mut sums = [_mm512_setzero_si512(); CHAINS_512 as usize];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        let all = sums
            .into_iter()
            .fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi32(a, b));
        _mm512_reduce_add_epi32(all) as u64
    }

    #[target_feature(enable = "avx512f,avx512vnni,avx512vl")]
    pub(super) fn dot_256(steps: u64) -> u64 {
        let a = black_box(_mm256_set1_epi8(3));
        let b = black_box(_mm256_set1_epi8(-5));
        let mut sums = [_mm256_setzero_si256(); CHAINS_512 as usize];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_epi32(*sum, a, b);
            }
        }
        sum_256(sums)
    }

    /// Two instructions and an addition for what `vpdpbusd` does in one.
    #[target_feature(enable = "avx2")]
    pub(super) fn pairwise_256(steps: u64) -> u64 {
        let a = black_box(_mm256_set1_epi8(3));
        let ones = black_box(_mm256_set1_epi16(1));
        let mut sums = [black_box(_mm256_set1_epi8(-5)); CHAINS_256 as usize];
        for _ in 0..steps {
            for sum in &mut sums {
                // The weights are the sum itself: equal ones would be multiplied once for all.
                let pairs = _mm256_maddubs_epi16(a, *sum);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        sum_256(sums)
    }

    #[target_feature(enable = "avx2")]
    fn sum_256<const N: usize>(sums: [__m256i; N]) -> u64 {
        let all = sums
            .into_iter()
            .fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi32(a, b));
        _mm256_extract_epi64::<0>(all) as u64 ^ _mm256_extract_epi64::<3>(all) as u64
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bfloat_512(steps: u64) -> u64 {
        let one = black_box(_mm512_set1_ps(1.0));
        let a = _mm512_cvtne2ps_pbh(one, one);
        let mut sums = [_mm512_setzero_ps(); CHAINS_512 as usize];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, a);
            }
        }
        let all = sums
            .into_iter()
            .fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b));
        u64::from(_mm512_reduce_add_ps(all).to_bits())
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn fma_512(steps: u64) -> u64 {
        let a = black_box(_mm512_set1_ps(0.999));
        let b = black_box(_mm512_set1_ps(0.001));
        let mut sums = [_mm512_setzero_ps(); CHAINS_512 as usize];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        let all = sums
            .into_iter()
            .fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b));
        u64::from(_mm512_reduce_add_ps(all).to_bits())
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma_256(steps: u64) -> u64 {
        let a = black_box(_mm256_set1_ps(0.999));
        let b = black_box(_mm256_set1_ps(0.001));
        let mut sums = [_mm256_setzero_ps(); CHAINS_256 as usize];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        sum_256(sums.map(|sum| _mm256_castps_si256(sum)))
    }
}
