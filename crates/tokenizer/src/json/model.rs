//! The model of a `tokenizer.json`: its vocabulary, merges and settings.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::merges::{self, Pair};

/// A model, of whatever kind.
#[derive(Deserialize)]
pub(super) struct Model<'a> {
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) dropout: Option<f32>,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) fuse_unk: bool,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    #[serde(default)]
    pub(super) max_input_chars_per_word: Option<usize>,
    #[serde(borrow)]
    pub(super) vocab: Vocab<'a>,
    #[serde(borrow, default)]
    pub(super) merges: Merges<'a>,
}

/// Pieces and ids, in the file's order.
pub(super) struct Vocab<'a>(pub(super) Vec<(Cow<'a, str>, u32)>);

/// Merges, best first.
#[derive(Default)]
pub(super) struct Merges<'a>(Vec<Merge<'a>>);

/// A merge in either of its two forms.
enum Merge<'a> {
    /// `"left right"`
    Text(Cow<'a, str>),
    /// `["left", "right"]`
    Pair(Cow<'a, str>, Cow<'a, str>),
}

impl Merges<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.0.iter().map(|merge| match merge {
            Merge::Text(text) => merges::split(text),
            Merge::Pair(left, right) => Ok((&**left, &**right)),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces<'a>(PhantomData<Vocab<'a>>);
        impl<'de: 'a, 'a> Visitor<'de> for Pieces<'a> {
            type Value = Vocab<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of pieces and ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'a>, A::Error> {
                let mut pieces = Vec::new();
                while let Some((Text(piece), id)) = map.next_entry()? {
                    pieces.push((piece, id));
                }
                Ok(Vocab(pieces))
            }
        }
        deserializer.deserialize_map(Pieces(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merges<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<'a>(PhantomData<Merge<'a>>);
        impl<'de: 'a, 'a> Visitor<'de> for Either<'a> {
            type Value = Merge<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge, \"left right\" or [\"left\", \"right\"]")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Merge<'a>, E> {
                Ok(Merge::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Merge<'a>, E> {
                Ok(Merge::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Merge<'a>, A::Error> {
                let mut next = || items.next_element::<Text<'a>>();
                match (next()?, next()?, next()?) {
                    (Some(Text(left)), Some(Text(right)), None) => Ok(Merge::Pair(left, right)),
                    _ => Err(A::Error::custom("a merge that is no pair")),
                }
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A string, borrowed where the file has no escapes in it.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
