//! What a `tokenizer.json` may say, and what is refused by name.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use redline_tokenizer::{EncodeOptions, Error, JsonFiles, TokenId, Tokenizer};
use serde_json::{Value, json};

use support::definitions::{byte_level, sentence_piece, word_piece};
use support::{PARSED, PLAIN, numbers};

const SPECIAL: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: true,
};

fn build(definition: &Value) -> Result<Tokenizer, Error> {
    Tokenizer::from_json(&JsonFiles {
        tokenizer: definition.to_string().as_bytes(),
        ..JsonFiles::default()
    })
}

#[track_caller]
fn check(definition: &Value, text: &str, options: EncodeOptions, pieces: &[&str]) {
    let tokenizer = build(definition).unwrap();
    let ids = tokenizer.encode(text, options).unwrap();
    let found: Vec<_> = ids.iter().map(|id| tokenizer.piece(*id).unwrap()).collect();
    assert_eq!(found, pieces, "{text:?}");
}

/// Checks that the definition with `value` at `pointer` is refused with a line that has all `parts`.
#[track_caller]
fn refused(mut definition: Value, pointer: &str, value: Value, parts: &[&str]) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    definition.pointer_mut(parent).unwrap()[key] = value;
    let message = build(&definition).unwrap_err().to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(message.len() < 500 && !message.contains('\n'), "{message}");
}

#[test]
fn each_kind_encodes_as_its_gguf_does() {
    check(
        &byte_level(),
        "hello world<tool>",
        PLAIN,
        &["hello", " world", "<tool>"],
    );
    check(&byte_level(), "<|im_end|>", PARSED, &["<|im_end|>"]);
    check(
        &word_piece(),
        "The unaaff.",
        SPECIAL,
        &[" [CLS]", " the", " una", "aff", ".", " [SEP]"],
    );
    check(
        &sentence_piece(),
        "the the",
        SPECIAL,
        &["<s>", " the", " the"],
    );
}

#[test]
fn metaspace_puts_a_space_where_its_scheme_says() {
    let scheme = |scheme: &str| {
        let mut definition = sentence_piece();
        definition["pre_tokenizer"]["prepend_scheme"] = scheme.into();
        definition
    };
    check(
        &scheme("first"),
        "the<b>the",
        PLAIN,
        &[" the", "<b>", "t", "he"],
    );
    check(
        &scheme("always"),
        "the<b>the",
        PLAIN,
        &[" the", "<b>", " the"],
    );
    check(
        &scheme("never"),
        "the<b>the",
        PLAIN,
        &["t", "he", "<b>", "t", "he"],
    );
    check(
        &scheme("always"),
        " the<b> the",
        PLAIN,
        &[" the", "<b>", " the"],
    );
    let mut older = sentence_piece();
    older["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false,
                                    "split": false});
    check(&older, "the", PLAIN, &["t", "he"]);
}

#[test]
fn added_tokens_take_white_space_along_where_they_say_so() {
    let mut definition = byte_level();
    definition["added_tokens"][1]["rstrip"] = true.into();
    definition["added_tokens"][2]["lstrip"] = true.into();
    check(
        &definition,
        "a <|im_start|> \n a <|im_end|> a",
        PARSED,
        &["a", " ", "<|im_start|>", "a", "<|im_end|>", " ", "a"].map(|piece| piece),
    );
    check(
        &definition,
        "<|im_start|> a",
        PLAIN,
        &[
            "<", "|", "i", "m", "_", "s", "t", "a", "r", "t", "|", ">", " ", "a",
        ],
    );
}

#[test]
fn unknown_components_of_byte_level_bpe_are_refused_by_name() {
    refused(
        byte_level(),
        "/normalizer",
        json!({"type": "Precompiled"}),
        &["normalizer", "Precompiled", "`NFC`"],
    );
    refused(
        byte_level(),
        "/normalizer",
        json!({"type": "Prepend", "prepend": "x"}),
        &["normalizer", "Prepend", "NFC"],
    );
    refused(
        byte_level(),
        "/pre_tokenizer/add_prefix_space",
        json!(true),
        &["pre_tokenizer", "add_prefix_space: true"],
    );
    refused(
        byte_level(),
        "/pre_tokenizer",
        json!({"type": "Whitespace"}),
        &["pre_tokenizer", "Whitespace", "`ByteLevel`"],
    );
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "a|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]});
    refused(
        byte_level(),
        "/pre_tokenizer",
        split,
        &["pre_tokenizer", "a Split at \"a|", "Qwen2"],
    );
    refused(
        byte_level(),
        "/decoder",
        json!(null),
        &["decoder", "absent", "ByteLevel"],
    );
    refused(
        byte_level(),
        "/post_processor",
        json!({"type": "X"}),
        &["post_processor", "`X`"],
    );
}

