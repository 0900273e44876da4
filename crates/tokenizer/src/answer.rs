//! What a model says, split into reasoning, answer and calls of tools as it comes.
//!
//! Two ways of marking them are known, each by the tokens that it needs; a vocabulary without them gives
//! one answer.
//!
//! - Harmony (gpt-oss): messages `<|start|>ROLE<|channel|>NAME<|message|>TEXT<|end|>`. The channel
//!   `analysis` is reasoning; what is sent to a tool, ` to=NAME` in the header, is a call; `final`, and
//!   `commentary` to nobody, is the answer. Source: <https://github.com/openai/harmony>.
//! - Pairs of tokens around text (Qwen3, DeepSeek): `<think>` and `</think>`, `<tool_call>` and
//!   `</tool_call>`. The white space beside these tokens is layout, not text.
//!
//! Stop strings are those of the answer: what is thought, or sent to a tool, may contain them.

use redline_gguf::TokenId;

use crate::decode::StreamDecoder;
use crate::stop::StopMatcher;

/// Bytes of a harmony header above which it is none, but text.
const MAX_HEADER_BYTES: usize = 1024;

/// How far from the end of a prompt `<think>` may stand to have been opened for the answer: it and a
/// line break.
const OPENING_TOKENS: usize = 3;

/// What a part of the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Thought before the answer, not meant for the user.
    Reasoning,
    /// What the user is told.
    Answer,
    /// What is sent to a tool; [`AnswerStream::recipient`] says to which, where the format does.
    Call,
}

/// Some text of one channel; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// What it is part of.
    pub channel: Channel,
    /// The text.
    pub text: String,
}

/// The ids of the tokens that mark the parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Markers {
    harmony: Option<Harmony>,
    pairs: Vec<Pair>,
}

#[derive(Debug, Clone, Copy)]
struct Harmony {
    start: TokenId,
    channel: TokenId,
    message: TokenId,
    ends: [Option<TokenId>; 3],
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    open: TokenId,
    close: TokenId,
    channel: Channel,
}

impl Markers {
    /// Those of a vocabulary that `id` looks up.
    pub(crate) fn find(id: impl Fn(&str) -> Option<u32>) -> Self {
        let id = |piece| id(piece).map(TokenId);
        let harmony = || {
            Some(Harmony {
                start: id("<|start|>")?,
                channel: id("<|channel|>")?,
                message: id("<|message|>")?,
                ends: [Some(id("<|end|>")?), id("<|return|>"), id("<|call|>")],
            })
        };
        let pair = |open, close, channel| {
            Some(Pair {
                open: id(open)?,
                close: id(close)?,
                channel,
            })
        };
        let pairs = [
            pair("<think>", "</think>", Channel::Reasoning),
            pair("<tool_call>", "</tool_call>", Channel::Call),
        ];
        Self {
            harmony: harmony(),
            pairs: pairs.into_iter().flatten().collect(),
        }
    }
}

/// Splits what a model says after a prompt, id by id; see [`Tokenizer::answer_stream`](crate::Tokenizer::answer_stream).
#[derive(Debug, Clone)]
pub struct AnswerStream {
    decoder: StreamDecoder,
    markers: Markers,
    stops: StopMatcher,
    stopped_by: Option<String>,
    state: State,
    recipient: Option<String>,
    /// Bytes of the header that the prompt has written.
    prompted: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// In a harmony header: its text, and how much of it stood before `<|channel|>`.
    Header {
        text: String,
        channel_at: Option<usize>,
    },
    /// In the text of a part; `is_blank` until something other than layout has come.
    Text { channel: Channel, is_blank: bool },
}

const ANSWER: State = State::Text {
    channel: Channel::Answer,
    is_blank: false,
};

impl AnswerStream {
    /// All of the text as one answer.
    #[must_use]
    pub fn unsplit(decoder: StreamDecoder) -> Self {
        Self::new(decoder, Markers::default(), &[])
    }

    /// For what follows `prompt`, which may have begun a part.
    pub(crate) fn new(decoder: StreamDecoder, markers: Markers, prompt: &[TokenId]) -> Self {
        let mut stream = Self {
            decoder,
            markers,
            stops: StopMatcher::default(),
            stopped_by: None,
            state: ANSWER,
            recipient: None,
            prompted: 0,
        };
        let begun = match stream.markers.harmony {
            Some(harmony) => prompt.iter().rposition(|id| *id == harmony.start),
            None => {
                let tail = prompt.len().saturating_sub(OPENING_TOKENS);
                let is_open =
                    |id: &TokenId| stream.markers.pairs.iter().any(|pair| pair.open == *id);
                prompt[tail..].iter().rposition(is_open).map(|at| tail + at)
            }
        };
        for id in &prompt[begun.unwrap_or(prompt.len())..] {
            stream.push(*id);
        }
        if let State::Header { text, .. } = &stream.state {
            stream.prompted = text.len();
        }
        stream
    }

    /// The same, ending at the first of `stops`, which is no part of the text. Empty ones match
    /// nothing; what could become one is held back, until the end of its part.
    #[must_use]
    pub fn with_stops(mut self, stops: &[String]) -> Self {
        self.stops = StopMatcher::new(stops);
        self
    }

