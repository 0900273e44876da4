//! A tokenizer from the metadata of a GGUF file.

use redline_gguf::{Metadata, TokenId};

use crate::added::Strips;
use crate::answer::Markers;
use crate::byte_level::ByteLevel;
use crate::decode::Spelling;
use crate::end_of_generation;
use crate::error::{Error, quote};
use crate::merges;
use crate::pre::Preset;
use crate::sentence_piece::{Prefix, SentencePiece, derive_merges, read_scores};
use crate::vocabulary::{SpecialTokens, Vocabulary};
use crate::word_piece::WordPiece;
use crate::{Encoder, Parts, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

impl Tokenizer {
    /// Builds the tokenizer that a file's metadata describes.
    ///
    /// A chat template is taken as it is: a malformed one is an error when it is rendered.
    ///
    /// # Errors
    /// If keys are missing or of the wrong type, if the tokenizer or its pre-tokenizer is of no known
    /// name, or if the vocabulary contradicts itself.
    pub fn from_gguf(metadata: &Metadata<'_>) -> Result<Self, Error> {
        let parts = match metadata.require_str(MODEL)? {
            "gpt2" => byte_level(metadata),
            "llama" => sentence_piece(metadata),
            "bert" => word_piece(metadata),
            found => Err(Error::UnknownModel {
                key: MODEL,
                found: quote(found),
                known: "gpt2, llama, bert".to_owned(),
            }),
        };
        Self::assemble(parts?)
    }
}

fn byte_level<'a>(metadata: &Metadata<'a>) -> Result<Parts<'a>, Error> {
    let preset = Preset::named(PRE, metadata.require_str(PRE)?)?;
    let mut vocabulary = Vocabulary::read(metadata)?;
    let defaults = SpecialTokens {
        add_bos: preset.add_bos,
        ..SpecialTokens::default()
    };
    let special = SpecialTokens::read(metadata, vocabulary.len(), defaults)?;
    let ends = ends(metadata, &mut vocabulary, &special)?;
    let markers = Markers::find(|piece| vocabulary.id(piece));
    let pairs = metadata.require_str_array(MERGES)?.map(merges::split);
    let merges = merges::resolve(&vocabulary, pairs)?;
    let encoder = ByteLevel::new(&mut vocabulary, &preset, &merges, special.unknown)?;
    Ok(Parts {
        kind: "gguf-bpe",
        vocabulary,
        encoder: Encoder::ByteLevel(encoder),
        spelling: Spelling::ByteLevel,
        strips: Strips::default(),
        special,
        markers,
        ends,
        template: metadata.str(CHAT_TEMPLATE)?,
    })
}

fn sentence_piece<'a>(metadata: &Metadata<'a>) -> Result<Parts<'a>, Error> {
    let mut vocabulary = Vocabulary::read(metadata)?;
    // The layout of Llama's vocabulary, for files that leave it to be known.
    let defaults = SpecialTokens {
        unknown: Some(TokenId(0)),
        bos: Some(TokenId(1)),
        eos: Some(TokenId(2)),
        add_bos: true,
        add_eos: false,
    };
    let special = SpecialTokens::read(metadata, vocabulary.len(), defaults)?;
    let ends = ends(metadata, &mut vocabulary, &special)?;
    let markers = Markers::find(|piece| vocabulary.id(piece));
    let scores = read_scores(metadata, &vocabulary)?;
    let strips = Strips::of_phi_3(&vocabulary);
    let prefix = match metadata.bool(ADD_SPACE_PREFIX)?.unwrap_or(true) {
        true => Prefix::Always,
        false => Prefix::Never,
    };
    let encoder = SentencePiece::new(&mut vocabulary, special.unknown, prefix, |pieces| {
        derive_merges(pieces, &scores)
    })?;
    Ok(Parts {
        kind: "gguf-spm",
        vocabulary,
        encoder: Encoder::SentencePiece(encoder),
        spelling: Spelling::SentencePiece {
            strip_space: prefix != Prefix::Never,
        },
        strips,
        special,
        markers,
        ends,
        template: metadata.str(CHAT_TEMPLATE)?,
    })
}

fn word_piece<'a>(metadata: &Metadata<'a>) -> Result<Parts<'a>, Error> {
    let mut vocabulary = Vocabulary::read(metadata)?;
    let (special, unknown) = SpecialTokens::read_bert(metadata, &vocabulary)?;
    let ends = ends(metadata, &mut vocabulary, &special)?;
    let markers = Markers::find(|piece| vocabulary.id(piece));
    let encoder = WordPiece::from_gguf(metadata, &mut vocabulary, unknown)?;
    Ok(Parts {
        kind: "gguf-wpm",
        vocabulary,
        encoder: Encoder::WordPiece(encoder),
        spelling: Spelling::WordPiece { cleanup: true },
        strips: Strips::default(),
        special,
        markers,
        ends,
        template: metadata.str(CHAT_TEMPLATE)?,
    })
}

fn ends(
    metadata: &Metadata<'_>,
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Result<Vec<TokenId>, Error> {
    let named = end_of_generation::named(metadata, vocabulary.len())?;
    Ok(end_of_generation::collect(named, vocabulary, special))
}
