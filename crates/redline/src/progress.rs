//! Progress on stderr: a bar for a terminal, a line each quarter for a log.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::interrupt::Interrupt;
use crate::{output, units};

/// Below this, nothing is told to a log.
const WORTH_TELLING_BYTES: u64 = 16 << 20;

/// Shows how far `work` is with a file of `total` bytes; Ctrl-C stops it where it tells of its progress.
///
/// # Errors
/// Those of the work, or if it was stopped.
pub(crate) fn of_file<T>(
    label: &str,
    total: u64,
    interrupt: &Interrupt,
    work: impl FnOnce(&mut dyn FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut shown = Progress::bytes(label, Some(total));
    let result = work(&mut |done| {
        anyhow::ensure!(!interrupt.asked(), "stopped before the file was whole");
        shown.set(done);
        Ok(())
    });
    shown.clear();
    result
}

/// What work is counted in.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    /// Things of this name, in the plural.
    Things(&'static str),
}

/// One piece of work with a size.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    unit: Unit,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    quarters_told: u64,
}

impl Progress {
    /// Starts showing `label`; without a total, a spinner with the bytes so far.
    pub(crate) fn bytes(label: &str, total: Option<u64>) -> Self {
        Self::new(label, Unit::Bytes, total)
    }

    /// Starts showing `label` over `total` things called `name`, each of which takes a while.
    pub(crate) fn things(label: &str, name: &'static str, total: usize) -> Self {
        Self::new(label, Unit::Things(name), Some(total as u64))
    }

    fn new(label: &str, unit: Unit, total: Option<u64>) -> Self {
        let bar = output::stderr_is_terminal().then(|| terminal_bar(label, unit, total));
        let progress = Self {
            label: label.to_owned(),
            unit,
            total,
            bar,
            quarters_told: 0,
        };
        progress.tell(0, 0);
        progress
    }

    /// Shows `label` from now on.
    pub(crate) fn relabel(&mut self, label: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(output::printable(&label));
        }
        self.label = label;
    }

    /// So many bytes or things are done.
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
        if self.bar.is_some() {
            return;
        }
        let mut line = format!("{}: {} %", self.label, quarter * 25);
        let _ = match (self.unit, self.total) {
            // What is done in a moment is not worth a line.
            (Unit::Bytes, Some(total)) if total < WORTH_TELLING_BYTES => return,
            (Unit::Bytes, Some(total)) => {
                write!(line, " ({} of {})", units::bytes(done), units::bytes(total))
            }
            (Unit::Things(name), Some(total)) => write!(line, " ({done} of {total} {name})"),
            (_, None) => Ok(()),
        };
        output::note(&line);
    }
}

fn terminal_bar(label: &str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(bar_style(unit)),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_message(output::printable(label))
}

fn bar_style(unit: Unit) -> ProgressStyle {
    let amount = match unit {
        Unit::Bytes => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        Unit::Things(_) => "{pos}/{len}",
    };
    ProgressStyle::with_template(&format!(
        "{{msg}} {{percent:>3}} % [{{bar:24}}] {amount} {{eta}}"
    ))
    .map_or_else(
        |_| ProgressStyle::default_bar(),
        |style| style.progress_chars("=> "),
    )
}
