//! The folder of fetched models, and how a file in it earns trust: its SHA-256 is computed once and
//! noted in a sidecar of the form `sha256sum -c` reads.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::catalogue::Entry;
use crate::progress::Progress;
use crate::units;

/// The cache's folders.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache below `root`; nothing is created yet.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Fetched models.
    pub(crate) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Synthetic models.
    pub(crate) fn synth(&self) -> PathBuf {
        self.root.join("synth")
    }

    /// The path of a catalogue model, if it is here and whole.
    ///
    /// # Errors
    /// If the file is there but is not the catalogue's: a wrong size or checksum.
    pub(crate) fn find(&self, entry: &Entry) -> anyhow::Result<Option<PathBuf>> {
        let path = self.models().join(entry.file);
        let found_bytes = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if found_bytes != entry.file_bytes {
            bail!(
                "{}: expected {} bytes for {}, found {found_bytes}; delete it and pull again",
                path.display(),
                entry.file_bytes,
                entry.name
            );
        }
        if noted_checksum(&path).as_deref() != Some(entry.sha256) {
            let found = file_sha256(&path, Some(&format!("checking {}", entry.file)))?;
            check_sha256(&path, entry.sha256, &found)
                .with_context(|| format!("{} is damaged; delete it and pull again", entry.name))?;
            note_checksum(&path, &found);
        }
        Ok(Some(path))
    }
}

/// Refuses a file whose checksum is not the expected one.
///
/// # Errors
/// If `found` differs from `expected` (both lower-case hexadecimal).
pub(crate) fn check_sha256(path: &Path, expected: &str, found: &str) -> anyhow::Result<()> {
    if expected != found {
        bail!(
            "{}: expected SHA-256 {expected}, found {found}",
            path.display()
        );
    }
    Ok(())
}

/// SHA-256 of a whole file, in lower-case hexadecimal, showing progress under a label.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn file_sha256(path: &Path, label: Option<&str>) -> anyhow::Result<String> {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let total = file.metadata()?.len();
        let mut progress = label.map(|label| Progress::bytes(label, Some(total)));
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            done += count as u64;
            if let Some(progress) = &mut progress {
                progress.set(done);
            }
        }
        if let Some(progress) = progress {
            progress.clear();
        }
        Ok(units::hex(&hasher.finalize()))
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Remembers that a file's checksum was computed. A cache that cannot be written only costs the time
/// to compute it again.
pub(crate) fn note_checksum(path: &Path, sha256: &str) {
    let Some(name) = path.file_name() else { return };
    let _ = std::fs::write(sidecar(path), format!("{sha256}  {}\n", name.display()));
}

/// The checksum noted for a file, if the note is younger than the file.
pub(crate) fn noted_checksum(path: &Path) -> Option<String> {
    let note = sidecar(path);
    let modified = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|data| data.modified())
            .ok()
    };
    if modified(&note)? < modified(path)? {
        return None;
    }
    let text = std::fs::read_to_string(note).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

fn sidecar(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        name: "abc",
        about: "a test",
        file: "abc.gguf",
        file_bytes: 3,
        // FIPS 180-2, example B.1.
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        parts: &[],
    };

    fn cache_with(content: &str) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        std::fs::create_dir(cache.models()).unwrap();
        std::fs::write(cache.models().join(ENTRY.file), content).unwrap();
        (folder, cache)
    }

    #[test]
    fn a_whole_file_is_found_and_its_checksum_noted() {
        let (_folder, cache) = cache_with("abc");
        let path = cache.find(&ENTRY).unwrap().unwrap();
        assert_eq!(noted_checksum(&path).as_deref(), Some(ENTRY.sha256));
        assert_eq!(cache.find(&ENTRY).unwrap(), Some(path));
    }

    #[test]
    fn a_wrong_size_or_a_wrong_bit_is_refused() {
        let (_folder, cache) = cache_with("abcd");
        let error = cache.find(&ENTRY).unwrap_err().to_string();
        assert!(
            error.contains("expected 3 bytes") && error.contains("found 4"),
            "{error}"
        );
        let (_folder, cache) = cache_with("abd");
        let error = format!("{:#}", cache.find(&ENTRY).unwrap_err());
        assert!(error.contains("expected SHA-256 ba7816bf"), "{error}");
    }

    #[test]
    fn a_file_changed_after_its_note_is_checked_again() {
        let (_folder, cache) = cache_with("abc");
        let path = cache.find(&ENTRY).unwrap().unwrap();
        std::fs::write(&path, "abd").unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later)
            .unwrap();
        cache.find(&ENTRY).unwrap_err();
    }

    #[test]
    fn an_absent_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Cache::new(folder.path()).find(&ENTRY).unwrap(), None);
    }
}
