//! What models say, split into reasoning, answer and calls.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use redline_tokenizer::{AnswerStream, Channel, Tokenizer};

use support::small::byte_level_pieces;
use support::{CONTROL, File, PARSED, Piece, USER_DEFINED};

const HARMONY: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|constrain|>",
];
const PAIRS: [&str; 4] = ["<think>", "</think>", "<tool_call>", "</tool_call>"];

fn tokenizer(markers: &[&str], kind: i32) -> Tokenizer {
    let markers = markers.iter().map(|text| ((*text).to_owned(), kind, 0.0));
    let pieces: Vec<Piece> = byte_level_pieces().into_iter().chain(markers).collect();
    let merges: [&str; 0] = [];
    let file = File::new("gpt2").set("ggml.pre", "gpt-2");
    file.pieces(&pieces).merges(merges).tokenizer().unwrap()
}

/// The parts of what is said after a prompt, and to whom.
fn split(tokenizer: &Tokenizer, prompt: &str, said: &str) -> Vec<(Channel, String, String)> {
    let prompt = tokenizer.encode(prompt, PARSED).unwrap();
    let mut stream = tokenizer.answer_stream(&prompt);
    let mut parts: Vec<(Channel, String, String)> = Vec::new();
    let mut add = |fragment: Option<redline_tokenizer::Fragment>, recipient: String| {
        let Some(fragment) = fragment else { return };
        assert!(!fragment.text.is_empty());
        match parts.last_mut() {
            Some((channel, to, text)) if *channel == fragment.channel && *to == recipient => {
                text.push_str(&fragment.text);
            }
            _ => parts.push((fragment.channel, recipient, fragment.text)),
        }
    };
    for id in tokenizer.encode(said, PARSED).unwrap() {
        let before = stream.recipient().unwrap_or_default().to_owned();
        add(stream.push(id), before);
    }
    let recipient = stream.recipient().unwrap_or_default().to_owned();
    add(stream.finish(), recipient);
    parts
}

#[track_caller]
fn check(tokenizer: &Tokenizer, prompt: &str, said: &str, parts: &[(Channel, &str, &str)]) {
    let found = split(tokenizer, prompt, said);
    let found: Vec<_> = found
        .iter()
        .map(|(channel, to, text)| (*channel, &**to, &**text))
        .collect();
    assert_eq!(found, parts, "{said:?}");
}

use Channel::{Answer, Call, Reasoning};

#[test]
fn harmony_has_channels() {
    let tokenizer = tokenizer(&HARMONY, CONTROL);
    let prompt = "<|start|>user<|message|>hi<|end|><|start|>assistant";
    check(
        &tokenizer,
        prompt,
        "<|channel|>analysis<|message|>hm 😀<|end|><|start|>assistant<|channel|>final<|message|>yes é<|return|>",
        &[(Reasoning, "", "hm 😀"), (Answer, "", "yes é")],
    );
    check(
        &tokenizer,
        prompt,
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary \
         to=functions.find <|constrain|>json<|message|>{}<|call|>",
        &[(Answer, "", "I look."), (Call, "functions.find", "{}")],
    );
    let to_role = " to=functions.f<|channel|>commentary json<|message|>[1]<|call|>";
    check(&tokenizer, prompt, to_role, &[(Call, "functions.f", "[1]")]);
    // The prompt may have begun the message.
    let begun = "<|start|>assistant<|channel|>analysis<|message|>So ";
    check(
        &tokenizer,
        begun,
        "it is<|end|>",
        &[(Reasoning, "", "it is")],
    );
}

#[test]
fn harmony_without_its_form_is_an_answer() {
    let tokenizer = tokenizer(&HARMONY, CONTROL);
    let prompt = "<|start|>assistant";
    check(
        &tokenizer,
        prompt,
        "just text",
        &[(Answer, "", "just text")],
    );
    let long = "x".repeat(5000);
    check(&tokenizer, prompt, &long, &[(Answer, "", &long)]);
    check(&tokenizer, "no header", "text", &[(Answer, "", "text")]);
    check(
        &tokenizer,
        prompt,
        "<|message|>a<|message|>b",
        &[(Answer, "", "ab")],
    );
    check(
        &tokenizer,
        prompt,
        "<|channel|>analysis",
        &[(Answer, "", "analysis")],
    );
    check(&tokenizer, prompt, "", &[]);
}

