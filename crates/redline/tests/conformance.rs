//! Real models, teacher-forced over English texts, against other engines.
//!
//! `conformance/<model>.gguf` holds what `xtask/golden/conformance.py` computed of the texts beside
//! it, `<model>.json` from what and how: the exact logits, by transformers in F32 on the dequantised
//! weights, and llama.cpp's for the same file. The novel of 1851 and the two addresses to Congress
//! of 1826 and 1848 are public domain, cut out by a rule fixed before any engine had seen them.
//! `tale` and `prose` were written for these tests: a folk tale with its repetitions, and something
//! harder to predict.
//!
//! Two things can be wrong, and each has its test:
//!
//! - **The model**: a rotation, a window, a norm, a scale, a weight's value. With the weights
//!   dequantised to F32 nothing but F16 keys and values parts this engine from the exact logits,
//!   so almost no error is small enough to hide.
//! - **The arithmetic on quant blocks.** Here 8-bit activations cost every engine some divergence
//!   from the exact logits, and ours may not cost more than llama.cpp's do, beyond what chance
//!   explains over these positions.
//!
//! A third test asks for plain agreement with llama.cpp, on `tale` and `prose`, whose noise is
//! known. Rounding alone changes the likeliest id where two are almost as likely, and llama.cpp
//! disagrees with itself when it computes the same tokens one by one: on `tale` at less than 2 % of
//! the positions, so 97 % can be asked for, on `prose` at 3 to 4 %. Divergence sees more than
//! agreement does, so it may not be much above llama.cpp's from itself either. On the texts chosen
//! by rule agreement is no criterion: there the exact logits themselves share llama.cpp's likeliest
//! id at 94 to 97 % of the positions only.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and prints its figures"
)]

mod support;

use std::path::{Path, PathBuf};

use redline_compute::Isa;
use redline_gguf::{Gguf, TokenId};
use redline_model::{LogitRows, ModelFile};
use redline_tokenizer::{EncodeOptions, Tokenizer};
use support::{Setting, dequantise, floats, ids, teacher_force, teacher_force_rows};

const TEXTS: [&str; 4] = ["novel-1", "novel-2", "speech-1", "speech-2"];
/// The texts whose noise is low, and the least share of positions with llama.cpp's likeliest id.
const AGREEMENT: [(&str, f64); 2] = [("tale", 0.97), ("prose", 0.93)];
/// Longer than Gemma's window; its reference has every sixteenth position.
const LONG: &str = "novel-long";
const STRIDE: usize = 16;
/// Largest mean divergence of F32 weights from the exact logits, in nats.
const EXACT_KL: f64 = 2e-6;
/// Positions whose errors go together, when the standard error of a mean is estimated.
const BLOCK: usize = 64;
/// So many standard errors count as chance.
const ERRORS: f64 = 3.0;
/// Largest mean divergence from llama.cpp, in nats.
const LLAMA_KL: f64 = 0.02;
/// Largest mean divergence from llama.cpp, in multiples of llama.cpp's from itself.
const NOISE_MULTIPLE: f64 = 1.5;

/// Log-probabilities of some ids at each position, and of all others together.
struct Distribution {
    /// `[positions, top]`
    logp: Vec<f32>,
    /// `[positions]`
    rest: Vec<f32>,
}

impl Distribution {
    fn read(file: &Gguf<'_>, name: &str) -> Self {
        Self {
            logp: floats(file, &format!("{name}_logp")),
            rest: floats(file, &format!("{name}_rest")),
        }
    }
}

/// What is known of a text.
struct Reference {
    tokens: Vec<TokenId>,
    /// Ids kept of each position.
    top: usize,
    /// `[positions, top]`, the likeliest by the exact logits, best first.
    top_ids: Vec<TokenId>,
    exact: Distribution,
}

impl Reference {
    fn read(file: &Gguf<'_>, text: &str) -> Self {
        let top_ids = ids(file, &format!("{text}.top_ids"));
        let exact = Distribution::read(file, &format!("{text}.exact"));
        Self {
            tokens: ids(file, &format!("{text}.tokens")),
            top: top_ids.len() / exact.rest.len(),
            top_ids,
            exact,
        }
    }

    fn kept(&self, position: usize) -> std::ops::Range<usize> {
        position * self.top..(position + 1) * self.top
    }

    /// The likeliest id by the exact logits.
    fn best(&self, position: usize) -> TokenId {
        self.top_ids[position * self.top]
    }

    /// Log-probabilities at a position: of the kept ids, then of all others together.
    fn row(&self, of: &Distribution, position: usize) -> Vec<f64> {
        let kept = of.logp[self.kept(position)].iter();
        kept.chain([&of.rest[position]])
            .map(|logp| f64::from(*logp))
            .collect()
    }

