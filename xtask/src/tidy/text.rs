//! What no file may say: unfinished business, and places that exist on one machine only. And files that
//! programs left behind.

use super::{File, Findings, Tree};

/// This file names what it looks for.
const OWN: &str = "xtask/src/tidy/text.rs";

const LEFTOVERS: [&str; 5] = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];

/// How names of files end that programs write where they are run.
const OUTPUTS: [&str; 4] = [".log", ".orig", ".profraw", ".rej"];

/// Folders that are somebody's machine, not the project's.
const PLACES: [&str; 2] = ["/root/", "/tmp/"];

/// Hosts a file may name; anything else, a mirror or a registry, is of one machine's set-up.
const HOSTS: [&str; 10] = [
    "arxiv.org",
    "datatracker.ietf.org",
    "docs.kernel.org",
    "example.com",
    "github.com",
    "huggingface.co",
    "keepachangelog.com",
    "numpy.org",
    "semver.org",
    "www.apache.org",
];

pub(super) fn outputs(tree: &Tree, findings: &mut Findings) {
    for file in &tree.files {
        if OUTPUTS.iter().any(|end| file.path.ends_with(end)) {
            findings.push(file.finding(1, "outputs", "a program left it behind"));
        }
    }
}

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
            for host in hosts(text).filter(|host| !HOSTS.contains(host)) {
                findings.push(file.finding(line, "places", format!("names the host {host}")));
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

/// A folder counts where a path starts with it: `/tmp/` and `"/tmp/"`, not `var/tmp/`.
fn names_place(text: &str, place: &str) -> bool {
    text.match_indices(place).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~}".contains(c))
    })
}

/// The hosts of a line's addresses: names with a dot and a top-level domain of letters.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("://").filter_map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || ".-".contains(c)))
            .unwrap_or(rest.len());
        let host = rest[..end].trim_end_matches('.');
        let (_, top) = host.rsplit_once('.')?;
        (top.len() > 1 && top.chars().all(|c| c.is_ascii_alphabetic())).then_some(host)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn what_a_program_left_behind_is_found() {
        let files = ["llama.log", "src/a.rs.orig", "src/log", "src/log.rs"];
        assert_eq!(
            check(outputs, &files.map(|path| (path, ""))),
            ["llama.log:1", "src/a.rs.orig:1"]
        );
    }

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
        let text = "see /tmp/notes\nvar/tmp/it\nhttps://mirror.invalid/x\n~/.cache/redline\nhttps://arxiv.org/abs\n\
             http://127.0.0.1:80 and http://a.b";
        assert_eq!(
            check(places, &[("README.md", text)]),
            ["README.md:1", "README.md:3"]
        );
        assert_eq!(check(places, &[(".ci/run", "cd /root/x")]), [".ci/run:1"]);
    }
}
