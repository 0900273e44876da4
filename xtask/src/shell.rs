//! Running other programs from the root of the checkout.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Whether this is a continuous-integration run, where nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "xtask has no configuration but this"
    )]
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// `program arguments…`, to be run in the root of the checkout.
///
/// Without the variables that `cargo run` sets for xtask: build scripts take them for their own, and
/// every change between `cargo xtask` and `cargo` would build their crates anew.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command for its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{}: {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{}: not UTF-8", shown(command)))
}

/// Runs a command, passing its output on while it comes, and gives every line to `each`.
///
/// Lines of both streams arrive in the order they are read; within a stream that is exact.
pub(crate) fn tee(command: &mut Command, each: &mut dyn FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = child
        .stdout
        .take()
        .map(|pipe| forward(pipe, std::io::stdout(), sender.clone()));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| forward(pipe, std::io::stderr(), sender));
    for line in lines {
        each(&line);
    }
    for thread in [stdout, stderr].into_iter().flatten() {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("reading {} failed", shown(command)))?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

fn forward(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    lines: std::sync::mpsc::Sender<String>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // A reading error ends the stream like its end does; the exit status tells the rest.
        while from
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let _ = to.write_all(&line);
            let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy()),
    );
    words.join(" ")
}

/// A folder of its own, removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(within: &Path, name: &str) -> Result<Self> {
        let path = within.join(format!(".{name}.{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_does_not_see_whose_tests_these_are() {
        let environment = output(&mut command("env", &[])).unwrap();
        let own = environment
            .lines()
            .filter(|line| line.starts_with("CARGO_PKG_"));
        assert_eq!(own.count(), 0);
        assert!(std::env::vars_os().any(|(name, _)| name == "CARGO_PKG_NAME"));
    }

    #[test]
    fn tee_gives_every_line_of_both_streams_and_the_failure() {
        let mut lines = Vec::new();
        let mut shell = command(
            "sh",
            &["-c", "echo one; echo two >&2; printf three; exit 3"],
        );
        let result = tee(&mut shell, &mut |line| lines.push(line.to_owned()));
        lines.sort_unstable();
        assert_eq!(lines, ["one", "three", "two"]);
        assert!(result.is_err_and(|error| error.to_string().ends_with("exit status: 3")));
    }

    #[test]
    fn a_scratch_folder_goes_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(folder.path(), "x").unwrap();
        std::fs::write(scratch.path().join("file"), "x").unwrap();
        drop(scratch);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
