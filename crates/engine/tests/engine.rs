//! The loop, against a scripted model that remembers what was stored where.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redline_engine::{
    EndReason, Engine, EngineOptions, Error, GeneratedToken, Outcome, Request, Sampler,
    SamplingParams, Scratch, TokenId,
};
use redline_model::{
    Error as ModelError, Forward, ForwardShape, LogitRows, Observer, PAGE_POSITIONS, PageId,
    PlanError, StepPlan,
};

const VOCAB: usize = 100;
const CONTEXT: usize = 200;

thread_local! {
    /// Steps of all models on this thread.
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// A model whose next token is a function of every token its pages hold up to there: a wrong page, a
/// stale position or a skipped token changes the answer.
#[derive(Debug, Default)]
struct Script {
    stored: HashMap<(u32, usize), u32>,
    /// `(position, tokens, wants logits)` of every step.
    steps: Vec<(usize, usize, bool)>,
    logits: Vec<f32>,
    /// All logits there were, in order.
    history: Vec<Vec<f32>>,
    /// Fails the step with this number.
    fails_at: Option<usize>,
    /// Gives a NaN for this token.
    nan_at: Option<usize>,
    /// Sets this flag when the step with this number begins.
    cancels_at: Option<(usize, &'static AtomicBool)>,
}

impl Forward for Script {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: VOCAB,
            context_length: CONTEXT,
            page_count: 8,
            max_step_tokens: 64,
            max_logit_rows: 1,
        }
    }

    fn copy_page(&mut self, from: PageId, to: PageId) {
        for offset in 0..PAGE_POSITIONS {
            match self.stored.get(&(from.0, offset)).copied() {
                Some(token) => self.stored.insert((to.0, offset), token),
                None => self.stored.remove(&(to.0, offset)),
            };
        }
    }

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], ModelError> {
        let [sequence] = plan.sequences else {
            panic!("one sequence")
        };
        assert!(
            sequence.tokens.len() <= self.shape().max_step_tokens,
            "a step too long"
        );
        let step = self.steps.len();
        STEPS.set(STEPS.get() + 1);
        self.steps.push((
            sequence.position,
            sequence.tokens.len(),
            sequence.logits == LogitRows::Last,
        ));
        if self.fails_at == Some(step) {
            return Err(PlanError::NoTokens { sequence: 0 }.into());
        }
        if let Some((_, flag)) = self.cancels_at.filter(|(at, _)| *at == step) {
            flag.store(true, Ordering::Relaxed);
        }
        let slot = |position: usize| {
            (
                sequence.pages[position / PAGE_POSITIONS].0,
                position % PAGE_POSITIONS,
            )
        };
        for (i, token) in sequence.tokens.iter().enumerate() {
            if observer.cancelled() {
                return Err(ModelError::Cancelled);
            }
            self.stored.insert(slot(sequence.position + i), token.0);
        }
        let end = sequence.position + sequence.tokens.len();
        let sum = (0..end).fold(7_u64, |sum, position| {
            let token = self
                .stored
                .get(&slot(position))
                .expect("position was computed");
            sum.wrapping_mul(31).wrapping_add(u64::from(*token))
        });
        self.logits.clear();
        if sequence.logits == LogitRows::Last {
            self.logits.resize(VOCAB, 0.0);
            self.logits[(sum % VOCAB as u64) as usize] = 5.0;
            if let Some(token) = self.nan_at {
                self.logits[token] = f32::NAN;
            }
            self.history.push(self.logits.clone());
        }
        Ok(&self.logits)
    }
}

fn engine(chunk_tokens: usize) -> Engine<Script> {
    Engine::new(Script::default(), options(chunk_tokens))
}

fn options(chunk_tokens: usize) -> EngineOptions {
    EngineOptions {
        chunk_tokens,
        ..EngineOptions::default()
    }
}

fn tokens(ids: impl IntoIterator<Item = usize>) -> Vec<TokenId> {
    ids.into_iter()
        .map(|id| TokenId((id % VOCAB) as u32))
        .collect()
}

fn request(prompt: Vec<TokenId>, max_tokens: usize) -> Request {
    Request::new(prompt, max_tokens)
}

fn run(engine: &mut Engine<Script>, request: &Request) -> Result<Outcome, Error> {
    engine.generate(request.clone(), &AtomicBool::new(false), &mut |_| {
        ControlFlow::Continue(())
    })
}

#[test]
fn a_generation_hands_out_every_token_once_and_ends_at_length() {
    let mut engine = engine(512);
    let mut seen = Vec::new();
    let mut collect = |token: GeneratedToken| {
        assert_eq!(token.index, seen.len());
        assert_eq!(token.logprob, None);
        seen.push(token.id);
        ControlFlow::Continue(())
    };
    let request = request(tokens([1, 2, 3]), 5);
    let outcome = engine
        .generate(request, &AtomicBool::new(false), &mut collect)
        .unwrap();
    assert_eq!(outcome.end_reason, EndReason::Length);
    assert_eq!((outcome.prompt_tokens, outcome.cached_tokens), (3, 0));
    assert_eq!(outcome.generated, seen);
    assert_eq!(seen.len(), 5);
    // The last token is handed out, never computed.
    assert_eq!(engine.forward().steps.len(), 5);
}

