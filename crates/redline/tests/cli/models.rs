//! The real models answer. Skipped, by name, where they are not in the cache.

use std::io::Write as _;
use std::process::Stdio;

use redline_testkit::{GEMMA3, SMOLLM2, cache_dir, cached};

use crate::support::{Outcome, finish, program};

fn run(arguments: &[&str]) -> Outcome {
    let cache = cache_dir().unwrap();
    finish(
        program(&cache)
            .arg("run")
            .args(arguments)
            .args(["--temperature", "0", "-n", "12"]),
    )
}

#[test]
fn smollm2_knows_the_capital_of_france() {
    let Some(_) = cached(SMOLLM2) else { return };
    let outcome = run(&["smollm2-135m", "The capital of France is", "--raw"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with(" Paris"), "{outcome:?}");
}

#[test]
fn gemma3_knows_where_the_eiffel_tower_is_and_that_it_has_no_template() {
    let Some(_) = cached(GEMMA3) else { return };
    let prompt = "The Eiffel Tower is located in the city of";
    let raw = run(&["gemma3-270m", prompt, "--raw"]);
    assert_eq!(raw.code, Some(0), "{raw:?}");
    assert!(raw.stdout.starts_with(" Paris"), "{raw:?}");
    let fallen_back = run(&["gemma3-270m", prompt]);
    assert_eq!(fallen_back.stdout, raw.stdout);
    assert!(
        fallen_back
            .stderr
            .contains("gemma3-270m has no chat template"),
        "{fallen_back:?}"
    );
}

#[test]
fn smollm2_answers_through_the_template_in_its_file() {
    let Some(_) = cached(SMOLLM2) else { return };
    let json = run(&["smollm2-135m", "Say hello.", "--json"]).json();
    assert_eq!(json["prompt_form"], "template");
    // The system text the template puts in front, the turn's marks, and the words.
    assert!(json["prompt_tokens"].as_u64().unwrap() > 20, "{json}");
    assert!(!json["text"].as_str().unwrap().contains("<|im_"), "{json}");
    let longer = run(&[
        "smollm2-135m",
        "Say hello.",
        "--json",
        "--system",
        "Be brief and kind to all.",
    ]);
    assert_ne!(longer.json()["prompt_tokens"], json["prompt_tokens"]);
}

#[test]
fn without_a_name_it_is_the_default_model() {
    let Some(_) = cached(SMOLLM2) else { return };
    let mut command = program(&cache_dir().unwrap());
    command.args(["run", "--raw", "--temperature", "0", "-n", "4", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"The capital of France is\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["model"], "smollm2-135m");
    assert!(
        json["text"].as_str().unwrap().starts_with(" Paris"),
        "{json}"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("no model named: this is smollm2-135m"),
        "{stderr}"
    );
}
