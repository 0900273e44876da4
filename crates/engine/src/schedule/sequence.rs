//! What the scheduler knows of a sequence.

use std::time::Duration;

use redline_model::{LogitRows, TokenId};

use crate::pages::Table;

/// Number of a sequence, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// How much a request matters beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// As others.
    #[default]
    Normal,
    /// After all others.
    Low,
}

impl Priority {
    /// How much later than it came it is taken to have come. So whatever waits gets its turn.
    const fn handicap(self) -> Duration {
        match self {
            Self::High => Duration::ZERO,
            Self::Normal => Duration::from_secs(2),
            Self::Low => Duration::from_secs(10),
        }
    }
}

/// What a sequence brings.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSequence {
    /// At least one token.
    pub prompt: Vec<TokenId>,
    /// Tokens generated at most, at least one.
    pub max_tokens: usize,
    /// How much it matters.
    pub priority: Priority,
    /// When it ends, whatever is missing.
    pub deadline: Option<Duration>,
    /// Whether the logits of all prompt tokens are wanted.
    pub prompt_logits: bool,
    /// A sequence with the same prompt: this one begins when that prompt is computed, with its pages.
    pub sibling: Option<SequenceId>,
}

/// Who goes before whom, the least first: nobody's place changes while they wait.
pub(super) type Rank = (Duration, SequenceId);

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) rank: Rank,
    pub(super) deadline: Option<Duration>,
    /// Prompt, then what was generated, then drafts that the step under way checks.
    pub(super) tokens: Vec<TokenId>,
    pub(super) prompt_tokens: usize,
    /// Tokens at the end that are guesses.
    pub(super) drafts: usize,
    /// Tokens whose keys and values are in the pages.
    pub(super) computed: usize,
    /// Prompt tokens that were in the pages when it first began; `None` before.
    pub(super) cached: Option<usize>,
    /// Tokens in all, at most.
    pub(super) limit: usize,
    pub(super) prompt_logits: bool,
    pub(super) sibling: Option<SequenceId>,
    pub(super) table: Table,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, new: NewSequence, now: Duration) -> Self {
        let prompt_tokens = new.prompt.len();
        Self {
            rank: (now + new.priority.handicap(), id),
            deadline: new.deadline,
            tokens: new.prompt,
            prompt_tokens,
            drafts: 0,
            computed: 0,
            cached: None,
            limit: prompt_tokens + new.max_tokens,
            prompt_logits: new.prompt_logits,
            sibling: new.sibling,
            table: Table::default(),
        }
    }

    /// Tokens that are no guesses.
    pub(super) fn known(&self) -> usize {
        self.tokens.len() - self.drafts
    }

    /// Known tokens that are not computed, at least one.
    pub(super) fn missing(&self) -> usize {
        self.known() - self.computed
    }

    /// Whether it only needs its last token computed to go on.
    pub(super) fn decodes(&self) -> bool {
        self.missing() == 1 && self.known() > self.prompt_tokens
    }

    /// Forgets its guesses.
    pub(super) fn drop_drafts(&mut self) {
        self.tokens.truncate(self.known());
        self.drafts = 0;
    }

    /// Which rows of the next `count` tokens get logits.
    pub(super) fn rows(&self, count: usize) -> LogitRows {
        let end = self.computed + count;
        if self.drafts > 0 || (self.prompt_logits && self.computed < self.prompt_tokens) {
            LogitRows::All
        } else if end == self.known() {
            LogitRows::Last
        } else {
            LogitRows::None
        }
    }
}
