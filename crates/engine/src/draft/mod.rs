//! Guesses of a smaller model with the same vocabulary.
//!
//! It has pages of its own, and follows sequences at some distance: what it has not read of one it
//! reads when guesses are wanted of it. A wrong guess is forgotten like any token that turns out not
//! to be there, by a length. It may always say nothing.
//!
//! Source: Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding",
//! ICML 2023. Guesses are not accepted by chance as there: a guess is right if it is what is drawn.

mod choice;
mod costs;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use redline_model::{
    Error as ModelError, Forward, LogitRows, MAX_SEQUENCES, Observer, SequenceStep, StepPlan,
    TokenId,
};

use crate::pages::{Pages, Start, Table};
use crate::schedule::SequenceId;
use crate::{Sampler, Scratch};
pub(crate) use choice::Ahead;
use choice::{Candidate, Choice, Hits};

/// Tokens that any step may read.
const LEAST_READ: usize = 16;

/// A sequence that guesses are wanted of.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) id: SequenceId,
    /// All of it, the last one not computed.
    pub(crate) tokens: &'a [TokenId],
    /// What will draw its next tokens.
    pub(crate) sampler: &'a Sampler,
    /// Nothing follows these.
    pub(crate) end_tokens: &'a [TokenId],
    /// Tokens it may still have, at least 1.
    pub(crate) remaining: usize,
}

/// A model that guesses, and what it has read.
pub(crate) struct Draft {
    forward: Box<dyn Forward + Send>,
    pages: Pages,
    followed: BTreeMap<SequenceId, Followed>,
    choice: Choice,
    scratch: Scratch,
}

/// What was read of a sequence.
#[derive(Debug, Default)]
struct Followed {
    /// Tokens whose keys and values are in the pages; guesses at the end may be wrong.
    tokens: Vec<TokenId>,
    table: Table,
    hits: Hits,
}

/// A sequence that takes part in a step.
struct Part {
    /// Number of its question.
    ask: usize,
    id: SequenceId,
    /// Its first token of the step: those from there on are among the ones read, and yet to be.
    position: usize,
    /// Whether all it has is read by the step, so that a guess comes of it.
    guesses: bool,
    /// Guesses wanted.
    depth: usize,
    made: Vec<TokenId>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("pages", &self.pages)
            .field("followed", &self.followed)
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

impl Draft {
    pub(crate) fn new(forward: Box<dyn Forward + Send>) -> Self {
        Self {
            pages: Pages::new(forward.shape().page_count, true),
            forward,
            followed: BTreeMap::new(),
            choice: Choice::default(),
            scratch: Scratch::default(),
        }
    }

    /// Pages that sequences have.
    pub(crate) fn pages_in_use(&self) -> usize {
        self.pages.in_use()
    }

    /// Forgets every prefix no sequence has.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
    }

    /// Gives back what a sequence that is over has.
    pub(crate) fn remove(&mut self, id: SequenceId) {
        if let Some(followed) = self.followed.remove(&id) {
            self.pages.give_back(followed.table, &followed.tokens);
        }
    }

    /// Takes note of what a step of the model took, and of its rows of logits if it only decoded.
    pub(crate) fn stepped(&mut self, rows: Option<usize>, took: Duration) {
        self.choice.stepped(rows, took.as_secs_f64());
    }

    /// Takes note of how many guesses for a sequence were right.
    pub(crate) fn checked(&mut self, id: SequenceId, guessed: usize, right: usize) {
        if let Some(followed) = self.followed.get_mut(&id) {
            self.choice.checked(&mut followed.hits, guessed, right);
        }
    }

