//! The floor plan: which crate may use which, and where `unsafe` lives.

use super::metadata::Metadata;
use super::source::has_word;
use super::{Finding, Findings, Tree};

struct Edges {
    name: &'static str,
    uses: &'static [&'static str],
    /// What its tests use besides.
    tests_use: &'static [&'static str],
}

/// The floor plan of ARCHITECTURE.md, edge for edge.
const FLOOR_PLAN: [Edges; 11] = [
    Edges {
        name: "redline-gguf",
        uses: &[],
        tests_use: &[],
    },
    Edges {
        name: "redline-huggingface",
        uses: &["redline-gguf"],
        tests_use: &[],
    },
    Edges {
        name: "redline-tokenizer",
        uses: &["redline-gguf"],
        tests_use: &["redline-testkit"],
    },
    Edges {
        name: "redline-compute",
        uses: &[],
        tests_use: &[],
    },
    Edges {
        name: "redline-model",
        uses: &["redline-compute", "redline-gguf", "redline-huggingface"],
        tests_use: &["redline-testkit"],
    },
    Edges {
        name: "redline-engine",
        uses: &["redline-model"],
        tests_use: &["redline-compute", "redline-testkit"],
    },
    Edges {
        name: "redline-grammar",
        uses: &["redline-engine", "redline-tokenizer"],
        tests_use: &[
            "redline-compute",
            "redline-gguf",
            "redline-model",
            "redline-testkit",
        ],
    },
    Edges {
        name: "redline-server",
        uses: &[
            "redline-engine",
            "redline-grammar",
            "redline-model",
            "redline-tokenizer",
        ],
        tests_use: &["redline-gguf"],
    },
    Edges {
        name: "redline",
        uses: &[
            "redline-compute",
            "redline-engine",
            "redline-gguf",
            "redline-model",
            "redline-server",
            "redline-tokenizer",
        ],
        tests_use: &["redline-testkit"],
    },
    Edges {
        name: "redline-testkit",
        uses: &[],
        tests_use: &[],
    },
    Edges {
        name: "xtask",
        // Golden models are written as GGUF files.
        uses: &["redline-gguf", "redline-huggingface", "redline-testkit"],
        tests_use: &[],
    },
];

pub(super) fn edges(metadata: &Metadata, findings: &mut Findings) {
    let mut finding = |message: String| {
        let path = "Cargo.toml".to_owned();
        findings.push(Finding {
            path,
            line: 1,
            rule: "edges",
            message,
        });
    };
    let ours: Vec<&str> = metadata
        .own()
        .map(|package| package.name.as_str())
        .collect();
    for package in metadata.own() {
        let Some(plan) = FLOOR_PLAN.iter().find(|edges| edges.name == package.name) else {
            finding(format!("{} is not in the floor plan", package.name));
            continue;
        };
        let edges = |in_tests: bool| {
            let ours = &ours;
            let all = package.dependencies.iter();
            all.filter(move |dependency| (dependency.kind.as_deref() == Some("dev")) == in_tests)
                .map(|dependency| dependency.name.as_str())
                .filter(move |name| ours.contains(name))
        };
        for used in edges(false).filter(|used| !plan.uses.contains(used)) {
            finding(format!("{} must not use {used}", plan.name));
        }
        for used in edges(true).filter(|u| !plan.uses.contains(u) && !plan.tests_use.contains(u)) {
            finding(format!("{}'s tests must not use {used}", plan.name));
        }
        for planned in plan
            .uses
            .iter()
            .filter(|planned| edges(false).all(|u| u != **planned))
        {
            finding(format!(
                "{} no longer uses {planned}: correct the plan",
                plan.name
            ));
        }
        for planned in plan
            .tests_use
            .iter()
            .filter(|planned| edges(true).all(|u| u != **planned))
        {
            finding(format!(
                "{}'s tests no longer use {planned}: correct the plan",
                plan.name
            ));
        }
    }
}

/// The homes of `unsafe`, each with its module's folder.
const UNSAFE_HOMES: [&str; 3] = [
    "crates/compute/src/simd",
    "crates/compute/src/pool",
    "crates/compute/src/mapping",
];

