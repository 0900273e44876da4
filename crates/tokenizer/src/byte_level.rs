//! Byte-level BPE, `gguf-bpe`: words become bytes, bytes become characters, characters are merged.

use redline_gguf::{Metadata, TokenId};
use std::borrow::Cow;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

use crate::alphabet;
use crate::error::{Error, quote};
use crate::merging::{Merge, Merger, Style};
use crate::pre::{PreTokenizer, Preset};
use crate::vocabulary::Vocabulary;

const MERGES: &str = "tokenizer.ggml.merges";

/// Encodes text that contains no added tokens.
pub(crate) struct ByteLevel {
    merger: Merger,
    pre_tokenizer: PreTokenizer,
    compose: bool,
    /// Which bytes have no token of their own.
    missing: [bool; 256],
}

impl ByteLevel {
    pub(crate) fn new(
        metadata: &Metadata<'_>,
        vocabulary: &mut Vocabulary<'_>,
        preset: &Preset,
        unknown: Option<TokenId>,
    ) -> Result<Self, Error> {
        let mut merges = Vec::new();
        // Which pieces a merge names: those are text, whatever the file calls them.
        let mut merged = vec![false; vocabulary.len()];
        let mut joined = String::new();
        for (index, merge) in metadata.require_str_array(MERGES)?.enumerate() {
            let (left, right) = split_merge(merge).ok_or_else(|| Error::MergeForm {
                index,
                merge: quote(merge),
            })?;
            joined.clear();
            joined.extend([left, right]);
            let id = |piece: &str| {
                vocabulary.id(piece).ok_or_else(|| Error::MergePiece {
                    index,
                    merge: quote(merge),
                    piece: quote(piece),
                })
            };
            // Vocabularies are numbered as merges made them: most often it is simply the next.
            let next = merges.last().map_or(0, |merge: &Merge| merge.joined + 1);
            let is_next = vocabulary.pieces.get(next as usize) == Some(&&*joined);
            let merge = Merge {
                left: id(left)?,
                right: id(right)?,
                joined: if is_next { next } else { id(&joined)? },
            };
            for id in [merge.left, merge.right, merge.joined] {
                merged[id as usize] = true;
            }
            merges.push(merge);
        }
        let mut pieces = std::mem::take(&mut vocabulary.ids);
        pieces.retain(|_, id| merged[*id as usize] || !vocabulary.kinds[*id as usize].is_special());
        let mut missing = [false; 256];
        if unknown.is_none() {
            let mut buffer = [0; 4];
            missing = alphabet::CHARACTERS
                .map(|character| !pieces.contains_key(&*character.encode_utf8(&mut buffer)));
        }
        Ok(Self {
            merger: Merger::new(
                vocabulary,
                &pieces,
                &merges,
                unknown,
                Style::ByteLevel {
                    whole_words: preset.whole_words,
                },
            ),
            pre_tokenizer: PreTokenizer::new(preset)?,
            compose: preset.compose,
            missing,
        })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        let text = if self.compose {
            compose(text)?
        } else {
            Cow::Borrowed(text)
        };
        if let Some(byte) = text.bytes().find(|byte| self.missing[usize::from(*byte)]) {
            return Err(Error::Unencodable { byte });
        }
        let mut characters = String::new();
        for word in self.pre_tokenizer.words(&text) {
            characters.clear();
            characters.extend(
                word.bytes()
                    .map(|byte| alphabet::CHARACTERS[usize::from(byte)]),
            );
            self.merger.append(&characters, ids);
        }
        Ok(())
    }
}

/// The two pieces of a merge; the first is not empty, so a space at its start belongs to it.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let (space, _) = merge
        .char_indices()
        .skip(1)
        .find(|(_, character)| *character == ' ')?;
    Some((&merge[..space], &merge[space + 1..])).filter(|(_, right)| !right.is_empty())
}

/// Brings text into Unicode's composed form.
fn compose(text: &str) -> Result<Cow<'_, str>, Error> {
    if text.is_ascii() {
        return Ok(Cow::Borrowed(text));
    }
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized)
        .map_err(|error| Error::Library(error.to_string()))?;
    Ok(Cow::Owned(normalized.get().to_owned()))
}
