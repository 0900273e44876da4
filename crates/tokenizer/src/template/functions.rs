//! What a chat template finds beside Jinja's own functions.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{guard, json};

/// The message of `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    // The one shows the sandbox, the other's output grows with the square of what it is given.
    environment.remove_global("debug");
    environment.remove_filter("pprint");
    // Not Jinja's, and what is looked up in its maps is looked up in each of many.
    environment.remove_filter("chain");
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    guard::install(environment);
}

fn raise_exception(state: &State<'_, '_>, message: &Value) -> Result<Value, Error> {
    let raised = Raised(guard::text(state, message)?);
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

/// The function `strftime_now(format)`, at the time `now`, in UTC.
pub(super) fn strftime(now: SystemTime) -> Value {
    Value::from_function(
        move |state: &State<'_, '_>, format: &Value| -> Result<String, Error> {
            let format = guard::text(state, format)?;
            let fail =
                |error| Error::new(ErrorKind::InvalidOperation, "strftime_now").with_source(error);
            let now = Timestamp::try_from(now)
                .map_err(fail)?
                .to_zoned(TimeZone::UTC);
            jiff::fmt::strtime::format(format, &now).map_err(fail)
        },
    )
}

/// The methods of Python's strings, lists and dicts.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (name, value.as_str()) {
        ("format", Some(text)) if has_large_number(text) => Err(Error::new(
            ErrorKind::InvalidOperation,
            "format: a width or precision is too large",
        )),
        // Where the library, unlike Python, takes a word to end at white space only.
        ("title", Some(text)) if arguments.is_empty() => Ok(Value::from(title(text))),
        _ => unknown_method_callback(state, value, name, arguments),
    }
}

/// Whether some number in the text has more than three digits.
fn has_large_number(text: &str) -> bool {
    text.as_bytes()
        .windows(4)
        .any(|digits| digits.iter().all(u8::is_ascii_digit))
}

/// Every letter that follows none becomes a capital, every other one small.
fn title(text: &str) -> String {
    let mut follows_letter = false;
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        if follows_letter {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
        follows_letter = character.is_alphabetic();
    }
    result
}

/// The filter `tojson`: what transformers puts in the place of Jinja's own, which escapes for HTML.
fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    // Known, and without effect: text is never reduced to ASCII.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    json::write(state, value, indent).map(Value::from)
}
