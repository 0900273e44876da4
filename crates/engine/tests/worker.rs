//! The engine's thread: commands in, events out, nobody waits for anybody.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use redline_engine::{
    EndReason, Engine, EngineOptions, Error, Event, Handle, PageId, Request, RequestId, Sink,
    Snapshot, TokenId, spawn,
};
use redline_model::{Error as ModelError, Forward, ForwardShape, Observer, StepPlan};

const LONG: Duration = Duration::from_secs(20);

/// Every token follows every other; a step with more than one token takes until it is broken off, if
/// `is_slow`.
#[derive(Debug, Default)]
struct Model {
    is_slow: Arc<AtomicBool>,
    /// Whether such a step is under way.
    is_stuck: Arc<AtomicBool>,
    logits: Vec<f32>,
}

impl Forward for Model {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: 4,
            context_length: 1000,
            page_count: 64,
            max_step_tokens: 512,
            max_logit_rows: 16,
        }
    }

    fn copy_page(&mut self, _: PageId, _: PageId) {}

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], ModelError> {
        let is_long = plan
            .sequences
            .iter()
            .any(|sequence| sequence.tokens.len() > 50);
        while self.is_slow.load(Ordering::Relaxed) && is_long {
            self.is_stuck.store(true, Ordering::Relaxed);
            if observer.cancelled() {
                return Err(ModelError::Cancelled);
            }
            std::thread::yield_now();
        }
        let rows = plan.sequences.iter();
        let rows: usize = rows.map(|s| s.logits.count(s.tokens.len())).sum();
        self.logits = [0.0, 1.0, 0.0, 0.0].repeat(rows);
        Ok(&self.logits)
    }
}

/// What a client hears; it has enough after `left` events.
struct Client {
    accepted: SyncSender<Result<RequestId, Error>>,
    events: SyncSender<Event>,
    left: Arc<Mutex<usize>>,
}

impl Sink for Client {
    fn accepted(&mut self, accepted: Result<RequestId, Error>) {
        self.accepted.send(accepted).unwrap();
    }

    fn take(&mut self, event: Event) -> ControlFlow<()> {
        let mut left = self.left.lock().unwrap();
        let Some(next) = left.checked_sub(1) else {
            return ControlFlow::Break(());
        };
        *left = next;
        self.events.send(event).unwrap();
        ControlFlow::Continue(())
    }
}

fn ask(
    handle: &Handle,
    request: Request,
    enough: usize,
) -> (Result<RequestId, Error>, Receiver<Event>) {
    let (accepted, is_accepted) = sync_channel(1);
    let (events, heard) = sync_channel(10_000);
    let left = Arc::new(Mutex::new(enough));
    let client = Client {
        accepted,
        events,
        left,
    };
    handle.submit(request, Box::new(client));
    (is_accepted.recv_timeout(LONG).unwrap(), heard)
}

fn request(prompt: usize, max_tokens: usize) -> Request {
    Request::new(vec![TokenId(2); prompt], max_tokens)
}

fn worker() -> (Handle, JoinHandle<Engine<Model>>) {
    let engine = Engine::new(Model::default(), EngineOptions::default());
    spawn(engine).unwrap()
}

/// A worker whose long steps do not end, and what tells that one is under way and lets it end.
fn slow_worker() -> (Handle, JoinHandle<Engine<Model>>, impl Fn(), impl Fn()) {
    let model = Model::default();
    model.is_slow.store(true, Ordering::Relaxed);
    let (is_slow, is_stuck) = (Arc::clone(&model.is_slow), Arc::clone(&model.is_stuck));
    let (handle, thread) = spawn(Engine::new(model, EngineOptions::default())).unwrap();
    let wait = move || {
        while !is_stuck.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    };
    let release = move || is_slow.store(false, Ordering::Relaxed);
    (handle, thread, wait, release)
}

/// Tokens until the end, and why it came.
fn outcome(heard: &Receiver<Event>) -> (usize, EndReason) {
    let mut tokens = 0;
    loop {
        match heard.recv_timeout(LONG).unwrap() {
            Event::Token { .. } => tokens += 1,
            Event::End { outcome, .. } => return (tokens, outcome.unwrap().end_reason),
            Event::PromptLogprobs { .. } => {}
        }
    }
}

