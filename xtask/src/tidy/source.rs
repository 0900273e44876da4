//! Just enough of Rust's lexical grammar to tell code from comments and literals.

use std::ops::{Range, RangeInclusive};

/// A Rust file, taken apart.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text with comments and the insides of literals blanked; lines stay where they were.
    pub(crate) code: String,
    /// String literals, with the line each starts on.
    pub(crate) strings: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let mut lexer = Lexer {
            rest: text,
            code: String::with_capacity(text.len()),
            line: 1,
        };
        let mut strings = Vec::new();
        while let Some(string) = lexer.next_piece() {
            strings.extend(string);
        }
        Self {
            code: lexer.code,
            strings,
        }
    }

    /// Lines of code with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// The lines of items under `#[cfg(test)]`.
    pub(crate) fn test_lines(&self) -> Vec<RangeInclusive<usize>> {
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some(found) = self.code[from..].find("#[cfg(test)]") {
            let start = from + found;
            let end = self.item_end(start);
            ranges.push(self.line_of(start)..=self.line_of(end));
            from = end.max(start + 1);
        }
        ranges
    }

    /// The byte after which the item that starts at `start` is over: its `;` or closing brace.
    fn item_end(&self, start: usize) -> usize {
        let mut depth = 0_usize;
        for (index, byte) in self.code.bytes().enumerate().skip(start) {
            match byte {
                b'{' => depth += 1,
                b'}' if depth <= 1 => return index,
                b'}' => depth -= 1,
                b';' if depth == 0 => return index,
                _ => {}
            }
        }
        self.code.len()
    }

    fn line_of(&self, offset: usize) -> usize {
        self.code.as_bytes()[..offset]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }
}

/// Whether `line` holds `word` with no identifier character beside it.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(is_identifier)
    })
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Lexer<'a> {
    rest: &'a str,
    code: String,
    line: usize,
}

impl Lexer<'_> {
    /// Consumes one comment, literal or character of code; `Some(Some(…))` for a string literal.
    fn next_piece(&mut self) -> Option<Option<(usize, String)>> {
        let first = self.rest.chars().next()?;
        let after_identifier = self.code.chars().next_back().is_some_and(is_identifier);
        if self.rest.starts_with("//") {
            self.blank(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.blank(block_comment(self.rest));
        } else if let Some(range) = raw_string(self.rest).filter(|_| !after_identifier) {
            return Some(Some(self.string(range)));
        } else if first == '"' {
            return Some(Some(self.string(1..quoted(self.rest, b'"'))));
        } else if first == '\'' && is_char_literal(self.rest) {
            self.blank(quoted(self.rest, b'\'') + 1);
        } else {
            self.keep(first.len_utf8());
        }
        Some(None)
    }

    /// A string literal whose text is `range` of the rest.
    fn string(&mut self, range: Range<usize>) -> (usize, String) {
        let line = self.line;
        let text = self.rest.get(range.clone()).unwrap_or_default().to_owned();
        self.keep(range.start);
        self.blank(text.len());
        // The closing quote; hashes after it are harmless as code.
        self.keep(self.rest.len().min(1));
        (line, text)
    }

    fn keep(&mut self, bytes: usize) {
        let (piece, rest) = self.rest.split_at(bytes);
        self.line += piece.matches('\n').count();
        self.code.push_str(piece);
        self.rest = rest;
    }

    fn blank(&mut self, bytes: usize) {
        let (piece, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.line += piece.matches('\n').count();
        self.code
            .extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

/// The length of the (possibly nested) block comment that `text` starts with.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") if depth == 1 => return at + 2,
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// Where the text of the raw string that `rest` starts with begins and ends.
fn raw_string(rest: &str) -> Option<Range<usize>> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix))?;
    let hashes = rest[prefix.len()..]
        .bytes()
        .take_while(|byte| *byte == b'#')
        .count();
    let open = prefix.len() + hashes + 1;
    if rest.as_bytes().get(open - 1) != Some(&b'"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let close = rest[open..]
        .find(&end)
        .map_or(rest.len(), |found| open + found);
    Some(open..close)
}

/// The index of the unescaped `quote` that closes the literal `text` starts with.
fn quoted(text: &str, quote: u8) -> usize {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((index, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if byte == quote {
            return index;
        }
    }
    text.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_char_literal(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    match after.next() {
        Some('\\') => true,
        Some(_) => after.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_keeps_its_lines_and_loses_comments_and_literals() {
        let source = Source::new(
            "let a = \"unsafe \\\" x\"; // unsafe\n/* unsafe /* nested */\n unsafe */ let b = 'u';\n\
             fn f<'a>(x: &'a str) {} let c = r#\"un\"safe\"#; let d = b\"raw\"; let e = '\\'';",
        );
        assert!(!has_word(&source.code, "unsafe"), "{}", source.code);
        assert_eq!(source.code.lines().count(), 4);
        let strings: Vec<_> = source
            .strings
            .iter()
            .map(|(l, s)| (*l, s.as_str()))
            .collect();
        assert_eq!(strings, [(1, "unsafe \\\" x"), (4, "un\"safe"), (4, "raw")]);
        assert!(source.code.contains("fn f<'a>(x: &'a str) {}"));
    }

    #[test]
    fn unfinished_pieces_end_with_the_file() {
        for text in ["\"open", "r##\"open\"#", "/* open", "'", "// end", "'\\"] {
            Source::new(text);
        }
    }

    #[test]
    fn test_items_are_found_by_their_braces() {
        let source =
            Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n");
        assert_eq!(source.test_lines(), [2..=5]);
        let source = Source::new("#[cfg(test)]\nmod tests;\nfn c() {}\n");
        assert_eq!(source.test_lines(), [1..=2]);
    }

    #[test]
    fn a_word_stands_alone() {
        assert!(has_word("    unsafe {", "unsafe"));
        assert!(!has_word("#![allow(unsafe_code)]", "unsafe"));
    }
}
