//! Hostile files, each with the answer the reader owes it. A new one is a file and a line.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_attack_gets_its_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let expected = std::fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for line in expected.lines().filter(|line| !line.starts_with('#')) {
        let (file, expected) = line.split_once('\t').unwrap();
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let found = common::walk_within_bounds(&[&bytes])
            .map_or_else(|error| error.to_string(), |()| String::new());
        if found != expected {
            wrong += &format!("{file}\n  expected {expected}\n  found    {found}\n");
        }
        seen.insert(file.to_owned());
    }
    assert_eq!(wrong, "");

    let files = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let files: BTreeSet<String> = files
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.ends_with(".gguf"))
        .collect();
    assert_eq!(
        files, seen,
        "every file of the folder has a line, and every line a file"
    );
    assert!(seen.len() > 60);
}
