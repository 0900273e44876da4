//! A made-up vocabulary of exact size.
//!
//! It holds the special tokens of the model that the shape is of, at their ids and with their
//! roles; all 256 bytes; and, for the rest, made-up words: a space and lower-case letters, in the
//! order a, b, …, z, aa, ab, … Any text can be encoded, and words merge letter by letter, so that
//! a text is fewer tokens than bytes, as with a real vocabulary.

use redline_gguf::{ArrayBuf, Error, Writer};

use super::shapes::{Shape, Tokenizer};

/// Numbers in `tokenizer.ggml.token_type` (`llama_token_type`).
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// What a model's tokenizer is, apart from its size.
struct Kind {
    /// `tokenizer.ggml.pre`.
    pre: &'static str,
    sentence_piece: bool,
    /// Ids and pieces; in a vocabulary too small for an id, the first ids that are free.
    specials: &'static [(u32, &'static str)],
    bos: &'static str,
    eos: &'static str,
    unknown: Option<&'static str>,
    padding: Option<&'static str>,
    add_bos: bool,
    add_space_prefix: Option<bool>,
}

/// Qwen 2's control tokens, those of ChatML.
const QWEN2_SPECIALS: &[(u32, &str)] = &[
    (151_643, "<|endoftext|>"),
    (151_644, "<|im_start|>"),
    (151_645, "<|im_end|>"),
];

/// Phi-3's additions to the vocabulary of Llama 2.
const PHI3_SPECIALS: &[(u32, &str)] = &[
    (0, "<unk>"),
    (1, "<s>"),
    (2, "</s>"),
    (32_000, "<|endoftext|>"),
    (32_001, "<|assistant|>"),
    (32_002, "<|placeholder1|>"),
    (32_003, "<|placeholder2|>"),
    (32_004, "<|placeholder3|>"),
    (32_005, "<|placeholder4|>"),
    (32_006, "<|system|>"),
    (32_007, "<|end|>"),
    (32_008, "<|placeholder5|>"),
    (32_009, "<|placeholder6|>"),
    (32_010, "<|user|>"),
];

/// gpt-oss's control tokens, those of its harmony conversations.
const GPT_OSS_SPECIALS: &[(u32, &str)] = &[
    (199_998, "<|startoftext|>"),
    (199_999, "<|endoftext|>"),
    (200_002, "<|return|>"),
    (200_003, "<|constrain|>"),
    (200_005, "<|channel|>"),
    (200_006, "<|start|>"),
    (200_007, "<|end|>"),
    (200_008, "<|message|>"),
    (200_012, "<|call|>"),
    (200_018, "<|endofprompt|>"),
];

/// What those of SentencePiece share with Llama 2's.
const LLAMA2: Kind = Kind {
    pre: "default",
    sentence_piece: true,
    specials: &[(0, "<unk>"), (1, "<s>"), (2, "</s>")],
    bos: "<s>",
    eos: "</s>",
    unknown: Some("<unk>"),
    padding: None,
    add_bos: true,
    add_space_prefix: None,
};

/// What byte-level ones share with Qwen 2's.
const QWEN2: Kind = Kind {
    pre: "qwen2",
    sentence_piece: false,
    specials: QWEN2_SPECIALS,
    bos: "<|endoftext|>",
    eos: "<|im_end|>",
    unknown: None,
    padding: Some("<|endoftext|>"),
    add_bos: false,
    add_space_prefix: None,
};

impl Tokenizer {
    const fn kind(self) -> Kind {
        match self {
            Self::Llama2 => LLAMA2,
            Self::Phi3 => Kind {
                specials: PHI3_SPECIALS,
                eos: "<|endoftext|>",
                padding: Some("<|endoftext|>"),
                ..LLAMA2
            },
            Self::Gemma => Kind {
                specials: &[(0, "<pad>"), (1, "<eos>"), (2, "<bos>"), (3, "<unk>")],
                bos: "<bos>",
                eos: "<eos>",
                padding: Some("<pad>"),
                add_space_prefix: Some(false),
                ..LLAMA2
            },
            Self::Llama3 => Kind {
                pre: "llama-bpe",
                specials: &[
                    (128_000, "<|begin_of_text|>"),
                    (128_001, "<|end_of_text|>"),
                    (128_009, "<|eot_id|>"),
                ],
                bos: "<|begin_of_text|>",
                eos: "<|eot_id|>",
                padding: None,
                add_bos: true,
                ..QWEN2
            },
            Self::Qwen2 => QWEN2,
            Self::GptOss => Kind {
                pre: "gpt-4o",
                specials: GPT_OSS_SPECIALS,
                bos: "<|startoftext|>",
                eos: "<|return|>",
                ..QWEN2
            },
            Self::Gpt2 => Kind {
                pre: "gpt-2",
                specials: &[(50_256, "<|endoftext|>")],
                eos: "<|endoftext|>",
                padding: None,
                ..QWEN2
            },
            Self::SmolLm => Kind {
                pre: "smollm",
                specials: &[(0, "<|endoftext|>"), (1, "<|im_start|>"), (2, "<|im_end|>")],
                bos: "<|im_start|>",
                eos: "<|im_end|>",
                unknown: Some("<|endoftext|>"),
                padding: Some("<|im_end|>"),
                add_space_prefix: Some(false),
                ..QWEN2
            },
        }
    }
}

