//! What all kinds of generation have in common: how tokens are drawn, and when to stop.

use std::sync::Arc;

use redline_engine::{Grammar, Request, SamplingParams, random_seed};
use redline_model::TokenId;
use serde_json::Value;

use super::fields::{Fields, describe};
use super::structured;
use crate::app::Served;
use crate::error::ApiError;

/// Stop strings, and bytes of each.
const MAX_STOPS: usize = 4;
const MAX_STOP_BYTES: usize = 256;
/// Tokens with a bias.
const MAX_BIASES: usize = 1024;

/// The parameters of a generation.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) sampling: SamplingParams,
    pub(crate) stops: Vec<String>,
    pub(crate) choices: usize,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    ignore_eos: bool,
    /// What the answer must look like.
    pub(crate) grammar: Option<Arc<dyn Grammar>>,
}

impl Common {
    /// # Errors
    /// If no grammar can be made now. What is wrong with a field is noted there.
    pub(crate) fn read(fields: &mut Fields<'_>, served: &Served) -> Result<Self, ApiError> {
        let sampling = SamplingParams {
            temperature: fields.float("temperature", 1.0),
            top_k: top_k(fields),
            top_p: fields.float("top_p", 1.0),
            min_p: fields.float("min_p", 0.0),
            repetition_penalty: fields.float("repetition_penalty", 1.0),
            presence_penalty: fields.float("presence_penalty", 0.0),
            frequency_penalty: fields.float("frequency_penalty", 0.0),
            logit_bias: logit_bias(fields),
            seed: seed(fields).unwrap_or_else(random_seed),
        };
        let ignore_eos = fields.flag("ignore_eos");
        let grammar = structured::grammar(fields, served)?;
        if ignore_eos && grammar.is_some() {
            let constraint = "false: an answer of a given form ends when it is whole";
            fields.refuse("ignore_eos", constraint, "true".to_owned());
        }
        Ok(Self {
            sampling,
            stops: stops(fields),
            choices: fields.count("n").unwrap_or(1),
            stream: fields.flag("stream"),
            include_usage: include_usage(fields),
            ignore_eos,
            grammar,
        })
    }

    /// The engine's request for a prompt; without `max_tokens`, for all there is room for.
    pub(crate) fn request(
        &self,
        prompt: Vec<TokenId>,
        max_tokens: Option<usize>,
        served: &Served,
    ) -> Request {
        let room = served.context_length().saturating_sub(prompt.len());
        let end_tokens = match self.ignore_eos {
            true => Vec::new(),
            false => served.tokenizer.end_of_generation().to_vec(),
        };
        Request {
            sampling: self.sampling.clone(),
            end_tokens,
            choices: self.choices,
            grammar: self.grammar.clone(),
            speculation: served.speculation,
            ..Request::new(prompt, max_tokens.unwrap_or(room.max(1)))
        }
    }
}

/// Adds what the engine finds wrong with a request, and refuses if anything is.
pub(crate) fn check(
    mut fields: Fields<'_>,
    requests: &[Request],
    served: &Served,
) -> Result<(), ApiError> {
    for error in requests
        .iter()
        .flat_map(|request| request.field_errors(served.vocab_size))
    {
        let known = fields.wrong.iter().any(|wrong| wrong.field == error.field);
        if !known {
            fields.wrong.push(error.into());
        }
    }
    match fields.wrong.is_empty() {
        true => Ok(()),
        false => Err(ApiError::fields(fields.wrong)),
    }
}

/// -1 means 0 to some: off.
fn top_k(fields: &mut Fields<'_>) -> usize {
    let read = |value: &Value| match value.as_i64()? {
        -1 => Some(0),
        count => usize::try_from(count).ok(),
    };
    (fields.take("top_k", "a whole number, 0 or more", read)).unwrap_or(0)
}

/// Any whole number of 64 bits.
fn seed(fields: &mut Fields<'_>) -> Option<u64> {
    fields.take("seed", "a whole number of 64 bits", |value| {
        value
            .as_u64()
            .or_else(|| value.as_i64().map(i64::cast_unsigned))
    })
}

fn include_usage(fields: &mut Fields<'_>) -> bool {
    let options = fields.take("stream_options", "an object", Value::as_object);
    let Some(options) = options else {
        return false;
    };
    match options.get("include_usage") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            let found = describe(other);
            fields.refuse("stream_options.include_usage", "true or false", found);
            false
        }
    }
}

fn stops(fields: &mut Fields<'_>) -> Vec<String> {
    let Some(value) = fields.get("stop") else {
        return Vec::new();
    };
    let texts: Option<Vec<String>> = match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => (items.iter())
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    let fits = |texts: &Vec<String>| {
        texts.len() <= MAX_STOPS && texts.iter().all(|text| text.len() <= MAX_STOP_BYTES)
    };
    texts.filter(fits).unwrap_or_else(|| {
        let constraint =
            format!("a string or up to {MAX_STOPS}, each of at most {MAX_STOP_BYTES} bytes");
        fields.refuse("stop", constraint, describe(value));
        Vec::new()
    })
}

fn logit_bias(fields: &mut Fields<'_>) -> Vec<(TokenId, f32)> {
    let Some(value) = fields.get("logit_bias") else {
        return Vec::new();
    };
    let read = || {
        let entries = value.as_object().filter(|map| map.len() <= MAX_BIASES)?;
        let entries = entries
            .iter()
            .map(|(id, bias)| Some((TokenId(id.parse().ok()?), bias.as_f64()? as f32)));
        entries.collect::<Option<Vec<_>>>()
    };
    read().unwrap_or_else(|| {
        let constraint = format!("an object of up to {MAX_BIASES} token ids, each with a number");
        fields.refuse("logit_bias", constraint, describe(value));
        Vec::new()
    })
}
