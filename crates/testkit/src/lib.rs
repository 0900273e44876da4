//! Where tests find real models and vocabularies, how they say that one is absent, and what they
//! have in common.
//!
//! A dev-dependency only. `cargo xtask fetch` fills the cache; `cargo xtask check` lists every
//! `skipped:` line at its end and, where the environment names `CI`, fails on one.
//!
//! ```no_run
//! # fn answers() {
//! let Some(path) = redline_testkit::cached(redline_testkit::SMOLLM2) else { return };
//! # }
//! ```
#![forbid(unsafe_code)]

mod random;

use std::io::Write;
use std::panic::Location;
use std::path::PathBuf;

pub use random::{Random, mix};

/// SmolLM2 135M Instruct, Q4_1: `llama`, byte-level BPE, a chat template.
pub const SMOLLM2: &str = "models/smollm2-135m-instruct-q4_1.gguf";
/// Gemma 3 270M (base), Q4_K_M: `gemma3`, SentencePiece, no chat template.
pub const GEMMA3: &str = "models/gemma-3-270m-q4_k_m.gguf";
/// all-MiniLM-L6-v2, F32, a folder as transformers has it: `bert`, WordPiece.
pub const MINILM: &str = "models/all-minilm-l6-v2";

/// The path of `file` (relative to the cache), or, after reporting the calling test as skipped,
/// `None`.
#[must_use]
#[track_caller]
pub fn cached(file: &str) -> Option<PathBuf> {
    let path = cache_dir()
        .map(|dir| dir.join(file))
        .filter(|path| path.exists());
    if path.is_none() {
        skip(&format!(
            "{file} is not in the cache (`cargo xtask fetch` puts it there)"
        ));
    }
    path
}

/// Reports the calling test as skipped, with the reason; the test then returns.
#[track_caller]
pub fn skip(reason: &str) {
    let caller = Location::caller();
    let thread = std::thread::current();
    // The harness names each test's thread after the test, unless it runs them all on the main one.
    let test = match thread.name() {
        Some(name) if name != "main" => format!("{}::{name}", caller.file()),
        _ => format!("{}:{}", caller.file(), caller.line()),
    };
    // Written to the handle itself: `eprintln!` would vanish into the harness's capture.
    let line = format!("skipped: {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Where the binary keeps models: `$REDLINE_CACHE`, else `$XDG_CACHE_HOME/redline`, else
/// `~/.cache/redline`.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests have no configuration but this"
    )]
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    folder("REDLINE_CACHE").or_else(|| {
        let base = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        base.map(|base| base.join("redline"))
    })
}

/// Kilobytes of a process by a line of its status, `VmRSS` say (proc_pid_status(5)).
///
/// # Panics
/// If there is no such process, or no such line.
#[must_use]
pub fn kilobytes(process: u32, name: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let value = |line: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse().ok()
    };
    let found = status.lines().find_map(value);
    found.unwrap_or_else(|| panic!("no {name} in {path}:\n{status}"))
}
