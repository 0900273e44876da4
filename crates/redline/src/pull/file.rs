//! A file on its way into the cache: written beside its place as `.part`, moved there when whole.

use std::fs::{File, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// What is known of the file a `.part` is the beginning of. Bytes may only be added to it while
/// nothing here has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Where it comes from.
    pub(super) url: String,
    /// The server's strong entity tag.
    pub(super) etag: Option<String>,
    /// Size of the whole file.
    pub(super) total: Option<u64>,
    /// Its SHA-256, where the server gives it.
    pub(super) sha256: Option<String>,
}

/// An unfinished file, locked for this process.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    length: u64,
}

impl PartFile {
    /// Opens or creates the `.part` of `target`.
    ///
    /// # Errors
    /// If another process is downloading it, or the folder cannot be written.
    pub(super) fn open(target: &Path) -> anyhow::Result<Self> {
        let path = with_suffix(target, ".part");
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{} is being downloaded by another process",
                    target.display()
                )
            }
            // A file system without locks: two downloads at once are then the user's to avoid.
            Err(TryLockError::Error(_)) => {}
        }
        let length = file
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        Ok(Self {
            file,
            path,
            target: target.to_owned(),
            length,
        })
    }

    /// Bytes there so far.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the bytes so far belong to.
    pub(super) fn identity(&self) -> Option<Identity> {
        let text = std::fs::read(self.note_path()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Drops what is there and starts again as `identity`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn restart(&mut self, identity: &Identity) -> anyhow::Result<()> {
        let note = serde_json::to_vec(identity)?;
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| std::fs::write(self.note_path(), note))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.length = 0;
        Ok(())
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub(super) fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| {
            format!(
                "cannot write {} after {} bytes",
                self.path.display(),
                self.length
            )
        })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Moves the whole file into its place.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(super) fn finish(self) -> anyhow::Result<PathBuf> {
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.target))
            .with_context(|| format!("cannot move {} into place", self.path.display()))?;
        let _ = std::fs::remove_file(self.note_path());
        Ok(self.target)
    }

    /// Removes what was found to be wrong.
    pub(super) fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.note_path());
    }

    fn note_path(&self) -> PathBuf {
        with_suffix(&self.path, ".json")
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
