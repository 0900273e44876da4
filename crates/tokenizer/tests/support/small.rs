//! Small vocabularies that need no download.

use super::{BYTE, CONTROL, File, NORMAL, Piece, UNKNOWN, USER_DEFINED};

/// Merges of [`byte_level`], in order; `Ġ` is a space, `Ċ` a newline.
pub(crate) const MERGES: [&str; 22] = [
    "h e",
    "l l",
    "he ll",
    "hell o",
    "Ġ w",
    "o r",
    "Ġw or",
    "l d",
    "Ġwor ld",
    "a a",
    "aa aa",
    "aaaa aaaa",
    "Ġ Ġ",
    "ĠĠ ĠĠ",
    "ĠĠĠĠ ĠĠĠĠ",
    "Ċ Ċ",
    "ĊĊ ĊĊ",
    "1 2",
    "12 3",
    "Ã ©",
    "ð Ł",
    "ðŁ ĺ",
];

pub(crate) const BYTE_LEVEL_SPECIAL: [(&str, i32); 4] = [
    ("<|endoftext|>", CONTROL),
    ("<|im_start|>", CONTROL),
    ("<|im_end|>", CONTROL),
    ("<tool>", USER_DEFINED),
];

/// A byte-level vocabulary: ids 0 to 255 are the bytes in the alphabet's order of code points, then
/// come the [`MERGES`], then [`BYTE_LEVEL_SPECIAL`] from id 278.
pub(crate) fn byte_level(pre: &str) -> File {
    let pieces = byte_level_pieces();
    File::new("gpt2")
        .set("ggml.pre", pre)
        .pieces(&pieces)
        .merges(MERGES)
        .set("ggml.eos_token_id", 280_u32)
        .set("ggml.bos_token_id", 279_u32)
}

pub(crate) fn byte_level_pieces() -> Vec<Piece> {
    let mut alphabet: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').collect();
    alphabet.extend('\u{100}'..='\u{143}');
    let merged = MERGES.iter().map(|merge| merge.replace(' ', ""));
    let texts = alphabet.iter().map(char::to_string).chain(merged);
    let mut pieces: Vec<Piece> = texts.map(|text| (text, NORMAL, 0.0)).collect();
    pieces.extend(
        BYTE_LEVEL_SPECIAL
            .iter()
            .map(|(text, kind)| ((*text).to_owned(), *kind, 0.0)),
    );
    pieces
}

/// The characters and words of [`sentence_piece`], best first, from id 259.
pub(crate) const WORDS: [&str; 27] = [
    "▁t",
    "he",
    "▁the",
    "ll",
    "▁▁",
    "▁▁▁▁",
    "aa",
    "aaaa",
    "▁he",
    "llo",
    "▁hello",
    "in",
    "▁in",
    "▁",
    "t",
    "h",
    "e",
    "l",
    "o",
    "a",
    "i",
    "n",
    "é",
    "漢",
    "字",
    "\n",
    "1",
];

/// A SentencePiece vocabulary in Llama's layout: `<unk>`, `<s>`, `</s>`, the bytes from id 3, then
/// the [`WORDS`], then the user-defined `<b>` (286) and `\n\n` (287).
pub(crate) fn sentence_piece() -> File {
    File::new("llama").pieces(&sentence_piece_pieces())
}

pub(crate) fn sentence_piece_pieces() -> Vec<Piece> {
    let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    let mut pieces: Vec<Piece> = special
        .iter()
        .map(|(text, kind)| ((*text).to_owned(), *kind, 0.0))
        .collect();
    pieces.extend((0..=255).map(|byte: u8| (format!("<0x{byte:02X}>"), BYTE, 0.0)));
    for (rank, text) in (0_u16..).zip(WORDS) {
        pieces.push((text.to_owned(), NORMAL, -f32::from(rank)));
    }
    pieces.extend(["<b>", "\n\n"].map(|text| (text.to_owned(), USER_DEFINED, -1000.0)));
    pieces
}

/// Pieces of [`word_piece`] after the four special ones, from id 4.
pub(crate) const WORD_PIECES: [&str; 14] = [
    "▁the", "▁un", "▁una", "aff", "able", "▁a", "a", "▁,", "▁.", "▁中", "▁e", "▁i", "▁[", "▁]",
];

/// An uncased WordPiece vocabulary: `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`, then the [`WORD_PIECES`].
pub(crate) fn word_piece() -> File {
    File::new("bert").pieces(&word_piece_pieces())
}

pub(crate) fn word_piece_pieces() -> Vec<Piece> {
    let special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(|text| (text, CONTROL));
    let words = WORD_PIECES.map(|text| (text, NORMAL));
    let all = special.into_iter().chain(words);
    all.map(|(text, kind)| (text.to_owned(), kind, 0.0))
        .collect()
}
