//! Ids and texts are those of the `tokenizers` library for strings that nobody chose.
//!
//! `data/differential.py` has them made; its first lines say how. A sample is kept with its hashes, the
//! ten thousand strings of each family only where they were made.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use redline_tokenizer::{EncodeOptions, TokenId, Tokenizer};
use serde::Deserialize;

use support::{PARSED, PLAIN, fnv1a, numbers, upstream};

#[derive(Deserialize)]
struct Sample {
    texts: Vec<String>,
    /// By family; eight digits for each text.
    fnv1a: BTreeMap<String, String>,
}

#[test]
fn a_sample_is_as_upstream() {
    let sample: Sample = serde_json::from_str(include_str!("data/sample.json")).unwrap();
    assert!(sample.texts.len() >= 300 && sample.fnv1a.len() == upstream::families().len());
    for (family, hashes) in &sample.fnv1a {
        assert_eq!(hashes.len(), 8 * sample.texts.len());
        for (form, tokenizer) in upstream::tokenizers(family) {
            let texts = sample.texts.iter().enumerate();
            for (at, text) in texts.filter(|(_, text)| upstream::is_exact(family, form, text)) {
                let found = fnv1a(&tokenizer.encode(text, PLAIN).unwrap());
                assert_eq!(
                    found[..8],
                    hashes[8 * at..8 * at + 8],
                    "{family}, {form}: {text:?}"
                );
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    text: String,
    ids: Vec<u32>,
    special: Vec<u32>,
    plain: Vec<u32>,
    decoded: String,
}

impl Answer {
    /// What differs for a tokenizer.
    fn difference(&self, tokenizer: &Tokenizer) -> Option<&'static str> {
        let special = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        let ids = |options| numbers(&tokenizer.encode(&self.text, options).unwrap());
        let parsed = support::ids(&self.ids);
        // What ends a generation is structure here, also where upstream takes it for text (Qwen).
        let is_end = |id: &u32| tokenizer.is_end_of_generation(TokenId(*id));
        let checks = [
            ("parsed", ids(PARSED) == self.ids),
            (
                "plain",
                ids(PLAIN) == self.plain || self.plain.iter().any(is_end),
            ),
            ("with special tokens", ids(special) == self.special),
            ("decoded", tokenizer.decode(&parsed, false) == self.decoded),
            ("streamed", streamed(tokenizer, &parsed) == self.decoded),
        ];
        checks
            .into_iter()
            .find(|(_, same)| !same)
            .map(|(what, _)| what)
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[TokenId]) -> String {
    let mut decoder = tokenizer.stream_decoder().with_special();
    let mut text: String = ids.iter().map(|id| decoder.push(*id)).collect();
    text.push_str(&decoder.finish());
    text
}

#[test]
#[ignore = "needs what data/differential.py makes"]
fn ten_thousand_strings_of_each_family_are_as_upstream() {
    let mut report = Vec::new();
    for family in upstream::families() {
        let Some(path) = redline_testkit::cached(&format!("differential/{family}.jsonl")) else {
            return;
        };
        for (form, tokenizer) in upstream::tokenizers(&family) {
            let lines = BufReader::new(File::open(&path).unwrap()).lines();
            let answers = lines.map(|line| serde_json::from_str::<Answer>(&line.unwrap()).unwrap());
            let (mut compared, mut different) = (0, 0);
            for answer in answers.filter(|it| upstream::is_exact(&family, form, &it.text)) {
                compared += 1;
                if let Some(what) = answer.difference(&tokenizer) {
                    different += 1;
                    let start: String = answer.text.chars().take(200).collect();
                    report.extend((different <= 3).then(|| format!("{what}: {start:?}")));
                }
            }
            report.push(format!(
                "{family}, {form}: {different} of {compared} differ"
            ));
        }
        std::fs::write(path.with_file_name("report.txt"), report.join("\n")).unwrap();
    }
    let is_same = |line: &String| line.contains(": 0 of ");
    assert!(report.iter().all(is_same), "{}", report.join("\n"));
}
