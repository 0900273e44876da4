//! Sources made to hurt end in an error within a second, or compile; then each set of tokens costs
//! little, or ends in an error as well.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use redline_engine::{GrammarError, TokenId, TokenSet};
use redline_grammar::{Error, Grammars, Source};
use redline_tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use support::tokenizer;

/// What must be over by then, also in a debug build on a busy machine.
const SECOND: Duration = Duration::from_secs(1);

/// What comes of a source.
enum Fate {
    /// It compiles, and an answer can follow it.
    Fine,
    /// It does not, and the error says this.
    Refused(&'static str),
}
use Fate::{Fine, Refused};

#[test]
fn nothing_takes_longer_than_a_second_and_nothing_panics() {
    let Some(tokenizer) = tokenizer() else { return };
    let grammars = Grammars::default();
    // The vocabulary is sorted once, whoever comes first.
    grammars.compile(&tokenizer, &Source::JsonObject).unwrap();
    let lists = [
        references(),
        sizes(),
        senseless(),
        combined(),
        expressions(),
        rules(),
    ];
    for (name, source, fate) in lists.into_iter().flatten() {
        let start = Instant::now();
        let mut compiled = grammars.compile(&tokenizer, &source);
        assert!(start.elapsed() < SECOND, "{name}: {:?}", start.elapsed());
        while matches!(compiled, Err(Error::Busy)) {
            assert!(
                start.elapsed() < 60 * SECOND,
                "{name}: another one never ends"
            );
            std::thread::sleep(Duration::from_millis(50));
            compiled = grammars.compile(&tokenizer, &source);
        }
        match (compiled, fate) {
            (Ok(grammar), Fine) => {
                let followed = follow(grammar.matcher().unwrap(), &tokenizer);
                println!("{name}: {followed:?}");
                assert!(followed.0 < SECOND, "{name}: {followed:?}");
            }
            (Err(error), Refused(why)) => {
                let error = error.to_string();
                assert!(error.contains(why) && error.len() < 1000, "{name}: {error}");
            }
            (Ok(_), Refused(why)) => panic!("{name}: compiled, expected {why:?}"),
            (Err(error), Fine) => panic!("{name}: {error}"),
        }
    }
}

/// The longest that one of forty tokens took, each the last that was allowed, and what ended them.
fn follow(
    mut matcher: Box<dyn redline_engine::Matcher>,
    tokenizer: &Tokenizer,
) -> (Duration, Result<(), GrammarError>) {
    let (mut longest, mut set) = (Duration::ZERO, TokenSet::new(tokenizer.vocab_size()));
    for _ in 0..40 {
        let start = Instant::now();
        let allowed = matcher.allow(&mut set);
        longest = longest.max(start.elapsed());
        let mut ids = (0..tokenizer.vocab_size()).rev();
        let Some(last) = ids.find(|id| set.contains(*id)).filter(|_| allowed.is_ok()) else {
            return (longest, allowed);
        };
        let start = Instant::now();
        let accepted = matcher.accept(TokenId(last as u32));
        longest = longest.max(start.elapsed());
        if accepted.is_err() || matcher.is_whole() {
            return (longest, accepted);
        }
    }
    (longest, Ok(()))
}

type Case = (&'static str, Source, Fate);

fn schema(value: Value) -> Source {
    Source::JsonSchema(value)
}

/// A schema in others.
fn nested(depth: usize, wrap: fn(Value) -> Value) -> Source {
    schema((0..depth).fold(json!({"type": "string"}), |inner, _| wrap(inner)))
}

/// Definitions, each made of a reference to the next.
fn chain(count: usize, each: fn(Value) -> Value) -> Source {
    let next = |i: usize| json!({"$ref": format!("#/$defs/d{}", i + 1)});
    let mut defs: Map<String, Value> = (0..count)
        .map(|i| (format!("d{i}"), each(next(i))))
        .collect();
    defs.insert(format!("d{count}"), json!({"type": "string"}));
    schema(json!({"$defs": defs, "$ref": "#/$defs/d0"}))
}

/// Properties that may all be left out.
fn properties(count: usize) -> Source {
    let properties: Map<String, Value> = (0..count)
        .map(|i| (format!("p{i}"), json!({"type": "integer"})))
        .collect();
    schema(json!({"type": "object", "properties": properties}))
}

fn references() -> Vec<Case> {
    let none = "found what none can";
    vec![
        ("itself", schema(json!({"$ref": "#"})), Refused(none)),
        (
            "itself or itself",
            schema(json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})),
            Refused(none),
        ),
        (
            "itself and more",
            schema(json!({"allOf": [{"$ref": "#"}, {"type": "object"}]})),
            Refused("circular"),
        ),
        (
            "doubling allOf",
            chain(40, |next| json!({"allOf": [next.clone(), next]})),
            Fine,
        ),
        (
            "doubling anyOf",
            chain(40, |next| json!({"anyOf": [next.clone(), next]})),
            Fine,
        ),
        (
            "doubling properties",
            chain(
                40,
                |next| json!({"type": "object", "properties": {"a": next, "b": next}}),
            ),
            Fine,
        ),
        ("long way", chain(3000, |next| next), Fine),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        (
            "deep items",
            nested(60, |inner| json!({"items": inner})),
            Fine,
        ),
        (
            "deeper",
            nested(65, |inner| json!({"items": inner})),
            Refused("64 deep"),
        ),
        (
            "deep anyOf",
            nested(31, |inner| json!({"anyOf": [inner, {"type": "null"}]})),
            Fine,
        ),
        (
            "long text",
            schema(json!({"type": "string", "minLength": 1_000_000_000})),
            Fine,
        ),
        (
            "long array",
            schema(json!({"type": "array", "minItems": 1_000_000_000})),
            Fine,
        ),
        (
            "large object",
            schema(json!({"type": "object", "minProperties": 100_000_000})),
            Fine,
        ),
        (
            "large divisor",
            schema(json!({"type": "integer", "multipleOf": 982_451_653})),
            Refused("beyond"),
        ),
        (
            "large range",
            schema(json!({"type": "number", "minimum": -1e308, "maximum": 1e308})),
            Refused("range"),
        ),
        ("400 properties", properties(400), Fine),
    ]
}