pub(super) fn unsafe_code(tree: &Tree, findings: &mut Findings) {
    for (file, source) in tree.rust() {
        let module = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        let at_home = |home: &&str| module == *home || file.path.starts_with(&format!("{home}/"));
        if UNSAFE_HOMES.iter().any(at_home) {
            continue;
        }
        for (line, _) in source.lines().filter(|(_, code)| has_word(code, "unsafe")) {
            findings.push(file.finding(line, "unsafe", "unsafe outside its three homes"));
        }
    }
}

/// The root of each crate has docs, and all but compute's forbids `unsafe`.
pub(super) fn roots(tree: &Tree, findings: &mut Findings) {
    for (file, source) in tree.rust() {
        let Some(folder) = ["src/lib.rs", "src/main.rs"]
            .iter()
            .find_map(|root| file.path.strip_suffix(root))
        else {
            continue;
        };
        if !file.text.starts_with("//!") {
            findings.push(file.finding(1, "crate-docs", "a crate's root starts with its //! docs"));
        }
        let forbids = source.code.contains("#![forbid(unsafe_code)]");
        if !forbids && folder != "crates/compute/" {
            findings.push(file.finding(1, "unsafe", "say #![forbid(unsafe_code)]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    fn found(metadata: &str) -> Vec<String> {
        let mut findings = Findings::new();
        edges(&serde_json::from_str(metadata).unwrap(), &mut findings);
        findings
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> String {
        let uses: Vec<_> = uses
            .iter()
            .map(|(name, kind)| serde_json::json!({ "name": name, "kind": kind }))
            .collect();
        serde_json::json!({ "name": name, "version": "0.1.0", "dependencies": uses }).to_string()
    }

    fn workspace(packages: &[String]) -> Vec<String> {
        found(&format!("{{\"packages\": [{}]}}", packages.join(",")))
    }

    #[test]
    fn an_edge_outside_the_plan_is_found() {
        let compute = package("redline-compute", &[]);
        let gguf = |uses: &[_]| workspace(&[compute.clone(), package("redline-gguf", uses)]);
        assert_eq!(gguf(&[("thiserror", None)]), [] as [&str; 0]);
        let normal = gguf(&[("redline-compute", None)]);
        assert_eq!(normal, ["redline-gguf must not use redline-compute"]);
        let dev = gguf(&[("redline-compute", Some("dev"))]);
        assert_eq!(dev, ["redline-gguf's tests must not use redline-compute"]);
        let build = gguf(&[("redline-compute", Some("build"))]);
        assert_eq!(build, ["redline-gguf must not use redline-compute"]);
    }

    #[test]
    fn an_unplanned_crate_and_a_planned_edge_that_is_gone_are_found() {
        assert_eq!(
            workspace(&[package("extra", &[])]),
            ["extra is not in the floor plan"]
        );
        let engine = workspace(&[package("redline-engine", &[])]);
        assert_eq!(
            engine,
            [
                "redline-engine no longer uses redline-model: correct the plan",
                "redline-engine's tests no longer use redline-compute: correct the plan",
                "redline-engine's tests no longer use redline-testkit: correct the plan",
            ]
        );
    }

    #[test]
    fn unsafe_away_from_home_is_found() {
        let text = "//! Unsafe, unsafe.\n#![forbid(unsafe_code)]\nfn f() { unsafe { g() } }\n";
        let files = [
            ("crates/compute/src/pool.rs", text),
            ("crates/compute/src/simd/avx2.rs", text),
            ("crates/compute/src/pooling.rs", text),
            ("crates/engine/src/lib.rs", text),
        ];
        let found = check(unsafe_code, &files);
        assert_eq!(
            found,
            [
                "crates/compute/src/pooling.rs:3",
                "crates/engine/src/lib.rs:3"
            ]
        );
    }

    #[test]
    fn a_root_without_docs_or_without_forbid_is_found() {
        let files = [
            (
                "crates/gguf/src/lib.rs",
                "//! Docs.\n#![forbid(unsafe_code)]\n",
            ),
            ("crates/compute/src/lib.rs", "//! Docs.\n"),
            (
                "crates/engine/src/lib.rs",
                "//! Docs.\n// #![forbid(unsafe_code)]\n",
            ),
            ("crates/redline/src/main.rs", "#![forbid(unsafe_code)]\n"),
            ("crates/redline/src/run.rs", ""),
        ];
        let found = check(roots, &files);
        assert_eq!(
            found,
            ["crates/engine/src/lib.rs:1", "crates/redline/src/main.rs:1"]
        );
    }
}
