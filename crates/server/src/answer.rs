//! An answer told whole.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use redline_engine::Logprob;
use redline_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::api::{AskedPrompt, Dialect};
use crate::error::ApiError;
use crate::shape::{self, Completion, Head};
use crate::voice::{Answers, Said, Step};

/// One answer, so far.
#[derive(Debug, Default)]
struct Part {
    said: Said,
    characters: usize,
    chat: Vec<Value>,
    text: Completion,
    finish: &'static str,
}

/// Waits for all answers.
///
/// # Errors
/// If one of them fails.
pub(crate) async fn response(mut answers: Answers) -> Result<Response, ApiError> {
    let app = std::sync::Arc::clone(&answers.app);
    let served = (app.loaded()).ok_or_else(|| ApiError::internal("no model"))?;
    let tokenizer = &served.tokenizer;
    let (dialect, choices) = (answers.ask.dialect, answers.ask.choices);
    let has_logprobs = answers.ask.has_logprobs;
    let mut parts: Vec<Part> = (0..answers.count()).map(|_| Part::default()).collect();
    let mut prompts: Vec<Vec<Logprob>> = vec![Vec::new(); answers.ask.prompts.len()];
    while let Some(step) = answers.next().await {
        match step? {
            Step::Prompt { prompt, logprobs } => prompts[prompt].extend(logprobs),
            Step::Token { index, said, token } => {
                let part = &mut parts[index];
                match dialect {
                    Dialect::Chat => part.chat.extend(shape::chat_logprob(&token, tokenizer)),
                    Dialect::Text => {
                        let (offset, logprob) = (part.characters, token.logprob.as_ref());
                        part.text.push(token.id, logprob, offset, tokenizer);
                    }
                }
                part.add(&said);
            }
            Step::End {
                index,
                said,
                finish,
            } => {
                parts[index].add(&said);
                parts[index].finish = finish;
            }
        }
    }
    let told = parts.into_iter().enumerate().map(|(index, mut part)| {
        let prompt = index / choices;
        let echoed = answers.ask.prompts[prompt].echo.is_some();
        if echoed {
            part.prepend(&answers.ask.prompts[prompt], &prompts[prompt], tokenizer);
        }
        let logprobs = match dialect {
            _ if !has_logprobs => None,
            Dialect::Chat => Some(json!({ "content": part.chat, "refusal": null })),
            Dialect::Text => part.text.to_value(),
        };
        shape::choice(dialect, index, &part.said, logprobs, part.finish)
    });
    let told = told.collect();
    let head = Head::new(dialect, false, answers.ask.seed, served);
    Ok(Json(head.shell(told, Some(Some(answers.usage())))).into_response())
}

impl Part {
    fn add(&mut self, said: &Said) {
        self.said.reasoning.push_str(&said.reasoning);
        self.said.content.push_str(&said.content);
        self.characters += said.content.chars().count();
    }

    /// Puts the prompt before the answer. Nothing is said of its first token.
    fn prepend(&mut self, prompt: &AskedPrompt, logprobs: &[Logprob], tokenizer: &Tokenizer) {
        let echo = prompt.echo.as_deref().unwrap_or_default();
        let mut lists = Completion::default();
        let mut decoder = tokenizer.stream_decoder().continuing().with_special();
        let mut offset = 0;
        for (index, id) in prompt.ids.iter().enumerate() {
            let logprob = index.checked_sub(1).and_then(|before| logprobs.get(before));
            lists.push(*id, logprob, offset, tokenizer);
            offset += decoder.push(*id).chars().count();
        }
        lists.append(std::mem::take(&mut self.text), echo.chars().count());
        self.text = lists;
        self.said.content.insert_str(0, echo);
    }
}
