//! What this machine can do at most: read bandwidth, arithmetic rates, the cost of a dispatch.
//!
//! Speeds are stated as fractions of these figures. They are measured, never looked up: a virtual
//! machine's limits move with its neighbours, so each figure keeps all its samples, and
//! [`read_bandwidth`] can stand before and after a measurement.

mod bandwidth;
mod host;
mod peaks;

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

pub use bandwidth::{Bandwidth, BandwidthProbe, Pattern, read_bandwidth};
pub use host::{available_memory_bytes, last_level_cache_bytes};
pub use peaks::{ComputeProbe, Operand, Peak, Route};

use crate::pool::Pool;

/// Raw samples of one quantity, in the order they were taken; none is dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The middle sample, or the mean of the two in the middle; NaN when there are none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The smallest and the largest sample; NaN when there are none.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let pick = |pick: fn(f64, f64) -> f64| self.0.iter().copied().fold(f64::NAN, pick);
        (pick(f64::min), pick(f64::max))
    }
}

/// How long and with how many threads to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsOptions {
    /// Thread counts, each measured by itself.
    pub threads: Vec<usize>,
    /// Samples of each figure.
    pub passes: usize,
    /// Length of one sample.
    pub pass: Duration,
    /// Bytes read by all threads together; `None`: as [`BandwidthProbe::new`].
    pub working_set_bytes: Option<usize>,
}

impl LimitsOptions {
    /// The definition's figures: ten passes of 200 ms, threads 1, 2, 4, … and all of `cores`.
    #[must_use]
    pub fn full(cores: usize) -> Self {
        let mut threads: Vec<usize> = std::iter::successors(Some(1), |n| Some(2 * n))
            .take_while(|&n| n < cores)
            .collect();
        threads.push(cores.max(1));
        Self {
            threads,
            passes: 10,
            pass: Duration::from_millis(200),
            working_set_bytes: None,
        }
    }

    /// The same figures from three passes of 50 ms: a look, not a record.
    #[must_use]
    pub fn quick(cores: usize) -> Self {
        Self {
            passes: 3,
            pass: Duration::from_millis(50),
            ..Self::full(cores)
        }
    }
}

/// The measured limits.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineLimits {
    /// Read bandwidth beyond the caches, one for each thread count.
    pub bandwidth: Vec<Bandwidth>,
    /// Read bandwidth by working set, ascending, at the largest thread count.
    pub curve: Vec<Bandwidth>,
    /// Arithmetic rates, for each thread count the routes of this machine.
    pub peaks: Vec<Peak>,
    /// Time from calling all threads to their return, nothing done, for each thread count.
    pub dispatches: Vec<Dispatch>,
}

/// The time of an empty dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// Threads called.
    pub threads: usize,
    /// Nanoseconds, each the mean of 1,000 dispatches in a row.
    pub samples_ns: Samples,
}

impl MachineLimits {
    /// The best median bandwidth over the thread counts, in bytes per second.
    #[must_use]
    pub fn read_bytes_per_second(&self) -> Option<f64> {
        best(
            self.bandwidth
                .iter()
                .map(|bandwidth| bandwidth.samples.median()),
        )
    }

    /// The best median rate over routes and thread counts, in operations per second.
    #[must_use]
    pub fn operations_per_second(&self, operand: Operand) -> Option<f64> {
        let peaks = self
            .peaks
            .iter()
            .filter(|peak| peak.route.operand() == operand);
        best(peaks.map(|peak| peak.samples.median()))
    }
}

fn best(rates: impl Iterator<Item = f64>) -> Option<f64> {
    rates.max_by(f64::total_cmp)
}

/// A step of [`measure`] that is about to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsProgress {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// What comes now.
    pub what: String,
}

/// Measures everything; the machine should do nothing else meanwhile. `progress` hears of each step
/// before it starts, and may stop the measurement there.
///
/// # Errors
/// If the system does not give the memory to read; [`io::ErrorKind::Interrupted`] if `progress`
/// breaks.
///
/// # Panics
/// If a thread count or the number of passes is zero.
pub fn measure(
    options: &LimitsOptions,
    progress: &mut dyn FnMut(&LimitsProgress) -> ControlFlow<()>,
) -> io::Result<MachineLimits> {
    assert!(options.passes > 0, "at least one pass");
    let most = options.threads.iter().copied().max().unwrap_or(1);
    let bytes = options
        .working_set_bytes
        .unwrap_or_else(bandwidth::working_set_bytes);
    let curve_bytes: Vec<usize> = std::iter::successors(Some(most << 14), |size| Some(4 * size))
        .take_while(|&size| size < bytes)
        .collect();
    let routes: Vec<Route> = Route::ALL
        .into_iter()
        .filter(|route| route.is_available())
        .collect();
    let total = options.threads.len() * (2 + routes.len()) + curve_bytes.len();
    let mut done = 0;
    let mut step = |what: String| {
        done += 1;
        match progress(&LimitsProgress {
            done: done - 1,
            total,
            what,
        }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(io::Error::from(io::ErrorKind::Interrupted)),
        }
    };

    let mut limits = MachineLimits {
        bandwidth: Vec::new(),
        curve: Vec::new(),
        peaks: Vec::new(),
        dispatches: Vec::new(),
    };
    for &threads in &options.threads {
        step(format!("read bandwidth, {}", plural(threads)))?;
        let mut probe = BandwidthProbe::with_working_set(threads, bytes)?;
        limits
            .bandwidth
            .push(probe.measure(options.passes, options.pass));
    }
    for &size in &curve_bytes {
        step(format!("read bandwidth, {} KiB", size >> 10))?;
        let mut probe = BandwidthProbe::with_working_set(most, size)?;
        limits
            .curve
            .push(probe.measure(options.passes, options.pass / 4));
    }
    for &threads in &options.threads {
        let mut pool = Pool::new(threads);
        step(format!("dispatch, {}", plural(threads)))?;
        limits.dispatches.push(dispatch(&mut pool, options.passes));
        for &route in &routes {
            step(format!(
                "{} {}, {}",
                route.operand().name(),
                route.name(),
                plural(threads)
            ))?;
            limits.peaks.push(peaks::measure(
                &mut pool,
                route,
                options.passes,
                options.pass,
            ));
        }
    }
    Ok(limits)
}

