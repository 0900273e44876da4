//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use redline_model::TokenId;
use redline_tokenizer::EncodeOptions;
use serde_json::{Value, json};

use super::fields::Fields;
use super::prompts;
use crate::app::{App, Served};
use crate::error::ApiError;
use crate::guard;

/// Texts of one request.
const MAX_TEXTS: usize = 2048;

/// A body that was read.
#[derive(Debug)]
struct Asked {
    sequences: Vec<Vec<TokenId>>,
    is_base64: bool,
}

/// Answers with an embedding of each text.
pub(crate) async fn embeddings(
    State(app): State<Arc<App>>,
    request: HttpRequest,
) -> Result<Response, ApiError> {
    let embedder = app.served()?.embedder()?.clone();
    let body = guard::body(request).await?;
    let reader = Arc::clone(&app);
    let asked = tokio::task::spawn_blocking(move || {
        let served = reader.served()?;
        super::with_fields(&body, served, |fields| read(fields, served))
    });
    let asked = asked
        .await
        .map_err(|_| ApiError::internal("the request could not be read"))??;
    let tokens: usize = asked.sequences.iter().map(Vec::len).sum();
    let rows = embedder.embed(asked.sequences).await?;
    let data: Vec<Value> = (rows.iter().enumerate())
        .map(|(index, row)| {
            let embedding = match asked.is_base64 {
                true => base64(row).into(),
                false => json!(row),
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let told = json!({
        "object": "list",
        "data": data,
        "model": app.served()?.name,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    });
    Ok(Json(told).into_response())
}

fn read(mut fields: Fields<'_>, served: &Served) -> Result<Asked, ApiError> {
    let embedder = served.embedder()?;
    let format = fields.text("encoding_format").unwrap_or("float");
    if !["float", "base64"].contains(&format) {
        fields.refuse("encoding_format", "float or base64", "another".to_owned());
    }
    let dimensions = fields.count("dimensions").unwrap_or(embedder.dimensions);
    if dimensions != embedder.dimensions {
        let constraint = format!("{}, as the model has", embedder.dimensions);
        fields.refuse("dimensions", constraint, dimensions.to_string());
    }
    let given = prompts::read(&mut fields, "input", MAX_TEXTS);
    // A text is data: names of control tokens in it are text too.
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    let mut sequences = Vec::with_capacity(given.len());
    for (index, given) in given.iter().enumerate() {
        let tokens = given.encode(&served.tokenizer, options, "input")?;
        check(&mut fields, index, &tokens, served);
        sequences.push(tokens);
    }
    match fields.wrong.is_empty() {
        true => Ok(Asked {
            sequences,
            is_base64: format == "base64",
        }),
        false => Err(ApiError::fields(fields.wrong)),
    }
}

fn check(fields: &mut Fields<'_>, index: usize, tokens: &[TokenId], served: &Served) {
    let field = format!("input[{index}]");
    let context = served.context_length();
    if !(1..=context).contains(&tokens.len()) {
        let constraint = format!("1 to {context} tokens");
        fields.refuse(&field, constraint, format!("{} tokens", tokens.len()));
    }
    if let Some(id) = tokens.iter().find(|id| id.0 as usize >= served.vocab_size) {
        let constraint = format!("token ids below {}", served.vocab_size);
        fields.refuse(&field, constraint, id.to_string());
    }
}

/// Numbers as their bytes, little-endian: what clients ask for because it is shorter.
fn base64(row: &[f32]) -> String {
    let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