#[test]
fn unknown_settings_of_models_are_refused_by_name() {
    refused(
        byte_level(),
        "/model/type",
        json!("Unigram"),
        &["model", "Unigram", "BPE, WordPiece"],
    );
    refused(
        byte_level(),
        "/model/dropout",
        json!(0.1),
        &["model", "dropout"],
    );
    refused(
        byte_level(),
        "/model/end_of_word_suffix",
        json!("</w>"),
        &["model", "end_of_word_suffix"],
    );
    refused(
        byte_level(),
        "/model/byte_fallback",
        json!(true),
        &["model", "byte_fallback"],
    );
    refused(
        byte_level(),
        "/added_tokens/0/single_word",
        json!(true),
        &["<|endoftext|>", "single_word"],
    );
}

#[test]
fn unknown_components_of_others_are_refused_by_name() {
    refused(
        sentence_piece(),
        "/pre_tokenizer/split",
        json!(true),
        &["pre_tokenizer", "Metaspace"],
    );
    refused(
        sentence_piece(),
        "/normalizer",
        json!({"type": "NFC"}),
        &["normalizer", "Nfc"],
    );
    refused(
        sentence_piece(),
        "/model/ignore_merges",
        json!(true),
        &["model", "ignore_merges"],
    );
    refused(
        sentence_piece(),
        "/decoder/decoders/3/start",
        json!(2),
        &["decoder", "Strip"],
    );
    refused(
        word_piece(),
        "/normalizer",
        json!(null),
        &["normalizer", "BertNormalizer"],
    );
    refused(
        word_piece(),
        "/pre_tokenizer",
        json!(null),
        &["pre_tokenizer", "BertPreTokenizer"],
    );
    refused(
        word_piece(),
        "/decoder/prefix",
        json!("@@"),
        &["decoder", "##"],
    );
    refused(
        word_piece(),
        "/model/unk_token",
        json!(null),
        &["model", "unk_token"],
    );
    refused(
        word_piece(),
        "/added_tokens/0/normalized",
        json!(true),
        &["[UNK]", "normalized"],
    );
}

#[test]
fn a_vocabulary_agrees_with_itself() {
    refused(
        byte_level(),
        "/model/vocab",
        json!({}),
        &["\"h\"", "not in the vocabulary"],
    );
    refused(
        byte_level(),
        "/model/vocab",
        json!([["a", 0.0]]),
        &["tokenizer.json", "an object of pieces"],
    );
    refused(
        byte_level(),
        "/model/vocab/zz",
        json!(3),
        &["id 3", "\"zz\"", "one token for each id"],
    );
    refused(
        byte_level(),
        "/model/vocab/zz",
        json!(4_000_000),
        &["id 4000000 among", "expected ids below"],
    );
    refused(
        byte_level(),
        "/model/vocab/zz",
        json!(u32::MAX),
        &["id 4294967295", "expected ids below"],
    );
    refused(
        byte_level(),
        "/model/vocab/zz",
        json!(-1),
        &["tokenizer.json", "-1"],
    );
    refused(
        byte_level(),
        "/added_tokens/0/content",
        json!("hello"),
        &["tokens", "\"hello\""],
    );
}

#[test]
fn merges_and_roles_name_tokens() {
    refused(
        byte_level(),
        "/model/merges",
        json!(["a"]),
        &["merge 0", "\"a\""],
    );
    refused(
        byte_level(),
        "/model/merges",
        json!([["a", "b", "c"]]),
        &["no pair"],
    );
    refused(
        byte_level(),
        "/model/merges",
        json!([["a", "b"]]),
        &["merge 0", "\"ab\""],
    );
    refused(
        byte_level(),
        "/model/unk_token",
        json!("nope"),
        &["unk_token", "\"nope\""],
    );
    let id = "/post_processor/special_tokens/<s>/ids";
    refused(
        sentence_piece(),
        id,
        json!([999]),
        &["post_processor", "999"],
    );
    refused(
        sentence_piece(),
        id,
        json!([1, 2]),
        &["post_processor", "a template of 2 parts"],
    );
    let long = json!({"type": "NFC", "x": "x".repeat(1 << 16)});
    refused(
        byte_level(),
        "/normalizer",
        long,
        &["normalizer", "expected at most 65536"],
    );
}

