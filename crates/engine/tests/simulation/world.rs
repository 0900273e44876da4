//! Who comes, who leaves, and what must be true all the while.

use std::collections::BTreeMap;
use std::time::Duration;

use redline_engine::{
    EndReason, Engine, EngineOptions, Error, Event, Priority, Progress, Request, RequestId,
    Sampler, SamplingParams, Scratch, TokenId,
};

use crate::chain::{Chain, VOCAB, link, logits};
use crate::clock::{clock, passed, restart, tick};
use redline_testkit::{Random, mix};

const END: TokenId = TokenId(31);

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) steps: u64,
    requests: u64,
    answers: u64,
    tokens: u64,
    refused: u64,
    cancelled: u64,
    broken_off: u64,
    expired: u64,
    preempted: u64,
    copies: u64,
    cached_tokens: u64,
    right_guesses: u64,
    /// Of the draft model, right and wrong.
    model_guesses: [u64; 2],
    /// Of everything that was told, in order.
    trace: u64,
}

impl Account {
    pub(crate) fn counts(&self) -> [(&'static str, u64); 14] {
        [
            ("steps", self.steps),
            ("requests", self.requests),
            ("answers", self.answers),
            ("tokens", self.tokens),
            ("refused", self.refused),
            ("cancelled", self.cancelled),
            ("broken_off", self.broken_off),
            ("expired", self.expired),
            ("preempted", self.preempted),
            ("copies", self.copies),
            ("cached_tokens", self.cached_tokens),
            ("right_guesses", self.right_guesses),
            ("right guesses of a draft model", self.model_guesses[0]),
            ("wrong guesses of a draft model", self.model_guesses[1]),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.requests += other.requests;
        self.answers += other.answers;
        self.tokens += other.tokens;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.broken_off += other.broken_off;
        self.expired += other.expired;
        self.preempted += other.preempted;
        self.copies += other.copies;
        self.cached_tokens += other.cached_tokens;
        self.right_guesses += other.right_guesses;
        for (all, others) in self.model_guesses.iter_mut().zip(other.model_guesses) {
            *all += others;
        }
    }
}

/// An answer that is awaited.
#[derive(Debug)]
struct Awaited {
    /// What it would be if it were alone.
    expected: Vec<TokenId>,
    end: EndReason,
    seen: usize,
    since: u64,
}

pub(crate) struct World {
    random: Random,
    engine: Engine<Chain>,
    awaited: BTreeMap<(RequestId, usize), Awaited>,
    /// Starts that prompts have in common.
    texts: Vec<Vec<TokenId>>,
    account: Account,
    context: usize,
    /// Steps after which whoever came must have been served, with all who came before.
    patience: u64,
}

pub(crate) fn trace(seed: u64, steps: u64) -> u64 {
    World::new(seed).run(steps).trace
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        restart();
        let mut random = Random::new(seed);
        let context = 64 * (2 + random.below(6)) as usize - random.below(20) as usize;
        // At times scarcely more than one answer needs.
        let pages = context.div_ceil(64) + random.below(16) as usize;
        let rows = 1 + random.below(12) as usize;
        let mut chain = Chain::new(context, pages, rows + random.below(120) as usize, rows);
        chain.window = random.once_in(4).then(|| 1 + random.below(200) as usize);
        let options = EngineOptions {
            chunk_tokens: 1 + random.below(130) as usize,
            max_running: 1 + random.below(20) as usize,
            max_waiting: 1 + random.below(24) as usize,
            decode_delay: Duration::from_micros(random.below(2000)),
            step_time: Duration::from_millis(1 + random.below(40)),
            prefix_cache: !random.once_in(4),
        };
        let draft = draft(seed, context, chain.pages());
        if draft.is_some() {
            chain.tick = |tokens| tick(50 + 20 * tokens as u64);
        }
        let texts = (0..4).map(|_| text(&mut random, context)).collect();
        let mut engine = Engine::new(chain, options).with_clock(clock);
        if let Some(draft) = draft {
            engine = engine.with_draft(Box::new(draft)).unwrap();
        }
        Self {
            random,
            engine,
            awaited: BTreeMap::new(),
            texts,
            account: Account::default(),
            context,
            patience: 200_000,
        }
    }

    pub(crate) fn run(mut self, steps: u64) -> Account {
        let busy = 1 + self.random.below(30);
        while self.account.steps < steps {
            if self.random.once_in(busy) {
                self.arrive();
            }
            if self.random.once_in(40) {
                self.leave();
            }
            if self.step() == Progress::Idle {
                self.arrive();
            }
        }
        // Nobody else comes: all who are there are served, and nothing stays behind.
        while !self.awaited.is_empty() {
            self.step();
        }
        let load = self.engine.load();
        assert_eq!((load.running, load.waiting, load.missing_tokens), (0, 0, 0));
        assert_eq!(load.pages_in_use, 0, "pages are lost");
        assert_eq!(self.engine.draft_pages_in_use(), 0, "pages are lost");
        self.engine.clear();
        assert_eq!(self.engine.load().pages_cached, 0);
        let stats = self.engine.stats();
        self.account.preempted = stats.preemptions;
        self.account.cached_tokens = stats.cached_tokens;
        self.account.right_guesses = stats.drafts_accepted;
        let right = stats.drafts_model_accepted;
        self.account.model_guesses = [right, stats.drafts_model_proposed - right];
        self.account.copies = self.engine.forward().copies;
        assert_eq!((stats.ended_error, stats.draft_failures), (0, 0));
        assert_eq!(
            stats.ended_eos + stats.ended_length + stats.ended_cancelled + stats.ended_time_limit,
            self.account.answers
        );
        self.account
    }

    fn arrive(&mut self) {
        let random = &mut self.random;
        let shared = &self.texts[random.below(4) as usize];
        let shared = &shared[..random.below(shared.len() as u64) as usize];
        let own = text(random, 1 + (self.context - shared.len()) / 2);
        let mut prompt = [shared, &own[..]].concat();
        prompt.truncate(self.context - 1);
        let room = (self.context - prompt.len()) as u64;
        let max_tokens = 1 + random.below(room) as usize;
        let temperature = if random.once_in(2) { 0.0 } else { 1.0 };
        let request = Request {
            sampling: SamplingParams {
                temperature,
                top_k: random.below(5) as usize,
                repetition_penalty: if random.once_in(4) { 1.3 } else { 1.0 },
                seed: random.below(3),
                ..SamplingParams::default()
            },
            end_tokens: vec![END],
            choices: if random.once_in(5) {
                1 + random.below(4) as usize
            } else {
                1
            },
            priority: [Priority::High, Priority::Normal, Priority::Low][random.below(3) as usize],
            time_limit: random
                .once_in(10)
                .then(|| Duration::from_micros(random.below(20_000))),
            speculation: random.once_in(2),
            ..Request::new(prompt, max_tokens)
        };
        let waiting = self.engine.load().waiting;
        match self.engine.submit(request.clone()) {
            Ok(id) => {
                self.account.requests += 1;
                for choice in 0..request.choices {
                    let (expected, end) = alone(&request, choice);
                    let awaited = Awaited {
                        expected,
                        end,
                        seen: 0,
                        since: self.account.steps,
                    };
                    self.awaited.insert((id, choice), awaited);
                }
            }
            Err(Error::Overloaded { waiting: told }) => {
                assert_eq!(told, waiting);
                self.account.refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Somebody who is there gives up.
    fn leave(&mut self) {
        let count = self.awaited.len() as u64;
        if count == 0 {
            return;
        }
        let nth = self.random.below(count) as usize;
        let (request, _) = *self.awaited.keys().nth(nth).unwrap();
        let mut events = Vec::new();
        self.engine.end(request, EndReason::Cancelled, &mut events);
        self.account.cancelled += 1;
        self.hear(events, Some(EndReason::Cancelled));
        // It takes effect at once.
        assert!(self.awaited.keys().all(|(id, _)| *id != request));
    }

    fn step(&mut self) -> Progress {
        self.account.steps += 1;
        let breaks_off = self.random.once_in(50);
        let before = self.engine.forward().computed;
        let mut events = Vec::new();
        let progress = (self.engine.step(&mut |_| breaks_off, &mut events)).unwrap();
        let tokens = self.engine.forward().computed - before;
        tick(50 + 20 * tokens);
        self.account.broken_off += u64::from(progress == Progress::BrokenOff);
        self.hear(events, None);
        let (now, patience) = (self.account.steps, self.patience);
        let waits = self.awaited.values().map(|awaited| now - awaited.since);
        assert!(waits.max().unwrap_or(0) < patience, "somebody starves");
        progress
    }

    fn hear(&mut self, events: Vec<Event>, cancelled: Option<EndReason>) {
        for event in events {
            match event {
                Event::Token {
                    request,
                    choice,
                    token,
                } => {
                    let awaited = self.awaited.get_mut(&(request, choice)).unwrap();
                    assert_eq!(token.index, awaited.seen, "lost, twice, or out of order");
                    assert_eq!(
                        token.id, awaited.expected[awaited.seen],
                        "{request:?} {choice}"
                    );
                    awaited.seen += 1;
                    self.account.tokens += 1;
                    self.note(request.0 ^ u64::from(token.id.0) << 32);
                }
                Event::End {
                    request,
                    choice,
                    outcome,
                } => {
                    let outcome = outcome.unwrap();
                    let awaited = self.awaited.remove(&(request, choice)).unwrap();
                    assert_eq!(outcome.generated, awaited.expected[..awaited.seen]);
                    match outcome.end_reason {
                        EndReason::TimeLimit => self.account.expired += 1,
                        EndReason::Cancelled => assert!(cancelled.is_some()),
                        reason => {
                            assert_eq!(reason, awaited.end);
                            assert_eq!(awaited.seen, awaited.expected.len());
                        }
                    }
                    self.account.answers += 1;
                    self.note(!request.0);
                }
                Event::PromptLogprobs { .. } => panic!("nobody asked"),
            }
        }
    }

    fn note(&mut self, what: u64) {
        self.account.trace = mix(self.account.trace ^ what ^ passed().as_nanos() as u64);
    }
}

/// Half of the worlds have a draft model. Its choices are of another stream, so that worlds without
/// are as they were.
fn draft(seed: u64, context: usize, pages: usize) -> Option<Chain> {
    let mut random = Random::new(!seed);
    if random.once_in(2) {
        return None;
    }
    // At times less than one answer needs.
    let pages = 1 + random.below(2 * pages as u64) as usize;
    let context = context - random.below(context as u64 / 2) as usize;
    let rows = 1 + random.below(12) as usize;
    let mut draft = Chain::new(context, pages, rows + random.below(120) as usize, rows);
    draft.says = match random.below(3) {
        0 => logits,
        // Right where the context is sharp.
        1 => |link| {
            logits(if link.is_multiple_of(3) {
                link
            } else {
                mix(link)
            })
        },
        _ => |link| logits(mix(link)),
    };
    draft.tick = |tokens| tick(5 + tokens as u64);
    Some(draft)
}

/// Some tokens, with turns that come again.
fn text(random: &mut Random, most: usize) -> Vec<TokenId> {
    let length = 1 + random.below(most as u64) as usize;
    let period = 1 + random.below(30) as usize;
    let turn: Vec<u32> = (0..period).map(|_| random.below(31) as u32).collect();
    (0..length).map(|i| TokenId(turn[i % period])).collect()
}

/// The answer, by the definition: one token after another.
fn alone(request: &Request, choice: usize) -> (Vec<TokenId>, EndReason) {
    let mut sampler = Sampler::new(&request.sampling, choice as u64, VOCAB);
    let mut scratch = Scratch::default();
    sampler.observe(&request.prompt);
    let mut last = request
        .prompt
        .iter()
        .fold(0, |last, token| link(last, *token));
    let mut generated = Vec::new();
    while generated.len() < request.max_tokens {
        let position = (request.prompt.len() + generated.len()) as u64;
        let id = sampler
            .sample(&logits(last), None, position, &mut scratch)
            .unwrap();
        if id == END {
            return (generated, EndReason::Eos);
        }
        sampler.observe(&[id]);
        generated.push(id);
        last = link(last, id);
    }
    (generated, EndReason::Length)
}
