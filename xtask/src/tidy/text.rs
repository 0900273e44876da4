//! What no file may say: unfinished business, and places that exist on one machine only.

use super::{File, Findings, Tree};

/// This file names what it looks for.
const OWN: &str = "xtask/src/tidy/text.rs";

const LEFTOVERS: [&str; 5] = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];

const PLACES: [&str; 9] = [
    "/work/",
    "/root/",
    "/tmp/",
    "pypi.org",
    "pythonhosted.org",
    "npmjs.org",
    "npmjs.com",
    "index.crates.io",
    "static.crates.io",
];

pub(super) fn leftovers(tree: &Tree, findings: &mut Findings) {
    for file in prose_and_code(tree) {
        for (line, text) in file.lines() {
            // As whole words: base64 and identifiers may contain the letters.
            if LEFTOVERS
                .iter()
                .any(|leftover| stands_alone(text, leftover))
            {
                findings.push(file.finding(line, "leftovers", "finish it, or file an issue"));
            }
        }
    }
}

pub(super) fn places(tree: &Tree, findings: &mut Findings) {
    for file in prose_and_code(tree) {
        for (line, text) in file.lines() {
            for place in PLACES.iter().filter(|place| names_place(text, place)) {
                findings.push(file.finding(line, "places", format!("names {place}")));
            }
        }
    }
}

/// Everything but data: golden vectors and corpora hold whatever their texts hold.
fn prose_and_code(tree: &Tree) -> impl Iterator<Item = &File> {
    let kinds = ["rs", "py", "sh", "toml", "md", "yml", "yaml", "lock", "txt"];
    tree.files.iter().filter(move |file| {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let known = name
            .rsplit_once('.')
            .is_none_or(|(_, kind)| kinds.contains(&kind));
        known && file.path != OWN
    })
}

fn stands_alone(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        let beside = if word.ends_with('(') {
            [before, None]
        } else {
            [before, after]
        };
        !beside
            .into_iter()
            .flatten()
            .any(|c| c.is_alphanumeric() || c == '_')
    })
}

/// A folder counts where a path starts with it: `/work/` and `"/work/"`, not `net/work/`.
fn names_place(text: &str, place: &str) -> bool {
    text.match_indices(place).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        !place.starts_with('/')
            || !before.is_some_and(|c| c.is_alphanumeric() || "._-~}".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn unfinished_business_is_found() {
        let text = "// TODO: later\nlet todo = 1;\n    todo!()\nlet x = \"aTODOz\";\nunimplemented!(\"x\")";
        assert_eq!(
            check(leftovers, &[("a.rs", text)]),
            ["a.rs:1", "a.rs:3", "a.rs:5"]
        );
        assert_eq!(check(leftovers, &[("a.json", text)]), [] as [&str; 0]);
    }

    #[test]
    fn places_of_one_machine_are_found() {
        let text =
            "see /work/notes\nnet/work/it\nhttps://files.pythonhosted.org/x\n~/.cache/redline\n";
        assert_eq!(
            check(places, &[("README.md", text)]),
            ["README.md:1", "README.md:3"]
        );
        assert_eq!(check(places, &[(".ci/run", "cd /root/x")]), [".ci/run:1"]);
    }
}
