//! Tokens that are found in text before anything else: user-defined ones always, control tokens
//! where the caller asks for them.
//!
//! A match is the leftmost, and of those that start there the longest. Two automata instead of the
//! `AddedVocabulary` of the `tokenizers` crate, because whether control tokens are parsed is asked
//! for each text, and there it is a property of the shared tokenizer.

use std::borrow::Cow;
use std::collections::HashSet;

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

/// Tokens that take the white space beside them along.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strips {
    pub(crate) left: HashSet<TokenId>,
    pub(crate) right: HashSet<TokenId>,
}

impl Strips {
    /// What Phi-3's vocabulary wants, which its files do not say. It is known by the placeholders that
    /// no other SentencePiece vocabulary has.
    ///
    /// Source: `added_tokens_decoder` in its `tokenizer_config.json`.
    pub(crate) fn of_phi_3(vocabulary: &Vocabulary<'_>) -> Self {
        let mut strips = Self::default();
        let id = |piece: &str| vocabulary.id(piece).map(TokenId);
        if id("<|placeholder1|>").is_some() && id("<|assistant|>").is_some() {
            let taking = vocabulary.tokens().filter(|(_, piece, kind)| match *kind {
                TokenKind::Control => !matches!(*piece, "<s>" | "<|endoftext|>"),
                _ => *piece == "</s>",
            });
            strips.right = taking.map(|(id, ..)| TokenId(id)).collect();
        }
        strips
    }
}

/// Finds added tokens in text.
pub(crate) struct AddedTokens {
    user_defined: Finder,
    all: Finder,
    strips: Strips,
}

impl AddedTokens {
    pub(crate) fn new(
        vocabulary: &Vocabulary<'_>,
        spelling: Spelling,
        strips: Strips,
    ) -> Result<Self, Error> {
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
            strips,
        })
    }

    /// The parts of `text` in order; no part is empty.
    pub(crate) fn split<'t>(
        &'t self,
        text: &'t str,
        parse_special: bool,
    ) -> impl Iterator<Item = Part<'t>> {
        let finder = match parse_special {
            true => &self.all,
            false => &self.user_defined,
        };
        finder.split(text, &self.strips)
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

    fn split<'t>(&'t self, text: &'t str, strips: &'t Strips) -> impl Iterator<Item = Part<'t>> {
        let found = self
            .automaton
            .iter()
            .flat_map(move |automaton| automaton.find_iter(text));
        let tokens = found.map(|found| (found.range(), Some(self.ids[found.pattern().as_usize()])));
        let end = std::iter::once((text.len()..text.len(), None));
        let (mut done, mut white) = (0, 0..0);
        tokens.chain(end).flat_map(move |(range, id)| {
            // A token that takes white space may have taken some of this one.
            let mut before = text.get(done..range.start).unwrap_or_default();
            let has = |taking: &HashSet<TokenId>| id.is_some_and(|id| taking.contains(&id));
            if has(&strips.left) {
                before = before.trim_end();
            }
            done = range.end;
            if has(&strips.right) {
                if !white.contains(&done) {
                    white = done..text.len() - text[done..].trim_start().len();
                }
                done = done.max(white.end);
            }
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
        let strips = Strips::default();
        let split = |text| finder.split(text, &strips).collect::<Vec<_>>();
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
        let strips = Strips::default();
        let parts: Vec<_> = finder.split("abc", &strips).collect();
        assert_eq!(parts, [Part::Text("abc")]);
    }

    #[test]
    fn white_space_goes_with_tokens_that_take_it() {
        let tokens = [(1, "<r>"), (2, "<l>"), (3, "\n")].map(|(id, text)| (id, text.into()));
        let finder = Finder::new(tokens.into_iter()).unwrap();
        let strips = Strips {
            left: [TokenId(2)].into(),
            right: [TokenId(1)].into(),
        };
        let split = |text| finder.split(text, &strips).collect::<Vec<_>>();
        let [r, l, n] = [1, 2, 3].map(|id| Part::Token(TokenId(id)));
        assert_eq!(split("a <r> \t b"), [Part::Text("a "), r, Part::Text("b")]);
        assert_eq!(split("a <l> b"), [Part::Text("a"), l, Part::Text(" b")]);
        assert_eq!(split("<r>  <l>  "), [r, l, Part::Text("  ")]);
        // As upstream: what is found in white space already taken is found all the same.
        assert_eq!(split("<r> \n b"), [r, n, Part::Text(" b")]);
    }
}
