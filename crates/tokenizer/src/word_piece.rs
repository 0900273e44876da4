//! WordPiece, `gguf-wpm`: text is normalised and cut into words, a word into its longest known parts.
//!
//! Normalising and cutting are BERT's: control characters go, every kind of white space is a space, CJK
//! characters and punctuation stand alone, and where the vocabulary wants it letters lose their case and
//! their accents. A word-start piece is spelled with `▁` before it, one that goes on without.
//!
//! Sources: `BasicTokenizer` and `WordpieceTokenizer` in
//! <https://github.com/google-research/bert/blob/master/tokenization.py>; the spelling is that of
//! llama.cpp's converter (`BertModel.set_vocab` in `convert_hf_to_gguf.py`).

use std::collections::HashMap;

use redline_gguf::{Metadata, TokenId};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::error::Error;
use crate::sentence_piece::SPACE;
use crate::vocabulary::Vocabulary;

const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";

/// Characters of a word above which it is unknown as a whole.
pub(crate) const MAX_WORD_CHARACTERS: usize = 100;

/// What is done to text before it is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Normalization {
    /// Removes control characters, and makes all white space spaces.
    pub(crate) clean: bool,
    /// Makes a word of each CJK character.
    pub(crate) split_cjk: bool,
    /// Removes accents.
    pub(crate) strip_accents: bool,
    /// Makes letters small.
    pub(crate) lowercase: bool,
}

/// Encodes text that contains no added tokens.
pub(crate) struct WordPiece {
    starts: Pieces,
    continuations: Pieces,
    unknown: TokenId,
    normalizer: BertNormalizer,
    max_word_characters: usize,
}

impl WordPiece {
    /// Files that do not say otherwise have BERT's uncased vocabulary.
    pub(crate) fn from_gguf(
        metadata: &Metadata<'_>,
        vocabulary: &mut Vocabulary<'_>,
        unknown: TokenId,
    ) -> Result<Self, Error> {
        let lowercase = metadata.bool(LOWERCASE)?.unwrap_or(true);
        let normalization = Normalization {
            clean: true,
            split_cjk: true,
            strip_accents: metadata.bool(STRIP_ACCENTS)?.unwrap_or(lowercase),
            lowercase,
        };
        Ok(Self::new(
            vocabulary,
            unknown,
            normalization,
            MAX_WORD_CHARACTERS,
        ))
    }

    pub(crate) fn new(
        vocabulary: &mut Vocabulary<'_>,
        unknown: TokenId,
        normalization: Normalization,
        max_word_characters: usize,
    ) -> Self {
        let ids = std::mem::take(&mut vocabulary.ids);
        let (mut starts, mut continuations) = (Pieces::default(), Pieces::default());
        let text = ids
            .iter()
            .filter(|(_, id)| !vocabulary.kinds[**id as usize].is_special());
        for (piece, id) in text {
            match piece.strip_prefix(SPACE) {
                Some(start) => starts.insert(start, *id),
                None => continuations.insert(piece, *id),
            }
        }
        Self {
            starts,
            continuations,
            unknown,
            normalizer: BertNormalizer::new(
                normalization.clean,
                normalization.split_cjk,
                Some(normalization.strip_accents),
                normalization.lowercase,
            ),
            max_word_characters,
        }
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        let library = |error: tokenizers::Error| Error::Library(error.to_string());
        let mut normalized = NormalizedString::from(text);
        self.normalizer
            .normalize(&mut normalized)
            .map_err(library)?;
        let mut words = PreTokenizedString::from(normalized.get());
        BertPreTokenizer.pre_tokenize(&mut words).map_err(library)?;
        for (word, ..) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            self.append(word, ids);
        }
        Ok(())
    }

    /// Appends the tokens of one word: the longest piece that it begins with, and so on; one unknown
    /// token for all of it where there is none.
    fn append(&self, word: &str, ids: &mut Vec<TokenId>) {
        let before = ids.len();
        let is_short = word.chars().nth(self.max_word_characters).is_none();
        let mut rest = word;
        let mut pieces = &self.starts;
        while is_short && let Some((id, length)) = pieces.longest(rest) {
            ids.push(TokenId(id));
            rest = &rest[length..];
            pieces = &self.continuations;
            if rest.is_empty() {
                return;
            }
        }
        ids.truncate(before);
        ids.push(self.unknown);
    }
}

/// Pieces by their text.
#[derive(Debug, Default)]
struct Pieces {
    ids: HashMap<Box<str>, u32>,
    /// Bytes of the longest.
    longest: usize,
}

impl Pieces {
    fn insert(&mut self, piece: &str, id: u32) {
        self.longest = self.longest.max(piece.len());
        self.ids.insert(piece.into(), id);
    }

    /// The longest piece that `text` begins with, and its length in bytes.
    fn longest(&self, text: &str) -> Option<(u32, usize)> {
        let most = self.longest.min(text.len());
        (1..=most)
            .rev()
            .filter(|end| text.is_char_boundary(*end))
            .find_map(|end| Some((*self.ids.get(&text[..end])?, end)))
    }
}
