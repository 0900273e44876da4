//! What the next step computes.

use std::time::Duration;

use redline_model::LogitRows;

use super::pace::LEAST_TOKENS;
use super::sequence::{Rank, Sequence};
use super::{Plan, Planned, Scheduler, SequenceId};
use crate::pages::Start;

/// Running sequences for each page that is left free when another begins: one in so many needs its
/// next page soon, and who finds none costs another its pages.
const RUNNING_PER_SPARE_PAGE: usize = 4;

/// What a step has left.
#[derive(Debug)]
struct Room {
    tokens: usize,
    rows: usize,
    /// Of the tokens, those that prompts may have.
    prompt: usize,
}

impl Scheduler {
    /// What the next step computes. It is under way until every part of it was given to
    /// [`Self::commit`], or all to [`Self::abandon`].
    pub fn plan(&mut self, now: Duration) -> Plan {
        let mut plan = Plan::default();
        self.expire(now, &mut plan);
        let mut room = Room {
            tokens: self.limits.step_tokens,
            rows: self.limits.logit_rows,
            prompt: 0,
        };
        self.plan_decodes(&mut plan, &mut room);
        let delay = (self.limits.decode_delay).saturating_sub(std::mem::take(&mut self.spent));
        let quick = match plan.sequences.is_empty() {
            true => (self.pace.tokens_in(self.limits.step_time)).unwrap_or(room.tokens),
            false => (self.pace.tokens_in(delay)).unwrap_or(LEAST_TOKENS),
        };
        room.prompt = room.tokens.min(quick);
        self.plan_prompts(&mut plan, &mut room);
        self.admit(&mut plan, &mut room);
        plan
    }

    fn expire(&mut self, now: Duration, plan: &mut Plan) {
        let over = |sequence: &Sequence| sequence.deadline.is_some_and(|deadline| deadline <= now);
        let expired = (self.sequences.iter()).filter(|(_, sequence)| over(sequence));
        plan.expired = expired.map(|(id, _)| *id).collect();
        for id in &plan.expired {
            self.remove(*id);
        }
    }

    /// Every running sequence that only lacks its last token takes part in every step.
    fn plan_decodes(&mut self, plan: &mut Plan, room: &mut Room) {
        let ranks: Vec<Rank> = self.running.iter().copied().collect();
        for (index, &rank) in ranks.iter().enumerate() {
            let (_, id) = rank;
            // Whoever comes later may have been preempted for one that came before.
            if !self.running.contains(&rank) || !self.sequences[&id].decodes() {
                continue;
            }
            // Guesses never take the place of another's token.
            let others = ranks.len() - index;
            self.keep_drafts(id, room.tokens.min(room.rows).saturating_sub(others));
            if self.secure(id, plan) {
                let count = 1 + self.sequences[&id].drafts;
                self.take_part(id, count, plan, room);
            }
        }
    }

