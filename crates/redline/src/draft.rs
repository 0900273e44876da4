//! A draft model beside the model: one of the same vocabulary, with room for both.

use anyhow::{Context as _, bail};
use redline_compute::Cpu;
use redline_gguf::{Gguf, TokenId};
use redline_model::{LoadOptions, MappedWeights, Model, ModelFile, Properties, pages_for};
use redline_tokenizer::Tokenizer;

use crate::commands::Context;
use crate::models::{self, Resolved};
use crate::room::Room;
use crate::session;

/// The model that it is to guess for.
#[derive(Debug)]
pub(crate) struct Main<'a> {
    pub(crate) name: &'a str,
    pub(crate) gguf: &'a Gguf<'a>,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) room: &'a Room,
}

/// A draft model that fits, not loaded.
#[derive(Debug)]
pub(crate) struct Draft {
    resolved: Resolved,
    file: ModelFile,
    room: Room,
}

impl Draft {
    /// The draft model of the settings, if they name one.
    ///
    /// # Errors
    /// If it cannot be had, its vocabulary is another, or there is no room for both models.
    pub(crate) fn open(main: &Main<'_>, context: &Context) -> anyhow::Result<Option<Self>> {
        let Some(name) = &context.config.draft else {
            return Ok(None);
        };
        let resolved = models::resolve(Some(name), context)?;
        let file = session::open(&resolved)?;
        file.read_ahead();
        let gguf = session::parse(&file, &resolved)?;
        let cannot_use = || {
            let draft = &resolved.name;
            format!("cannot use {draft} as draft model of {}", main.name)
        };
        let tokenizer = session::tokenizer(&gguf, &resolved)?;
        let properties = Properties::from_gguf(&gguf).with_context(cannot_use)?;
        let rows = Properties::from_gguf(main.gguf)?.vocab;
        check(main.tokenizer, rows, &tokenizer, properties.vocab).with_context(cannot_use)?;
        let (as_main, trained) = (main.room.options(), properties.context_length);
        let positions = (as_main.context).map_or(trained, |positions| positions.min(trained));
        let options = LoadOptions {
            context: Some(positions),
            kv_pages: Some(as_main.kv_pages.unwrap_or(pages_for(positions))),
            ..as_main.clone()
        };
        let room = main.room.beside(&gguf, options).with_context(cannot_use)?;
        Ok(Some(Self {
            resolved,
            file,
            room,
        }))
    }

    /// Loads it, and says where its weights are.
    ///
    /// # Errors
    /// If it is not a model that can be run.
    pub(crate) fn load(&self, context: &Context) -> anyhow::Result<(Model<Cpu>, MappedWeights)> {
        let gguf = session::parse(&self.file, &self.resolved)?;
        let model = session::load(&self.file, &gguf, &self.resolved, &self.room, context)?;
        Ok((model, MappedWeights::new(&self.file, &gguf)))
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.resolved.name
    }
}

/// Refuses a draft model that has another number of logits, or other tokens, than the model: what it
/// guesses would be something else there.
fn check(
    main: &Tokenizer,
    rows: usize,
    draft: &Tokenizer,
    draft_rows: usize,
) -> anyhow::Result<()> {
    if rows != draft_rows {
        bail!("expected a vocabulary of {rows} tokens, found {draft_rows}");
    }
    if main.vocab_size() != draft.vocab_size() {
        let (expected, found) = (main.vocab_size(), draft.vocab_size());
        bail!("expected a tokenizer of {expected} tokens, found {found}");
    }
    let ids = (0..rows as u32).map(TokenId);
    let token = |of: &Tokenizer, id| (of.piece(id), of.is_special(id));
    for id in ids {
        let is_same = main.piece_bytes(id) == draft.piece_bytes(id)
            && main.is_special(id) == draft.is_special(id);
        if !is_same {
            let [expected, found] = [main, draft].map(|of| described(token(of, id)));
            bail!("token {id}: expected {expected}, found {found}");
        }
    }
    Ok(())
}

fn described((piece, is_special): (Option<String>, bool)) -> String {
    match (piece, is_special) {
        (None, _) => "none".to_owned(),
        (Some(piece), true) => format!("{piece:?}, special"),
        (Some(piece), false) => format!("{piece:?}"),
    }
}
