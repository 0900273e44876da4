//! A draft model: answers are the same with it and without, whatever it says.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "simulation/chain.rs"]
#[allow(dead_code, reason = "shared with the simulation")]
mod chain;
#[path = "simulation/clock.rs"]
#[allow(dead_code, reason = "shared with the simulation")]
mod clock;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redline_engine::{
    EndReason, Engine, EngineOptions, Error, Event, GeneratedToken, Outcome, Progress, Request,
    SamplingParams, TokenId, UnderWay,
};
use redline_model::{
    Error as ModelError, Forward, ForwardShape, LogitRows, Observer, PageId, PlanError, StepPlan,
};

use chain::{Chain, VOCAB, logits};
use clock::{clock, passed, tick};
use redline_testkit::{Random, mix};

/// What a draft model was asked.
#[derive(Debug, Default)]
struct Log {
    /// `(sequences, tokens)` of every step.
    steps: Vec<(usize, usize)>,
    /// Fails the step with this number.
    fails_at: Option<usize>,
    /// Tokens it says it has beyond those of the model.
    more_tokens: usize,
}

/// A draft model that keeps a log.
#[derive(Debug)]
struct Logged(Chain, Arc<Mutex<Log>>);

impl Forward for Logged {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: VOCAB + self.1.lock().unwrap().more_tokens,
            ..self.0.shape()
        }
    }

    fn copy_page(&mut self, from: PageId, to: PageId) {
        self.0.copy_page(from, to);
    }

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], ModelError> {
        let tokens = plan.sequences.iter().map(|s| s.tokens.len()).sum();
        let mut log = self.1.lock().unwrap();
        let step = log.steps.len();
        log.steps.push((plan.sequences.len(), tokens));
        if log.fails_at == Some(step) {
            return Err(PlanError::NoTokens { sequence: 0 }.into());
        }
        drop(log);
        assert!(plan.sequences.iter().all(|s| s.logits != LogitRows::All));
        self.0.forward(plan, observer)
    }
}

/// What the draft model says.
type Says = fn(u64) -> [f32; VOCAB];

const RIGHT: Says = logits;
const WRONG: Says = |link| logits(mix(link));
const HALF: Says = |link| {
    logits(if mix(link).is_multiple_of(2) {
        link
    } else {
        mix(link)
    })
};

/// 300 positions; a step takes 1 ms and 20 µs for each token.
fn model(pages: usize) -> Chain {
    let mut model = Chain::new(300, pages, 128, 32);
    model.tick = |tokens| tick(1000 + 20 * tokens as u64);
    model
}

/// A tenth of that.
fn draft(says: Says) -> Chain {
    let mut draft = Chain::new(300, 64, 128, 32);
    draft.says = says;
    draft.tick = |tokens| tick(100 + 2 * tokens as u64);
    draft
}

fn engine(model: Chain, draft: Option<Chain>) -> (Engine<Chain>, Arc<Mutex<Log>>) {
    let log = Arc::<Mutex<Log>>::default();
    let engine = Engine::new(model, EngineOptions::default()).with_clock(clock);
    let engine = match draft {
        Some(draft) => (engine.with_draft(Box::new(Logged(draft, Arc::clone(&log))))).unwrap(),
        None => engine,
    };
    (engine, log)
}

fn request(number: u64, prompt: usize, max_tokens: usize) -> Request {
    let mut random = Random::new(number);
    let prompt = (0..prompt).map(|_| TokenId(random.below(VOCAB as u64) as u32));
    Request {
        sampling: SamplingParams {
            temperature: [0.0, 1.0][number as usize % 2],
            seed: number,
            ..SamplingParams::default()
        },
        logprobs: Some(2),
        speculation: true,
        ..Request::new(prompt.collect(), max_tokens)
    }
}

/// Tokens and account of each answer, in the order of the requests.
type Answers = Vec<(Vec<GeneratedToken>, Outcome)>;

fn serve(engine: &mut Engine<Chain>, requests: &[Request]) -> Answers {
    let ids: Vec<_> = (requests.iter())
        .map(|request| engine.submit(request.clone()).unwrap())
        .collect();
    let (mut events, mut tokens, mut ends) = (Vec::new(), vec![Vec::new(); ids.len()], Vec::new());
    ends.resize_with(ids.len(), || None);
    while engine.step(&mut |_| false, &mut events).unwrap() != Progress::Idle {
        for event in events.drain(..) {
            let index = ids.iter().position(|id| *id == event.request()).unwrap();
            match event {
                Event::Token { token, .. } => tokens[index].push(token),
                Event::End { outcome, .. } => ends[index] = Some(outcome.unwrap()),
                Event::PromptLogprobs { .. } => panic!("nobody asked"),
            }
        }
    }
    assert_eq!(engine.load().pages_in_use, 0);
    assert_eq!(engine.draft_pages_in_use(), 0);
    let ends = ends.into_iter().map(Option::unwrap);
    tokens.into_iter().zip(ends).collect()
}

