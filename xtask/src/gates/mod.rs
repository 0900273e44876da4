//! What a build must not lose unseen: instructions of a fixed piece of work, and kernels in which
//! everything is inlined.
//!
//! Both look at one small program, `crates/model/examples/steps.rs`, optimised as a release is.

mod assembly;
mod counts;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::shell::{command, root, run as run_command};

pub(crate) use assembly::run as assembly;
pub(crate) use counts::run as counts;

/// What a run of a gate came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing was lost.
    Held,
    /// It cannot be run here, for this reason.
    Skipped(String),
}

impl Outcome {
    fn skipped(reason: &str) -> Self {
        println!("{reason}");
        Self::Skipped(reason.to_owned())
    }
}

/// Assembly beside the libraries. Names say which kernel a function is an instance of: the older
/// scheme, the default, leaves type arguments out.
const FLAGS: &str = "-C symbol-mangling-version=v0 --emit=asm";

/// Builds the program; in a folder of its own, for its flags would rebuild everything else.
fn program() -> Result<PathBuf> {
    let target = root().join("target/gates");
    let mut build = command(
        "cargo",
        &[
            "build",
            "--release",
            "--package",
            "redline-model",
            "--example",
            "steps",
        ],
    );
    run_command(
        build
            .env("RUSTFLAGS", FLAGS)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_TARGET_DIR", &target),
    )?;
    let program = target.join("release/examples/steps");
    ensure!(program.exists(), "cargo left no {}", program.display());
    Ok(program)
}

/// Whether `program --version` runs.
fn is_installed(program: &str) -> bool {
    let version = command(program, &["--version"]).output();
    version.is_ok_and(|output| output.status.success())
}
