//! Which tokens of which sequences run next: a state machine, without tensors, clocks or threads.
//!
//! One rule: the count of computed tokens of every sequence catches up with its count of tokens.
//! [`Scheduler::plan`] says what the next step computes, [`Scheduler::commit`] what came of it.

mod pace;
mod planning;
mod sequence;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redline_model::{LogitRows, MAX_SEQUENCES, PAGE_POSITIONS, SequenceStep, TokenId};

pub use sequence::{NewSequence, Priority, SequenceId};

use crate::pages::{PageCopy, Pages};
use pace::Pace;
use sequence::{Rank, Sequence};

/// What a scheduler may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Positions of a sequence.
    pub context: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Tokens of a step.
    pub step_tokens: usize,
    /// Rows of logits of a step.
    pub logit_rows: usize,
    /// Positions behind which no layer looks, if there is such a distance.
    pub window: Option<usize>,
    /// Sequences that run at a time.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// What the prompt tokens of a step may add to its time while others decode.
    pub decode_delay: Duration,
    /// What the prompt tokens of any step may take.
    pub step_time: Duration,
    /// Whether prefixes are kept for later sequences.
    pub prefix_cache: bool,
}

/// What a step computes of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The sequence.
    pub id: SequenceId,
    /// Position of the first token.
    pub position: usize,
    /// Tokens.
    pub count: usize,
    /// Rows that get logits.
    pub logits: LogitRows,
    /// Whether these are prompt tokens, or others computed before.
    pub prompt: bool,
}

/// A planned part, as who draws from its logits sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'s> {
    /// Position of its first token.
    pub position: usize,
    /// Tokens of the sequence's prompt.
    pub prompt_tokens: usize,
    /// Tokens of the sequence that are no guesses.
    pub known: usize,
    /// Guesses of those that follow.
    pub drafts: &'s [TokenId],
    /// Whether the token after the known ones is to be drawn.
    pub draws: bool,
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done first, in this order.
    pub copies: Vec<PageCopy>,
    /// What is computed then; empty if nothing can be.
    pub sequences: Vec<Planned>,
    /// Sequences whose time is over: they are gone.
    pub expired: Vec<SequenceId>,
    /// Sequences that had to give their pages to others, and wait again.
    pub preempted: Vec<SequenceId>,
}

impl Plan {
    /// Whether it computes something of a sequence.
    #[must_use]
    pub fn computes(&self, id: SequenceId) -> bool {
        self.sequences.iter().any(|planned| planned.id == id)
    }
}

/// There are too many already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// Numbers of the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sequences that have pages.
    pub running: usize,
    /// Sequences that have none.
    pub waiting: usize,
    /// Tokens of sequences that are not computed yet, running or waiting.
    pub missing_tokens: usize,
    /// Pages in all.
    pub pages: usize,
    /// Pages that running sequences have.
    pub pages_in_use: usize,
    /// Pages kept for prefixes, in use or not.
    pub pages_cached: usize,
}

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pages: Pages,
    sequences: BTreeMap<SequenceId, Sequence>,
    waiting: BTreeSet<Rank>,
    running: BTreeSet<Rank>,
    pace: Pace,
    /// What else adds to the next step's time.
    spent: Duration,
    next_id: u64,
}

