//! From what the user says to the ids the model continues: through its chat template, or as is.

use anyhow::Context as _;
use redline_gguf::TokenId;
use redline_tokenizer::{ChatTemplate, EncodeOptions, Message, Tokenizer};

use crate::output;

/// How turns of a conversation become a prompt.
#[derive(Debug)]
pub(crate) enum Form<'t> {
    /// The model's own chat template.
    Template(&'t ChatTemplate),
    /// The text itself, to be continued.
    Raw,
}

impl<'t> Form<'t> {
    /// The template unless `raw` is asked for or the model has none; the latter is said aloud.
    pub(crate) fn choose(tokenizer: &'t Tokenizer, raw: bool, name: &str) -> Self {
        match tokenizer.chat_template() {
            _ if raw => Self::Raw,
            Some(template) => Self::Template(template),
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
            Self::Template(_) => "template",
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
    pub(crate) fn new(system: Option<&str>, form: &Form<'_>) -> Self {
        let mut conversation = Self::default();
        match (system, form) {
            (None, _) => {}
            (Some(system), Form::Template(_)) => conversation.say("system", system),
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
        form: &Form<'_>,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Vec<TokenId>> {
        let (text, add_special) = match form {
            // A template writes the beginning of text itself.
            Form::Template(template) => (
                template
                    .render(&self.messages, true)
                    .context("the model's chat template fails")?,
                false,
            ),
            Form::Raw => (
                self.messages
                    .iter()
                    .map(|message| message.content.as_str())
                    .collect(),
                true,
            ),
        };
        tokenizer
            .encode(
                &text,
                EncodeOptions {
                    add_special,
                    parse_special: true,
                },
            )
            .context("cannot encode the prompt")
    }
}
