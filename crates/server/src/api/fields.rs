//! Reading a body's fields: whatever is wrong is noted, and all of it told at once.

use serde_json::{Map, Value};

use crate::error::WrongField;

/// The fields of a body that are being read, and those that were wrong so far.
#[derive(Debug)]
pub(crate) struct Fields<'v> {
    map: &'v Map<String, Value>,
    pub(crate) wrong: Vec<WrongField>,
}

impl<'v> Fields<'v> {
    pub(crate) fn new(map: &'v Map<String, Value>) -> Self {
        Self {
            map,
            wrong: Vec::new(),
        }
    }

    /// A field that is there; `null` is not.
    pub(crate) fn get(&self, name: &str) -> Option<&'v Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Notes a field that breaks its rule.
    pub(crate) fn refuse(&mut self, field: &str, constraint: impl Into<String>, found: String) {
        self.wrong.push(WrongField {
            field: field.to_owned(),
            constraint: constraint.into(),
            found,
        });
    }

    /// A field as `read` takes it; noted as wrong if it does not.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        constraint: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let taken = read(value);
        if taken.is_none() {
            self.refuse(name, constraint, describe(value));
        }
        taken
    }

    pub(crate) fn float(&mut self, name: &str, default: f32) -> f32 {
        let taken = self.take(name, "a number", Value::as_f64);
        taken.map_or(default, |number| number as f32)
    }

    /// A count; a negative one is wrong.
    pub(crate) fn count(&mut self, name: &str) -> Option<usize> {
        self.take(name, "a whole number, 0 or more", |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    /// `false` if it is not there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        self.take(name, "true or false", Value::as_bool)
            .unwrap_or(false)
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<&'v str> {
        self.take(name, "a string", Value::as_str)
    }
}

/// What a value is, without saying more of it than a number.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}
