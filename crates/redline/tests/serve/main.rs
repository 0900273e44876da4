//! `redline serve` with a real model, as clients see it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod client;
#[cfg(target_os = "linux")]
mod memory;

use std::time::Duration;

use serde_json::{Value, json};

use client::{Reply, Server};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A server with the small real model, unless that is absent.
#[track_caller]
fn server(flags: &[&str]) -> Option<Server> {
    let model = redline_testkit::cached(redline_testkit::SMOLLM2)?;
    Some(Server::start(
        &model,
        &[&["--context", "1024"], flags].concat(),
    ))
}

/// What a stream says, joined: text, entries of log-probabilities, what ended it, and the usage.
fn joined(reply: Reply) -> (String, Vec<Value>, Value, Value) {
    assert_eq!(reply.status, 200);
    let (mut text, mut logprobs) = (String::new(), Vec::new());
    let (mut finish, mut usage, mut is_done) = (Value::Null, Value::Null, false);
    for data in reply.events() {
        if data == "[DONE]" {
            is_done = true;
            continue;
        }
        let event: Value = serde_json::from_str(&data).unwrap();
        if event["usage"].is_object() {
            usage = event["usage"].clone();
        }
        let choice = &event["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        text.push_str(choice["text"].as_str().unwrap_or_default());
        let entries = choice["logprobs"]["content"].as_array();
        logprobs.extend(entries.into_iter().flatten().cloned());
        if choice["finish_reason"].is_string() {
            finish = choice["finish_reason"].clone();
        }
    }
    assert!(is_done);
    (text, logprobs, finish, usage)
}

/// Eight requests, each of another kind.
fn mixed() -> Vec<(&'static str, Value)> {
    let ask = |content: &str, extra: Value| {
        let mut body = json!({
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 24, "logprobs": true, "top_logprobs": 3, "seed": 11,
        });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        (CHAT, body)
    };
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    vec![
        ask("What is the capital of France?", json!({"temperature": 0})),
        ask("What is the capital of France?", json!({"temperature": 1})),
        ask(
            "Write a poem.",
            json!({"temperature": 0.8, "top_p": 0.9, "seed": 5}),
        ),
        ask(
            "Count to ten.",
            json!({"temperature": 0, "stop": ["5", "five"]}),
        ),
        ask(
            &long,
            json!({"temperature": 0.7, "top_k": 40, "min_p": 0.05}),
        ),
        ask(
            "Say a word again and again.",
            json!({"repetition_penalty": 1.3, "n": 2}),
        ),
        (
            TEXT,
            json!({"prompt": "1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3,", "max_tokens": 32,
                      "temperature": 0, "logprobs": 2}),
        ),
        (
            TEXT,
            json!({"prompt": [[504, 2], "Once upon a time"], "max_tokens": 12, "seed": 3,
                      "logprobs": 1, "logit_bias": {"100": 5}}),
        ),
    ]
}

/// What `redline run` says, which was there before: up to 24 tokens, the likeliest.
fn said_by_run(prompt: &str) -> Value {
    let model = redline_testkit::cached(redline_testkit::SMOLLM2).unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_redline"))
        .args(["run", model.to_str().unwrap(), prompt, "--json", "-n", "24"])
        .args(["--temperature", "0"])
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    said["text"].clone()
}

fn choices(server: &Server, path: &str, body: &Value) -> Value {
    let (status, mut answer) = server.ask(path, body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"].take()
}

#[test]
fn an_answer_is_the_same_streamed_and_alone_and_in_a_crowd() {
    let Some(server) = server(&["--max-running", "8"]) else {
        return;
    };
    let alone: Vec<Value> = (mixed().iter())
        .map(|(path, body)| choices(&server, path, body))
        .collect();
    assert_eq!(
        alone[0][0]["message"]["content"],
        said_by_run("What is the capital of France?")
    );
    let stopped = alone[3][0]["message"]["content"].as_str().unwrap();
    assert!(!stopped.contains('5'), "{stopped}");
    // Streamed.
    for ((path, body), whole) in mixed().iter().zip(&alone) {
        if body["n"] == 2 || body["prompt"].is_array() {
            continue;
        }
        let mut body = body.clone();
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        let (text, logprobs, finish, usage) = joined(server.send("POST", path, &body.to_string()));
        let whole = &whole[0];
        let expected = whole["message"]["content"]
            .as_str()
            .or(whole["text"].as_str());
        assert_eq!(Some(&*text), expected);
        assert_eq!(finish, whole["finish_reason"]);
        assert!(usage["completion_tokens"].as_u64().unwrap() > 0, "{usage}");
        assert!(
            usage["prompt_tokens_details"]["cached_tokens"].is_u64(),
            "{usage}"
        );
        if *path == CHAT {
            assert_eq!(Value::from(logprobs), whole["logprobs"]["content"]);
        }
    }
    // In a crowd, each twice at a time, the later ones first.
    for round in 0..2 {
        std::thread::scope(|scope| {
            let server = &server;
            let mut order: Vec<usize> = (0..alone.len()).chain(0..alone.len()).collect();
            if round == 1 {
                order.reverse();
            }
            let asked: Vec<_> = (order.into_iter())
                .map(|index| {
                    let asked = scope.spawn(move || {
                        let (path, body) = &mixed()[index];
                        choices(server, path, body)
                    });
                    (index, asked)
                })
                .collect();
            for (index, asked) in asked {
                assert_eq!(asked.join().unwrap(), alone[index], "request {index}");
            }
        });
    }
    assert!(server.metric("vllm:prefix_cache_hits_total") > 0.0);
    assert!(server.metric("redline_generated_tokens_total") > 0.0);
    // Its numbers are told after the answers of a step are.
    server.until(|server| server.metric("redline_kv_pages_in_use") == 0.0);
}

#[test]
fn embeddings_are_those_of_the_verb() {
    let Some(model) = redline_testkit::cached(redline_testkit::MINILM) else {
        return;
    };
    // Of several lengths, computed one by one there and together here.
    let texts: Vec<String> = (1..12)
        .map(|count| "Paris is the capital of France. ".repeat(count * count % 7 + 1))
        .collect();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_redline"))
        .args(["embed", model.to_str().unwrap()])
        .args(&texts)
        .output()
        .unwrap();
    let expected: Value = serde_json::from_slice(&run.stdout).unwrap();
    let server = Server::start(&model, &[]);
    let (status, answer) = server.ask("/v1/embeddings", &json!({"input": texts}));
    assert_eq!(status, 200, "{answer}");
    for index in 0..texts.len() {
        let found = answer["data"][index]["embedding"].as_array().unwrap();
        assert_eq!(found.len(), 384);
        // The same numbers, written as JSON by either.
        let expected = expected["embeddings"][index]["embedding"]
            .as_array()
            .unwrap();
        let number = |value: &Value| value.as_f64().unwrap() as f32;
        assert!(found.iter().map(number).eq(expected.iter().map(number)));
    }
    server.terminate();
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn whoever_leaves_frees_their_pages() {
    let Some(server) = server(&[]) else {
        return;
    };
    let prompt = "word ".repeat(900);
    let (decoding, reading) = (
        json!({"prompt": "Once", "max_tokens": 900, "stream": true, "ignore_eos": true}),
        json!({"prompt": prompt, "max_tokens": 50, "stream": true, "ignore_eos": true}),
    );
    // Headers come when a request is taken in: a long prompt is still being read then.
    for body in [decoding, reading] {
        // Others use this machine too: once is enough, and what is not cancelled takes seconds.
        let times: Vec<Duration> = (0..5)
            .map(|_| time_to_free(&server, &body))
            .take_while(|took| *took >= Duration::from_millis(200))
            .collect();
        assert!(times.len() < 5, "{times:?}");
    }
    let page = server.send("GET", "/metrics", "").text();
    let none = "redline_answers_ended_total{model_name=\"m\",reason=\"length\"} 0";
    assert!(page.contains(none), "{page}");
}

/// How long a request keeps its pages after its client has gone.
fn time_to_free(server: &Server, body: &Value) -> Duration {
    let is_free = |server: &Server| server.metric("redline_kv_pages_in_use") == 0.0;
    let reply = server.send("POST", TEXT, &body.to_string());
    assert_eq!(reply.status, 200);
    server.until(|server| !is_free(server));
    drop(reply);
    server.until(is_free)
}

#[test]
fn a_server_that_is_to_end_finishes_what_is_under_way() {
    let Some(server) = server(&["--drain-time", "60"]) else {
        return;
    };
    let body = json!({"prompt": "Once upon a time", "max_tokens": 60, "stream": true,
                      "ignore_eos": true, "temperature": 0});
    let reply = server.send("POST", TEXT, &body.to_string());
    assert_eq!(server.send("GET", "/health", "").status, 200);
    server.terminate();
    server.until(|server| server.send("GET", "/health", "").status == 503);
    let refused = server.send("POST", TEXT, &body.to_string());
    assert_eq!(refused.status, 503);
    assert!(refused.has_header("retry-after"));
    let data: Vec<String> = reply.events().collect();
    assert_eq!(data.len(), 60 + 2);
    assert_eq!(data[61], "[DONE]");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn answers_that_take_too_long_are_cut_when_it_ends() {
    let Some(server) = server(&["--drain-time", "0"]) else {
        return;
    };
    let body = json!({"prompt": "Once", "max_tokens": 900, "stream": true, "ignore_eos": true});
    let reply = server.send("POST", TEXT, &body.to_string());
    server.terminate();
    let last = reply.events().last().unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["error"]["code"], "cancelled", "{last}");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_full_queue_is_refused_and_errors_have_their_envelope() {
    let Some(server) = server(&["--max-running", "1", "--max-waiting", "1"]) else {
        return;
    };
    let body = json!({"prompt": "Once", "max_tokens": 900, "stream": true, "ignore_eos": true});
    let body = body.to_string();
    let running = server.send("POST", TEXT, &body);
    server.until(|server| server.metric("vllm:num_requests_running") == 1.0);
    let waiting = server.send("POST", TEXT, &body);
    let refused = server.send("POST", TEXT, &body);
    assert_eq!(
        (running.status, waiting.status, refused.status),
        (200, 200, 429)
    );
    assert!(refused.has_header("retry-after") && refused.has_header("x-request-id"));
    let error: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!(error["error"]["type"], "rate_limit_error");
    drop((running, waiting));
    let (status, error) = server.ask(TEXT, &json!({"prompt": "a", "max_tokens": 5000}));
    assert_eq!(
        (status, &error["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    let (status, _) = server.ask(TEXT, &json!({"prompt": "a", "model": "x"}));
    assert_eq!(status, 404);
    let text = server.send("POST", TEXT, "{").text();
    assert!(text.contains("invalid_json"), "{text}");
}

#[test]
fn a_public_address_without_a_key_is_refused() {
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_redline"))
        .args([
            "serve",
            "synth:tiny-llama",
            "--host",
            "0.0.0.0",
            "--port",
            "0",
        ])
        .env_remove("REDLINE_API_KEY")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--api-key"), "{said}");
}

#[test]
fn a_draft_model_changes_nothing() {
    let Some(model) = redline_testkit::cached(redline_testkit::SMOLLM2) else {
        return;
    };
    let ask = |flags: &[&str]| {
        let server = Server::start(&model, flags);
        let mixed = mixed();
        let answers = mixed
            .iter()
            .map(|(path, body)| choices(&server, path, body));
        (answers.collect::<Vec<_>>(), server)
    };
    let (plain, _) = ask(&["--context", "1024"]);
    let (drafted, server) = ask(&["--context", "1024", "--draft", model.to_str().unwrap()]);
    assert_eq!(drafted, plain);
    server.until(|server| server.metric("redline_draft_guesses_total") > 0.0);
    assert_eq!(server.metric("redline_draft_failures_total"), 0.0);
}
