//! The tokens that can still be drawn, and the cuts.

use std::cmp::Ordering;

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
}

impl Candidates {
    /// Starts over with every token whose logit is above −∞.
    pub(super) fn fill(&mut self, logits: &[f32]) {
        let all = (0_u32..)
            .zip(logits)
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        self.list.clear();
        self.list.extend(all.map(|(id, &logit)| Candidate {
            id,
            logit,
            weight: 0.0,
        }));
    }

    /// Keeps the first `k` by rank; 0 keeps all.
    pub(super) fn keep_top_k(&mut self, k: usize) {
        if k > 0 && k < self.list.len() {
            self.list.select_nth_unstable_by(k - 1, by_rank);
            self.list.truncate(k);
            self.sort_by_id();
        }
    }

    /// Sets the weights: `exp((logit − best) / temperature)`.
    pub(super) fn weigh(&mut self, temperature: f32) {
        let logits = self.list.iter().map(|candidate| candidate.logit);
        let best = f64::from(logits.fold(f32::NEG_INFINITY, f32::max));
        let scale = 1.0 / f64::from(temperature);
        for candidate in &mut self.list {
            candidate.weight = libm::exp((f64::from(candidate.logit) - best) * scale);
        }
    }

    /// Keeps the shortest start of the ranking that reaches `p` of the sum of weights, at least one
    /// candidate; 1 keeps all. Only as much is ranked as is needed: a vocabulary is long.
    pub(super) fn keep_top_p(&mut self, p: f32) {
        const FIRST_PIECE: usize = 128;
        if p >= 1.0 {
            return;
        }
        let goal = f64::from(p) * self.total_weight();
        let (mut reached, mut ranked, mut piece) = (0.0, 0, FIRST_PIECE);
        while ranked < self.list.len() {
            let rest = &mut self.list[ranked..];
            let length = piece.min(rest.len());
            if length < rest.len() {
                rest.select_nth_unstable_by(length - 1, by_rank);
            }
            let ranking = &mut rest[..length];
            ranking.sort_unstable_by(by_rank);
            let within = ranking.iter().position(|candidate| {
                reached += candidate.weight;
                reached >= goal
            });
            if let Some(index) = within {
                self.list.truncate(ranked + index + 1);
                break;
            }
            ranked += length;
            piece *= 4;
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

/// Larger logits first, lower ids first among equals. No logit is NaN.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    let by_logit = b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal);
    by_logit.then(a.id.cmp(&b.id))
}