/// Declares the tokenizer of `shape`.
pub(super) fn declare(shape: &Shape, writer: &mut Writer) -> Result<(), Error> {
    let kind = shape.tokenizer.kind();
    let made = Pieces::make(&kind, shape.vocab);
    let id = |piece: &str| made.tokens.iter().position(|token| token == piece);
    let model = if kind.sentence_piece { "llama" } else { "gpt2" };
    writer.metadata("tokenizer.ggml.model", model)?;
    writer.metadata("tokenizer.ggml.pre", kind.pre)?;
    writer.metadata("tokenizer.ggml.tokens", &ArrayBuf::strings(&made.tokens))?;
    if kind.sentence_piece {
        writer.metadata("tokenizer.ggml.scores", &ArrayBuf::from(&*made.scores))?;
    }
    writer.metadata("tokenizer.ggml.token_type", &ArrayBuf::from(&*made.types))?;
    if !kind.sentence_piece {
        writer.metadata("tokenizer.ggml.merges", &ArrayBuf::strings(&made.merges))?;
    }
    let roles = [
        ("bos", Some(kind.bos)),
        ("eos", Some(kind.eos)),
        ("unknown", kind.unknown),
        ("padding", kind.padding),
    ];
    for (role, piece) in roles {
        if let Some(id) = piece.and_then(id) {
            writer.metadata(&format!("tokenizer.ggml.{role}_token_id"), id as u32)?;
        }
    }
    writer.metadata("tokenizer.ggml.add_bos_token", kind.add_bos)?;
    writer.metadata("tokenizer.ggml.add_eos_token", false)?;
    if let Some(prefix) = kind.add_space_prefix {
        writer.metadata("tokenizer.ggml.add_space_prefix", prefix)?;
    }
    Ok(())
}

/// A vocabulary's arrays, by id.
struct Pieces {
    tokens: Vec<String>,
    types: Vec<i32>,
    /// SentencePiece: earlier merges first.
    scores: Vec<f32>,
    /// Byte-level BPE: earlier merges first.
    merges: Vec<String>,
}

impl Pieces {
    fn make(kind: &Kind, size: usize) -> Self {
        let mut made = Self {
            tokens: Vec::new(),
            types: Vec::new(),
            scores: Vec::new(),
            merges: Vec::new(),
        };
        let alphabet = if kind.sentence_piece {
            spm_alphabet()
        } else {
            bpe_alphabet()
        };
        let space = if kind.sentence_piece {
            '\u{2581}'
        } else {
            bpe_character(b' ')
        };
        let mut specials = special_ids(kind, size).into_iter().peekable();
        let mut plain = alphabet.into_iter().chain(words(space));
        for id in 0..size {
            if let Some((_, piece)) = specials.next_if(|(special, _)| *special == id) {
                let unknown = kind.sentence_piece && kind.unknown == Some(piece);
                made.push(piece.to_owned(), if unknown { UNKNOWN } else { CONTROL });
                continue;
            }
            let Some((piece, token_type)) = plain.next() else {
                break;
            };
            let mut letters = piece.chars();
            if let Some(last) = letters.next_back()
                && piece.starts_with(space)
                && !letters.as_str().is_empty()
            {
                made.merges.push(format!("{} {last}", letters.as_str()));
            }
            made.push(piece, token_type);
        }
        made
    }

    fn push(&mut self, piece: String, token_type: i32) {
        let score = if token_type == NORMAL {
            -(self.tokens.len() as f32)
        } else {
            0.0
        };
        self.tokens.push(piece);
        self.types.push(token_type);
        self.scores.push(score);
    }
}

/// The special tokens with ids below `size`, ascending.
fn special_ids(kind: &Kind, size: usize) -> Vec<(usize, &'static str)> {
    let fit = kind.specials.iter().all(|(id, _)| (*id as usize) < size);
    let own = kind.specials.iter().zip(0..);
    own.map(|(&(id, piece), rank)| (if fit { id as usize } else { rank }, piece))
        .collect()
}

