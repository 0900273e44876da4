//! What is asked for: bodies to requests of the engine.

mod chat;
mod common;
mod completions;
mod embeddings;
mod fields;
mod prompts;
mod structured;

use std::sync::Arc;

use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use redline_engine::Request;
use redline_model::TokenId;
use serde_json::Value;

use crate::app::{App, Served};
use crate::error::ApiError;
use crate::job::Job;
use crate::voice::Answers;
use crate::{answer, guard, stream};
use common::Common;
pub(crate) use embeddings::embeddings;
use fields::Fields;

/// In which of its forms an answer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/chat/completions`: messages.
    Chat,
    /// `/v1/completions`: text that goes on.
    Text,
}

/// What is to be told of a prompt beside its answers.
#[derive(Debug, Default)]
pub(crate) struct AskedPrompt {
    /// Its text, if that comes first.
    pub(crate) echo: Option<String>,
    /// Its tokens, then.
    pub(crate) ids: Vec<TokenId>,
}

/// A body that was read.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) dialect: Dialect,
    /// One for each prompt.
    pub(crate) requests: Vec<Request>,
    /// One for each prompt.
    pub(crate) prompts: Vec<AskedPrompt>,
    pub(crate) choices: usize,
    pub(crate) stops: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Whether tokens come with how likely they were.
    pub(crate) has_logprobs: bool,
    /// Whether no token is to be told.
    pub(crate) prompt_only: bool,
}

impl Ask {
    fn new(
        dialect: Dialect,
        common: Common,
        requests: Vec<Request>,
        prompts: Vec<AskedPrompt>,
    ) -> Self {
        let has_logprobs = requests.iter().any(|request| request.logprobs.is_some());
        Self {
            dialect,
            has_logprobs,
            requests,
            prompts,
            choices: common.choices,
            stops: common.stops,
            seed: common.sampling.seed,
            stream: common.stream,
            include_usage: common.include_usage,
            prompt_only: false,
        }
    }
}

/// Reads the fields of a body.
type Read = fn(Fields<'_>, &Served) -> Result<Ask, ApiError>;

/// `POST /v1/chat/completions`.
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    request: HttpRequest,
) -> Result<Response, ApiError> {
    respond(app, request, chat::read).await
}

/// `POST /v1/completions`.
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    request: HttpRequest,
) -> Result<Response, ApiError> {
    respond(app, request, completions::read).await
}

async fn respond(app: Arc<App>, request: HttpRequest, read: Read) -> Result<Response, ApiError> {
    app.served()?.engine()?;
    let body = guard::body(request).await?;
    let reader = Arc::clone(&app);
    // Templates and tokenizers compute.
    let ask = tokio::task::spawn_blocking(move || {
        let served = reader.served()?;
        with_fields(&body, served, |fields| read(fields, served))
    });
    let mut ask = ask
        .await
        .map_err(|_| ApiError::internal("the request could not be read"))??;
    let requests = std::mem::take(&mut ask.requests);
    let prompt_tokens = requests.iter().map(|request| request.prompt.len()).sum();
    let starts: Vec<_> = (requests.iter())
        .map(|request| {
            app.served()
                .map(|served| Answers::listen(&ask, request, served))
        })
        .collect::<Result<_, _>>()?;
    let job = Job::submit(&app, requests).await?;
    let answers = Answers::new(app, job, ask, starts, prompt_tokens);
    match answers.streams() {
        true => Ok(stream::response(answers)),
        false => answer::response(answers).await,
    }
}

/// Reads a body for the model it names.
fn with_fields<T>(
    body: &[u8],
    served: &Served,
    read: impl FnOnce(Fields<'_>) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request("invalid_json", format!("no JSON: {error}")))?;
    let Value::Object(map) = &value else {
        let message = "the body is not a JSON object";
        return Err(ApiError::bad_request("invalid_json", message));
    };
    let mut fields = Fields::new(map);
    let model = fields.text("model");
    if let Some(model) = model.filter(|model| *model != served.name) {
        return Err(unknown_model(model, served));
    }
    read(fields)
}

fn unknown_model(model: &str, served: &Served) -> ApiError {
    let named: String = model.chars().take(100).collect();
    let message = format!("no model {named:?}: this is {:?}", served.name);
    let status = axum::http::StatusCode::NOT_FOUND;
    ApiError::new(status, "model_not_found", message).about("model")
}
