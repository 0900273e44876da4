//! What an answer must look like: `response_format` as OpenAI's clients ask for it, and
//! `structured_outputs` as vLLM's do, which has expressions and grammars as well.

use std::sync::Arc;

use redline_engine::Grammar;
use redline_grammar::{Error, Source};
use serde_json::Value;

use super::fields::{Fields, describe};
use crate::app::Served;
use crate::error::ApiError;

const FORMATS: &str = "an object whose type is \"text\", \"json_object\" or \"json_schema\"";
const OUTPUTS: &str = "an object with one of json, json_object, regex, choice (an array of strings) and grammar (Lark)";

/// The grammar that a body asks for; what is wrong with it is noted.
///
/// # Errors
/// If too many others are being compiled, or none can be for this model.
pub(super) fn grammar(
    fields: &mut Fields<'_>,
    served: &Served,
) -> Result<Option<Arc<dyn Grammar>>, ApiError> {
    let (format, outputs) = (response_format(fields), structured_outputs(fields));
    if format.is_some() && outputs.is_some() {
        let constraint = "nothing beside response_format";
        fields.refuse("structured_outputs", constraint, "both".to_owned());
        return Ok(None);
    }
    let Some((field, source)) = format.or(outputs) else {
        return Ok(None);
    };
    match served.grammars.compile(&served.tokenizer, &source) {
        Ok(grammar) => Ok(Some(grammar)),
        Err(error @ Error::Busy) => Err(ApiError::overloaded(error.to_string())),
        Err(error @ Error::Unavailable(_)) => Err(ApiError::internal(error.to_string())),
        Err(error) => {
            fields.refuse(&field, "something that can be followed", error.to_string());
            Ok(None)
        }
    }
}

/// A source, and the field it comes from.
type Asked = Option<(String, Source)>;

fn response_format(fields: &mut Fields<'_>) -> Asked {
    let name = "response_format";
    let value = fields.get(name)?;
    match value.get("type").and_then(Value::as_str) {
        Some("text") => None,
        Some("json_object") => Some((name.to_owned(), Source::JsonObject)),
        Some("json_schema") => {
            let field = "response_format.json_schema.schema";
            match value.pointer("/json_schema/schema") {
                Some(schema) => Some((field.to_owned(), Source::JsonSchema(schema.clone()))),
                None => {
                    fields.refuse(field, "a JSON schema", "nothing".to_owned());
                    None
                }
            }
        }
        _ => {
            let kind = value.get("type").map_or_else(|| describe(value), describe);
            fields.refuse(name, FORMATS, kind);
            None
        }
    }
}

fn structured_outputs(fields: &mut Fields<'_>) -> Asked {
    let name = "structured_outputs";
    let value = fields.get(name)?;
    let map = value.as_object();
    let given = |map: &serde_json::Map<String, Value>| {
        let mut given = map.iter().filter(|(_, value)| !value.is_null());
        let first = given
            .next()
            .map(|(key, value)| (key.clone(), value.clone()));
        first.filter(|_| given.next().is_none())
    };
    let source = map.and_then(given).and_then(|(key, value)| {
        let text = value.as_str().map(str::to_owned);
        let source = match key.as_str() {
            // Some send the schema as text.
            "json" => match text {
                Some(text) => Source::JsonSchema(serde_json::from_str(&text).ok()?),
                None => Source::JsonSchema(value),
            },
            "json_object" if value == Value::Bool(true) => Source::JsonObject,
            "regex" => Source::Regex(text?),
            "grammar" => Source::Lark(text?),
            "choice" => {
                let texts = value.as_array()?.iter();
                Source::Choice(
                    texts
                        .map(|text| text.as_str().map(str::to_owned))
                        .collect::<Option<_>>()?,
                )
            }
            _ => return None,
        };
        Some((format!("{name}.{key}"), source))
    });
    if source.is_none() {
        fields.refuse(name, OUTPUTS, describe(value));
    }
    source
}