/// Bytes, the space, and the other printable characters of ASCII.
fn spm_alphabet() -> Vec<(String, i32)> {
    let bytes = (0..=u8::MAX).map(|byte| (format!("<0x{byte:02X}>"), BYTE));
    let characters = std::iter::once('\u{2581}').chain('!'..='~');
    bytes
        .chain(characters.map(|character| (character.to_string(), NORMAL)))
        .collect()
}

/// A character for each byte.
fn bpe_alphabet() -> Vec<(String, i32)> {
    (0..=u8::MAX)
        .map(|byte| (bpe_character(byte).to_string(), NORMAL))
        .collect()
}

/// The character that stands for a byte: itself where it is printable, else one from U+0100 on.
///
/// Source: `bytes_to_unicode` of GPT-2's encoder.
fn bpe_character(byte: u8) -> char {
    let printable = |byte| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(0x100 + before).expect("the plane's first characters are characters")
}

/// `space` and letters: all words of one letter, of two, and so on, without end.
fn words(space: char) -> impl Iterator<Item = (String, i32)> {
    (1_usize..).map(move |mut number| {
        // Bijective base 26: there is no zero.
        let mut letters = Vec::new();
        while number > 0 {
            number -= 1;
            letters.push(char::from(b'a' + (number % 26) as u8));
            number /= 26;
        }
        let word = std::iter::once(space)
            .chain(letters.into_iter().rev())
            .collect();
        (word, NORMAL)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use redline_gguf::{Gguf, TokenId};
    use redline_tokenizer::{EncodeOptions, Tokenizer};

    use super::*;
    use crate::synth::shapes;

    fn tokenizer(shape: &Shape) -> Tokenizer {
        let mut writer = Writer::new();
        declare(shape, &mut writer).unwrap();
        let file = writer.start(Vec::new()).unwrap().finish().unwrap();
        let gguf = Gguf::parse(&[&file]).unwrap();
        Tokenizer::from_gguf(gguf.metadata()).unwrap()
    }

    #[test]
    fn pieces_are_distinct_and_exactly_as_many_as_the_model_has() {
        for shape in &shapes::ALL {
            let made = Pieces::make(&shape.tokenizer.kind(), shape.vocab);
            assert_eq!(made.tokens.len(), shape.vocab, "{}", shape.name);
            let distinct: HashSet<&String> = made.tokens.iter().collect();
            assert_eq!(distinct.len(), shape.vocab, "{}", shape.name);
        }
    }

    #[test]
    fn any_text_survives_every_tokenizer() {
        let text = "The quick brown fox:\n\t42 jumps, «élan» 🦊!";
        for name in [
            "tiny-llama",
            "tiny-qwen2",
            "tiny-gemma3",
            "tiny-phi3",
            "tiny-gpt2",
            "smollm2-135m",
            "llama3.2-1b",
        ] {
            let tokenizer = tokenizer(shapes::find(name).unwrap());
            let options = EncodeOptions {
                add_special: false,
                parse_special: false,
            };
            let ids = tokenizer.encode(text, options).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).trim_start(), text, "{name}");
            assert!(ids.len() < text.len() + 2, "{name}: {} tokens", ids.len());
        }
    }

    #[test]
    fn specials_keep_their_ids_and_roles() {
        let qwen = tokenizer(shapes::find("qwen2.5-0.5b").unwrap());
        assert_eq!(qwen.vocab_size(), 151_936);
        assert_eq!(
            (qwen.bos(), qwen.eos()),
            (Some(TokenId(151_643)), Some(TokenId(151_645)))
        );
        let llama = tokenizer(shapes::find("llama2-7b").unwrap());
        assert_eq!(
            (llama.bos(), llama.eos()),
            (Some(TokenId(1)), Some(TokenId(2)))
        );
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        let ids = llama.encode("abc</s>", options).unwrap();
        assert_eq!(
            (ids.first(), ids.last()),
            (Some(&TokenId(1)), Some(&TokenId(2)))
        );
        let tiny = tokenizer(shapes::find("tiny-qwen2").unwrap());
        assert_eq!(
            (tiny.bos(), tiny.eos()),
            (Some(TokenId(0)), Some(TokenId(2)))
        );
    }

    #[test]
    fn words_merge_letter_by_letter() {
        let smol = tokenizer(shapes::find("smollm2-135m").unwrap());
        let options = EncodeOptions {
            add_special: false,
            parse_special: false,
        };
        // 26 + 26² + 26³ words of up to three letters are in the vocabulary: " cat" is one token.
        assert_eq!(smol.encode(" cat", options).unwrap().len(), 1);
        assert_eq!(smol.encode(" Cat", options).unwrap().len(), 4);
    }
}
