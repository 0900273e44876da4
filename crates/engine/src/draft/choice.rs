//! Whether guesses of a draft model pay, and how many: by what steps took, and how many were right.
//!
//! Numbers in, numbers out: no model and no clock.

use super::costs::Costs;
use crate::speculate::MAX_DRAFTS;

/// What a guess is taken to be worth before any was checked, and how many checks that counts for.
const PRIOR: (f64, f64) = (0.6, 2.0);
/// How much of what was known stays at each check: of all sequences, and of one.
const MEMORY: (f64, f64) = (0.9, 0.8);
/// A guess less likely to be right than this is not made.
const FLOOR: f64 = 0.2;
/// A draft model's step beside one of the model, before it was measured.
const UNMEASURED: f64 = 0.25;
/// Tokens that are read in the time of one such step, and tokens read before they are measured.
const UNMEASURED_READ: f64 = 8.0;
const FIRST_READ: usize = 32;
/// How much faster it must be: estimates err, and steps that nobody guesses for need no luck.
const MARGIN: f64 = 1.05;
/// Share of the time of steps that tries may take where guesses do not seem to pay.
const TRIED: f64 = 0.02;
/// Steps whose time tries may take at once: at the start, and when it was saved up.
const FIRST_STEPS: f64 = 1.5;
const SAVED_STEPS: f64 = 32.0;
/// The longest a try may be: shorter ones tell of the first guess only, and cost less.
const TRIED_GUESSES: usize = 3;
/// Tokens that an answer is counted on to go on for, at most: most end before their limit.
const OUTLOOK: usize = 256;
/// Share of what guesses are to save that reading what was missed may cost; and of the whole time
/// before as many were checked as [`PROVEN`] says.
const READING: (f64, f64) = (0.5, 0.03);
const PROVEN: usize = 8;

/// How many guesses were right of late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hits {
    right: f64,
    wrong: f64,
}

impl Hits {
    /// Takes note of a check: guesses after the first wrong one were not checked.
    fn learn(&mut self, guessed: usize, right: usize, memory: f64) {
        for checked in 0..guessed.min(right + 1) {
            self.right *= memory;
            self.wrong *= memory;
            match checked < right {
                true => self.right += 1.0,
                false => self.wrong += 1.0,
            }
        }
    }

    /// How likely the next one is right, where `prior` is what others say.
    fn rate(&self, prior: f64) -> f64 {
        let weight = PRIOR.1;
        (self.right + prior * weight) / (self.right + self.wrong + weight)
    }
}

/// A sequence that guesses could be made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) hits: Hits,
    /// Tokens the draft model has not read, at least 1.
    pub(super) missing: usize,
    /// Guesses there is room for.
    pub(super) room: usize,
    /// Tokens the answer may still have.
    pub(super) remaining: usize,
}

/// The step that guesses would be checked in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    /// Sequences that get a token in it.
    pub(crate) decoding: usize,
    /// Its rows of logits without further guesses.
    pub(crate) rows: usize,
    /// Its rows of logits, at most.
    pub(crate) most_rows: usize,
}

/// Decides how many guesses are made.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Of a step of the model, by its rows.
    step: Costs,
    /// Of a step of the draft model, by its sequences.
    draft: Costs,
    /// Seconds that the draft model takes for each further token it reads.
    read: Option<f64>,
    /// Of all sequences.
    hits: Hits,
    checks: usize,
    /// Seconds that tries may take; `None` before the first step.
    credit: Option<f64>,
    tries: usize,
    /// Guesses under way that take of that: tries, and all before any were checked.
    tried: usize,
}

