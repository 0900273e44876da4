//! From a source to a grammar, within limits.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use llguidance::ParserFactory;
use redline_engine::{Grammar, GrammarError};
use redline_tokenizer::Tokenizer;

use crate::cache::Cache;
use crate::error::reason;
use crate::matcher::Compiled;
use crate::{Error, Source, vocabulary};

/// How long a source may take.
const TIME_LIMIT: Duration = Duration::from_millis(800);
/// Sources that may be under way at a time, with those whose time is over.
const MAX_UNDER_WAY: usize = 2;
/// What a source may need of a stack: it is a tree, and some of the work goes down it.
const STACK_BYTES: usize = 256 << 20;

/// Compiles grammars for one vocabulary.
pub struct Grammars {
    /// Made when it is asked for first: few models are.
    factory: OnceLock<Result<Arc<ParserFactory>, Error>>,
    cache: Mutex<Cache>,
    under_way: Arc<AtomicUsize>,
    time_limit: Duration,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars")
            .field("under_way", &self.under_way)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

impl Default for Grammars {
    fn default() -> Self {
        Self {
            factory: OnceLock::new(),
            cache: Mutex::default(),
            under_way: Arc::default(),
            time_limit: TIME_LIMIT,
        }
    }
}

impl Grammars {
    /// The grammar of `source` for the vocabulary of `tokenizer`, always the same one. It computes: not
    /// for a thread that others wait for. The first call takes longer, as it sorts the vocabulary.
    ///
    /// # Errors
    /// If the source breaks a limit or is none, or too many others are under way.
    pub fn compile(
        &self,
        tokenizer: &Tokenizer,
        source: &Source,
    ) -> Result<Arc<dyn Grammar>, Error> {
        source.check()?;
        if let Some(known) = self.cache().get(source) {
            return Ok(known);
        }
        let factory = self
            .factory
            .get_or_init(|| vocabulary::factory(tokenizer).map(Arc::new));
        let grammar = Arc::new(self.compile_in_time(factory.clone()?, source.clone())?);
        self.cache().put(source.clone(), Arc::clone(&grammar));
        Ok(grammar)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing can end a thread: one whose time is over goes on unheard, and counts until it ends.
    fn compile_in_time(
        &self,
        factory: Arc<ParserFactory>,
        source: Source,
    ) -> Result<Compiled, Error> {
        let place = Place::take(&self.under_way).ok_or(Error::Busy)?;
        let (answer, answered) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("redline-grammar".to_owned())
            .stack_size(STACK_BYTES);
        let work = move || {
            let compiled = source.grammar().and_then(|grammar| {
                let parser = factory.create_parser(grammar);
                let parser = parser.map_err(|error| Error::Invalid(reason(error)))?;
                Compiled::new(parser).map_err(|GrammarError(reason)| Error::Invalid(reason))
            });
            drop(place);
            // Nobody may wait any more.
            let _ = answer.send(compiled);
        };
        let unavailable = |error| Error::Unavailable(reason(error));
        thread.spawn(work).map_err(unavailable)?;
        match answered.recv_timeout(self.time_limit) {
            Ok(compiled) => compiled,
            Err(RecvTimeoutError::Timeout) => Err(Error::TooLong(self.time_limit)),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::Invalid("it could not be compiled".to_owned()))
            }
        }
    }
}

/// One of the places for what is under way; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(under_way: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(under_way));
        // Without a place the drop takes back what was added here.
        let before = under_way.fetch_add(1, Ordering::AcqRel);
        (before < MAX_UNDER_WAY).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
