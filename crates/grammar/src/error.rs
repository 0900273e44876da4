//! Why there is no grammar.

use std::time::Duration;

/// Characters of a reason that are told.
const MAX_REASON_CHARS: usize = 300;

/// Why a source does not become a grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is too large.
    #[error("expected at most {expected} bytes, found {found}")]
    TooLarge {
        /// Bytes it may have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// Its values stand in too many others.
    #[error("expected values no more than {expected} deep, found one deeper")]
    TooDeep {
        /// How deep they may stand.
        expected: usize,
    },
    /// Its parts would have to be fulfilled together in too many ways.
    #[error("expected at most {expected} conditions on one text ({what}), found more")]
    TooManyConditions {
        /// Conditions there may be.
        expected: usize,
        /// What counts as one.
        what: &'static str,
    },
    /// It is no schema, expression or grammar, or one that cannot be followed.
    #[error("{0}")]
    Invalid(String),
    /// It takes too long to compile.
    #[error("expected to be compiled within {} ms, was not", .0.as_millis())]
    TooLong(Duration),
    /// Others are still being compiled that take too long.
    #[error("too many grammars are being compiled")]
    Busy,
    /// The vocabulary cannot be searched, or the system gives no thread.
    #[error("no grammar can be followed with this model: {0}")]
    Unavailable(String),
}

/// What a library says, on one line: its beginning and its end, where some say what it is about and
/// others what is wrong with it.
pub(crate) fn reason(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let end = text.find("\n<").unwrap_or(text.len());
    let text = &text[..end];
    if text.starts_with("panic: ") {
        return "it is beyond what can be compiled".to_owned();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: Vec<char> = words.join(" ").chars().collect();
    if line.len() <= MAX_REASON_CHARS {
        return line.into_iter().collect();
    }
    let half = MAX_REASON_CHARS / 2;
    let part = |chars: &[char]| chars.iter().collect::<String>();
    format!(
        "{} … {}",
        part(&line[..half]),
        part(&line[line.len() - half..])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_with_its_beginning_and_its_end() {
        assert_eq!(reason("a\n  b\n<non-verbose/>"), "a b");
        let long = reason(format!("begin{}end", " x".repeat(1000)));
        assert!(
            long.starts_with("begin x") && long.ends_with("xend"),
            "{long}"
        );
        assert!(long.chars().count() < MAX_REASON_CHARS + 10);
        let panicked = reason("panic: at x\n<backtrace>\n0: main\n</backtrace>");
        assert_eq!(panicked, "it is beyond what can be compiled");
    }
}