/// Waits until nothing runs.
fn settle(handle: &Handle) {
    let start = std::time::Instant::now();
    while handle.snapshot().load.running + handle.snapshot().load.waiting > 0 {
        assert!(start.elapsed() < LONG, "{:?}", handle.snapshot());
        std::thread::yield_now();
    }
    assert_eq!(handle.snapshot().load.pages_in_use, 0);
}

#[test]
fn what_is_asked_is_answered_and_a_drained_engine_comes_back() {
    let (handle, thread) = worker();
    let clients: Vec<_> = (0..5)
        .map(|i| ask(&handle, request(5, 10 + i), 10_000))
        .collect();
    handle.drain();
    for (i, (accepted, heard)) in clients.into_iter().enumerate() {
        accepted.unwrap();
        assert_eq!(outcome(&heard), (10 + i, EndReason::Length));
    }
    let engine = thread.join().unwrap();
    assert_eq!(engine.stats().ended_length, 5);
    let (late, _) = ask(&handle, request(1, 1), 0);
    assert!(matches!(late, Err(Error::Draining)));
}

#[test]
fn a_prompt_nobody_wants_any_more_is_broken_off_inside_its_step() {
    let (handle, _thread, wait_until_stuck, release) = slow_worker();
    let (id, heard) = ask(&handle, request(400, 10), 10_000);
    wait_until_stuck();
    handle.end(id.unwrap(), EndReason::Cancelled);
    // The step would never end by itself.
    assert_eq!(outcome(&heard), (0, EndReason::Cancelled));
    release();
    let (_, heard) = ask(&handle, request(400, 10), 10_000);
    assert_eq!(outcome(&heard), (10, EndReason::Length));
}

#[test]
fn who_does_not_listen_loses_its_own_request_only() {
    let (handle, _thread) = worker();
    let (_, deaf) = ask(&handle, request(5, 500), 3);
    let (_, heard) = ask(&handle, request(5, 500), 10_000);
    assert_eq!(outcome(&heard), (500, EndReason::Length));
    settle(&handle);
    assert_eq!(deaf.try_iter().count(), 3);
    let stats = handle.snapshot().stats;
    assert_eq!((stats.ended_cancelled, stats.ended_length), (1, 1));
}

/// Whoever reads the counters after an answer finds that answer among them.
#[test]
fn an_outcome_is_counted_before_it_is_told() {
    let (handle, _thread) = worker();
    let kinds = [
        (request(3, 2), EndReason::Length),
        (request(3, 900), EndReason::Cancelled),
        (
            Request {
                end_tokens: vec![TokenId(1)],
                ..request(3, 2)
            },
            EndReason::Eos,
        ),
        (
            Request {
                time_limit: Some(Duration::ZERO),
                ..request(3, 2)
            },
            EndReason::TimeLimit,
        ),
    ];
    let mut told = [0; 4];
    for (request, reason) in kinds.iter().cycle().take(800) {
        let (id, heard) = ask(&handle, request.clone(), 10_000);
        if *reason == EndReason::Cancelled {
            handle.end(id.unwrap(), *reason);
        }
        // A wish to end may come too late.
        let (_, reason) = outcome(&heard);
        let order = [EndReason::Length, EndReason::Cancelled, EndReason::Eos];
        told[order.iter().position(|known| *known == reason).unwrap_or(3)] += 1;
        let Snapshot { load, stats, .. } = handle.snapshot();
        let counted = [
            stats.ended_length,
            stats.ended_cancelled,
            stats.ended_eos,
            stats.ended_time_limit,
        ];
        assert_eq!(counted, told);
        assert_eq!((load.running, load.waiting, load.pages_in_use), (0, 0, 0));
    }
    assert!(told.iter().all(|count| *count > 0), "{told:?}");
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let (handle, _thread) = worker();
    let (refused, _) = ask(&handle, request(0, 0), 0);
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("prompt") && error.contains("max_tokens"),
        "{error}"
    );
    let (refused, _) = ask(&handle, request(900, 101), 0);
    assert!(matches!(refused, Err(Error::ContextLengthExceeded { .. })));
    settle(&handle);
}

#[test]
fn stopping_ends_everything_and_losing_all_handles_ends_the_thread() {
    let (handle, thread, wait_until_stuck, _) = slow_worker();
    let (_, heard) = ask(&handle, request(400, 10), 10_000);
    wait_until_stuck();
    handle.stop();
    assert_eq!(outcome(&heard), (0, EndReason::Cancelled));
    thread.join().unwrap();
    let (handle, thread) = worker();
    drop(handle);
    thread.join().unwrap();
}
