//! The time of a world: each thread has its own, which passes when somebody says so.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static START: Instant = Instant::now();
}

/// For [`Engine::with_clock`](redline_engine::Engine::with_clock).
pub(crate) fn clock() -> Instant {
    START.with(|start| *start + PASSED.get())
}

/// Time that has passed.
pub(crate) fn passed() -> Duration {
    PASSED.get()
}

/// Lets time pass.
pub(crate) fn tick(micros: u64) {
    PASSED.set(PASSED.get() + Duration::from_micros(micros));
}

/// Back to the start.
pub(crate) fn restart() {
    PASSED.set(Duration::ZERO);
}
