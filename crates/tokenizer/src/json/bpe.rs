//! BPE of a `tokenizer.json`: over bytes, or over characters with `▁` for a space.

use super::components::{
    Decoder, Definition, Metaspace, Normalizer, Pattern, PreTokenizer, PrependScheme,
};
use super::unknown;
use crate::byte_level::ByteLevel;
use crate::error::{Error, quote};
use crate::merges;
use crate::pre::Preset;
use crate::sentence_piece::{Prefix, SPACE, SentencePiece};
use crate::vocabulary::{SpecialTokens, TokenKind, Vocabulary};
use crate::{Encoder, Spelling};

pub(super) fn encoder(
    definition: &Definition<'_>,
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Result<(Encoder, Spelling), Error> {
    let model = &definition.model;
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let refused = [
        ("dropout", model.dropout.is_some_and(|chance| chance != 0.0)),
        (
            "continuing_subword_prefix",
            is_set(&model.continuing_subword_prefix),
        ),
        ("end_of_word_suffix", is_set(&model.end_of_word_suffix)),
    ];
    if let Some((setting, _)) = refused.into_iter().find(|(_, is_set)| *is_set) {
        return Err(unknown(
            "model",
            &format!("BPE with {setting}"),
            "BPE without",
        ));
    }
    let pre_tokenizers = definition.pre_tokenizers()?;
    let is_byte_level = |step: &PreTokenizer| matches!(step, PreTokenizer::ByteLevel { .. });
    if pre_tokenizers.iter().any(is_byte_level) {
        byte_level(definition, &pre_tokenizers, vocabulary, special)
    } else {
        sentence_piece(definition, &pre_tokenizers, vocabulary, special)
    }
}

fn byte_level(
    definition: &Definition<'_>,
    pre_tokenizers: &[PreTokenizer],
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Result<(Encoder, Spelling), Error> {
    let model = &definition.model;
    if model.byte_fallback {
        return Err(unknown(
            "model",
            "BPE over bytes with byte_fallback",
            "one of the two",
        ));
    }
    let compose = match definition.normalizers()?[..] {
        [] => false,
        [Normalizer::Nfc] => true,
        ref steps => return Err(unknown_steps("normalizer", steps, "NFC or none")),
    };
    if definition.decoders()? != [Decoder::ByteLevel {}] {
        let found = definition.decoders()?;
        return Err(unknown_steps("decoder", &found, "ByteLevel"));
    }
    let mut preset = words(pre_tokenizers)?;
    preset.compose = compose;
    preset.whole_words = model.ignore_merges;
    let merges = merges::resolve(vocabulary, model.merges.pairs())?;
    let encoder = ByteLevel::new(vocabulary, &preset, &merges, special.unknown)?;
    Ok((Encoder::ByteLevel(encoder), Spelling::ByteLevel))
}

/// How text is cut into words.
fn words(pre_tokenizers: &[PreTokenizer]) -> Result<Preset, Error> {
    let regex = |use_regex| PreTokenizer::ByteLevel {
        add_prefix_space: false,
        use_regex,
    };
    let preset = match pre_tokenizers {
        [level] if *level == regex(true) => Preset::of_gpt_2(false),
        [
            PreTokenizer::Digits {
                individual_digits: true,
            },
            level,
        ] if *level == regex(true) => Preset::of_gpt_2(true),
        [
            PreTokenizer::Split {
                pattern: Pattern::Regex(pattern),
                behavior,
                invert: false,
            },
            level,
        ] if behavior == "Isolated" && *level == regex(false) => {
            let preset = Preset::of_pattern(pattern);
            return preset.ok_or_else(|| {
                let known = "a pattern of GPT-2, Llama 3, Qwen2, o200k or Tekken";
                unknown(
                    "pre_tokenizer",
                    &format!("a Split at {}", quote(pattern)),
                    known,
                )
            });
        }
        steps => {
            let known = "ByteLevel; Digits, one by one, then ByteLevel; Split, isolated, then ByteLevel \
                         without its regex";
            return Err(unknown_steps("pre_tokenizer", steps, known));
        }
    };
    Ok(preset)
}

fn sentence_piece(
    definition: &Definition<'_>,
    pre_tokenizers: &[PreTokenizer],
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Result<(Encoder, Spelling), Error> {
    let model = &definition.model;
    let mut bytes = vocabulary
        .kinds
        .iter()
        .filter(|kind| **kind == TokenKind::Byte);
    if model.ignore_merges || !model.byte_fallback || (!model.fuse_unk && bytes.nth(255).is_none())
    {
        let known =
            "BPE over bytes (with ByteLevel), or with byte_fallback and without ignore_merges";
        return Err(unknown("model", "BPE over characters", known));
    }
    let prefix = prefix(&definition.normalizers()?, pre_tokenizers)?;
    let strip_space = strips_space(&definition.decoders()?)?;
    let pairs = model.merges.pairs();
    let merges = merges::resolve(vocabulary, pairs)?;
    let encoder = SentencePiece::new(vocabulary, special.unknown, prefix, |_| Ok(merges))?;
    Ok((
        Encoder::SentencePiece(encoder),
        Spelling::SentencePiece { strip_space },
    ))
}

/// Where a space is put before text. In all forms, spaces become `▁`.
fn prefix(normalizers: &[Normalizer], pre_tokenizers: &[PreTokenizer]) -> Result<Prefix, Error> {
    let escape = Normalizer::Replace {
        pattern: Pattern::String(" ".to_owned()),
        content: SPACE.to_owned(),
    };
    let prepend = Normalizer::Prepend {
        prepend: SPACE.to_owned(),
    };
    // Where spaces are `▁` already, cutting at spaces does nothing.
    let is_idle = |step: &PreTokenizer| matches!(step, PreTokenizer::Split { pattern: Pattern::String(text), .. } if text == " ");
    match (normalizers, pre_tokenizers) {
        ([first, second], []) if *first == prepend && *second == escape => Ok(Prefix::Always),
        ([only], []) if *only == escape => Ok(Prefix::Never),
        ([only], [split]) if *only == escape && is_idle(split) => Ok(Prefix::Never),
        ([], [PreTokenizer::Metaspace(metaspace)]) => metaspace_prefix(metaspace),
        ([], steps) => Err(unknown_steps(
            "pre_tokenizer",
            steps,
            "Metaspace without split",
        )),
        (steps, _) => {
            let known = "Prepend and Replace, or Replace, of a space by ▁";
            Err(unknown_steps("normalizer", steps, known))
        }
    }
}

fn metaspace_prefix(metaspace: &Metaspace) -> Result<Prefix, Error> {
    let scheme = match (metaspace.prepend_scheme, metaspace.add_prefix_space) {
        (Some(scheme), _) => scheme,
        (None, Some(false)) => PrependScheme::Never,
        (None, _) => PrependScheme::Always,
    };
    match scheme {
        _ if metaspace.split || !SPACE.starts_with(metaspace.replacement) => {
            let found = format!("{metaspace:?}");
            Err(unknown(
                "pre_tokenizer",
                &found,
                "Metaspace of ▁ without split",
            ))
        }
        PrependScheme::Never => Ok(Prefix::Never),
        PrependScheme::Always => Ok(Prefix::UnlessSpace),
        PrependScheme::First => Ok(Prefix::FirstUnlessSpace),
    }
}

/// Whether a space at the start of decoded text is left out.
fn strips_space(decoders: &[Decoder]) -> Result<bool, Error> {
    let known =
        "Replace of ▁ by a space, ByteFallback, Fuse, and perhaps Strip of one space at the start";
    let spaces = Decoder::Replace {
        pattern: Pattern::String(SPACE.to_owned()),
        content: " ".to_owned(),
    };
    let strip = Decoder::Strip {
        content: ' ',
        start: 1,
        stop: 0,
    };
    match decoders {
        [first, Decoder::ByteFallback, Decoder::Fuse] if *first == spaces => Ok(false),
        [first, Decoder::ByteFallback, Decoder::Fuse, last]
            if *first == spaces && *last == strip =>
        {
            Ok(true)
        }
        steps => Err(unknown_steps("decoder", steps, known)),
    }
}

fn unknown_steps<T: std::fmt::Debug>(
    component: &'static str,
    steps: &[T],
    known: &'static str,
) -> Error {
    let found = match steps {
        [] => "absent".to_owned(),
        steps => quote(&format!("{steps:?}")),
    };
    unknown(component, &found, known)
}
