//! How well a model predicts a text: its tokens in windows, the likelihood of those in the second
//! half of each.
//!
//! The definition is that of llama.cpp's `llama-perplexity` (`tools/perplexity/perplexity.cpp`), so
//! that figures can be compared: a window is computed by itself, from position 0; of its n tokens
//! those after position n/2 are counted, each given all before it; the perplexity is
//! `exp(mean of −ln p)` over the counted tokens of all windows, its standard error that mean's
//! (tokens taken as independent) times the perplexity.

use std::num::NonZeroUsize;

use redline_engine::log_probability;
use redline_model::{
    Forward, LogitRows, Observer, PageId, SequenceStep, StepPlan, TokenId, pages_for,
};

/// Tokens of the smallest window in which one is counted.
pub(crate) const MIN_WINDOW: usize = 3;

/// A text in windows of one size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// `[windows, size]`
    tokens: Vec<TokenId>,
    size: usize,
}

impl Windows {
    /// Cuts a text into windows of `size` tokens, at most `most`; a rest too short for one is left
    /// out. The text begins with `bos` if the model wants one, and so does every window: there it
    /// stands in place of the token that only the windows before would have explained.
    ///
    /// # Panics
    /// If `size` is below [`MIN_WINDOW`].
    pub(crate) fn cut(text: &[TokenId], bos: Option<TokenId>, size: usize, most: usize) -> Self {
        assert!(size >= MIN_WINDOW, "a window without a counted token");
        let whole = most.min(text.len() / size) * size;
        let mut tokens = text[..whole].to_vec();
        if let Some(bos) = bos {
            tokens
                .iter_mut()
                .step_by(size)
                .for_each(|first| *first = bos);
        }
        Self { tokens, size }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.tokens.len() / self.size
    }

    /// Each window's tokens.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[TokenId]> {
        self.tokens.chunks_exact(self.size)
    }
}

/// Why a window has no likelihood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The model cannot compute it.
    #[error(transparent)]
    Model(#[from] redline_model::Error),
    /// Logits that are no distribution, or one in which the text is impossible.
    #[error(
        "position {position} of the window: the logit of token {id} is {value}, expected a finite number"
    )]
    Logit {
        position: usize,
        id: TokenId,
        value: f32,
    },
}

/// `−ln p` of each counted token of a window, in nats, in order.
///
/// Logits are asked for in no more rows than `model` allows and of no token but those that predict a
/// counted one; `threads` share their rows.
///
/// # Errors
/// If a step fails or is cancelled by `observer`, or a counted token has no finite likelihood.
pub(crate) fn surprisals(
    model: &mut impl Forward,
    window: &[TokenId],
    threads: NonZeroUsize,
    observer: &mut dyn Observer,
) -> Result<Vec<f64>, Error> {
    let vocab = model.shape().vocab_size;
    let step = model.shape().max_step_tokens;
    let rows = step.min(model.shape().max_logit_rows);
    let pages: Vec<PageId> = (0..pages_for(window.len()) as u32).map(PageId).collect();
    // The last token is predicted, and predicts none.
    let (half, end) = (window.len() / 2, window.len() - 1);
    let mut surprisals = vec![0.0; end - half];
    let mut position = 0;
    while position < end {
        let (until, logits) = if position < half {
            (half.min(position + step), LogitRows::None)
        } else {
            (end.min(position + rows), LogitRows::All)
        };
        let sequences = [SequenceStep {
            tokens: &window[position..until],
            position,
            pages: &pages,
            logits,
        }];
        let plan = StepPlan {
            sequences: &sequences,
        };
        let logits = model.forward(&plan, observer)?;
        if position >= half {
            let next = &window[position + 1..=until];
            let found = &mut surprisals[position - half..until - half];
            share_rows(logits, next, found, threads);
            if let Some(row) = found.iter().position(|nats| !nats.is_finite()) {
                let logits = &logits[row * vocab..][..vocab];
                return Err(culprit(logits, next[row], position + row));
            }
        }
        position = until;
    }
    Ok(surprisals)
}

/// Fills `surprisals` (`[rows]`) with `−ln p` of `next` (`[rows]`) by `logits` (`[rows, vocab]`).
fn share_rows(logits: &[f32], next: &[TokenId], surprisals: &mut [f64], threads: NonZeroUsize) {
    let vocab = logits.len() / next.len();
    let share = next.len().div_ceil(threads.get());
    std::thread::scope(|scope| {
        let shares = logits.chunks(share * vocab).zip(next.chunks(share));
        for ((logits, next), surprisals) in shares.zip(surprisals.chunks_mut(share)) {
            scope.spawn(move || {
                let rows = logits.chunks_exact(vocab).zip(next);
                for ((row, next), surprisal) in rows.zip(surprisals) {
                    *surprisal = -log_probability(row, *next);
                }
            });
        }
    });
}

