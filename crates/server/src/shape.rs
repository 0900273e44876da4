//! The shapes of answers, as clients of OpenAI's interface expect them.

use std::sync::atomic::{AtomicU64, Ordering};

use redline_engine::{GeneratedToken, Logprob, random_seed};
use redline_model::TokenId;
use redline_tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::Dialect;
use crate::app::{Served, now};
use crate::voice::{Said, Usage};

/// What stands for a logarithm that no JSON number can be.
const IMPOSSIBLE: f32 = -9999.0;

/// What is the same in every event of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    fingerprint: String,
    seed: u64,
}

/// An answer, or an event of it.
#[derive(Debug, Serialize)]
pub(crate) struct Shell<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    /// Beyond the interface: what was drawn with, so that it can be drawn again.
    seed: u64,
    choices: Vec<Value>,
    /// `None`: not told; `Some(None)`: told later.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

impl Head {
    pub(crate) fn new(dialect: Dialect, stream: bool, seed: u64, served: &Served) -> Self {
        let (prefix, object) = match (dialect, stream) {
            (Dialect::Chat, false) => ("chatcmpl", "chat.completion"),
            (Dialect::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Dialect::Text, _) => ("cmpl", "text_completion"),
        };
        Self {
            id: format!("{prefix}-{}", new_id()),
            object,
            created: now(),
            model: served.name.clone(),
            fingerprint: served.fingerprint.clone(),
            seed,
        }
    }

    pub(crate) fn shell(&self, choices: Vec<Value>, usage: Option<Option<Usage>>) -> Shell<'_> {
        Shell {
            id: &self.id,
            object: self.object,
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            seed: self.seed,
            choices,
            usage,
        }
    }
}

/// A name nobody has had: a start nobody can guess, and a count.
pub(crate) fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}{count:08x}", random_seed())
}

/// A choice of an event.
pub(crate) fn delta(
    dialect: Dialect,
    index: usize,
    said: &Said,
    is_first: bool,
    logprobs: Option<Value>,
) -> Value {
    match dialect {
        Dialect::Text => json!({
            "index": index,
            "text": said.content,
            "logprobs": logprobs,
            "finish_reason": null,
        }),
        Dialect::Chat => {
            let mut delta = Map::new();
            if is_first {
                delta.insert("role".into(), "assistant".into());
            }
            if !said.reasoning.is_empty() {
                delta.insert("reasoning_content".into(), said.reasoning.as_str().into());
            }
            if said.reasoning.is_empty() || !said.content.is_empty() {
                delta.insert("content".into(), said.content.as_str().into());
            }
            json!({
                "index": index,
                "delta": delta,
                "logprobs": logprobs,
                "finish_reason": null,
            })
        }
    }
}

/// A choice of the event that ends an answer. One that has no token has its role here.
pub(crate) fn last_delta(dialect: Dialect, index: usize, is_first: bool, finish: &str) -> Value {
    match dialect {
        Dialect::Text => json!({
            "index": index,
            "text": "",
            "logprobs": null,
            "finish_reason": finish,
        }),
        Dialect::Chat => {
            let delta = match is_first {
                true => json!({ "role": "assistant" }),
                false => json!({}),
            };
            json!({
                "index": index,
                "delta": delta,
                "logprobs": null,
                "finish_reason": finish,
            })
        }
    }
}

/// A choice of an answer that is told whole.
pub(crate) fn choice(
    dialect: Dialect,
    index: usize,
    said: &Said,
    logprobs: Option<Value>,
    finish: &str,
) -> Value {
    match dialect {
        Dialect::Text => json!({
            "index": index,
            "text": said.content,
            "logprobs": logprobs,
            "finish_reason": finish,
        }),
        Dialect::Chat => {
            let mut message = json!({
                "role": "assistant",
                "content": said.content,
                "refusal": null,
            });
            if !said.reasoning.is_empty() {
                message["reasoning_content"] = said.reasoning.as_str().into();
            }
            json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": finish,
            })
        }
    }
}

/// A token's entry in the log-probabilities of a chat.
pub(crate) fn chat_logprob(token: &GeneratedToken, tokenizer: &Tokenizer) -> Option<Value> {
    let Logprob { logprob, top } = token.logprob.as_ref()?;
    let mut entry = chat_entry(token.id, *logprob, tokenizer);
    let top: Vec<Value> = (top.iter())
        .map(|(id, logprob)| chat_entry(*id, *logprob, tokenizer))
        .collect();
    entry["top_logprobs"] = top.into();
    Some(entry)
}

fn chat_entry(id: TokenId, logprob: f32, tokenizer: &Tokenizer) -> Value {
    json!({
        "token": piece(id, tokenizer),
        "logprob": finite(logprob),
        "bytes": tokenizer.piece_bytes(id).unwrap_or_default(),
    })
}

fn piece(id: TokenId, tokenizer: &Tokenizer) -> String {
    tokenizer.piece(id).unwrap_or_default()
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() {
        logprob
    } else {
        IMPOSSIBLE
    }
}

/// The log-probabilities of a completion: four lists side by side.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Completion {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
}

impl Completion {
    /// Adds a token that begins `offset` characters into the text.
    pub(crate) fn push(
        &mut self,
        id: TokenId,
        logprob: Option<&Logprob>,
        offset: usize,
        tokenizer: &Tokenizer,
    ) {
        self.tokens.push(piece(id, tokenizer));
        self.token_logprobs
            .push(logprob.map(|told| finite(told.logprob)));
        self.top_logprobs.push(logprob.map(|told| {
            let own = (id, told.logprob);
            let all = told.top.iter().copied().chain([own]);
            all.map(|(id, logprob)| (piece(id, tokenizer), finite(logprob).into()))
                .collect()
        }));
        self.text_offset.push(offset);
    }

    /// Adds the tokens of a text that begins `offset` characters into this one.
    pub(crate) fn append(&mut self, rest: Self, offset: usize) {
        self.tokens.extend(rest.tokens);
        self.token_logprobs.extend(rest.token_logprobs);
        self.top_logprobs.extend(rest.top_logprobs);
        let offsets = rest.text_offset.into_iter().map(|at| at + offset);
        self.text_offset.extend(offsets);
    }

    pub(crate) fn to_value(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }
}
