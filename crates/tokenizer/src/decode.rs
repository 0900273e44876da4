//! Ids to text.
//!
//! The bytes of all tokens are joined and read as UTF-8; what is not UTF-8 becomes U+FFFD, one for
//! each maximal part of a character (as `String::from_utf8_lossy` does). A stream gives the same text
//! piece by piece: it holds back the bytes of an unfinished character, at most three.
//!
//! Own code, not the decoders of the `tokenizers` crate: docs/decisions/0002-tokenizer.md.

use std::fmt::{self, Write};
use std::sync::Arc;

use redline_gguf::TokenId;

use crate::alphabet;
use crate::sentence_piece::SPACE;
use crate::vocabulary::{TokenKind, Vocabulary, byte_of};

/// How pieces are spelled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spelling {
    /// In the alphabet of bytes.
    ByteLevel,
    /// With `▁` for a space.
    SentencePiece {
        /// Whether a space that begins a text is the one that encoding put there.
        strip_space: bool,
    },
    /// With `▁` at the start of a word; every word has a space before it but the first.
    WordPiece {
        /// Whether there is none before `.`, `?`, `!` and `,` either.
        cleanup: bool,
    },
}

impl Spelling {
    /// Whether a space that begins a text is not part of it.
    fn strips_space(self) -> bool {
        matches!(
            self,
            Self::SentencePiece { strip_space: true } | Self::WordPiece { .. }
        )
    }
}

/// The bytes of each token.
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,      // [vocab]
    kinds: Vec<TokenKind>, // [vocab]
    strip_space: bool,
}

