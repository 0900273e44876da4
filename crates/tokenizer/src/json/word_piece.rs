//! WordPiece of a `tokenizer.json`.

use std::borrow::Cow;

use super::components::{Decoder, Definition, Normalizer, PreTokenizer};
use super::unknown;
use crate::error::Error;
use crate::sentence_piece::SPACE;
use crate::vocabulary::{SpecialTokens, Vocabulary};
use crate::word_piece::{MAX_WORD_CHARACTERS, Normalization, WordPiece};
use crate::{Encoder, Spelling};

/// What marks a piece that goes on.
const CONTINUATION: &str = "##";

/// A piece in the spelling that marks where a word begins, not where it goes on.
pub(super) fn with_word_start(piece: &str) -> Cow<'_, str> {
    match piece.strip_prefix(CONTINUATION) {
        Some(rest) if !rest.is_empty() => Cow::Borrowed(rest),
        _ => Cow::Owned([SPACE, piece].concat()),
    }
}

pub(super) fn encoder(
    definition: &Definition<'_>,
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Result<(Encoder, Spelling), Error> {
    let model = &definition.model;
    if model.continuing_subword_prefix.as_deref() != Some(CONTINUATION) {
        return Err(unknown(
            "model",
            "WordPiece of another prefix",
            "WordPiece of ##",
        ));
    }
    let Some(unknown_token) = special.unknown else {
        return Err(unknown(
            "model",
            "WordPiece without unk_token",
            "one with it",
        ));
    };
    if definition.pre_tokenizers()? != [PreTokenizer::Bert] {
        let known = "BertPreTokenizer for WordPiece";
        return Err(unknown("pre_tokenizer", "something else", known));
    }
    let cleanup = match &definition.decoders()?[..] {
        [Decoder::WordPiece { prefix, cleanup }] if prefix == CONTINUATION => *cleanup,
        _ => return Err(unknown("decoder", "something else", "WordPiece of ##")),
    };
    let encoder = WordPiece::new(
        vocabulary,
        unknown_token,
        normalization(&definition.normalizers()?)?,
        model
            .max_input_chars_per_word
            .unwrap_or(MAX_WORD_CHARACTERS),
    );
    Ok((Encoder::WordPiece(encoder), Spelling::WordPiece { cleanup }))
}

fn normalization(normalizers: &[Normalizer]) -> Result<Normalization, Error> {
    let [
        Normalizer::Bert {
            clean_text,
            handle_chinese_chars,
            strip_accents,
            lowercase,
        },
    ] = normalizers
    else {
        let known = "BertNormalizer for WordPiece";
        return Err(unknown("normalizer", "something else", known));
    };
    Ok(Normalization {
        clean: *clean_text,
        split_cjk: *handle_chinese_chars,
        strip_accents: strip_accents.unwrap_or(*lowercase),
        lowercase: *lowercase,
    })
}
