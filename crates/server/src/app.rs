//! What every request may look at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redline_engine::{Handle, Snapshot};
use redline_grammar::Grammars;
use redline_tokenizer::Tokenizer;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::embedder::Embedder;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// A model that is loaded and runs.
#[derive(Debug)]
pub struct Served {
    /// How requests call it.
    pub name: String,
    /// Its text.
    pub tokenizer: Tokenizer,
    /// What answers can be made to look like.
    pub grammars: Grammars,
    /// What it does.
    pub work: Work,
    /// Token ids there are.
    pub vocab_size: usize,
    /// Answers that run at a time.
    pub max_running: usize,
    /// Whether several tokens may be guessed and checked in one step.
    pub speculation: bool,
    /// What decides the bits of an answer beside model, prompt and parameters.
    pub fingerprint: String,
}

/// What a model does for its clients.
#[derive(Debug)]
pub enum Work {
    /// It generates.
    Generates(Handle),
    /// It makes embeddings.
    Embeds(Embedder),
}

impl Served {
    /// For those who want tokens.
    pub(crate) fn engine(&self) -> Result<&Handle, ApiError> {
        match &self.work {
            Work::Generates(engine) => Ok(engine),
            Work::Embeds(_) => {
                let message = "this model makes embeddings: ask /v1/embeddings";
                Err(ApiError::bad_request("wrong_model", message).about("model"))
            }
        }
    }

    /// For those who want embeddings.
    pub(crate) fn embedder(&self) -> Result<&Embedder, ApiError> {
        match &self.work {
            Work::Embeds(embedder) => Ok(embedder),
            Work::Generates(_) => {
                let message = "this model generates: it makes no embeddings";
                Err(ApiError::bad_request("wrong_model", message).about("model"))
            }
        }
    }

    /// Positions a sequence can have.
    pub(crate) fn context_length(&self) -> usize {
        match &self.work {
            Work::Generates(engine) => engine.context_length(),
            Work::Embeds(embedder) => embedder.context_length(),
        }
    }

    /// Numbers of the moment: all 0 for a model without an engine.
    pub(crate) fn snapshot(&self) -> Snapshot {
        match &self.work {
            Work::Generates(engine) => engine.snapshot(),
            Work::Embeds(_) => Snapshot::default(),
        }
    }
}

/// How requests are treated.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Asked of every request but those for health.
    pub api_key: Option<String>,
    /// Values of the `Host` header that are answered beside those of this machine.
    pub hosts: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct App {
    served: OnceLock<Served>,
    pub(crate) metrics: Metrics,
    /// SHA-256: what is compared has the same length whatever is sent.
    key: Option<[u8; 32]>,
    /// Besides these, `localhost` and addresses of this machine; `None`: any.
    pub(crate) hosts: Option<Vec<String>>,
    is_draining: AtomicBool,
    has_failed: AtomicBool,
    pub(crate) started: Instant,
    /// Seconds since 1970.
    pub(crate) created: u64,
}

/// Whether work can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Loading,
    Ready,
    Draining,
    Degraded,
}

impl Health {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ok",
            Self::Draining => "draining",
            Self::Degraded => "degraded",
        }
    }
}

impl App {
    /// `on_loopback`: only names of this machine are answered, so that no page of elsewhere can ask
    /// by a name that it made up.
    pub(crate) fn new(options: Options, on_loopback: bool) -> Arc<Self> {
        let hosts = options.hosts;
        Arc::new(Self {
            served: OnceLock::new(),
            metrics: Metrics::default(),
            key: options.api_key.map(|key| Sha256::digest(key).into()),
            hosts: (on_loopback || !hosts.is_empty()).then_some(hosts),
            is_draining: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            started: Instant::now(),
            created: now(),
        })
    }

    pub(crate) fn serve(&self, served: Served) {
        let _ = self.served.set(served);
    }

    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    /// The engine is gone.
    pub(crate) fn fail(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn health(&self) -> Health {
        if self.is_draining.load(Ordering::SeqCst) {
            Health::Draining
        } else if self.has_failed.load(Ordering::SeqCst) {
            Health::Degraded
        } else if self.served.get().is_some() {
            Health::Ready
        } else {
            Health::Loading
        }
    }

    /// The model, whether or not it takes work.
    pub(crate) fn loaded(&self) -> Option<&Served> {
        self.served.get()
    }

    /// The model for new work.
    pub(crate) fn served(&self) -> Result<&Served, ApiError> {
        match self.health() {
            Health::Ready => {}
            Health::Loading => {
                return Err(ApiError::unavailable("loading", "the model is loading"));
            }
            Health::Draining => {
                return Err(ApiError::unavailable(
                    "draining",
                    "shutting down: nothing new is taken",
                ));
            }
            Health::Degraded => {
                return Err(ApiError::unavailable("degraded", "the engine has stopped"));
            }
        }
        (self.served.get()).ok_or_else(|| ApiError::unavailable("loading", "the model is loading"))
    }

    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether `key` is the one asked for.
    pub(crate) fn is_key(&self, key: &[u8]) -> bool {
        let Some(expected) = &self.key else {
            return true;
        };
        let found: [u8; 32] = Sha256::digest(key).into();
        found.ct_eq(expected).into()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
