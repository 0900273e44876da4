//! Tokens that are found in text before anything else: user-defined ones always, control tokens
//! where the caller asks for them.
//!
//! A match is the leftmost, and of those that start there the longest. Two automata instead of the
//! `AddedVocabulary` of the `tokenizers` crate, because whether control tokens are parsed is asked
//! for each text, and there it is a property of the shared tokenizer.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use redline_gguf::TokenId;

use crate::decode::Spelling;
use crate::error::Error;
use crate::sentence_piece::SPACE;
use crate::vocabulary::{TokenKind, Vocabulary};

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// Text to tokenize.
    Text(&'t str),
    /// A token found by its text.
    Token(TokenId),
}

/// Finds added tokens in text.
pub(crate) struct AddedTokens {
    user_defined: Finder,
    all: Finder,
}

impl AddedTokens {
    pub(crate) fn new(vocabulary: &Vocabulary<'_>, spelling: Spelling) -> Result<Self, Error> {
        let user_defined: Vec<_> = vocabulary
            .tokens()
            .filter(|(_, _, kind)| *kind == TokenKind::UserDefined)
            .flat_map(|(id, piece, _)| texts(piece, spelling).map(move |text| (id, text)))
            .collect();
        let special = vocabulary
            .tokens()
            .filter(|(_, _, kind)| kind.is_special())
            .map(|(id, piece, _)| (id, Cow::Borrowed(piece)));
        Ok(Self {
            user_defined: Finder::new(user_defined.iter().cloned())?,
            all: Finder::new(special.chain(user_defined))?,
        })
    }

    /// The parts of `text` in order; no part is empty.
    pub(crate) fn split<'t>(
        &'t self,
        text: &'t str,
        parse_special: bool,
    ) -> impl Iterator<Item = Part<'t>> {
        if parse_special {
            self.all.split(text)
        } else {
            self.user_defined.split(text)
        }
    }
}

/// The texts that are found for a user-defined piece.
///
/// Where `▁` stands for a space, upstream looks for `▁▁` as such and leaves runs of spaces to the
/// merges. Converters write both as spaces, so a piece of spaces is looked for as `▁▁`, and one with
/// spaces among other characters in either form.
fn texts(piece: &str, spelling: Spelling) -> impl Iterator<Item = Cow<'_, str>> {
    let is_escaped = matches!(spelling, Spelling::SentencePiece { .. }) && piece.contains(' ');
    let is_blank = piece.bytes().all(|byte| byte == b' ');
    let literal = (!is_escaped || !is_blank).then_some(Cow::Borrowed(piece));
    let escaped = is_escaped.then(|| Cow::Owned(piece.replace(' ', SPACE)));
    literal.into_iter().chain(escaped)
}

struct Finder {
    automaton: Option<AhoCorasick>,
    ids: Vec<TokenId>, // by pattern
}

impl Finder {
    fn new<'a>(tokens: impl Iterator<Item = (u32, Cow<'a, str>)>) -> Result<Self, Error> {
        let (ids, texts): (Vec<_>, Vec<_>) = tokens.map(|(id, text)| (TokenId(id), text)).unzip();
        if texts.is_empty() {
            return Ok(Self {
                automaton: None,
                ids,
            });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts.iter().map(|text| text.as_bytes()))
            .map_err(|error| Error::Library(error.to_string()))?;
        Ok(Self {
            automaton: Some(automaton),
            ids,
        })
    }

    fn split<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Part<'t>> {
        let found = self
            .automaton
            .iter()
            .flat_map(move |automaton| automaton.find_iter(text));
        let tokens = found.map(|found| (found.range(), Some(self.ids[found.pattern().as_usize()])));
        let end = std::iter::once((text.len()..text.len(), None));
        let mut done = 0;
        tokens.chain(end).flat_map(move |(range, id)| {
            let before = &text[done..range.start];
            done = range.end;
            let before = Some(Part::Text(before)).filter(|_| !before.is_empty());
            [before, id.map(Part::Token)].into_iter().flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_match_wins_then_the_longest() {
        let tokens = [(3, "ab"), (4, "abc"), (5, "bcd"), (6, "<s>")];
        let tokens = tokens.map(|(id, text)| (id, Cow::Borrowed(text)));
        let finder = Finder::new(tokens.into_iter()).unwrap();
        let split = |text| finder.split(text).collect::<Vec<_>>();
        assert_eq!(
            split("xabcd<s>"),
            [
                Part::Text("x"),
                Part::Token(TokenId(4)),
                Part::Text("d"),
                Part::Token(TokenId(6))
            ]
        );
        assert_eq!(split("abab"), [Part::Token(TokenId(3)); 2]);
        assert_eq!(split("é<s"), [Part::Text("é<s")]);
        assert_eq!(split(""), []);
    }

    #[test]
    fn nothing_to_find_leaves_the_text_whole() {
        let finder = Finder::new(std::iter::empty()).unwrap();
        assert_eq!(finder.split("abc").collect::<Vec<_>>(), [Part::Text("abc")]);
    }
}
