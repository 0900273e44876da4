//! A tokenizer from the files that Hugging Face's libraries keep: `tokenizer.json`, and what
//! `tokenizer_config.json` and `generation_config.json` add.
//!
//! A `tokenizer.json` says which components are put together and how. Those that the encoders of this
//! crate are made for are known; anything else is refused by name, for ids that are almost right are
//! wrong. Truncation and padding are no part of tokenizing and are passed over.
//!
//! Source: the definitions' readers, <https://github.com/huggingface/tokenizers>.

mod bpe;
mod components;
mod config;
mod model;
mod word_piece;

use std::borrow::Cow;
use std::collections::HashSet;

use redline_gguf::TokenId;
use serde::Deserialize;

use crate::added::Strips;
use crate::answer::Markers;
use crate::end_of_generation;
use crate::error::{Error, quote, shorten};
use crate::vocabulary::{MAX_TOKENS, SpecialTokens, TokenKind, Vocabulary, byte_of, check_size};
use crate::{Encoder, Parts, Spelling, Tokenizer};
use components::{Definition, Normalizer};
use config::Roles;

/// Most bytes of a file. The longest known has 33 million.
const MAX_FILE_BYTES: usize = 1 << 26;

const TOKENIZER: &str = "tokenizer.json";

/// The files of a tokenizer as Hugging Face's libraries keep them; only the first must be there.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonFiles<'a> {
    /// `tokenizer.json`: vocabulary, merges, and how they are used.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`: the special tokens' roles, often a chat template.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`: roles, where the configuration does not say.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `generation_config.json`: what ends a generation.
    pub generation_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, which goes before the configuration's template.
    pub chat_template: Option<&'a str>,
}

impl Tokenizer {
    /// Builds the tokenizer that a `tokenizer.json` and its neighbours describe.
    ///
    /// A chat template is taken as it is: a malformed one is an error when it is rendered.
    ///
    /// # Errors
    /// If a file is no such JSON or is above 64 MiB, if it has a component, or a setting of one, that is
    /// not known, or if the vocabulary contradicts itself.
    pub fn from_json(files: &JsonFiles<'_>) -> Result<Self, Error> {
        let definition: Definition<'_> = read(TOKENIZER, files.tokenizer)?;
        let roles = Roles::read(files)?;
        check_added(&definition)?;
        let (pieces, kinds) = pieces(&definition)?;
        let mut vocabulary = Vocabulary::new(pieces.iter().map(|piece| &**piece).collect(), kinds)?;
        let special = special(&definition, &roles, &vocabulary)?;
        let named = roles.ends(&vocabulary)?;
        let ends = end_of_generation::collect(named, &mut vocabulary, &special);
        let markers = Markers::find(|piece| vocabulary.id(piece));
        let (encoder, spelling) = encoder(&definition, &mut vocabulary, &special)?;
        Self::assemble(Parts {
            kind: "hf-json",
            vocabulary,
            encoder,
            spelling,
            strips: strips(&definition),
            special,
            markers,
            ends,
            template: files.chat_template.or(roles.chat_template.as_deref()),
        })
    }
}

