//! Metadata that contradicts itself is refused with an error that says where.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use redline_gguf::ArrayBuf;
use redline_tokenizer::Error;

use support::small::{
    byte_level, byte_level_pieces, sentence_piece, sentence_piece_pieces, word_piece,
    word_piece_pieces,
};
use support::{BYTE, CONTROL, File, NORMAL, PARSED, Piece, USER_DEFINED};

#[track_caller]
fn refused(file: File, parts: &[&str]) -> Error {
    let error = file.tokenizer().unwrap_err();
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    error
}

fn byte_level_of(pieces: &[Piece]) -> File {
    File::new("gpt2")
        .set("ggml.pre", "gpt-2")
        .pieces(pieces)
        .merges([""; 0])
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    refused(
        File::new("t5"),
        &["tokenizer.ggml.model", "\"t5\"", "gpt2, llama, bert"],
    );
    refused(
        byte_level("klingon"),
        &["tokenizer.ggml.pre", "\"klingon\"", "smollm", "qwen2"],
    );
}

#[test]
fn missing_and_mistyped_keys_are_named() {
    refused(File::new("gpt2"), &["tokenizer.ggml.pre"]);
    refused(
        File::new("gpt2").set("ggml.pre", "gpt-2"),
        &["tokenizer.ggml.tokens"],
    );
    let file = File::new("gpt2")
        .set("ggml.pre", "gpt-2")
        .pieces(&byte_level_pieces());
    refused(file, &["tokenizer.ggml.merges"]);
    let file = File::new("llama").set("ggml.tokens", 3_u32);
    refused(file, &["tokenizer.ggml.tokens"]);
    refused(
        byte_level("gpt-2").set("ggml.add_bos_token", 1_u32),
        &["add_bos_token"],
    );
    refused(
        byte_level("gpt-2").set("chat_template", 1_u32),
        &["chat_template"],
    );
}

#[test]
fn a_vocabulary_has_tokens_and_arrays_of_its_size() {
    refused(byte_level_of(&[]), &["tokenizer.ggml.tokens", "0 tokens"]);
    let texts = ArrayBuf::strings(["a", "b"]);
    let with = |key: &str, array: ArrayBuf| {
        File::new("llama")
            .set("ggml.tokens", &texts)
            .set(key, &array)
    };
    let types = ArrayBuf::from(&[1_i32][..]);
    refused(
        with("ggml.token_type", types),
        &["token_type", "1 elements", "expected 2"],
    );
    let scores = ArrayBuf::from(&[0.5_f32; 3][..]);
    refused(
        with("ggml.scores", scores),
        &["scores", "3 elements", "expected 2"],
    );
    let scores = ArrayBuf::from(&[0.5, f32::NAN][..]);
    refused(with("ggml.scores", scores), &["token 1", "NaN"]);
    let types = ArrayBuf::from(&[1_i32, 77][..]);
    refused(with("ggml.token_type", types), &["token 1", "77"]);
}

#[test]
fn pieces_are_unique_and_short() {
    let piece = |text: &str, kind| (text.to_owned(), kind, 0.0);
    let twice = [piece("a", NORMAL), piece("b", NORMAL), piece("a", CONTROL)];
    refused(byte_level_of(&twice), &["tokens 0 and 2", "\"a\""]);
    let long = [piece(&"x".repeat(1025), NORMAL)];
    refused(byte_level_of(&long), &["token 0", "1025", "1024"]);
    let byte = [piece("<0xZZ>", BYTE)];
    refused(byte_level_of(&byte), &["token 0", "<0xZZ>"]);
    // Holes are no duplicates.
    let mut holes = byte_level_pieces();
    holes.extend([
        piece("", NORMAL),
        piece("", CONTROL),
        piece("", USER_DEFINED),
    ]);
    let tokenizer = byte_level_of(&holes).tokenizer().unwrap();
    assert!(tokenizer.encode("a", PARSED).is_ok());
}

#[test]
fn ids_lie_within_the_vocabulary() {
    for key in [
        "bos", "unknown", "eot", "eom", "fim_pad", "fim_rep", "fim_sep",
    ] {
        let key = format!("ggml.{key}_token_id");
        let file = File::new("llama").pieces(&sentence_piece_pieces());
        refused(file.set(&key, 288_u32), &[&key, "288"]);
    }
    let file = sentence_piece().set("ggml.eos_token_id", u32::MAX);
    refused(file, &["eos_token_id", "4294967295"]);
    let file = sentence_piece().set("ggml.bos_token_id", -1_i32);
    refused(file, &["bos_token_id"]);
    // What the kind is used to holds only if there is such a token.
    let file = File::new("llama").pieces(&[("a".to_owned(), NORMAL, 0.0)]);
    refused(file, &["add_bos_token", "bos_token_id"]);
    let file = byte_level_of(&byte_level_pieces()).set("ggml.add_eos_token", true);
    refused(file, &["add_eos_token", "eos_token_id"]);
}

#[test]
fn a_bert_vocabulary_has_its_roles() {
    for (at, key) in [(0, "unknown"), (1, "bos"), (2, "seperator")] {
        let mut pieces = word_piece_pieces();
        pieces[at].0 = "other".to_owned();
        let role = word_piece_pieces()[at].0.clone();
        refused(File::new("bert").pieces(&pieces), &[key, &role]);
        let file = File::new("bert").pieces(&pieces);
        let named = file.set(&format!("ggml.{key}_token_id"), u32::try_from(at).unwrap());
        assert!(named.tokenizer().is_ok());
    }
    let file = word_piece().set("ggml.seperator_token_id", 99_u32);
    refused(file, &["seperator_token_id", "99"]);
}

#[test]
fn merges_name_two_pieces_and_make_a_third() {
    let with = |merge: &str| {
        let file = File::new("gpt2")
            .set("ggml.pre", "gpt-2")
            .pieces(&byte_level_pieces());
        file.merges(["h e", merge])
    };
    for malformed in ["", " ", "he", "h ", "he ", " h"] {
        refused(with(malformed), &["merge 1", "a space between"]);
    }
    refused(with("xx y"), &["merge 1", "\"xx\""]);
    refused(with("x yy"), &["merge 1", "\"yy\""]);
    refused(with("x y"), &["merge 1", "\"xy\""]);
    refused(with("h e l"), &["merge 1", "\"e l\""]);
    // Both are pieces, and longer together than any piece is.
    refused(
        with("<|endoftext|> <|endoftext|>"),
        &["merge 1", "not in the vocabulary"],
    );
}

#[test]
fn derived_merges_are_bounded() {
    let runs: Vec<Piece> = (1..400)
        .map(|length| ("a".repeat(length), NORMAL, 0.0))
        .collect();
    refused(
        File::new("llama").pieces(&runs),
        &["79800 bytes", "in too many ways"],
    );
    let few = File::new("llama").pieces(&runs[..30]);
    assert!(few.tokenizer().is_ok());
}

#[test]
fn quoted_text_is_escaped_and_cut() {
    let text = format!("\u{1b}[31m{}", "x".repeat(500));
    let error = refused(byte_level(&text), &["\\u{1b}[31m", "(505 bytes)"]);
    assert!(error.to_string().len() < 300);
}

#[test]
fn a_malformed_template_is_an_error_only_where_it_is_used() {
    let tokenizer = byte_level("gpt-2")
        .set("chat_template", "{% if %}")
        .tokenizer()
        .unwrap();
    let error = tokenizer
        .chat_template()
        .unwrap()
        .render(&[], true)
        .unwrap_err();
    assert!(matches!(error, Error::TemplateSyntax(_)), "{error}");
}
