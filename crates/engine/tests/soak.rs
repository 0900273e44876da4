//! The promise: whatever is asked, however often, memory comes back to what it was.
//!
//! Thousands of short requests of every kind, a dozen at a time, against a real model on the engine's own
//! thread: answers that end, that are cancelled, whose client leaves, several to a prompt, with
//! log-probabilities and guesses. Then no page is in use, every answer has ended once, and
//! the process is as large as it was after the first five hundred.
//!
//! `cargo test --release -p redline-engine --test soak -- --ignored --nocapture` takes 10,000 and prints
//! the figures. One test at a time: the size is the process's.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and this one measures"
)]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use redline_compute::{Cpu, Isa};
use redline_engine::{
    EndReason, Engine, EngineOptions, Error, Event, Handle, Request, RequestId, SamplingParams,
    Sink, TokenId, spawn,
};
use redline_model::{LoadOptions, Model, ModelFile};
use redline_testkit::{Random, SMOLLM2, cached, kilobytes};

const LONG: Duration = Duration::from_secs(600);
/// Requests under way at a time.
const CROWD: usize = 12;
/// Requests before the first look: every page of the cache was touched then. Activations are there from
/// the start.
const WARM_UP: u64 = 500;
/// Pages of the cache: about what the crowd wants, so that what is kept of others must go.
const PAGES: usize = 16;
/// What the process may grow by, of what it was.
const GROWTH: f64 = 0.02;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Stays,
    /// Cancels once it has so many tokens; at 0, as soon as the request is taken in.
    Cancels(usize),
    /// Takes so many events and no more.
    Leaves(usize),
}

/// What clients tell the test.
enum Heard {
    Accepted(u64, Result<RequestId, Error>),
    Event(u64, Event),
    Left(u64),
}

struct Ear {
    number: u64,
    left: Option<usize>,
    to: Sender<Heard>,
}

impl Sink for Ear {
    fn accepted(&mut self, accepted: Result<RequestId, Error>) {
        self.to
            .send(Heard::Accepted(self.number, accepted))
            .unwrap();
    }