    /// The same of a row of logits.
    fn row_of(&self, logits: &[f32], position: usize) -> Vec<f64> {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let mass = |logit: f32| (f64::from(logit) - largest).exp();
        let total: f64 = logits.iter().map(|logit| mass(*logit)).sum();
        let kept = self.top_ids[self.kept(position)].iter();
        let mut masses: Vec<f64> = kept.map(|id| mass(logits[id.0 as usize])).collect();
        let rest = total - masses.iter().sum::<f64>();
        masses.push(rest.max(f64::MIN_POSITIVE));
        masses.iter().map(|mass| (mass / total).ln()).collect()
    }
}

/// Divergence of `q` from `p`, log-probabilities both, in nats.
fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// The lowest id of the largest logit.
fn argmax(logits: &[f32]) -> TokenId {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    TokenId(logits.iter().position(|logit| *logit == largest).unwrap() as u32)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard error of the mean, from the scatter of the means of blocks.
fn standard_error(values: &[f64]) -> f64 {
    let blocks: Vec<f64> = values.chunks(BLOCK).map(mean).collect();
    let (centre, count) = (mean(&blocks), blocks.len() as f64);
    let squares: f64 = blocks.iter().map(|block| (block - centre).powi(2)).sum();
    (squares / (count - 1.0) / count).sqrt()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn open(name: &str) -> ModelFile {
    ModelFile::open(&folder().join(format!("{name}.gguf"))).unwrap()
}

fn setting(chunk: usize) -> Setting {
    Setting {
        isa: Isa::detect(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        chunk,
    }
}

/// The model with exact weights against the exact logits.
fn check_model(name: &str, file: &str) {
    let Some(model) = redline_testkit::cached(file) else {
        return;
    };
    let exact = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    dequantise(&model, exact.as_file());
    let known = open(name);
    let reference = Reference::read(&known.gguf().unwrap(), LONG);
    let (mut divergences, mut differences) = (Vec::new(), Vec::new());
    let mut each = |position: usize, logits: &[f32]| {
        let truth = reference.row(&reference.exact, position / STRIDE);
        let ours = reference.row_of(logits, position / STRIDE);
        divergences.push(kl(&truth, &ours));
        differences.extend(truth.iter().zip(&ours).map(|(p, q)| (p - q).abs()));
    };
    let (tokens, rows) = (&reference.tokens, LogitRows::Last);
    teacher_force_rows(exact.path(), tokens, setting(STRIDE), rows, &mut each);
    assert_eq!(divergences.len(), tokens.len() / STRIDE);
    let divergence = mean(&divergences);
    println!(
        "{name}, F32 weights: {} positions, KL {divergence:.2e} from the exact logits, \
         log-probabilities off by {:.1e} at most",
        divergences.len(),
        differences.iter().copied().fold(0.0, f64::max)
    );
    assert!(
        divergence <= EXACT_KL,
        "{name}: KL {divergence:.2e} from the exact logits, expected at most {EXACT_KL:.0e}"
    );
}

/// The model as it is against the exact logits, beside llama.cpp.
fn check_arithmetic(name: &str, file: &str) {
    let Some(model) = redline_testkit::cached(file) else {
        return;
    };
    let (mut ours, mut theirs, mut apart) = (Vec::new(), Vec::new(), Vec::new());
    let (mut right, mut theirs_right) = (Vec::new(), Vec::new());
    let known = open(name);
    let known = known.gguf().unwrap();
    for text in TEXTS {
        let reference = Reference::read(&known, text);
        let of_llama = Distribution::read(&known, &format!("{text}.llama"));
        let llama_best = ids(&known, &format!("{text}.llama_best"));
        teacher_force(&model, &reference.tokens, setting(64), &mut |at, logits| {
            let truth = reference.row(&reference.exact, at);
            let llama = reference.row(&of_llama, at);
            let row = reference.row_of(logits, at);
            ours.push(kl(&truth, &row));
            theirs.push(kl(&truth, &llama));
            apart.push(kl(&llama, &row));
            let best = reference.best(at);
            right.push(f64::from(u8::from(argmax(logits) == best)));
            theirs_right.push(f64::from(u8::from(llama_best[at] == best)));
        });
    }
    let difference = |a: &[f64], b: &[f64]| -> (f64, f64) {
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        (mean(&differences), standard_error(&differences))
    };
    let (more, more_error) = difference(&ours, &theirs);
    let (fewer, fewer_error) = difference(&theirs_right, &right);
    println!(
        "{name}: {} positions; from the exact logits KL {:.5}, llama.cpp {:.5} \
         (difference {more:+.5} ± {more_error:.5}), top-1 {:.2} %, llama.cpp {:.2} % \
         (difference {:+.2} ± {:.2} points); from llama.cpp KL {:.5}",
        ours.len(),
        mean(&ours),
        mean(&theirs),
        100.0 * mean(&right),
        100.0 * mean(&theirs_right),
        -100.0 * fewer,
        100.0 * fewer_error,
        mean(&apart)
    );
    assert!(
        more <= ERRORS * more_error,
        "{name}: KL from the exact logits above llama.cpp's by {more:.5} ± {more_error:.5}"
    );
    assert!(
        fewer <= ERRORS * fewer_error,
        "{name}: likeliest ids fewer than llama.cpp's by {fewer:.4} ± {fewer_error:.4}"
    );
    let apart = mean(&apart);
    assert!(apart <= LLAMA_KL, "{name}: KL {apart} from llama.cpp");
}

/// Mean divergence over the whole vocabulary of one run of llama.cpp's from another, or from the
/// exact logits, as `pair` says.
fn whole_kl(name: &str, text: &str, pair: &str) -> f64 {
    let provenance = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    provenance["whole_vocabulary"][text][pair]["kl_mean"]
        .as_f64()
        .unwrap()
}

/// The model as it is against llama.cpp.
fn check_agreement(name: &str, file: &str) {
    let Some(model) = redline_testkit::cached(file) else {
        return;
    };
    let known = open(name);
    let known = known.gguf().unwrap();
    for (text, least) in AGREEMENT {
        let reference = Reference::read(&known, text);
        let of_llama = Distribution::read(&known, &format!("{text}.llama"));
        let llama_best = ids(&known, &format!("{text}.llama_best"));
        let (mut agreed, mut apart, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        teacher_force(&model, &reference.tokens, setting(64), &mut |at, logits| {
            let truth = reference.row(&reference.exact, at);
            let llama = reference.row(&of_llama, at);
            agreed.push(f64::from(u8::from(argmax(logits) == llama_best[at])));
            apart.push(kl(&llama, &reference.row_of(logits, at)));
            theirs.push(kl(&truth, &llama));
        });
        let (agreement, apart) = (mean(&agreed), mean(&apart));
        // The kept ids see less than all do, and the noise is known of all.
        let seen = mean(&theirs) / whole_kl(name, text, "llama_from_exact");
        let noise = seen.min(1.0) * whole_kl(name, text, "one_by_one_from_llama");
        println!(
            "{name}, {text}: {} positions; llama.cpp's likeliest id {:.2} %, KL {apart:.5} from \
             it, {noise:.5} from itself",
            agreed.len(),
            100.0 * agreement
        );
        assert!(agreed.len() >= 500, "{name}, {text}");
        assert!(
            apart <= LLAMA_KL.min(NOISE_MULTIPLE * noise),
            "{name}, {text}: KL {apart} from llama.cpp, which is {noise} from itself"
        );
        assert!(
            agreement >= least,
            "{name}, {text}: llama.cpp's likeliest id at {agreement}, expected at least {least}"
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
    let known = open(name);
    let agreement = AGREEMENT.map(|(text, _)| text);
    for text in TEXTS.into_iter().chain(agreement).chain([LONG]) {
        let words = std::fs::read_to_string(folder().join(format!("{text}.txt"))).unwrap();
        let found = tokenizer.encode(&words, options).unwrap();
        let expected = ids(&known.gguf().unwrap(), &format!("{text}.tokens"));
        assert_eq!(found[..expected.len()], expected, "{text}");
    }
}

#[test]
fn smollm2_with_f32_weights_is_exact() {
    check_model("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_with_f32_weights_is_exact() {
    check_model("gemma3-270m", redline_testkit::GEMMA3);
}

#[test]
fn smollm2_is_as_near_as_llama_cpp() {
    check_arithmetic("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_is_as_near_as_llama_cpp() {
    check_arithmetic("gemma3-270m", redline_testkit::GEMMA3);
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    check_agreement("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_agrees_with_llama_cpp() {
    check_agreement("gemma3-270m", redline_testkit::GEMMA3);
}

#[test]
fn smollm2_texts_have_the_ids_of_llama_cpp() {
    check_ids("smollm2-135m", redline_testkit::SMOLLM2);
}

#[test]
fn gemma3_texts_have_the_ids_of_llama_cpp() {
    check_ids("gemma3-270m", redline_testkit::GEMMA3);
}
