//! What the three kinds of tokenizers do, on vocabularies small enough to follow by hand.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use redline_tokenizer::{EncodeOptions, Error, TokenId, Tokenizer};

use support::small::{
    byte_level, byte_level_pieces, sentence_piece, sentence_piece_pieces, word_piece,
};
use support::{File, NORMAL, PARSED, PLAIN, ids, numbers};

const SPECIAL: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: true,
};

#[track_caller]
fn check(tokenizer: &Tokenizer, text: &str, options: EncodeOptions, pieces: &[&str]) {
    let ids = tokenizer.encode(text, options).unwrap();
    let found: Vec<_> = ids.iter().map(|id| tokenizer.piece(*id).unwrap()).collect();
    assert_eq!(found, pieces, "{text:?}");
}

#[test]
fn byte_level_merges_in_order_of_rank() {
    let tokenizer = byte_level("gpt-2").tokenizer().unwrap();
    check(&tokenizer, "hello world", PLAIN, &["hello", " world"]);
    check(&tokenizer, "hell", PLAIN, &["hell"]);
    check(&tokenizer, "ello", PLAIN, &["e", "ll", "o"]);
    check(
        &tokenizer,
        "aaaaaaaaaaaaa",
        PLAIN,
        &["aaaaaaaa", "aaaa", "a"],
    );
    check(
        &tokenizer,
        "hello     world",
        PLAIN,
        &["hello", "    ", " world"],
    );
    check(&tokenizer, "x123", PLAIN, &["x", "123"]);
    check(&tokenizer, "", PLAIN, &[]);
}

#[test]
fn byte_level_spells_characters_in_bytes() {
    let tokenizer = byte_level("gpt-2").tokenizer().unwrap();
    check(&tokenizer, "é", PLAIN, &["é"]);
    check(&tokenizer, "😀", PLAIN, &["<0xF0><0x9F><0x98>", "<0x80>"]);
    check(&tokenizer, "\0", PLAIN, &["\0"]);
    let smile = tokenizer.encode("😀", PLAIN).unwrap();
    assert_eq!(tokenizer.decode(&smile, true), "😀");
    assert_eq!(tokenizer.decode(&smile[..1], true), "\u{FFFD}");
    assert_eq!(tokenizer.piece_bytes(smile[1]), Some(&[0x80][..]));
}

#[test]
fn control_tokens_are_parsed_on_request_and_user_defined_ones_always() {
    let tokenizer = byte_level("gpt-2").tokenizer().unwrap();
    let text = "<|im_end|><tool>";
    check(&tokenizer, text, PARSED, &["<|im_end|>", "<tool>"]);
    let apart = ["<", "|", "i", "m", "_", "e", "n", "d", "|", ">", "<tool>"];
    check(&tokenizer, text, PLAIN, &apart);
    let found = tokenizer.encode(text, PARSED).unwrap();
    assert_eq!(numbers(&found), [280, 281]);
    assert_eq!(tokenizer.decode(&found, true), "<tool>");
    assert_eq!(tokenizer.decode(&found, false), text);
    assert!(tokenizer.is_special(TokenId(280)) && !tokenizer.is_special(TokenId(281)));
}

#[test]
fn words_that_are_pieces_stay_whole_where_the_pre_tokenizer_says_so() {
    let with_word = |pre| {
        let mut pieces = byte_level_pieces();
        pieces.push(("helm".to_owned(), NORMAL, 0.0));
        let file = File::new("gpt2").set("ggml.pre", pre).pieces(&pieces);
        let merges = file
            .merges(support::small::MERGES)
            .set("ggml.add_bos_token", false);
        merges.tokenizer().unwrap()
    };
    check(&with_word("llama-bpe"), "helm", PLAIN, &["helm"]);
    check(&with_word("gpt-2"), "helm", PLAIN, &["he", "l", "m"]);
}

#[test]
fn text_is_composed_where_the_pre_tokenizer_says_so() {
    let decomposed = "e\u{301}";
    check(
        &byte_level("qwen2").tokenizer().unwrap(),
        decomposed,
        PLAIN,
        &["é"],
    );
    let kept = byte_level("gpt-2").tokenizer().unwrap();
    check(&kept, decomposed, PLAIN, &["e", "<0xCC>", "<0x81>"]);
}

#[test]
fn bos_and_eos_are_added_as_the_file_says_or_the_kind_is_used_to() {
    let adds = |file: File| {
        let tokenizer = file.tokenizer().unwrap();
        numbers(&tokenizer.encode("h", SPECIAL).unwrap())
    };
    assert_eq!(adds(byte_level("gpt-2")), [71]);
    assert_eq!(adds(byte_level("llama-bpe")), [279, 71]);
    assert_eq!(
        adds(byte_level("llama-bpe").set("ggml.add_bos_token", false)),
        [71]
    );
    assert_eq!(
        adds(byte_level("gpt-2").set("ggml.add_eos_token", true)),
        [71, 280]
    );
    let prefixed = 267; // ▁he, of which only ▁ h remain
    let found = adds(sentence_piece());
    assert_eq!(found[0], 1);
    assert!(!found.contains(&prefixed));
    let both = sentence_piece().set("ggml.add_eos_token", true);
    assert_eq!(adds(both).last(), Some(&2));
    let none = sentence_piece().set("ggml.add_bos_token", false);
    assert_ne!(adds(none)[0], 1);
}

