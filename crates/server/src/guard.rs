//! What stands before every route: who may ask, from where, and how much.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::error::ApiError;
use crate::shape;

/// Bytes of a body.
pub(crate) const MAX_BODY_BYTES: usize = 8 << 20;
/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Routes that tell whether the process lives: a router asks them before it knows a key.
const PUBLIC: [&str; 2] = ["/health", "/livez"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_ID_BYTES: usize = 128;

/// Lets a request pass, or refuses it; names it either way.
pub(crate) async fn layer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut response = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's own name of its request, if it is one, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_name = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=MAX_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(is_name).cloned();
    given.unwrap_or_else(|| {
        let made = HeaderValue::try_from(format!("req-{}", shape::new_id()));
        made.unwrap_or(HeaderValue::from_static("req"))
    })
}

fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = text(headers, &header::HOST);
    let forbidden = |message| ApiError::new(StatusCode::FORBIDDEN, "forbidden", message);
    if let Some(names) = &app.hosts
        && !host.is_some_and(|host| is_allowed_host(host, names))
    {
        return Err(forbidden("this Host is not served: see --allow-host"));
    }
    // A page may ask only where it came from.
    if headers.contains_key(header::ORIGIN) {
        let origin = text(headers, &header::ORIGIN).and_then(|origin| origin.split_once("://"));
        if origin.map(|(_, origin)| origin) != host {
            return Err(forbidden("cross-origin requests are not served"));
        }
    }
    if app.has_key() && !PUBLIC.contains(&request.uri().path()) {
        let found = key(headers).unwrap_or_default();
        if !app.is_key(found) {
            let message = "a wrong API key, or none: expected Authorization: Bearer KEY";
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                message,
            ));
        }
    }
    if request.method() == Method::POST && !is_json(headers) {
        let message = "expected Content-Type: application/json";
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        ));
    }
    Ok(())
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// What stands for the key, if anything does.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let (scheme, key) = text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim().as_bytes())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// Whether a `Host` is an address of loopback, `localhost`, or one of `names`.
fn is_allowed_host(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback = name
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    let same =
        |known: &String| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host);
    is_loopback || name.eq_ignore_ascii_case("localhost") || names.iter().any(same)
}

/// The body, if it is not too large or too slow.
pub(crate) async fn body(request: Request) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the body has more than {MAX_BODY_BYTES} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let length = text(request.headers(), &header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let body = to_bytes(request.into_body(), MAX_BODY_BYTES);
    match tokio::time::timeout(BODY_TIME, body).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // The reader says no more than that: without a length, this is what goes wrong.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "the body did not come in time",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        let names = ["worker-1".to_owned(), "w2:8080".to_owned()];
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "127.8.0.1",
            "[::1]:8080",
            "worker-1:99",
            "w2:8080",
        ] {
            assert!(is_allowed_host(host, &names), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8080",
            "[::2]",
            "10.0.0.1",
            "w2:8081",
        ] {
            assert!(!is_allowed_host(host, &names), "{host}");
        }
    }

    #[test]
    fn a_request_keeps_its_name_if_it_is_one() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc-1"));
        assert_eq!(request_id(&headers), "abc-1");
        headers.insert(REQUEST_ID, HeaderValue::from_static("a b"));
        let made = request_id(&headers);
        assert!(made.to_str().unwrap().starts_with("req-"), "{made:?}");
        assert_ne!(request_id(&headers), made);
    }
}