#[test]
fn a_prompt_is_computed_in_chunks_and_only_its_end_asks_for_logits() {
    let mut engine = engine(30);
    run(&mut engine, &request(tokens(0..100), 2)).unwrap();
    let expected = [
        (0, 30, false),
        (30, 30, false),
        (60, 30, false),
        (90, 10, true),
        (100, 1, true),
    ];
    assert_eq!(engine.forward().steps, expected);
}

#[test]
fn chunks_make_no_difference() {
    let request = request(tokens(5..105), 20);
    let expected = run(&mut engine(512), &request).unwrap().generated;
    for chunk_tokens in [1, 7, 64] {
        let outcome = run(&mut engine(chunk_tokens), &request).unwrap();
        assert_eq!(outcome.generated, expected, "chunks of {chunk_tokens}");
    }
}

#[test]
fn an_end_token_ends_and_is_not_handed_out() {
    let all = run(&mut engine(512), &request(tokens([4, 4]), 10))
        .unwrap()
        .generated;
    let first = all.iter().position(|token| *token == all[4]).unwrap();
    let with_end = Request {
        end_tokens: vec![all[4]],
        ..request(tokens([4, 4]), 10)
    };
    let outcome = run(&mut engine(512), &with_end).unwrap();
    assert_eq!(outcome.end_reason, EndReason::Eos);
    assert_eq!(outcome.generated, all[..first]);
}

