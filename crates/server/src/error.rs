//! What goes wrong, as clients of OpenAI's interface expect to be told.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use redline_engine::Error as EngineError;
use serde::Serialize;

/// Seconds after which it is worth asking again.
const RETRY_SECONDS: u16 = 1;

/// One field that breaks its rule. What it holds is not repeated beyond a number or a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WrongField {
    pub(crate) field: String,
    /// What was expected.
    pub(crate) constraint: String,
    /// What was found.
    pub(crate) found: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: String,
    param: Option<String>,
    fields: Vec<WrongField>,
}

/// The envelope.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [WrongField],
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            fields: Vec::new(),
        }
    }

    /// The request makes no sense.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Fields break their rules: all of them are told.
    pub(crate) fn fields(fields: Vec<WrongField>) -> Self {
        let lines: Vec<String> = (fields.iter())
            .map(|wrong| {
                format!(
                    "{}: expected {}, found {}",
                    wrong.field, wrong.constraint, wrong.found
                )
            })
            .collect();
        Self {
            param: fields.first().map(|wrong| wrong.field.clone()),
            fields,
            ..Self::bad_request("invalid_value", lines.join("; "))
        }
    }

    /// Names the field that a refusal is about.
    pub(crate) fn about(self, param: &str) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..self
        }
    }

    /// The model cannot answer now, and will later.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// Too many are there already.
    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
    }

    /// The engine is gone, or something else that should not be.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The body of the answer, or of the event that ends a stream.
    pub(crate) fn envelope(&self) -> Envelope<'_> {
        Envelope {
            error: Body {
                message: &self.message,
                kind: self.kind(),
                param: self.param.as_deref(),
                code: self.code,
                errors: &self.fields,
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::InvalidRequest(fields) => {
                Self::fields(fields.into_iter().map(Into::into).collect())
            }
            EngineError::ContextLengthExceeded { .. } => {
                Self::bad_request("context_length_exceeded", message)
            }
            EngineError::Overloaded { .. } => Self::overloaded(message),
            EngineError::Draining => Self::unavailable("draining", message),
            EngineError::Grammar(_) => Self::bad_request("invalid_grammar", message),
            _ => Self::internal(message),
        }
    }
}

impl From<redline_engine::FieldError> for WrongField {
    fn from(error: redline_engine::FieldError) -> Self {
        Self {
            field: error.field.to_owned(),
            constraint: error.constraint,
            found: error.value,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.envelope())).into_response();
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if again.contains(&self.status) {
            let seconds = HeaderValue::from(RETRY_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            (response.headers_mut()).insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_told_and_the_first_is_the_param() {
        let wrong = |field: &str| WrongField {
            field: field.to_owned(),
            constraint: "0..=1".to_owned(),
            found: "2".to_owned(),
        };
        let error = ApiError::fields(vec![wrong("top_p"), wrong("min_p")]);
        let told = serde_json::to_value(error.envelope()).unwrap();
        assert_eq!(told["error"]["param"], "top_p");
        assert_eq!(told["error"]["type"], "invalid_request_error");
        assert_eq!(told["error"]["errors"][1]["field"], "min_p");
        let message = told["error"]["message"].as_str().unwrap();
        assert_eq!(
            message,
            "top_p: expected 0..=1, found 2; min_p: expected 0..=1, found 2"
        );
    }

    #[test]
    fn who_may_come_again_is_told_when() {
        let status = |error: EngineError| {
            let response = ApiError::from(error).into_response();
            let again = response.headers().contains_key(header::RETRY_AFTER);
            (response.status().as_u16(), again)
        };
        assert_eq!(status(EngineError::Overloaded { waiting: 3 }), (429, true));
        assert_eq!(status(EngineError::Draining), (503, true));
        let long = EngineError::ContextLengthExceeded {
            prompt_tokens: 5,
            max_tokens: 4,
            context_length: 8,
        };
        assert_eq!(status(long), (400, false));
    }
}
