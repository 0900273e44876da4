//! Why a model cannot be taken.

/// What is wrong with a configuration, or with a tensor beside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the message of each variant says what its fields are"
)]
pub enum Error {
    #[error("config.json: {0}")]
    Json(#[from] serde_json::Error),

    #[error("config.json: unknown model_type {found:?}: expected one of {known}")]
    ModelType { found: String, known: String },

    #[error("config.json: {key} is {found}: expected {expected}")]
    Value {
        key: &'static str,
        expected: String,
        found: String,
    },

    #[error("tensor {name:?} is no part of {architecture:?}")]
    Tensor {
        name: String,
        architecture: &'static str,
    },

    #[error("tensor {name:?} has {found} bytes: expected {expected}")]
    Size {
        name: String,
        expected: String,
        found: usize,
    },

    #[error(transparent)]
    Gguf(#[from] redline_gguf::Error),
}
