//! What a grammar is made of.

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use crate::{Error, conditions};

/// Bytes of a source, at most; of a schema, as compact JSON.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// How deep a value of a schema may stand in others.
pub const MAX_DEPTH: usize = 64;

/// White space between the parts of a JSON value: none, a space, or line breaks and what indents. A
/// model that may write as much as it likes can write nothing else.
const WHITE_SPACE: &str = r"( |\n{1,2}[ \t]{0,20})";

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A JSON object.
    JsonObject,
    /// A value that a JSON schema (draft 2020-12) accepts, its properties in the schema's order. What
    /// is supported of it: <https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md>.
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole, in the syntax of the crate `regex`.
    Regex(String),
    /// Text by a grammar in llguidance's variant of Lark.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

impl Source {
    /// Whether it keeps to the limits.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let found = match self {
            Self::JsonObject => 0,
            Self::JsonSchema(schema) => {
                if is_deeper(schema, MAX_DEPTH) {
                    return Err(Error::TooDeep {
                        expected: MAX_DEPTH,
                    });
                }
                conditions::check_schema(schema)?;
                schema.to_string().len()
            }
            Self::Regex(text) => text.len(),
            Self::Lark(text) => {
                conditions::check_lark(text)?;
                text.len()
            }
            Self::Choice(texts) => texts.iter().map(String::len).sum(),
        };
        match found <= MAX_SOURCE_BYTES {
            true => Ok(()),
            false => Err(Error::TooLarge {
                expected: MAX_SOURCE_BYTES,
                found,
            }),
        }
    }

    /// The same for llguidance.
    pub(crate) fn grammar(&self) -> Result<TopLevelGrammar, Error> {
        match self {
            Self::JsonObject => schema(&json!({"type": "object"})),
            Self::JsonSchema(value) => schema(value),
            Self::Regex(expression) => Ok(TopLevelGrammar::from_regex(expression)),
            Self::Lark(grammar) => Ok(TopLevelGrammar::from_lark(grammar.clone())),
            Self::Choice(texts) if texts.iter().all(String::is_empty) => {
                Err(Error::Invalid("expected a text to choose".to_owned()))
            }
            Self::Choice(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| json!(text).to_string()).collect();
                let grammar = format!("start: {}", texts.join(" | "));
                Ok(TopLevelGrammar::from_lark(grammar))
            }
        }
    }
}

fn schema(value: &Value) -> Result<TopLevelGrammar, Error> {
    let mut value = value.clone();
    match &mut value {
        Value::Object(map) => {
            let options = map.entry("x-guidance").or_insert_with(|| json!({}));
            if let Some(options) = options.as_object_mut() {
                let own = ["whitespace_pattern", "whitespace_flexible"];
                if own.iter().all(|name| !options.contains_key(*name)) {
                    options.insert("whitespace_pattern".to_owned(), json!(WHITE_SPACE));
                }
            }
        }
        // Anything, and nothing.
        Value::Bool(_) => {}
        _ => {
            let message = "expected a JSON schema: an object, true or false";
            return Err(Error::Invalid(message.to_owned()));
        }
    }
    Ok(TopLevelGrammar::from_json_schema(value))
}

/// Whether a value in `value` stands in more than `depth` others.
fn is_deeper(value: &Value, depth: usize) -> bool {
    let mut open = vec![(value, 0)];
    while let Some((value, at)) = open.pop() {
        if at > depth {
            return true;
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, at + 1))),
            Value::Object(map) => open.extend(map.values().map(|item| (item, at + 1))),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(true), |inner, _| json!({"not": inner}))
    }

    #[test]
    fn a_source_has_a_size_and_a_depth() {
        assert_eq!(Source::JsonSchema(nested(MAX_DEPTH)).check(), Ok(()));
        let deep = Source::JsonSchema(nested(MAX_DEPTH + 1)).check();
        assert_eq!(deep, Err(Error::TooDeep { expected: 64 }));
        let text = |bytes| "a".repeat(bytes);
        for source in [Source::Regex, Source::Lark, |text| {
            Source::Choice(vec![text])
        }] {
            assert_eq!(source(text(MAX_SOURCE_BYTES)).check(), Ok(()));
            let large = source(text(MAX_SOURCE_BYTES + 1)).check();
            let (expected, found) = (MAX_SOURCE_BYTES, MAX_SOURCE_BYTES + 1);
            assert_eq!(large, Err(Error::TooLarge { expected, found }));
        }
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for value in [json!(3), json!("x"), json!([]), json!(null)] {
            let error = Source::JsonSchema(value).grammar().unwrap_err();
            assert!(error.to_string().contains("an object, true or false"));
        }
    }
}