impl Choice {
    /// Guesses to be made for each candidate, 0 where it is not even worth reading for.
    pub(super) fn choose(&mut self, ahead: Ahead, candidates: &[Candidate]) -> Vec<usize> {
        self.tried = 0;
        let mut depths = vec![0; candidates.len()];
        let Some(step) = self.step.at(ahead.rows) else {
            // There is nothing to compare with yet.
            return depths;
        };
        let (depth, speedup) = self.best_depth(ahead, step, candidates);
        let is_proven = self.checks >= PROVEN;
        let saved = match is_proven {
            true => READING.0 * (1.0 - 1.0 / speedup) * step / ahead.decoding as f64,
            false => READING.1 * step,
        };
        // Before anything is known, one tells as much as all.
        let first = candidates.iter().map(|c| c.missing).min();
        for (wanted, candidate) in depths.iter_mut().zip(candidates) {
            let is_chosen = is_proven || (Some(candidate.missing) == first && self.tried == 0);
            let outlook = candidate.remaining.min(OUTLOOK) as f64;
            if is_chosen && self.reading(candidate, step) <= saved * outlook {
                let rate = self.rate(candidate);
                let joins = |n: &usize| joins(candidate, rate, *n);
                *wanted = (1..=depth).take_while(joins).count();
            }
            if !is_proven {
                self.tried += *wanted;
            }
        }
        if depths.iter().all(|depth| *depth == 0) {
            self.try_one(ahead, step, candidates, &mut depths);
        }
        depths
    }

    /// The number of guesses for each that gives the most tokens a second, and how many times more
    /// than none; 0 if that is not more by the margin.
    fn best_depth(&self, ahead: Ahead, step: f64, candidates: &[Candidate]) -> (usize, f64) {
        let rates: Vec<f64> = candidates.iter().map(|c| self.rate(c)).collect();
        let plain = ahead.decoding as f64 / step;
        let (mut best, mut speedup) = (0, MARGIN);
        let (mut tokens, mut drafting, mut rows) = (ahead.decoding as f64, 0.0, ahead.rows);
        // One tells what they cost.
        let most = match self.draft.at(1) {
            Some(_) => MAX_DRAFTS,
            None => 1,
        };
        for depth in 1..=most {
            let mut joining = 0;
            for (candidate, rate) in candidates.iter().zip(&rates) {
                if joins(candidate, *rate, depth) {
                    tokens += rate.powi(depth as i32);
                    joining += 1;
                }
            }
            rows += joining;
            if joining == 0 || rows > ahead.most_rows {
                break;
            }
            drafting += self.drafting(joining, step);
            let checking = self.step.at(rows).unwrap_or(step);
            let faster = tokens / (drafting + checking) / plain;
            if faster > speedup {
                (best, speedup) = (depth, faster);
            }
        }
        (best, speedup)
    }

    /// Chooses a few guesses to see whether they have come to pay, if there is time for that.
    fn try_one(&mut self, ahead: Ahead, step: f64, candidates: &[Candidate], depths: &mut [usize]) {
        let may = |candidate: &Candidate| candidate.room > 0 && ahead.rows < ahead.most_rows;
        let all = candidates.iter().enumerate().filter(|(_, c)| may(c));
        let Some((index, candidate)) = all.min_by_key(|(_, candidate)| candidate.missing) else {
            return;
        };
        let depth = (1 + self.tries % TRIED_GUESSES)
            .min(candidate.room)
            .min(ahead.most_rows - ahead.rows);
        let drafting = depth as f64 * self.drafting(1, step);
        let checking = self.checking(ahead.rows, depth);
        if self.reading(candidate, step) + drafting + checking <= self.credit.unwrap_or(0.0) {
            depths[index] = depth;
            self.tried = depth;
            self.tries += 1;
        }
    }

    /// Seconds to read what a candidate lacks beyond its last token.
    fn reading(&self, candidate: &Candidate, step: f64) -> f64 {
        let further = candidate.missing - 1;
        match self.read {
            Some(each) => further as f64 * each,
            // No more are read before it is known what they cost.
            None => further.min(FIRST_READ) as f64 * self.drafting(1, step) / UNMEASURED_READ,
        }
    }

    /// Seconds of a step of the draft model.
    fn drafting(&self, sequences: usize, step: f64) -> f64 {
        self.draft.at(sequences).unwrap_or(UNMEASURED * step)
    }

    /// Seconds that a step takes longer for so many more rows.
    fn checking(&self, rows: usize, more: usize) -> f64 {
        match (self.step.at(rows), self.step.at(rows + more)) {
            (Some(plain), Some(checked)) => (checked - plain).max(0.0),
            _ => 0.0,
        }
    }

