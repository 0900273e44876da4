//! What the files beside `tokenizer.json` say: the roles of tokens, a chat template, what ends a
//! generation.

use redline_gguf::TokenId;
use serde::Deserialize;

use super::{JsonFiles, read};
use crate::error::Error;
use crate::vocabulary::Vocabulary;

/// What is known of the roles. Settings that say nothing of them are passed over.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
    pub(super) add_bos: Option<bool>,
    pub(super) add_eos: Option<bool>,
    pub(super) chat_template: Option<String>,
    /// Ids that end a generation.
    ends: Vec<u32>,
}

const GENERATION: &str = "generation_config.json";

#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<Templates>,
}

/// A token by its text, bare or among its properties.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Properties { content: String },
}

impl Token {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Properties { content: text } => text,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl Templates {
    /// The one that is taken where none is asked for.
    fn default(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(named) => named
                .into_iter()
                .find(|each| each.name == "default")
                .map(|each| each.template),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Ids>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Roles {
    pub(super) fn read(files: &JsonFiles<'_>) -> Result<Self, Error> {
        let config = |file, bytes: Option<&[u8]>| match bytes {
            Some(bytes) => read::<TokenizerConfig>(file, bytes),
            None => Ok(TokenizerConfig::default()),
        };
        let first = config("tokenizer_config.json", files.tokenizer_config)?;
        let second = config("special_tokens_map.json", files.special_tokens_map)?;
        let generation = match files.generation_config {
            Some(bytes) => read(GENERATION, bytes)?,
            None => GenerationConfig::default(),
        };
        Ok(Self {
            bos: first.bos_token.or(second.bos_token).map(Token::text),
            eos: first.eos_token.or(second.eos_token).map(Token::text),
            add_bos: first.add_bos_token,
            add_eos: first.add_eos_token,
            chat_template: first.chat_template.and_then(Templates::default),
            ends: match generation.eos_token_id {
                Some(Ids::One(id)) => vec![id],
                Some(Ids::Many(ids)) => ids,
                None => Vec::new(),
            },
        })
    }

    /// The first token that ends a generation.
    pub(super) fn first_end(&self) -> Option<u32> {
        self.ends.first().copied()
    }

    /// The tokens that end a generation.
    pub(super) fn ends(&self, vocabulary: &Vocabulary<'_>) -> Result<Vec<TokenId>, Error> {
        let known = |id: &u32| match vocabulary.pieces.get(*id as usize) {
            Some(_) => Ok(TokenId(*id)),
            None => Err(Error::Json {
                file: GENERATION,
                problem: format!(
                    "eos_token_id is {id}: expected an id below the vocabulary's size, {}",
                    vocabulary.len()
                ),
            }),
        };
        self.ends.iter().map(known).collect()
    }
}