    fn take(&mut self, event: Event) -> ControlFlow<()> {
        match &mut self.left {
            Some(0) => {
                self.to.send(Heard::Left(self.number)).unwrap();
                return ControlFlow::Break(());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.to.send(Heard::Event(self.number, event)).unwrap();
        ControlFlow::Continue(())
    }
}

/// The request of a number, and its client.
fn request(number: u64) -> (Request, Client) {
    let mut random = Random::new(number);
    let mut prompt: Vec<TokenId> = (0..1 + random.index(64))
        .map(|_| TokenId(100 + random.index(40_000) as u32))
        .collect();
    match random.index(4) {
        // A start that others have too.
        0 => {
            let count = prompt.len().div_ceil(2);
            (0..count).for_each(|i| prompt[i] = TokenId(200 + i as u32));
        }
        // What repeats itself can be guessed.
        1 => (4..prompt.len()).for_each(|i| prompt[i] = prompt[i - 4]),
        _ => {}
    }
    let request = Request {
        choices: 1 + usize::from(random.once_in(5)),
        logprobs: random.once_in(5).then_some(3),
        prompt_logprobs: random.once_in(20).then_some(1),
        speculation: random.once_in(2),
        end_tokens: vec![TokenId(2)],
        time_limit: random.once_in(50).then_some(Duration::from_millis(30)),
        sampling: SamplingParams {
            temperature: [0.0, 0.7, 1.0][random.index(3)],
            repetition_penalty: [1.0, 1.2][random.index(2)],
            seed: number,
            ..SamplingParams::default()
        },
        ..Request::new(prompt, 1 + random.index(16))
    };
    let client = match random.index(10) {
        0 => Client::Cancels(0),
        1 => Client::Cancels(1 + random.index(8)),
        2 => Client::Leaves(random.index(8)),
        _ => Client::Stays,
    };
    (request, client)
}

/// A request under way.
#[derive(Debug)]
struct Open {
    client: Client,
    id: Option<RequestId>,
    tokens: usize,
    answers: usize,
}

/// What was heard in all.
#[derive(Debug, Default)]
struct Account {
    tokens: u64,
    ended: u64,
    left: u64,
    cancelled: u64,
}

struct Crowd {
    handle: Handle,
    to: Sender<Heard>,
    heard: Receiver<Heard>,
    open: BTreeMap<u64, Open>,
    account: Account,
}

impl Crowd {
    fn new(handle: Handle) -> Self {
        let (to, heard) = channel();
        Self {
            handle,
            to,
            heard,
            open: BTreeMap::new(),
            account: Account::default(),
        }
    }

    /// Asks for all of these, some at a time, and hears them out.
    fn ask(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let (request, client) = request(number);
            let ear = Ear {
                number,
                left: match client {
                    Client::Leaves(after) => Some(after),
                    Client::Stays | Client::Cancels(_) => None,
                },
                to: self.to.clone(),
            };
            let open = Open {
                client,
                id: None,
                tokens: 0,
                answers: request.choices,
            };
            self.open.insert(number, open);
            self.handle.submit(request, Box::new(ear));
            while self.open.len() >= CROWD {
                self.hear();
            }
        }
        while !self.open.is_empty() {
            self.hear();
        }
    }

    fn hear(&mut self) {
        let heard = self.heard.recv_timeout(LONG).unwrap();
        let (Heard::Accepted(number, _) | Heard::Event(number, _) | Heard::Left(number)) = &heard;
        let number = *number;
        let open = self.open.get_mut(&number).expect("nothing after the end");
        match heard {
            Heard::Accepted(_, accepted) => open.id = Some(accepted.unwrap()),
            Heard::Event(_, Event::PromptLogprobs { .. }) => {}
            Heard::Event(_, Event::Token { .. }) => {
                open.tokens += 1;
                self.account.tokens += 1;
            }
            Heard::Event(_, Event::End { outcome, .. }) => {
                let reason = outcome.unwrap().end_reason;
                self.account.ended += 1;
                self.account.cancelled += u64::from(reason == EndReason::Cancelled);
                open.answers -= 1;
            }
            Heard::Left(_) => {
                self.account.left += 1;
                self.open.remove(&number);
                return;
            }
        }
        if let (Client::Cancels(after), Some(id)) = (open.client, open.id)
            && open.tokens == after
        {
            self.handle.end(id, EndReason::Cancelled);
        }
        if open.answers == 0 {
            self.open.remove(&number);
        }
    }

    /// That nothing runs and no page is in use.
    fn settle(&self) {
        let start = Instant::now();
        loop {
            let load = self.handle.snapshot().load;
            if load.running + load.waiting == 0 {
                assert_eq!((load.pages_in_use, load.missing_tokens), (0, 0));
                return;
            }
            // Who left is not told when their request ends.
            assert!(start.elapsed() < LONG, "{load:?}");
            std::thread::yield_now();
        }
    }
}

/// Kilobytes of this process in memory, and those of them that are no file's.
fn resident() -> [u64; 2] {
    ["VmRSS", "RssAnon"].map(|name| kilobytes(std::process::id(), name))
}

fn soak(requests: u64) {
    let Some(path) = cached(SMOLLM2) else {
        return;
    };
    let file = ModelFile::open(&path).unwrap();
    let load = LoadOptions {
        context: Some(256),
        kv_pages: Some(PAGES),
        max_logit_rows: 32,
        ..LoadOptions::default()
    };
    let backend = Cpu::new(Isa::detect(), 2);
    let model = Model::load(&file, &file.gguf().unwrap(), backend, &load, &mut |_| ()).unwrap();
    let (handle, thread) = spawn(Engine::new(model, EngineOptions::default())).unwrap();
    let mut crowd = Crowd::new(handle);
    let warm_up = WARM_UP.min(requests / 2);
    crowd.ask(0..warm_up);
    crowd.settle();
    let (start, before) = (Instant::now(), resident());
    // On the way, to tell what grows for ever from what grew once.
    let mut on_the_way = Vec::new();
    for tenth in 0..10 {
        let of = |tenth| warm_up + (requests - warm_up) * tenth / 10;
        crowd.ask(of(tenth)..of(tenth + 1));
        on_the_way.push(resident()[1]);
    }
    crowd.settle();
    let after = resident();
    let seconds = start.elapsed().as_secs_f64();
    let stats = crowd.handle.snapshot().stats;
    let (account, expected): (_, u64) = (
        &crowd.account,
        (0..requests).map(|n| request(n).0.choices as u64).sum(),
    );
    let ends = [
        stats.ended_eos,
        stats.ended_length,
        stats.ended_stop,
        stats.ended_cancelled,
        stats.ended_time_limit,
    ];
    println!(
        "{{\"promise\":\"memory\",\"requests\":{requests},\"answers\":{expected},\"seconds\":{seconds:.0},\
         \"rss_kib\":{before:?},\"rss_kib_after\":{after:?},\"ends\":{ends:?},\
         \"anonymous_kib\":{on_the_way:?},\"preemptions\":{},\"heard\":{account:?}}}",
        stats.preemptions
    );
    // Every answer ended once, and nothing else did.
    assert_eq!(ends.iter().sum::<u64>(), expected);
    assert_eq!(stats.ended_error, 0);
    // It was not all too easy.
    let rare = [account.left, account.cancelled, stats.drafts_proposed];
    assert!(rare.iter().all(|count| *count > 0), "{rare:?}");
    crowd.handle.stop();
    let mut engine = thread.join().unwrap();
    engine.clear();
    assert_eq!(
        (engine.load().pages_in_use, engine.load().pages_cached),
        (0, 0)
    );
    for (before, after) in before.into_iter().zip(after) {
        let grown = after as f64 / before as f64 - 1.0;
        assert!(grown <= GROWTH, "from {before} to {after} KiB");
    }
}

#[test]
fn memory_is_what_it_was_after_hundreds_of_requests() {
    soak(240);
}

#[test]
#[ignore = "takes minutes"]
fn memory_is_what_it_was_after_ten_thousand_requests() {
    soak(10_000);
}
