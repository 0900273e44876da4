//! Real models, teacher-forced over English texts, against llama.cpp.
//!
//! `conformance/<model>.<text>.gguf` holds what llama.cpp computed: the ids of the text, and at every
//! position the likeliest next ids with their log-probabilities and that of all others together.
//! `xtask/golden/llama_cpp_logits.py` makes it; the `.json` beside it says from what.
//!
//! Both texts were written for this test. `tale` retells a folk tale with its repetitions, longer
//! than Gemma's window; `prose` is harder to predict. Rounding alone changes the likeliest id where
//! two are almost as likely: the `.json` files record how often llama.cpp disagrees with itself,
//! when it computes the same tokens one by one instead of together. On `tale` that is less than 2 %
//! of the positions, so 97 % can be asked for; on `prose` it is 3 to 4 %. Divergence sees more than
//! agreement does, so it may not be much above llama.cpp's from itself either.
//!
//! What is wrong by less than that noise shows in the tiny models (`crates/model/tests/golden.rs`),
//! whose weights are not quantised.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and prints its figures"
)]

mod support;

use std::path::{Path, PathBuf};

use redline_compute::Isa;
use redline_gguf::{Gguf, TokenId};
use redline_model::ModelFile;
use redline_tokenizer::{EncodeOptions, Tokenizer};
use support::{Setting, floats, ids, teacher_force};

/// The texts, and the least share of positions with the same likeliest id.
const TEXTS: [(&str, f64); 2] = [("tale", 0.97), ("prose", 0.93)];
/// Largest mean divergence, in nats, and in multiples of llama.cpp's from itself.
const MEAN_KL: f64 = 0.02;
const NOISE_MULTIPLE: f64 = 1.5;

/// What llama.cpp computed.
struct Reference {
    tokens: Vec<TokenId>,
    /// Ids kept of each position.
    top: usize,
    /// `[positions, top]`, best first.
    top_ids: Vec<TokenId>,
    /// `[positions, top]`
    top_logp: Vec<f32>,
    /// `[positions]`
    rest_logp: Vec<f32>,
}

impl Reference {
    fn read(file: &Gguf<'_>) -> Self {
        let (tokens, top_ids) = (ids(file, "tokens"), ids(file, "top_ids"));
        let read = Self {
            top: top_ids.len() / tokens.len(),
            top_logp: floats(file, "top_logp"),
            rest_logp: floats(file, "rest_logp"),
            tokens,
            top_ids,
        };
        assert!(read.tokens.len() >= 500, "{} positions", read.tokens.len());
        assert_eq!(read.top_ids.len(), read.tokens.len() * read.top);
        assert_eq!(read.top_logp.len(), read.top_ids.len());
        assert_eq!(read.rest_logp.len(), read.tokens.len());
        read
    }

    /// Divergence of `logits` from the reference at a position, in nats, over the kept ids and one
    /// bucket for all others.
    fn kl(&self, position: usize, logits: &[f32]) -> f64 {
        let kept = position * self.top..(position + 1) * self.top;
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let mass = |logit: f32| (f64::from(logit) - largest).exp();
        let total: f64 = logits.iter().map(|logit| mass(*logit)).sum();
        let mut rest = total;
        let mut divergence = 0.0;
        let mut term = |logp: f32, ours: f64| {
            divergence += f64::from(logp).exp() * (f64::from(logp) - (ours / total).ln());
        };
        for (id, logp) in self.top_ids[kept.clone()].iter().zip(&self.top_logp[kept]) {
            let ours = mass(logits[id.0 as usize]);
            rest -= ours;
            term(*logp, ours);
        }
        term(self.rest_logp[position], rest.max(f64::MIN_POSITIVE));
        divergence
    }
}

/// The lowest id of the largest logit.
fn argmax(logits: &[f32]) -> TokenId {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    TokenId(logits.iter().position(|logit| *logit == largest).unwrap() as u32)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// The reference of a model and a text.
fn open(name: &str, text: &str) -> ModelFile {
    ModelFile::open(&folder().join(format!("{name}.{text}.gguf"))).unwrap()
}

/// Mean divergence of llama.cpp from itself.
fn noise(name: &str, text: &str) -> f64 {
    let provenance = std::fs::read_to_string(folder().join(format!("{name}.{text}.json"))).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    provenance["batch_against_one_by_one"]["kl_mean"]
        .as_f64()
        .unwrap()
}

fn check(name: &str, file: &str) {
    let Some(model) = redline_testkit::cached(file) else {
        return;
    };
    for (text, least_agreement) in TEXTS {
        let file = open(name, text);
        let reference = Reference::read(&file.gguf().unwrap());
        let setting = Setting {
            isa: Isa::detect(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            chunk: 64,
        };
        let (mut agreed, mut divergences) = (0_usize, Vec::new());
        teacher_force(&model, &reference.tokens, setting, &mut |position, row| {
            agreed += usize::from(argmax(row) == reference.top_ids[position * reference.top]);
            divergences.push(reference.kl(position, row));
        });
        let positions = reference.tokens.len() as f64;
        let agreement = agreed as f64 / positions;
        let mean = divergences.iter().sum::<f64>() / positions;
        let largest = divergences.iter().copied().fold(0.0, f64::max);
        println!(
            "{name}, {text}: {positions} positions, top-1 agreement {:.2} %, \
             KL {mean:.5} in the mean, at most {largest:.4}",
            100.0 * agreement
        );
        let noise = noise(name, text);
        assert!(
            mean <= MEAN_KL.min(NOISE_MULTIPLE * noise),
            "{name}, {text}: mean KL {mean}; llama.cpp from itself {noise}"
        );
        assert!(
            agreement >= least_agreement,
            "{name}, {text}: top-1 agreement {agreement}"
        );
    }
}

/// llama.cpp's tokenizer and ours see the same ids in the texts.
fn check_ids(name: &str, file: &str) {
    let Some(model) = redline_testkit::cached(file) else {
        return;
    };
    let model = ModelFile::open(&model).unwrap();
    let tokenizer = Tokenizer::from_gguf(model.gguf().unwrap().metadata()).unwrap();
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    for (text, _) in TEXTS {
        let words = std::fs::read_to_string(folder().join(format!("{text}.txt"))).unwrap();
        let found = tokenizer.encode(&words, options).unwrap();
        let reference = open(name, text);
        assert_eq!(found, ids(&reference.gguf().unwrap(), "tokens"), "{text}");
    }
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    check("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_agrees_with_llama_cpp() {
    check("gemma3-270m", redline_testkit::GEMMA3);
}

#[test]
fn smollm2_texts_have_the_ids_of_llama_cpp() {
    check_ids("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_texts_have_the_ids_of_llama_cpp() {
    check_ids("gemma3-270m", redline_testkit::GEMMA3);
}