    fn rate(&self, candidate: &Candidate) -> f64 {
        candidate.hits.rate(self.hits.rate(PRIOR.0))
    }

    /// Tokens that may be read in so many seconds.
    pub(super) fn tokens_in(&self, seconds: f64) -> usize {
        self.read
            .map_or(FIRST_READ, |each| (seconds / each) as usize)
    }

    /// Takes note of what a step of the draft model took.
    pub(super) fn drafted(&mut self, sequences: usize, tokens: usize, seconds: f64) {
        const READ_TOKENS: usize = 16;
        if tokens <= 2 * sequences {
            self.draft.update(sequences, seconds);
        } else if tokens >= sequences + READ_TOKENS {
            let one = self.draft.at(sequences).unwrap_or(0.0);
            let further = (tokens - sequences) as f64;
            // Where one token costs as much as many, what these cost cannot be told from noise.
            self.read = Some((seconds - one).max(seconds / 4.0) / further);
        }
        if let Some(credit) = self.credit.as_mut().filter(|_| self.tried > 0) {
            *credit -= seconds;
        }
    }

    /// Takes note of what a step of the model took, and of its rows of logits if it only decoded.
    pub(super) fn stepped(&mut self, rows: Option<usize>, seconds: f64) {
        if let Some(rows) = rows {
            self.step.update(rows, seconds);
            let tried = self.checking(rows.saturating_sub(self.tried), self.tried);
            let credit = self.credit.unwrap_or(FIRST_STEPS * seconds) - tried;
            self.credit = Some(credit.min(SAVED_STEPS * seconds) + TRIED * seconds);
        } else if let Some(credit) = &mut self.credit {
            *credit += TRIED * seconds;
        }
        self.tried = 0;
    }

    /// Takes note of how many guesses for a sequence were right.
    pub(super) fn checked(&mut self, hits: &mut Hits, guessed: usize, right: usize) {
        self.hits.learn(guessed, right, MEMORY.0);
        hits.learn(guessed, right, MEMORY.1);
        self.checks += guessed.min(right + 1);
    }
}

