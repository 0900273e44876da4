//! A model's file, its splits, or a folder as transformers keeps one, in memory.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redline_compute::Mapping;
use redline_gguf::Gguf;

use crate::Error;
use crate::folder::{Borrowed, Folder};

/// A mapped GGUF file with all its splits, or a folder of safetensors as if it were one.
#[derive(Debug)]
pub struct ModelFile {
    mappings: Vec<Arc<Mapping>>,
    /// Tensors of all mappings but the first, which is a GGUF file's metadata; none: all are GGUF files.
    borrowed: Vec<Borrowed>,
}

impl ModelFile {
    /// Maps `path`; if its name ends in `-00001-of-0000N.gguf` (any of the N), all siblings too. A folder
    /// is one with `config.json` and `model.safetensors`, or the index of its shards.
    ///
    /// The files must stay as they are while this value, or a model loaded from it, lives.
    ///
    /// # Errors
    /// If a file cannot be opened or a sibling is missing; if a folder holds no model that is known.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            let Folder { mappings, borrowed } = Folder::open(path)?;
            return Ok(Self { mappings, borrowed });
        }
        let mappings = match SplitName::parse(path)? {
            None => vec![map(path)?],
            Some(split) => (1..=split.count)
                .map(|index| {
                    let sibling = split.sibling(index);
                    map(&sibling).map_err(|error| match error {
                        Error::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                            Error::MissingSplit {
                                missing: sibling,
                                index,
                                count: split.count,
                            }
                        }
                        other => other,
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            mappings,
            borrowed: Vec::new(),
        })
    }

    /// Takes the bytes of a file, or of its splits in order, that are already in memory.
    #[must_use]
    pub fn from_bytes(shards: Vec<Vec<u8>>) -> Self {
        let mappings = shards
            .into_iter()
            .map(Mapping::from_bytes)
            .map(Arc::new)
            .collect();
        Self {
            mappings,
            borrowed: Vec::new(),
        }
    }

    /// Parses header, metadata and tensor directory.
    ///
    /// # Errors
    /// If the bytes are not valid GGUF.
    pub fn gguf(&self) -> Result<Gguf<'_>, Error> {
        let files = if self.is_folder() {
            &self.mappings[..1]
        } else {
            &*self.mappings
        };
        let shards: Vec<&[u8]> = files.iter().map(|mapping| &***mapping).collect();
        let borrowed = self
            .borrowed
            .iter()
            .map(|tensor| tensor.tensor(&self.mappings));
        Ok(Gguf::parse(&shards)?.with_tensors(borrowed.collect())?)
    }

    /// Whether this is a folder of safetensors.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        !self.borrowed.is_empty()
    }

    /// Bytes of all splits.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mappings
            .iter()
            .map(|mapping| mapping.len() as u64)
            .sum()
    }

    /// Brings the files into memory, telling how many bytes are there every few megabytes.
    ///
    /// # Errors
    /// If one cannot be read: the disk fails, or it has been truncated.
    pub fn page_in(&self, mut progress: impl FnMut(u64)) -> io::Result<()> {
        page_in(&self.mappings, &mut progress)
    }

    /// Brings the files into memory in a thread of its own, while something else is done; returns at
    /// once. Until that thread is through, the files must stay as they are, too.
    ///
    /// Advice to the system would not do: for `MADV_WILLNEED`, Linux reads no more than one request to
    /// the disk takes.
    pub fn read_ahead(&self) {
        let mappings = self.mappings.clone();
        let read = move || {
            // Whoever needs the bytes reads them again, and says what is wrong.
            let _ = page_in(&mappings, &mut |_| {});
        };
        // Without a thread they are read when they are wanted.
        let _ = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(read);
    }

    pub(crate) fn mapping(&self, shard: usize) -> &Arc<Mapping> {
        &self.mappings[shard]
    }
}