fn senseless() -> Vec<Case> {
    vec![
        (
            "elsewhere",
            schema(json!({"$ref": "https://example.com/schema.json"})),
            Refused("$ref"),
        ),
        (
            "a file",
            schema(json!({"$ref": "file:///etc/hostname"})),
            Refused("$ref"),
        ),
        ("nothing", schema(json!(false)), Refused("Unsatisfiable")),
        (
            "impossible",
            schema(json!({"type": "string", "minLength": 5, "maxLength": 3})),
            Refused("Unsatisfiable"),
        ),
        (
            "unknown type",
            schema(json!({"type": "banana"})),
            Refused("banana"),
        ),
        (
            "no schema",
            schema(json!([1])),
            Refused("an object, true or false"),
        ),
        (
            "options",
            schema(json!({"x-guidance": {"whitespace_pattern": "(a|a)*("}})),
            Refused("unclosed group"),
        ),
        (
            "no options",
            schema(json!({"x-guidance": 3})),
            Refused("integer `3`"),
        ),
    ]
}

fn combined() -> Vec<Case> {
    let all = |count: usize, each: fn(usize) -> Value| {
        schema(json!({"allOf": (1..=count).map(each).collect::<Vec<_>>()}))
    };
    let together = "conditions on one text";
    vec![
        // Each alone is harmless; together they repeat after lcm(1..=60) letters.
        (
            "60 patterns",
            all(60, |i| json!({"pattern": format!("^((a|b){{{i}}})*$")})),
            Refused(together),
        ),
        (
            "8 patterns",
            all(
                8,
                |i| json!({"type": "string", "pattern": format!("^((a|b){{{i}}})*$")}),
            ),
            Fine,
        ),
        (
            "500 lengths",
            all(500, |i| json!({"type": "string", "minLength": i})),
            Fine,
        ),
        (
            "500 items",
            all(500, |i| json!({"type": "array", "items": {"minLength": i}})),
            Fine,
        ),
        (
            "100 lists",
            all(100, |i| json!({"enum": (i..i + 500).collect::<Vec<_>>()})),
            Refused("too large"),
        ),
        (
            "2^20 objects",
            all(20, |i| {
                let one = |name: String| json!({"properties": {name: {"type": "string"}}});
                json!({"anyOf": [one(format!("a{i}")), one(format!("b{i}"))]})
            }),
            Refused("too large"),
        ),
    ]
}

