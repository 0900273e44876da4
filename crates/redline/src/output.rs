//! The two streams: results on stdout, everything said to a person on stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// The reader of stdout is gone. Not a failure: the process ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(crate) struct Closed;

/// Whether results go to a person.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether progress goes to a person.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Writes bytes to stdout at once.
///
/// # Errors
/// [`Closed`] if nobody reads any more; otherwise if the write fails (a full disk).
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        result => result.context("cannot write to stdout"),
    }
}

/// Writes text to stdout at once; on a terminal, control characters are made visible.
///
/// # Errors
/// As [`raw`].
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    if stdout_is_terminal() {
        raw(printable(text).as_bytes())
    } else {
        raw(text.as_bytes())
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`raw`].
pub(crate) fn line(line: impl Display) -> anyhow::Result<()> {
    text(&format!("{line}\n"))
}

/// Writes a value to stdout as one indented JSON document.
///
/// # Errors
/// As [`raw`].
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut document = serde_json::to_vec_pretty(value).context("cannot express the result")?;
    document.push(b'\n');
    raw(&document)
}

/// Tells a person something, on stderr. A closed stderr is no reason to stop.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Writes text that is beside the answer to stderr, dimmed on a terminal.
pub(crate) fn aside(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = if stderr_is_terminal() {
        write!(stderr, "\u{1b}[2m{}\u{1b}[22m", printable(text))
    } else {
        write!(stderr, "{}", printable(text))
    };
}

/// `text` without what could command a terminal: control characters other than line feed and tab
/// become their escaped form (`\u{1b}`).
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\r' => {}
            _ if character.is_control() => shown.extend(character.escape_default()),
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_commands_are_shown_instead_of_obeyed() {
        assert_eq!(
            printable("a\u{1b}[2Jb\tc\r\nd\u{9b}1m"),
            "a\\u{1b}[2Jb\tc\nd\\u{9b}1m"
        );
        assert_eq!(printable("héllo 🌍"), "héllo 🌍");
    }
}
