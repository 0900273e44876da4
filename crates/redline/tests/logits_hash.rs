//! The same bits whatever computes them: instruction set, threads, cut of the prompt.
//!
//! `logits_hash.json` has, for each version of the arithmetic, every model's hash of the logits of
//! its first so many tokens, all positions. A change there is a change of `ARITHMETIC_VERSION`, made
//! on purpose. `logits_hash_ids.json` has the tokens of the real models.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and prints its figures"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redline_compute::Isa;
use redline_gguf::TokenId;
use redline_model::{ARITHMETIC_VERSION, LogitsHash, ModelFile, Properties};
use support::{Setting, ids, teacher_force};

const CHUNKS: [usize; 4] = [1, 7, 64, 512];
const THREADS: [usize; 2] = [1, 2];

/// Tokens of a tiny model, as far as its context goes: its prompt over and over, past the 256 positions
/// that attention reduces at a time.
const TINY_TOKENS: usize = 300;
/// Tokens of a real model on the scalar code, which takes half a second for each.
const SCALAR_TOKENS: usize = 8;

/// By arithmetic version, model and number of tokens.
type Golden = BTreeMap<String, BTreeMap<String, BTreeMap<usize, String>>>;

/// A model's hashes, as they are written down.
struct Hashes {
    name: String,
    /// By number of tokens.
    expected: BTreeMap<usize, String>,
    wrong: Vec<String>,
}

impl Hashes {
    fn of(name: &str) -> Self {
        let text = std::fs::read_to_string(tests().join("logits_hash.json")).unwrap();
        let mut golden: Golden = serde_json::from_str(&text).unwrap();
        let mut golden = golden
            .remove(&ARITHMETIC_VERSION.to_string())
            .unwrap_or_default();
        Self {
            name: name.to_owned(),
            expected: golden.remove(name).unwrap_or_default(),
            wrong: Vec::new(),
        }
    }

    /// Computes `tokens` and compares the hash of as many of them as is written down.
    fn check(&mut self, model: &Path, tokens: &[TokenId], setting: Setting) {
        let mut hash = LogitsHash::new();
        let mut found = BTreeMap::new();
        teacher_force(model, tokens, setting, &mut |position, logits| {
            hash.update(logits);
            let count = position + 1;
            if count == tokens.len() || self.expected.contains_key(&count) {
                found.insert(count, format!("{:016x}", hash.finish()));
            }
        });
        for (count, found) in found {
            let line = format!(
                "{}, {count} tokens: {found} by {}, threads {}, chunks of {}",
                self.name, setting.isa, setting.threads, setting.chunk
            );
            println!("{line}");
            if self.expected.get(&count) != Some(&found) {
                self.wrong.push(line);
            }
        }
    }

    fn finish(self) {
        assert!(
            self.wrong.is_empty(),
            "logits_hash.json has {:?} for arithmetic {ARITHMETIC_VERSION}:\n{}",
            self.expected,
            self.wrong.join("\n")
        );
    }
}

/// Every combination of threads and chunks.
fn settings(isa: Isa) -> impl Iterator<Item = Setting> {
    THREADS.into_iter().flat_map(move |threads| {
        CHUNKS.map(|chunk| Setting {
            isa,
            threads,
            chunk,
        })
    })
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn tokens_of(reference: &Path) -> Vec<TokenId> {
    let file = ModelFile::open(reference).unwrap();
    ids(&file.gguf().unwrap(), "tokens")
}

/// Ids of a real model, past the first KV page.
fn ids_of(name: &str) -> Vec<TokenId> {
    let text = std::fs::read_to_string(tests().join("logits_hash_ids.json")).unwrap();
    let mut ids: BTreeMap<String, Vec<u32>> = serde_json::from_str(&text).unwrap();
    let ids = ids.remove(name).unwrap();
    ids.into_iter().map(TokenId).collect()
}

fn check_real(name: &str, file: &str) {
    let Some(model) = redline_testkit::cached(file) else {
        return;
    };
    let tokens = ids_of(name);
    let mut hashes = Hashes::of(name);
    for isa in Isa::available() {
        if isa == Isa::Scalar {
            for (threads, chunk) in [(1, 512), (2, 7)] {
                let setting = Setting {
                    isa,
                    threads,
                    chunk,
                };
                hashes.check(&model, &tokens[..SCALAR_TOKENS], setting);
            }
        } else {
            for setting in settings(isa) {
                hashes.check(&model, &tokens, setting);
            }
        }
    }
    hashes.finish();
}

#[test]
fn tiny_models_give_the_same_bits() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    let mut folders: Vec<_> = std::fs::read_dir(golden)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 10, "found {folders:?}");
    let check = |folder: &PathBuf| {
        let model = ModelFile::open(&folder.join("model.gguf")).unwrap();
        let properties = Properties::from_gguf(&model.gguf().unwrap()).unwrap();
        if !properties.head {
            // An encoder: no logits.
            return None;
        }
        let prompt = tokens_of(&folder.join("reference.gguf"));
        let count = TINY_TOKENS.min(properties.context_length);
        let tokens: Vec<TokenId> = prompt.iter().cycle().take(count).copied().collect();
        let mut hashes = Hashes::of(folder.file_name().unwrap().to_str().unwrap());
        for setting in Isa::available().into_iter().flat_map(settings) {
            hashes.check(&folder.join("model.gguf"), &tokens, setting);
        }
        Some(hashes)
    };
    // All are computed and printed before any is judged.
    let all: Vec<Hashes> = folders.iter().filter_map(check).collect();
    for hashes in all {
        hashes.finish();
    }
}

#[test]
fn smollm2_gives_the_same_bits() {
    check_real("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_gives_the_same_bits() {
    check_real("gemma3-270m", redline_testkit::GEMMA3);
}
