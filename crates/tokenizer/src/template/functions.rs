//! What a chat template finds beside Jinja's own functions.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::json;

/// The message of `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_formatter(print);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The function `strftime_now(format)`, at the time `now`, in UTC.
pub(super) fn strftime(now: SystemTime) -> Value {
    Value::from_function(move |format: String| -> Result<String, Error> {
        let fail =
            |error| Error::new(ErrorKind::InvalidOperation, "strftime_now").with_source(error);
        let now = Timestamp::try_from(now)
            .map_err(fail)?
            .to_zoned(TimeZone::UTC);
        jiff::fmt::strtime::format(format, &now).map_err(fail)
    })
}

/// Prints constants as Python does.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let constant = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    Ok(out.write_str(constant)?)
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
    let json = json::write(value, indent)?;
    state.consume_fuel(json.len() as u64)?;
    Ok(Value::from(json))
}
