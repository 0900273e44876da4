//! Weights where the file put them: memory mapping, and shared slices of it.
#![allow(
    unsafe_code,
    reason = "mmap, mincore, mlock: one of the three homes of unsafe"
)]

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

    /// How many of the bytes are in memory, so that reading them waits for no disk: those of a file in the
    /// system's cache, whether or not this process has read them.
    ///
    /// Of a file that this user neither owns nor may write, Linux says that all are (mincore(2)).
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the system does not tell.
    pub fn resident_bytes(&self) -> io::Result<usize> {
        resident(self)
    }

    /// Keeps the bytes in memory, all of them, for as long as the mapping lives; those that are not
    /// there yet are read.
    ///
    /// # Errors
    /// If the process may not lock so much (RLIMIT_MEMLOCK), or they cannot be read;
    /// [`io::ErrorKind::Unsupported`] where the system cannot do it.
    pub fn lock(&self) -> io::Result<()> {
        lock(self)
    }
}

/// Asks for so many pages at a time.
#[cfg(target_os = "linux")]
const PAGES_ASKED: usize = 4096;

#[cfg(target_os = "linux")]
fn resident(bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: asks for a constant of the system.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
        .map_err(|_| io::ErrorKind::Unsupported)?;
    let mut is_resident = [0; PAGES_ASKED];
    let before = bytes.as_ptr().addr() % page;
    // Offsets from the start of the first byte's page.
    let (range, mut start, mut resident) = (before..before + bytes.len(), 0, 0);
    while start < range.end && !bytes.is_empty() {
        let len = (range.end - start).min(PAGES_ASKED * page);
        let address = bytes.as_ptr().wrapping_sub(before).wrapping_add(start);
        // SAFETY: the call reads none of the memory it is asked about, which is mapped while `bytes`
        // lives, and writes a byte for each of its pages, of which there are as many at most.
        let done =
            unsafe { libc::mincore(address.cast_mut().cast(), len, is_resident.as_mut_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        for (index, flags) in is_resident[..len.div_ceil(page)].iter().enumerate() {
            let of_page = start + index * page..start + (index + 1) * page;
            if flags & 1 == 1 {
                resident += range.end.min(of_page.end) - range.start.max(of_page.start);
            }
        }
        start += len;
    }
    Ok(resident)
}

#[cfg(not(target_os = "linux"))]
fn resident(_: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn lock(bytes: &[u8]) -> io::Result<()> {
    // SAFETY: changes no memory, and that of `bytes` is this process's.
    match unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(unix))]
fn lock(_: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping[self.range.clone()]
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
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
    /// Kilobytes that are locked in memory (proc_pid_status(5)).
    fn locked() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse().unwrap()
    }

    #[test]
    fn bytes_nobody_has_read_are_not_in_memory() {
        let bytes = 40 << 20;
        let file = tempfile::NamedTempFile::new().unwrap();
        // A hole: the system has nothing of it in memory until somebody looks.
        file.as_file().set_len(bytes as u64).unwrap();
        let mapping = Arc::new(Mapping::open(file.path()).unwrap());
        let part = |range| WeightBytes::new(Arc::clone(&mapping), range);
        assert_eq!(part(0..bytes).resident_bytes().unwrap(), 0);
        mapping.page_in(20 << 20..30 << 20).unwrap();
        let resident = part(0..bytes).resident_bytes().unwrap();
        assert!(resident >= 10 << 20 && resident < bytes, "{resident}");
        // To the byte, where neither end is that of a page.
        let odd = (20 << 20) + 5000..(30 << 20) - 1;
        assert_eq!(part(odd.clone()).resident_bytes().unwrap(), odd.len());
        assert_eq!(part(7..7).resident_bytes().unwrap(), 0);
        let owned = WeightBytes::owned(vec![1; 100_001]);
        assert_eq!(owned.resident_bytes().unwrap(), 100_001);
    }

    #[test]
    fn bytes_that_are_locked_are_in_memory_until_they_are_unmapped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Within what every process may lock.
        file.as_file().set_len(40_000).unwrap();
        let mapping = Arc::new(Mapping::open(file.path()).unwrap());
        let bytes = WeightBytes::new(mapping, 5000..35_000);
        bytes.lock().unwrap();
        assert_eq!(bytes.resident_bytes().unwrap(), 30_000);
        assert!(locked() >= 30_000 >> 10, "{} kB", locked());
        drop(bytes);
        assert_eq!(locked(), 0);
    }
}
