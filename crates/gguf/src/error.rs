//! What can be wrong with a GGUF file, or with the use made of one.

use std::fmt;

use crate::{MAX_ALIGNMENT, MAX_ARRAY_DEPTH, MAX_TENSOR_DIMS, TensorType, ValueType};

/// Where in the bytes given to the parser: the shard's index (from 0, as `split.no` counts) and the
/// byte within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index into the shards given.
    pub shard: usize,
    /// Byte within that shard.
    pub offset: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of shard {}", self.offset, self.shard)
    }
}

/// Why bytes are no GGUF file, why metadata is not what was asked for, or why a file cannot be
/// written.
///
/// Text quoted from a file is escaped and cut short.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the message of each variant says what its fields are"
)]
pub enum Error {
    #[error("no bytes to parse: expected at least one GGUF file")]
    NoShards,

    #[error("{place}: not a GGUF file: expected \"GGUF\", found \"{}\"", .found.escape_ascii())]
    Magic { place: Place, found: [u8; 4] },

    #[error("{place}: the file is big-endian (version {version}): expected little-endian")]
    BigEndian { place: Place, version: u32 },

    #[error("{place}: unsupported GGUF version: expected 2 or 3, found {found}")]
    Version { place: Place, found: u32 },

    #[error("{place}: the file ends within {what}: expected {expected} more bytes, found {found}")]
    Truncated {
        place: Place,
        what: String,
        expected: u64,
        found: usize,
    },

    #[error("{place}: {what} is {count}: expected at most {limit}, as only {left} bytes follow")]
    Count {
        place: Place,
        what: String,
        count: u64,
        limit: usize,
        left: usize,
    },

    #[error("{place}: {what} has {found} bytes: expected 1 to {limit}")]
    Length {
        place: Place,
        what: String,
        found: u64,
        limit: usize,
    },

    #[error("{place}: {what} is not UTF-8")]
    Utf8 { place: Place, what: String },

    #[error("{place}: {what} is {found}: expected a value type, 0 to 12")]
    UnknownValueType {
        place: Place,
        what: String,
        found: u32,
    },

    #[error("{place}: {what} is {found}: expected 0 or 1, as it is a boolean")]
    Boolean {
        place: Place,
        what: String,
        found: u8,
    },

    #[error("{place}: {what} nests deeper than {MAX_ARRAY_DEPTH} arrays")]
    ArrayDepth { place: Place, what: String },

    #[error("{what}, {text}, has {found} bytes: expected 1 to {limit}")]
    NameToWrite {
        what: &'static str,
        text: String,
        found: usize,
        limit: usize,
    },

    #[error("an array to write nests deeper than {MAX_ARRAY_DEPTH} arrays")]
    ArrayDepthToWrite,

    #[error("shard {shard}: metadata key {key} appears twice")]
    DuplicateKey { shard: usize, key: String },

    #[error(
        "shard {shard}: general.alignment is {found}: \
         expected a power of two from 8 to {MAX_ALIGNMENT}"
    )]
    Alignment { shard: usize, found: u64 },

    #[error("tensor {tensor} has {found} dimensions: expected 1 to {MAX_TENSOR_DIMS}")]
    DimensionCount { tensor: String, found: usize },

    #[error("tensor {tensor} has dimensions {dims:?}: expected none to be zero")]
    ZeroDimension { tensor: String, dims: Vec<usize> },

    #[error("tensor {tensor} has type {id}: expected a tensor type GGUF defines")]
    UnknownTensorType { tensor: String, id: u32 },

    #[error(
        "unknown tensor type {found:?}: expected one of {}",
        NamesOfTensorTypes
    )]
    UnknownTensorTypeName { found: String },

    #[error(
        "tensor {tensor} has rows of {cols} weights: expected a multiple of {}, \
         the block of {tensor_type}", .tensor_type.block_weights()
    )]
    PartialBlock {
        tensor: String,
        tensor_type: TensorType,
        cols: usize,
    },

    #[error(
        "tensor {tensor} of dimensions {dims:?} and type {tensor_type} is too large to address"
    )]
    TensorSize {
        tensor: String,
        tensor_type: TensorType,
        dims: Vec<usize>,
    },

    #[error("tensor {tensor} starts at {offset} in the data: expected a multiple of {alignment}")]
    TensorAlignment {
        tensor: String,
        offset: u64,
        alignment: usize,
    },

    #[error(
        "tensor {tensor} needs {bytes} bytes at {offset} in the data of shard {shard}: \
         expected at most {available} bytes of data"
    )]
    TensorBounds {
        tensor: String,
        shard: usize,
        offset: usize,
        bytes: usize,
        available: usize,
    },

    #[error("tensors {first} and {second} overlap in shard {shard}")]
    TensorOverlap {
        shard: usize,
        first: String,
        second: String,
    },

    #[error("tensor {tensor} appears twice, in shards {first} and {second}")]
    DuplicateTensor {
        tensor: String,
        first: usize,
        second: usize,
    },

    #[error("tensor {tensor}: its shape takes {expected} bytes, found {found}")]
    TensorBytes {
        tensor: String,
        expected: usize,
        found: usize,
    },

    #[error("shard {shard}: {key} is {found}: expected {expected}")]
    Split {
        shard: usize,
        key: &'static str,
        expected: u64,
        found: String,
    },

    #[error("metadata has no {key}: expected {expected}")]
    MissingKey { key: String, expected: &'static str },

    #[error("metadata {key} is of type {found}: expected {expected}")]
    WrongType {
        key: String,
        expected: &'static str,
        found: ValueType,
    },

    #[error("metadata {key} is an array of {found}: expected {expected}")]
    WrongElementType {
        key: String,
        expected: &'static str,
        found: ValueType,
    },

    #[error("metadata {key} holds {found}: expected a number in the range of {expected}")]
    IntegerRange {
        key: String,
        expected: &'static str,
        found: i128,
    },

    #[error(
        "{given} bytes written to tensor {tensor}: expected at most {expected}, all it still lacks"
    )]
    TooManyBytes {
        tensor: String,
        expected: usize,
        given: usize,
    },

    #[error("{given} bytes written after the last tensor: expected none")]
    NoTensorLeft { given: usize },

    #[error("the file was finished early: tensor {tensor} still lacks {lacks} bytes")]
    TooFewBytes { tensor: String, lacks: usize },

    #[error("cannot write the {what}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
}

/// The names of all tensor types, separated by commas.
struct NamesOfTensorTypes;

impl fmt::Display for NamesOfTensorTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, tensor_type) in TensorType::ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{tensor_type}")?;
        }
        Ok(())
    }
}

/// Text from a file as an error quotes it: escaped, and cut to a length that suits a terminal.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}…", text.get(..cut).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
