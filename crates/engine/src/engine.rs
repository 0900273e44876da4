//! Steps: plan, compute, draw, commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redline_model::{Error as ModelError, Forward, Observer, SequenceStep, StepPlan};

use crate::draft::Draft;
use crate::line::{Drawn, Line};
use crate::schedule::{Limits, Load, NewSequence, Plan, Scheduler, SequenceId};
use crate::{
    EndReason, Error, GeneratedToken, Logprob, Outcome, Request, RequestId, Scratch, Stats,
};

/// How an engine works. No result depends on any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens computed in one step, at least 1; more than the model's step limit means that limit.
    pub chunk_tokens: usize,
    /// Answers that run at a time.
    pub max_running: usize,
    /// Answers that wait.
    pub max_waiting: usize,
    /// What the prompt tokens of a step may add to its time while others decode.
    pub decode_delay: Duration,
    /// What the prompt tokens of any step may take.
    pub step_time: Duration,
    /// Whether keys and values of answers that are over are kept for prompts that begin alike.
    pub prefix_cache: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            chunk_tokens: 512,
            max_running: 64,
            max_waiting: 256,
            decode_delay: Duration::from_millis(50),
            step_time: Duration::from_secs(1),
            prefix_cache: true,
        }
    }
}

/// What there is to tell.
#[derive(Debug)]
pub enum Event {
    /// How likely tokens of the prompt are.
    PromptLogprobs {
        /// Whose.
        request: RequestId,
        /// Of every token but the first, which nothing says anything of.
        logprobs: Vec<Logprob>,
    },
    /// A token.
    Token {
        /// Whose.
        request: RequestId,
        /// Number of the answer, from 0.
        choice: usize,
        /// It.
        token: GeneratedToken,
    },
    /// The end of an answer: each has exactly one.
    End {
        /// Whose.
        request: RequestId,
        /// Number of the answer, from 0.
        choice: usize,
        /// The account, or what went wrong.
        outcome: Result<Outcome, Error>,
    },
}

impl Event {
    /// Whose it is.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::PromptLogprobs { request, .. }
            | Self::Token { request, .. }
            | Self::End { request, .. } => *request,
        }
    }
}

/// What a call of [`Engine::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A step.
    Step,
    /// A step, broken off.
    BrokenOff,
    /// Nothing: there is nothing to do.
    Idle,
}

/// The step under way, for who decides whether to break it off.
#[derive(Debug)]
pub struct UnderWay {
    pub(crate) prompts: Vec<RequestId>,
}

impl UnderWay {
    fn new(plan: &Plan, lines: &BTreeMap<SequenceId, Line>) -> Self {
        let prompts = plan.sequences.iter().filter(|planned| planned.prompt);
        let lines = prompts.filter_map(|planned| lines.get(&planned.id));
        Self {
            prompts: lines.map(|line| line.id).collect(),
        }
    }

    /// Whether it computes prompt tokens of a request: to break it off is worth while if that was
    /// cancelled. A request can do so once, so nobody keeps others from going on.
    #[must_use]
    pub fn has_prompt_of(&self, request: RequestId) -> bool {
        self.prompts.contains(&request)
    }
}

