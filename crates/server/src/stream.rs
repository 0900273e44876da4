//! An answer told token by token, as server-sent events.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;

use crate::api::Dialect;
use crate::error::ApiError;
use crate::shape::{self, Completion, Head};
use crate::voice::{Answers, Said, Step};

/// A comment tells clients in between that somebody is there, when nothing else is sent for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Sends events as the engine gives them: one for each token, and none before the first.
pub(crate) fn response(answers: Answers) -> Response {
    let Some(served) = answers.app.loaded() else {
        return ApiError::internal("no model").into_response();
    };
    let head = Head::new(answers.ask.dialect, true, answers.ask.seed, served);
    let teller = Teller {
        told: vec![Told::default(); answers.count()],
        answers,
        head,
        pending: None,
        phase: Phase::Answers,
    };
    let events = stream::unfold(teller, |mut teller| async move {
        let event = teller.next().await?;
        Some((Ok::<_, axum::Error>(event), teller))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let unbuffered = HeaderValue::from_static("no");
    (response.headers_mut()).insert("x-accel-buffering", unbuffered);
    response
}

/// What was told of an answer.
#[derive(Debug, Clone, Default)]
struct Told {
    has_begun: bool,
    /// Characters of its text.
    characters: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Answers,
    /// All is told but the end itself.
    Done,
    Over,
}

struct Teller {
    answers: Answers,
    head: Head,
    told: Vec<Told>,
    /// The end of an answer whose last text is told first.
    pending: Option<Value>,
    phase: Phase,
}

impl Teller {
    async fn next(&mut self) -> Option<Event> {
        if let Some(choice) = self.pending.take() {
            return Some(self.chunk(choice));
        }
        match self.phase {
            Phase::Answers => {}
            Phase::Done => {
                self.phase = Phase::Over;
                return Some(Event::default().data("[DONE]"));
            }
            Phase::Over => return None,
        }
        loop {
            let choice = match self.answers.next().await {
                // Echoed prompts are not streamed.
                Some(Ok(Step::Prompt { .. })) => continue,
                Some(Ok(step)) => self.choice(step),
                Some(Err(error)) => {
                    self.phase = Phase::Over;
                    return Some(event(&error.envelope()));
                }
                None if self.answers.ask.include_usage => {
                    self.phase = Phase::Done;
                    let usage = Some(Some(self.answers.usage()));
                    return Some(event(&self.head.shell(Vec::new(), usage)));
                }
                None => {
                    self.phase = Phase::Over;
                    return Some(Event::default().data("[DONE]"));
                }
            };
            if let Some(choice) = choice {
                return Some(self.chunk(choice));
            }
        }
    }

    fn chunk(&self, choice: Value) -> Event {
        let usage = self.answers.ask.include_usage.then_some(None);
        event(&self.head.shell(vec![choice], usage))
    }

    fn choice(&mut self, step: Step) -> Option<Value> {
        let dialect = self.answers.ask.dialect;
        match step {
            Step::Prompt { .. } => None,
            Step::Token { index, said, token } => {
                let told = &mut self.told[index];
                let served = self.answers.app.loaded()?;
                let logprobs = (token.logprob.as_ref()).and_then(|logprob| match dialect {
                    Dialect::Chat => {
                        let entry = shape::chat_logprob(&token, &served.tokenizer)?;
                        Some(serde_json::json!({ "content": [entry], "refusal": null }))
                    }
                    Dialect::Text => {
                        let mut lists = Completion::default();
                        let offset = told.characters;
                        lists.push(token.id, Some(logprob), offset, &served.tokenizer);
                        lists.to_value()
                    }
                });
                Some(told.delta(dialect, index, &said, logprobs))
            }
            Step::End {
                index,
                said,
                finish,
            } => {
                let told = &mut self.told[index];
                if said.is_empty() {
                    return Some(shape::last_delta(dialect, index, !told.has_begun, finish));
                }
                self.pending = Some(shape::last_delta(dialect, index, false, finish));
                Some(told.delta(dialect, index, &said, None))
            }
        }
    }
}

impl Told {
    fn delta(
        &mut self,
        dialect: Dialect,
        index: usize,
        said: &Said,
        logprobs: Option<Value>,
    ) -> Value {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        self.characters += said.content.chars().count();
        shape::delta(dialect, index, said, is_first, logprobs)
    }
}

fn event(data: &impl Serialize) -> Event {
    // Maps with string keys and numbers: there is nothing that JSON lacks.
    Event::default()
        .json_data(data)
        .unwrap_or_else(|_| Event::default().data("{}"))
}
