//! The vocabulary in a file's metadata: pieces, their kinds, and which ones are special.

use std::borrow::Cow;

use redline_gguf::{Metadata, TokenId};

use crate::error::{Error, quote};
use crate::merging::PieceIds;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Most tokens of a vocabulary.
pub(crate) const MAX_TOKENS: usize = 1 << 22;

/// Most bytes of one piece. The longest of a known vocabulary has 256; deriving merges takes time
/// proportional to the square of this.
pub(crate) const MAX_PIECE_BYTES: usize = 1024;

/// What a token is.
///
/// Source: `llama_token_type`, the numbers in `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Text found by merging.
    Normal,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Structure, not text: found in text only where that is asked for, not shown.
    Control,
    /// Text that is found before anything else, and shown.
    UserDefined,
    /// Never produced by the model's training, found and shown like a normal one.
    Unused,
    /// One byte.
    Byte,
}

impl TokenKind {
    fn from_number(id: u32, number: i32) -> Result<Self, Error> {
        Ok(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            found => return Err(Error::TokenType { id, found }),
        })
    }

    /// Whether it is structure rather than text.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Pieces and kinds, by id.
pub(crate) struct Vocabulary<'a> {
    /// An empty piece is a hole: no text has this id.
    pub(crate) pieces: Vec<&'a str>,
    pub(crate) kinds: Vec<TokenKind>,
    /// The ids of all pieces that are not empty.
    pub(crate) ids: PieceIds<'a>,
}

impl<'a> Vocabulary<'a> {
    pub(crate) fn read(metadata: &Metadata<'a>) -> Result<Self, Error> {
        let strings = metadata.require_str_array(TOKENS)?;
        check_size(TOKENS, strings.len())?;
        let pieces: Vec<&str> = strings.collect();
        let kinds: Vec<TokenKind> = match metadata.i32_array(TYPES)? {
            Some(numbers) => {
                same_length(TYPES, numbers.len(), pieces.len())?;
                numbered(&numbers)
                    .map(|(id, number)| TokenKind::from_number(id, number))
                    .collect::<Result<_, _>>()?
            }
            None => pieces.iter().map(|piece| untyped_kind(piece)).collect(),
        };
        Self::new(pieces, kinds)
    }

    /// The vocabulary of these pieces, if none is too long, twice there, or a byte that is none.
    pub(crate) fn new(pieces: Vec<&'a str>, kinds: Vec<TokenKind>) -> Result<Self, Error> {
        let mut ids = PieceIds::with_capacity(pieces.len());
        for ((id, piece), kind) in numbered(&pieces).zip(&kinds) {
            if piece.len() > MAX_PIECE_BYTES {
                return Err(Error::PieceLength {
                    id,
                    found: piece.len(),
                    limit: MAX_PIECE_BYTES,
                });
            }
            if *kind == TokenKind::Byte && byte_of(piece).is_none() {
                return Err(Error::ByteToken {
                    id,
                    piece: quote(piece),
                });
            }
            if piece.is_empty() {
                continue;
            }
            if let Some(first) = ids.insert(Cow::Borrowed(piece), id) {
                return Err(Error::DuplicatePiece {
                    piece: quote(piece),
                    first,
                    second: id,
                });
            }
        }
        Ok(Self { pieces, kinds, ids })
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// Ids, pieces and kinds of the tokens that have a text.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (u32, &'a str, TokenKind)> {
        numbered(&self.pieces)
            .zip(&self.kinds)
            .map(|((id, piece), kind)| (id, piece, *kind))
            .filter(|(_, piece, _)| !piece.is_empty())
    }
}

/// The elements with their ids; there are at most [`MAX_TOKENS`].
fn numbered<T: Copy>(items: &[T]) -> impl Iterator<Item = (u32, T)> {
    (0..).zip(items.iter().copied())
}

