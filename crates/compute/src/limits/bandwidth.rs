//! Read bandwidth: every thread reads a private slice that it touched first.

use std::hint::black_box;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::{Samples, host};
use crate::pool::Pool;
use crate::simd::limit_loops::{self, Line};

/// In what order a slice is read. Which is fastest is the machine's affair: a limit is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// From the first line to the last.
    One,
    /// The same, prefetching 64 lines ahead.
    OneAhead,
    /// Four quarters in turn, eight lines of each.
    Four,
    /// The same, prefetching 16 lines ahead.
    FourAhead,
}

impl Pattern {
    /// Every pattern.
    pub const ALL: [Self; 4] = [Self::One, Self::OneAhead, Self::Four, Self::FourAhead];

    /// Places read in turn.
    #[must_use]
    pub const fn streams(self) -> usize {
        match self {
            Self::One | Self::OneAhead => 1,
            Self::Four | Self::FourAhead => 4,
        }
    }

    /// A word for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "1 stream",
            Self::OneAhead => "1 stream, prefetch 64",
            Self::Four => "4 streams",
            Self::FourAhead => "4 streams, prefetch 16",
        }
    }
}

/// Lines read between two looks at the clock, at least: 1 MiB.
const LINES_A_LOOK: usize = 1 << 14;
/// Lines over which a pattern's streams are spread, at most: 8 MiB.
const SEGMENT: usize = 1 << 17;
/// Rounds in which the patterns compete.
const TRIALS: usize = 3;

/// Threads and their slices, ready to be read again and again.
#[derive(Debug)]
pub struct BandwidthProbe {
    pool: Pool,
    slices: Vec<Mutex<MmapMut>>,
}

/// The rates of one working set.
#[derive(Debug, Clone, PartialEq)]
pub struct Bandwidth {
    /// Threads that read.
    pub threads: usize,
    /// Bytes of all slices together.
    pub working_set_bytes: usize,
    /// The pattern that won a short trial.
    pub pattern: Pattern,
    /// Bytes per second, of all threads together.
    pub samples: Samples,
}

impl BandwidthProbe {
    /// Slices of four times the last-level cache together (4 × 64 MiB where its size is unknown),
    /// but never more than a third of the available memory.
    ///
    /// # Errors
    /// If the system does not give the memory.
    ///
    /// # Panics
    /// If `threads` is zero.
    pub fn new(threads: usize) -> io::Result<Self> {
        Self::with_working_set(threads, working_set_bytes())
    }

    /// Slices of `bytes` together, each rounded up to whole KiB.
    ///
    /// # Errors
    /// If the system does not give the memory.
    ///
    /// # Panics
    /// If `threads` is zero.
    pub fn with_working_set(threads: usize, bytes: usize) -> io::Result<Self> {
        let mut pool = Pool::new(threads);
        let slice_bytes = bytes.div_ceil(threads).next_multiple_of(1024);
        let slices = (0..threads)
            .map(|_| Ok(Mutex::new(allocate(slice_bytes)?)))
            .collect::<io::Result<Vec<_>>>()?;
        // Not zero: a page of zeros may be one page shared by all.
        pool.run(&|thread| lock(&slices[thread]).fill(1));
        Ok(Self { pool, slices })
    }

    /// Bytes of all slices together.
    #[must_use]
    pub fn working_set_bytes(&self) -> usize {
        self.slices.iter().map(|slice| lock(slice).len()).sum()
    }

    /// Reads for `passes` times `pass` in the pattern that wins a short trial.
    pub fn measure(&mut self, passes: usize, pass: Duration) -> Bandwidth {
        let pattern = self.best_pattern(pass / 4);
        let samples = (0..passes).map(|_| self.pass(pattern, pass)).collect();
        Bandwidth {
            threads: self.slices.len(),
            working_set_bytes: self.working_set_bytes(),
            pattern,
            samples: Samples(samples),
        }
    }

    fn best_pattern(&mut self, pass: Duration) -> Pattern {
        let mut best = (0.0, Pattern::One);
        for _ in 0..TRIALS {
            for pattern in Pattern::ALL {
                let rate = self.pass(pattern, pass);
                if rate > best.0 {
                    best = (rate, pattern);
                }
            }
        }
        best.1
    }

    /// Bytes per second over one pass: all threads' bytes, from the first start to the last end.
    fn pass(&mut self, pattern: Pattern, pass: Duration) -> f64 {
        let spans: Vec<Mutex<Option<Span>>> =
            self.slices.iter().map(|_| Mutex::new(None)).collect();
        let slices = &self.slices;
        self.pool.run(&|thread| {
            let slice = lock(&slices[thread]);
            *lock(&spans[thread]) = Some(read_for(bytemuck::cast_slice(&slice), pattern, pass));
        });
        Span::rate(spans.into_iter().filter_map(|span| *lock(&span)))
    }
}

/// Read bandwidth of `threads` threads in bytes per second, over about `duration` after the slices
/// are made: a probe to stand before and after a measurement that reads memory.
///
/// # Errors
/// If the system does not give the memory.
///
/// # Panics
/// If `threads` is zero.
pub fn read_bandwidth(threads: usize, duration: Duration) -> io::Result<f64> {
    // The trial of patterns takes 12 quarters of a pass, the passes 5.
    Ok(BandwidthProbe::new(threads)?
        .measure(5, duration / 8)
        .samples
        .median())
}

/// Bytes to read so that caches hold little of them.
pub(super) fn working_set_bytes() -> usize {
    let cache = host::last_level_cache_bytes().unwrap_or(64 << 20);
    let available = host::available_memory_bytes().unwrap_or(usize::MAX);
    cache.saturating_mul(4).min(available / 3).max(1 << 20)
}

fn allocate(bytes: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes)?;
    // Huge pages where the system has them: a limit is without the cost of small ones.
    #[cfg(target_os = "linux")]
    let _refused = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work done by one thread between two moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: Instant,
    pub(super) end: Instant,
    pub(super) amount: f64,
}

impl Span {
    /// All spans' work, from the first start to the last end, per second.
    pub(super) fn rate(spans: impl Iterator<Item = Self>) -> f64 {
        let all = spans.reduce(|a, b| Self {
            start: a.start.min(b.start),
            end: a.end.max(b.end),
            amount: a.amount + b.amount,
        });
        all.map_or(0.0, |all| all.amount / (all.end - all.start).as_secs_f64())
    }
}

fn read_for(slice: &[Line], pattern: Pattern, duration: Duration) -> Span {
    let start = Instant::now();
    let mut lines = 0;
    let mut looked = 0;
    loop {
        for segment in slice.chunks(SEGMENT) {
            black_box(limit_loops::read(black_box(segment), pattern));
            lines += segment.len();
            if lines - looked >= LINES_A_LOOK {
                looked = lines;
                let end = Instant::now();
                if end - start >= duration {
                    return Span {
                        start,
                        end,
                        amount: (lines * size_of::<Line>()) as f64,
                    };
                }
            }
        }
    }
}
