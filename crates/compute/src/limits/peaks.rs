//! Arithmetic rates of loops that stay in registers.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Samples;
use super::bandwidth::{Span, lock};
use crate::Isa;
use crate::pool::Pool;
use crate::simd::limit_loops;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Bytes, summed in 32-bit integers.
    Int8,
    /// BF16, summed in F32.
    Bf16,
    /// F32.
    F32,
}

impl Operand {
    /// `int8`, `bf16` or `f32`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// Instructions that multiply and add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// AMX tiles of bytes.
    AmxInt8,
    /// AVX-512 VNNI.
    Dot512,
    /// AVX-512 VNNI on half registers.
    Dot256,
    /// AVX2: pairwise products, pairwise sums, an addition.
    PairwiseDot256,
    /// AMX tiles of BF16.
    AmxBf16,
    /// AVX-512 BF16.
    BfloatDot512,
    /// AVX-512 fused multiply-add.
    Fma512,
    /// Fused multiply-add on 256 bits.
    Fma256,
}

impl Route {
    /// Every route, by operand.
    pub const ALL: [Self; 8] = [
        Self::AmxInt8,
        Self::Dot512,
        Self::Dot256,
        Self::PairwiseDot256,
        Self::AmxBf16,
        Self::BfloatDot512,
        Self::Fma512,
        Self::Fma256,
    ];

    /// The fastest instructions that kernels of `isa` may use for `operand`; `None` for scalar code,
    /// whose rate is the compiler's affair, and for operands that no kernel multiplies.
    #[must_use]
    pub const fn of(isa: Isa, operand: Operand) -> Option<Self> {
        match (isa, operand) {
            (Isa::Scalar, _) | (_, Operand::Bf16) => None,
            (Isa::Avx2, Operand::Int8) => Some(Self::PairwiseDot256),
            (Isa::Avx2, Operand::F32) => Some(Self::Fma256),
            (Isa::Avx512, Operand::Int8) => Some(Self::Dot512),
            (Isa::Amx, Operand::Int8) => Some(Self::AmxInt8),
            (Isa::Avx512 | Isa::Amx, Operand::F32) => Some(Self::Fma512),
        }
    }

    /// What it multiplies.
    #[must_use]
    pub const fn operand(self) -> Operand {
        match self {
            Self::AmxInt8 | Self::Dot512 | Self::Dot256 | Self::PairwiseDot256 => Operand::Int8,
            Self::AmxBf16 | Self::BfloatDot512 => Operand::Bf16,
            Self::Fma512 | Self::Fma256 => Operand::F32,
        }
    }

    /// Its instructions and registers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmxInt8 => "tdpbusd tmm",
            Self::Dot512 => "vpdpbusd zmm",
            Self::Dot256 => "vpdpbusd ymm",
            Self::PairwiseDot256 => "vpmaddubsw+vpmaddwd ymm",
            Self::AmxBf16 => "tdpbf16ps tmm",
            Self::BfloatDot512 => "vdpbf16ps zmm",
            Self::Fma512 => "vfmadd zmm",
            Self::Fma256 => "vfmadd ymm",
        }
    }

    /// Whether this machine has the instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        limit_loops::is_available(self)
    }
}

/// The rate of one route.
#[derive(Debug, Clone, PartialEq)]
pub struct Peak {
    /// Its instructions.
    pub route: Route,
    /// Threads that computed.
    pub threads: usize,
    /// Operations per second of all threads together; a multiplication and an addition are two.
    pub samples: Samples,
}

/// Threads ready to run one route's loop: a probe to stand before and after a measurement that
/// computes.
#[derive(Debug)]
pub struct ComputeProbe {
    pool: Pool,
    route: Route,
}

impl ComputeProbe {
    /// A probe of `threads` threads; `None` if this machine lacks the instructions.
    ///
    /// # Panics
    /// If `threads` is zero.
    #[must_use]
    pub fn new(route: Route, threads: usize) -> Option<Self> {
        route.is_available().then(|| Self {
            pool: Pool::new(threads),
            route,
        })
    }

    /// Computes for `passes` times `pass`.
    pub fn measure(&mut self, passes: usize, pass: Duration) -> Peak {
        measure(&mut self.pool, self.route, passes, pass)
    }
}

/// Steps between two looks at the clock: about 0.1 ms.
const STEPS_A_LOOK: u64 = 20_000;

/// Runs the route's loop on all threads for `passes` times `pass`.
///
/// # Panics
/// If this machine lacks the instructions.
pub(super) fn measure(pool: &mut Pool, route: Route, passes: usize, pass: Duration) -> Peak {
    let threads = pool.threads();
    // The first stretch runs at the clock of what came before.
    one_pass(pool, route, pass / 4);
    let samples = (0..passes).map(|_| one_pass(pool, route, pass)).collect();
    Peak {
        route,
        threads,
        samples: Samples(samples),
    }
}

fn one_pass(pool: &mut Pool, route: Route, pass: Duration) -> f64 {
    let spans: Vec<Mutex<Option<Span>>> = (0..pool.threads()).map(|_| Mutex::new(None)).collect();
    pool.run(&|thread| *lock(&spans[thread]) = Some(compute_for(route, pass)));
    Span::rate(spans.into_iter().filter_map(|span| *lock(&span)))
}

fn compute_for(route: Route, duration: Duration) -> Span {
    let start = Instant::now();
    let mut amount = 0.0;
    loop {
        let (operations, result) = limit_loops::compute(route, black_box(STEPS_A_LOOK));
        black_box(result);
        amount += operations as f64;
        let end = Instant::now();
        if end - start >= duration {
            return Span { start, end, amount };
        }
    }
}
