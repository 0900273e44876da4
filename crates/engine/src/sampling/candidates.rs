//! The tokens that can still be drawn, and the cuts.

use std::cmp::Ordering;

use redline_model::exponentials;

use super::PIECE;

/// Candidates ranked at a time, to begin with.
const FIRST_PIECE: usize = 128;
/// Logits that are looked at together: where many are cut, all of them at once.
const GLANCE: usize = 64;
/// Candidates are ranked in classes: those less than so many temperatures below the best first.
const CLASSES: [f32; 4] = [2.0, 5.0, 10.0, f32::INFINITY];

/// One token that can be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
    /// Probability over that of the best candidate, in `[0, 1]`.
    pub(super) weight: f64,
}

/// Candidates in ascending order of ids between the calls.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    /// The largest logit, and the temperature: since they were weighed.
    best: f32,
    temperature: f32,
}

impl Candidates {
    /// Starts over with every token whose logit is above −∞; of these the first `k` by rank, or all
    /// if `k` is 0.
    pub(super) fn fill(&mut self, logits: &[f32], k: usize) {
        self.list.clear();
        let room = if k == 0 {
            usize::MAX
        } else {
            2 * k + FIRST_PIECE
        };
        // Beaten by k tokens already: a later equal one has a higher id and is beaten too.
        let mut beaten = f32::NEG_INFINITY;
        for (first, logits) in (0_u32..).step_by(GLANCE).zip(logits.chunks(GLANCE)) {
            if !logits
                .iter()
                .fold(false, |any, logit| any | (*logit > beaten))
            {
                continue;
            }
            for (id, &logit) in (first..).zip(logits) {
                if logit > beaten {
                    self.list.push(Candidate {
                        id,
                        logit,
                        weight: 0.0,
                    });
                    if self.list.len() == room {
                        beaten = self.keep_top_k(k);
                    }
                }
            }
        }
        if k > 0 && k < self.list.len() {
            self.keep_top_k(k);
        }
        if k > 0 {
            self.sort_by_id();
        }
    }

    /// Keeps the first `k` by rank, `0 < k < len`, in any order, and returns the last one's logit.
    fn keep_top_k(&mut self, k: usize) -> f32 {
        let (_, last, _) = self.list.select_nth_unstable_by(k - 1, by_rank);
        let logit = last.logit;
        self.list.truncate(k);
        logit
    }

    /// Sets the weights: `exp((logit − best) / temperature)`.
    pub(super) fn weigh(&mut self, temperature: f32) {
        let logits = self.list.iter().map(|candidate| candidate.logit);
        self.best = logits.fold(f32::NEG_INFINITY, f32::max);
        self.temperature = temperature;
        let best = f64::from(self.best);
        let scale = 1.0 / f64::from(temperature);
        let mut room = [0.0; PIECE];
        for piece in self.list.chunks_mut(PIECE) {
            let weights = &mut room[..piece.len()];
            for (x, candidate) in weights.iter_mut().zip(&*piece) {
                *x = (f64::from(candidate.logit) - best) * scale;
            }
            exponentials(weights);
            for (candidate, weight) in piece.iter_mut().zip(weights) {
                candidate.weight = *weight;
            }
        }
    }

    /// Keeps the shortest start of the ranking that reaches `p` of the sum of weights, at least one
    /// candidate; 1 keeps all. Only as much is ranked as is needed: a vocabulary is long, and most of
    /// it far below the best.
    pub(super) fn keep_top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let goal = f64::from(p) * self.total_weight();
        let (mut reached, mut ranked) = (0.0, 0);
        for class in CLASSES {
            // By logit, as the ranking is: weights are rounded.
            let least = self.best - class * self.temperature;
            let end = ranked + to_front(&mut self.list[ranked..], |c| c.logit >= least);
            let within = rank_up_to(goal, &mut reached, &mut self.list[ranked..end]);
            if let Some(count) = within {
                self.list.truncate(ranked + count);
                break;
            }
            ranked = end;
        }
        self.sort_by_id();
    }

    /// Keeps candidates of at least this weight. The best one's weight is 1.
    pub(super) fn keep_min_p(&mut self, min_p: f32) {
        self.list
            .retain(|candidate| candidate.weight >= f64::from(min_p));
    }

    /// The candidate at `unit` (in `[0, 1)`) of the sum of weights; `None` without candidates.
    pub(super) fn draw(&self, unit: f64) -> Option<u32> {
        let goal = unit * self.total_weight();
        let mut reached = 0.0;
        let drawn = self.list.iter().find(|candidate| {
            reached += candidate.weight;
            reached > goal
        });
        // Rounding may put the goal on the sum itself: then it is the last one that can be drawn.
        let last = || {
            self.list
                .iter()
                .rev()
                .find(|candidate| candidate.weight > 0.0)
        };
        drawn.or_else(last).map(|candidate| candidate.id)
    }

    fn total_weight(&self) -> f64 {
        self.list.iter().map(|candidate| candidate.weight).sum()
    }

    fn sort_by_id(&mut self) {
        self.list.sort_unstable_by_key(|candidate| candidate.id);
    }
}

