//! `redline perplexity`: the same figure on every setting, llama.cpp's on the real models.
#![allow(clippy::print_stdout, reason = "a test prints its figures")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use redline_gguf::{TensorType, Writer};
use redline_model::ModelFile;
use redline_testkit::{GEMMA3, SMOLLM2, cache_dir, cached};
use serde_json::Value;

use crate::support::{Outcome, empty_cache, program, redline, shared_cache};

const TINY: &str = "synth:tiny-llama";
/// What the references were made of, as one text.
const TEXTS: [&str; 5] = ["novel-1", "novel-2", "speech-1", "speech-2", "novel-long"];
/// How far a perplexity may be from llama.cpp's. With its weights repacked llama.cpp's own moves by
/// 0.09 % on SmolLM2, by 0.11 % on Gemma.
const TOLERANCE: f64 = 0.003;
/// How far the perplexity of a window may be; there llama.cpp's own moves by up to 3 %.
const WINDOW_TOLERANCE: f64 = 0.06;

fn data(file: &str) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.join("tests/conformance").join(file)
}

fn with_stdin(cache: &Path, arguments: &[&str], text: &[u8]) -> Outcome {
    let mut command = program(cache);
    let pipes = command.args(arguments).stdin(Stdio::piped());
    let mut child = pipes
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its model reads no text.
    let _ = child.stdin.take().unwrap().write_all(text);
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_file_and_stdin_give_the_same_bits_on_every_setting() {
    let path = data("novel-1.txt");
    let file = [
        "perplexity",
        TINY,
        path.to_str().unwrap(),
        "-c",
        "64",
        "--chunks",
        "3",
    ];
    let from_file = redline(&[&file[..], &["--json"]].concat()).json();
    assert_eq!(from_file["counted_tokens"], 3 * 31);
    assert_eq!(from_file["computed_tokens"], 3 * 63);
    assert_eq!(from_file["windows"].as_array().unwrap().len(), 3);
    assert_eq!(
        from_file["windows"][2]["perplexity_so_far"],
        from_file["perplexity"]
    );
    let text = std::fs::read(&path).unwrap();
    let others = [
        &["-", "-t", "1", "--isa", "scalar"] as &[&str],
        &["--chunk", "7", "-t", "3"],
    ];
    for setting in others {
        let flags = ["perplexity", TINY, "-c", "64", "--chunks", "3", "--json"];
        let arguments = [&flags[..], setting].concat();
        let from_stdin = with_stdin(shared_cache(), &arguments, &text).json();
        for same in ["perplexity", "standard_error", "windows", "text_tokens"] {
            assert_eq!(from_stdin[same], from_file[same], "{setting:?}");
        }
    }
    let outcome = redline(&file);
    let line = format!(
        "PPL {:.4} ± {:.4} (93 tokens counted, in 3 windows of 64; ",
        number(&from_file["perplexity"]),
        number(&from_file["standard_error"])
    );
    assert!(outcome.stdout.starts_with(&line), "{outcome:?}");
    assert!(outcome.stderr.contains("(3 of 3 windows)"), "{outcome:?}");
}

#[test]
fn texts_that_cannot_be_measured() {
    let short = with_stdin(
        shared_cache(),
        &["perplexity", TINY, "-c", "64"],
        b"Hello\n",
    );
    short.fails(1, &["text is too short", "64 tokens"]);
    let nothing = with_stdin(shared_cache(), &["perplexity", TINY, "-"], b"");
    nothing.fails(1, &["text is too short", "512 tokens", "found 1"]);
    let latin = with_stdin(shared_cache(), &["perplexity", TINY], b"na\xefve");
    latin.fails(1, &["cannot read the text from stdin", "UTF-8"]);
    let missing = redline(&["perplexity", TINY, "/nonexistent.txt"]);
    missing.fails(
        1,
        &["cannot read the text /nonexistent.txt", "No such file"],
    );
    let text = data("novel-1.txt");
    let text = text.to_str().unwrap();
    let large = redline(&["perplexity", TINY, text, "-c", "600"]);
    large.fails(2, &["--ctx-size", "3 to 512", "found 600"]);
}

/// A copy of the tiny model at `path`: without the keys that begin with `without`, its tensor
/// `spoilt` all NaN.
fn copy_tiny(path: &Path, without: &str, spoilt: &str) {
    let made = redline(&["synth", "tiny-llama", "--json"]).json();
    let original = ModelFile::open(Path::new(made["path"].as_str().unwrap())).unwrap();
    let gguf = original.gguf().unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        if !key.starts_with(without) {
            writer.metadata(key, *value).unwrap();
        }
    }
    for tensor in gguf.tensors() {
        writer
            .tensor(tensor.name, &tensor.dims, tensor.tensor_type)
            .unwrap();
    }
    let mut out = writer.start(std::fs::File::create(path).unwrap()).unwrap();
    for tensor in gguf.tensors() {
        if tensor.name == spoilt {
            assert_eq!(tensor.tensor_type, TensorType::F32);
            let nans = f32::NAN.to_le_bytes().repeat(tensor.data.len() / 4);
            out.write(&nans).unwrap();
        } else {
            out.write(tensor.data).unwrap();
        }
    }
    out.finish().unwrap();
}

