//! What a step computes, and the trait that computes it. Plain values: no tensors.

use redline_compute::{PAGE_POSITIONS, PageId};
use redline_gguf::TokenId;

use crate::Error;

/// Sequences in one step, at most.
pub const MAX_SEQUENCES: usize = 256;

/// Pages that hold `positions` positions.
#[must_use]
pub const fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE_POSITIONS)
}

/// Which rows of a sequence's tokens get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: more of the prompt follows.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

impl LogitRows {
    /// Rows of logits for `tokens` tokens.
    #[must_use]
    pub const fn count(self, tokens: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Last => 1,
            Self::All => tokens,
        }
    }
}

/// The next tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct SequenceStep<'a> {
    /// Tokens to compute, at least one.
    pub tokens: &'a [TokenId],
    /// Position of the first token; all positions before it are already in the pages.
    pub position: usize,
    /// The sequence's pages in order, enough for all positions up to the last token's. The pages
    /// this step writes to belong to this sequence alone; earlier ones may be shared.
    pub pages: &'a [PageId],
    /// Which rows get logits.
    pub logits: LogitRows,
}

/// One step: any number of sequences, computed together.
#[derive(Debug, Clone, Copy)]
pub struct StepPlan<'a> {
    /// At most [`MAX_SEQUENCES`] sequences.
    pub sequences: &'a [SequenceStep<'a>],
}

/// Where in the network a row of hidden state is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The (scaled) token embeddings, all rows of the step.
    Embedding,
    /// The residual stream after a layer, all rows of the step.
    Layer(usize),
    /// After the last norm: only the rows that get logits.
    FinalNorm,
}

/// Looks on while a step runs. `()` sees nothing and never cancels.
pub trait Observer {
    /// Whether [`Observer::hidden`] is to be called: on a device it costs a copy.
    fn wants_hidden(&self) -> bool {
        false
    }

    /// Hidden state at `stage`, `[rows, hidden]`.
    fn hidden(&mut self, stage: Stage, rows: &[f32]) {
        let _ = (stage, rows);
    }

    /// Polled before every half of a layer: `true` ends the step with [`Error::Cancelled`]. The positions of
    /// that step then count as not computed.
    fn cancelled(&mut self) -> bool {
        false
    }
}

impl Observer for () {}

/// How large a model is, and what it was loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardShape {
    /// Number of token ids; every id of a plan is below it.
    pub vocab_size: usize,
    /// Positions a sequence can have.
    pub context_length: usize,
    /// Pages of the KV cache; every page id of a plan is below it.
    pub page_count: usize,
    /// Tokens in one step, at most.
    pub max_step_tokens: usize,
    /// Rows of logits in one step, at most.
    pub max_logit_rows: usize,
}

/// A model, as the engine sees it.
pub trait Forward {
    /// The same as long as it lives.
    fn shape(&self) -> ForwardShape;

    /// A distance so that no layer looks at positions further back: a query at position p sees those
    /// above `p - window`. `None` if some layer sees all.
    fn attention_window(&self) -> Option<usize> {
        None
    }

    /// Copies the keys and values of a page to another.
    fn copy_page(&mut self, from: PageId, to: PageId);

    /// Computes a step and returns the requested rows of logits, `[rows, vocab]`, in the order of
    /// the plan; of hidden state, `[rows, hidden]`, if the model was loaded for that.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan breaks a limit above: nothing is computed then.
    /// [`Error::Cancelled`] if the observer asked for it.
    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], Error>;
}
