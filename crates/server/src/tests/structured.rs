//! Answers of a given form, from a model that would rather spell.

use serde_json::{Value, json};

use super::world::{Setting, World, events, idle};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Schema of an object with one word and one number.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "word": {"type": "string", "maxLength": 5},
            "number": {"type": "integer", "minimum": 10, "maximum": 99},
        },
        "required": ["word", "number"],
        "additionalProperties": false,
    })
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "abc"}], "temperature": 0});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn content(world: &World, extra: Value) -> String {
    let (status, answer) = world.ask(CHAT, chat(extra)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
    answer["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn an_answer_is_what_its_schema_says() {
    let world = World::new(&Setting::default());
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema()}});
    let by_format = content(&world, json!({"response_format": format})).await;
    let value: Value = serde_json::from_str(&by_format).unwrap();
    // The model spells on from what it had to write.
    assert_eq!(value, json!({"word": "#$%&'", "number": 12}));
    for json in [schema(), json!(schema().to_string())] {
        let outputs = json!({"structured_outputs": {"json": json}});
        assert_eq!(content(&world, outputs).await, by_format);
    }
    assert!(idle(&world).await);
}

#[tokio::test]
async fn expressions_choices_and_grammars_are_followed() {
    let world = World::new(&Setting::default());
    for (outputs, expected) in [
        (json!({"regex": "[b-d]{3}[0-1]"}), "dbc0"),
        (json!({"choice": ["no", "dear"]}), "dear"),
        (
            json!({"grammar": "start: \"d\" word\nword: /[e-g]+/ \"!\""}),
            "defg!",
        ),
        (json!({"json_object": true}), "{}"),
    ] {
        let kind = outputs.to_string();
        // It would never close a string.
        let mut extra = json!({"structured_outputs": outputs});
        if kind.contains("json_object") || kind.contains("[e-g]") {
            extra["logit_bias"] = json!({"125": 100, "33": 10});
        }
        assert_eq!(content(&world, extra).await, expected, "{kind}");
    }
    let body = json!({"prompt": "abc", "max_tokens": 9, "temperature": 0, "structured_outputs": {"regex": "d(x|y)"}});
    let (status, answer) = world.ask(TEXT, body).await;
    assert_eq!(
        (status, &answer["choices"][0]["text"]),
        (200, &json!("dx")),
        "{answer}"
    );
}

#[tokio::test]
async fn streams_and_several_answers_follow_it_too() {
    let world = World::new(&Setting::default());
    let extra = json!({"structured_outputs": {"regex": "[x-z]{4}"}, "stream": true, "n": 3, "temperature": 1.5});
    let (events, is_done) = events(world.post(CHAT, chat(extra).to_string()).await).await;
    assert!(is_done);
    for index in 0..3 {
        let choices = events
            .iter()
            .flat_map(|event| event["choices"].as_array().unwrap());
        let text: String = choices
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        assert_eq!(text.len(), 4, "{text}");
        assert!(
            text.bytes().all(|byte| (b'x'..=b'z').contains(&byte)),
            "{text}"
        );
    }
}

/// Each is refused, for the field and the reason beside it.
async fn check_refusals(cases: &[(Value, &str, &str)]) {
    let world = World::new(&Setting::default());
    for (extra, field, why) in cases {
        let (status, answer) = world.ask(CHAT, chat(extra.clone())).await;
        assert_eq!(status, 400, "{extra}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["param"], *field, "{extra}: {answer}");
        assert!(
            error["message"].as_str().unwrap().contains(why),
            "{extra}: {answer}"
        );
    }
}

#[tokio::test]
async fn formats_that_cannot_be_followed_are_refused() {
    let format = |schema: Value| json!({"type": "json_schema", "json_schema": {"schema": schema}});
    let in_schema = "response_format.json_schema.schema";
    check_refusals(&[
        (
            json!({"response_format": {"type": "json_schema"}}),
            in_schema,
            "nothing",
        ),
        (
            json!({"response_format": format(json!({"type": "banana"}))}),
            in_schema,
            "banana",
        ),
        (
            json!({"response_format": format(json!(7))}),
            in_schema,
            "an object, true or false",
        ),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format",
            "json_schema",
        ),
        (json!({"response_format": 3}), "response_format", "3"),
    ])
    .await;
}

#[tokio::test]
async fn outputs_that_cannot_be_followed_are_refused() {
    check_refusals(&[
        (
            json!({"structured_outputs": {"regex": "("}}),
            "structured_outputs.regex",
            "unclosed",
        ),
        (
            json!({"structured_outputs": {"grammar": "x"}}),
            "structured_outputs.grammar",
            "Expected token",
        ),
        (
            json!({"structured_outputs": {"json": "{"}}),
            "structured_outputs",
            "an object with one of",
        ),
        (
            json!({"structured_outputs": {"choice": [1]}}),
            "structured_outputs",
            "an object with one of",
        ),
        (
            json!({"structured_outputs": {"regex": "a", "grammar": "b"}}),
            "structured_outputs",
            "with one of",
        ),
        (
            json!({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}),
            "structured_outputs",
            "both",
        ),
        (
            json!({"structured_outputs": {"regex": "a"}, "ignore_eos": true}),
            "ignore_eos",
            "whole",
        ),
    ])
    .await;
}

#[tokio::test]
async fn text_is_a_format_too() {
    let world = World::new(&Setting::default());
    let format = json!({"response_format": {"type": "text"}});
    assert_eq!(content(&world, format).await.len(), 23);
}
