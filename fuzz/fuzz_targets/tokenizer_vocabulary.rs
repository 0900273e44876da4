//! Any vocabulary, text and ids: an error, or a tokenizer whose ids stream as they decode, and which
//! gives text back where the vocabulary has every byte.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use redline_gguf::{ArrayBuf, Gguf, TokenId, Writer};
use redline_tokenizer::{EncodeOptions, Tokenizer};

const PRE: [&str; 7] = ["gpt-2", "smollm", "qwen2", "llama-bpe", "gpt-4o", "tekken", "unknown"];

#[derive(Debug, Arbitrary)]
struct Input {
    sentence_piece: bool,
    pre: u8,
    /// Whether every byte has a piece, as in any real vocabulary.
    complete: bool,
    pieces: Vec<(String, i8, f32)>,
    merges: Vec<(u8, u8)>,
    roles: [Option<u8>; 4],
    flags: [Option<bool>; 3],
    text: String,
    ids: Vec<u16>,
}

fuzz_target!(|input: Input| {
    let file = file(&input).expect("metadata that GGUF allows");
    let gguf = Gguf::parse(&[&file]).expect("the file just written");
    let Ok(tokenizer) = Tokenizer::from_gguf(gguf.metadata()) else { return };
    let ids: Vec<_> = input.ids.iter().map(|id| TokenId((*id).into())).collect();
    check_stream(&tokenizer, &ids);
    for parse_special in [false, true] {
        let options = EncodeOptions { add_special: false, parse_special };
        if let Ok(ids) = tokenizer.encode(&input.text, options) {
            check_stream(&tokenizer, &ids);
        }
    }
});

fn check_stream(tokenizer: &Tokenizer, ids: &[TokenId]) {
    let mut decoder = tokenizer.stream_decoder();
    let mut streamed: String = ids.iter().map(|id| decoder.push(*id)).collect();
    streamed.push_str(&decoder.finish());
    assert_eq!(streamed, tokenizer.decode(ids, true));
    for id in ids {
        assert_eq!(tokenizer.piece(*id).is_some(), (id.0 as usize) < tokenizer.vocab_size());
    }
}

fn file(input: &Input) -> Result<Vec<u8>, redline_gguf::Error> {
    let mut pieces: Vec<(String, i32, f32)> =
        input.pieces.iter().map(|(text, kind, score)| (text.clone(), (*kind).into(), *score)).collect();
    if input.complete {
        pieces.extend(bytes(input.sentence_piece));
    }
    // Merges name pieces that are there; the piece that they make is added.
    let mut merges = Vec::new();
    for &(left, right) in &input.merges {
        let piece = |index: u8| pieces.get(usize::from(index) % pieces.len().max(1)).cloned();
        if let (Some((left, ..)), Some((right, ..))) = (piece(left), piece(right)) {
            merges.push(format!("{left} {right}"));
            pieces.push((left + &right, 1, 0.0));
        }
    }
    let kinds: Vec<i32> = pieces.iter().map(|(_, kind, _)| *kind).collect();
    let scores: Vec<f32> = pieces.iter().map(|(.., score)| *score).collect();
    let mut out = Writer::new();
    out.metadata("tokenizer.ggml.model", if input.sentence_piece { "llama" } else { "gpt2" })?;
    out.metadata("tokenizer.ggml.pre", PRE[usize::from(input.pre) % PRE.len()])?;
    out.metadata("tokenizer.ggml.tokens", &ArrayBuf::strings(pieces.iter().map(|(text, ..)| text)))?;
    out.metadata("tokenizer.ggml.token_type", &ArrayBuf::from(&kinds[..]))?;
    out.metadata("tokenizer.ggml.scores", &ArrayBuf::from(&scores[..]))?;
    out.metadata("tokenizer.ggml.merges", &ArrayBuf::strings(&merges))?;
    for (role, id) in ["bos", "eos", "eot", "unknown"].iter().zip(input.roles) {
        if let Some(id) = id {
            out.metadata(&format!("tokenizer.ggml.{role}_token_id"), u32::from(id))?;
        }
    }
    for (flag, value) in ["add_bos_token", "add_eos_token", "add_space_prefix"].iter().zip(input.flags) {
        if let Some(value) = value {
            out.metadata(&format!("tokenizer.ggml.{flag}"), value)?;
        }
    }
    out.start(Vec::new())?.finish()
}

/// A piece for each byte.
fn bytes(sentence_piece: bool) -> Vec<(String, i32, f32)> {
    if sentence_piece {
        return (0..=255).map(|byte: u8| (format!("<0x{byte:02X}>"), 6, 0.0)).collect();
    }
    let characters = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('\u{100}'..='\u{143}');
    characters.map(|character| (character.to_string(), 1, 0.0)).collect()
}
