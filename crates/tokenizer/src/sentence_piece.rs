//! SentencePiece BPE, `gguf-spm`: spaces become `▁`, characters are merged, those without a piece
//! fall back to bytes.
//!
//! A GGUF file has no merges: every way to cut a piece into two others is one, ranked by the piece's
//! score. User-defined pieces rank above all others, whatever the file's score for them. Equal scores
//! are ranked as Hugging Face's converter does (`generate_merges` in
//! `transformers/convert_slow_tokenizer.py`): longer left part first, then longer right part, then
//! lower id.

use std::borrow::Cow;
use std::cmp::Reverse;

use redline_gguf::{Metadata, TokenId};

use crate::error::Error;
use crate::merging::{Merge, Merger, PieceIds, Style};
use crate::vocabulary::{TokenKind, Vocabulary, byte_of, same_length};

const SCORES: &str = "tokenizer.ggml.scores";

/// Most bytes of merges for each byte of pieces. Real vocabularies have two or three.
const MAX_MERGE_BYTES_PER_BYTE: usize = 16;

/// Bytes of merges that any vocabulary may have.
const BASE_MERGE_BYTES: usize = 1 << 16;

/// What stands for a space within pieces.
pub(crate) const SPACE: &str = "\u{2581}";

/// Where text is encoded with a space before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    Never,
    /// At the start and after an added token.
    Always,
    /// The same, but not where a space is.
    UnlessSpace,
    /// At the start only, and not where a space is.
    FirstUnlessSpace,
}

/// Encodes text that contains no added tokens.
pub(crate) struct SentencePiece {
    merger: Merger,
    prefix: Prefix,
    /// Bytes that no token expresses, where there is no unknown token either.
    missing: Option<[bool; 256]>,
}

impl SentencePiece {
    /// `merges` gives the merges of the vocabulary's pieces, in order.
    pub(crate) fn new(
        vocabulary: &mut Vocabulary<'_>,
        unknown: Option<TokenId>,
        prefix: Prefix,
        merges: impl FnOnce(&PieceIds<'_>) -> Result<Vec<Merge>, Error>,
    ) -> Result<Self, Error> {
        let mut pieces = text_pieces(vocabulary);
        let merges = merges(&pieces)?;
        let mut missing = [true; 256];
        for (id, piece, kind) in vocabulary.tokens() {
            if let (TokenKind::Byte, Some(byte)) = (kind, byte_of(piece)) {
                // As the merge loop looks it up.
                pieces.insert(Cow::Owned(format!("<0x{byte:02X}>")), id);
                missing[usize::from(byte)] = false;
            }
        }
        Ok(Self {
            merger: Merger::new(vocabulary, &pieces, &merges, unknown, Style::SentencePiece),
            prefix,
            missing: Some(missing).filter(|missing| unknown.is_none() && missing.contains(&true)),
        })
    }

    /// Appends the tokens of `text`, which stands after an added token, or with `is_first` at the start.
    pub(crate) fn encode(
        &self,
        text: &str,
        is_first: bool,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let has_space = text.starts_with(' ') || text.starts_with(SPACE);
        let is_prefixed = match self.prefix {
            Prefix::Never => false,
            Prefix::Always => true,
            Prefix::UnlessSpace => !has_space,
            Prefix::FirstUnlessSpace => is_first && !has_space,
        };
        let prefix = if is_prefixed { SPACE } else { "" };
        let escaped = [prefix, &text.replace(' ', SPACE)].concat();
        if let Some(byte) = self.first_missing(&escaped) {
            return Err(Error::Unencodable { byte });
        }
        self.merger.append(&escaped, ids);
        Ok(())
    }

    /// The first byte of a character that neither has a piece nor bytes to fall back to.
    fn first_missing(&self, escaped: &str) -> Option<u8> {
        let missing = self.missing.as_ref()?;
        let mut buffer = [0; 4];
        escaped.chars().find_map(|character| {
            let character = &*character.encode_utf8(&mut buffer);
            let byte = character.bytes().find(|byte| missing[usize::from(*byte)])?;
            self.merger.character(character).is_none().then_some(byte)
        })
    }
}

/// The score of each token.
pub(crate) fn read_scores(
    metadata: &Metadata<'_>,
    vocabulary: &Vocabulary<'_>,
) -> Result<Vec<f32>, Error> {
    let scores = metadata.f32_array(SCORES)?;
    let mut scores = scores.unwrap_or_else(|| vec![0.0; vocabulary.len()]);
    same_length(SCORES, scores.len(), vocabulary.len())?;
    for ((id, score), kind) in (0..).zip(&mut scores).zip(&vocabulary.kinds) {
        if score.is_nan() {
            return Err(Error::Score { id, found: *score });
        }
        if *kind == TokenKind::UserDefined {
            *score = f32::INFINITY;
        }
    }
    Ok(scores)
}

/// The pieces that merging can give: structure is no text, and a byte is what is left when nothing
/// merges.
fn text_pieces<'a>(vocabulary: &mut Vocabulary<'a>) -> PieceIds<'a> {
    let mut pieces = std::mem::take(&mut vocabulary.ids);
    pieces.retain(|_, id| {
        let kind = vocabulary.kinds[*id as usize];
        !kind.is_special() && kind != TokenKind::Byte
    });
    // Converters write the spaces of user-defined pieces as such.
    for (id, piece, kind) in vocabulary.tokens() {
        if kind == TokenKind::UserDefined && piece.contains(' ') {
            pieces.remove(piece);
            pieces.entry(piece.replace(' ', SPACE).into()).or_insert(id);
        }
    }
    pieces
}

/// Every pair of pieces that makes up a piece, best first.
pub(crate) fn derive_merges(pieces: &PieceIds<'_>, scores: &[f32]) -> Result<Vec<Merge>, Error> {
    // Pieces of pieces of pieces: a small file could describe a table that fills the memory.
    let piece_bytes: usize = pieces.keys().map(|piece| piece.len()).sum();
    let limit = piece_bytes * MAX_MERGE_BYTES_PER_BYTE + BASE_MERGE_BYTES;
    let mut merge_bytes = 0;
    let mut merges = Vec::new();
    #[expect(
        clippy::iter_over_hash_type,
        reason = "the merges are sorted, no two alike"
    )]
    for (piece, &id) in pieces {
        let characters = piece.chars().count();
        for (left_characters, (cut, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(cut);
            if let Some(&left) = pieces.get(left)
                && let Some(&right) = pieces.get(right)
            {
                let lengths = (left_characters, characters - left_characters);
                merge_bytes += piece.len();
                if merge_bytes > limit {
                    return Err(Error::DerivedMerges { piece_bytes, limit });
                }
                // Adding zero makes -0.0 and 0.0 one.
                let merge = Merge {
                    left,
                    right,
                    joined: id,
                };
                merges.push((scores[id as usize] + 0.0, lengths, merge));
            }
        }
    }
    merges.sort_unstable_by(|a, b| {
        let by_score = b.0.total_cmp(&a.0);
        by_score.then_with(|| (Reverse(a.1), a.2.joined).cmp(&(Reverse(b.1), b.2.joined)))
    });
    Ok(merges.into_iter().map(|(.., merge)| merge).collect())
}