/// Whether a candidate gets a guess number `depth`, from 1.
fn joins(candidate: &Candidate, rate: f64, depth: usize) -> bool {
    depth <= candidate.room && rate.powi(depth as i32) >= FLOOR
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Ahead = Ahead {
        decoding: 1,
        rows: 1,
        most_rows: 16,
    };

    const NEXT: Candidate = Candidate {
        hits: Hits {
            right: 0.0,
            wrong: 0.0,
        },
        missing: 1,
        room: 100,
        remaining: 101,
    };

    /// An answer of so many tokens, where a guess is right if `is_right` says so of its number.
    /// Seconds with the draft model and without, and guesses made.
    fn play(
        choice: &mut Choice,
        tokens: usize,
        [step, row, draft]: [f64; 3],
        is_right: impl Fn(usize) -> bool,
    ) -> (f64, f64, usize) {
        let (mut hits, mut done, mut seconds, mut guesses, mut missing) =
            (Hits::default(), 0, 0.0, 0, 1);
        while done < tokens {
            let room = tokens - done - 1;
            let candidate = Candidate {
                hits,
                missing,
                room,
                remaining: room + 1,
            };
            let mut depth = choice.choose(ALONE, &[candidate])[0];
            let time = |read: usize| draft * (0.9 + 0.1 * read as f64);
            let further = choice.tokens_in(f64::INFINITY);
            if depth > 0 && missing - 1 > further {
                choice.drafted(1, further, time(further));
                seconds += time(further);
                (missing, depth) = (missing - further, 0);
            }
            for guess in 0..depth {
                let read = if guess == 0 { missing } else { 1 };
                choice.drafted(1, read, time(read));
                seconds += time(read);
            }
            let took = step + row * depth as f64;
            choice.stepped(Some(1 + depth), took);
            seconds += took;
            let right = (0..depth)
                .take_while(|guess| is_right(done + guess))
                .count();
            if depth > 0 {
                choice.checked(&mut hits, depth, right);
                missing = 1;
            }
            missing += if depth > 0 { 0 } else { right + 1 };
            done += right + 1;
            guesses += depth;
        }
        (seconds, tokens as f64 * step, guesses)
    }

    #[test]
    fn a_good_and_cheap_draft_model_is_used_to_the_full() {
        let mut choice = Choice::default();
        let (with, without, guesses) = play(&mut choice, 300, [20.0, 1.0, 2.0], |_| true);
        assert!(without / with > 3.0, "{with} {without} {guesses}");
    }

    #[test]
    fn one_that_is_always_wrong_costs_less_than_a_twentieth() {
        for tokens in [64, 256, 1000] {
            for costs in [[20.0, 1.0, 2.0], [20.0, 8.0, 5.0], [5.0, 5.0, 5.0]] {
                let mut choice = Choice::default();
                let (with, without, guesses) = play(&mut choice, tokens, costs, |_| false);
                let ratio = without / with;
                assert!(ratio > 0.95, "{ratio} {tokens} {costs:?} {guesses}");
            }
        }
    }

    #[test]
    fn one_as_dear_as_the_model_is_hardly_used_however_right() {
        let mut choice = Choice::default();
        let (with, without, guesses) = play(&mut choice, 500, [20.0, 6.0, 20.0], |_| true);
        assert!(without / with > 0.97 && guesses < 50, "{guesses}");
    }

    #[test]
    fn half_right_guesses_are_as_many_as_pay() {
        let mut choice = Choice::default();
        let half = |n: usize| n.wrapping_mul(0x9e37_79b9) >> 16 & 1 == 0;
        let (with, without, guesses) = play(&mut choice, 500, [20.0, 2.0, 2.0], half);
        assert!(without / with > 1.1, "{with} {without} {guesses}");
    }

    #[test]
    fn what_became_better_is_found_out() {
        let mut choice = Choice::default();
        play(&mut choice, 300, [20.0, 1.0, 2.0], |_| false);
        let (with, without, _) = play(&mut choice, 2000, [20.0, 1.0, 2.0], |_| true);
        assert!(without / with > 2.0, "{with} {without}");
    }

    #[test]
    fn a_long_prompt_is_read_only_where_the_answer_pays_for_it() {
        let mut choice = Choice::default();
        play(&mut choice, 300, [20.0, 1.0, 2.0], |_| true);
        choice.drafted(1, 101, 52.0);
        let mut depth = |missing, remaining| {
            let candidate = Candidate {
                missing,
                remaining,
                room: remaining - 1,
                ..NEXT
            };
            choice.choose(ALONE, &[candidate])[0]
        };
        assert!(depth(100, 200) > 0);
        assert_eq!(depth(2000, 20), 0);
        // Nobody has seen whether it is any good: no more is ventured than tells what that costs.
        let mut fresh = Choice::default();
        fresh.stepped(Some(1), 20.0);
        let long = Candidate {
            missing: 1000,
            remaining: 200,
            ..NEXT
        };
        assert_eq!(fresh.choose(ALONE, &[long, long]), [1, 0]);
        fresh.drafted(1, 1 + fresh.tokens_in(1.0), 8.0);
        assert_eq!(fresh.choose(ALONE, &[long, long]), [0, 0]);
    }

    #[test]
    fn each_sequence_gets_as_many_as_suit_it_and_rows_are_never_exceeded() {
        let mut choice = Choice::default();
        play(&mut choice, 300, [20.0, 1.0, 2.0], |_| true);
        let mut bad = NEXT;
        for _ in 0..20 {
            bad.hits.learn(1, 0, MEMORY.1);
        }
        let ahead = |most_rows| Ahead {
            decoding: 2,
            rows: 2,
            most_rows,
        };
        let depths = choice.choose(ahead(32), &[NEXT, bad]);
        assert!(depths[0] > depths[1], "{depths:?}");
        for most_rows in 2..12 {
            let depths = choice.choose(ahead(most_rows), &[NEXT, NEXT]);
            assert!(depths.iter().sum::<usize>() + 2 <= most_rows, "{depths:?}");
        }
        let last = Candidate { room: 0, ..NEXT };
        assert_eq!(choice.choose(ahead(32), &[last]), [0]);
    }
}
