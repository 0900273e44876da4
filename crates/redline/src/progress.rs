//! Progress on stderr: a bar for a terminal, a line each quarter for a log.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{output, units};

/// Below this, nothing is told to a log.
const WORTH_TELLING_BYTES: u64 = 16 << 20;

/// One piece of work with a size in bytes.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    quarters_told: u64,
}

impl Progress {
    /// Starts showing `label`; without a total, a spinner with the bytes so far.
    pub(crate) fn bytes(label: &str, total: Option<u64>) -> Self {
        let bar = output::stderr_is_terminal().then(|| terminal_bar(label, total));
        let progress = Self {
            label: label.to_owned(),
            total,
            bar,
            quarters_told: 0,
        };
        progress.tell(0, 0);
        progress
    }

    /// `done` bytes are there.
    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let Some(total) = self.total.filter(|total| *total > 0) else {
            return;
        };
        let quarter = done.saturating_mul(4) / total;
        if quarter > self.quarters_told && quarter <= 4 {
            self.quarters_told = quarter;
            self.tell(done, quarter);
        }
    }

    /// Takes the bar away; the work is done or has failed.
    pub(crate) fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&self, done: u64, quarter: u64) {
        // What is done in a moment is not worth a line.
        if self.bar.is_some() || self.total.is_some_and(|total| total < WORTH_TELLING_BYTES) {
            return;
        }
        let mut line = format!("{}: {} %", self.label, quarter * 25);
        if let Some(total) = self.total {
            let _ = write!(line, " ({} of {})", units::bytes(done), units::bytes(total));
        }
        output::note(&line);
    }
}

fn terminal_bar(label: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(bar_style()),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_message(output::printable(label))
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg} {percent:>3} % [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )
    .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}
