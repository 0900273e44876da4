//! `POST /v1/chat/completions`.

use redline_tokenizer::Message;
use serde_json::Value;

use super::common::{self, Common};
use super::fields::{Fields, describe};
use super::{Ask, AskedPrompt, Dialect};
use crate::app::Served;
use crate::error::ApiError;

const MAX_MESSAGES: usize = 4096;
const MAX_ROLE_BYTES: usize = 64;

/// Reads a body.
pub(crate) fn read(mut fields: Fields<'_>, served: &Served) -> Result<Ask, ApiError> {
    let common = Common::read(&mut fields, served)?;
    let max_tokens = fields.count("max_completion_tokens");
    let max_tokens = max_tokens.or(fields.count("max_tokens"));
    let logprobs = logprobs(&mut fields);
    refuse_tools(&mut fields);
    let messages = messages(&mut fields);
    // A template is not run for nothing.
    let prompt = match fields.wrong.is_empty() {
        true => prompt(&messages, common.grammar.is_some(), served)?,
        false => vec![redline_model::TokenId(0)],
    };
    let mut request = common.request(prompt, max_tokens, served);
    request.logprobs = logprobs;
    let requests = vec![request];
    common::check(fields, &requests, served)?;
    Ok(Ask::new(
        Dialect::Chat,
        common,
        requests,
        vec![AskedPrompt::default()],
    ))
}

/// The ids of the conversation, by the model's template; `at_once`: up to where the answer begins.
fn prompt(
    messages: &[Message],
    at_once: bool,
    served: &Served,
) -> Result<Vec<redline_model::TokenId>, ApiError> {
    let prompt = served.tokenizer.chat_prompt(messages);
    let prompt = prompt.and_then(|prompt| match prompt {
        Some(mut prompt) if at_once => {
            served.tokenizer.begin_answer(&mut prompt)?;
            Ok(Some(prompt))
        }
        prompt => Ok(prompt),
    });
    match prompt {
        Ok(Some(prompt)) => Ok(prompt),
        Ok(None) => {
            let message = "this model has no chat template (a base model): ask /v1/completions";
            Err(ApiError::bad_request("no_chat_template", message).about("messages"))
        }
        Err(error) => {
            Err(ApiError::bad_request("chat_template", error.to_string()).about("messages"))
        }
    }
}

/// How many alternatives each token is told with, if its probability is.
fn logprobs(fields: &mut Fields<'_>) -> Option<usize> {
    let wanted = fields.flag("logprobs");
    let top = fields.count("top_logprobs");
    if top.is_some_and(|top| top > 0) && !wanted {
        fields.refuse(
            "top_logprobs",
            "logprobs to be true",
            "without it".to_owned(),
        );
    }
    wanted.then_some(top.unwrap_or(0))
}

/// Better no answer than one to another question.
fn refuse_tools(fields: &mut Fields<'_>) {
    let none = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    for name in ["tools", "functions"] {
        if fields.get(name).is_some_and(|value| !none(value)) {
            let found = fields.get(name).map_or(String::new(), describe);
            fields.refuse(name, "none: tools are not supported yet", found);
        }
    }
}

fn messages(fields: &mut Fields<'_>) -> Vec<Message> {
    let constraint = format!("an array of 1 to {MAX_MESSAGES} messages");
    let Some(value) = fields.get("messages") else {
        fields.refuse("messages", constraint, "nothing".to_owned());
        return Vec::new();
    };
    let fits = |items: &&Vec<Value>| (1..=MAX_MESSAGES).contains(&items.len());
    let Some(items) = value.as_array().filter(fits) else {
        fields.refuse("messages", constraint, describe(value));
        return Vec::new();
    };
    let items = items.iter().enumerate();
    items
        .filter_map(|(index, item)| message(item, index, fields))
        .collect()
}

fn message(item: &Value, index: usize, fields: &mut Fields<'_>) -> Option<Message> {
    let role = item.get("role").and_then(Value::as_str);
    let Some(role) = role.filter(|role| role.len() <= MAX_ROLE_BYTES) else {
        let found = item.get("role").map_or("nothing".to_owned(), describe);
        let constraint = format!("a string of at most {MAX_ROLE_BYTES} bytes");
        fields.refuse(&format!("messages[{index}].role"), constraint, found);
        return None;
    };
    if item
        .get("tool_calls")
        .is_some_and(|calls| calls.as_array().is_none_or(|c| !c.is_empty()))
    {
        let field = format!("messages[{index}].tool_calls");
        fields.refuse(
            &field,
            "none: tools are not supported yet",
            "some".to_owned(),
        );
        return None;
    }
    let Some(content) = item.get("content").map_or(Some(String::new()), content) else {
        let found = item.get("content").map_or(String::new(), describe);
        let constraint = "a string, or an array of {\"type\": \"text\", \"text\": …}";
        fields.refuse(&format!("messages[{index}].content"), constraint, found);
        return None;
    };
    // Templates know it by its older name.
    let role = if role == "developer" { "system" } else { role };
    Some(Message {
        role: role.to_owned(),
        content,
    })
}

/// Text, whole or in parts.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| {
                let kind = part.get("type").and_then(Value::as_str);
                let text = part.get("text").and_then(Value::as_str);
                text.filter(|_| kind == Some("text")).map(str::to_owned)
            };
            parts.iter().map(text).collect()
        }
        _ => None,
    }
}