/// Reads one file.
fn read<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, Error> {
    if bytes.len() > MAX_FILE_BYTES {
        let found = bytes.len();
        return Err(problem(
            file,
            &format!("{found} bytes: expected at most {MAX_FILE_BYTES}"),
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| problem(file, &error.to_string()))
}

fn problem(file: &'static str, problem: &str) -> Error {
    let problem = shorten(problem);
    Error::Json { file, problem }
}

/// A component, or a setting of one, that is not known.
fn unknown(component: &'static str, found: &str, known: &'static str) -> Error {
    Error::JsonComponent {
        component,
        found: found.to_owned(),
        known: known.to_owned(),
    }
}

/// Pieces and kinds by id: the model's vocabulary, and over it the added tokens.
fn pieces<'d>(
    definition: &'d Definition<'_>,
) -> Result<(Vec<Cow<'d, str>>, Vec<TokenKind>), Error> {
    let (model, added) = (&definition.model, &definition.added_tokens);
    let found = model.vocab.0.len() + added.len();
    check_size("model.vocab", found)?;
    let ids = model.vocab.0.iter().map(|(_, id)| *id);
    let ids = ids.chain(added.iter().map(|added| added.id));
    let count = ids.max().map_or(0, |id| id as usize + 1);
    // There may be holes, but not so many that they cost more than the tokens.
    let limit = (2 * found + 1024).min(MAX_TOKENS);
    if count > limit {
        let last = count - 1;
        let what = format!("id {last} among {found} tokens: expected ids below {limit}");
        return Err(problem(TOKENIZER, &what));
    }
    let (mut pieces, mut kinds) = (
        vec![Cow::Borrowed(""); count],
        vec![TokenKind::Unused; count],
    );
    let contents: HashSet<&str> = added.iter().map(|token| &*token.content).collect();
    let is_word_piece = model.kind.as_deref() == Some("WordPiece");
    for (piece, id) in &model.vocab.0 {
        let kind = match byte_of(piece) {
            Some(_) if model.byte_fallback => TokenKind::Byte,
            _ => TokenKind::Normal,
        };
        let piece = match is_word_piece && !contents.contains(&**piece) {
            true => word_piece::with_word_start(piece),
            false => Cow::Borrowed(&**piece),
        };
        place(&mut pieces, *id, piece)?;
        kinds[*id as usize] = kind;
    }
    for token in added {
        place(&mut pieces, token.id, Cow::Borrowed(&token.content))?;
        kinds[token.id as usize] = match token.special {
            true => TokenKind::Control,
            false => TokenKind::UserDefined,
        };
    }
    Ok((pieces, kinds))
}

/// Puts a piece where nothing else is.
fn place<'d>(pieces: &mut [Cow<'d, str>], id: u32, piece: Cow<'d, str>) -> Result<(), Error> {
    let place = &mut pieces[id as usize];
    if !place.is_empty() && *place != piece {
        let (first, second) = (quote(place), quote(&piece));
        let what = format!("id {id} is {first} and {second}: expected one token for each id");
        return Err(problem(TOKENIZER, &what));
    }
    *place = piece;
    Ok(())
}

/// Refuses added tokens that are found otherwise than [`AddedTokens`](crate::added::AddedTokens) does.
fn check_added(definition: &Definition<'_>) -> Result<(), Error> {
    let is_changed = definition
        .normalizers()?
        .iter()
        .any(|step| *step != Normalizer::Nfc);
    for token in &definition.added_tokens {
        let found = match token {
            _ if token.single_word => "single_word",
            _ if token.normalized && is_changed => "normalized",
            _ => continue,
        };
        let found = format!("{} with {found}", quote(&token.content));
        return Err(unknown("an added token", &found, "lstrip and rstrip"));
    }
    Ok(())
}

fn strips(definition: &Definition<'_>) -> Strips {
    let mut strips = Strips::default();
    for token in &definition.added_tokens {
        let id = TokenId(token.id);
        if token.lstrip {
            strips.left.insert(id);
        }
        if token.rstrip {
            strips.right.insert(id);
        }
    }
    strips
}

/// The roles of tokens: those that the post-processor adds are BOS and EOS, whatever the configuration
/// calls so.
fn special(
    definition: &Definition<'_>,
    roles: &Roles,
    vocabulary: &Vocabulary<'_>,
) -> Result<SpecialTokens, Error> {
    let around = definition.around()?;
    for id in [around.0, around.1].into_iter().flatten() {
        if id as usize >= vocabulary.len() {
            return Err(Error::SpecialId {
                key: "post_processor".to_owned(),
                found: id,
                vocab_size: vocabulary.len(),
            });
        }
    }
    let id = |text: &Option<String>| text.as_ref().and_then(|text| vocabulary.id(text));
    let unknown_token = match &definition.model.unk_token {
        Some(text) => Some(vocabulary.id(text).ok_or_else(|| {
            unknown("model.unk_token", &quote(text), "a token of the vocabulary")
        })?),
        None => None,
    };
    let bos = around.0.or_else(|| id(&roles.bos));
    let eos = around
        .1
        .or_else(|| id(&roles.eos))
        .or_else(|| roles.first_end());
    Ok(SpecialTokens {
        bos: bos.map(TokenId),
        eos: eos
            .filter(|id| (*id as usize) < vocabulary.len())
            .map(TokenId),
        unknown: unknown_token.map(TokenId),
        add_bos: bos.is_some() && roles.add_bos.unwrap_or(around.0.is_some()),
        add_eos: eos.is_some() && roles.add_eos.unwrap_or(around.1.is_some()),
    })
}

fn encoder(
    definition: &Definition<'_>,
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Result<(Encoder, Spelling), Error> {
    match definition.model.kind.as_deref() {
        Some("WordPiece") => word_piece::encoder(definition, vocabulary, special),
        Some("BPE") => bpe::encoder(definition, vocabulary, special),
        // Older files leave it to be seen: only BPE has merges.
        None if !definition.model.merges.is_empty() => {
            bpe::encoder(definition, vocabulary, special)
        }
        found => Err(unknown(
            "model",
            &quote(found.unwrap_or_default()),
            "BPE, WordPiece",
        )),
    }
}