/// What each is alone, without guesses.
fn alone(requests: &[Request]) -> Vec<Vec<GeneratedToken>> {
    let plain = |request: &Request| {
        let (mut engine, _) = engine(model(64), None);
        let request = Request {
            speculation: false,
            ..request.clone()
        };
        serve(&mut engine, &[request]).remove(0).0
    };
    requests.iter().map(plain).collect()
}

fn tokens(answers: Answers) -> Vec<Vec<GeneratedToken>> {
    answers.into_iter().map(|(tokens, _)| tokens).collect()
}

fn seconds(run: impl FnOnce()) -> f64 {
    let start = passed();
    run();
    (passed() - start).as_secs_f64()
}

#[test]
fn the_answer_is_the_same_and_right_guesses_make_it_quick() {
    for number in [0, 1] {
        let request = request(number, 40, 200);
        let expected = alone(std::slice::from_ref(&request));
        let took = |says: Option<Says>| {
            let (mut engine, _) = engine(model(64), says.map(draft));
            let mut outcome = None;
            let took = seconds(|| {
                let mut answers = serve(&mut engine, std::slice::from_ref(&request));
                outcome = Some(answers[0].1.clone());
                answers.truncate(1);
                assert_eq!(tokens(answers), expected);
            });
            (took, outcome.unwrap().drafts)
        };
        let (plain, drafts) = took(None);
        assert_eq!(drafts.model_proposed, 0);
        let (quick, drafts) = took(Some(RIGHT));
        assert!(plain / quick > 2.5, "{plain} {quick} {drafts:?}");
        assert_eq!(
            drafts.model_accepted, drafts.model_proposed,
            "the same draw"
        );
        let (half, drafts) = took(Some(HALF));
        assert!(plain / half > 1.1, "{plain} {half} {drafts:?}");
        assert!(drafts.model_accepted < drafts.model_proposed, "{drafts:?}");
        let (wrong, drafts) = took(Some(WRONG));
        assert!(plain / wrong > 0.95, "{plain} {wrong} {drafts:?}");
        assert!(drafts.model_proposed > 0, "it is tried");
    }
}

#[test]
fn a_wrong_guess_is_forgotten() {
    // Wrong after one context in eight: it would be after all that follow, were that not so.
    let says: Says = |link| {
        logits(if mix(link).is_multiple_of(8) {
            mix(link)
        } else {
            link
        })
    };
    let (mut engine, _) = engine(model(64), Some(draft(says)));
    let drafts = serve(&mut engine, &[request(1, 40, 250)])[0].1.drafts;
    let wrong = drafts.model_proposed - drafts.model_accepted;
    assert!(wrong > 0, "{drafts:?}");
    // Nothing after a wrong one is checked: about half are right.
    assert!(drafts.model_accepted > wrong, "{drafts:?}");
}

#[test]
fn a_crowd_gets_the_same_answers_in_steps_of_all_together() {
    let requests: Vec<Request> = (0..12)
        .map(|n| request(n, 10 + 13 * n as usize, 100))
        .collect();
    let expected = alone(&requests);
    for (says, least) in [(RIGHT, 6), (HALF, 6), (WRONG, 1)] {
        let (mut engine, log) = engine(model(64), Some(draft(says)));
        assert_eq!(tokens(serve(&mut engine, &requests)), expected);
        let widest = log.lock().unwrap().steps.iter().map(|step| step.0).max();
        assert!(widest >= Some(least), "{widest:?}");
    }
}

#[test]
fn want_of_pages_of_either_changes_nothing() {
    let requests: Vec<Request> = (0..8).map(|n| request(n, 50, 120)).collect();
    let expected = alone(&requests);
    for (pages, draft_pages) in [(64, 6), (9, 64), (9, 5), (64, 1)] {
        let mut small = Chain::new(300, draft_pages, 128, 32);
        (small.says, small.tick) = (RIGHT, draft(RIGHT).tick);
        let (mut engine, log) = engine(model(pages), Some(small));
        assert_eq!(tokens(serve(&mut engine, &requests)), expected);
        let stats = *engine.stats();
        assert_eq!(stats.preemptions > 0, pages == 9, "{stats:?}");
        assert_eq!(stats.draft_failures, 0);
        let some = stats.drafts_model_accepted > 0 && !log.lock().unwrap().steps.is_empty();
        assert!(some, "{pages} {draft_pages} {stats:?}");
    }
}

#[test]
fn a_draft_model_of_a_shorter_context_says_nothing_beyond_it() {
    let request = request(0, 40, 200);
    let mut short = draft(RIGHT);
    short.context = 100;
    let (mut engine, log) = engine(model(64), Some(short));
    let answers = serve(&mut engine, std::slice::from_ref(&request));
    let guessed = answers[0].1.drafts.model_proposed;
    assert!((1..=61).contains(&guessed), "{guessed}");
    assert!(!log.lock().unwrap().steps.is_empty());
    assert_eq!(tokens(answers), alone(&[request]));
}

