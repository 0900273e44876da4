//! SentencePiece BPE, `gguf-spm`: spaces become `▁`, characters are merged, those without a piece
//! fall back to bytes.
//!
//! The file has no merges: every way to cut a piece into two others is one, ranked by the piece's
//! score. Equal scores are ranked as Hugging Face's converter does (`generate_merges` in
//! `transformers/convert_slow_tokenizer.py`): longer left part first, then longer right part, then
//! lower id.

use std::cmp::Reverse;

use redline_gguf::{Metadata, TokenId};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use crate::error::Error;
use crate::merging::{append_merged, build};
use crate::vocabulary::{TokenKind, Vocabulary, same_length};

const SCORES: &str = "tokenizer.ggml.scores";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// What stands for a space within pieces.
pub(crate) const SPACE: &str = "\u{2581}";

/// Encodes text that contains no added tokens.
pub(crate) struct SentencePiece {
    model: BPE,
    /// Whether text at the start, and after an added token, is encoded with a space before it.
    pub(crate) space_prefix: bool,
    /// Bytes that no token expresses, where there is no unknown token either.
    missing: Option<[bool; 256]>,
}

impl SentencePiece {
    pub(crate) fn new(
        metadata: &Metadata<'_>,
        vocabulary: &Vocabulary<'_>,
        unknown: Option<TokenId>,
    ) -> Result<Self, Error> {
        let scores = metadata
            .f32_array(SCORES)?
            .unwrap_or_else(|| vec![0.0; vocabulary.len()]);
        same_length(SCORES, scores.len(), vocabulary.len())?;
        if let Some((id, found)) = (0..).zip(&scores).find(|(_, score)| score.is_nan()) {
            return Err(Error::Score { id, found: *found });
        }
        let pieces: Vocab = vocabulary
            .tokens()
            .filter(|(_, _, kind)| !kind.is_special())
            .map(|(id, piece, _)| (piece.to_owned(), id))
            .collect();
        let has_byte = |byte| pieces.contains_key(&format!("<0x{byte:02X}>"));
        let mut missing = [false; 256];
        for byte in 0..=u8::MAX {
            missing[usize::from(byte)] = !has_byte(byte);
        }
        let merges = derive_merges(vocabulary, &scores);
        Ok(Self {
            model: build(vocabulary, pieces, merges, unknown, |builder| {
                builder.byte_fallback(true).fuse_unk(true)
            })?,
            space_prefix: metadata.bool(ADD_SPACE_PREFIX)?.unwrap_or(true),
            missing: Some(missing).filter(|missing| unknown.is_none() && missing.contains(&true)),
        })
    }

    /// Appends the tokens of `text`, which stands at the start or after an added token.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        let prefix = if self.space_prefix { SPACE } else { "" };
        let escaped = [prefix, &text.replace(' ', SPACE)].concat();
        if let Some(byte) = self.first_missing(&escaped) {
            return Err(Error::Unencodable { byte });
        }
        append_merged(&self.model, &escaped, ids)
    }

    /// The first byte of a character that neither has a piece nor bytes to fall back to.
    fn first_missing(&self, escaped: &str) -> Option<u8> {
        let missing = self.missing.as_ref()?;
        let mut buffer = [0; 4];
        escaped.chars().find_map(|character| {
            let character = &*character.encode_utf8(&mut buffer);
            let byte = character.bytes().find(|byte| missing[usize::from(*byte)])?;
            self.model.token_to_id(character).is_none().then_some(byte)
        })
    }
}

/// Every pair of pieces that makes up a piece, best first.
fn derive_merges(vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Merges {
    // Structure is no text, and a byte is what is left when nothing merges.
    let is_text = |kind| {
        !matches!(
            kind,
            TokenKind::Control | TokenKind::Unknown | TokenKind::Byte
        )
    };
    let has_text = |piece| {
        vocabulary
            .id(piece)
            .is_some_and(|id| is_text(vocabulary.kinds[id as usize]))
    };
    let mut merges = Vec::new();
    for (id, piece, kind) in vocabulary.tokens() {
        if !is_text(kind) {
            continue;
        }
        let characters = piece.chars().count();
        for (left_characters, (cut, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(cut);
            if has_text(left) && has_text(right) {
                let lengths = (left_characters, characters - left_characters);
                // Adding zero makes -0.0 and 0.0 one.
                merges.push((scores[id as usize] + 0.0, lengths, id, left, right));
            }
        }
    }
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then_with(|| (Reverse(a.1), a.2).cmp(&(Reverse(b.1), b.2)))
    });
    merges
        .into_iter()
        .map(|(.., left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}