    /// Leaves a sequence its first `most` guesses.
    fn keep_drafts(&mut self, id: SequenceId, most: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            let kept = sequence.drafts.min(most);
            sequence.tokens.truncate(sequence.known() + kept);
            sequence.drafts = kept;
        }
    }

    /// Makes room for the next token of a sequence that decodes, and for its guesses if that costs
    /// nobody anything; for the token, those who go after it lose their pages. `false` if nobody
    /// does: then it lost its own.
    fn secure(&mut self, id: SequenceId, plan: &mut Plan) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else {
                return false;
            };
            let positions = sequence.tokens.len();
            if (self.pages.grow(&mut sequence.table, positions)).is_ok() {
                return true;
            }
            if sequence.drafts > 0 {
                sequence.drop_drafts();
                continue;
            }
            let own = sequence.rank;
            let last = *self.running.last().expect("this one runs");
            self.preempt(last, plan);
            if last == own {
                return false;
            }
        }
    }

    /// Takes a sequence's pages; it waits for others, and computes its tokens anew.
    fn preempt(&mut self, rank: Rank, plan: &mut Plan) {
        let (_, id) = rank;
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.drop_drafts();
            let table = std::mem::take(&mut sequence.table);
            let computed = std::mem::take(&mut sequence.computed);
            (self.pages).give_back(table, &sequence.tokens[..computed]);
        }
        self.running.remove(&rank);
        self.waiting.insert(rank);
        plan.preempted.push(id);
    }

    /// Prompts that were begun go on, the first first. Their pages are theirs already.
    fn plan_prompts(&mut self, plan: &mut Plan, room: &mut Room) {
        let ranks: Vec<Rank> = self.running.iter().copied().collect();
        for (_, id) in ranks {
            if !self.sequences[&id].decodes() {
                let count = self.chunk(id, room);
                self.take_part(id, count, plan, room);
            }
        }
    }

    /// Tokens of a prompt that there is room for.
    fn chunk(&self, id: SequenceId, room: &Room) -> usize {
        let sequence = &self.sequences[&id];
        let count = sequence.missing().min(room.prompt);
        match sequence.rows(count) {
            LogitRows::All => count.min(room.rows),
            // The last token waits for a step that has a row for it.
            LogitRows::Last if room.rows == 0 => count - 1,
            LogitRows::None | LogitRows::Last => count,
        }
    }

    fn take_part(&mut self, id: SequenceId, count: usize, plan: &mut Plan, room: &mut Room) {
        if count == 0 {
            return;
        }
        let sequence = &self.sequences[&id];
        let (logits, prompt) = (sequence.rows(count), !sequence.decodes());
        room.tokens -= count;
        room.rows -= logits.count(count);
        if prompt {
            room.prompt -= count;
        }
        room.prompt = room.prompt.min(room.tokens);
        plan.sequences.push(Planned {
            id,
            position: sequence.computed,
            count,
            logits,
            prompt,
        });
    }

    /// Sequences that wait begin, in order, while there are pages for all of their tokens.
    fn admit(&mut self, plan: &mut Plan, room: &mut Room) {
        while room.prompt > 0 && self.running.len() < self.limits.running {
            let mut waiting = self.waiting.iter().copied();
            let Some(rank) = waiting.find(|(_, id)| !self.waits_for_sibling(*id)) else {
                break;
            };
            let (_, id) = rank;
            if !self.begin(id, plan) {
                break;
            }
            self.waiting.remove(&rank);
            self.running.insert(rank);
            let count = self.chunk(id, room);
            self.take_part(id, count, plan, room);
        }
    }

    /// Whether a sequence would compute what its sibling is computing.
    fn waits_for_sibling(&self, id: SequenceId) -> bool {
        let sibling = self.sequences[&id].sibling;
        let sibling = sibling.and_then(|sibling| self.sequences.get(&sibling));
        sibling.is_some_and(|sibling| sibling.computed < sibling.prompt_tokens)
    }

    /// Gives a waiting sequence pages for all its tokens, unless that left too few for those that run
    /// to grow by.
    fn begin(&mut self, id: SequenceId, plan: &mut Plan) -> bool {
        let sequence = &self.sequences[&id];
        let spare = self.running.len().div_ceil(RUNNING_PER_SPARE_PAGE);
        // What a sibling has of the prompt is all there, pages that are not full too.
        let sibling = sequence.sibling.filter(|_| sequence.cached.is_none());
        let sibling = sibling.and_then(|sibling| self.sequences.get(&sibling));
        let tokens = &sequence.tokens;
        let start = match sibling {
            Some(sibling) => self.pages.fork(&sibling.table, tokens, spare),
            None => self.pages.adopt(tokens, !sequence.prompt_logits, spare),
        };
        let Some(Start {
            table,
            computed,
            copy,
        }) = start
        else {
            return false;
        };
        plan.copies.extend(copy);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.table = table;
            sequence.computed = computed;
            sequence.cached.get_or_insert(computed);
        }
        true
    }
}
