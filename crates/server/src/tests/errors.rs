//! What is refused, and how.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::world::{Setting, World, idle, post, read};
use crate::guard::MAX_BODY_BYTES;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[tokio::test]
async fn every_wrong_field_is_told_at_once() {
    let world = World::new(&Setting::default());
    let body = json!({
        "messages": [{"role": "user", "content": [{"type": "image_url"}]}],
        "temperature": 3, "top_p": "x", "n": 99, "stop": ["a", "b", "c", "d", "e"],
        "top_logprobs": 2, "tools": [{}], "max_tokens": -1, "logit_bias": {"x": 1},
        "stream_options": {"include_usage": 1}, "unknown": {"is": "accepted"},
    });
    let (status, answer) = world.ask(CHAT, body).await;
    assert_eq!(status, 400);
    let errors = answer["error"]["errors"].as_array().unwrap();
    let mut found: Vec<&str> = errors
        .iter()
        .map(|e| e["field"].as_str().unwrap())
        .collect();
    found.sort_unstable();
    let expected = [
        "logit_bias",
        "max_tokens",
        "messages[0].content",
        "n",
        "stop",
        "stream_options.include_usage",
        "temperature",
        "tools",
        "top_logprobs",
        "top_p",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn refusals_have_their_own_statuses() {
    let world = World::new(&Setting::default());
    let message = |content: &str| json!([{"role": "user", "content": content}]);
    for (path, body, status, code) in [
        (
            CHAT,
            json!({"messages": message("a"), "model": "other"}),
            404,
            "model_not_found",
        ),
        (CHAT, json!({"messages": []}), 400, "invalid_value"),
        (CHAT, json!({"messages": message("")}), 400, "invalid_value"),
        (
            CHAT,
            json!({"messages": [{"role": "bad", "content": "a"}]}),
            400,
            "chat_template",
        ),
        (
            CHAT,
            json!({"messages": message(&"a".repeat(300))}),
            400,
            "context_length_exceeded",
        ),
        (
            CHAT,
            json!({"messages": message("a"), "max_tokens": 256}),
            400,
            "context_length_exceeded",
        ),
        (
            CHAT,
            json!({"messages": message("a"), "max_tokens": 0}),
            400,
            "invalid_value",
        ),
        (
            CHAT,
            json!({"messages": message("a"), "response_format": {"type": "xml"}}),
            400,
            "invalid_value",
        ),
        (TEXT, json!({}), 400, "invalid_value"),
        (
            TEXT,
            json!({"prompt": [[1, 2], [99999]]}),
            400,
            "invalid_value",
        ),
        (
            TEXT,
            json!({"prompt": "a", "echo": true, "stream": true}),
            400,
            "invalid_value",
        ),
        (TEXT, json!([1]), 400, "invalid_json"),
        ("/v1/nothing", json!({}), 404, "not_found"),
        ("/health", json!({}), 405, "method_not_allowed"),
    ] {
        let (found, answer) = world.ask(path, body.clone()).await;
        assert_eq!(
            (found, answer["error"]["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn what_does_not_fit_is_told_in_numbers() {
    let world = World::new(&Setting::default());
    let body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 300});
    let (_, answer) = world.ask(CHAT, body).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("301") && message.contains("256"),
        "{message}"
    );
}

#[tokio::test]
async fn a_model_without_a_template_says_so() {
    let world = World::new(&Setting {
        no_template: true,
        ..Setting::default()
    });
    let body = json!({"messages": [{"role": "user", "content": "a"}]});
    let (status, answer) = world.ask(CHAT, body).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("no_chat_template"))
    );
}

#[tokio::test]
async fn bodies_have_a_kind_and_a_limit() {
    let world = World::new(&Setting::default());
    let (status, _) = read(world.post(CHAT, "{").await).await;
    assert_eq!(status, 400);
    let deep = "[".repeat(100_000);
    let (status, _) = read(world.post(CHAT, deep).await).await;
    assert_eq!(status, 400);
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    let (status, answer) = read(world.post(CHAT, large).await).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (413, &json!("body_too_large"))
    );
    let mut request = post(CHAT, "{}");
    request
        .headers_mut()
        .insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    let (status, _) = read(world.send(request).await).await;
    assert_eq!(status, 415);
}

/// Status for a `GET` with some headers.
async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    world.send(request).await.status().as_u16()
}