/// Generates many answers at a time, each as if it were alone.
#[derive(Debug)]
pub struct Engine<F> {
    pub(crate) forward: F,
    pub(crate) scheduler: Scheduler,
    pub(crate) lines: BTreeMap<SequenceId, Line>,
    pub(crate) draft: Option<Draft>,
    scratch: Scratch,
    clock: fn() -> Instant,
    start: Instant,
    next_request: u64,
    pub(crate) stats: Stats,
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
        let scheduler = Scheduler::new(Limits {
            context: forward.shape().context_length,
            pages: forward.shape().page_count,
            step_tokens: options.chunk_tokens.min(forward.shape().max_step_tokens),
            logit_rows: forward.shape().max_logit_rows,
            window: forward.attention_window(),
            running: options.max_running,
            waiting: options.max_waiting,
            decode_delay: options.decode_delay,
            step_time: options.step_time,
            prefix_cache: options.prefix_cache,
        });
        Self {
            forward,
            scheduler,
            lines: BTreeMap::new(),
            draft: None,
            scratch: Scratch::default(),
            clock: Instant::now,
            start: Instant::now(),
            next_request: 0,
            stats: Stats::default(),
        }
    }

    /// Measures durations with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Instant) -> Self {
        self.clock = clock;
        self.start = clock();
        self
    }

    /// Positions a sequence can have: the model's context, or what its pages hold if that is less.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.scheduler.limits().context
    }

    /// The model.
    #[must_use]
    pub const fn forward(&self) -> &F {
        &self.forward
    }

    /// Gives the model back.
    #[must_use]
    pub fn into_forward(self) -> F {
        self.forward
    }

    /// Forgets every prefix that no answer under way uses.
    pub fn clear(&mut self) {
        self.scheduler.forget_prefixes();
        if let Some(draft) = &mut self.draft {
            draft.clear();
        }
    }

    /// Numbers of the moment.
    #[must_use]
    pub fn load(&self) -> Load {
        self.scheduler.load()
    }

    /// What was done since the start.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock()()
    }

    /// Time since the start, for who cannot hold the engine meanwhile.
    pub(crate) fn clock(&self) -> impl Fn() -> Duration + use<F> {
        let (clock, start) = (self.clock, self.start);
        move || clock().saturating_duration_since(start)
    }

    /// Takes a request in; [`Self::step`] tells what comes of it.
    ///
    /// # Errors
    /// If it breaks its rules, does not fit in the context, or too many wait.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        self.check(&request)?;
        if !self.scheduler.has_room(request.choices) {
            return Err(Error::Overloaded {
                waiting: self.scheduler.load().waiting,
            });
        }
        let now = self.now();
        let id = RequestId(self.next_request);
        let vocab = self.forward.shape().vocab_size;
        let request = Arc::new(request);
        let lines = (0..request.choices)
            .map(|choice| Line::new(&request, id, choice, vocab, now))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Grammar)?;
        self.next_request += 1;
        let mut first = None;
        for line in lines {
            let sequence = NewSequence {
                prompt: request.prompt.clone(),
                max_tokens: request.max_tokens,
                priority: request.priority,
                deadline: request.time_limit.map(|limit| now + limit),
                prompt_logits: request.prompt_logprobs.is_some() && line.choice == 0,
                sibling: first,
            };
            let sequence = (self.scheduler.submit(sequence, now)).expect("there is room for all");
            first = first.or(Some(sequence));
            self.lines.insert(sequence, line);
        }
        Ok(id)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let errors = request.field_errors(self.forward.shape().vocab_size);
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

    /// Ends every answer of a request that is not over, and frees all it had.
    pub fn end(&mut self, request: RequestId, reason: EndReason, events: &mut Vec<Event>) {
        let ids = self.sequences_of(request, None);
        self.end_all(&ids, &Ok(reason), events);
    }

    /// Ends one answer, if it is not over.
    pub fn end_choice(
        &mut self,
        request: RequestId,
        choice: usize,
        reason: EndReason,
        events: &mut Vec<Event>,
    ) {
        let ids = self.sequences_of(request, Some(choice));
        self.end_all(&ids, &Ok(reason), events);
    }

    /// Ends everything that the last step was to compute, after it failed.
    pub fn fail(&mut self, error: &Arc<ModelError>, events: &mut Vec<Event>) {
        let ids: Vec<SequenceId> = self.lines.keys().copied().collect();
        self.end_all(&ids, &Err(Arc::clone(error)), events);
    }

    fn sequences_of(&self, request: RequestId, choice: Option<usize>) -> Vec<SequenceId> {
        let is_meant =
            |line: &Line| line.id == request && choice.is_none_or(|choice| line.choice == choice);
        let lines = self.lines.iter().filter(|(_, line)| is_meant(line));
        lines.map(|(id, _)| *id).collect()
    }

    fn end_all(
        &mut self,
        ids: &[SequenceId],
        end: &Result<EndReason, Arc<ModelError>>,
        events: &mut Vec<Event>,
    ) {
        for id in ids {
            let end = end.clone().map_err(Error::Model);
            self.end_line(*id, end, events);
        }
    }

    /// Computes a step: everything that is told comes into `events`. `break_off` is asked before
    /// every half of a layer.
    ///
    /// # Errors
    /// If the model fails. Nothing of the step counts then, and it would be tried again.
    pub fn step(
        &mut self,
        break_off: &mut dyn FnMut(&UnderWay) -> bool,
        events: &mut Vec<Event>,
    ) -> Result<Progress, ModelError> {
        if !self.guess(break_off) {
            return Ok(Progress::BrokenOff);
        }
        let start = self.now();
        let plan = self.scheduler.plan(start);
        self.stats.preemptions += plan.preempted.len() as u64;
        for id in &plan.expired {
            self.end_line(*id, Ok(EndReason::TimeLimit), events);
        }
        for copy in &plan.copies {
            self.forward.copy_page(copy.from, copy.to);
        }
        if plan.sequences.is_empty() {
            return Ok(Progress::Idle);
        }
        for planned in &plan.sequences {
            if let Some(line) = self.lines.get_mut(&planned.id) {
                line.begin(start);
            }
        }
        match self.compute(&plan, break_off) {
            Ok(drawn) => {
                self.commit(&plan, drawn, events);
                let took = self.now().saturating_sub(start);
                self.scheduler.commit_time(&plan, took);
                self.took(&plan, took);
                Ok(Progress::Step)
            }
            Err(error) => {
                self.scheduler.abandon(&plan);
                match error {
                    ModelError::Cancelled => Ok(Progress::BrokenOff),
                    error => Err(error),
                }
            }
        }
    }

    /// Runs the model, and draws.
    fn compute(
        &mut self,
        plan: &Plan,
        break_off: &mut dyn FnMut(&UnderWay) -> bool,
    ) -> Result<Vec<(SequenceId, Drawn)>, ModelError> {
        let Self {
            forward,
            scheduler,
            lines,
            scratch,
            ..
        } = self;
        let steps: Vec<SequenceStep<'_>> = (plan.sequences.iter())
            .map(|planned| scheduler.step_of(planned))
            .collect();
        let step_plan = StepPlan { sequences: &steps };
        let mut watch = Watch {
            under_way: UnderWay::new(plan, lines),
            break_off,
        };
        let vocab = forward.shape().vocab_size;
        // What a rule allows next may take long to find out: another thread does it meanwhile.
        let mut ruled: Vec<&mut Line> = (lines.iter_mut())
            .filter(|(id, line)| line.needs_rule() && plan.computes(**id))
            .map(|(_, line)| line)
            .collect();
        let logits = if ruled.is_empty() {
            forward.forward(&step_plan, &mut watch)?
        } else {
            std::thread::scope(|scope| {
                scope.spawn(|| ruled.iter_mut().for_each(|line| line.prepare()));
                forward.forward(&step_plan, &mut watch)
            })?
        };
        let mut rest = logits;
        let mut drawn = Vec::new();
        for (planned, step) in plan.sequences.iter().zip(&steps) {
            let rows;
            (rows, rest) = rest.split_at(step.logits.count(step.tokens.len()) * vocab);
            if let Some(line) = lines.get_mut(&planned.id) {
                let part = scheduler.part_of(planned);
                drawn.push((planned.id, line.take(rows, vocab, &part, scratch)));
            }
        }
        Ok(drawn)
    }

    /// Tells what was drawn, and ends what is over.
    fn commit(&mut self, plan: &Plan, drawn: Vec<(SequenceId, Drawn)>, events: &mut Vec<Event>) {
        let now = self.now();
        self.stats.steps += 1;
        for (planned, (id, drawn)) in plan.sequences.iter().zip(drawn) {
            let Some(line) = self.lines.get_mut(&id) else {
                continue;
            };
            let (request, choice) = (line.id, line.choice);
            if line.asked_model
                && let Some(draft) = &mut self.draft
            {
                let (guessed, right) = drawn.guesses;
                draft.checked(id, guessed, right);
            }
            if planned.prompt {
                self.stats.computed_prompt_tokens += planned.count as u64;
            }
            self.stats.generated_tokens += drawn.tokens.len() as u64;
            let ids: Vec<_> = drawn.tokens.iter().map(|token| token.id).collect();
            self.scheduler.commit(planned, &ids);
            if !drawn.prompt.is_empty() {
                events.push(Event::PromptLogprobs {
                    request,
                    logprobs: drawn.prompt,
                });
            }
            if !ids.is_empty() || drawn.end.is_some() {
                line.drew(now);
            }
            events.extend(drawn.tokens.into_iter().map(|token| Event::Token {
                request,
                choice,
                token,
            }));
            if let Some(end) = drawn.end {
                self.end_line(id, end, events);
            }
        }
    }

    fn end_line(&mut self, id: SequenceId, end: Result<EndReason, Error>, events: &mut Vec<Event>) {
        let Some(line) = self.lines.remove(&id) else {
            return;
        };
        let cached = self.scheduler.cached_tokens(id);
        self.scheduler.remove(id);
        if let Some(draft) = &mut self.draft {
            draft.remove(id);
        }
        let (request, choice, now) = (line.id, line.choice, self.now());
        let outcome = end.map(|reason| line.end(reason, cached, now));
        self.stats.count_end(&outcome);
        events.push(Event::End {
            request,
            choice,
            outcome,
        });
    }
}

/// Ends a step between two halves of a layer.
pub(crate) struct Watch<'a> {
    pub(crate) under_way: UnderWay,
    pub(crate) break_off: &'a mut dyn FnMut(&UnderWay) -> bool,
}

impl Observer for Watch<'_> {
    fn cancelled(&mut self) -> bool {
        (self.break_off)(&self.under_way)
    }
}
