//! What is told of an answer, and in which order.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::world::{Setting, World, events, idle, post, read, until};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn world() -> World {
    World::new(&Setting::default())
}

fn chat(extra: Value) -> Value {
    let mut body = json!({
        "model": "alphabet",
        "messages": [{"role": "user", "content": "abc"}],
        "temperature": 0,
    });
    merge(&mut body, extra);
    body
}

fn merge(body: &mut Value, extra: Value) {
    let Value::Object(extra) = extra else { return };
    for (name, value) in extra {
        body[name] = value;
    }
}

#[tokio::test]
async fn a_chat_goes_on_to_its_end() {
    let (status, answer) = world().ask(CHAT, chat(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "defghijklmnopqrstuvwxyz");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"], Value::Null);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 23);
    assert_eq!(answer["usage"]["total_tokens"], 26);
    assert!(answer["seed"].is_u64());
}

#[tokio::test]
async fn a_stream_has_one_event_a_token_and_the_role_in_the_first() {
    let body = chat(json!({"stream": true, "max_tokens": 4, "seed": 9,
                           "stream_options": {"include_usage": true}}));
    let (events, is_done) = events(world().post(CHAT, body.to_string()).await).await;
    assert!(is_done);
    assert_eq!(events.len(), 4 + 2);
    let delta = |event: &Value| event["choices"][0]["delta"].clone();
    assert_eq!(
        delta(&events[0]),
        json!({"role": "assistant", "content": "d"})
    );
    assert_eq!(delta(&events[1]), json!({"content": "e"}));
    assert_eq!(delta(&events[4]), json!({}));
    assert_eq!(events[4]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[5]["choices"], json!([]));
    assert_eq!(events[5]["usage"]["completion_tokens"], 4);
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["id"], events[0]["id"]);
        assert_eq!(event["seed"], 9);
        assert!(event.as_object().unwrap().contains_key("usage"));
    }
}

#[tokio::test]
async fn an_answer_that_ends_at_once_has_one_event() {
    let body = json!({"messages": [{"role": "user", "content": "z"}], "stream": true,
                      "temperature": 0});
    let (events, is_done) = events(world().post(CHAT, body.to_string()).await).await;
    assert!(is_done);
    assert_eq!(events.len(), 1);
    let choice = &events[0]["choices"][0];
    assert_eq!(choice["delta"], json!({"role": "assistant"}));
    assert_eq!(choice["finish_reason"], "stop");
}

#[tokio::test]
async fn a_stop_string_ends_it_and_what_could_be_one_is_held_back() {
    let world = world();
    let whole = world.ask(CHAT, chat(json!({"stop": ["hij", "q"]}))).await.1;
    assert_eq!(whole["choices"][0]["message"]["content"], "defg");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["usage"]["completion_tokens"], 7);
    let body = chat(json!({"stop": "hij", "stream": true}));
    let (streamed, _) = events(world.post(CHAT, body.to_string()).await).await;
    let texts: Vec<&str> = (streamed.iter())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(texts, ["d", "e", "f", "g", "", "", ""]);
    assert_eq!(streamed[7]["choices"][0]["finish_reason"], "stop");
    // A beginning that leads nowhere comes when the answer ends.
    let body = chat(json!({"stop": "fgX", "max_tokens": 4}));
    let cut = world.ask(CHAT, body).await.1;
    assert_eq!(cut["choices"][0]["message"]["content"], "defg");
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert!(idle(&world).await);
}

#[tokio::test]
async fn what_is_thought_is_told_apart() {
    let world = world();
    // The prompt opens a thought.
    let body = json!({"messages": [{"role": "user", "content": "<think>x"}], "temperature": 0});
    let (_, answer) = world.ask(CHAT, body.clone()).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "yz");
    assert_eq!(message["content"], "");
    let mut body = body;
    body["stream"] = true.into();
    let (events, _) = events(world.post(CHAT, body.to_string()).await).await;
    let first = &events[0]["choices"][0]["delta"];
    assert_eq!(
        *first,
        json!({"role": "assistant", "reasoning_content": "y"})
    );
}