/// The logit for which `next` has no finite likelihood at `position`.
fn culprit(logits: &[f32], next: TokenId, position: usize) -> Error {
    let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    let bad = logits.iter().position(is_bad);
    let id = bad.map_or(next, |id| TokenId(id as u32));
    Error::Logit {
        position,
        id,
        value: logits[id.0 as usize],
    }
}

/// What the tokens seen so far say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Estimate {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Estimate {
    /// Adds tokens by their `−ln p` in nats.
    pub(crate) fn add(&mut self, surprisals: &[f64]) {
        self.count += surprisals.len();
        self.sum += surprisals.iter().sum::<f64>();
        self.squares += surprisals.iter().map(|nats| nats * nats).sum::<f64>();
    }

    /// Tokens counted.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Mean `−ln p`, in nats; NaN without tokens.
    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// `exp(mean)`
    pub(crate) fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// Standard error of the perplexity; `None` below two tokens.
    pub(crate) fn standard_error(&self) -> Option<f64> {
        let degrees = self.count.checked_sub(1).filter(|degrees| *degrees > 0)?;
        // Rounding can take equal surprisals below zero.
        let variance = (self.squares / self.count as f64 - self.mean().powi(2)).max(0.0);
        Some((variance / degrees as f64).sqrt() * self.perplexity())
    }
}

#[cfg(test)]
mod tests {
    use redline_model::{ForwardShape, PageId, PlanError};

    use super::*;

    /// Its logits are a function of token and position; it takes what a model would take.
    struct Fake {
        vocab: usize,
        rows: usize,
        logits: fn(TokenId, usize, &mut [f32]),
        computed: Vec<TokenId>,
        out: Vec<f32>,
    }

    const STEP: usize = 5;

    impl Fake {
        fn new(vocab: usize, rows: usize, logits: fn(TokenId, usize, &mut [f32])) -> Self {
            Self {
                vocab,
                rows,
                logits,
                computed: Vec::new(),
                out: Vec::new(),
            }
        }

        fn surprisals(&mut self, window: &[u32], threads: usize) -> Result<Vec<f64>, Error> {
            let threads = NonZeroUsize::new(threads).unwrap();
            surprisals(self, &ids(window), threads, &mut ())
        }
    }

    impl Forward for Fake {
        fn shape(&self) -> ForwardShape {
            ForwardShape {
                vocab_size: self.vocab,
                context_length: 1000,
                page_count: pages_for(1000),
                max_step_tokens: STEP,
                max_logit_rows: self.rows,
            }
        }

        fn copy_page(&mut self, _: PageId, _: PageId) {
            unreachable!("one sequence has its own pages");
        }

        fn forward(
            &mut self,
            plan: &StepPlan<'_>,
            _: &mut dyn Observer,
        ) -> Result<&[f32], redline_model::Error> {
            let [step] = plan.sequences else {
                panic!("one sequence")
            };
            if step.position == 0 {
                self.computed.clear();
            }
            assert_eq!(
                step.position,
                self.computed.len(),
                "in order, without a gap"
            );
            self.computed.extend(step.tokens);
            assert!(step.pages.len() >= pages_for(self.computed.len()));
            let (tokens, rows) = (step.tokens.len(), step.logits.count(step.tokens.len()));
            assert!((1..=STEP).contains(&tokens));
            if rows > self.rows {
                return Err(PlanError::LogitRows {
                    found: rows,
                    limit: self.rows,
                }
                .into());
            }
            self.out.clear();
            self.out.resize(rows * self.vocab, 0.0);
            let rows = self.out.chunks_exact_mut(self.vocab);
            for ((row, token), position) in rows.zip(step.tokens).zip(step.position..) {
                (self.logits)(*token, position, row);
            }
            Ok(&self.out)
        }
    }

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-12 * expected.abs(),
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn equal_logits_have_the_vocabulary_for_perplexity() {
        for vocab in [2, 1000, 262_144] {
            let mut fake = Fake::new(vocab, 3, |_, _, row| row.fill(-7.25));
            let surprisals = fake.surprisals(&[1; 21], 2).unwrap();
            assert_eq!(surprisals.len(), 10);
            let mut estimate = Estimate::default();
            estimate.add(&surprisals);
            assert_close(estimate.perplexity(), vocab as f64);
            assert!(estimate.standard_error().unwrap() < 1e-6 * vocab as f64);
        }
    }