#[test]
fn a_step_of_it_is_broken_off_too_and_nothing_is_lost() {
    let request = request(1, 200, 60);
    let (mut engine, log) = engine(model(64), Some(draft(RIGHT)));
    let id = engine.submit(request.clone()).unwrap();
    let (mut events, mut seen) = (Vec::new(), Vec::new());
    let mut told = Vec::new();
    while engine.load().running + engine.load().waiting > 0 {
        let (before, computed) = (told.len(), engine.forward().computed);
        // Once before each step of the model, in the first or second of the draft model's.
        let mut break_off = |under_way: &UnderWay| {
            let steps = log.lock().unwrap().steps.len();
            let is_due = steps % 2 == 1 && told.last() != Some(&computed);
            if is_due {
                assert!(under_way.has_prompt_of(id));
                told.push(computed);
            }
            is_due
        };
        let progress = engine.step(&mut break_off, &mut events).unwrap();
        let is_broken = progress == Progress::BrokenOff;
        assert_eq!(is_broken, told.len() > before);
        // The model itself did not run.
        assert_eq!(is_broken, engine.forward().computed == computed);
        for event in events.drain(..) {
            match event {
                Event::Token { token, .. } => seen.push(token),
                Event::End { outcome, .. } => {
                    // What was broken off does not count as read.
                    let drafts = outcome.unwrap().drafts;
                    assert_eq!(drafts.model_accepted, drafts.model_proposed);
                }
                Event::PromptLogprobs { .. } => panic!("nobody asked"),
            }
        }
    }
    assert!(told.len() > 4, "{told:?}");
    assert_eq!(vec![seen], alone(&[request]));
    assert_eq!(engine.draft_pages_in_use(), 0);
}

#[test]
fn cancelling_frees_what_it_has() {
    let (mut engine, log) = engine(model(64), Some(draft(RIGHT)));
    let id = engine.submit(request(1, 100, 100)).unwrap();
    let mut events = Vec::new();
    while log.lock().unwrap().steps.len() < 3 {
        let progress = engine.step(&mut |_| false, &mut events).unwrap();
        assert_eq!(progress, Progress::Step);
    }
    assert!(engine.draft_pages_in_use() > 0);
    engine.end(id, EndReason::Cancelled, &mut events);
    assert_eq!(engine.draft_pages_in_use(), 0);
}

#[test]
fn one_that_fails_is_asked_no_more_and_no_answer_fails() {
    let requests: Vec<Request> = (0..3).map(|n| request(n, 30, 60)).collect();
    for step in [0, 5] {
        let (mut engine, log) = engine(model(64), Some(draft(RIGHT)));
        log.lock().unwrap().fails_at = Some(step);
        assert_eq!(tokens(serve(&mut engine, &requests)), alone(&requests));
        assert_eq!(engine.stats().draft_failures, 1);
        assert_eq!(log.lock().unwrap().steps.len(), step + 1);
    }
}

#[test]
fn one_of_another_vocabulary_is_refused_with_both_sizes() {
    let engine = Engine::new(model(64), EngineOptions::default());
    let log = Log {
        more_tokens: 1,
        ..Log::default()
    };
    let larger = Logged(draft(RIGHT), Arc::new(Mutex::new(log)));
    let error = engine.with_draft(Box::new(larger)).unwrap_err();
    assert!(matches!(
        error,
        Error::DraftVocabulary {
            expected: 32,
            found: 33
        }
    ));
    let expected = "draft model: expected a vocabulary of 32 tokens as the model has, found 33";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn prompts_are_read_in_pieces_while_others_decode() {
    // 8 µs a token: half of the delay is time for 80 of them.
    let mut slow = draft(RIGHT);
    slow.tick = |tokens| tick(100 + 8 * tokens as u64);
    let options = EngineOptions {
        decode_delay: Duration::from_micros(1280),
        ..EngineOptions::default()
    };
    let log = Arc::<Mutex<Log>>::default();
    let engine = Engine::new(model(64), options).with_clock(clock);
    let draft = Logged(slow, Arc::clone(&log));
    let mut engine = engine.with_draft(Box::new(draft)).unwrap();
    // The first is there all the time, and none ends before the others' prompts are read.
    let mut requests: Vec<Request> = (0..6).map(|n| request(n, 130, 150)).collect();
    requests[0] = request(0, 30, 260);
    let answers = serve(&mut engine, &requests);
    let read = log.lock().unwrap().steps.clone();
    let most = read.iter().map(|(sequences, tokens)| tokens - sequences);
    let most = most.max().unwrap();
    assert!((16..=90).contains(&most), "{most}");
    assert!(answers.iter().all(|(_, end)| end.drafts.model_accepted > 0));
    assert_eq!(tokens(answers), alone(&requests));
}

#[test]
fn who_wants_no_guesses_costs_it_nothing() {
    let plain = Request {
        speculation: false,
        ..request(1, 40, 50)
    };
    let (mut engine, log) = engine(model(64), Some(draft(RIGHT)));
    serve(&mut engine, &[plain]);
    assert!(log.lock().unwrap().steps.is_empty());
}