/// Moves those that are wanted to the front, in any order, and counts them.
fn to_front(list: &mut [Candidate], is_wanted: impl Fn(&Candidate) -> bool) -> usize {
    let mut count = 0;
    for index in 0..list.len() {
        if is_wanted(&list[index]) {
            list.swap(count, index);
            count += 1;
        }
    }
    count
}

/// Ranks as many as it takes for their weights, added to what is `reached`, to reach the goal, and
/// counts them; `None` if all of them do not.
fn rank_up_to(goal: f64, reached: &mut f64, list: &mut [Candidate]) -> Option<usize> {
    let (mut ranked, mut piece) = (0, FIRST_PIECE);
    while ranked < list.len() {
        let rest = &mut list[ranked..];
        let length = piece.min(rest.len());
        if length < rest.len() {
            rest.select_nth_unstable_by(length - 1, by_rank);
        }
        let ranking = &mut rest[..length];
        ranking.sort_unstable_by(by_rank);
        let within = ranking.iter().position(|candidate| {
            *reached += candidate.weight;
            *reached >= goal
        });
        if let Some(index) = within {
            return Some(ranked + index + 1);
        }
        ranked += length;
        piece *= 4;
    }
    None
}

/// Larger logits first, lower ids first among equals. No logit is NaN.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    let by_logit = b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal);
    by_logit.then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The cuts as the specification words them: everything ranked, nothing clever.
    fn by_the_book(logits: &[f32], k: usize, p: f32, min_p: f32) -> Vec<u32> {
        let mut candidates = Candidates::default();
        candidates.fill(logits, 0);
        candidates.weigh(1.0);
        let mut ranking = candidates.list;
        ranking.sort_by(by_rank);
        if k > 0 {
            ranking.truncate(k);
        }
        let mut by_id = ranking.clone();
        by_id.sort_by_key(|candidate| candidate.id);
        let total: f64 = by_id.iter().map(|candidate| candidate.weight).sum();
        let mut kept = Vec::new();
        let mut reached = 0.0;
        for candidate in ranking {
            if p < 1.0 && reached >= f64::from(p) * total && !kept.is_empty() {
                break;
            }
            reached += candidate.weight;
            if candidate.weight >= f64::from(min_p) {
                kept.push(candidate.id);
            }
        }
        kept.sort_unstable();
        kept
    }

    proptest! {
        #[test]
        fn ranking_in_pieces_cuts_as_ranking_everything(
            logits in prop::collection::vec((-40_i8..40).prop_map(|x| f32::from(x) * 0.1), 1..3000),
            k in prop_oneof![0_usize..20, 0_usize..3000],
            p in prop_oneof![Just(1.0_f32), 0.0_f32..=1.0],
            min_p in prop_oneof![Just(0.0_f32), 0.0_f32..=1.0],
        ) {
            let mut candidates = Candidates::default();
            candidates.fill(&logits, k);
            candidates.weigh(1.0);
            candidates.keep_top_p(p);
            candidates.keep_min_p(min_p);
            let kept: Vec<u32> = candidates.list.iter().map(|candidate| candidate.id).collect();
            prop_assert_eq!(kept, by_the_book(&logits, k, p, min_p));
        }
    }

    #[test]
    fn a_draw_lands_in_its_share() {
        let mut candidates = Candidates::default();
        candidates.fill(&[0.0, f32::NEG_INFINITY, 0.0, 0.0, -1e30], 0);
        candidates.weigh(1.0);
        let draws = [0.0, 0.3, 0.34, 0.6, 0.67, 1.0 - f64::EPSILON / 2.0, 1.0];
        let ids: Vec<_> = draws.iter().map(|unit| candidates.draw(*unit)).collect();
        assert_eq!(ids, [0, 0, 2, 2, 3, 3, 3].map(Some));
        candidates.fill(&[f32::NEG_INFINITY], 0);
        assert_eq!(candidates.draw(0.5), None);
    }
}
