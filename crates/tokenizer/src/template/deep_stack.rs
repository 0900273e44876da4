//! Templates run on a thread whose stack is as deep as they can make it.
//!
//! The template engine walks syntax and values by recursion, not everywhere with a limit: a list that a
//! loop puts into a list nests as deep as the fuel allows, branches as deep as the source is long. Both
//! are bounded here, so the stack that they can need is too. Pages of a stack that are never touched
//! cost nothing.

use std::thread::Builder;

use crate::error::Error;

/// What syntax can need; measured: 3 MB for a template of branches.
const BASE_BYTES: usize = 16 << 20;

/// For each step. Measured: 450 for a level of a value, which takes a step and a half to make;
/// sanitizers and debug builds have larger frames.
const BYTES_PER_STEP: usize = 1024;

/// The stack for a template that may take so many steps.
pub(super) fn bytes_for(steps: u64) -> usize {
    let steps = usize::try_from(steps).unwrap_or(usize::MAX);
    BASE_BYTES.saturating_add(steps.saturating_mul(BYTES_PER_STEP))
}

/// Runs `work` on a stack of `stack` bytes.
pub(super) fn run<T: Send>(stack: usize, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = Builder::new()
            .name("chat-template".to_owned())
            .stack_size(stack)
            .spawn_scoped(scope, work)
            .map_err(|source| Error::TemplateThread { stack, source })?;
        thread
            .join()
            .map_err(|_| Error::TemplateFailed("the template engine panicked".to_owned()))
    })
}
