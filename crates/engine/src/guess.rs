//! Where guesses come from: what was there before, and else the draft model.

use std::time::Duration;

use redline_model::{Error as ModelError, Forward};

use crate::draft::{Ahead, Ask, Draft};
use crate::engine::Watch;
use crate::schedule::Plan;
use crate::{Engine, Error, UnderWay};

/// The share of the time by which others may be delayed that the draft model may read prompts in.
const READ_SHARE: u32 = 2;

impl<F: Forward> Engine<F> {
    /// Lets a smaller model guess what this one will say, where that makes it faster. It may fail or
    /// say nothing: no answer depends on it.
    ///
    /// # Errors
    /// If its vocabulary is not as large as the model's. That tokens mean the same is for the caller
    /// to know.
    pub fn with_draft(mut self, draft: Box<dyn Forward + Send>) -> Result<Self, Error> {
        let (expected, found) = (self.forward.shape().vocab_size, draft.shape().vocab_size);
        if expected != found {
            return Err(Error::DraftVocabulary { expected, found });
        }
        self.draft = Some(Draft::new(draft));
        Ok(self)
    }

    /// Pages of the draft model that answers under way have.
    #[must_use]
    pub fn draft_pages_in_use(&self) -> usize {
        self.draft.as_ref().map_or(0, Draft::pages_in_use)
    }

    /// Gives answers that may have them guesses of their next tokens. `false` if it was broken off.
    pub(crate) fn guess(&mut self, break_off: &mut dyn FnMut(&UnderWay) -> bool) -> bool {
        let start = self.now();
        let mut ahead = Ahead {
            decoding: 0,
            rows: 0,
            most_rows: 0,
        };
        for (id, line) in &mut self.lines {
            let Some(tokens) = self.scheduler.decoding(*id) else {
                continue;
            };
            ahead.decoding += 1;
            line.asked_model = false;
            if let Some(speculator) = &mut line.speculator {
                let drafts = speculator.guess(tokens);
                line.asked_model = drafts.is_empty();
                ahead.rows += drafts.len();
                self.scheduler.draft(*id, &drafts);
            }
        }
        let limits = self.scheduler.limits();
        ahead.rows += ahead.decoding;
        ahead.most_rows = limits.logit_rows.min(limits.step_tokens);
        match self.ask_model(ahead, break_off) {
            Ok(()) => {
                if ahead.decoding > 1 {
                    let took = self.now().saturating_sub(start);
                    self.scheduler.spend(took);
                }
                true
            }
            Err(ModelError::Cancelled) => false,
            Err(_) => {
                // Answers do without.
                self.draft = None;
                self.stats.draft_failures += 1;
                true
            }
        }
    }

    /// Gives answers that have no guesses yet those of the draft model.
    fn ask_model(
        &mut self,
        ahead: Ahead,
        break_off: &mut dyn FnMut(&UnderWay) -> bool,
    ) -> Result<(), ModelError> {
        let now = self.clock();
        let Self {
            scheduler,
            lines,
            draft,
            ..
        } = self;
        let Some(draft) = draft else {
            return Ok(());
        };
        let has_others = lines.len() > 1;
        let (mut asks, mut prompts): (Vec<Ask<'_>>, Vec<_>) = Default::default();
        for (id, line) in lines.iter().filter(|(_, line)| line.asked_model) {
            if let Some(tokens) = scheduler.decoding(*id) {
                prompts.push(line.id);
                asks.push(line.ask(*id, tokens));
            }
        }
        if asks.is_empty() {
            return Ok(());
        }
        let read_time = has_others.then(|| scheduler.limits().decode_delay / READ_SHARE);
        let mut watch = Watch {
            under_way: UnderWay { prompts },
            break_off,
        };
        let guesses = draft.guess(&mut asks, ahead, read_time, &now, &mut watch)?;
        drop(asks);
        for (id, guesses) in guesses {
            scheduler.draft(id, &guesses);
        }
        Ok(())
    }

    /// Takes note of how long a step took, where that says what guesses cost.
    pub(crate) fn took(&mut self, plan: &Plan, took: Duration) {
        let Some(draft) = &mut self.draft else {
            return;
        };
        let decodes = plan.sequences.iter().all(|planned| !planned.prompt);
        let rows = plan.sequences.iter().map(|planned| planned.count).sum();
        draft.stepped(decodes.then_some(rows), took);
    }
}