#[test]
fn pairs_of_tokens_mark_reasoning_and_calls() {
    let tokenizer = tokenizer(&PAIRS, USER_DEFINED);
    check(
        &tokenizer,
        "",
        "<think>\nhm\n\n</think>\n\nyes\n\nno",
        &[(Reasoning, "", "hm\n\n"), (Answer, "", "yes\n\nno")],
    );
    check(
        &tokenizer,
        "",
        "<think>\n\n</think>\n\nyes",
        &[(Answer, "", "yes")],
    );
    check(
        &tokenizer,
        "",
        "ok <tool_call>\n{}\n</tool_call>\n",
        &[(Answer, "", "ok "), (Call, "", "{}\n")],
    );
    check(
        &tokenizer,
        "user <think>\n",
        "hm</think>yes",
        &[(Reasoning, "", "hm"), (Answer, "", "yes")],
    );
    check(
        &tokenizer,
        "what is <think> in a prompt?",
        "hm",
        &[(Answer, "", "hm")],
    );
    check(
        &tokenizer,
        "<think>\n\n</think>\n\n",
        "yes",
        &[(Answer, "", "yes")],
    );
}

#[test]
fn a_prompt_is_completed_up_to_where_an_answer_begins() {
    let (harmony, pairs) = (tokenizer(&HARMONY, CONTROL), tokenizer(&PAIRS, CONTROL));
    let user = "<|start|>user<|message|>hi<|end|>";
    for (tokenizer, prompt, added) in [
        (
            &harmony,
            format!("{user}<|start|>assistant"),
            "<|channel|>final<|message|>",
        ),
        (
            &harmony,
            format!("{user}<|start|>assistant<|channel|>final<|message|>"),
            "",
        ),
        (&pairs, "user <think>\n".to_owned(), "</think>"),
        (&pairs, "user <think>\n\n</think>\n\n".to_owned(), ""),
        (&pairs, "user".to_owned(), ""),
    ] {
        let mut ids = tokenizer.encode(&prompt, PARSED).unwrap();
        tokenizer.begin_answer(&mut ids).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), format!("{prompt}{added}"));
        let completed = format!("{prompt}{added}");
        check(tokenizer, &completed, "{}", &[(Answer, "", "{}")]);
    }
}

#[test]
fn no_part_has_half_a_character() {
    let tokenizer = tokenizer(&HARMONY, CONTROL);
    let mut ids = tokenizer.encode("<|message|>é", PARSED).unwrap();
    let cut = ids.pop().unwrap();
    ids.extend(tokenizer.encode("<|end|><|message|>", PARSED).unwrap());
    ids.push(cut);
    let mut stream = tokenizer.answer_stream(&[]);
    let mut text: String = ids
        .iter()
        .filter_map(|id| stream.push(*id))
        .map(|part| part.text)
        .collect();
    text.extend(stream.finish().map(|part| part.text));
    assert_eq!(text, "\u{FFFD}\u{FFFD}");
}

#[test]
fn markers_are_text_where_nothing_is_split() {
    let tokenizer = tokenizer(&PAIRS, USER_DEFINED);
    let mut stream = AnswerStream::unsplit(tokenizer.stream_decoder());
    let ids = tokenizer.encode("<think>a</think>", PARSED).unwrap();
    let text: String = ids
        .iter()
        .filter_map(|id| stream.push(*id))
        .map(|part| part.text)
        .collect();
    assert_eq!(text, "<think>a</think>");
}

/// What is said up to a stop string, and which that was.
fn until(stops: &[&str], said: &str) -> (Vec<(Channel, String)>, Option<String>) {
    let tokenizer = tokenizer(&PAIRS, CONTROL);
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut stream = tokenizer.answer_stream(&[]).with_stops(&stops);
    let mut parts: Vec<(Channel, String)> = Vec::new();
    let ids = tokenizer.encode(said, PARSED).unwrap();
    let mut fragments: Vec<_> = ids.iter().filter_map(|id| stream.push(*id)).collect();
    fragments.extend(stream.finish());
    for fragment in fragments {
        match parts.last_mut() {
            Some((channel, text)) if *channel == fragment.channel => text.push_str(&fragment.text),
            _ => parts.push((fragment.channel, fragment.text)),
        }
    }
    (parts, stream.stopped_by().map(str::to_owned))
}

#[test]
fn a_stop_string_ends_the_answer_and_is_looked_for_there_alone() {
    let said = "<think>a ### b</think>one #two ### three";
    let (parts, stopped_by) = until(&["###"], said);
    let expected = [
        (Reasoning, "a ### b".to_owned()),
        (Answer, "one #two ".to_owned()),
    ];
    assert_eq!(parts, expected);
    assert_eq!(stopped_by.as_deref(), Some("###"));
}

#[test]
fn what_was_held_back_comes_when_its_part_ends() {
    let (parts, stopped_by) = until(&["END"], "a EN<tool_call>D</tool_call>b E");
    let expected = [
        (Answer, "a EN".to_owned()),
        (Call, "D".to_owned()),
        (Answer, "b E".to_owned()),
    ];
    assert_eq!((parts.as_slice(), stopped_by), (&expected[..], None));
}
