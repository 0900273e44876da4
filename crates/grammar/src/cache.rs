//! Grammars that were compiled before.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Source;
use crate::matcher::Compiled;

/// Grammars that are kept.
const MAX_GRAMMARS: usize = 16;

/// The grammars asked for last, the last first.
#[derive(Debug, Default)]
pub(crate) struct Cache(VecDeque<(Source, Arc<Compiled>)>);

impl Cache {
    /// The grammar of `source`, if it is there.
    pub(crate) fn get(&mut self, source: &Source) -> Option<Arc<Compiled>> {
        let at = self.0.iter().position(|(known, _)| known == source)?;
        let entry = self.0.remove(at)?;
        let grammar = Arc::clone(&entry.1);
        self.0.push_front(entry);
        Some(grammar)
    }

    /// Keeps a grammar, instead of the one that was not asked for the longest.
    pub(crate) fn put(&mut self, source: Source, grammar: Arc<Compiled>) {
        self.0.push_front((source, grammar));
        self.0.truncate(MAX_GRAMMARS);
    }
}
