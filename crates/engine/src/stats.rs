//! What an engine did since its start.

use crate::{EndReason, Error, Outcome};

/// Counters; none ever falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Steps that were computed.
    pub steps: u64,
    /// Prompt tokens of answers that are over.
    pub prompt_tokens: u64,
    /// Of those, tokens that were in the prefix cache.
    pub cached_tokens: u64,
    /// Prompt tokens computed, those of preempted answers again.
    pub computed_prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Guesses checked, in answers that are over.
    pub drafts_proposed: u64,
    /// Of those, guesses that were right.
    pub drafts_accepted: u64,
    /// Of the guesses checked, those of the draft model.
    pub drafts_model_proposed: u64,
    /// Of those, guesses that were right.
    pub drafts_model_accepted: u64,
    /// Whether the draft model failed, and is not asked any more: 0 or 1.
    pub draft_failures: u64,
    /// Answers that lost their pages to others, and went on later.
    pub preemptions: u64,
    /// Answers that ended with an end token.
    pub ended_eos: u64,
    /// Answers that ended at their length.
    pub ended_length: u64,
    /// Answers that ended at a stop string.
    pub ended_stop: u64,
    /// Answers that were cancelled.
    pub ended_cancelled: u64,
    /// Answers that ran out of time.
    pub ended_time_limit: u64,
    /// Answers that failed.
    pub ended_error: u64,
}

impl Stats {
    pub(crate) fn count_end(&mut self, outcome: &Result<Outcome, Error>) {
        if let Ok(outcome) = outcome {
            self.prompt_tokens += outcome.prompt_tokens as u64;
            self.cached_tokens += outcome.cached_tokens as u64;
            self.drafts_proposed += outcome.drafts.proposed as u64;
            self.drafts_accepted += outcome.drafts.accepted as u64;
            self.drafts_model_proposed += outcome.drafts.model_proposed as u64;
            self.drafts_model_accepted += outcome.drafts.model_accepted as u64;
        }
        let reason = outcome.as_ref().map(|outcome| outcome.end_reason);
        *match reason {
            Ok(EndReason::Eos) => &mut self.ended_eos,
            Ok(EndReason::Length) => &mut self.ended_length,
            Ok(EndReason::Stop) => &mut self.ended_stop,
            Ok(EndReason::Cancelled) => &mut self.ended_cancelled,
            Ok(EndReason::TimeLimit) => &mut self.ended_time_limit,
            Err(_) => &mut self.ended_error,
        } += 1;
    }
}
