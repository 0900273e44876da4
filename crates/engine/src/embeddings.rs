//! Embeddings of many texts at a time: each text whole in one step, as many in a step as fit.

use std::collections::VecDeque;
use std::sync::Arc;

use redline_model::{
    Error as ModelError, Forward, ForwardShape, LogitRows, MAX_SEQUENCES, Observer, PAGE_POSITIONS,
    PageId, Pooling, SequenceStep, StepPlan, TokenId, normalize, pages_for,
};

use crate::Progress;

/// How embeddings are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    /// Of what.
    pub pooling: Pooling,
    /// Numbers of one.
    pub dimensions: usize,
}

/// Number of a job, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmbeddingId(pub u64);

/// What became of a job: an embedding of length 1 for each text, `[texts, dimensions]`.
#[derive(Debug)]
pub struct Embedded {
    /// Which.
    pub id: EmbeddingId,
    /// In the order of the texts, or what went wrong.
    pub rows: Result<Vec<Vec<f32>>, Arc<ModelError>>,
}

/// Makes embeddings with a model that gives hidden state. Jobs take turns, text by text, so that one of
/// many texts does not keep one of few waiting; which texts are computed together changes no bit.
#[derive(Debug)]
pub struct EmbeddingEngine<F> {
    forward: F,
    embedding: Embedding,
    /// The next text is that of the first.
    jobs: VecDeque<Job>,
    next: u64,
}

#[derive(Debug)]
struct Job {
    id: EmbeddingId,
    texts: Vec<Vec<TokenId>>,
    /// Texts that were computed: those before this one.
    rows: Vec<Vec<f32>>,
}

impl<F: Forward> EmbeddingEngine<F> {
    /// Takes a model over, with all its pages.
    #[must_use]
    pub const fn new(forward: F, embedding: Embedding) -> Self {
        Self {
            forward,
            embedding,
            jobs: VecDeque::new(),
            next: 0,
        }
    }

    /// Tokens of a text, at most: it must fit in one step, since each token sees all others.
    #[must_use]
    pub fn context_length(&self) -> usize {
        let shape = self.forward.shape();
        let positions = shape.page_count * PAGE_POSITIONS;
        shape.context_length.min(step_tokens(shape)).min(positions)
    }

    /// Jobs that are not over.
    #[must_use]
    pub fn open(&self) -> usize {
        self.jobs.len()
    }

    /// Takes texts in; [`Self::step`] tells their embeddings.
    ///
    /// # Panics
    /// If a text has no token or more than [`Self::context_length`], or there is none.
    pub fn submit(&mut self, texts: Vec<Vec<TokenId>>) -> EmbeddingId {
        let lengths = 1..=self.context_length();
        let fit = texts.iter().all(|text| lengths.contains(&text.len()));
        assert!(fit && !texts.is_empty(), "texts of {lengths:?} tokens");
        let id = EmbeddingId(self.next);
        self.next += 1;
        self.jobs.push_back(Job {
            id,
            texts,
            rows: Vec::new(),
        });
        id
    }

    /// Forgets a job.
    pub fn cancel(&mut self, id: EmbeddingId) {
        self.jobs.retain(|job| job.id != id);
    }

    /// Computes a step. `break_off` is asked before every half of a layer, with the jobs whose texts are
    /// computed; a step that was broken off is as if it had not been. If
    /// the model fails, the jobs of the step are over.
    pub fn step(
        &mut self,
        break_off: &mut dyn FnMut(&[EmbeddingId]) -> bool,
        done: &mut Vec<Embedded>,
    ) -> Progress {
        let turns = self.plan();
        if turns.is_empty() {
            return Progress::Idle;
        }
        let mut ids: Vec<EmbeddingId> = turns.iter().map(|(job, _)| self.jobs[*job].id).collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = match self.compute(&turns, &ids, break_off) {
            Ok(rows) => rows,
            Err(ModelError::Cancelled) => return Progress::BrokenOff,
            Err(error) => {
                self.jobs.retain(|job| !ids.contains(&job.id));
                let error = Arc::new(error);
                done.extend(ids.into_iter().map(|id| Embedded {
                    id,
                    rows: Err(Arc::clone(&error)),
                }));
                return Progress::Step;
            }
        };
        for ((job, _), row) in turns.iter().zip(rows) {
            self.jobs[*job].rows.push(row);
        }
        // Whoever had a turn last comes last.
        let last = turns.last().map_or(0, |(job, _)| *job);
        self.jobs.rotate_left((last + 1) % self.jobs.len());
        let is_over = |job: &Job| job.rows.len() == job.texts.len();
        let (over, open) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition(is_over);
        self.jobs = open;
        let over: VecDeque<Job> = over;
        done.extend(over.into_iter().map(|job| Embedded {
            id: job.id,
            rows: Ok(job.rows),
        }));
        Progress::Step
    }

    /// Texts of the next step, by job and number: one of each job in turn, until one does not fit.
    fn plan(&self) -> Vec<(usize, usize)> {
        let shape = self.forward.shape();
        let (mut tokens, mut pages) = (step_tokens(shape), shape.page_count);
        let mut turns = Vec::new();
        for round in 0.. {
            let before = turns.len();
            for (number, job) in self.jobs.iter().enumerate() {
                let Some(text) = job.texts.get(job.rows.len() + round) else {
                    continue;
                };
                let is_full = turns.len() == MAX_SEQUENCES;
                if is_full || text.len() > tokens || pages_for(text.len()) > pages {
                    return turns;
                }
                tokens -= text.len();
                pages -= pages_for(text.len());
                turns.push((number, job.rows.len() + round));
            }
            if turns.len() == before {
                break;
            }
        }
        turns
    }

    /// An embedding for each text.
    fn compute(
        &mut self,
        turns: &[(usize, usize)],
        ids: &[EmbeddingId],
        break_off: &mut dyn FnMut(&[EmbeddingId]) -> bool,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let pages: Vec<PageId> = (0..self.forward.shape().page_count as u32)
            .map(PageId)
            .collect();
        let mut free = &pages[..];
        let steps: Vec<SequenceStep<'_>> = (turns.iter())
            .map(|(job, text)| {
                let tokens = &self.jobs[*job].texts[*text];
                let own;
                (own, free) = free.split_at(pages_for(tokens.len()));
                SequenceStep {
                    tokens,
                    position: 0,
                    pages: own,
                    logits: LogitRows::All,
                }
            })
            .collect();
        let plan = StepPlan { sequences: &steps };
        let mut watch = Watch { ids, break_off };
        let mut rest = self.forward.forward(&plan, &mut watch)?;
        let Embedding {
            pooling,
            dimensions,
        } = self.embedding;
        let embeddings = steps.iter().map(|step| {
            let rows;
            (rows, rest) = rest.split_at(step.tokens.len() * dimensions);
            let mut row = pooling.pool(rows, dimensions);
            normalize(&mut row);
            row
        });
        Ok(embeddings.collect())
    }
}

/// Tokens of a step, at most: all of them give a row.
fn step_tokens(shape: ForwardShape) -> usize {
    shape.max_step_tokens.min(shape.max_logit_rows)
}

/// Ends a step between two halves of a layer.
struct Watch<'a> {
    ids: &'a [EmbeddingId],
    break_off: &'a mut dyn FnMut(&[EmbeddingId]) -> bool,
}

impl Observer for Watch<'_> {
    fn cancelled(&mut self) -> bool {
        (self.break_off)(self.ids)
    }
}
