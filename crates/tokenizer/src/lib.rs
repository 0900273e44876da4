//! Text to token ids and back, streaming decode, chat templates.
//!
//! A [`Tokenizer`] is built from the metadata of a GGUF file. Three kinds are known: `gguf-bpe`
//! (`tokenizer.ggml.model` = `gpt2`: byte-level BPE, words cut as `tokenizer.ggml.pre` says),
//! `gguf-spm` (`llama`: SentencePiece BPE with byte fallback) and `gguf-wpm` (`bert`: WordPiece). Or it
//! is built from a `tokenizer.json`, `hf-json`, which describes one of the three. Ids are those of the
//! upstream tokenizer, the one that the model was trained with; `tests/golden.rs` holds them to it.
//!
//! # What it promises about hostile input
//!
//! Metadata, text, ids and templates may be anything: the answer is a result or an [`Error`], never a
//! panic. Encoding takes time n·log n in the text's length, whatever the text; building takes time
//! proportional to the vocabulary, with pieces limited to 1024 bytes; a template runs on a budget.
//!
//! Sources: the GGUF keys, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, and what
//! llama.cpp makes of them, `src/llama-vocab.cpp` there; docs/decisions/0002-tokenizer.md.
#![forbid(unsafe_code)]

mod added;
mod alphabet;
mod answer;
mod byte_level;
mod decode;
mod end_of_generation;
mod error;
mod from_gguf;
mod json;
mod merges;
mod merging;
mod pre;
mod sentence_piece;
mod stop;
mod template;
mod vocabulary;
mod word_piece;

use std::fmt;
use std::sync::Arc;

pub use answer::{AnswerStream, Channel, Fragment};
pub use decode::StreamDecoder;
pub use error::Error;
pub use json::JsonFiles;
pub use redline_gguf::TokenId;
pub use template::{ChatTemplate, Message};

use added::{AddedTokens, Part, Strips};
use answer::Markers;
use byte_level::ByteLevel;
use decode::{Pieces, Spelling};
use sentence_piece::SentencePiece;
use vocabulary::{SpecialTokens, Vocabulary};
use word_piece::WordPiece;

/// What [`Tokenizer::encode`] does beside finding the tokens of the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Adds BOS before and EOS after the text, each if the model wants it.
    pub add_special: bool,
    /// Takes the text of a control token, like `<|im_end|>`, for that token. Without it such text is
    /// text: what users type should not become structure.
    pub parse_special: bool,
}

/// Text to token ids and back, for one model.
pub struct Tokenizer {
    kind: &'static str,
    encoder: Encoder,
    added: AddedTokens,
    pieces: Arc<Pieces>,
    special: SpecialTokens,
    markers: Markers,
    ends: Vec<TokenId>, // ascending
    template: Option<ChatTemplate>,
}

enum Encoder {
    ByteLevel(ByteLevel),
    SentencePiece(SentencePiece),
    WordPiece(WordPiece),
}

impl Encoder {
    /// Appends the tokens of text without added tokens; `is_first` where the whole text begins so.
    fn encode(&self, text: &str, is_first: bool, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        match self {
            Self::ByteLevel(encoder) => encoder.encode(text, ids),
            Self::SentencePiece(encoder) => encoder.encode(text, is_first, ids),
            Self::WordPiece(encoder) => encoder.encode(text, ids),
        }
    }
}

/// What a tokenizer is put together from, wherever it was read.
struct Parts<'a> {
    kind: &'static str,
    vocabulary: Vocabulary<'a>,
    encoder: Encoder,
    spelling: Spelling,
    strips: Strips,
    special: SpecialTokens,
    markers: Markers,
    ends: Vec<TokenId>, // ascending
    template: Option<&'a str>,
}