#[test]
fn neighbours_name_roles_template_and_ends() {
    let definition = byte_level().to_string();
    let files = JsonFiles {
        tokenizer: definition.as_bytes(),
        tokenizer_config: Some(
            br#"{"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": true,
                 "chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "{{ bos_token }}"}]}"#,
        ),
        generation_config: Some(br#"{"eos_token_id": [278, 5]}"#),
        ..JsonFiles::default()
    };
    let tokenizer = Tokenizer::from_json(&files).unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (Some(TokenId(279)), Some(TokenId(280)))
    );
    assert_eq!(numbers(tokenizer.end_of_generation()), [5, 278, 280]);
    assert_eq!(numbers(&tokenizer.encode("", SPECIAL).unwrap()), [279]);
    let template = tokenizer.chat_template().unwrap();
    assert_eq!(template.render(&[], false).unwrap(), "<|im_start|>");

    let files = JsonFiles {
        chat_template: Some("own"),
        tokenizer_config: None,
        special_tokens_map: Some(br#"{"eos_token": "<|endoftext|>"}"#),
        generation_config: Some(br#"{"eos_token_id": 280}"#),
        ..files
    };
    let tokenizer = Tokenizer::from_json(&files).unwrap();
    assert_eq!(tokenizer.eos(), Some(TokenId(278)));
    assert_eq!(tokenizer.chat_template().unwrap().source(), "own");
    let files = JsonFiles {
        generation_config: Some(br#"{"eos_token_id": 9999}"#),
        ..files
    };
    let message = Tokenizer::from_json(&files).unwrap_err().to_string();
    assert!(
        message.contains("generation_config.json: eos_token_id is 9999"),
        "{message}"
    );
}

#[test]
fn a_cut_or_changed_file_is_an_error_or_a_tokenizer() {
    for definition in [byte_level(), sentence_piece(), word_piece()] {
        let text = definition.to_string();
        let build = |bytes: &[u8]| {
            let tokenizer = Tokenizer::from_json(&JsonFiles {
                tokenizer: bytes,
                ..JsonFiles::default()
            });
            tokenizer.map(|tokenizer| {
                let _ = tokenizer.encode("Hello, wörld <s> 😀\n", SPECIAL);
            })
        };
        for end in (0..text.len()).step_by(17) {
            assert!(build(&text.as_bytes()[..end]).is_err());
        }
        for at in (0..text.len()).step_by(13) {
            for byte in [b'"', b'{', b'9', 0xFF] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = byte;
                let _ = build(&bytes);
            }
        }
    }
}

#[test]
fn quoted_text_is_escaped_and_cut() {
    let long = json!({"type": format!("\u{1b}[31m{}", "x".repeat(50_000))});
    for component in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let pointer = format!("/{component}");
        let parts = [component, "\\u{1b}[31mx", "…"];
        refused(byte_level(), &pointer, long.clone(), &parts);
    }
    let long = json!("x".repeat(50_000));
    refused(
        byte_level(),
        "/model/vocab/zz",
        long.clone(),
        &["invalid type", "…"],
    );
    refused(byte_level(), "/model/type", long, &["model", "…"]);
}

#[test]
fn depth_is_limited() {
    for (depth, part) in [(100, "recursion limit"), (10_000, "expected at most 65536")] {
        let sequences = r#"{"type": "Sequence", "normalizers": ["#.repeat(depth);
        let deep = [sequences, "]}".repeat(depth)].concat();
        let text = format!("{{\"normalizer\": {deep}, \"model\": {{\"vocab\": {{\"a\": 0}}}}}}");
        let error = Tokenizer::from_json(&JsonFiles {
            tokenizer: text.as_bytes(),
            ..JsonFiles::default()
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
