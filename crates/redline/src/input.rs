//! Text that comes in, without the line feed that ends it: whoever wrote the file put it there.

use std::io::{self, Read as _};
use std::path::Path;

/// What is piped in.
///
/// # Errors
/// If it cannot be read, or is not UTF-8.
pub(crate) fn stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(without_line_feed(text))
}

/// What a file holds.
///
/// # Errors
/// As [`stdin`].
pub(crate) fn file(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map(without_line_feed)
}

fn without_line_feed(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}
