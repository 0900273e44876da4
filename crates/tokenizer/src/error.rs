//! What can be wrong with a tokenizer's metadata, a text, or a chat template.

use std::fmt::Write;

/// Why a tokenizer cannot be built from a file's metadata, a text cannot be encoded, or a chat
/// template cannot be rendered.
///
/// Text quoted from a file is escaped and cut short.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the message of each variant says what its fields are"
)]
pub enum Error {
    #[error(transparent)]
    Metadata(#[from] redline_gguf::Error),

    #[error("{key}: unknown tokenizer {found}: expected one of {known}")]
    UnknownModel {
        key: &'static str,
        found: String,
        known: String,
    },

    #[error("{key}: unknown pre-tokenizer {found}: expected one of {known}")]
    UnknownPreTokenizer {
        key: &'static str,
        found: String,
        known: String,
    },

    #[error("{key}: {found} tokens: expected 1 to {limit}")]
    VocabularySize {
        key: &'static str,
        found: usize,
        limit: usize,
    },

    #[error("{key}: {found} elements: expected {expected}, one for each token")]
    ArrayLength {
        key: &'static str,
        found: usize,
        expected: usize,
    },

    #[error("token {id} has {found} bytes: expected at most {limit}")]
    PieceLength { id: u32, found: usize, limit: usize },

    #[error("tokens {first} and {second} are both {piece}: expected each text once")]
    DuplicatePiece {
        piece: String,
        first: u32,
        second: u32,
    },

    #[error("token {id} is of type {found}: expected 0 to 6")]
    TokenType { id: u32, found: i32 },

    #[error("token {id}, {piece}, is of type byte: expected a text like <0x0A>")]
    ByteToken { id: u32, piece: String },

    #[error("token {id} has the score {found}: expected a number")]
    Score { id: u32, found: f32 },

    #[error("{key} is {found}: expected an id below the vocabulary's size, {vocab_size}")]
    SpecialId {
        key: String,
        found: u32,
        vocab_size: usize,
    },

    #[error("{flag} is set: expected {key} to say which token to add")]
    MissingSpecial {
        flag: &'static str,
        key: &'static str,
    },

    #[error("{key} is absent, and no token is {piece}: expected one of the two")]
    MissingRole {
        key: &'static str,
        piece: &'static str,
    },

    #[error("{file}: {problem}")]
    Json { file: &'static str, problem: String },

    #[error("tokenizer.json: {component} is {found}: known is {known}")]
    JsonComponent {
        component: &'static str,
        found: String,
        known: String,
    },

    #[error("merge {index} is {merge}: expected two pieces with a space between them")]
    MergeForm { index: usize, merge: String },

    #[error("merge {index}, {merge}: {piece} is not in the vocabulary")]
    MergePiece {
        index: usize,
        merge: String,
        piece: String,
    },

    #[error(
        "the pieces, {piece_bytes} bytes, make each other up in too many ways: expected merges of at \
         most {limit} bytes"
    )]
    DerivedMerges { piece_bytes: usize, limit: usize },

    #[error("the vocabulary has neither a token for byte 0x{byte:02X} nor an unknown token")]
    Unencodable { byte: u8 },

    #[error("tokenizing failed: {0}")]
    Library(String),

    #[error("the chat template has {found} bytes: expected at most {limit}")]
    TemplateLength { found: usize, limit: usize },

    #[error("the chat template is malformed: {0}")]
    TemplateSyntax(String),

    #[error("the chat template refuses these messages: {0}")]
    TemplateRaised(String),

    #[error("the chat template does too much work: its budget of {limit} steps is used up")]
    TemplateFuel { limit: u64 },

    #[error("the chat template writes too much: its output is limited to {limit} bytes")]
    TemplateOutput { limit: usize },

    #[error("the chat template cannot run: no thread with a stack of {stack} bytes: {source}")]
    TemplateThread {
        stack: usize,
        source: std::io::Error,
    },

    #[error("the chat template failed: {0}")]
    TemplateFailed(String),
}

/// Text from a file for an error message: escaped, quoted, and at most 48 characters of it.
pub(crate) fn quote(text: &str) -> String {
    const LIMIT: usize = 48;
    let mut quoted = String::from("\"");
    for character in text.chars().take(LIMIT) {
        quoted.extend(character.escape_debug());
    }
    quoted.push('"');
    if text.chars().nth(LIMIT).is_some() {
        let _ = write!(quoted, "… ({} bytes)", text.len());
    }
    quoted
}

/// A message that may quote a file: without control characters, and at most 300 characters of it.
pub(crate) fn shorten(message: &str) -> String {
    const LIMIT: usize = 300;
    let mut short = String::new();
    for character in message.chars().take(LIMIT) {
        match character.is_control() {
            true => short.extend(character.escape_default()),
            false => short.push(character),
        }
    }
    if message.chars().nth(LIMIT).is_some() {
        short.push('…');
    }
    short
}