fn plural(threads: usize) -> String {
    format!("{threads} thread{}", if threads == 1 { "" } else { "s" })
}

fn dispatch(pool: &mut Pool, passes: usize) -> Dispatch {
    const DISPATCHES: u32 = 1000;
    let mut pass = || {
        let start = Instant::now();
        for _ in 0..DISPATCHES {
            pool.run(&|_| ());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(DISPATCHES)
    };
    pass();
    let samples = (0..passes).map(|_| pass()).collect();
    Dispatch {
        threads: pool.threads(),
        samples_ns: Samples(samples),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::limit_loops::{Line, read};

    #[test]
    fn every_line_is_read_in_every_pattern() {
        for pattern in Pattern::ALL {
            for count in [0, 1, 7, 8, 31, 32, 33, 71, 128] {
                let mut lines = vec![Line([0x0101; 8]); count];
                let before = read(&lines, pattern);
                for changed in 0..count {
                    lines[changed].0[changed % 8] ^= 2;
                    assert_ne!(
                        read(&lines, pattern),
                        before,
                        "{pattern:?}, {changed} of {count}"
                    );
                    lines[changed].0[changed % 8] ^= 2;
                }
            }
        }
    }

    #[test]
    fn a_small_measurement_fills_every_figure() {
        let options = LimitsOptions {
            threads: vec![1, 2],
            passes: 2,
            pass: Duration::from_millis(4),
            working_set_bytes: Some(1 << 20),
        };
        let mut steps = Vec::new();
        let limits = measure(&options, &mut |step| {
            steps.push(step.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(steps.iter().enumerate().all(|(i, step)| step.done == i));
        assert!(steps.iter().all(|step| step.total == steps.len()));

        let threads: Vec<usize> = limits.bandwidth.iter().map(|point| point.threads).collect();
        assert_eq!(threads, options.threads);
        let sizes: Vec<usize> = limits
            .curve
            .iter()
            .map(|point| point.working_set_bytes)
            .collect();
        assert_eq!(sizes, [32 << 10, 128 << 10, 512 << 10]);
        let routes = Route::ALL
            .into_iter()
            .filter(|route| route.is_available())
            .count();
        assert_eq!(limits.peaks.len(), 2 * routes);
        let samples = (limits
            .bandwidth
            .iter()
            .chain(&limits.curve)
            .map(|point| &point.samples))
        .chain(limits.peaks.iter().map(|peak| &peak.samples))
        .chain(
            limits
                .dispatches
                .iter()
                .map(|dispatch| &dispatch.samples_ns),
        );
        for samples in samples {
            assert_eq!(samples.0.len(), 2);
            assert!(
                samples
                    .0
                    .iter()
                    .all(|sample| sample.is_finite() && *sample > 0.0)
            );
        }
        for operand in [Operand::Int8, Operand::Bf16, Operand::F32] {
            let present = Route::ALL
                .into_iter()
                .any(|r| r.operand() == operand && r.is_available());
            assert_eq!(limits.operations_per_second(operand).is_some(), present);
        }
    }

    #[test]
    fn the_route_of_an_instruction_set_is_there_where_it_is() {
        for isa in crate::Isa::available() {
            for operand in [Operand::Int8, Operand::F32] {
                let route = Route::of(isa, operand);
                assert_eq!(route.is_none(), isa == crate::Isa::Scalar);
                let Some(route) = route else { continue };
                assert_eq!(route.operand(), operand);
                let mut probe = ComputeProbe::new(route, 1).unwrap();
                let peak = probe.measure(2, Duration::from_millis(1));
                assert!(peak.samples.median() > 0.0, "{isa}");
            }
        }
    }

    #[test]
    fn a_break_stops_before_the_next_step() {
        let options = LimitsOptions {
            working_set_bytes: Some(1 << 16),
            ..LimitsOptions::quick(1)
        };
        let stop = |step: &LimitsProgress| match step.done {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let mut heard = 0;
        let stopped = measure(&options, &mut |step| {
            heard += 1;
            stop(step)
        });
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(heard, 2);
    }

    #[test]
    fn thread_counts_double_up_to_all() {
        assert_eq!(LimitsOptions::full(1).threads, [1]);
        assert_eq!(LimitsOptions::full(2).threads, [1, 2]);
        assert_eq!(LimitsOptions::full(6).threads, [1, 2, 4, 6]);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!(Samples(Vec::new()).median().is_nan());
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0]).range(), (1.0, 4.0));
    }
}
