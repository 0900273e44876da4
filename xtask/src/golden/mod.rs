//! `cargo xtask golden`: tiny random models as GGUF files, and what another implementation computes
//! with them.
//!
//! `xtask/golden/tiny_models.py` makes weights and reference activations with Hugging Face
//! transformers; [`convert`] writes them into `crates/model/tests/golden/<variant>/` as
//! `model.gguf`, `reference.gguf` and `provenance.json`; `xtask/golden/verify_tiny.py` then reads the
//! result with the Python `gguf` package and compares llama.cpp's logits with the reference.
//!
//! Python is the one given by `--python`, which must have `xtask/golden/requirements.txt` installed,
//! or else that of a virtual environment made under `target/`, which is several gigabytes.

mod convert;
mod vocabulary;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{Scratch, command, root, run as run_command};

const SCRIPTS: &str = "xtask/golden";
const GOLDEN: &str = "crates/model/tests/golden";

/// `[--python PATH] [VARIANT...]`; without variants, all of them.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (python, variants) = match arguments {
        ["--python", path, rest @ ..] => (Some(PathBuf::from(path)), rest),
        rest => (None, rest),
    };
    if let Some(flag) = variants.iter().find(|word| word.starts_with('-')) {
        bail!("unknown flag {flag}: expected [--python PATH] [VARIANT...]");
    }
    let target = root().join("target");
    let python = match python {
        Some(path) => path,
        None => environment(&target)?,
    };
    let python = python.to_str().context("the path of Python is not UTF-8")?;
    let scratch = Scratch::new(&target, "golden")?;
    let out = scratch
        .path()
        .to_str()
        .context("the path of the checkout is not UTF-8")?;
    run_command(command(python, &[&script("tiny_models.py"), out]).args(variants))?;
    for made in folders(scratch.path())? {
        let name = made.file_name().context("a variant without a name")?;
        let folder = root().join(GOLDEN).join(name);
        convert::convert(&made, &folder)
            .with_context(|| format!("converting {}", name.to_string_lossy()))?;
    }
    run_command(command(python, &[&script("verify_tiny.py"), GOLDEN]).args(variants))
}

fn script(name: &str) -> String {
    format!("{SCRIPTS}/{name}")
}

/// The interpreter of a virtual environment under `target/`, made if need be.
fn environment(target: &Path) -> Result<PathBuf> {
    let folder = target.join("golden-python");
    let python = folder.join("bin/python");
    if !python.exists() {
        let path = folder
            .to_str()
            .context("the path of the checkout is not UTF-8")?;
        run_command(&mut command("python3", &["-m", "venv", path]))?;
    }
    let program = python.to_str().context("the path is not UTF-8")?;
    let requirements = script("requirements.txt");
    run_command(&mut command(
        program,
        &["-m", "pip", "install", "--quiet", "-r", &requirements],
    ))?;
    Ok(python)
}

/// The folders within one, in order of their names.
fn folders(within: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(within).with_context(|| within.display().to_string())?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}
