//! Routes that tell of the server itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::{App, Health, Served};
use crate::error::ApiError;
use crate::metrics;

/// `GET /health`, `/readyz`, `/ping`: 200 if new work is taken, else 503.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let health = app.health();
    let served = app.loaded();
    let told = json!({
        "status": health.name(),
        "model": served.map(|served| served.name.as_str()),
        "context_length": served.map(|served| served.context_length()),
        "uptime_seconds": app.started.elapsed().as_secs(),
    });
    if health == Health::Ready {
        return Json(told).into_response();
    }
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(told)).into_response();
    (response.headers_mut()).insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// `GET /livez`: 200 while the process runs.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /version`.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let models: Vec<Value> = (app.loaded().into_iter())
        .map(|served| model(&app, served))
        .collect();
    Json(json!({ "object": "list", "data": models }))
}

fn model(app: &App, served: &Served) -> Value {
    json!({
        "id": served.name,
        "object": "model",
        "created": app.created,
        "owned_by": "redline",
        "root": served.name,
        "max_model_len": served.context_length(),
    })
}

/// `GET /server_info`.
pub(crate) async fn server_info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let served = loaded(&app)?;
    let pages = served.snapshot().load.pages;
    Ok(Json(json!({
        "model_path": served.name,
        "served_model_name": served.name,
        "context_length": served.context_length(),
        "max_running_requests": served.max_running,
        "max_total_tokens": pages * redline_model::PAGE_POSITIONS,
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

/// `GET /metrics`: Prometheus's text format.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let served = loaded(&app)?;
    let page = metrics::render(&app.metrics, &served.name, &served.snapshot());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

fn loaded(app: &App) -> Result<&Served, ApiError> {
    (app.loaded()).ok_or_else(|| ApiError::unavailable("loading", "the model is loading"))
}

/// What is asked for nowhere.
pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route")
}

/// A route that is there, by another method.
pub(crate) async fn wrong_method() -> ApiError {
    let message = "this route takes another method";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}
