//! The components of a `tokenizer.json` that are known, with the settings that change ids or text.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::model::Model;
use super::{TOKENIZER, problem, unknown};
use crate::error::Error;

/// Most bytes of one component beside the model. Real ones have some hundreds.
const MAX_COMPONENT_BYTES: usize = 1 << 16;

/// A `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct Definition<'a> {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(borrow, default)]
    pub(super) normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) post_processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Model<'a>,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "type")]
pub(super) enum Normalizer {
    Sequence {
        normalizers: Vec<Normalizer>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    #[serde(rename = "BertNormalizer")]
    Bert {
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: Option<bool>,
        lowercase: bool,
    },
}

#[derive(Debug, Deserialize, PartialEq)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "type")]
pub(super) enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: String,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    Metaspace(Metaspace),
    #[serde(rename = "BertPreTokenizer")]
    Bert,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(super) struct Metaspace {
    pub(super) replacement: char,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) prepend_scheme: Option<PrependScheme>,
    #[serde(default = "yes")]
    pub(super) split: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum PrependScheme {
    First,
    Never,
    Always,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum PostProcessor {
    Sequence {
        processors: Vec<PostProcessor>,
    },
    ByteLevel {},
    TemplateProcessing {
        single: Vec<Slot>,
        special_tokens: std::collections::BTreeMap<String, SlotToken>,
    },
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
}

#[derive(Debug, Deserialize)]
pub(super) enum Slot {
    SpecialToken { id: String },
    Sequence {},
}

#[derive(Debug, Deserialize)]
pub(super) struct SlotToken {
    ids: Vec<u32>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "type")]
pub(super) enum Decoder {
    Sequence {
        decoders: Vec<Decoder>,
    },
    ByteLevel {},
    ByteFallback,
    Fuse,
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    Metaspace(Metaspace),
    WordPiece {
        prefix: String,
        cleanup: bool,
    },
}

fn yes() -> bool {
    true
}

/// The steps of a component, in order; a sequence within a sequence is one.
fn flatten<T>(step: T, inner: &impl Fn(T) -> Result<T, Vec<T>>, steps: &mut Vec<T>) {
    match inner(step) {
        Ok(step) => steps.push(step),
        Err(sequence) => sequence
            .into_iter()
            .for_each(|step| flatten(step, inner, steps)),
    }
}

/// Reads one component; none has no steps.
fn steps<'a, T: Deserialize<'a>>(
    name: &'static str,
    raw: Option<&'a RawValue>,
    inner: &impl Fn(T) -> Result<T, Vec<T>>,
) -> Result<Vec<T>, Error> {
    let mut steps = Vec::new();
    if let Some(raw) = raw {
        let text = raw.get();
        let problem = |what: String| problem(TOKENIZER, &format!("{name}: {what}"));
        if text.len() > MAX_COMPONENT_BYTES {
            let (found, limit) = (text.len(), MAX_COMPONENT_BYTES);
            return Err(problem(format!("{found} bytes: expected at most {limit}")));
        }
        let step = serde_json::from_str(text).map_err(|error| problem(error.to_string()))?;
        flatten(step, inner, &mut steps);
    }
    Ok(steps)
}

impl Definition<'_> {
    pub(super) fn normalizers(&self) -> Result<Vec<Normalizer>, Error> {
        steps("normalizer", self.normalizer, &|step| match step {
            Normalizer::Sequence { normalizers } => Err(normalizers),
            step => Ok(step),
        })
    }

    pub(super) fn pre_tokenizers(&self) -> Result<Vec<PreTokenizer>, Error> {
        steps("pre_tokenizer", self.pre_tokenizer, &|step| match step {
            PreTokenizer::Sequence { pretokenizers } => Err(pretokenizers),
            step => Ok(step),
        })
    }

    pub(super) fn decoders(&self) -> Result<Vec<Decoder>, Error> {
        steps("decoder", self.decoder, &|step| match step {
            Decoder::Sequence { decoders } => Err(decoders),
            step => Ok(step),
        })
    }

    /// The ids that are put before and after a text.
    pub(super) fn around(&self) -> Result<(Option<u32>, Option<u32>), Error> {
        let processors = steps("post_processor", self.post_processor, &|step| match step {
            PostProcessor::Sequence { processors } => Err(processors),
            step => Ok(step),
        })?;
        let mut around = (None, None);
        for processor in processors {
            match processor {
                PostProcessor::BertProcessing { sep, cls }
                | PostProcessor::RobertaProcessing { sep, cls } => {
                    around = (Some(cls.1), Some(sep.1));
                }
                PostProcessor::TemplateProcessing {
                    single,
                    special_tokens,
                } => {
                    let id = |name: &String| match special_tokens.get(name)?.ids[..] {
                        [id] => Some(id),
                        _ => None,
                    };
                    around = around_of(&single, id).ok_or_else(|| template(&single))?;
                }
                PostProcessor::ByteLevel {} | PostProcessor::Sequence { .. } => {}
            }
        }
        Ok(around)
    }
}

fn around_of(
    single: &[Slot],
    id: impl Fn(&String) -> Option<u32>,
) -> Option<(Option<u32>, Option<u32>)> {
    use Slot::{Sequence, SpecialToken};
    Some(match single {
        [Sequence {}] => (None, None),
        [SpecialToken { id: bos }, Sequence {}] => (Some(id(bos)?), None),
        [Sequence {}, SpecialToken { id: eos }] => (None, Some(id(eos)?)),
        [
            SpecialToken { id: bos },
            Sequence {},
            SpecialToken { id: eos },
        ] => (Some(id(bos)?), Some(id(eos)?)),
        _ => return None,
    })
}

fn template(single: &[Slot]) -> Error {
    let found = format!("a template of {} parts", single.len());
    unknown(
        "post_processor",
        &found,
        "the text, with at most one token of one id before and one after it",
    )
}