    /// Guesses of the next tokens of sequences, for some of them, as many as seem to pay. Reading what
    /// it has missed may take `read_time` in all, if that is given. `now` is a clock.
    ///
    /// # Errors
    /// If the model fails, or `observer` cancels: what was read before counts.
    pub(crate) fn guess(
        &mut self,
        asks: &mut [Ask<'_>],
        ahead: Ahead,
        read_time: Option<Duration>,
        now: &dyn Fn() -> Duration,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(SequenceId, Vec<TokenId>)>, ModelError> {
        let candidates: Vec<Candidate> = asks.iter().map(|ask| self.catch_up(ask)).collect();
        let depths = self.choice.choose(ahead, &candidates);
        let mut parts = self.begin(asks, &candidates, &depths, read_time);
        let mut guesses = Vec::new();
        let mut start = now();
        while !parts.is_empty() {
            let tokens = parts.iter().map(|part| self.next(part).len()).sum();
            if let Err(error) = self.step(asks, &mut parts, observer) {
                for part in &parts {
                    self.followed_mut(part.id).tokens.truncate(part.position);
                }
                return Err(error);
            }
            let end = now();
            let took = end.saturating_sub(start).as_secs_f64();
            self.choice.drafted(parts.len(), tokens, took);
            start = end;
            parts.retain_mut(|part| {
                let goes_on = self.go_on(part);
                if !goes_on && !part.made.is_empty() {
                    guesses.push((part.id, std::mem::take(&mut part.made)));
                }
                goes_on
            });
        }
        Ok(guesses)
    }

    /// Forgets guesses that were wrong, and says what it would take to guess for a sequence.
    fn catch_up(&mut self, ask: &Ask<'_>) -> Candidate {
        let followed = self.followed.entry(ask.id).or_default();
        let same = followed.tokens.iter().zip(ask.tokens);
        // The last token is always read again: it says what follows.
        let same = same.take_while(|(read, token)| read == token).count();
        followed.tokens.truncate(same.min(ask.tokens.len() - 1));
        self.pages.share(&mut followed.table, &followed.tokens);
        let read = match followed.tokens.len() {
            0 => self.pages.known(ask.tokens),
            read => read,
        };
        let fits = ask.tokens.len() <= self.forward.shape().context_length;
        Candidate {
            hits: followed.hits,
            missing: ask.tokens.len() - read,
            // One token is drawn after guesses that are right.
            room: if fits { ask.remaining - 1 } else { 0 },
            remaining: ask.remaining,
        }
    }

    /// The parts of the first step: those who lack least first, prompts as far as there is time.
    fn begin(
        &mut self,
        asks: &[Ask<'_>],
        candidates: &[Candidate],
        depths: &[usize],
        read_time: Option<Duration>,
    ) -> Vec<Part> {
        let limit = self.forward.shape().max_step_tokens;
        let most = limit
            .min(self.forward.shape().max_logit_rows)
            .min(MAX_SEQUENCES);
        let seconds = read_time.map_or(f64::INFINITY, |time| time.as_secs_f64());
        let affordable = self.choice.tokens_in(seconds);
        let mut chosen: Vec<usize> = (0..asks.len()).filter(|ask| depths[*ask] > 0).collect();
        chosen.sort_by_key(|ask| candidates[*ask].missing);
        chosen.truncate(most);
        // Beyond one of each.
        let mut further = (limit - chosen.len()).min(affordable.max(LEAST_READ));
        let asked: Vec<SequenceId> = asks.iter().map(|ask| ask.id).collect();
        let mut parts = Vec::new();
        for ask in chosen {
            let Ask { id, tokens, .. } = asks[ask];
            if candidates[ask].missing - 1 > further && further == 0 {
                continue;
            }
            if !self.secure(id, tokens, &asked) {
                continue;
            }
            let followed = self.followed_mut(id);
            let position = followed.tokens.len();
            let missing = tokens.len() - position;
            let guesses = missing - 1 <= further;
            let count = if guesses { missing } else { further };
            further -= count.min(missing - 1);
            followed.tokens.extend(&tokens[position..position + count]);
            parts.push(Part {
                ask,
                id,
                position,
                guesses,
                depth: depths[ask],
                made: Vec::new(),
            });
        }
        parts
    }

    /// Pages for all tokens of a sequence; where there are none, others give theirs that are not
    /// asked for, or it gives back its own.
    fn secure(&mut self, id: SequenceId, tokens: &[TokenId], asked: &[SequenceId]) -> bool {
        loop {
            let Self {
                forward,
                pages,
                followed,
                ..
            } = self;
            let own = followed.entry(id).or_default();
            if !own.table.pages().is_empty() {
                if pages.grow(&mut own.table, tokens.len()).is_ok() {
                    return true;
                }
            } else if let Some(Start {
                table,
                computed,
                copy,
            }) = pages.adopt(tokens, true, 0)
            {
                if let Some(copy) = copy {
                    forward.copy_page(copy.from, copy.to);
                }
                own.table = table;
                own.tokens = tokens[..computed].to_vec();
                return true;
            }
            let has_pages = |followed: &Followed| !followed.table.pages().is_empty();
            let idle = followed
                .iter()
                .find(|(other, f)| has_pages(f) && !asked.contains(other));
            let Some(idle) = idle.map(|(other, _)| *other) else {
                self.give_back(id);
                return false;
            };
            self.give_back(idle);
        }
    }

    fn give_back(&mut self, id: SequenceId) {
        let followed = self.followed.entry(id).or_default();
        let (table, tokens) = (
            std::mem::take(&mut followed.table),
            std::mem::take(&mut followed.tokens),
        );
        self.pages.give_back(table, &tokens);
    }

    fn followed_mut(&mut self, id: SequenceId) -> &mut Followed {
        self.followed.entry(id).or_default()
    }

    /// The tokens of a part.
    fn next(&self, part: &Part) -> &[TokenId] {
        &self.followed[&part.id].tokens[part.position..]
    }

    /// Computes a step, and draws a guess where all is read: as the token itself will be, with the
    /// same random number, so that models which agree draw the same.
    fn step(
        &mut self,
        asks: &mut [Ask<'_>],
        parts: &mut [Part],
        observer: &mut dyn Observer,
    ) -> Result<(), ModelError> {
        let steps: Vec<SequenceStep<'_>> = (parts.iter())
            .map(|part| {
                let followed = &self.followed[&part.id];
                SequenceStep {
                    tokens: &followed.tokens[part.position..],
                    position: part.position,
                    pages: followed.table.pages(),
                    logits: match part.guesses {
                        true => LogitRows::Last,
                        false => LogitRows::None,
                    },
                }
            })
            .collect();
        let vocab = self.forward.shape().vocab_size;
        let logits = (self.forward).forward(&StepPlan { sequences: &steps }, observer)?;
        let mut rows = logits.chunks_exact(vocab);
        for part in parts.iter_mut().filter(|part| part.guesses) {
            let row = rows.next().expect("a row for each");
            let position = self.followed[&part.id].tokens.len() as u64;
            let ask = &mut asks[part.ask];
            match ask.sampler.sample(row, None, position, &mut self.scratch) {
                Ok(guess) if !ask.end_tokens.contains(&guess) => part.made.push(guess),
                _ => part.guesses = false,
            }
        }
        Ok(())
    }

    /// Whether a part takes part in the next step too: its last guess is read then.
    fn go_on(&mut self, part: &mut Part) -> bool {
        let context = self.forward.shape().context_length;
        let Self {
            pages, followed, ..
        } = self;
        let followed = followed.entry(part.id).or_default();
        let position = followed.tokens.len();
        let fits = part.made.len() < part.depth && position < context;
        match part.made.last() {
            Some(guess) if part.guesses && fits => {
                if pages.grow(&mut followed.table, position + 1).is_err() {
                    return false;
                }
                followed.tokens.push(*guess);
                part.position = position;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use redline_model::{ForwardShape, PageId};

    use super::*;

    /// Has pages, and nothing else.
    struct Pool(usize);

    impl Forward for Pool {
        fn shape(&self) -> ForwardShape {
            ForwardShape {
                vocab_size: 10,
                context_length: 1000,
                page_count: self.0,
                max_step_tokens: 100,
                max_logit_rows: 10,
            }
        }
        fn copy_page(&mut self, _: PageId, _: PageId) {}
        fn forward(
            &mut self,
            _: &StepPlan<'_>,
            _: &mut dyn Observer,
        ) -> Result<&[f32], ModelError> {
            Ok(&[])
        }
    }

    #[test]
    fn who_is_not_asked_for_gives_its_pages_and_who_finds_none_its_own() {
        let mut draft = Draft::new(Box::new(Pool(3)));
        let tokens = |start, count| (start..start + count).map(TokenId).collect::<Vec<_>>();
        let ids = [SequenceId(0), SequenceId(1)];
        assert!(draft.secure(ids[0], &tokens(0, 100), &ids));
        assert!(!draft.secure(ids[1], &tokens(500, 100), &ids));
        assert_eq!(draft.pages_in_use(), 2);
        assert!(draft.secure(ids[1], &tokens(500, 100), &ids[1..]));
        assert!(draft.followed[&ids[0]].table.pages().is_empty());
        assert_eq!(draft.pages_in_use(), 2);
        assert!(draft.secure(ids[1], &tokens(500, 192), &ids));
        assert!(!draft.secure(ids[1], &tokens(500, 193), &ids));
        assert_eq!(draft.pages_in_use(), 0);
    }
}
