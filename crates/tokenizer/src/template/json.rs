//! JSON as Python's `json.dumps(value, ensure_ascii=False, indent=…)` writes it.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// How deep lists and maps may nest.
const MAX_DEPTH: usize = 64;

/// Most spaces for each level.
const MAX_INDENT: usize = 16;

/// The JSON of `value`; with an indent, one element a line.
pub(super) fn write(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<usize>,
) -> Result<String, Error> {
    let mut json = Json {
        state,
        text: String::new(),
        indent: indent.map(|width| width.min(MAX_INDENT)),
    };
    json.value(value, 0)?;
    Ok(json.text)
}

struct Json<'s> {
    state: &'s State<'s, 's>,
    text: String,
    indent: Option<usize>,
}

impl Json<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refuse("the value nests too deep"));
        }
        // Paid for as it is written: a small value can have large JSON, if its parts are shared.
        self.state.consume_fuel(1 + depth as u64)?;
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self
                .text
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let elements = value.try_iter()?.map(|element| (None, element));
                self.container(['[', ']'], elements, depth)?;
            }
            ValueKind::Map => {
                let pairs = value.as_object().and_then(|map| map.try_iter_pairs());
                let entries = pairs.into_iter().flatten();
                let entries = entries.map(|(key, element)| (Some(key), element));
                self.container(['{', '}'], entries, depth)?;
            }
            other => return Err(refuse(&format!("{other} has no JSON"))),
        }
        Ok(())
    }

    fn container(
        &mut self,
        [open, close]: [char; 2],
        elements: impl Iterator<Item = (Option<Value>, Value)>,
        depth: usize,
    ) -> Result<(), Error> {
        self.text.push(open);
        let mut is_empty = true;
        for (key, element) in elements {
            if !is_empty {
                self.text
                    .push_str(if self.indent.is_some() { "," } else { ", " });
            }
            is_empty = false;
            self.new_line(depth + 1);
            if let Some(key) = key {
                self.key(&key)?;
                self.text.push_str(": ");
            }
            self.value(&element, depth + 1)?;
        }
        if !is_empty {
            self.new_line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(width) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default())?,
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.text.push('"');
                self.value(key, MAX_DEPTH)?;
                self.text.push('"');
            }
            other => return Err(refuse(&format!("{other} cannot be a key"))),
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        let text = match value.to_string().as_str() {
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            "nan" => "NaN".to_owned(),
            other => other.to_owned(),
        };
        self.text.push_str(&text);
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.state.consume_fuel(text.len() as u64 / 8)?;
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..='\u{1f}' => {
                    let _ = write!(self.text, "\\u{:04x}", character as u32);
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
        Ok(())
    }
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("tojson: {why}"))
}