#[test]
fn sentence_piece_merges_by_score() {
    let tokenizer = sentence_piece().tokenizer().unwrap();
    check(&tokenizer, "hello the", PLAIN, &[" hello", " the"]);
    check(&tokenizer, "the  in", PLAIN, &[" the", "  ", "in"]);
    check(&tokenizer, "aaaaaaa", PLAIN, &[" ", "aaaa", "aa", "a"]);
    check(&tokenizer, "", PLAIN, &[]);
    let hello = tokenizer.encode("hello the", PLAIN).unwrap();
    assert_eq!(tokenizer.decode(&hello, true), "hello the");
}

#[test]
fn sentence_piece_falls_back_to_bytes() {
    let tokenizer = sentence_piece().tokenizer().unwrap();
    check(&tokenizer, "é漢", PLAIN, &[" ", "é", "漢"]);
    check(&tokenizer, "ü", PLAIN, &[" ", "<0xC3>", "<0xBC>"]);
    let text = "ü😀<0x0A>";
    let found = tokenizer.encode(text, PLAIN).unwrap();
    assert_eq!(tokenizer.decode(&found, true), text);
    let mut decoder = tokenizer.stream_decoder();
    let streamed: Vec<_> = found.iter().take(8).map(|id| decoder.push(*id)).collect();
    assert_eq!(streamed, ["", "", "ü", "", "", "", "😀", "<"]);
}

#[test]
fn without_bytes_there_is_the_unknown_token_or_an_error() {
    let mut pieces = sentence_piece_pieces();
    pieces.drain(3..259);
    let tokenizer = File::new("llama").pieces(&pieces).tokenizer().unwrap();
    check(&tokenizer, "aüü漢", PLAIN, &[" ", "a", "<unk>", "漢"]);
    let mut pieces = byte_level_pieces();
    pieces[71].0 = "replaced".to_owned();
    let merges = ["l l"];
    let file = File::new("gpt2")
        .set("ggml.pre", "gpt-2")
        .pieces(&pieces)
        .merges(merges);
    let tokenizer = file.tokenizer().unwrap();
    assert!(tokenizer.encode("ell", PLAIN).is_ok());
    let error = tokenizer.encode("hell", PLAIN).unwrap_err();
    assert!(
        matches!(error, Error::Unencodable { byte: b'h' }),
        "{error}"
    );
}

#[test]
fn a_space_goes_before_text_that_begins_or_follows_an_added_token() {
    let tokenizer = sentence_piece().tokenizer().unwrap();
    check(
        &tokenizer,
        "hello<b>hello",
        PLAIN,
        &[" hello", "<b>", " hello"],
    );
    check(
        &tokenizer,
        "<s>hello</s>",
        PARSED,
        &["<s>", " hello", "</s>"],
    );
    let bare = sentence_piece()
        .set("ggml.add_space_prefix", false)
        .tokenizer()
        .unwrap();
    check(&bare, "hello hello", PLAIN, &["he", "llo", " hello"]);
    assert_eq!(bare.decode(&ids(&[268, 268]), true), "llollo");
    let hello = bare.encode(" hello", PLAIN).unwrap();
    assert_eq!(bare.decode(&hello, true), " hello");
    assert_eq!(tokenizer.decode(&hello, true), "hello");
    let mut decoder = tokenizer.stream_decoder().continuing();
    assert_eq!(decoder.push(hello[0]), " hello");
}

#[test]
fn user_defined_pieces_come_before_merges() {
    let tokenizer = sentence_piece().tokenizer().unwrap();
    check(
        &tokenizer,
        "a\n\n\na",
        PLAIN,
        &[" ", "a", "\n\n", " ", "\n", "a"],
    );
    // Converters write runs of spaces as such; upstream they are ▁▁.
    let mut pieces = sentence_piece_pieces();
    for (text, kind, score) in &mut pieces {
        if text.starts_with("▁▁") {
            *text = text.replace('▁', " ");
            (*kind, *score) = (support::USER_DEFINED, -1000.0);
        }
    }
    let file = File::new("llama")
        .pieces(&pieces)
        .set("ggml.add_space_prefix", false);
    let tokenizer = file.tokenizer().unwrap();
    check(&tokenizer, "a     the", PLAIN, &["a", "    ", " the"]);
    check(&tokenizer, "a  the", PLAIN, &["a", "  ", "t", "he"]);
    check(&tokenizer, "a▁▁a", PLAIN, &["a", "  ", "a"]);
}