impl Scheduler {
    /// Nothing to do yet.
    ///
    /// # Panics
    /// If a limit is 0 that must not be.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        assert!(
            limits.step_tokens > 0 && limits.logit_rows > 0 && limits.pages > 0,
            "a step computes something: {limits:?}"
        );
        let most = limits.step_tokens.min(limits.logit_rows);
        let limits = Limits {
            running: limits.running.clamp(1, most.min(MAX_SEQUENCES)),
            context: limits.context.min(limits.pages * PAGE_POSITIONS),
            ..limits
        };
        Self {
            limits,
            pages: Pages::new(limits.pages, limits.prefix_cache),
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            pace: Pace::default(),
            spent: Duration::ZERO,
            next_id: 0,
        }
    }

    /// What it may do, with nothing beyond what it can.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Numbers of the moment.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            missing_tokens: self.sequences.values().map(Sequence::missing).sum(),
            pages: self.limits.pages,
            pages_in_use: self.pages.in_use(),
            pages_cached: self.pages.cached(),
        }
    }

    /// Whether so many more sequences may wait.
    #[must_use]
    pub fn has_room(&self, sequences: usize) -> bool {
        self.waiting.len() + sequences <= self.limits.waiting
    }

    /// Takes a sequence in.
    ///
    /// # Errors
    /// If too many wait.
    ///
    /// # Panics
    /// If the sequence has no tokens, or does not fit into the context.
    pub fn submit(&mut self, new: NewSequence, now: Duration) -> Result<SequenceId, QueueFull> {
        assert!(
            !new.prompt.is_empty()
                && new.max_tokens > 0
                && new.prompt.len() + new.max_tokens <= self.limits.context,
            "a sequence is checked where it comes in"
        );
        if !self.has_room(1) {
            return Err(QueueFull);
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let sequence = Sequence::new(id, new, now);
        self.waiting.insert(sequence.rank);
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    /// The tokens of a sequence that only lacks its last token; `None` of any other.
    #[must_use]
    pub fn decoding(&self, id: SequenceId) -> Option<&[TokenId]> {
        let sequence = self.sequences.get(&id)?;
        (sequence.decodes() && sequence.drafts == 0).then_some(&sequence.tokens)
    }

    /// What the model is to compute of a sequence.
    ///
    /// # Panics
    /// If it is gone, or was not planned.
    #[must_use]
    pub fn step_of(&self, planned: &Planned) -> SequenceStep<'_> {
        let sequence = &self.sequences[&planned.id];
        SequenceStep {
            tokens: &sequence.tokens[planned.position..][..planned.count],
            position: planned.position,
            pages: sequence.table.pages(),
            logits: planned.logits,
        }
    }

    /// How the rows that the model gives for a planned part are to be read.
    ///
    /// # Panics
    /// If the sequence is gone.
    #[must_use]
    pub fn part_of(&self, planned: &Planned) -> Part<'_> {
        let sequence = &self.sequences[&planned.id];
        let (known, end) = (sequence.known(), planned.position + planned.count);
        Part {
            position: planned.position,
            prompt_tokens: sequence.prompt_tokens,
            known,
            drafts: &sequence.tokens[known..],
            draws: end >= known,
        }
    }

    /// Prompt tokens that a sequence did not compute because they were there.
    #[must_use]
    pub fn cached_tokens(&self, id: SequenceId) -> usize {
        (self.sequences.get(&id)).map_or(0, |sequence| sequence.cached.unwrap_or(0))
    }

    /// Gives a sequence that decodes guesses of its next tokens, for the next step to check; no more
    /// of them than it may still generate. One that does not decode gets none.
    pub fn draft(&mut self, id: SequenceId, drafts: &[TokenId]) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        let is_running = self.running.contains(&sequence.rank);
        if is_running && sequence.decodes() && sequence.drafts == 0 {
            // One token is drawn after those that are right.
            let room = sequence.limit - sequence.tokens.len() - 1;
            let drafts = &drafts[..drafts.len().min(room)];
            sequence.tokens.extend_from_slice(drafts);
            sequence.drafts = drafts.len();
        }
    }

    /// Removes a sequence, in whatever state it is. Its pages are free, what they hold is kept while
    /// there is room.
    pub fn remove(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.waiting.remove(&sequence.rank);
            self.running.remove(&sequence.rank);
            let computed = &sequence.tokens[..sequence.computed];
            self.pages
                .give_back(std::mem::take(&mut sequence.table), computed);
        }
    }

    /// Forgets every prefix nobody uses.
    pub fn forget_prefixes(&mut self) {
        self.pages.clear();
    }

    /// Takes note of what came of one sequence's part of a step: the tokens drawn, in order, which
    /// are those of its drafts that were right and one more; none if no row of it got logits.
    pub fn commit(&mut self, planned: &Planned, drawn: &[TokenId]) {
        let Some(sequence) = self.sequences.get_mut(&planned.id) else {
            return;
        };
        let wrong = (sequence.drafts + 1).saturating_sub(drawn.len().max(1));
        sequence.drop_drafts();
        sequence.tokens.extend_from_slice(drawn);
        sequence.computed = planned.position + planned.count - wrong;
        let computed = &sequence.tokens[..sequence.computed];
        self.pages.share(&mut sequence.table, computed);
        if let Some(window) = self.limits.window {
            let next = sequence.computed + 1;
            self.pages
                .drop_before(&mut sequence.table, next.saturating_sub(window));
        }
    }

    /// Takes note of how long a step took.
    pub fn commit_time(&mut self, plan: &Plan, took: Duration) {
        let (prompts, others): (Vec<_>, Vec<_>) =
            plan.sequences.iter().partition(|planned| planned.prompt);
        let tokens = prompts.iter().map(|planned: &&Planned| planned.count).sum();
        self.pace.observe(tokens, others.len(), took);
    }

    /// Takes note of time that others who decode wait already: the prompts of the next step get less.
    pub fn spend(&mut self, time: Duration) {
        self.spent += time;
    }

    /// A step was broken off: its sequences are where they were before.
    pub fn abandon(&mut self, plan: &Plan) {
        for planned in &plan.sequences {
            if let Some(sequence) = self.sequences.get_mut(&planned.id) {
                sequence.drop_drafts();
            }
        }
    }
}