/// Checks that a vocabulary of `found` tokens is one.
pub(crate) fn check_size(key: &'static str, found: usize) -> Result<(), Error> {
    if (1..=MAX_TOKENS).contains(&found) {
        Ok(())
    } else {
        Err(Error::VocabularySize {
            key,
            found,
            limit: MAX_TOKENS,
        })
    }
}

/// Checks that an array has one element for each token.
pub(crate) fn same_length(key: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::ArrayLength {
            key,
            found,
            expected,
        })
    }
}

/// The kind of a token in a file that does not say.
fn untyped_kind(piece: &str) -> TokenKind {
    if byte_of(piece).is_some() {
        TokenKind::Byte
    } else {
        TokenKind::Normal
    }
}

/// The byte that a piece like `<0x0A>` names.
pub(crate) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_hex {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// Tokens with a role of their own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpecialTokens {
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
    pub(crate) unknown: Option<TokenId>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
}

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const SEPARATOR: &str = "tokenizer.ggml.seperator_token_id"; // so spelled
const CLASS: &str = "tokenizer.ggml.cls_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

impl SpecialTokens {
    /// Reads the roles; `defaults` hold where the file says nothing.
    pub(crate) fn read(
        metadata: &Metadata<'_>,
        vocab_size: usize,
        defaults: Self,
    ) -> Result<Self, Error> {
        let in_range = |id: Option<TokenId>| id.filter(|id| (id.0 as usize) < vocab_size);
        let id = |key, default| {
            Ok::<_, Error>(special_id(metadata, vocab_size, key)?.or_else(|| in_range(default)))
        };
        let special = Self {
            bos: id(BOS, defaults.bos)?,
            eos: id(EOS, defaults.eos)?,
            unknown: id(UNKNOWN, defaults.unknown)?,
            add_bos: metadata.bool(ADD_BOS)?.unwrap_or(defaults.add_bos),
            add_eos: metadata.bool(ADD_EOS)?.unwrap_or(defaults.add_eos),
        };
        if special.add_bos && special.bos.is_none() {
            return Err(Error::MissingSpecial {
                flag: ADD_BOS,
                key: BOS,
            });
        }
        if special.add_eos && special.eos.is_none() {
            return Err(Error::MissingSpecial {
                flag: ADD_EOS,
                key: EOS,
            });
        }
        Ok(special)
    }
}

impl SpecialTokens {
    /// Reads the roles of a BERT vocabulary, where `[CLS]` begins a text and `[SEP]` ends it, always;
    /// and the unknown token by itself. Files name them by several keys or not at all; then they are
    /// known by their texts.
    pub(crate) fn read_bert(
        metadata: &Metadata<'_>,
        vocabulary: &Vocabulary<'_>,
    ) -> Result<(Self, TokenId), Error> {
        let find = |keys: &[&'static str], piece| {
            for key in keys {
                if let Some(id) = special_id(metadata, vocabulary.len(), key)? {
                    return Ok(id);
                }
            }
            let id = vocabulary.id(piece).map(TokenId);
            id.ok_or(Error::MissingRole {
                key: keys[0],
                piece,
            })
        };
        let unknown = find(&[UNKNOWN], "[UNK]")?;
        let special = Self {
            bos: Some(find(&[BOS, CLASS], "[CLS]")?),
            eos: Some(find(&[SEPARATOR, EOS], "[SEP]")?),
            unknown: Some(unknown),
            add_bos: true,
            add_eos: true,
        };
        Ok((special, unknown))
    }
}

/// The token id under `key`, which must be one of the vocabulary.
pub(crate) fn special_id(
    metadata: &Metadata<'_>,
    vocab_size: usize,
    key: &str,
) -> Result<Option<TokenId>, Error> {
    let Some(found) = metadata.u32(key)? else {
        return Ok(None);
    };
    if found as usize >= vocab_size {
        return Err(Error::SpecialId {
            key: key.to_owned(),
            found,
            vocab_size,
        });
    }
    Ok(Some(TokenId(found)))
}
