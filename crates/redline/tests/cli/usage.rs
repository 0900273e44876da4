//! Bad input: one clear line, the right exit code, nothing on stdout.

use std::path::Path;
use std::process::Stdio;

use crate::support::{empty_cache, finish, program, redline};

const TINY: &str = "synth:tiny-llama";

#[test]
fn models_that_are_none() {
    let folder = empty_cache();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = file("text.gguf", b"hello, this is no model at all");
    let empty = file("empty.gguf", b"");
    let magic = file("magic.gguf", b"GGUF");
    let folder_name = folder.path().to_str().unwrap();
    for verb in ["inspect", "tokenize", "run", "logits", "perplexity"] {
        let fails = |model: &str, code: i32, expected: &[&str]| {
            let rest: &[&str] = match verb {
                "inspect" => &[],
                "logits" => &["--ids", "1"],
                "perplexity" => &["-"],
                _ => &["some text"],
            };
            redline(&[&[verb, model], rest].concat()).fails(code, expected);
        };
        fails(
            "/nonexistent/m.gguf",
            1,
            &["cannot read the model /nonexistent/m.gguf", "No such file"],
        );
        fails(
            "no-such-model",
            2,
            &[
                "no model \"no-such-model\"",
                "smollm2-135m",
                "synth:<shape>",
            ],
        );
        fails("synth:no-such-shape", 2, &["no-such-shape", "tiny-llama"]);
        fails("synth:tiny-llama:q9_9", 2, &["q9_9"]);
        fails(
            folder_name,
            2,
            &["expected a GGUF file, or a folder with config.json"],
        );
        fails(&text, 1, &["text.gguf", "GGUF"]);
        fails(&empty, 1, &["empty.gguf"]);
        fails(&magic, 1, &["magic.gguf"]);
    }
}

#[test]
fn flags_that_make_no_sense() {
    for arguments in [
        &["run", TINY, "x", "--isa", "sse9"] as &[&str],
        &["run", TINY, "x", "-t", "0"],
        &["run", TINY, "x", "-t", "9999"],
        &["run", TINY, "x", "--chunk", "0"],
        &["run", TINY, "x", "--temperature", "warm"],
        &["run", TINY, "x", "--raw", "--system", "s"],
        &["run", TINY, "--json", "--no-such-flag"],
        &["logits", TINY],
        &["logits", TINY, "--ids", "1,x"],
        &["logits", TINY, "--ids", "1", "-o", "logits.txt"],
        &["logits", TINY, "--ids", "1", "-o", "npy", "--json"],
        &["perplexity", TINY, "-", "-c", "2"],
        &["perplexity", TINY, "-", "-c", "513"],
        &["perplexity", TINY, "-", "--chunks", "0"],
        &["bench", TINY, "-r", "0"],
        &["bench", TINY, "-p", "100000"],
        &["pull", "no-such-model"],
        &["pull", "hf:only/two"],
        &["no-such-verb"],
        &["--config", "/dev/null"],
        &[],
    ] {
        let outcome = redline(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        assert!(
            !outcome.stderr.contains("panicked"),
            "{arguments:?}: {outcome:?}"
        );
    }
}

#[test]
fn parameters_out_of_range_are_all_named_at_once() {
    let arguments = [
        "run",
        TINY,
        "x",
        "--raw",
        "--temperature",
        "3",
        "--top-p",
        "2",
        "--min-p",
        "5",
    ];
    redline(&arguments).fails(
        1,
        &[
            "temperature: expected",
            "top_p: expected",
            "min_p: expected",
        ],
    );
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let long = "word ".repeat(2000);
    redline(&["run", TINY, &long, "--raw"])
        .fails(1, &["context length exceeded", "the context has 512"]);
    let arguments = ["run", TINY, "x", "--raw", "--max-tokens", "600"];
    redline(&arguments).fails(1, &["context length exceeded", "600"]);
    redline(&["logits", TINY, "--ids", "1,999999"]).fails(1, &["999999"]);
}

#[test]
fn settings_files_are_checked() {
    let folder = empty_cache();
    let path = folder.path().join("redline.toml");
    std::fs::write(&path, "threads = 1\ntypo = 2\n").unwrap();
    let outcome = finish(
        program(folder.path())
            .current_dir(folder.path())
            .args(["inspect", TINY]),
    );
    outcome.fails(2, &["redline.toml", "typo"]);
    std::fs::write(&path, "threads = 1\nchunk_tokens = 7\n").unwrap();
    let mut command = program(folder.path());
    command
        .current_dir(folder.path())
        .env("REDLINE_CHUNK_TOKENS", "9");
    let json = finish(command.args(["--print-config", "--json"])).json();
    assert_eq!(
        (&json["threads"], &json["chunk_tokens"]),
        (&1.into(), &9.into())
    );
    assert_eq!(
        Path::new(json["cache_dir"].as_str().unwrap()),
        folder.path()
    );
    let missing =
        finish(program(folder.path()).args(["--config", "/nonexistent", "--print-config"]));
    missing.fails(1, &["cannot read the configuration /nonexistent"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut command = program(crate::support::shared_cache());
    command.args(["run", TINY, "x", "--raw", "-n", "200", "--temperature", "0"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error"), "{stderr}");
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = program(crate::support::shared_cache());
    command
        .args(["inspect", TINY])
        .stdout(full)
        .stderr(Stdio::piped());
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write to stdout"), "{stderr}");
}
