//! Texts and token ids, one or several.

use redline_model::TokenId;
use redline_tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value;

use super::fields::{Fields, describe};
use crate::error::ApiError;

/// A text as it is sent.
#[derive(Debug)]
pub(crate) enum Given<'v> {
    Text(&'v str),
    Ids(Vec<TokenId>),
}

/// Reads a field that has to be there: up to `most` texts.
pub(crate) fn read<'v>(fields: &mut Fields<'v>, name: &str, most: usize) -> Vec<Given<'v>> {
    let value = fields.get(name);
    value
        .and_then(|value| given(value, most))
        .unwrap_or_else(|| {
            let constraint = format!("a string, token ids, or an array of up to {most} of either");
            let found = value.map_or("nothing".to_owned(), describe);
            fields.refuse(name, constraint, found);
            Vec::new()
        })
}

fn given(value: &Value, most: usize) -> Option<Vec<Given<'_>>> {
    match value {
        Value::String(text) => Some(vec![Given::Text(text)]),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_number) => {
            Some(vec![Given::Ids(ids(items)?)])
        }
        Value::Array(items) if items.len() <= most => (items.iter())
            .map(|item| match item {
                Value::String(text) => Some(Given::Text(text)),
                Value::Array(items) => Some(Given::Ids(ids(items)?)),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

fn ids(items: &[Value]) -> Option<Vec<TokenId>> {
    let id = |item: &Value| Some(TokenId(u32::try_from(item.as_u64()?).ok()?));
    items.iter().map(id).collect()
}

impl Given<'_> {
    /// Its tokens; ids are not checked.
    ///
    /// # Errors
    /// If a text, which is in `field`, cannot be encoded.
    pub(crate) fn encode(
        &self,
        tokenizer: &Tokenizer,
        options: EncodeOptions,
        field: &str,
    ) -> Result<Vec<TokenId>, ApiError> {
        match self {
            Self::Ids(ids) => Ok(ids.clone()),
            Self::Text(text) => (tokenizer.encode(text, options)).map_err(|error| {
                ApiError::bad_request("tokenizer", error.to_string()).about(field)
            }),
        }
    }
}
