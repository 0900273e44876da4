//! The chat of `redline run`: lines in, answers out, the conversation kept.

use anyhow::Context as _;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::run::{Args, Opened, stats};
use crate::commands::Context;
use crate::generate::Generator;
use crate::output;
use crate::prompt::{Conversation, Form};
use crate::speech::Speech;

const HELP: &str = "\
/help    this
/reset   forget the conversation
/exit    leave (or Ctrl-D)
A line that ends in \\ goes on in the next one. Ctrl-C stops an answer.";

/// What the user typed.
enum Input {
    Say(String),
    Help,
    Reset,
    Exit,
    Unknown(String),
    Nothing,
}

impl Input {
    fn parse(line: String) -> Self {
        match line.trim() {
            "" => Self::Nothing,
            "/help" | "/?" => Self::Help,
            "/reset" => Self::Reset,
            "/exit" | "/quit" | "/bye" => Self::Exit,
            command if is_command(command) => Self::Unknown(command.to_owned()),
            _ => Self::Say(line),
        }
    }
}

/// A slash and one word: a path or a fraction is no command.
fn is_command(text: &str) -> bool {
    let word = text.strip_prefix('/').unwrap_or_default();
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase())
}

/// Talks until the user leaves.
///
/// # Errors
/// If the terminal fails. A turn that fails is told and taken back; the chat goes on.
pub(super) fn chat(
    mut generator: Generator<'_>,
    args: &Args,
    form: &Form,
    model: &Opened<'_>,
    context: &Context,
) -> anyhow::Result<()> {
    output::note(&format!(
        "{}, context of {} tokens; /help for help",
        model.resolved.name,
        generator.context_length()
    ));
    let mut editor = DefaultEditor::new().context("cannot edit lines on this terminal")?;
    let mut conversation = Conversation::new(args.system.as_deref(), form);
    loop {
        match Input::parse(match read(&mut editor)? {
            Some(line) => line,
            None => return Ok(()),
        }) {
            Input::Nothing => {}
            Input::Help => output::note(HELP),
            Input::Exit => return Ok(()),
            Input::Unknown(command) => {
                output::note(&format!("no command {command}; /help lists them"))
            }
            Input::Reset => {
                conversation = Conversation::new(args.system.as_deref(), form);
                output::note("the conversation is forgotten");
            }
            Input::Say(text) => {
                context.interrupt.clear();
                conversation.say("user", &text);
                match answer(&mut generator, &conversation, args, form, model, context) {
                    Ok(text) => conversation.say("assistant", &text),
                    Err(error) if error.downcast_ref::<output::Closed>().is_some() => {
                        return Err(error);
                    }
                    Err(error) => {
                        conversation.retract();
                        output::note(&format!(
                            "error: {error:#} (/reset forgets the conversation)"
                        ));
                    }
                }
            }
        }
    }
}

fn answer(
    generator: &mut Generator<'_>,
    conversation: &Conversation,
    args: &Args,
    form: &Form,
    model: &Opened<'_>,
    context: &Context,
) -> anyhow::Result<String> {
    let prompt = conversation.prompt(form, model.tokenizer)?;
    let generation = args.generation.clone().with_seed();
    let mut speech = Speech::default();
    let mut emit = |channel, text: &str| speech.say(channel, text);
    let answer = generator.answer(prompt, &generation, &context.interrupt, &mut emit)?;
    speech.end()?;
    if args.stats {
        output::note(&stats(&answer, &generation));
    }
    Ok(answer.text)
}

/// One input, over several lines where they end in a backslash; `None`: the user leaves.
fn read(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    let mut input = String::new();
    loop {
        let prompt = if input.is_empty() { "> " } else { "… " };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            // Ctrl-C drops what was typed.
            Err(ReadlineError::Interrupted) => {
                input.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("cannot read a line"),
        };
        match line.strip_suffix('\\') {
            Some(start) => {
                input.push_str(start);
                input.push('\n');
            }
            None => {
                input.push_str(&line);
                let _ = editor.add_history_entry(&input);
                return Ok(Some(input));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slash_and_one_word_is_a_command() {
        let parse = |line: &str| Input::parse(line.to_owned());
        assert!(matches!(parse(" /reset "), Input::Reset));
        assert!(matches!(parse("/exit"), Input::Exit));
        assert!(matches!(parse("/halp"), Input::Unknown(command) if command == "/halp"));
        assert!(matches!(parse("  "), Input::Nothing));
        for line in ["/usr/bin is a folder", "/ 2", "hi", "/etc/hosts"] {
            assert!(
                matches!(parse(line), Input::Say(text) if text == line),
                "{line}"
            );
        }
    }
}
