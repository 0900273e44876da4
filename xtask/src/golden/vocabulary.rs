//! The vocabulary of the tiny models.

use anyhow::{Result, bail};
use redline_gguf::{ArrayBuf, Writer};

/// A byte-level vocabulary of ASCII and as many merges as fill it up: id = byte below 128.
pub(super) fn declare(size: u32, out: &mut Writer) -> Result<()> {
    const MERGES: [&str; 3] = ["\u{120} t", "h e", "i n"];
    let bytes = (0..128_u8).map(|byte| byte_character(byte).to_string());
    let merged = MERGES.map(|merge| merge.replace(' ', ""));
    let tokens: Vec<String> = bytes.chain(merged).collect();
    if tokens.len() != size as usize {
        bail!("a vocabulary of {size}: expected {}", tokens.len());
    }
    // Normal tokens, but for the control token NUL which ends a text.
    let kinds: Vec<i32> = (0..size).map(|id| if id == 0 { 3 } else { 1 }).collect();
    out.metadata("tokenizer.ggml.model", "gpt2")?;
    out.metadata("tokenizer.ggml.pre", "gpt-2")?;
    out.metadata("tokenizer.ggml.tokens", &ArrayBuf::strings(&tokens))?;
    out.metadata(
        "tokenizer.ggml.token_type",
        &ArrayBuf::from(kinds.as_slice()),
    )?;
    out.metadata("tokenizer.ggml.merges", &ArrayBuf::strings(MERGES))?;
    out.metadata("tokenizer.ggml.bos_token_id", 0_u32)?;
    out.metadata("tokenizer.ggml.eos_token_id", 0_u32)?;
    out.metadata("tokenizer.ggml.add_bos_token", false)?;
    Ok(())
}

/// The character that stands for an ASCII byte in a byte-level vocabulary: itself if visible, else
/// the next one from U+0100 on. Source: GPT-2, `encoder.py`, `bytes_to_unicode`.
fn byte_character(byte: u8) -> char {
    let hidden = match byte {
        b'!'..=b'~' => return byte.into(),
        0..=b' ' => u32::from(byte),
        _ => 33 + u32::from(byte - 127),
    };
    char::from_u32(0x100 + hidden).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_bytes_have_the_usual_characters() {
        let shown: String = [0, b'\n', b' ', b'!', b'~', 127]
            .map(byte_character)
            .iter()
            .collect();
        assert_eq!(shown, "\u{100}\u{10a}\u{120}!~\u{121}");
    }
}
