//! From what the user says to the ids the model continues: through its chat template, or as is.

use anyhow::Context as _;
use redline_gguf::TokenId;
use redline_tokenizer::{EncodeOptions, Message, Tokenizer};

use crate::output;

/// How turns of a conversation become a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The model's own chat template.
    Template,
    /// The text itself, to be continued.
    Raw,
}

impl Form {
    /// The template unless `raw` is asked for or the model has none; the latter is said aloud.
    pub(crate) fn choose(tokenizer: &Tokenizer, raw: bool, name: &str) -> Self {
        match tokenizer.chat_template() {
            _ if raw => Self::Raw,
            Some(_) => Self::Template,
            None => {
                output::note(&format!(
                    "{name} has no chat template (a base model): continuing the text as with --raw"
                ));
                Self::Raw
            }
        }
    }

    /// `template` or `raw`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Raw => "raw",
        }
    }
}

/// What has been said so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
}

impl Conversation {
    /// A conversation that begins with instructions, if there are any. Raw text has no roles: there
    /// they are a paragraph before the rest.
    pub(crate) fn new(system: Option<&str>, form: &Form) -> Self {
        let mut conversation = Self::default();
        match (system, form) {
            (None, _) => {}
            (Some(system), Form::Template) => conversation.say("system", system),
            (Some(system), Form::Raw) => conversation.say("system", &format!("{system}\n\n")),
        }
        conversation
    }

    /// Adds a turn.
    pub(crate) fn say(&mut self, role: &str, content: &str) {
        self.messages.push(Message {
            role: role.to_owned(),
            content: content.to_owned(),
        });
    }

    /// Takes the last turn back.
    pub(crate) fn retract(&mut self) {
        self.messages.pop();
    }

    /// The ids that ask the model for the next turn.
    ///
    /// # Errors
    /// If the template does not take this conversation, or the text cannot be encoded.
    pub(crate) fn prompt(
        &self,
        form: &Form,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Vec<TokenId>> {
        if *form == Form::Template
            && let Some(prompt) = (tokenizer.chat_prompt(&self.messages))
                .context("the model's chat template fails")?
        {
            return Ok(prompt);
        }
        let text: String = (self.messages.iter())
            .map(|message| message.content.as_str())
            .collect();
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        tokenizer
            .encode(&text, options)
            .context("cannot encode the prompt")
    }
}
