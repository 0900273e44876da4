//! A plan's rows, checked and laid out for the verbs.

use redline_compute::{AttentionSpan, KvSlot, PAGE_POSITIONS};

use crate::load::Limits;
use crate::plan::{MAX_SEQUENCES, SequenceStep, StepPlan, pages_for};
use crate::{PlanError, Properties};

/// A plan's rows, laid out for the verbs.
#[derive(Debug)]
pub(super) struct Step {
    /// `[tokens]`
    pub(super) ids: Vec<u32>,
    /// `[tokens]`
    pub(super) positions: Vec<u32>,
    /// Types of the tokens, `[tokens]`: all are of the first.
    pub(super) types: Vec<u32>,
    /// `[tokens]`
    pub(super) slots: Vec<KvSlot>,
    /// Rows that get logits.
    pub(super) rows: Vec<usize>,
    /// Pages this step writes to, `[pages]`.
    written: Vec<bool>,
}

impl Step {
    /// Room for the largest plan.
    pub(super) fn new(limits: &Limits) -> Self {
        let (tokens, rows) = (limits.max_step_tokens, limits.max_logit_rows);
        Self {
            ids: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            types: Vec::with_capacity(tokens),
            slots: Vec::with_capacity(tokens),
            rows: Vec::with_capacity(rows),
            written: vec![false; limits.kv_pages],
        }
    }

    /// Checks a plan against the limits and lays its rows out.
    pub(super) fn lay_out(
        &mut self,
        plan: &StepPlan<'_>,
        properties: &Properties,
        limits: &Limits,
    ) -> Result<(), PlanError> {
        check_totals(plan, limits)?;
        self.ids.clear();
        self.positions.clear();
        self.slots.clear();
        self.rows.clear();
        self.written.fill(false);
        for (index, sequence) in plan.sequences.iter().enumerate() {
            check_sequence(index, sequence, properties, limits)?;
            let row = self.ids.len();
            let count = sequence.tokens.len();
            let positions = sequence.position..sequence.position + count;
            let touched = positions.start / PAGE_POSITIONS..pages_for(positions.end);
            for page in &sequence.pages[touched] {
                if std::mem::replace(&mut self.written[page.0 as usize], true) {
                    return Err(PlanError::SharedPage {
                        sequence: index,
                        page: page.0,
                    });
                }
            }
            self.ids.extend(sequence.tokens.iter().map(|token| token.0));
            self.slots.extend(positions.clone().map(|position| KvSlot {
                page: sequence.pages[position / PAGE_POSITIONS],
                offset: position % PAGE_POSITIONS,
            }));
            self.positions
                .extend(positions.map(|position| position as u32));
            self.rows
                .extend(row + count - sequence.logits.count(count)..row + count);
        }
        self.types.resize(self.ids.len(), 0);
        Ok(())
    }
}

fn check_totals(plan: &StepPlan<'_>, limits: &Limits) -> Result<(), PlanError> {
    let sequences = plan.sequences;
    if sequences.len() > MAX_SEQUENCES {
        return Err(PlanError::Sequences {
            found: sequences.len(),
            limit: MAX_SEQUENCES,
        });
    }
    let tokens = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    if tokens > limits.max_step_tokens {
        return Err(PlanError::Tokens {
            found: tokens,
            limit: limits.max_step_tokens,
        });
    }
    let rows = sequences
        .iter()
        .map(|sequence| sequence.logits.count(sequence.tokens.len()))
        .sum();
    if rows > limits.max_logit_rows {
        return Err(PlanError::LogitRows {
            found: rows,
            limit: limits.max_logit_rows,
        });
    }
    Ok(())
}

fn check_sequence(
    sequence: usize,
    step: &SequenceStep<'_>,
    properties: &Properties,
    limits: &Limits,
) -> Result<(), PlanError> {
    if step.tokens.is_empty() {
        return Err(PlanError::NoTokens { sequence });
    }
    if !properties.causal && step.position > 0 {
        return Err(PlanError::Part {
            sequence,
            position: step.position,
        });
    }
    let vocab = properties.vocab;
    if let Some(token) = step.tokens.iter().find(|token| token.0 as usize >= vocab) {
        return Err(PlanError::TokenId {
            sequence,
            found: token.0,
            vocab,
        });
    }
    let positions = step.position.saturating_add(step.tokens.len());
    if positions > limits.context {
        return Err(PlanError::Context {
            sequence,
            found: positions,
            context: limits.context,
        });
    }
    let (found, needed) = (step.pages.len(), pages_for(positions));
    if found < needed {
        return Err(PlanError::Pages {
            sequence,
            found,
            positions,
            needed,
        });
    }
    let pages = limits.kv_pages;
    match step.pages.iter().find(|page| page.0 as usize >= pages) {
        Some(page) => Err(PlanError::PageId {
            sequence,
            found: page.0,
            pages,
        }),
        None => Ok(()),
    }
}

pub(super) const NO_SPAN: AttentionSpan<'static> = AttentionSpan {
    row: 0,
    rows: 0,
    position: 0,
    pages: &[],
};

/// The plan's sequences as spans of rows, in memory of the caller's: a step allocates nothing.
pub(super) fn spans_of<'s, 'p>(
    plan: &StepPlan<'p>,
    spans: &'s mut [AttentionSpan<'p>; MAX_SEQUENCES],
) -> &'s [AttentionSpan<'p>] {
    let mut row = 0;
    for (span, sequence) in spans.iter_mut().zip(plan.sequences) {
        let rows = sequence.tokens.len();
        *span = AttentionSpan {
            row,
            rows,
            position: sequence.position,
            pages: sequence.pages,
        };
        row += rows;
    }
    &spans[..plan.sequences.len()]
}
