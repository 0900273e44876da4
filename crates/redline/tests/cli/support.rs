//! Running the program with an environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The one JSON document on stdout of a run that went well.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that the run failed with `code` and one line that says all of `expected`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, expected: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let line = self.stderr.lines().find(|line| line.starts_with("error:"));
        let line = line.unwrap_or_else(|| panic!("no line begins with error: {self:?}"));
        for text in expected {
            assert!(line.contains(text), "{text:?} is not in {line:?}");
        }
    }
}

/// The program, with nothing of the caller's settings and no working directory of interest.
pub(crate) fn program(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redline"));
    for name in [
        "REDLINE_CONFIG",
        "REDLINE_MODEL",
        "REDLINE_ISA",
        "REDLINE_THREADS",
        "REDLINE_CHUNK_TOKENS",
        "REDLINE_DRAFT",
        "REDLINE_CONTEXT_TOKENS",
        "REDLINE_HF_ENDPOINT",
        "REDLINE_PYTHON",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
        .env("REDLINE_CACHE", cache)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program with a cache that all tests share: it holds synthetic models only.
pub(crate) fn redline(arguments: &[&str]) -> Outcome {
    finish(program(shared_cache()).args(arguments))
}

/// A cache for models that are made and never change.
pub(crate) fn shared_cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-cache");
        std::fs::create_dir_all(&path).unwrap();
        path
    })
}

/// A cache of a test's own, empty.
pub(crate) fn empty_cache() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Every file below a folder, relative to it, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    fn collect(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, folder, &mut found);
    found.sort_unstable();
    found
}