#[tokio::test]
async fn a_token_comes_with_how_likely_it_was() {
    let body = chat(json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 2}));
    let (_, answer) = world().ask(CHAT, body).await;
    let entries = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (&entries[0]["token"], &entries[0]["bytes"]),
        (&json!("d"), &json!([100]))
    );
    assert_eq!(entries[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let first = entries[0]["logprob"].as_f64().unwrap();
    assert_eq!(
        entries[0]["top_logprobs"][0]["logprob"].as_f64().unwrap(),
        first
    );
    // One logit of 20 among 259 of 0.
    assert!((first + 259.0 * (-20.0_f64).exp()).abs() < 1e-7, "{first}");
}

#[tokio::test]
async fn completions_take_several_prompts_in_text_and_ids() {
    let world = world();
    let body = json!({"prompt": ["ab", [109, 110]], "max_tokens": 2, "temperature": 0, "n": 2});
    let (status, answer) = world.ask(TEXT, body).await;
    assert_eq!(status, 200, "{answer}");
    let texts: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| {
            (
                choice["index"].as_u64().unwrap(),
                choice["text"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(texts, [(0, "cd"), (1, "cd"), (2, "op"), (3, "op")]);
    assert_eq!(answer["usage"]["prompt_tokens"], 4);
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    let defaults = world
        .ask(TEXT, json!({"prompt": "a", "temperature": 0}))
        .await
        .1;
    assert_eq!(defaults["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn an_echo_tells_how_likely_the_prompt_was() {
    let world = world();
    let body = json!({"prompt": "abX", "max_tokens": 1, "logprobs": 1, "echo": true,
                      "temperature": 0});
    let answer = world.ask(TEXT, body).await.1;
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "abXY");
    let lists = &choice["logprobs"];
    assert_eq!(lists["tokens"], json!(["a", "b", "X", "Y"]));
    assert_eq!(lists["text_offset"], json!([0, 1, 2, 3]));
    let logprobs = lists["token_logprobs"].as_array().unwrap();
    assert_eq!(logprobs[0], Value::Null);
    assert!(
        logprobs[1].as_f64().unwrap() > -1e-5,
        "b follows a: {lists}"
    );
    assert!(
        logprobs[2].as_f64().unwrap() < -19.0,
        "X does not follow b: {lists}"
    );
    let top = lists["top_logprobs"][2].as_object().unwrap();
    assert!(top.contains_key("c") && top.contains_key("X"), "{lists}");
    // Nothing but the prompt, as harnesses ask.
    let body = json!({"prompt": "ab", "max_tokens": 0, "logprobs": 1, "echo": true});
    let answer = world.ask(TEXT, body).await.1;
    assert_eq!(answer["choices"][0]["text"], "ab");
    assert_eq!(
        answer["choices"][0]["logprobs"]["tokens"],
        json!(["a", "b"])
    );
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

/// Time is tokio's: it goes on by itself when nothing else can.
#[tokio::test(start_paused = true)]
async fn a_comment_says_that_somebody_is_there() {
    let world = World::new(&Setting {
        pace: Duration::from_millis(100),
        ..Setting::default()
    });
    let body = chat(json!({"stream": true, "max_tokens": 1}));
    let response = world.post(CHAT, body.to_string()).await;
    let text = super::world::text(response).await;
    let before = &text[..text.find("data: ").unwrap()];
    assert!(before.starts_with(": keep-alive\n\n"), "{before}");
    assert_eq!(before.replace(": keep-alive\n\n", ""), "");
}

#[tokio::test]
async fn whoever_leaves_takes_the_request_along() {
    let world = World::new(&Setting {
        pace: Duration::from_millis(5),
        ..Setting::default()
    });
    // A stream, after its first event.
    let body = chat(json!({"stream": true, "ignore_eos": true}));
    let response = world.post(CHAT, body.to_string()).await;
    let mut stream = response.into_body().into_data_stream();
    for _ in 0..2 {
        assert!(stream.next().await.is_some());
    }
    assert_ne!(world.app.loaded().unwrap().snapshot().load.pages_in_use, 0);
    drop(stream);
    assert!(idle(&world).await);
    // An answer that is told whole, and one that is not accepted yet.
    for time in [30, 0] {
        let whole = world.ask(CHAT, chat(json!({"ignore_eos": true})));
        let left = tokio::time::timeout(Duration::from_millis(time), whole).await;
        assert!(left.is_err(), "{left:?}");
        assert!(idle(&world).await);
    }
    let stats = world.app.loaded().unwrap().snapshot().stats;
    assert!(stats.ended_cancelled >= 2, "{stats:?}");
}

#[tokio::test]
async fn whoever_leaves_while_waiting_waits_no_more() {
    let world = World::new(&Setting {
        max_running: Some(1),
        pace: Duration::from_millis(20),
        ..Setting::default()
    });
    let body = chat(json!({"stream": true, "ignore_eos": true}));
    let running = world.post(CHAT, body.to_string()).await;
    let waiting = world.post(CHAT, body.to_string()).await;
    let becomes = async |running, waiting| {
        until(&world, |snapshot| {
            (snapshot.load.running, snapshot.load.waiting) == (running, waiting)
        })
        .await
    };
    assert!(becomes(1, 1).await);
    drop(waiting);
    assert!(becomes(1, 0).await);
    drop(running);
    assert!(idle(&world).await);
}

#[tokio::test]
async fn the_engine_is_told_of_a_stop_string() {
    let world = World::new(&Setting {
        pace: Duration::from_millis(2),
        ..Setting::default()
    });
    let body = chat(json!({"stop": "fg", "ignore_eos": true, "max_tokens": 200}));
    let (_, answer) = world.ask(CHAT, body).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "de");
    assert!(idle(&world).await);
    let stats = world.app.loaded().unwrap().snapshot().stats;
    assert_eq!((stats.ended_stop, stats.ended_length), (1, 0), "{stats:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_its_own_request() {
    let world = world();
    // More events than wait for anybody.
    let body = json!({"prompt": vec!["a"; 64], "max_tokens": 200, "stream": true,
                      "ignore_eos": true, "temperature": 0});
    let response = world.post(TEXT, body.to_string()).await;
    let is_ended = until(&world, |snapshot| snapshot.stats.ended_cancelled > 0).await;
    assert!(is_ended, "it is ended");
    assert!(idle(&world).await, "the engine waits for nobody");
    let (events, is_done) = events(response).await;
    assert!(!is_done);
    assert_eq!(events.last().unwrap()["error"]["code"], "internal_error");
    // Others are served as before.
    let (status, _) = read(
        world
            .send(post(CHAT, Body::from(chat(json!({})).to_string())))
            .await,
    )
    .await;
    assert_eq!(status, 200);
}
