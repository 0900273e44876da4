//! Weights where the file put them: memory mapping, and shared slices of it.
#![allow(unsafe_code, reason = "mmap: one of the three homes of unsafe")]

use std::fs::File;
use std::hint::black_box;
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
        // So that what is not in memory yet comes in pages of 2 MiB. Advice may be refused.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self {
            bytes: Bytes::Mapped(map),
        })
    }

    /// Brings the bytes `range` into memory and into the page table, so that reading them waits for
    /// nothing. Bytes that are there already take a fraction of a millisecond for a megabyte.
    ///
    /// # Errors
    /// If they cannot be read: the disk fails, or the file has been truncated.
    ///
    /// # Panics
    /// If the range is not within the mapping.
    pub fn page_in(&self, range: Range<usize>) -> io::Result<()> {
        let bytes = &self[range.clone()];
        let Bytes::Mapped(map) = &self.bytes else {
            return Ok(());
        };
        match populate(map, range) {
            // The system is too old to know the call.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                touch(bytes);
                Ok(())
            }
            done => done,
        }
    }

    /// Wraps bytes that are already in memory.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Bytes::Owned(bytes),
        }
    }
}

/// One call instead of a fault for every few pages (Linux 5.14).
#[cfg(target_os = "linux")]
fn populate(map: &memmap2::Mmap, range: Range<usize>) -> io::Result<()> {
    map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len())
}

#[cfg(not(target_os = "linux"))]
fn populate(_: &memmap2::Mmap, _: Range<usize>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads a byte of every page.
fn touch(bytes: &[u8]) {
    const PAGE: usize = 4096;
    black_box(bytes.iter().step_by(PAGE).fold(0, |sum, byte| sum ^ byte));
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn bytes_that_are_gone_are_an_error_and_not_a_signal() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        let mapping = Mapping::open(file.path()).unwrap();
        mapping.page_in(5000..900_000).unwrap();
        mapping.page_in(0..0).unwrap();
        assert_eq!(mapping[899_999], 7);
        let Bytes::Mapped(map) = &mapping.bytes else {
            panic!("a mapped file")
        };
        if populate(map, 0..4096).is_err() {
            return;
        }
        file.as_file().set_len(500_000).unwrap();
        mapping.page_in(0..400_000).unwrap();
        assert!(mapping.page_in(0..900_000).is_err());
    }
}
