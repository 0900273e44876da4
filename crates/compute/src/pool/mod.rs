//! The threads that run the kernels.
//!
//! One dispatch runs a closure once on every thread and returns when all have finished. Between
//! dispatches the workers spin for a moment (a forward pass dispatches hundreds of times), then
//! linger, giving their cores to whoever wants them, and at last park. Nothing is allocated after
//! the start.
#![allow(
    unsafe_code,
    reason = "a borrowed closure on other threads: one of the three homes of unsafe"
)]

mod blocks;
mod parts;

use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use blocks::{Blocks, BlocksPart};
pub(crate) use parts::{Columns, ColumnsPart, MAX_PARTS, Rows, share};

/// Spins before a waiting thread gives its core away: 10 to 100 µs, by the length of a pause.
const SPINS: u32 = 2_000;
/// How long a worker goes on looking before it parks. Waking a parked one takes tens of
/// microseconds, and between two steps a token is drawn from up to a few hundred thousand logits.
const LINGER: Duration = Duration::from_millis(1);

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// A fixed set of threads; the caller of [`Pool::run`] is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Number of the current dispatch; written by the caller only, after `task`.
    epoch: AtomicUsize,
    /// Workers that have not finished the current dispatch.
    pending: AtomicUsize,
    /// The current dispatch's closure; written while `pending` is zero, read by workers that have
    /// seen a new `epoch` and have not yet counted themselves out of `pending`.
    task: UnsafeCell<Option<Task<'static>>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// Parked workers wait here; the flag is nothing but the lock of `wake`.
    sleepers: Mutex<usize>,
    wake: Condvar,
}

// SAFETY: `task` is the only field that is not `Sync`; the protocol in its comment keeps writes and
// reads apart, with release/acquire on `epoch` and `pending` between them. The closure is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the reference it may hold is to a `Sync` closure.
unsafe impl Send for Shared {}

impl Pool {
    /// `threads − 1` workers beside the caller.
    ///
    /// # Panics
    /// If `threads` is zero, or the system cannot start a thread.
    pub(crate) fn new(threads: usize) -> Self {
        assert!(threads > 0, "at least one thread");
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            task: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("redline-{index}"))
                    .spawn(move || work(&shared, index))
                    .expect("start a compute thread")
            })
            .collect();
        Self { shared, workers }
    }

    /// Threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(thread)` once for every thread index below [`Self::threads`].
    ///
    /// # Panics
    /// If the closure panicked on any thread, after all have finished.
    pub(crate) fn run(&mut self, task: Task<'_>) {
        if self.workers.is_empty() {
            task(0);
            return;
        }
        // SAFETY: only the lifetime changes. The reference is used by workers during this call
        // alone: it returns (or unwinds) only after `pending` has come back to zero.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        // SAFETY: `&mut self` and `pending == 0`: no worker reads `task` now.
        unsafe { *self.shared.task.get() = Some(task) };
        self.shared
            .pending
            .store(self.workers.len(), Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        // A worker counts itself a sleeper under the lock and looks at `epoch` once more before it
        // waits, so either it sees the new epoch or this sees the sleeper.
        if *self.lock() > 0 {
            self.shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| task(0)));
        let mut spins = 0;
        while self.shared.pending.load(Ordering::Acquire) != 0 {
            // Past the spins, a worker may be waiting for this very core.
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a compute thread panicked"
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.shared
            .sleepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        drop(self.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its task's panics, so joining cannot fail.
            let _joined = worker.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .finish()
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = wait(shared, seen);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: a new epoch was seen with acquire ordering after the caller wrote `task`, and the
        // caller writes it again only when this thread has counted itself out of `pending`.
        let task = unsafe { *shared.task.get() };
        if let Some(task) = task
            && catch_unwind(AssertUnwindSafe(|| task(index))).is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.pending.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for an epoch after `seen`: spinning first, then lingering, then parked.
fn wait(shared: &Shared, seen: usize) -> usize {
    let new = || {
        let epoch = shared.epoch.load(Ordering::Acquire);
        (epoch != seen).then_some(epoch)
    };
    for _ in 0..SPINS {
        if let Some(epoch) = new() {
            return epoch;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    while start.elapsed() < LINGER {
        if let Some(epoch) = new() {
            return epoch;
        }
        std::thread::yield_now();
    }
    let mut sleepers = shared
        .sleepers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *sleepers += 1;
    loop {
        let epoch = shared.epoch.load(Ordering::SeqCst);
        if epoch != seen {
            *sleepers -= 1;
            return epoch;
        }
        sleepers = shared
            .wake
            .wait(sleepers)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_every_dispatch_once() {
        for threads in [1, 2, 3, 7] {
            let mut pool = Pool::new(threads);
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for round in 0..200 {
                pool.run(&|thread| {
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts
                        .iter()
                        .all(|count| count.load(Ordering::Relaxed) == round + 1)
                );
            }
        }
    }

    #[test]
    fn a_parked_worker_wakes() {
        let mut pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        for _ in 0..20 {
            // Far longer than the spin: the worker has parked.
            std::thread::sleep(Duration::from_millis(5));
            pool.run(&|_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(total.load(Ordering::Relaxed), 40);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let mut pool = Pool::new(2);
        for culprit in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|thread| assert_ne!(thread, culprit, "planted"));
            }));
            assert!(caught.is_err());
        }
        let total = AtomicUsize::new(0);
        pool.run(&|_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), 2);
    }
}
