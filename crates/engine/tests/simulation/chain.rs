//! A model of which every position is a link: what a page holds is a hash of all tokens up to there,
//! and the logits are made of the last one. A page that was lost, mixed up or written twice breaks it.

use redline_model::{
    Error, Forward, ForwardShape, LogitRows, Observer, PAGE_POSITIONS, PageId, StepPlan, TokenId,
};
use redline_testkit::mix;

pub(crate) const VOCAB: usize = 32;

/// Links, and the one before the first.
#[derive(Debug, Clone, Copy)]
struct Page {
    before: u64,
    links: [u64; PAGE_POSITIONS],
}

#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) context: usize,
    pub(crate) step_tokens: usize,
    pub(crate) logit_rows: usize,
    pub(crate) window: Option<usize>,
    /// What follows a link.
    pub(crate) says: fn(u64) -> [f32; VOCAB],
    /// Told how many tokens a step has, before it is over.
    pub(crate) tick: fn(usize),
    pages: Vec<Page>,
    logits: Vec<f32>,
    /// Tokens that were computed.
    pub(crate) computed: u64,
    pub(crate) copies: u64,
    /// The largest step with tokens of several sequences.
    pub(crate) widest: usize,
}

impl Chain {
    pub(crate) fn new(context: usize, pages: usize, step_tokens: usize, logit_rows: usize) -> Self {
        Self {
            context,
            step_tokens,
            logit_rows,
            window: None,
            says: logits,
            tick: |_| (),
            pages: vec![
                Page {
                    before: 0,
                    links: [0; PAGE_POSITIONS],
                };
                pages
            ],
            logits: Vec::new(),
            computed: 0,
            copies: 0,
            widest: 0,
        }
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }
}

/// The link of a token after those of `before`.
pub(crate) fn link(before: u64, token: TokenId) -> u64 {
    mix(before ^ (u64::from(token.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// What follows a link: most often one of two tokens, and in some contexts what came before, so that
/// guesses are right at times.
pub(crate) fn logits(link: u64) -> [f32; VOCAB] {
    let mut logits = [0.0; VOCAB];
    let sharp = if link.is_multiple_of(3) { 9.0 } else { 4.0 };
    logits[(link >> 8) as usize % 4] = sharp;
    logits[(link >> 16) as usize % VOCAB] += 2.0;
    logits
}

impl Forward for Chain {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: VOCAB,
            context_length: self.context,
            page_count: self.pages.len(),
            max_step_tokens: self.step_tokens,
            max_logit_rows: self.logit_rows,
        }
    }

    fn attention_window(&self) -> Option<usize> {
        self.window
    }

    fn copy_page(&mut self, from: PageId, to: PageId) {
        assert_ne!(from, to);
        self.pages[to.0 as usize] = self.pages[from.0 as usize];
        self.copies += 1;
    }

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], Error> {
        let count = |of: fn(LogitRows, usize) -> usize| -> usize {
            (plan.sequences.iter())
                .map(|sequence| of(sequence.logits, sequence.tokens.len()))
                .sum()
        };
        assert!(
            count(|_, tokens| tokens) <= self.step_tokens,
            "a step too long"
        );
        assert!(count(LogitRows::count) <= self.logit_rows, "too many rows");
        self.widest = self.widest.max(plan.sequences.len());
        self.logits.clear();
        let mut written = Vec::new();
        for sequence in plan.sequences {
            assert!(!sequence.tokens.is_empty(), "nothing to compute");
            let slot = |position: usize| {
                (
                    sequence.pages[position / PAGE_POSITIONS].0 as usize,
                    position % PAGE_POSITIONS,
                )
            };
            self.check_pages(sequence.pages, sequence.position);
            let mut last = match sequence.position {
                0 => 0,
                position => {
                    let (page, offset) = slot(position - 1);
                    self.pages[page].links[offset]
                }
            };
            let count = sequence.tokens.len();
            for (i, token) in sequence.tokens.iter().enumerate() {
                let (page, offset) = slot(sequence.position + i);
                written.push(page);
                if offset == 0 {
                    self.pages[page].before = last;
                }
                last = link(last, *token);
                self.pages[page].links[offset] = last;
                if i + sequence.logits.count(count) >= count {
                    self.logits.extend((self.says)(last));
                }
            }
            written.dedup();
        }
        self.computed += count(|_, tokens| tokens) as u64;
        let pages = written.len();
        written.sort_unstable();
        written.dedup();
        assert_eq!(written.len(), pages, "two sequences write to one page");
        (self.tick)(count(|_, tokens| tokens));
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(&self.logits)
    }
}

impl Chain {
    /// Checks that no page a layer can see is another one's: each begins where the one before ends.
    fn check_pages(&self, pages: &[PageId], positions: usize) {
        let first = self
            .window
            .map_or(0, |window| (positions + 1).saturating_sub(window));
        let seen: Vec<PageId> = pages[first / PAGE_POSITIONS..].to_vec();
        let mut ids: Vec<u32> = seen.iter().map(|page| page.0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), seen.len(), "one page in two places");
        assert!(
            positions <= pages.len() * PAGE_POSITIONS,
            "a page is missing"
        );
        let seen = &seen[..seen
            .len()
            .min(positions.div_ceil(PAGE_POSITIONS) - first / PAGE_POSITIONS)];
        for (page, next) in seen.iter().zip(&seen[1.min(seen.len())..]) {
            let end = self.pages[page.0 as usize].links[PAGE_POSITIONS - 1];
            assert_eq!(
                end, self.pages[next.0 as usize].before,
                "another one's page"
            );
        }
    }
}
