//! The bench where one case after the other is set up, checked and timed.

use std::time::{Duration, Instant};

use redline_compute::limits::{BandwidthProbe, ComputeProbe, Operand, Route};
use redline_compute::{Backend, Cpu, Format, Isa, WeightBytes};

use super::{Case, Cost, Entry, Outputs, Work};
use crate::bench::{self, Output, median};
use crate::commands::Context;
use crate::environment::Environment;
use crate::{memory, splitmix};

/// Samples of a case, and their length.
const PASSES: usize = 5;
const PASS: Duration = Duration::from_millis(30);
/// Samples of a probe, and their length.
const PROBE_PASSES: usize = 3;
const PROBE_PASS: Duration = Duration::from_millis(10);
/// Bytes of a set beyond the caches, where memory allows: this, or twice the largest cache.
const BEYOND_CACHES: usize = 512 << 20;

/// Everything the cases share.
pub(super) struct Lab {
    pub(super) isa: Isa,
    pub(super) threads: usize,
    /// Bytes of a set beyond the caches.
    pub(super) cycle_bytes: usize,
    /// Bytes of the caches by level, ascending, for all threads together.
    caches: Vec<(String, usize)>,
    /// The last read probe, with the bytes of its set: the next case often has as many.
    read: Option<(usize, BandwidthProbe)>,
    int8: Option<ComputeProbe>,
    f32: Option<ComputeProbe>,
}

/// What the machine does at one moment.
#[derive(Clone, Copy)]
struct Moment {
    read: f64,
    compute: Option<f64>,
}

impl Lab {
    pub(super) fn new(context: &Context, environment: &Environment) -> Self {
        let (isa, threads) = (context.config.isa, context.config.threads.get());
        let probe = |operand| ComputeProbe::new(Route::of(isa, operand)?, threads);
        let mut caches: Vec<(String, usize)> = environment
            .cache_bytes
            .iter()
            .filter(|(name, _)| !name.contains("instruction"))
            .map(|(name, bytes)| {
                let level = name.split(' ').next().unwrap_or(name).to_owned();
                // The last level is shared, the others are each core's own.
                let cores = if level == "L3" { 1 } else { threads };
                (level, *bytes as usize * cores)
            })
            .collect();
        caches.sort_by_key(|(_, bytes)| *bytes);
        let largest = caches.last().map_or(0, |(_, bytes)| *bytes);
        let available = memory::available_bytes().map_or(usize::MAX, |bytes| bytes as usize);
        Self {
            isa,
            threads,
            cycle_bytes: BEYOND_CACHES.max(2 * largest).min(available / 4),
            caches,
            read: None,
            int8: probe(Operand::Int8),
            f32: probe(Operand::F32),
        }
    }

    /// The backend under test.
    pub(super) fn backend(&self) -> Cpu {
        Cpu::new(self.isa, self.threads)
    }

    /// The smallest cache that holds a set.
    fn level(&self, set_bytes: usize) -> String {
        let holds = self.caches.iter().find(|(_, bytes)| set_bytes <= *bytes);
        holds.map_or_else(|| "memory".to_owned(), |(level, _)| level.clone())
    }

    /// Checks and times a case.
    pub(super) fn measure(&mut self, case: &Case) -> Entry {
        let mut work = case.prepare(self);
        let cost = work.cost();
        let Outputs { ours, scalar } = work.outputs();
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        let correct = ours.len() == scalar.len() && ours.iter().zip(&scalar).all(same);
        let (mut samples_ns, mut moments) = self.timed(&mut *work, cost);
        if is_shifted(moments) {
            (samples_ns, moments) = self.timed(&mut *work, cost);
        }
        let call_ns = median(&samples_ns);
        let (percent, bound_by) = limit(cost, moments, call_ns);
        let [before, after] = moments;
        Entry {
            verb: case.verb,
            format: case.format.clone(),
            shape: case.shape.clone(),
            tokens: case.tokens,
            depth: case.depth,
            set_bytes: cost.set_bytes,
            level: self.level(cost.set_bytes),
            call_ns,
            gigabytes_per_second: cost.bytes / call_ns,
            operations_per_second: (cost.int8 + cost.f32) / call_ns * 1e9,
            read_bytes_per_second: [before.read, after.read],
            peak_operations_per_second: before.compute.zip(after.compute).map(|(a, b)| [a, b]),
            pct_of_limit: percent,
            bound_by,
            shifted: is_shifted(moments),
            correct,
            output_hash: hash(&ours),
            samples_ns,
        }
    }

    fn timed(&mut self, work: &mut dyn Work, cost: Cost) -> (Vec<f64>, [Moment; 2]) {
        let before = self.moment(cost);
        one_pass(work, PASS);
        let samples = (0..PASSES).map(|_| one_pass(work, PASS)).collect();
        (samples, [before, self.moment(cost)])
    }