#[tokio::test]
async fn every_route_but_health_wants_the_key() {
    let world = World::new(&Setting {
        api_key: Some("k3y"),
        ..Setting::default()
    });
    let host = ("host", "localhost");
    for path in [
        "/v1/models",
        "/metrics",
        "/version",
        "/server_info",
        "/readyz",
        "/ping",
        "/nothing",
    ] {
        assert_eq!(get(&world, path, &[host]).await, 401, "{path}");
        let wrong = ("authorization", "Bearer k3");
        assert_eq!(get(&world, path, &[host, wrong]).await, 401, "{path}");
        let right = ("authorization", "bearer k3y");
        assert_ne!(get(&world, path, &[host, right]).await, 401, "{path}");
        let right = ("x-api-key", "k3y");
        assert_ne!(get(&world, path, &[host, right]).await, 401, "{path}");
    }
    for path in [CHAT, TEXT] {
        assert_eq!(world.post(path, "{}").await.status(), 401);
    }
    assert_eq!(get(&world, "/health", &[host]).await, 200);
    assert_eq!(get(&world, "/livez", &[host]).await, 200);
}

#[tokio::test]
async fn pages_of_elsewhere_may_not_ask() {
    let world = World::new(&Setting::default());
    let host = ("host", "127.0.0.1:8080");
    for (headers, status) in [
        (&[host] as &[_], 200),
        (&[], 403),
        (&[("host", "evil.example")], 403),
        (&[host, ("origin", "http://127.0.0.1:8080")], 200),
        (&[host, ("origin", "http://example.com")], 403),
        (&[host, ("origin", "null")], 403),
    ] {
        assert_eq!(
            get(&world, "/v1/models", headers).await,
            status,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn a_full_queue_is_said_and_a_drained_server_takes_nothing() {
    let world = World::new(&Setting {
        max_running: Some(1),
        max_waiting: Some(1),
        pace: Duration::from_millis(20),
        ..Setting::default()
    });
    let body = json!({"prompt": "a", "stream": true, "max_tokens": 200, "ignore_eos": true});
    let mut kept = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let response = world.post(TEXT, body.to_string()).await;
        statuses.push(response.status().as_u16());
        if response.status() == 429 {
            assert!(response.headers().contains_key(header::RETRY_AFTER));
        }
        kept.push(response);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(statuses, [200, 200, 429]);
    drop(kept);
    assert!(idle(&world).await);
    assert_eq!(world.get("/health").await.0, 200);
    world.app.drain();
    let (status, told) = world.get("/health").await;
    assert_eq!(status, 503);
    assert!(told.contains("draining"), "{told}");
    assert_eq!(world.get("/livez").await.0, 200);
    let response = world.post(TEXT, body.to_string()).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let world = World::new(&Setting::default());
    let (_, models) = world.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models["data"][0]["id"], "alphabet");
    assert_eq!(models["data"][0]["max_model_len"], 256);
    let (_, page) = world.get("/metrics").await;
    assert!(
        page.contains("vllm:num_requests_running{model_name=\"alphabet\"} 0"),
        "{page}"
    );
}

/// JSON of the shapes that fields have, and of others.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_i64..4).prop_map(Value::from),
        "[a-z<>/|\\PC]{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["user", "text", "json_object", "0", "1", "alphabet"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let name = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "text",
            "include_usage",
            "tool_calls",
            "1",
            "259",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(|pairs| {
                let pairs = pairs
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(pairs.collect::<Map<_, _>>())
            }),
        ]
    })
}

const FIELDS: [&str; 25] = [
    "model",
    "messages",
    "prompt",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "n",
    "stop",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "max_completion_tokens",
    "stream",
    "stream_options",
    "echo",
    "best_of",
    "tools",
    "response_format",
    "structured_outputs",
    "ignore_eos",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is sent gets an answer that is not the server's fault.
    #[test]
    fn no_body_is_too_strange(
        fields in prop::collection::vec((prop::sample::select(FIELDS.to_vec()), value()), 0..8),
        good in any::<bool>(),
        chat in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new(&Setting::default());
            let mut body = json!({"max_tokens": 3});
            if good {
                body["prompt"] = "ab".into();
                body["messages"] = json!([{"role": "user", "content": "ab"}]);
            }
            for (name, value) in fields {
                body[name] = value;
            }
            let path = if chat { CHAT } else { TEXT };
            let response = world.post(path, body.to_string()).await;
            let status = response.status().as_u16();
            assert!([200, 400, 404].contains(&status), "{status} {body}");
            // To its end, whole or streamed.
            let text = super::world::text(response).await;
            assert!(!text.contains("internal_error"), "{text} {body}");
            assert!(idle(&world).await, "{body}");
        });
    }
}