    /// After token t at position p, token (t + p) mod 8 is e² times as likely as each other.
    fn guess(token: TokenId, position: usize, row: &mut [f32]) {
        row[(token.0 as usize + position) % 8] = 2.0;
    }

    #[test]
    fn each_token_of_the_second_half_is_judged_by_the_logits_before_it() {
        let window = [3, 1, 4, 1, 5, 1, 7, 5, 5, 3, 5, 7, 1];
        let total = (2.0_f64.exp() + 7.0).ln();
        // Position 6 has token 7, so 13 mod 8 = 5 is the guess for position 7: right; then wrong;
        // 5 + 8 = 13: 5, wrong; 3 + 9 = 12: 4, wrong; 5 + 10 = 15: 7, right; 7 + 11 = 18: 2, wrong.
        let expected = [2.0, 0.0, 0.0, 0.0, 2.0, 0.0].map(|logit| total - logit);
        for (rows, threads) in [(1, 1), (2, 1), (4, 3), (STEP, 64), (100, 2)] {
            let mut fake = Fake::new(8, rows, guess);
            let found = fake.surprisals(&window, threads).unwrap();
            assert_eq!(found.len(), expected.len());
            found
                .iter()
                .zip(expected)
                .for_each(|(found, expected)| assert_close(*found, expected));
            assert_eq!(
                fake.computed,
                ids(&window[..12]),
                "the last predicts nothing"
            );
        }
        let mut smallest = Fake::new(8, 1, guess);
        let found = smallest.surprisals(&[0, 0, 1], 1).unwrap();
        assert_eq!(found.len(), 1);
        assert_close(found[0], total - 2.0);
    }

    #[test]
    fn logits_that_are_no_distribution_are_named() {
        let says = |logits| {
            let mut fake = Fake::new(8, 4, logits);
            fake.surprisals(&[6; 13], 2).unwrap_err().to_string()
        };
        let nan = says(|_, position, row| {
            if position == 9 {
                row[3] = f32::NAN;
            }
        });
        assert!(
            nan.contains("position 9") && nan.contains("token 3 is NaN"),
            "{nan}"
        );
        let infinite = says(|_, _, row| row[5] = f32::INFINITY);
        assert!(
            infinite.contains("position 6") && infinite.contains("token 5 is inf"),
            "{infinite}"
        );
        let impossible = says(|_, _, row| row[6] = f32::NEG_INFINITY);
        assert!(impossible.contains("token 6 is -inf"), "{impossible}");
        // Ids that the text does not have may be impossible.
        let mut masked = Fake::new(8, 4, |_, _, row| row[5] = f32::NEG_INFINITY);
        assert_close(masked.surprisals(&[6; 13], 2).unwrap()[0], 7.0_f64.ln());
    }

    #[test]
    fn windows_are_whole_and_begin_as_texts_begin() {
        let text: Vec<TokenId> = (100..111).map(TokenId).collect();
        let cut = |bos, size, most| {
            let windows = Windows::cut(&text, bos, size, most);
            let found: Vec<Vec<u32>> = windows
                .iter()
                .map(|window| window.iter().map(|id| id.0).collect())
                .collect();
            assert_eq!(windows.count(), found.len());
            found
        };
        assert_eq!(
            cut(None, 5, 9),
            [[100, 101, 102, 103, 104], [105, 106, 107, 108, 109]]
        );
        assert_eq!(
            cut(Some(TokenId(1)), 4, 9),
            [[1, 101, 102, 103], [1, 105, 106, 107]]
        );
        assert_eq!(cut(Some(TokenId(1)), 4, 1), [[1, 101, 102, 103]]);
        assert_eq!(cut(None, 11, 1).len(), 1);
        assert_eq!(cut(None, 12, 1), [[0; 0]; 0]);
    }

    #[test]
    fn the_error_is_that_of_the_mean_times_the_perplexity() {
        let mut estimate = Estimate::default();
        let nats = 2.0_f64.ln();
        estimate.add(&[nats]);
        assert_eq!(estimate.standard_error(), None);
        // Mean 2 ln 2, variance ln² 2 over one degree of freedom.
        estimate.add(&[3.0 * nats]);
        assert_eq!(estimate.count(), 2);
        assert_close(estimate.perplexity(), 4.0);
        assert_close(estimate.standard_error().unwrap(), 4.0 * nats);
    }
}
