//! What a server does with memory: it comes back, it is watched, and when pages run out nobody loses
//! more than time.
#![allow(clippy::print_stdout, reason = "one of these measures")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use redline_testkit::Random;
use serde_json::{Value, json};

use crate::client::Server;
use crate::{TEXT, choices, server};

/// Clients at a time.
const CLIENTS: usize = 6;
/// What the process may grow by, of what it was.
const GROWTH: f64 = 0.02;
/// The same after so few requests that the allocator still finds its size: it sways by 5 %.
const GROWTH_OF_FEW: f64 = 0.15;

/// A number below `end` that looks random.
fn scattered(n: u64, end: u64) -> u64 {
    Random::new(n).below(end)
}

/// A request of 1 to 64 prompt tokens and 1 to 16 of answer, and after how many events its client goes.
fn request(number: u64) -> (Value, Option<usize>) {
    let of = |what: u64, end| scattered(number * 1000 + what, end);
    let prompt: Vec<u64> = (0..1 + of(0, 64))
        .map(|i| 100 + of(100 + i, 40_000))
        .collect();
    let mut body = json!({
        "prompt": prompt, "max_tokens": 1 + of(1, 16), "seed": number, "ignore_eos": true,
        "temperature": ([0.0, 0.7, 1.0][of(2, 3) as usize]),
    });
    if of(3, 5) == 0 {
        body["n"] = 2.into();
    }
    if of(4, 5) == 0 {
        body["logprobs"] = 3.into();
    }
    if of(5, 20) == 0 {
        body["stop"] = json!([" the", "e"]);
    }
    // Some go as soon as they are taken in, some later.
    let goes = (of(6, 5) == 0).then(|| of(7, 6) as usize);
    if goes.is_some() || of(8, 2) == 0 {
        body["stream"] = true.into();
    }
    (body, goes)
}

/// Asks for all of these, several at a time; answers there are.
fn ask(server: &Server, numbers: std::ops::Range<u64>) -> u64 {
    let next = AtomicU64::new(numbers.start);
    let answers = AtomicU64::new(0);
    let client = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return;
            }
            let (body, goes) = request(number);
            answers.fetch_add(body["n"].as_u64().unwrap_or(1), Ordering::Relaxed);
            let reply = server.send("POST", TEXT, &body.to_string());
            assert_eq!(reply.status, 200, "{body}");
            match goes {
                Some(after) => drop(reply.events().nth(after)),
                None if body["stream"] == true => {
                    assert_eq!(reply.events().last().as_deref(), Some("[DONE]"), "{body}");
                }
                None => {
                    let answer: Value = serde_json::from_str(&reply.text()).unwrap();
                    let asked = body["n"].as_u64().unwrap_or(1) as usize;
                    assert_eq!(answer["choices"].as_array().unwrap().len(), asked);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..CLIENTS).for_each(|_| {
            scope.spawn(client);
        });
    });
    // Who has gone is noticed in time.
    server.until(|server| {
        let numbers = ["answers_running", "answers_waiting", "kv_pages_in_use"];
        let of = |name: &str| server.metric(&format!("redline_{name}"));
        numbers.map(of) == [0.0; 3]
    });
    answers.into_inner()
}

/// Answers that are over, by the server's own account, whatever ended them.
fn ended(server: &Server) -> u64 {
    let page = server.send("GET", "/metrics", "").text();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("redline_answers_ended_total{"));
    let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

fn soak(requests: u64, may_grow: f64) {
    let Some(server) = server(&["--kv-pages", "16"]) else {
        return;
    };
    let warm_up = (requests / 2).min(500);
    let mut answers = ask(&server, 0..warm_up);
    let resident = || ["VmRSS", "RssAnon"].map(|name| server.kilobytes(name));
    let (start, before) = (Instant::now(), resident());
    // On the way, to tell what grows for ever from what grew once.
    let mut on_the_way = Vec::new();
    for tenth in 0..10 {
        let of = |tenth| warm_up + (requests - warm_up) * tenth / 10;
        answers += ask(&server, of(tenth)..of(tenth + 1));
        on_the_way.push(resident()[1]);
    }
    let after = resident();
    println!(
        "{{\"promise\":\"memory of a server\",\"requests\":{requests},\"answers\":{answers},\
         \"seconds\":{:.0},\"rss_kib\":{before:?},\"rss_kib_after\":{after:?},\
         \"anonymous_kib\":{on_the_way:?},\"pages_cached\":{}}}",
        start.elapsed().as_secs_f64(),
        server.metric("redline_kv_pages_cached"),
    );
    assert_eq!(ended(&server), answers);
    for (before, after) in before.into_iter().zip(after) {
        let grown = after as f64 / before as f64 - 1.0;
        assert!(grown <= may_grow, "from {before} to {after} KiB");
    }
}

