//! The [small vocabularies](super::small) as `tokenizer.json`.

use serde_json::{Value, json};

use super::CONTROL;
use super::small::{MERGES, byte_level_pieces, sentence_piece_pieces, word_piece_pieces};

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": special})
}

pub(crate) fn byte_level() -> Value {
    let mut vocab = serde_json::Map::new();
    let mut tokens = Vec::new();
    for (id, (text, kind, _)) in (0_u32..).zip(byte_level_pieces()) {
        if id < 278 {
            vocab.insert(text, id.into());
        } else {
            tokens.push(added(id, &text, kind == CONTROL));
        }
    }
    let level =
        |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex});
    json!({
        "version": "1.0", "truncation": {"max_length": 8}, "padding": null, "added_tokens": tokens,
        "normalizer": null, "pre_tokenizer": level(true), "post_processor": level(true),
        "decoder": level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": vocab, "merges": MERGES},
    })
}

pub(crate) fn sentence_piece() -> Value {
    let pieces = sentence_piece_pieces();
    let vocab: serde_json::Map<_, _> = (0_u32..)
        .zip(&pieces)
        .map(|(id, (text, ..))| (text.clone(), id.into()))
        .collect();
    json!({
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true),
                         added(286, "<b>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                  "merges": [["▁", "t"], ["h", "e"], ["▁t", "he"], ["l", "l"]]},
    })
}

pub(crate) fn word_piece() -> Value {
    let mut vocab = serde_json::Map::new();
    let mut tokens = Vec::new();
    for (id, (text, kind, _)) in (0_u32..).zip(word_piece_pieces()) {
        let text = match text.strip_prefix('▁') {
            Some(start) => start.to_owned(),
            None if kind == CONTROL => text,
            None => format!("##{text}"),
        };
        if kind == CONTROL {
            tokens.push(added(id, &text, true));
        }
        vocab.insert(text, id.into());
    }
    json!({
        "added_tokens": tokens,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    })
}
