//! What an answer must look like, as far as the engine needs to know.

use redline_model::TokenId;

/// A rule for token sequences; the edge makes it of a JSON schema, say.
pub trait Grammar: std::fmt::Debug + Send + Sync {
    /// Something that follows one answer.
    ///
    /// # Errors
    /// If the rule cannot be followed.
    fn matcher(&self) -> Result<Box<dyn Matcher>, GrammarError>;
}

/// Follows one answer.
pub trait Matcher: std::fmt::Debug + Send {
    /// Sets the tokens that may come next. An empty set with [`Self::is_whole`] ends the answer.
    ///
    /// # Errors
    /// If that takes too long, or the rule cannot be followed.
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<(), GrammarError>;

    /// Goes on by one of the tokens allowed.
    ///
    /// # Errors
    /// If it is none of those.
    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError>;

    /// Whether nothing can follow.
    fn is_whole(&mut self) -> bool;
}

/// Why a grammar is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("grammar: {0}")]
pub struct GrammarError(pub String);

/// A set of token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
    vocab: usize,
}

impl TokenSet {
    /// An empty set of ids below `vocab`.
    #[must_use]
    pub fn new(vocab: usize) -> Self {
        Self {
            words: vec![0; vocab.div_ceil(32)],
            vocab,
        }
    }

    /// Replaces the set: bit `id % 32` of word `id / 32`. What goes beyond the vocabulary is left out.
    pub fn set_words(&mut self, words: &[u32]) {
        let count = self.words.len().min(words.len());
        self.words[..count].copy_from_slice(&words[..count]);
        self.words[count..].fill(0);
        if let Some(last) = self
            .words
            .last_mut()
            .filter(|_| !self.vocab.is_multiple_of(32))
        {
            *last &= (1 << (self.vocab % 32)) - 1;
        }
    }

    /// Adds an id.
    ///
    /// # Panics
    /// If it is not below `vocab`.
    pub fn insert(&mut self, id: TokenId) {
        assert!((id.0 as usize) < self.vocab, "{id:?} of {}", self.vocab);
        self.words[id.0 as usize / 32] |= 1 << (id.0 % 32);
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Whether an id is in it.
    #[must_use]
    pub fn contains(&self, id: usize) -> bool {
        (self.words.get(id / 32)).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_beyond_its_vocabulary() {
        let mut set = TokenSet::new(40);
        assert!(set.is_empty());
        set.insert(TokenId(39));
        assert!(set.contains(39) && !set.contains(38) && !set.contains(40));
        set.set_words(&[1, u32::MAX, u32::MAX]);
        assert!(set.contains(0) && !set.contains(1) && set.contains(39));
        assert!(!set.contains(40) && !set.contains(64));
        set.set_words(&[]);
        assert!(set.is_empty());
    }
}
