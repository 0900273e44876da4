//! Byte-level BPE, `gguf-bpe`: words become bytes, bytes become characters, characters are merged.

use std::borrow::Cow;

use redline_gguf::TokenId;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

use crate::alphabet;
use crate::error::Error;
use crate::merging::{Merge, Merger, Style};
use crate::pre::{PreTokenizer, Preset};
use crate::vocabulary::Vocabulary;

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
        vocabulary: &mut Vocabulary<'_>,
        preset: &Preset,
        merges: &[Merge],
        unknown: Option<TokenId>,
    ) -> Result<Self, Error> {
        // Which pieces a merge names: those are text, whatever the file calls them.
        let mut merged = vec![false; vocabulary.len()];
        for id in merges.iter().flat_map(|it| [it.left, it.right, it.joined]) {
            merged[id as usize] = true;
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
                merges,
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