fn page_in(mappings: &[Arc<Mapping>], progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut bytes = 0;
    for mapping in mappings {
        for piece in pieces(0..mapping.len()) {
            bytes += piece.len() as u64;
            mapping.page_in(piece)?;
            progress(bytes);
        }
    }
    Ok(())
}

/// A range in pieces that are brought into memory by one call: small enough to tell of progress, large
/// enough to read fast.
pub(crate) fn pieces(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    const PIECE: usize = 16 << 20;
    let end = range.end;
    range
        .step_by(PIECE)
        .map(move |start| start..end.min(start + PIECE))
}

pub(crate) fn map(path: &Path) -> Result<Arc<Mapping>, Error> {
    Mapping::open(path)
        .map(Arc::new)
        .map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })
}

/// `{stem}-{index:05}-of-{count:05}.gguf`, as llama.cpp's `gguf-split` names splits.
struct SplitName<'a> {
    folder: &'a Path,
    stem: &'a str,
    count: usize,
}

impl<'a> SplitName<'a> {
    /// `None`: not the name of a split.
    fn parse(path: &'a Path) -> Result<Option<Self>, Error> {
        let parts = || {
            let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
            let (rest, count) = name.rsplit_once("-of-")?;
            let (stem, index) = rest.rsplit_once('-')?;
            Some((stem, five_digits(index)?, five_digits(count)?))
        };
        let Some((stem, index, count)) = parts() else {
            return Ok(None);
        };
        if index == 0 || index > count {
            return Err(Error::SplitName {
                path: path.to_owned(),
                index,
                count,
            });
        }
        Ok(Some(Self {
            folder: path.parent().unwrap_or(Path::new("")),
            stem,
            count,
        }))
    }

    fn sibling(&self, index: usize) -> PathBuf {
        self.folder.join(format!(
            "{}-{index:05}-of-{:05}.gguf",
            self.stem, self.count
        ))
    }
}

fn five_digits(digits: &str) -> Option<usize> {
    let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_split_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("m-00001-of-00003.gguf");
        std::fs::write(&first, b"x").unwrap();
        std::fs::write(folder.path().join("m-00003-of-00003.gguf"), b"x").unwrap();
        let error = ModelFile::open(&first).unwrap_err().to_string();
        assert!(
            error.ends_with("m-00002-of-00003.gguf: split 2 of 3 is missing"),
            "{error}"
        );
        std::fs::write(folder.path().join("m-00002-of-00003.gguf"), b"xyz").unwrap();
        let last = folder.path().join("m-00003-of-00003.gguf");
        assert_eq!(ModelFile::open(&last).unwrap().bytes(), 5);
    }

    /// Kilobytes of a file that are in this process's page table (proc_pid_smaps(5)).
    #[cfg(target_os = "linux")]
    fn resident(path: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, own) = maps.split_once(path.to_str().unwrap()).unwrap();
        let line = own.lines().find_map(|line| line.strip_prefix("Rss:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_is_read_ahead_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, vec![7; 40 << 20]).unwrap();
        let file = ModelFile::open(&path).unwrap();
        assert_eq!(resident(&path), 0);
        file.read_ahead();
        let start = std::time::Instant::now();
        while resident(&path) < 40 << 10 {
            assert!(start.elapsed().as_secs() < 60, "{} kB", resident(&path));
            std::thread::yield_now();
        }
    }

    #[test]
    fn split_names() {
        let check = |name: &str, expected: Option<(&str, usize)>| {
            let parsed = SplitName::parse(Path::new(name)).unwrap();
            assert_eq!(
                parsed.map(|split| (split.stem, split.count)),
                expected,
                "{name}"
            );
        };
        check("a-b-00002-of-00009.gguf", Some(("a-b", 9)));
        check("/x/m-00001-of-00001.gguf", Some(("m", 1)));
        check("m.gguf", None);
        check("m-1-of-2.gguf", None);
        check("m-00001-of-+0002.gguf", None);
        check("m-00001-of-00002.bin", None);
        for name in ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf"] {
            let error = SplitName::parse(Path::new(name)).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