#[test]
fn the_receiver_can_break_off() {
    let mut engine = engine(512);
    let mut left = 3;
    let mut on_token = |_| {
        left -= 1;
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let request = request(tokens([1]), 50);
    let outcome = engine
        .generate(request, &AtomicBool::new(false), &mut on_token)
        .unwrap();
    assert_eq!(
        (outcome.end_reason, outcome.generated.len()),
        (EndReason::Stop, 3)
    );
}

#[test]
fn cancel_ends_before_the_first_step_between_steps_and_inside_one() {
    static INSIDE: AtomicBool = AtomicBool::new(false);
    let mut engine = engine(16);
    let request = request(tokens(0..60), 40);
    let go_on = &mut |_| ControlFlow::Continue(());
    let outcome = engine
        .generate(request.clone(), &AtomicBool::new(true), go_on)
        .unwrap();
    assert_eq!(
        (outcome.end_reason, outcome.generated.len()),
        (EndReason::Cancelled, 0)
    );
    assert_eq!(engine.forward().steps.len(), 0);

    let cancel = AtomicBool::new(false);
    let mut at_third = |token: GeneratedToken| {
        cancel.store(token.index == 2, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let outcome = engine
        .generate(request.clone(), &cancel, &mut at_third)
        .unwrap();
    assert_eq!(
        (outcome.end_reason, outcome.generated.len()),
        (EndReason::Cancelled, 3)
    );

    let script = Script {
        cancels_at: Some((2, &INSIDE)),
        ..Script::default()
    };
    let mut engine = Engine::new(script, options(16));
    let outcome = engine.generate(request.clone(), &INSIDE, go_on).unwrap();
    assert_eq!(
        (outcome.end_reason, outcome.generated.len()),
        (EndReason::Cancelled, 0)
    );
    assert_eq!(engine.forward().steps.len(), 3);
    // The chunks before the cancelled one count as computed, that one does not.
    let expected = run(
        &mut Engine::new(Script::default(), EngineOptions::default()),
        &request,
    );
    let outcome = run(&mut engine, &request).unwrap();
    assert_eq!(outcome.cached_tokens, 32);
    assert_eq!(outcome.generated, expected.unwrap().generated);
}

#[test]
fn a_common_prefix_is_not_computed_again() {
    let first = request(tokens(0..70), 10);
    let check = |second: Vec<TokenId>, cached: usize| {
        let mut engine = engine(512);
        run(&mut engine, &first).unwrap();
        let before = engine.forward().steps.len();
        let second = request(second, 10);
        let outcome = run(&mut engine, &second).unwrap();
        assert_eq!(outcome.cached_tokens, cached);
        assert_eq!(engine.forward().steps[before].0, cached);
        let fresh = run(&mut self::engine(512), &second).unwrap();
        assert_eq!(outcome.generated, fresh.generated);
    };
    let answer = run(&mut engine(512), &first).unwrap().generated;
    // The next turn of a chat: the last token of the answer was never computed.
    check(
        [&first.prompt[..], &answer, &tokens([9, 8, 7])].concat(),
        79,
    );
    check(first.prompt.clone(), 69);
    check(tokens(0..40), 39);
    check(tokens((0..65).chain([99, 99])), 65);
    check(tokens([3]), 0);
}

#[test]
fn clearing_forgets_the_prefix() {
    let mut engine = engine(512);
    run(&mut engine, &request(tokens(0..20), 3)).unwrap();
    engine.clear();
    assert_eq!(
        run(&mut engine, &request(tokens(0..20), 3))
            .unwrap()
            .cached_tokens,
        0
    );
}

#[test]
fn context_overflow_is_an_error_with_numbers() {
    let mut engine = engine(512);
    assert_eq!(engine.context_length(), CONTEXT);
    let error = run(&mut engine, &request(tokens(0..150), 51))
        .unwrap_err()
        .to_string();
    let expected = "context length exceeded: prompt of 150 tokens and max_tokens 51 make 201, \
                    the context has 200";
    assert_eq!(error, expected);
    run(&mut engine, &request(tokens([1]), usize::MAX)).unwrap_err();
    assert_eq!(engine.forward().steps.len(), 0);
    let outcome = run(&mut engine, &request(tokens(0..150), 50)).unwrap();
    assert_eq!(outcome.generated.len(), 50);
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let bad = Request {
        prompt: tokens([]),
        max_tokens: 0,
        sampling: SamplingParams {
            temperature: -0.5,
            top_p: f32::NAN,
            top_k: VOCAB + 1,
            ..SamplingParams::default()
        },
        end_tokens: vec![TokenId(100)],
        ..request(Vec::new(), 0)
    };
    let error = run(&mut engine(512), &bad).unwrap_err().to_string();
    let expected = "invalid request: prompt: expected at least 1 token, found 0 tokens; \
                    end_tokens: expected token ids below 100, found 100; \
                    max_tokens: expected at least 1, found 0; \
                    temperature: expected 0..=2, found -0.5; \
                    top_k: expected 0..=100, found 101; top_p: expected 0..=1, found NaN";
    assert_eq!(error, expected);
}

#[test]
fn a_failing_step_and_a_nan_end_one_request_only() {
    let request = request(tokens(0..50), 5);
    let expected = run(&mut engine(512), &request).unwrap().generated;
    let script = Script {
        fails_at: Some(2),
        ..Script::default()
    };
    let mut engine = Engine::new(script, options(20));
    assert!(matches!(
        run(&mut engine, &request),
        Err(Error::Model(error)) if matches!(*error, ModelError::Plan(_))
    ));
    let outcome = run(&mut engine, &request).unwrap();
    assert_eq!((outcome.cached_tokens, outcome.generated), (40, expected));

    let script = Script {
        nan_at: Some(17),
        ..Script::default()
    };
    let mut engine = Engine::new(script, EngineOptions::default());
    let error = run(&mut engine, &request).unwrap_err().to_string();
    assert_eq!(
        error,
        "token 0: the logit of token 17 is NaN, expected a number below infinity"
    );
}

#[test]
fn a_draw_is_decided_by_its_position_in_the_sequence() {
    let sampling = SamplingParams {
        seed: 11,
        temperature: 2.0,
        ..SamplingParams::default()
    };
    let drawn = Request {
        sampling: sampling.clone(),
        ..request(tokens(0..30), 20)
    };
    let mut engine = engine(7);
    let generated = run(&mut engine, &drawn).unwrap().generated;
    let sampler = Sampler::new(&sampling, 0, VOCAB);
    let mut scratch = Scratch::default();
    let history = &engine.forward().history;
    assert_eq!(history.len(), 20);
    for (i, logits) in history.iter().enumerate() {
        let sampled = sampler
            .sample(logits, None, 30 + i as u64, &mut scratch)
            .unwrap();
        assert_eq!(generated[i], sampled, "token {i}");
    }
    // So a generation can be taken up where it was left.
    let rest = Request {
        prompt: [&drawn.prompt[..], &generated[..8]].concat(),
        max_tokens: 12,
        ..drawn
    };
    assert_eq!(run(&mut engine, &rest).unwrap().generated, generated[8..]);
}

#[test]
fn logprobs_come_when_asked_for() {
    let mut engine = engine(512);
    let request = Request {
        logprobs: Some(0),
        ..request(tokens([1]), 1)
    };
    let mut logprob = None;
    let mut on_token = |token: GeneratedToken| {
        logprob = token.logprob.map(|told| told.logprob);
        ControlFlow::Continue(())
    };
    engine
        .generate(request, &AtomicBool::new(false), &mut on_token)
        .unwrap();
    // One logit of 5 and 99 of 0.
    let expected = 5.0 - (5.0_f64.exp() + 99.0).ln();
    assert!(
        (f64::from(logprob.unwrap()) - expected).abs() < 1e-6,
        "{logprob:?}"
    );
}

#[test]
fn durations_are_read_from_the_clock_given() {
    thread_local! {
        static START: Instant = Instant::now();
    }
    /// Ten seconds later with every step.
    fn clock() -> Instant {
        START.with(|start| *start + Duration::from_secs(10 * STEPS.get()))
    }
    let mut engine = engine(512).with_clock(clock);
    let outcome = run(&mut engine, &request(tokens([1, 2]), 4)).unwrap();
    assert_eq!(
        (outcome.queued, outcome.prefill, outcome.decode),
        (
            Duration::ZERO,
            Duration::from_secs(10),
            Duration::from_secs(30)
        )
    );
}
