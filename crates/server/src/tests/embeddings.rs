//! Embeddings, and what is asked of the wrong kind of model.

use base64::Engine as _;
use serde_json::{Value, json};

use super::world::{Setting, World};

const EMBEDDINGS: &str = "/v1/embeddings";

/// The mean of the bytes and 1, scaled.
fn expected(mean: f64) -> [f32; 2] {
    let length = (mean * mean + 1.0).sqrt();
    [(mean / length) as f32, (1.0 / length) as f32]
}

fn numbers(value: &Value) -> Vec<f32> {
    let numbers = value.as_array().unwrap().iter();
    numbers
        .map(|number| number.as_f64().unwrap() as f32)
        .collect()
}

#[tokio::test]
async fn every_text_has_its_embedding() {
    let world = World::of_embeddings();
    let body = json!({"input": ["a", "ac", [97, 97]], "model": "bytes"});
    let (status, answer) = world.ask(EMBEDDINGS, body).await;
    assert_eq!(status, 200, "{answer}");
    for (index, mean) in [97.0, 98.0, 97.0].into_iter().enumerate() {
        let entry = &answer["data"][index];
        assert_eq!(entry["index"], index);
        assert_eq!(numbers(&entry["embedding"]), expected(mean));
    }
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 5, "total_tokens": 5})
    );
    // As clients ask that want it short.
    let body = json!({"input": "ac", "encoding_format": "base64"});
    let (_, answer) = world.ask(EMBEDDINGS, body).await;
    let text = answer["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap();
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    let found: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    assert_eq!(found, expected(98.0));
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused() {
    let world = World::of_embeddings();
    for (body, field) in [
        (json!({}), "input"),
        (json!({"input": ""}), "input[0]"),
        (json!({"input": ["a", "b".repeat(300)]}), "input[1]"),
        (json!({"input": [[1, 9999]]}), "input[0]"),
        (json!({"input": "a", "dimensions": 3}), "dimensions"),
        (
            json!({"input": "a", "encoding_format": "hex"}),
            "encoding_format",
        ),
    ] {
        let (status, answer) = world.ask(EMBEDDINGS, body.clone()).await;
        assert_eq!(
            (status, answer["error"]["param"].as_str()),
            (400, Some(field)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn each_kind_of_model_says_what_it_is_for() {
    let generates = World::new(&Setting::default());
    let embeds = World::of_embeddings();
    let (status, answer) = generates.ask(EMBEDDINGS, json!({"input": "a"})).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("wrong_model"))
    );
    let (status, answer) = embeds.ask("/v1/completions", json!({"prompt": "a"})).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("wrong_model"))
    );
    assert_eq!(embeds.get("/metrics").await.0, 200);
    assert_eq!(embeds.get("/health").await.0, 200);
}