impl Pieces {
    pub(crate) fn new(vocabulary: &Vocabulary<'_>, spelling: Spelling) -> Self {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(vocabulary.len());
        for (piece, kind) in vocabulary.pieces.iter().zip(&vocabulary.kinds) {
            spell(piece, *kind, spelling, &mut bytes);
            ends.push(bytes.len());
        }
        Self {
            bytes,
            ends,
            kinds: vocabulary.kinds.clone(),
            strip_space: spelling.strips_space(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; none for an id outside the vocabulary.
    pub(crate) fn bytes(&self, id: TokenId) -> Option<&[u8]> {
        let index = id.0 as usize;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    pub(crate) fn kind(&self, id: TokenId) -> Option<TokenKind> {
        self.kinds.get(id.0 as usize).copied()
    }

    /// The bytes that a token adds to a text.
    fn shown(&self, id: TokenId, skip_special: bool) -> &[u8] {
        match self.kind(id) {
            Some(kind) if !(skip_special && kind.is_special()) => {
                self.bytes(id).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// The text of `ids`.
    pub(crate) fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| self.shown(*id, skip_special))
            .copied()
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.strip_prefix(' ') {
            Some(stripped) if self.strip_space => stripped.to_owned(),
            _ => text.into_owned(),
        }
    }

    /// The token's text for people: bytes that are not UTF-8 on their own as `<0xE2>`.
    pub(crate) fn display(&self, id: TokenId) -> Option<String> {
        let mut text = String::new();
        for chunk in self.bytes(id)?.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                let _ = write!(text, "<0x{byte:02X}>");
            }
        }
        Some(text)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces")
            .field("tokens", &self.len())
            .finish_non_exhaustive()
    }
}

/// Appends the bytes of a piece.
fn spell(piece: &str, kind: TokenKind, spelling: Spelling, bytes: &mut Vec<u8>) {
    match (kind, spelling) {
        (_, Spelling::WordPiece { cleanup }) => spell_word_piece(piece, cleanup, bytes),
        (TokenKind::Byte, _) => bytes.extend(byte_of(piece)),
        (_, Spelling::SentencePiece { .. }) => bytes.extend(piece.replace(SPACE, " ").bytes()),
        (TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined, _) => {
            bytes.extend(piece.bytes());
        }
        (_, Spelling::ByteLevel) => {
            // A piece that is not written in the alphabet is plain text.
            let spelled: Option<Vec<u8>> = piece.chars().map(alphabet::byte).collect();
            bytes.extend(spelled.unwrap_or_else(|| piece.as_bytes().to_vec()));
        }
    }
}

/// Appends the bytes of a WordPiece piece.
fn spell_word_piece(piece: &str, cleanup: bool, bytes: &mut Vec<u8>) {
    let is_marker = piece.starts_with('[') && piece.ends_with(']') && piece.len() > 2;
    let (is_start, text) = match piece.strip_prefix(SPACE) {
        Some(text) => (true, text),
        None => (is_marker, piece),
    };
    let joins = cleanup && matches!(text, "." | "?" | "!" | ",");
    if is_start && !joins {
        bytes.push(b' ');
    }
    bytes.extend(text.bytes());
}

/// Turns ids into text one by one, never giving a part of a character.
///
/// The texts of all [`push`](Self::push) calls and of [`finish`](Self::finish), joined, are what
/// [`Tokenizer::decode`](crate::Tokenizer::decode) gives for the same ids.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    pieces: Arc<Pieces>,
    skip_special: bool,
    /// Whether a space would now be the first character of the text, and not part of it.
    strip_space: bool,
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl StreamDecoder {
    pub(crate) fn new(pieces: &Arc<Pieces>) -> Self {
        Self {
            pieces: Arc::clone(pieces),
            skip_special: true,
            strip_space: pieces.strip_space,
            pending: Vec::new(),
        }
    }

    /// For text that goes on after a prompt: a space at its start is part of it.
    #[must_use]
    pub fn continuing(mut self) -> Self {
        self.strip_space = false;
        self
    }

    /// Gives the texts of control tokens too, which are left out otherwise.
    #[must_use]
    pub fn with_special(mut self) -> Self {
        self.skip_special = false;
        self
    }

    /// The text that `id` completes; empty while a character is unfinished, and for an id that is
    /// not shown or outside the vocabulary.
    pub fn push(&mut self, id: TokenId) -> String {
        let mut bytes = self.pieces.shown(id, self.skip_special);
        if let (true, Some((first, rest))) = (self.strip_space, bytes.split_first()) {
            self.strip_space = false;
            bytes = if *first == b' ' { rest } else { bytes };
        }
        self.pending.extend(bytes);
        let mut text = String::new();
        let mut unfinished = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            if chunks.peek().is_none() && may_become_valid(chunk.invalid()) {
                unfinished = chunk.invalid().len();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending.drain(..self.pending.len() - unfinished);
        text
    }

    /// The text for bytes held back at the end: U+FFFD, or nothing.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.flush()
    }

    /// The same where a text ends and another begins.
    pub(crate) fn flush(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether more bytes could make a character of these.
fn may_become_valid(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of one byte each, by id.
    fn bytes() -> Arc<Pieces> {
        Arc::new(Pieces {
            bytes: (0..=255).collect(),
            ends: (1..=256).collect(),
            kinds: vec![TokenKind::Byte; 256],
            strip_space: true,
        })
    }

    #[track_caller]
    fn check(input: &[u8], texts: &[&str]) {
        let pieces = bytes();
        let ids: Vec<_> = input.iter().map(|byte| TokenId(u32::from(*byte))).collect();
        let mut decoder = StreamDecoder::new(&pieces);
        let mut found: Vec<String> = ids.iter().map(|id| decoder.push(*id)).collect();
        found.push(decoder.finish());
        assert_eq!(found, texts);
        assert_eq!(found.concat(), pieces.decode(&ids, true));
    }

    #[test]
    fn characters_come_whole() {
        check(
            "é€😀a".as_bytes(),
            &["", "é", "", "", "€", "", "", "", "😀", "a", ""],
        );
    }

    #[test]
    fn bytes_that_cannot_become_a_character_are_replaced_at_once() {
        check(b"\xFFa", &["\u{FFFD}", "a", ""]);
        check(b"\xE2\x82a", &["", "", "\u{FFFD}a", ""]);
        check(b"\xE2\xE2\x82\xAC", &["", "\u{FFFD}", "", "€", ""]);
        check(b"\xED\xA0", &["", "\u{FFFD}\u{FFFD}", ""]);
        check(b"\xC0\x80", &["\u{FFFD}", "\u{FFFD}", ""]);
    }

    #[test]
    fn an_unfinished_end_is_replaced() {
        check(b"a\xF0\x9F\x98", &["a", "", "", "", "\u{FFFD}"]);
    }

    #[test]
    fn only_the_first_space_of_a_text_is_stripped() {
        check(b"  a b", &["", " ", "a", " ", "b", ""]);
        let mut decoder = StreamDecoder::new(&bytes()).continuing();
        assert_eq!(decoder.push(TokenId(b' '.into())), " ");
        assert_eq!(decoder.push(TokenId(256)), "");
    }
}