#[test]
fn models_that_cannot_be_measured() {
    let folder = empty_cache();
    let path = folder.path().join("m.gguf");
    let text = data("novel-1.txt");
    let measure = |without, spoilt| {
        copy_tiny(&path, without, spoilt);
        let (path, text) = (path.to_str().unwrap(), text.to_str().unwrap());
        redline(&["perplexity", path, text, "-c", "64", "--chunks", "2"])
    };
    let mute = measure("tokenizer.", "none");
    mute.fails(
        1,
        &[
            "cannot use the tokenizer of",
            "m.gguf",
            "tokenizer.ggml.model",
        ],
    );
    let spoilt = measure("none", "output_norm.weight");
    spoilt.fails(
        1,
        &[
            "cannot compute window 1 of 2",
            "position 32",
            "the logit of token 0 is NaN",
        ],
    );
    let whole = measure("none", "none");
    assert_eq!(whole.code, Some(0), "{whole:?}");
}

/// The whole way from text to perplexity, beside `llama-perplexity`'s.
fn check(name: &str, file: &str) {
    let Some(_) = cached(file) else { return };
    let reference = std::fs::read(data(&format!("{name}.perplexity.json"))).unwrap();
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    let text: Vec<u8> = TEXTS
        .iter()
        .flat_map(|text| std::fs::read(data(&format!("{text}.txt"))).unwrap())
        .collect();
    let size = reference["ctx_size"].to_string();
    let arguments = ["perplexity", name, "-", "--json", "-c", &size];
    let found = with_stdin(&cache_dir().unwrap(), &arguments, &text).json();
    let (ours, theirs) = (found["windows"].as_array(), reference["so_far"].as_array());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!(ours.len(), theirs.len(), "windows");
    let nats = |so_far: &Value, windows: usize| windows as f64 * number(so_far).ln();
    let (mut ours_before, mut theirs_before, mut furthest) = (0.0, 0.0, 0.0_f64);
    for (index, (window, so_far)) in ours.iter().zip(theirs).enumerate() {
        let ours = nats(&window["perplexity_so_far"], index + 1);
        let theirs = nats(so_far, index + 1);
        let apart = (ours - ours_before) - (theirs - theirs_before);
        furthest = furthest.max(apart.abs());
        (ours_before, theirs_before) = (ours, theirs);
    }
    let ratio = |key: &str| number(&found[key]) / number(&reference[key]) - 1.0;
    let (perplexity, error) = (ratio("perplexity"), ratio("standard_error"));
    println!(
        "{name}: PPL {:.4} ± {:.4}, llama.cpp {} ± {}; {:+.3} %, a window at most {:.2} %",
        number(&found["perplexity"]),
        number(&found["standard_error"]),
        reference["perplexity"],
        reference["standard_error"],
        100.0 * perplexity,
        100.0 * furthest
    );
    assert!(perplexity.abs() <= TOLERANCE, "{name}: {perplexity}");
    assert!(error.abs() <= 2.0 * TOLERANCE, "{name}: {error}");
    assert!(furthest <= WINDOW_TOLERANCE, "{name}: {furthest}");
}

#[test]
fn smollm2_has_the_perplexity_of_llama_cpp() {
    check("smollm2-135m", SMOLLM2);
}

#[test]
fn gemma3_has_the_perplexity_of_llama_cpp() {
    check("gemma3-270m", GEMMA3);
}