impl Tokenizer {
    fn assemble(parts: Parts<'_>) -> Result<Self, Error> {
        let Parts {
            vocabulary,
            special,
            ..
        } = parts;
        let text = |id: Option<TokenId>| id.map(|id| vocabulary.pieces[id.0 as usize]);
        let template = parts
            .template
            .map(|source| ChatTemplate::new(source, text(special.bos), text(special.eos)));
        Ok(Self {
            kind: parts.kind,
            encoder: parts.encoder,
            added: AddedTokens::new(&vocabulary, parts.spelling, parts.strips)?,
            pieces: Arc::new(Pieces::new(&vocabulary, parts.spelling)),
            special,
            markers: parts.markers,
            ends: parts.ends,
            template,
        })
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// If the vocabulary has no token for some byte of the text and none for the unknown.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, Error> {
        let mut ids = Vec::new();
        if options.add_special && self.special.add_bos {
            ids.extend(self.special.bos);
        }
        for part in self.added.split(text, options.parse_special) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(part) => {
                    let is_first = part.as_ptr() == text.as_ptr();
                    self.encoder.encode(part, is_first, &mut ids)?;
                }
            }
        }
        if options.add_special && self.special.add_eos {
            ids.extend(self.special.eos);
        }
        Ok(ids)
    }

    /// The text of `ids`. With `skip_special`, control tokens are left out. Ids outside the vocabulary
    /// have no text.
    ///
    /// Where encoding puts a space before a text (SentencePiece), a space at the start is left out.
    /// WordPiece knows words only: they come with a space between them, and none before `.`, `?`, `!`
    /// and `,`.
    #[must_use]
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        self.pieces.decode(ids, skip_special)
    }

    /// Turns ids into text as they come, control tokens left out. For text that goes on after a
    /// prompt, see [`StreamDecoder::continuing`].
    #[must_use]
    pub fn stream_decoder(&self) -> StreamDecoder {
        StreamDecoder::new(&self.pieces)
    }

    /// Splits what a model says after `prompt` into reasoning, answer and calls of tools as it comes.
    #[must_use]
    pub fn answer_stream(&self, prompt: &[TokenId]) -> AnswerStream {
        AnswerStream::new(self.stream_decoder(), self.markers.clone(), prompt)
    }

    /// Adds to a prompt what makes an answer begin right after it: the header of a harmony message, or
    /// the end of a thought that the prompt has begun. For an answer whose form is given, which leaves
    /// no place for thoughts.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn begin_answer(&self, prompt: &mut Vec<TokenId>) -> Result<(), Error> {
        let (marks, named) = self.answer_stream(prompt).to_answer();
        prompt.extend(marks);
        if let Some((name, mark)) = named {
            prompt.extend(self.encode(name, EncodeOptions::default())?);
            prompt.push(mark);
        }
        Ok(())
    }

    /// The tokens of a conversation that ask the model for its next turn, by its chat template; `None`
    /// if it has none.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`encode`](Self::encode).
    pub fn chat_prompt(&self, messages: &[Message]) -> Result<Option<Vec<TokenId>>, Error> {
        let Some(template) = &self.template else {
            return Ok(None);
        };
        let text = template.render(messages, true)?;
        // A template writes the beginning of text itself.
        let options = EncodeOptions {
            add_special: false,
            parse_special: true,
        };
        self.encode(&text, options).map(Some)
    }

    /// The token's text for people: bytes that are not UTF-8 on their own as `<0xE2>`.
    #[must_use]
    pub fn piece(&self, id: TokenId) -> Option<String> {
        self.pieces.display(id)
    }

    /// The bytes that the token stands for.
    #[must_use]
    pub fn piece_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.pieces.bytes(id)
    }

    /// Whether the token is structure rather than text: a control token, or the unknown one.
    #[must_use]
    pub fn is_special(&self, id: TokenId) -> bool {
        self.pieces
            .kind(id)
            .is_some_and(vocabulary::TokenKind::is_special)
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<TokenId> {
        self.special.bos
    }

    /// The token that ends a text.
    #[must_use]
    pub fn eos(&self) -> Option<TokenId> {
        self.special.eos
    }

    /// Whether [`EncodeOptions::add_special`] adds [`bos`](Self::bos).
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.special.add_bos
    }

    /// Whether a generation ends with this token.
    #[must_use]
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The tokens that end a generation, ascending.
    #[must_use]
    pub fn end_of_generation(&self) -> &[TokenId] {
        &self.ends
    }

    /// `"gguf-bpe"`, `"gguf-spm"`, `"gguf-wpm"` or `"hf-json"`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The template in the file, if there is one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind())
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}