#[test]
fn memory_is_what_it_was_after_a_hundred_requests() {
    soak(200, GROWTH_OF_FEW);
}

/// `cargo test --release -p redline --test serve -- --ignored --nocapture` prints the figures.
#[test]
#[ignore = "takes minutes"]
fn memory_is_what_it_was_after_ten_thousand_requests() {
    soak(10_000, GROWTH);
}

#[test]
fn when_pages_run_out_answers_take_longer_and_are_the_same() {
    let body = |number: u64| {
        json!({"prompt": [(100 + number), 500, 600], "max_tokens": 150, "temperature": 1,
               "seed": number, "ignore_eos": true, "logprobs": 1})
    };
    let Some(roomy) = server(&[]) else {
        return;
    };
    let alone: Vec<Value> = (0..4).map(|n| choices(&roomy, TEXT, &body(n))).collect();
    drop(roomy);
    // Each needs three pages in the end.
    let small = server(&["--kv-pages", "5"]).unwrap();
    let crowd: Vec<Value> = std::thread::scope(|scope| {
        let small = &small;
        let asked = (0..4).map(|n| scope.spawn(move || choices(small, TEXT, &body(n))));
        let asked: Vec<_> = asked.collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert_eq!(crowd, alone);
    assert!(small.metric("redline_preemptions_total") > 0.0);
    // What all pages together cannot hold is one refusal.
    let tiny = server(&["--kv-pages", "2"]).unwrap();
    let (status, error) = tiny.ask(TEXT, &body(0));
    assert_eq!(
        (status, &error["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    let fits = json!({"prompt": "Once", "max_tokens": 5});
    assert_eq!(tiny.ask(TEXT, &fits).0, 200);
}

#[test]
fn a_server_looks_whether_its_weights_are_in_memory() {
    let Some(watched) = server(&["--residency-check", "1"]) else {
        return;
    };
    watched.until(|server| server.metric("redline_residency_checks_total") >= 2.0);
    let (all, resident) = (
        watched.metric("redline_weight_bytes"),
        watched.metric("redline_resident_weight_bytes"),
    );
    assert!(all > 8e7 && resident > 0.9 * all, "{resident} of {all}");
    assert_eq!(
        watched.metric("redline_swap_bytes"),
        1024.0 * watched.kilobytes("VmSwap") as f64
    );
    assert_eq!(watched.metric("redline_locked_bytes"), 0.0);
    let silent = server(&["--residency-check", "0"]).unwrap();
    let page = silent.send("GET", "/metrics", "").text();
    assert!(!page.contains("weight_bytes"), "{page}");
}

/// Whether a process may lock so much is the system's to say: either way it serves.
#[test]
fn weights_are_locked_or_it_is_said_that_they_are_not() {
    let Some(model) = redline_testkit::cached(redline_testkit::SMOLLM2) else {
        return;
    };
    let (server, said) = Server::start_hearing(&model, &["--mlock"]);
    server.until(|server| server.metric("redline_residency_checks_total") >= 1.0);
    let is_locked = server.metric("redline_locked_bytes") >= server.metric("redline_weight_bytes");
    let line = said.lines().find(|line| line.starts_with("mlock: "));
    assert_eq!(is_locked, line.is_none(), "{said}");
    if let Some(line) = line {
        assert!(line.contains("RLIMIT_MEMLOCK is "), "{line}");
    }
    assert_eq!(server.kilobytes("VmLck") > 0, is_locked);
}
