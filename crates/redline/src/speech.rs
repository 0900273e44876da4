//! An answer on the terminal as it comes: the answer itself on stdout; reasoning and calls of tools on
//! stderr, dimmed where that is a terminal, so that what is piped on is the answer alone.

use redline_tokenizer::Channel;

use crate::output;

/// What has been said of an answer.
#[derive(Debug, Default)]
pub(crate) struct Speech {
    /// The channel that speaks.
    last: Option<Channel>,
}

impl Speech {
    /// Writes some text of a channel.
    ///
    /// # Errors
    /// As [`output::text`].
    pub(crate) fn say(&mut self, channel: Channel, text: &str) -> anyhow::Result<()> {
        if self.last.is_some_and(|last| last != channel) {
            output::aside("\n");
        }
        self.last = Some(channel);
        if channel == Channel::Answer {
            output::text(text)
        } else {
            output::aside(text);
            Ok(())
        }
    }

    /// Ends the last line.
    ///
    /// # Errors
    /// As [`output::raw`].
    pub(crate) fn end(self) -> anyhow::Result<()> {
        if self.last.is_some_and(|last| last != Channel::Answer) {
            output::aside("\n");
        }
        output::raw(b"\n")
    }
}
