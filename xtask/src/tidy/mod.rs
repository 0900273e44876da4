//! `cargo xtask tidy`: the rules of the house, checked by a program.
//!
//! Each rule is a function from the tree (or from `cargo metadata`) to findings. Exceptions are
//! listed with their reasons in `xtask/tidy-allow.toml`; one that no longer applies is a finding.

mod caps;
mod crates;
mod dependencies;
mod documents;
mod metadata;
mod names;
mod source;
mod text;

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell::{command, output, root};
use metadata::Metadata;
use source::Source;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {} [{}]",
            self.path, self.line, self.message, self.rule
        )
    }
}

type Findings = Vec<Finding>;

/// A text file of the checkout.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
    rust: Option<Source>,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let rust = path.ends_with(".rs").then(|| Source::new(text));
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            rust,
        }
    }

    fn finding(&self, line: usize, rule: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            rule,
            message: message.into(),
        }
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// The text files of the checkout, tracked or about to be.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Reads the checkout; files that are not UTF-8 are left out.
    pub(crate) fn read() -> Result<Self> {
        let list = [
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ];
        let paths = output(&mut command("git", &list))?;
        let mut files = Vec::new();
        for path in paths.split_terminator('\0') {
            // Absent: deleted, and the deletion not yet committed.
            let Ok(bytes) = std::fs::read(root().join(path)) else {
                continue;
            };
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File::new(path, &text));
            }
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files
            .iter()
            .filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files
            .iter()
            .any(|file| file.path == path || file.path.starts_with(&folder))
    }
}

const ALLOW_LIST: &str = "xtask/tidy-allow.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowList {
    #[serde(default)]
    allow: Vec<Allow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    rule: String,
    path: String,
    reason: String,
}

impl AllowList {
    /// Takes out what is allowed, and adds an entry for each permission that nothing uses.
    fn apply(&self, findings: &mut Findings) {
        for allow in &self.allow {
            let before = findings.len();
            findings.retain(|finding| finding.rule != allow.rule || finding.path != allow.path);
            if findings.len() == before || allow.reason.trim().is_empty() {
                findings.push(Finding {
                    path: ALLOW_LIST.to_owned(),
                    line: 1,
                    rule: "allow-list",
                    message: format!("unused or without a reason: {} {}", allow.rule, allow.path),
                });
            }
        }
    }
}

pub(crate) fn run() -> Result<()> {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    Ok(())
}

fn findings() -> Result<Findings> {
    let tree = Tree::read()?;
    let metadata = Metadata::read()?;
    let allow = std::fs::read_to_string(root().join(ALLOW_LIST)).context(ALLOW_LIST)?;
    let allow: AllowList = toml::from_str(&allow).context(ALLOW_LIST)?;
    let deny = std::fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let deny: dependencies::Deny = toml::from_str(&deny).context("deny.toml")?;
    let mut findings = of_tree(&tree);
    crates::edges(&metadata, &mut findings);
    dependencies::permitted(&metadata, &deny, &mut findings);
    allow.apply(&mut findings);
    findings.sort_unstable();
    Ok(findings)
}

fn of_tree(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for rule in [
        caps::file_lines,
        caps::exceptions,
        crates::unsafe_code,
        crates::roots,
        dependencies::reasons,
        documents::decisions,
        documents::paths,
        documents::provenance,
        names::architectures,
        text::leftovers,
        text::outputs,
        text::places,
    ] {
        rule(tree, &mut findings);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings of one rule on a tree of the given files, as `path:line`.
    pub(super) fn check(rule: fn(&Tree, &mut Findings), files: &[(&str, &str)]) -> Vec<String> {
        let files = files
            .iter()
            .map(|(path, text)| File::new(path, text))
            .collect();
        let mut findings = Findings::new();
        rule(&Tree { files }, &mut findings);
        findings
            .iter()
            .map(|finding| format!("{}:{}", finding.path, finding.line))
            .collect()
    }

    #[test]
    fn the_checkout_is_tidy() {
        let findings = findings().unwrap();
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn an_exception_takes_out_its_findings_and_must_be_used() {
        let finding = || File::new("a.rs", "").finding(1, "file-lines", "too long");
        let list = |rule: &str, reason: &str| {
            let (rule, path, reason) = (rule.to_owned(), "a.rs".to_owned(), reason.to_owned());
            AllowList {
                allow: vec![Allow { rule, path, reason }],
            }
        };
        let mut findings = vec![finding()];
        list("file-lines", "one table").apply(&mut findings);
        assert_eq!(findings, []);
        for unused in [list("places", "one table"), list("file-lines", " ")] {
            let mut findings = vec![finding()];
            unused.apply(&mut findings);
            assert_eq!(
                findings.last().map(|finding| finding.rule),
                Some("allow-list")
            );
        }
    }
}
