//! Weights where the file put them: memory mapping, and shared slices of it.
#![allow(unsafe_code, reason = "mmap: one of the three homes of unsafe")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// A file mapped read-only, or bytes owned by the process.
#[derive(Debug)]
pub struct Mapping {
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Mapping {
    /// Maps a whole file.
    ///
    /// The file must not be truncated or rewritten while the mapping lives: reading a page that is
    /// gone raises SIGBUS. That is the operating contract of every memory-mapping loader.
    ///
    /// # Errors
    /// If the file cannot be opened or mapped. An empty file maps to empty bytes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self::from_bytes(Vec::new()));
        }
        // SAFETY: the mapping is private and read-only; that nobody truncates the file meanwhile is
        // the documented contract above.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Self {
            bytes: Bytes::Mapped(map),
        })
    }

    /// Wraps bytes that are already in memory.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Bytes::Owned(bytes),
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// A range of a [`Mapping`], kept alive by it.
#[derive(Debug, Clone)]
pub struct WeightBytes {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl WeightBytes {
    /// The bytes `range` of `mapping`.
    ///
    /// # Panics
    /// If the range is not within the mapping.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= mapping.len(),
            "range within the mapping"
        );
        Self { mapping, range }
    }

    /// Bytes of their own.
    #[must_use]
    pub fn owned(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self {
            mapping: Arc::new(Mapping::from_bytes(bytes)),
            range,
        }
    }
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping[self.range.clone()]
    }
}
