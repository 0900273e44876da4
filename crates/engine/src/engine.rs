//! The loop: compute what is missing, draw one token, repeat.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use redline_model::{
    Error as ModelError, Forward, LogitRows, Observer, PAGE_POSITIONS, PageId, SequenceStep,
    StepPlan, TokenId,
};

use crate::{EndReason, Error, GeneratedToken, Outcome, Request, Sampler};

/// How an engine works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens of a prompt computed in one step, at least 1; more than the model's step limit means
    /// that limit.
    pub chunk_tokens: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { chunk_tokens: 512 }
    }
}

/// Generates one sequence at a time.
///
/// The keys and values of the last sequence stay, and the next request computes only what follows
/// the longest prefix it has in common with them: turns of a chat are cheap.
#[derive(Debug)]
pub struct Engine<F> {
    forward: F,
    chunk_tokens: usize,
    /// Clock of the durations in an [`Outcome`].
    clock: fn() -> Instant,
    /// Page `i` holds positions `64 i ..` of the sequence.
    pages: Vec<PageId>,
    /// The tokens whose keys and values the pages hold.
    computed: Vec<TokenId>,
}

impl<F: Forward> Engine<F> {
    /// Takes a model over, with all its pages.
    ///
    /// # Panics
    /// If `options.chunk_tokens` is 0.
    #[must_use]
    pub fn new(forward: F, options: EngineOptions) -> Self {
        assert!(
            options.chunk_tokens > 0,
            "a step computes at least one token"
        );
        let chunk_tokens = options.chunk_tokens.min(forward.max_step_tokens());
        let needed = forward.context_length().div_ceil(PAGE_POSITIONS);
        let pages = (0..forward.page_count().min(needed))
            .map(|page| PageId(page as u32))
            .collect();
        Self {
            forward,
            chunk_tokens,
            clock: Instant::now,
            pages,
            computed: Vec::new(),
        }
    }

    /// Measures durations with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Instant) -> Self {
        self.clock = clock;
        self
    }

    /// Positions a sequence can have: the model's context, or what its pages hold if that is less.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.forward
            .context_length()
            .min(self.pages.len() * PAGE_POSITIONS)
    }

    /// The model.
    #[must_use]
    pub fn forward(&self) -> &F {
        &self.forward
    }

    /// Gives the model back.
    #[must_use]
    pub fn into_forward(self) -> F {
        self.forward
    }

    /// Forgets the last sequence: the next request computes its whole prompt.
    pub fn clear(&mut self) {
        self.computed.clear();
    }

    /// Generates until an end token, `max_tokens`, `cancel`, or `on_token` breaking off.
    ///
    /// `cancel` is polled before every layer, so it works inside a long prompt too.
    ///
    /// # Errors
    /// If the request breaks its rules or does not fit in the context: nothing is computed then.
    /// If the model or the sampler fails.
    pub fn generate(
        &mut self,
        request: &Request,
        cancel: &AtomicBool,
        on_token: &mut dyn FnMut(GeneratedToken) -> ControlFlow<()>,
    ) -> Result<Outcome, Error> {
        self.check(request)?;
        let vocab = self.forward.vocab_size();
        let mut sampler = Sampler::new(&request.sampling, SEQUENCE, vocab);
        sampler.observe(&request.prompt);
        let mut run = Run::new(request, (self.clock)(), self.reuse_prefix(&request.prompt));
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Ok(run.end(EndReason::Cancelled, (self.clock)()));
            }
            let logits = match self.step(&run.tokens, cancel) {
                Ok(Some(logits)) => logits,
                Ok(None) => continue,
                Err(Error::Model(ModelError::Cancelled)) => {
                    return Ok(run.end(EndReason::Cancelled, (self.clock)()));
                }
                Err(error) => return Err(error),
            };
            let index = run.generated();
            let sampled = sampler
                .sample(logits, run.tokens.len() as u64, request.logprobs)
                .map_err(|source| Error::Sampling { index, source })?;
            run.first_token.get_or_insert_with(self.clock);
            let id = sampled.id;
            if request.end_tokens.contains(&id) {
                return Ok(run.end(EndReason::Eos, (self.clock)()));
            }
            run.tokens.push(id);
            sampler.observe(&[id]);
            if on_token(GeneratedToken {
                id,
                index,
                logprob: sampled.logprob,
            })
            .is_break()
            {
                return Ok(run.end(EndReason::Stop, (self.clock)()));
            }
            if run.generated() == request.max_tokens {
                return Ok(run.end(EndReason::Length, (self.clock)()));
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let errors = request.field_errors(self.forward.vocab_size());
        if !errors.is_empty() {
            return Err(Error::InvalidRequest(errors));
        }
        let (prompt_tokens, max_tokens) = (request.prompt.len(), request.max_tokens);
        let context_length = self.context_length();
        if prompt_tokens.saturating_add(max_tokens) > context_length {
            return Err(Error::ContextLengthExceeded {
                prompt_tokens,
                max_tokens,
                context_length,
            });
        }
        Ok(())
    }

    /// Keeps what the last sequence and `prompt` have in common, but never all of the prompt: its
    /// last token must run for its logits. Returns the number of tokens kept.
    fn reuse_prefix(&mut self, prompt: &[TokenId]) -> usize {
        let candidates = &prompt[..prompt.len() - 1];
        let common = self
            .computed
            .iter()
            .zip(candidates)
            .take_while(|(old, new)| old == new)
            .count();
        self.computed.truncate(common);
        common
    }

    /// Lets the computed tokens catch up with `tokens` by one chunk; the logits of the last token if
    /// that was all.
    fn step(&mut self, tokens: &[TokenId], cancel: &AtomicBool) -> Result<Option<&[f32]>, Error> {
        let position = self.computed.len();
        let end = tokens.len().min(position + self.chunk_tokens);
        let is_last = end == tokens.len();
        let chunk = &tokens[position..end];
        let sequence = SequenceStep {
            tokens: chunk,
            position,
            pages: &self.pages[..end.div_ceil(PAGE_POSITIONS)],
            logits: if is_last {
                LogitRows::Last
            } else {
                LogitRows::None
            },
        };
        let plan = StepPlan {
            sequences: &[sequence],
        };
        let logits = self.forward.forward(&plan, &mut Cancel(cancel))?;
        self.computed.extend_from_slice(chunk);
        Ok(is_last.then_some(logits))
    }
}

/// Number of the one sequence, for its random stream.
const SEQUENCE: u64 = 0;

/// A generation under way.
struct Run {
    /// The prompt and everything generated.
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    cached_tokens: usize,
    start: Instant,
    first_token: Option<Instant>,
}

impl Run {
    fn new(request: &Request, start: Instant, cached_tokens: usize) -> Self {
        let mut tokens = Vec::with_capacity(request.prompt.len() + request.max_tokens);
        tokens.extend_from_slice(&request.prompt);
        let prompt_tokens = request.prompt.len();
        Self {
            tokens,
            prompt_tokens,
            cached_tokens,
            start,
            first_token: None,
        }
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    fn end(mut self, end_reason: EndReason, now: Instant) -> Outcome {
        let generated = self.tokens.split_off(self.prompt_tokens);
        let first_token = self.first_token.unwrap_or(now);
        Outcome {
            end_reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            generated,
            prefill: first_token.saturating_duration_since(self.start),
            decode: now.saturating_duration_since(first_token),
        }
    }
}

/// Ends a step between two layers.
struct Cancel<'a>(&'a AtomicBool);

impl Observer for Cancel<'_> {
    fn cancelled(&mut self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
