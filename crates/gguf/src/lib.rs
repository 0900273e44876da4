//! GGUF: bytes to header, metadata and tensor directory, and back.
//!
//! Reading is [`Gguf::parse`] over the bytes of one file, or of all shards of a split one; usually
//! those bytes are mapped files, and everything read borrows from them. Writing is [`Writer`].
//! Versions 2 and 3, little-endian.
//!
//! ```
//! use redline_gguf::{ArrayBuf, Gguf, TensorType, Writer};
//!
//! # fn main() -> Result<(), redline_gguf::Error> {
//! let mut writer = Writer::new();
//! writer.metadata("general.architecture", "llama")?;
//! writer.metadata("tokenizer.ggml.tokens", &ArrayBuf::strings(["a", "b"]))?;
//! writer.tensor("output_norm.weight", &[2], TensorType::F32)?;
//! let mut stream = writer.start(Vec::new())?;
//! stream.write(&[0; 8])?;
//! let file = stream.finish()?;
//!
//! let gguf = Gguf::parse(&[&file])?;
//! assert_eq!(gguf.metadata().require_str("general.architecture")?, "llama");
//! assert_eq!(gguf.tensor("output_norm.weight").map(|tensor| tensor.data.len()), Some(8));
//! # Ok(())
//! # }
//! ```
//!
//! # What the reader promises about hostile files
//!
//! It returns an [`Error`], never panics, and its time is linear in the file (times a logarithm for
//! the two sorted indices). A count is compared with the bytes that remain before anything is
//! allocated for it, so that all allocations of one parse together stay under
//! [`MAX_ALLOCATION_PER_BYTE`] times the bytes given plus [`MAX_ALLOCATION_BASE`] for each shard. A
//! real model takes a few kilobytes.
//!
//! What it checks: magic, version and byte order; every length, count and value type; array depth
//! ([`MAX_ARRAY_DEPTH`]); booleans are 0 or 1; all text is UTF-8 (keys, tensor names, string values
//! and the elements of string arrays, as the format demands); keys and names are neither empty, too
//! long, nor repeated; the alignment; tensor dimensions, types, sizes, offsets, overlaps; that
//! shards belong together.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod cursor;
mod error;
mod gguf;
mod metadata;
mod shard;
mod tensor_type;
mod value;
mod writer;

pub use error::{Error, Place};
pub use gguf::{Gguf, Tensor};
pub use metadata::Metadata;
pub use tensor_type::TensorType;
pub use value::{Array, ArrayBuf, Elements, Strings, Value, ValueType};
pub use writer::{TensorStream, Writer};

/// Bytes allocated by [`Gguf::parse`] for each byte it is given, at most.
///
/// The worst are keys of one byte over values of one byte: 14 bytes in the file, 56 here.
pub const MAX_ALLOCATION_PER_BYTE: usize = 5;

/// Bytes allocated by [`Gguf::parse`] for each shard whatever its size, at most: its own record, and
/// the text of an error.
pub const MAX_ALLOCATION_BASE: usize = 8192;

/// How deep arrays may nest: an array of numbers has depth 1.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// Longest metadata key, in bytes.
pub const MAX_KEY_BYTES: usize = 65_535;

/// Longest tensor name, in bytes.
pub const MAX_TENSOR_NAME_BYTES: usize = 64;

/// Most dimensions of a tensor.
pub const MAX_TENSOR_DIMS: usize = 4;

/// Alignment of tensor data, in bytes, where the file does not say.
pub const DEFAULT_ALIGNMENT: usize = 32;

/// Largest accepted alignment of tensor data, in bytes.
pub const MAX_ALIGNMENT: usize = 1 << 20;

/// Number of a token in a model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenId(pub u32);

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
