//! `run`, `tokenize`, `inspect` and `logits` on small synthetic models.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::support::{Outcome, empty_cache, finish, program, redline, shared_cache};

const TINY: &str = "synth:tiny-llama";

fn run(arguments: &[&str]) -> Outcome {
    let fixed = ["run", TINY, "hello world", "--raw", "--json", "-n", "24"];
    redline(&[&fixed, arguments].concat())
}

#[test]
fn a_seed_decides_and_an_absent_one_is_told() {
    let first = run(&["--temperature", "1"]).json();
    let seed = first["seed"].as_u64().unwrap().to_string();
    let again = run(&["--temperature", "1", "--seed", &seed]).json();
    assert_eq!(first["tokens"], again["tokens"]);
    let other = run(&["--temperature", "1", "--seed", "1"]).json();
    let another = run(&["--temperature", "1", "--seed", "2"]).json();
    assert_ne!(other["tokens"], another["tokens"]);
}

#[test]
fn how_it_is_computed_changes_nothing() {
    let plain = run(&["--temperature", "0"]).json();
    for how in [
        &["--isa", "scalar"] as &[&str],
        &["-t", "1"],
        &["--chunk", "1"],
        &["--context", "512"],
    ] {
        let json = run(&[&["--temperature", "0"], how].concat()).json();
        assert_eq!(json["tokens"], plain["tokens"], "{how:?}");
    }
}

