//! Answers as they come: the engine's tokens, turned into text, up to a stop string.

use std::collections::VecDeque;
use std::sync::Arc;

use redline_engine::{EndReason, Event, GeneratedToken, Logprob, Request};
use redline_tokenizer::{AnswerStream, Channel, Fragment};
use serde::Serialize;

use crate::api::{Ask, Dialect};
use crate::app::{App, Served};
use crate::error::ApiError;
use crate::job::Job;

/// Text of an answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) reasoning: String,
    pub(crate) content: String,
}

impl From<Option<Fragment>> for Said {
    fn from(fragment: Option<Fragment>) -> Self {
        let mut said = Self::default();
        match fragment {
            Some(Fragment {
                channel: Channel::Reasoning,
                text,
            }) => said.reasoning = text,
            // What would go to tools is told as it stands, since there are none to send it to.
            Some(Fragment { text, .. }) => said.content = text,
            None => {}
        }
        said
    }
}

impl Said {
    pub(crate) fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty()
    }
}

/// One thing to tell a client. `index` is the answer's: those to the first prompt come first.
#[derive(Debug)]
pub(crate) enum Step {
    /// How likely the next tokens of a prompt are.
    Prompt {
        prompt: usize,
        logprobs: Vec<Logprob>,
    },
    /// A token, and the text that it completes.
    Token {
        index: usize,
        said: Said,
        token: GeneratedToken,
    },
    /// The end of an answer, and the text that was held back.
    End {
        index: usize,
        said: Said,
        finish: &'static str,
    },
}

/// Tokens that were read and written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

/// All answers to one request of a client.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) app: Arc<App>,
    pub(crate) ask: Ask,
    job: Job,
    voices: Vec<Voice>, // [prompts * choices]
    steps: VecDeque<Step>,
    /// Answers whose end the engine has not told.
    open: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
    cached_tokens: usize,
}

#[derive(Debug, Clone)]
struct Voice {
    stream: AnswerStream,
    /// Whether its end has been told.
    is_over: bool,
}

impl Answers {
    /// How the answers to a prompt become text.
    pub(crate) fn listen(ask: &Ask, request: &Request, served: &Served) -> AnswerStream {
        let tokenizer = &served.tokenizer;
        let stream = match ask.dialect {
            Dialect::Chat => tokenizer.answer_stream(&request.prompt),
            Dialect::Text => AnswerStream::unsplit(tokenizer.stream_decoder().continuing()),
        };
        stream.with_stops(&ask.stops)
    }

    /// `streams`: of each prompt, as [`Self::listen`] gives them.
    pub(crate) fn new(
        app: Arc<App>,
        job: Job,
        ask: Ask,
        streams: Vec<AnswerStream>,
        prompt_tokens: usize,
    ) -> Self {
        let voice = |stream| Voice {
            stream,
            is_over: false,
        };
        let voices: Vec<Voice> = (streams.into_iter())
            .flat_map(|stream| vec![voice(stream); ask.choices])
            .collect();
        Self {
            app,
            ask,
            job,
            open: voices.len(),
            voices,
            steps: VecDeque::new(),
            prompt_tokens,
            completion_tokens: 0,
            cached_tokens: 0,
        }
    }

    pub(crate) fn streams(&self) -> bool {
        self.ask.stream
    }

    /// Answers there will be.
    pub(crate) fn count(&self) -> usize {
        self.voices.len()
    }

    /// The next thing to tell; `None` after the last.
    ///
    /// # Errors
    /// If it cannot go on: nothing comes after that.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(Ok(step));
            }
            if self.open == 0 {
                return None;
            }
            let taken = match self.job.next().await {
                Some((prompt, event)) => self.take(prompt, event),
                None => Err(ApiError::internal(
                    "the answer was broken off: it was not read in time, or the engine has stopped",
                )),
            };
            if let Err(error) = taken {
                self.open = 0;
                return Some(Err(error));
            }
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens + self.completion_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: self.cached_tokens,
            },
        }
    }

    fn take(&mut self, prompt: usize, event: Event) -> Result<(), ApiError> {
        match event {
            Event::PromptLogprobs { logprobs, .. } => {
                self.steps.push_back(Step::Prompt { prompt, logprobs });
            }
            Event::Token { choice, token, .. } => self.take_token(prompt, choice, token),
            Event::End {
                choice, outcome, ..
            } => {
                self.open -= 1;
                let outcome = outcome?;
                // The answers to a prompt share what was there of it.
                if choice == 0 {
                    self.cached_tokens += outcome.cached_tokens;
                }
                let index = prompt * self.ask.choices + choice;
                let finish = match outcome.end_reason {
                    EndReason::Eos | EndReason::Stop => "stop",
                    EndReason::Length => "length",
                    EndReason::Cancelled => {
                        let message = "the server is shutting down, or ended the answer";
                        return Err(ApiError::unavailable("cancelled", message));
                    }
                    EndReason::TimeLimit => {
                        return Err(ApiError::unavailable("timeout", "out of time"));
                    }
                };
                let voice = &mut self.voices[index];
                if !voice.is_over {
                    voice.is_over = true;
                    let said = match self.ask.prompt_only {
                        true => Said::default(),
                        false => voice.stream.finish().into(),
                    };
                    self.steps.push_back(Step::End {
                        index,
                        said,
                        finish,
                    });
                }
            }
        }
        Ok(())
    }

    fn take_token(&mut self, prompt: usize, choice: usize, token: GeneratedToken) {
        let index = prompt * self.ask.choices + choice;
        let voice = &mut self.voices[index];
        // What was computed before the engine heard that it was enough.
        if voice.is_over || self.ask.prompt_only {
            return;
        }
        self.completion_tokens += 1;
        let said = voice.stream.push(token.id).into();
        self.steps.push_back(Step::Token { index, said, token });
        if voice.stream.stopped_by().is_some() {
            voice.is_over = true;
            self.steps.push_back(Step::End {
                index,
                said: Said::default(),
                finish: "stop",
            });
            self.job.stop(prompt, choice);
        }
    }
}
