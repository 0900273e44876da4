//! Vocabularies as upstream publishes them, `tokenizer.json`, turned into the metadata that
//! llama.cpp's converter writes for them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use redline_tokenizer::{JsonFiles, Tokenizer};
use serde::Deserialize;

use super::{BYTE, CONTROL, File, NORMAL, Piece, UNKNOWN, UNUSED, USER_DEFINED, tokenizer};

const FAMILIES: &str = include_str!("../data/families.json");

#[derive(Deserialize)]
struct Family {
    family: String,
    vocabulary: String,
    metadata: Option<Conventions>,
}

/// The form of a tokenizer that came from a GGUF file.
pub(crate) const GGUF: &str = "GGUF";

/// The names of all families.
pub(crate) fn families() -> Vec<String> {
    let families: Vec<Family> = serde_json::from_str(FAMILIES).unwrap();
    families.into_iter().map(|family| family.family).collect()
}

/// A family's tokenizers: from a GGUF file, and from its `tokenizer.json` if it has one. None, after
/// reporting the test as skipped, if the vocabulary is not there.
#[track_caller]
pub(crate) fn tokenizers(family: &str) -> Vec<(&'static str, Tokenizer)> {
    let families: Vec<Family> = serde_json::from_str(FAMILIES).unwrap();
    let known = families.into_iter().find(|known| known.family == family);
    let known = known.unwrap();
    let Some(path) = redline_testkit::cached(&known.vocabulary) else {
        return Vec::new();
    };
    let bytes = std::fs::read(&path).unwrap();
    let Some(conventions) = &known.metadata else {
        return vec![(GGUF, tokenizer(&bytes).unwrap())];
    };
    let files = JsonFiles {
        tokenizer: &bytes,
        ..JsonFiles::default()
    };
    let converted = tokenizer(&convert(&path, conventions)).unwrap();
    let own = Tokenizer::from_json(&files).unwrap();
    vec![(GGUF, converted), ("JSON", own)]
}

/// Whether the form of a family gives upstream's ids for a text. CodeLlama's infilling tokens are text
/// that merges make in a GGUF file, and not looked for.
pub(crate) fn is_exact(family: &str, form: &str, text: &str) -> bool {
    family != "codellama" || form != GGUF || !text.contains("▁<")
}

/// What a family's GGUF says beside its pieces, with tokens named by their text.
#[derive(Debug, Deserialize)]
struct Conventions {
    model: String,
    pre: Option<String>,
    bos: Option<String>,
    eos: Option<String>,
    unknown: Option<String>,
    separator: Option<String>,
    add_bos: Option<bool>,
    add_space_prefix: Option<bool>,
    /// The added tokens that are control tokens, if not all special ones are.
    controls: Option<Vec<String>>,
}

impl Conventions {
    fn is_text(&self, token: &String) -> bool {
        let controls = self.controls.as_ref();
        controls.is_some_and(|controls| !controls.contains(token))
    }
}

#[derive(Deserialize)]
struct Definition {
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: BTreeMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Joined(String),
    Pair(String, String),
}

impl Merge {
    fn joined(&self) -> String {
        match self {
            Self::Joined(merge) => merge.clone(),
            Self::Pair(left, right) => format!("{left} {right}"),
        }
    }

    fn piece(&self) -> String {
        match self {
            Self::Joined(merge) => merge.replacen(' ', "", 1),
            Self::Pair(left, right) => format!("{left}{right}"),
        }
    }
}

/// The GGUF file for the `tokenizer.json` at `path`.
fn convert(path: &Path, conventions: &Conventions) -> Vec<u8> {
    let definition: Definition = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let pieces = pieces(&definition, conventions, &conventions.model);
    let id = |text: &Option<String>| {
        let text = text.as_ref()?;
        Some(u32::try_from(pieces.iter().position(|(piece, ..)| piece == text).unwrap()).unwrap())
    };
    let mut file = File::new(&conventions.model).pieces(&pieces);
    if conventions.model == "gpt2" {
        file = file.merges(definition.model.merges.iter().map(Merge::joined));
    }
    if let Some(pre) = &conventions.pre {
        file = file.set("ggml.pre", pre);
    }
    let roles = [
        ("ggml.bos_token_id", &conventions.bos),
        ("ggml.eos_token_id", &conventions.eos),
        ("ggml.unknown_token_id", &conventions.unknown),
        ("ggml.seperator_token_id", &conventions.separator),
    ];
    for (key, text) in roles {
        if let Some(id) = id(text) {
            file = file.set(key, id);
        }
    }
    let flags = [
        ("ggml.add_bos_token", conventions.add_bos),
        ("ggml.add_space_prefix", conventions.add_space_prefix),
    ];
    for (key, flag) in flags {
        if let Some(flag) = flag {
            file = file.set(key, flag);
        }
    }
    file.bytes()
}

fn pieces(definition: &Definition, conventions: &Conventions, model: &str) -> Vec<Piece> {
    let spm = model == "llama";
    let ids = definition
        .model
        .vocab
        .values()
        .chain(definition.added_tokens.iter().map(|a| &a.id));
    let count = *ids.max().unwrap() as usize + 1;
    let mut pieces: Vec<Piece> = (0..count)
        .map(|id| (format!("[PAD{id}]"), UNUSED, f32::MIN))
        .collect();
    let scores = if spm {
        scores(&definition.model.merges)
    } else {
        HashMap::new()
    };
    for (text, id) in &definition.model.vocab {
        let is_byte = spm && text.len() == 6 && text.starts_with("<0x");
        let score = scores.get(text).copied().unwrap_or(f32::MIN);
        let text = match model {
            "bert" => with_word_starts(text),
            _ => text.clone(),
        };
        pieces[*id as usize] = (text, if is_byte { BYTE } else { NORMAL }, score);
    }
    for added in &definition.added_tokens {
        let text = if spm && !added.special {
            added.content.replace('▁', " ")
        } else {
            added.content.clone()
        };
        let kind = match added.special {
            _ if spm && conventions.unknown.as_ref() == Some(&text) => UNKNOWN,
            true if conventions.is_text(&text) => continue,
            true => CONTROL,
            false => USER_DEFINED,
        };
        pieces[added.id as usize] = (text, kind, -1000.0);
    }
    pieces
}

/// WordPiece marks pieces that go on, the converter those that begin a word.
fn with_word_starts(text: &str) -> String {
    match text.strip_prefix("##") {
        Some(rest) => rest.to_owned(),
        None if text.starts_with('[') && text.ends_with(']') => text.to_owned(),
        None => format!("▁{text}"),
    }
}

/// The scores that put the merges in their order: the best merge of a piece tells its score.
fn scores(merges: &[Merge]) -> HashMap<String, f32> {
    let mut scores = HashMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are less than 2^24 merges"
        )]
        scores.entry(merge.piece()).or_insert(-(rank as f32));
    }
    scores
}