#[test]
fn the_text_is_streamed_as_the_json_tells_it() {
    let json = run(&["--temperature", "0"]).json();
    let arguments = [
        "run",
        TINY,
        "hello world",
        "--raw",
        "-n",
        "24",
        "--temperature",
        "0",
        "--stats",
    ];
    let shown = redline(&arguments);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert_eq!(
        shown.stdout,
        format!("{}\n", json["text"].as_str().unwrap())
    );
    assert!(
        shown.stderr.contains("ended by") && shown.stderr.contains("seed"),
        "{shown:?}"
    );
    assert_eq!(
        json["completion_tokens"],
        json["tokens"].as_array().unwrap().len()
    );
    assert_eq!(
        (&json["weights"], &json["prompt_form"]),
        (&"synthetic".into(), &"raw".into())
    );
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_shown() {
    let whole = run(&["--temperature", "0"]).json();
    let text = whole["text"].as_str().unwrap();
    let middle: Vec<char> = text.chars().collect();
    assert!(middle.len() > 8, "{text:?}");
    let stop: String = middle[middle.len() / 2..middle.len() / 2 + 2]
        .iter()
        .collect();
    let stopped = run(&["--temperature", "0", "--stop", &stop]).json();
    assert_eq!(stopped["text"], text[..text.find(&stop).unwrap()]);
    assert_eq!(
        (&stopped["end_reason"], &stopped["stop_sequence_matched"]),
        (&"stop".into(), &stop.into())
    );
}

#[test]
fn a_model_without_a_template_says_so() {
    let outcome = redline(&["run", TINY, "hello", "-n", "4", "--temperature", "0"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains("has no chat template"),
        "{outcome:?}"
    );
    let raw = redline(&[
        "run",
        TINY,
        "hello",
        "-n",
        "4",
        "--temperature",
        "0",
        "--raw",
    ]);
    assert_eq!(outcome.stdout, raw.stdout);
    assert!(!raw.stderr.contains("template"), "{raw:?}");
}

#[test]
fn a_prompt_can_be_piped_in() {
    let mut command = program(shared_cache());
    command.args([
        "run",
        TINY,
        "--raw",
        "--json",
        "-n",
        "24",
        "--temperature",
        "0",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"hello world\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let piped: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        piped["tokens"],
        run(&["--temperature", "0"]).json()["tokens"]
    );
    redline(&["run", TINY, "--raw"]).fails(2, &["no prompt"]);
}

#[test]
fn an_interrupt_ends_the_answer_and_not_the_program() {
    let mut command = program(shared_cache());
    command.args([
        "run",
        TINY,
        "hello",
        "--raw",
        "--stats",
        "--isa",
        "scalar",
        "-t",
        "1",
        "-n",
        "480",
        "--ignore-eos",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("ended by cancelled"), "{stderr}");
    assert_eq!(rest.last(), Some(&b'\n'));
}

#[test]
fn tokens_and_pieces() {
    let json = redline(&["tokenize", TINY, "hello world", "--json"]).json();
    let ids = json["ids"].as_array().unwrap();
    assert_eq!(
        (
            json["count"].as_u64().unwrap() as usize,
            json["pieces"].as_array().unwrap().len()
        ),
        (ids.len(), ids.len())
    );
    let bare = redline(&["tokenize", TINY, "hello world", "--json", "--no-special"]).json();
    let pieces: String = bare["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| piece.as_str().unwrap())
        .collect();
    assert!(pieces.trim_start().ends_with("world"), "{pieces:?}");
    let people = redline(&["tokenize", TINY, "hello world"]);
    assert_eq!(people.stdout.lines().count(), ids.len(), "{people:?}");
}

#[test]
fn inspection_adds_up() {
    let json = redline(&["inspect", TINY, "--json"]).json();
    let tensors = json["tensors"].as_array().unwrap();
    let bytes: u64 = tensors
        .iter()
        .map(|tensor| tensor["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(json["memory"]["weight_bytes"], bytes);
    let by_type: u64 = json["types"]
        .as_object()
        .unwrap()
        .values()
        .map(|total| total["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(by_type, bytes);
    assert_eq!(
        (&json["architecture"], &json["chat_template"]),
        (&"llama".into(), &false.into())
    );
    let people = redline(&["inspect", TINY]).stdout;
    for expected in [
        "architecture   llama",
        "token_embd.weight",
        "KV cache",
        "tokenizer.ggml.tokens",
    ] {
        assert!(people.contains(expected), "{expected} is not in {people}");
    }
}

#[test]
fn a_file_of_an_unknown_architecture_can_be_inspected_and_not_run() {
    let folder = empty_cache();
    let path = folder.path().join("alien.gguf");
    let mut writer = redline_gguf::Writer::new();
    writer
        .metadata("general.architecture", redline_gguf::Value::String("alien"))
        .unwrap();
    writer
        .metadata("alien.name", redline_gguf::Value::String("\u{1b}[2Jgotcha"))
        .unwrap();
    let file = std::fs::File::create(&path).unwrap();
    writer.start(file).unwrap().finish().unwrap();
    let path = path.to_str().unwrap();
    let json = redline(&["inspect", path, "--json"]).json();
    assert_eq!(json["architecture"], "alien");
    assert!(
        json["unsupported"]
            .as_str()
            .unwrap()
            .contains("unknown architecture"),
        "{json}"
    );
    assert_eq!(json["memory"], serde_json::Value::Null);
    let people = redline(&["inspect", path]).stdout;
    assert!(
        people.contains("cannot be run") && !people.contains('\u{1b}'),
        "{people:?}"
    );
    redline(&["logits", path, "--ids", "1"])
        .fails(1, &["unknown architecture \"alien\"", "known are llama"]);
}

#[test]
fn logits_have_one_hash_however_they_are_computed() {
    let logits = |arguments: &[&str]| {
        redline(
            &[
                &["logits", TINY, "--ids", "5,6,7,8,9,10,11", "--json"],
                arguments,
            ]
            .concat(),
        )
        .json()
    };
    let last = logits(&[]);
    let all = logits(&["--all", "--layers"]);
    assert_eq!((&last["rows"], &all["rows"]), (&1.into(), &7.into()));
    for how in [
        ["--isa", "scalar"],
        ["--chunk", "1"],
        ["--chunk", "3"],
        ["-t", "1"],
    ] {
        assert_eq!(logits(&how)["logits_hash"], last["logits_hash"], "{how:?}");
        let again = logits(&[&["--all", "--layers"] as &[&str], &how].concat());
        assert_eq!(again["logits_hash"], all["logits_hash"], "{how:?}");
        assert_eq!(again["layers"], all["layers"], "{how:?}");
    }
    let other = redline(&["logits", TINY, "--ids", "5,6,7,8,9,10,12", "--json"]).json();
    assert_ne!(other["logits_hash"], last["logits_hash"]);
    // Keys and values in other formats are others.
    assert_eq!(last["kv"], "f16");
    for kv in ["f32", "q8_0"] {
        let stored = logits(&["--kv", kv]);
        assert_eq!(stored["kv"], kv);
        assert_ne!(stored["logits_hash"], last["logits_hash"], "{kv}");
    }
}

#[test]
fn logits_are_written_as_numpy_and_as_json() {
    let folder = empty_cache();
    let path = folder.path().join("logits.npy");
    let arguments = ["logits", TINY, "--ids", "5,6,7", "--all"];
    let outcome = redline(&[&arguments as &[&str], &["-o", path.to_str().unwrap()]].concat());
    assert!(outcome.stdout.starts_with("logits_hash "), "{outcome:?}");
    let npy = std::fs::read(&path).unwrap();
    let json = redline(&[&arguments as &[&str], &["-o", "json"]].concat()).json();
    let rows = json["logits"].as_array().unwrap();
    let vocab = json["vocab"].as_u64().unwrap() as usize;
    assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (3, vocab));
    assert_eq!(npy.len(), 128 + 3 * vocab * 4);
    let value = f32::from_le_bytes(npy[128 + 4 * vocab..][..4].try_into().unwrap());
    assert_eq!(rows[1][0].as_f64().unwrap() as f32, value);
    let mut binary = program(shared_cache());
    let output = binary.args(arguments).args(["-o", "npy"]).output().unwrap();
    assert_eq!(output.stdout, npy);
}

#[test]
fn a_synthetic_model_is_made_once() {
    let cache = empty_cache();
    let made = finish(program(cache.path()).args(["synth", "tiny-llama", "--json"])).json();
    let again = finish(program(cache.path()).args(["synth", "tiny-llama", "--json"])).json();
    assert_eq!(
        (&made["cached"], &again["cached"]),
        (&false.into(), &true.into())
    );
    assert_eq!(made["path"], again["path"]);
}

#[test]
fn what_repeats_itself_is_guessed() {
    let repeated = "one two three four ".repeat(12);
    let mut command = program(shared_cache());
    command.args(["run", TINY, &repeated, "--raw", "-n", "64", "--json"]);
    let answer = finish(command.args(["--temperature", "0"])).json();
    assert!(answer["guessed_tokens"].as_u64() > Some(0), "{answer}");
    assert_eq!(answer["draft_guessed_tokens"], 0);
}

#[test]
fn a_draft_model_changes_nothing_and_is_accounted_for() {
    for temperature in ["0", "1"] {
        let how = ["--temperature", temperature, "--seed", "3"];
        let plain = run(&how).json();
        let drafted = run(&[&how[..], &["--draft", TINY]].concat()).json();
        assert_eq!(drafted["tokens"], plain["tokens"]);
        assert_eq!(plain["draft_guessed_tokens"], 0);
        // The same model says the same.
        assert!(
            drafted["draft_guessed_tokens"].as_u64() > Some(0),
            "{drafted}"
        );
        let accepted = &drafted["draft_accepted_tokens"];
        assert_eq!(*accepted, drafted["draft_guessed_tokens"]);
    }
    // The settings name one, the flag wants none.
    let mut settings = program(shared_cache());
    settings.env("REDLINE_DRAFT", "synth:tiny-gpt2");
    settings.args(["run", TINY, "hello", "--raw", "-n", "4"]);
    let refused = finish(&mut settings);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    settings.args(["--draft", "none"]);
    assert_eq!(finish(&mut settings).code, Some(0));
}

#[test]
fn a_draft_model_of_another_vocabulary_is_refused_with_what_differs() {
    for (draft, code, expected) in [
        (
            "synth:tiny-gpt2",
            1,
            "cannot use synth:tiny-gpt2 as draft model of synth:tiny-llama: token 0: \
             expected \"<unk>\", special, found \"<|endoftext|>\", special",
        ),
        ("nothing", 2, "no model \"nothing\""),
    ] {
        let refused = run(&["--draft", draft]);
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
}
