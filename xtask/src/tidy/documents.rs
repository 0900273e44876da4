//! Documents tell the truth: the files they name exist, records end as records do, and golden data
//! says where it came from.

use std::collections::BTreeSet;

use super::{Findings, Tree};

const DECISIONS: &str = "docs/decisions/";
const ENDING: &str = "## What would change our mind";

/// A decision record is `NNNN-its-name.md`, its number its own, and it ends with what would change
/// our mind.
pub(super) fn decisions(tree: &Tree, findings: &mut Findings) {
    let mut numbers = BTreeSet::new();
    for file in &tree.files {
        let Some(name) = file.path.strip_prefix(DECISIONS) else {
            continue;
        };
        let number = name.split_once('-').map(|(number, _)| number);
        let number = number.filter(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()));
        if number.is_none_or(|number| !numbers.insert(number)) || !name.ends_with(".md") {
            findings.push(file.finding(
                1,
                "decisions",
                "NNNN-its-name.md with a number of its own",
            ));
        }
        let last = file
            .lines()
            .filter(|(_, line)| line.starts_with('#'))
            .last();
        let after = last.map_or(1, |(line, _)| line);
        let says = file
            .text
            .lines()
            .skip(after)
            .any(|line| !line.trim().is_empty());
        if !says || last.is_none_or(|(_, text)| text.trim() != ENDING) {
            findings.push(file.finding(after, "decisions", format!("end with {ENDING}")));
        }
    }
}

/// A path in backticks in a document names something that is there.
pub(super) fn paths(tree: &Tree, findings: &mut Findings) {
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (number, line) in file.lines() {
            // Odd pieces are inside backticks.
            for path in line
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|quoted| is_path(quoted))
            {
                let path = path.trim_end_matches('/');
                if !tree.has(path) {
                    findings.push(file.finding(number, "paths", format!("there is no {path}")));
                }
            }
        }
    }
}

/// Starts in one of our folders and has no placeholder in it.
fn is_path(quoted: &str) -> bool {
    let ours = ["crates/", "docs/", "fuzz/", "xtask/", ".ci/"];
    let plain = quoted
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    plain && ours.iter().any(|folder| quoted.starts_with(folder))
}

/// A folder of golden data, or one above it, says how the data was made.
pub(super) fn provenance(tree: &Tree, findings: &mut Findings) {
    let mut checked = BTreeSet::new();
    for file in &tree.files {
        // The scripts that make golden data are code.
        let Some(root) = file
            .path
            .find("/golden/")
            .filter(|_| !file.path.starts_with("xtask/"))
        else {
            continue;
        };
        let (folder, _) = file.path.rsplit_once('/').unwrap_or_default();
        let folders = std::iter::successors(Some(folder), |folder| {
            let (above, _) = folder.rsplit_once('/')?;
            (above.len() > root).then_some(above)
        });
        let says = |folder: &str| {
            let names = ["PROVENANCE.md", "provenance.json"];
            names
                .iter()
                .any(|name| tree.has(&format!("{folder}/{name}")))
        };
        if checked.insert(folder) && !folders.into_iter().any(says) {
            let message = "no PROVENANCE.md or provenance.json here or above, up to golden/";
            findings.push(file.finding(1, "provenance", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    const RECORD: &str = "# 1: x\n\n## What would change our mind\n\nA measurement.\n";

    #[test]
    fn a_record_without_its_ending_is_found() {
        let files = [
            ("docs/decisions/0001-a.md", RECORD),
            ("docs/decisions/0002-b.md", "# 2: x\n\nText.\n"),
            (
                "docs/decisions/0003-c.md",
                "# 3\n## What would change our mind\n\n",
            ),
            (
                "docs/decisions/0004-d.md",
                "# 4\n## What would change our mind\nx\n## More\ny\n",
            ),
        ];
        assert_eq!(
            check(decisions, &files),
            [
                "docs/decisions/0002-b.md:1",
                "docs/decisions/0003-c.md:2",
                "docs/decisions/0004-d.md:4"
            ]
        );
    }

    #[test]
    fn a_record_without_a_number_of_its_own_is_found() {
        let files = [
            ("docs/decisions/0001-a.md", RECORD),
            ("docs/decisions/0001-b.md", RECORD),
            ("docs/decisions/two-c.md", RECORD),
        ];
        let expected = ["docs/decisions/0001-b.md:1", "docs/decisions/two-c.md:1"];
        assert_eq!(check(decisions, &files), expected);
    }

    #[test]
    fn a_document_that_names_an_absent_file_is_found() {
        let text = "`crates/gguf/src/lib.rs`, `crates/gguf/`\n`crates/gguf/src/gone.rs`\n\
                    `docs/decisions/NNNN-*.md` crates/none\n";
        let files = [("README.md", text), ("crates/gguf/src/lib.rs", "")];
        assert_eq!(check(paths, &files), ["README.md:2"]);
    }

    #[test]
    fn golden_data_without_provenance_is_found() {
        let files = [
            ("crates/model/tests/golden/llama/provenance.json", ""),
            ("crates/model/tests/golden/llama/layers.json", ""),
            ("crates/model/tests/golden/qwen2/layers.json", ""),
            ("crates/model/tests/golden/qwen2/logits.json", ""),
            ("crates/tokenizer/tests/golden/PROVENANCE.md", ""),
            ("crates/tokenizer/tests/golden/llama/ids.json", ""),
            ("crates/tokenizer/tests/PROVENANCE.md", ""),
            ("crates/gguf/tests/golden/a.json", ""),
            ("crates/gguf/tests/PROVENANCE.md", ""),
            ("xtask/golden/make.py", ""),
        ];
        let expected = [
            "crates/model/tests/golden/qwen2/layers.json:1",
            "crates/gguf/tests/golden/a.json:1",
        ];
        assert_eq!(check(provenance, &files), expected);
    }
}