#[test]
fn generations_end_with_what_the_file_and_the_texts_say() {
    let ends = |file: File| numbers(file.tokenizer().unwrap().end_of_generation());
    assert_eq!(ends(byte_level("gpt-2")), [278, 280]);
    assert_eq!(
        ends(byte_level("gpt-2").set("ggml.eot_token_id", 281_u32)),
        [278, 280, 281]
    );
    assert_eq!(ends(sentence_piece()), [2]);
    let tokenizer = byte_level("gpt-2").tokenizer().unwrap();
    assert!(tokenizer.is_end_of_generation(TokenId(280)));
    assert!(!tokenizer.is_end_of_generation(TokenId(279)));
    // In the harmony format <|end|> closes a message, not the turn.
    let mut pieces = byte_level_pieces();
    for text in ["<|end|>", "<|return|>", "<|call|>"] {
        pieces.push((text.to_owned(), NORMAL, 0.0));
    }
    let file = || File::new("gpt2").set("ggml.pre", "gpt-4o").merges([""; 0]);
    assert_eq!(ends(file().pieces(&pieces)), [278, 280, 283, 284]);
    let tokenizer = file().pieces(&pieces).tokenizer().unwrap();
    assert!(tokenizer.is_special(TokenId(282)));
    pieces.truncate(283);
    assert_eq!(ends(file().pieces(&pieces)), [278, 280, 282]);
}

#[test]
fn what_a_tokenizer_says_of_itself() {
    let file = byte_level("gpt-2").set("chat_template", "{{ bos_token }}{{ messages[0].content }}");
    let tokenizer = file.tokenizer().unwrap();
    assert_eq!(
        (tokenizer.kind(), tokenizer.vocab_size()),
        ("gguf-bpe", 282)
    );
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (Some(TokenId(279)), Some(TokenId(280)))
    );
    assert!(!tokenizer.adds_bos());
    assert_eq!(tokenizer.piece(TokenId(282)), None);
    assert_eq!(tokenizer.decode(&ids(&[71, 282, u32::MAX]), true), "h");
    let template = tokenizer.chat_template().unwrap();
    let hello = redline_tokenizer::Message {
        role: "user".to_owned(),
        content: "hi".to_owned(),
    };
    assert_eq!(template.render(&[hello], true).unwrap(), "<|im_start|>hi");
    let tokenizer = sentence_piece().tokenizer().unwrap();
    assert_eq!(
        (tokenizer.kind(), tokenizer.bos()),
        ("gguf-spm", Some(TokenId(1)))
    );
    assert!(tokenizer.adds_bos() && tokenizer.chat_template().is_none());
}

#[test]
fn word_piece_takes_the_longest_piece_or_none_of_the_word() {
    let tokenizer = word_piece().tokenizer().unwrap();
    check(&tokenizer, "the unable", PLAIN, &[" the", " [UNK]"]);
    check(&tokenizer, "unaaff", PLAIN, &[" una", "aff"]);
    // "un", "aff", "able" would do, but "una" is longer than "un".
    check(&tokenizer, "unaffable", PLAIN, &[" [UNK]"]);
    check(&tokenizer, "aff the", PLAIN, &[" [UNK]", " the"]);
    check(&tokenizer, "", PLAIN, &[]);
    check(&tokenizer, " \n\t ", PLAIN, &[]);
}

#[test]
fn word_piece_cuts_and_normalises_words_as_bert() {
    let tokenizer = word_piece().tokenizer().unwrap();
    check(
        &tokenizer,
        "THE\u{a0}thé,a.",
        PLAIN,
        &[" the", " the", ",", " a", "."],
    );
    check(&tokenizer, "a中a", PLAIN, &[" a", " 中", " a"]);
    check(&tokenizer, "t\0h\u{ad}e", PLAIN, &[" the"]);
    check(&tokenizer, "e\u{301}İ", PLAIN, &[" [UNK]"]);
    let cased = word_piece().set("ggml.normalizer.lowercase", false);
    let cased = cased.tokenizer().unwrap();
    check(&cased, "The the thé", PLAIN, &[" [UNK]", " the", " [UNK]"]);
    let cased = word_piece()
        .set("ggml.normalizer.lowercase", false)
        .set("ggml.normalizer.strip_accents", true);
    check(&cased.tokenizer().unwrap(), "thé", PLAIN, &[" the"]);
}

#[test]
fn word_piece_knows_no_word_of_more_than_100_characters() {
    let tokenizer = word_piece().tokenizer().unwrap();
    let count = |length| tokenizer.encode(&"a".repeat(length), PLAIN).unwrap().len();
    assert_eq!((count(100), count(101)), (100, 1));
}

#[test]
fn word_piece_adds_class_and_separator() {
    let tokenizer = word_piece().tokenizer().unwrap();
    assert_eq!(tokenizer.kind(), "gguf-wpm");
    check(&tokenizer, "the", SPECIAL, &[" [CLS]", " the", " [SEP]"]);
    check(
        &tokenizer,
        "[MASK]a",
        SPECIAL,
        &[" [CLS]", " [MASK]", " a", " [SEP]"],
    );
    check(&tokenizer, "[ a]", PLAIN, &[" [", " a", " ]"]);
    let ids = tokenizer.encode("the, the.", SPECIAL).unwrap();
    assert_eq!(tokenizer.decode(&ids, true), "the, the.");
    assert_eq!(tokenizer.decode(&ids, false), "[CLS] the, the. [SEP]");
}
