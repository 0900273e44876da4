//! What we use of others: a reason beside each, and `deny.toml`.
//!
//! `cargo deny check` reads the same `deny.toml`; what of it is checked here needs no extra program.

use serde::Deserialize;

use super::metadata::{Metadata, Package};
use super::{Finding, Findings, Tree};

/// Every run of dependency lines has a comment above it that says why they are there. Our own
/// crates need none, nor does a line that takes the workspace's, where the reason stands.
pub(super) fn reasons(tree: &Tree, findings: &mut Findings) {
    for file in tree
        .files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml"))
    {
        let mut in_dependencies = false;
        let mut has_reason = false;
        for (number, line) in file.lines() {
            if line.starts_with('[') {
                in_dependencies = line.trim_end().ends_with("dependencies]");
                has_reason = false;
            } else if line.trim().is_empty() {
                has_reason = false;
            } else if line.starts_with('#') {
                has_reason = true;
            } else if in_dependencies && !has_reason && needs_reason(line) {
                findings.push(file.finding(number, "dependency-reasons", "say why, in a comment"));
            }
        }
    }
}

fn needs_reason(line: &str) -> bool {
    let starts_entry = line.starts_with(|c: char| c.is_ascii_alphanumeric()) && line.contains('=');
    starts_entry && !line.starts_with("redline") && !line.contains("workspace = true")
}

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
pub(super) struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// How `cargo metadata` names the public registry, whatever stands in for it on a machine.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences, bans and sources.
pub(super) fn permitted(metadata: &Metadata, deny: &Deny, findings: &mut Findings) {
    for package in &metadata.packages {
        let mut finding = |message: String| {
            let message = format!("{} {}: {message}", package.name, package.version);
            let path = "deny.toml".to_owned();
            findings.push(Finding {
                path,
                line: 1,
                rule: "dependencies",
                message,
            });
        };
        if let Some(source) = package
            .source
            .as_deref()
            .filter(|source| *source != REGISTRY)
        {
            finding(format!("comes from {source}"));
        }
        if let Some(ban) = deny.bans.deny.iter().find(|ban| ban.name == package.name) {
            finding(format!("is banned: {}", ban.reason));
        }
        if !licensed(package, &deny.licenses.allow) {
            finding(format!("has the licence {:?}", package.license));
        }
    }
}

fn licensed(package: &Package, allowed: &[String]) -> bool {
    let Some(license) = &package.license else {
        return false;
    };
    // Crates of old separate alternatives by a slash.
    let spaced = license
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let satisfied = any(&mut words, allowed);
    satisfied && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `all OR all …` (SPDX specification 2.3, annex D).
fn any(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut satisfied = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        satisfied |= all(words, allowed);
    }
    satisfied
}

/// `one AND one …`
fn all(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut satisfied = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        satisfied &= one(words, allowed);
    }
    satisfied
}

/// `( any )`, `id` or `id WITH exception`.
fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let satisfied = any(words, allowed);
        return words.next_if_eq(&")").is_some() && satisfied;
    }
    let Some(id) = words.next() else { return false };
    let mut id = id.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        id = format!("{id} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&id)
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let text = "[package]\nname = \"a\"\n\n[dependencies]\nredline-gguf.workspace = true\n\
                    anyhow = { workspace = true }\nrand = \"0.9\"\n# Why.\nlibm = \"0.2\"\n\n\
                    half = \"2\"\n[features]\nx = []\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(
            check(reasons, &[("Cargo.toml", text)]),
            ["Cargo.toml:7", "Cargo.toml:11", "Cargo.toml:15"]
        );
    }

    fn found(source: &str, name: &str, license: Option<&str>) -> Vec<String> {
        let metadata = serde_json::json!({ "packages": [{
            "name": name, "version": "1.0.0", "source": source, "license": license,
            "dependencies": [],
        }] });
        let deny = "[licenses]\nallow = [\"MIT\", \"Apache-2.0 WITH LLVM-exception\"]\n\
                    [bans]\ndeny = [{ crate = \"onig\", reason = \"C\" }]";
        let mut findings = Findings::new();
        let metadata = serde_json::from_value(metadata).unwrap();
        permitted(&metadata, &toml::from_str(deny).unwrap(), &mut findings);
        findings
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn licences_are_read_as_expressions() {
        let accepted = |license| found(REGISTRY, "a", Some(license)).is_empty();
        for license in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(GPL-3.0 OR MIT) AND MIT",
            "Apache-2.0 WITH LLVM-exception OR Zlib",
        ] {
            assert!(accepted(license), "{license}");
        }
        for license in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Apache-2.0",
            "MIT)",
            "(MIT",
            "MIT MIT",
            "",
        ] {
            assert!(!accepted(license), "{license}");
        }
    }

    #[test]
    fn what_deny_toml_forbids_is_found() {
        assert_eq!(
            found(REGISTRY, "a", None),
            ["a 1.0.0: has the licence None"]
        );
        assert_eq!(
            found(REGISTRY, "onig", Some("MIT")),
            ["onig 1.0.0: is banned: C"]
        );
        assert_eq!(
            found("git+x", "a", Some("MIT")),
            ["a 1.0.0: comes from git+x"]
        );
    }
}