    fn moment(&mut self, cost: Cost) -> Moment {
        let compute = if cost.int8 > 0.0 {
            self.int8.as_mut()
        } else {
            self.f32.as_mut().filter(|_| cost.f32 > 0.0)
        };
        let compute = compute.map(|probe| probe.measure(PROBE_PASSES, PROBE_PASS));
        let threads = self.threads;
        let kept = self
            .read
            .take()
            .filter(|(bytes, _)| *bytes == cost.set_bytes);
        let read = kept.or_else(|| {
            let probe = BandwidthProbe::with_working_set(threads, cost.set_bytes);
            Some((cost.set_bytes, probe.ok()?))
        });
        self.read = read;
        let read = self.read.as_mut();
        Moment {
            read: read.map_or(f64::NAN, |(_, probe)| {
                probe.measure(PROBE_PASSES, PROBE_PASS).samples.median()
            }),
            compute: compute.map(|peak| peak.samples.median()),
        }
    }
}

/// Calls for about `pass`; nanoseconds of a call.
fn one_pass(work: &mut dyn Work, pass: Duration) -> f64 {
    let start = Instant::now();
    let (mut calls, mut time) = (0.0, Duration::ZERO);
    while calls == 0.0 || start.elapsed() < pass {
        work.reset();
        let call = Instant::now();
        work.call();
        time += call.elapsed();
        calls += 1.0;
    }
    time.as_secs_f64() * 1e9 / calls
}

/// Whether the machine did not hold still: a rate that binds differs by more than a quarter.
fn is_shifted([before, after]: [Moment; 2]) -> bool {
    let compute = before.compute.zip(after.compute);
    bench::is_shifted(before.read, after.read)
        || compute.is_some_and(|(before, after)| bench::is_shifted(before, after))
}

/// Least possible time over `call_ns` in percent, and the limit that binds.
fn limit(cost: Cost, [before, after]: [Moment; 2], call_ns: f64) -> (Option<f64>, &'static str) {
    let read = cost.bytes / f64::midpoint(before.read, after.read) * 1e9;
    let compute = before.compute.zip(after.compute);
    let compute = compute.map_or(0.0, |(before, after)| {
        (cost.int8 + cost.f32) / f64::midpoint(before, after) * 1e9
    });
    let least = read.max(compute);
    let percent = (least.is_finite() && least > 0.0).then(|| 100.0 * least / call_ns);
    (percent, if read >= compute { "read" } else { "compute" })
}

fn hash(values: &[f32]) -> String {
    let mut output = Output::new();
    output.values(values);
    output.hash()
}

/// Values without meaning in −1..1, the same in every run.
pub(super) fn values(seed: u64, count: usize) -> Vec<f32> {
    let value = |index: u64| {
        let word = splitmix::word(0, index + 1 + (seed << 32));
        (word >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count as u64).map(value).collect()
}

/// A buffer of `backend` that holds `values`, `[tokens, width]`.
pub(super) fn buffer(backend: &mut Cpu, width: usize, values: &[f32]) -> <Cpu as Backend>::Buffer {
    let mut buffer = backend.buffer(values.len() / width, width);
    fill(backend, &mut buffer, width, values);
    buffer
}

/// Puts `values` into a buffer: an embedding copies the rows of an F32 table.
pub(super) fn fill(
    backend: &mut Cpu,
    buffer: &mut <Cpu as Backend>::Buffer,
    width: usize,
    values: &[f32],
) {
    let rows = values.len() / width;
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let table = backend.matrix(Format::F32, rows, width, WeightBytes::owned(bytes));
    let ids: Vec<u32> = (0..rows as u32).collect();
    backend.embed(&table, &ids, 1.0, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(read: f64, compute: Option<f64>) -> Moment {
        Moment { read, compute }
    }

    #[test]
    fn the_limit_that_takes_longer_binds() {
        let cost = Cost {
            set_bytes: 1,
            bytes: 1e6,
            int8: 1e9,
            f32: 0.0,
        };
        // 1 MB at 1 GB/s: 1 ms; 1 GOP at 2 TOPS: 0.5 ms.
        let held = [moment(1e9, Some(2e12)); 2];
        let (percent, bound_by) = limit(cost, held, 2e6);
        assert!((percent.unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(bound_by, "read");
        let held = [moment(1e9, Some(0.5e12)); 2];
        let (percent, bound_by) = limit(cost, held, 4e6);
        assert!((percent.unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(bound_by, "compute");
        assert_eq!(limit(cost, [moment(f64::NAN, None); 2], 1.0).0, None);
    }

    #[test]
    fn a_shift_of_either_rate_is_seen() {
        let held = moment(10.0, Some(10.0));
        assert!(!is_shifted([held, moment(8.0, Some(8.0))]));
        assert!(is_shifted([held, moment(7.0, Some(10.0))]));
        assert!(is_shifted([held, moment(10.0, Some(7.0))]));
    }

    #[test]
    fn a_filled_buffer_holds_the_values() {
        let mut backend = Cpu::new(Isa::Scalar, 1);
        let values = values(3, 12);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        let buffer = buffer(&mut backend, 4, &values);
        assert_eq!(backend.read(&buffer), values);
    }
}