fn regex(text: &str) -> Source {
    Source::Regex(text.to_owned())
}

fn lark(text: &str) -> Source {
    Source::Lark(text.to_owned())
}

/// Something in brackets in brackets.
fn around(inner: &str, count: usize) -> String {
    format!("{}{inner}{}", "(".repeat(count), ")".repeat(count))
}

fn expressions() -> Vec<Case> {
    let unclosed = "unclosed group";
    vec![
        ("exponential", regex("(a|a)*(a|a)*(a|a)*b.{300}"), Fine),
        ("counted", regex("((a{100}){100}){100}"), Fine),
        ("2^200 states", regex("[ab]*a[ab]{200}"), Fine),
        (
            "deep expression",
            regex(&around("a", 120_000)),
            Refused("invalid regex"),
        ),
        (
            "large classes",
            regex(&"\\p{L}{1000}\\p{N}{1000}".repeat(50)),
            Fine,
        ),
        ("unclosed", regex("("), Refused(unclosed)),
        (
            "no text",
            regex("[^\\s\\S]"),
            Refused("found what none can"),
        ),
        ("empty text", regex(""), Fine),
    ]
}

fn rules() -> Vec<Case> {
    let together: Vec<String> = (1..60).map(|i| format!("/((a|b){{{i}}})*/")).collect();
    let doubling: String = (0..8000)
        .map(|i| format!("r{i}: r{} r{}\n", i + 1, i + 1))
        .collect();
    vec![
        (
            "deep grammar",
            lark(&format!("start: {}", around("\"a\"", 100_000))),
            Refused("too deeply nested"),
        ),
        (
            "left and right",
            lark("start: start start | \"a\" | "),
            Fine,
        ),
        (
            "ambiguous",
            lark("start: a a a a a a\na: a a | \"x\" | \"xx\" | "),
            Fine,
        ),
        (
            "rules in a circle",
            lark("start: a\na: b\nb: a"),
            Refused("found what none can"),
        ),
        (
            "doubling rules",
            lark(&format!("{doubling}r8000: \"a\"\nstart: r0")),
            Fine,
        ),
        (
            "counted rules",
            lark("start: a{1000000}\na: b{1000000}\nb: \"x\""),
            Fine,
        ),
        (
            "60 at once",
            lark(&format!("start: A\nA: {}", together.join(" & "))),
            Refused("at most 8 conditions"),
        ),
        (
            "8 at once",
            lark(&format!("start: A\nA: {}", together[..8].join(" & "))),
            Fine,
        ),
        (
            "a file",
            lark("%import /etc/hostname\nstart: INT"),
            Refused("Expected name"),
        ),
        ("no rule", lark(""), Refused("no start rule")),
        (
            "no choice",
            Source::Choice(vec![]),
            Refused("a text to choose"),
        ),
        (
            "a choice of quotes",
            Source::Choice(vec!["a\"b\\\n\u{0}".to_owned(), "日本".to_owned()]),
            Fine,
        ),
        (
            "too large",
            regex(&"a".repeat(300_000)),
            Refused("at most 262144 bytes"),
        ),
    ]
}

#[test]
fn what_takes_too_long_is_given_up_in_time_and_others_are_not_kept_waiting_for_ever() {
    let Some(tokenizer) = tokenizer() else { return };
    let grammars = Grammars::default();
    grammars.compile(&tokenizer, &Source::JsonObject).unwrap();
    let start = Instant::now();
    // Its time grows with the square of the properties.
    match grammars.compile(&tokenizer, &properties(6000)) {
        Err(Error::TooLong(_)) => {}
        Err(error) => panic!("{error}"),
        // A fast machine.
        Ok(grammar) => {
            let (longest, end) = follow(grammar.matcher().unwrap(), &tokenizer);
            assert!(end.is_err(), "{longest:?}");
        }
    }
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    let other = grammars.compile(&tokenizer, &Source::Regex("[a-z]+".to_owned()));
    assert!(other.is_ok(), "there is a second place");
}
