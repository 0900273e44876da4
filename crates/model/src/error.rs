//! Everything that can go wrong between a file and its logits.

use std::path::PathBuf;

use redline_compute::Format;

/// Why a model could not be opened, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Weights that should be in a file could not be read.
    #[error("tensor {name}: cannot be read: {source}")]
    Read {
        /// The tensor.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A split file is not where its siblings are.
    #[error("{missing}: split {index} of {count} is missing", missing = missing.display())]
    MissingSplit {
        /// The file that is not there.
        missing: PathBuf,
        /// Its number, from 1.
        index: usize,
        /// How many there should be.
        count: usize,
    },
    /// A split file's name has impossible numbers.
    #[error("{path}: split {index} of {count} is no split: expected 1 <= split <= count <= 99999", path = path.display())]
    SplitName {
        /// The file.
        path: PathBuf,
        /// The first number of its name.
        index: usize,
        /// The second number of its name.
        count: usize,
    },
    /// The file is not valid GGUF.
    #[error(transparent)]
    Gguf(#[from] redline_gguf::Error),
    /// No file of `arch/` knows this architecture.
    #[error("general.architecture: unknown architecture {found:?}, known are {known}")]
    UnknownArchitecture {
        /// The file's architecture.
        found: String,
        /// The known ones, comma separated.
        known: String,
    },
    /// A metadata value makes no sense.
    #[error("metadata {key}: expected {expected}, found {found}")]
    Metadata {
        /// The key.
        key: String,
        /// What it should have been.
        expected: String,
        /// What it was.
        found: String,
    },
    /// The model needs something that is not built yet.
    #[error("metadata {key}: {found} is not supported, only {expected}")]
    Unsupported {
        /// The key.
        key: String,
        /// What is supported.
        expected: String,
        /// What the file asks for.
        found: String,
    },
    /// A tensor the architecture needs is not in the file.
    #[error("tensor {name}: missing, expected dims {expected:?}")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// Its dims, fastest-varying first.
        expected: Vec<usize>,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {name}: expected dims {expected:?}, found {found:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Its dims by the metadata, fastest-varying first.
        expected: Vec<usize>,
        /// Its dims in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a format that cannot be used for it.
    #[error("tensor {name}: expected type {expected}, found {found}")]
    TensorType {
        /// The tensor.
        name: String,
        /// Types that can.
        expected: String,
        /// Its type.
        found: String,
    },
    /// The file has a tensor nothing would use: its model is not what its metadata says.
    #[error("tensor {name}: not part of this architecture")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
    },
    /// A folder, or a file in it, is not what a model's is.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder or the file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A folder's configuration, or a tensor that contradicts it.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: redline_huggingface::Error,
    },
    /// A file of tensors is malformed.
    #[error("{}: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// Logits were asked of a model that has none.
    #[error("general.architecture: expected a model that generates, found {found:?}, an encoder")]
    NoHead {
        /// The architecture.
        found: String,
    },
    /// A load option is out of range.
    #[error("load option {option}: expected {expected}, found {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its range.
        expected: String,
        /// Its value.
        found: usize,
    },
    /// A step breaks a limit of the model: a bug of the caller.
    #[error("step plan: {0}")]
    Plan(#[from] PlanError),
    /// The observer cancelled the step.
    #[error("cancelled")]
    Cancelled,
}

/// How a [`crate::StepPlan`] breaks the model's limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum PlanError {
    #[error("sequence {sequence} has no tokens")]
    NoTokens { sequence: usize },
    #[error(
        "sequence {sequence}: starts at position {position}, and an encoder sees sequences whole"
    )]
    Part { sequence: usize, position: usize },
    #[error("{found} sequences, at most {limit}")]
    Sequences { found: usize, limit: usize },
    #[error("{found} tokens, at most {limit}")]
    Tokens { found: usize, limit: usize },
    #[error("{found} rows of logits, at most {limit}")]
    LogitRows { found: usize, limit: usize },
    #[error("sequence {sequence}: token id {found}, vocabulary of {vocab}")]
    TokenId {
        sequence: usize,
        found: u32,
        vocab: usize,
    },
    #[error("sequence {sequence}: {found} positions, context of {context}")]
    Context {
        sequence: usize,
        found: usize,
        context: usize,
    },
    #[error("sequence {sequence}: {found} pages for {positions} positions, needs {needed}")]
    Pages {
        sequence: usize,
        found: usize,
        positions: usize,
        needed: usize,
    },
    #[error("sequence {sequence}: page {found}, cache of {pages}")]
    PageId {
        sequence: usize,
        found: u32,
        pages: usize,
    },
    #[error("sequence {sequence}: page {page} is written to twice in this step")]
    SharedPage { sequence: usize, page: u32 },
}

/// The formats of [`Format::ALL`], for messages.
pub(crate) fn known_formats() -> String {
    Format::ALL.map(Format::name).join(", ")
}
