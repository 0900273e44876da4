//! What the tests of whole tokenizers share: GGUF metadata, and the upstream files it is made from.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod definitions;
pub(crate) mod small;
pub(crate) mod upstream;

use redline_gguf::{ArrayBuf, Gguf, Writer};
use redline_tokenizer::{EncodeOptions, Error, TokenId, Tokenizer};

/// Text as text: nothing added, control tokens not looked for.
pub(crate) const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};

/// Control tokens looked for, nothing added.
pub(crate) const PARSED: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: true,
};

/// Numbers in `tokenizer.ggml.token_type`.
pub(crate) const NORMAL: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;
pub(crate) const UNUSED: i32 = 5;
pub(crate) const BYTE: i32 = 6;

/// A piece of a vocabulary: text, type, score.
pub(crate) type Piece = (String, i32, f32);

/// A GGUF file in the making, with nothing but a tokenizer in it.
pub(crate) struct File(pub(crate) Writer);

impl File {
    pub(crate) fn new(model: &str) -> Self {
        let mut writer = Writer::new();
        writer.metadata("tokenizer.ggml.model", model).unwrap();
        Self(writer)
    }

    /// Sets a key below `tokenizer.`.
    pub(crate) fn set<'v>(mut self, key: &str, value: impl Into<redline_gguf::Value<'v>>) -> Self {
        self.0.metadata(&format!("tokenizer.{key}"), value).unwrap();
        self
    }

    pub(crate) fn pieces(self, pieces: &[Piece]) -> Self {
        let types: Vec<i32> = pieces.iter().map(|(_, kind, _)| *kind).collect();
        let scores: Vec<f32> = pieces.iter().map(|(.., score)| *score).collect();
        self.set(
            "ggml.tokens",
            &ArrayBuf::strings(pieces.iter().map(|(text, ..)| text)),
        )
        .set("ggml.token_type", &ArrayBuf::from(&types[..]))
        .set("ggml.scores", &ArrayBuf::from(&scores[..]))
    }

    pub(crate) fn merges<S: AsRef<str>>(self, merges: impl IntoIterator<Item = S>) -> Self {
        self.set("ggml.merges", &ArrayBuf::strings(merges))
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.start(Vec::new()).unwrap().finish().unwrap()
    }

    pub(crate) fn tokenizer(self) -> Result<Tokenizer, Error> {
        tokenizer(&self.bytes())
    }
}

/// The tokenizer of a GGUF file.
pub(crate) fn tokenizer(file: &[u8]) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf(Gguf::parse(&[file]).unwrap().metadata())
}

pub(crate) fn ids(numbers: &[u32]) -> Vec<TokenId> {
    numbers.iter().copied().map(TokenId).collect()
}

pub(crate) fn numbers(ids: &[TokenId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

/// 64 bits of FNV-1a over the ids as little-endian `u32`.
pub(crate) fn fnv1a(ids: &[TokenId]) -> String {
    let bytes = ids.iter().flat_map(|id| id.0.to_le_bytes());
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    format!("{hash:016x}")
}
