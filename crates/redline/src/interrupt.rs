//! Ctrl-C: the first one asks the work at hand to stop, a second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use redline_model::Observer;

/// Exit code of a process ended by an interrupt, as shells count it (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// Whether the user asked the work at hand to stop.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT for the rest of the process.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        // Order matters: the shutdown looks at the flag before this signal sets it.
        let sigint = signal_hook::consts::SIGINT;
        signal_hook::flag::register_conditional_shutdown(sigint, INTERRUPTED, Arc::clone(&asked))
            .and_then(|_| signal_hook::flag::register(sigint, Arc::clone(&asked)))
            .context("cannot handle Ctrl-C")?;
        Ok(Self { asked })
    }

    /// Takes a request of the system to end (SIGTERM) as one of the user.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub(crate) fn also_on_termination(&self) -> anyhow::Result<()> {
        let sigterm = signal_hook::consts::SIGTERM;
        signal_hook::flag::register(sigterm, Arc::clone(&self.asked))
            .context("cannot handle SIGTERM")?;
        Ok(())
    }

    /// The flag itself, for an engine to watch.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.asked
    }

    /// Whether a stop was asked for since the last [`Self::clear`].
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Forgets a stop that has been obeyed.
    pub(crate) fn clear(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }
}

impl Observer for Interrupt {
    fn cancelled(&mut self) -> bool {
        self.asked()
    }
}