    /// The stop string that was found: nothing comes after it.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&str> {
        self.stopped_by.as_deref()
    }

    /// The text that `id` completes.
    pub fn push(&mut self, id: TokenId) -> Option<Fragment> {
        if self.stopped_by.is_some() {
            return None;
        }
        if let Some(next) = self.after_marker(id) {
            let text = self.decoder.flush();
            let ended = self.last_fragment(text);
            self.state = next;
            return ended;
        }
        let text = self.decoder.push(id);
        match &mut self.state {
            State::Header { text: header, .. } => {
                header.push_str(&text);
                let is_text = header.len() > MAX_HEADER_BYTES;
                if !is_text {
                    return None;
                }
                let text = self.header_as_text();
                self.fragment(text)
            }
            State::Text { .. } => self.fragment(text),
        }
    }

    /// The text for what is held back at the end.
    pub fn finish(&mut self) -> Option<Fragment> {
        if self.stopped_by.is_some() {
            return None;
        }
        let mut text = self.decoder.flush();
        if let State::Header { text: header, .. } = &mut self.state {
            header.push_str(&text);
            text = self.header_as_text();
        }
        self.last_fragment(text)
    }

    /// The tokens, those of a name among them, after which an answer begins at once: none if it does
    /// already.
    pub(crate) fn to_answer(&self) -> (Vec<TokenId>, Option<(&'static str, TokenId)>) {
        match (&self.state, self.markers.harmony) {
            (State::Header { .. }, Some(harmony)) => {
                (vec![harmony.channel], Some(("final", harmony.message)))
            }
            (State::Text { channel, .. }, _) if *channel != Channel::Answer => {
                let pair = self
                    .markers
                    .pairs
                    .iter()
                    .find(|pair| pair.channel == *channel);
                (pair.map(|pair| pair.close).into_iter().collect(), None)
            }
            _ => (Vec::new(), None),
        }
    }

    /// Whom the current part is sent to, if it is a call and the format says so.
    #[must_use]
    pub fn recipient(&self) -> Option<&str> {
        self.recipient.as_deref()
    }

    /// The state after a marker; `None` if `id` is none.
    fn after_marker(&mut self, id: TokenId) -> Option<State> {
        if let Some(pair) = self.markers.pairs.iter().find(|pair| pair.open == id) {
            let channel = pair.channel;
            return Some(State::Text {
                channel,
                is_blank: true,
            });
        }
        if self.markers.pairs.iter().any(|pair| pair.close == id) {
            let channel = Channel::Answer;
            return Some(State::Text {
                channel,
                is_blank: true,
            });
        }
        let harmony = self.markers.harmony?;
        if id == harmony.start {
            (self.recipient, self.prompted) = (None, 0);
            let (text, channel_at) = (String::new(), None);
            return Some(State::Header { text, channel_at });
        }
        if harmony.ends.contains(&Some(id)) {
            self.recipient = None;
            return Some(ANSWER);
        }
        if id != harmony.channel && id != harmony.message {
            return None;
        }
        let (mut text, channel_at) = match &mut self.state {
            State::Header { text, channel_at } => (std::mem::take(text), *channel_at),
            State::Text { .. } => (String::new(), None),
        };
        if id == harmony.channel {
            text.push(' ');
            let channel_at = Some(text.len());
            return Some(State::Header { text, channel_at });
        }
        Some(self.begin_message(&text, channel_at))
    }

    /// The state for the text after a header.
    fn begin_message(&mut self, header: &str, channel_at: Option<usize>) -> State {
        self.recipient = header
            .split_whitespace()
            .find_map(|word| word.split_once("to="))
            .map(|(_, name)| name.to_owned());
        let name = channel_at.map_or("", |at| &header[at..]);
        let channel = match self.recipient {
            Some(_) => Channel::Call,
            None if name.trim_start().starts_with("analysis") => Channel::Reasoning,
            None => Channel::Answer,
        };
        let is_blank = false;
        State::Text { channel, is_blank }
    }

    /// Makes an answer of a header that no message follows: its text.
    fn header_as_text(&mut self) -> String {
        match std::mem::replace(&mut self.state, ANSWER) {
            State::Header { text, .. } => text[self.prompted..].trim_start().to_owned(),
            State::Text { .. } => String::new(),
        }
    }

    /// The text as part of the current channel, without layout at its start; of the answer what can be
    /// no stop string.
    fn fragment(&mut self, text: String) -> Option<Fragment> {
        let State::Text { channel, is_blank } = &mut self.state else {
            return None;
        };
        let channel = *channel;
        let shown = if *is_blank { text.trim_start() } else { &text };
        if shown.is_empty() {
            return None;
        }
        *is_blank = false;
        let text = match channel {
            Channel::Answer => {
                let release = self.stops.push(shown);
                self.stopped_by = release.stopped_by;
                release.text
            }
            Channel::Reasoning | Channel::Call => shown.to_owned(),
        };
        (!text.is_empty()).then_some(Fragment { channel, text })
    }

    /// The same for the last text of a part, with what was held back.
    fn last_fragment(&mut self, text: String) -> Option<Fragment> {
        let last = self.fragment(text);
        let held = self.stops.finish();
        if held.is_empty() || self.stopped_by.is_some() {
            return last;
        }
        let before = last.map_or(String::new(), |fragment| fragment.text);
        Some(Fragment {
            channel: Channel::Answer,
            text: before + &held,
        })
    }
}
