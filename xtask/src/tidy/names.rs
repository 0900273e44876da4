//! An architecture's name is matched in one place; after that only properties exist.

use super::{Findings, Tree};

const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "gemma3"];

/// Where the names may stand: the one match, what knows other names for them, the writers of model
/// files, and vocabularies, whose kinds share some of the names.
const HOMES: [&str; 6] = [
    "crates/huggingface/src/",
    "crates/model/src/arch/mod.rs",
    "crates/redline/src/synth",
    "crates/tokenizer/",
    "fuzz/",
    "xtask/",
];

pub(super) fn architectures(tree: &Tree, findings: &mut Findings) {
    for (file, source) in tree.rust() {
        let test_file = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
        if test_file || HOMES.iter().any(|home| file.path.starts_with(home)) {
            continue;
        }
        let test_lines = source.test_lines();
        for (line, string) in &source.strings {
            let in_tests = test_lines.iter().any(|lines| lines.contains(line));
            if ARCHITECTURES.contains(&string.as_str()) && !in_tests {
                findings.push(file.finding(
                    *line,
                    "architecture-names",
                    format!("{string:?}: names are matched in crates/model/src/arch/mod.rs alone"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_name_outside_its_home_is_found() {
        let text = "fn f(name: &str) -> bool {\n    name == \"llama\" // \"qwen2\"\n}\n\
                    #[cfg(test)]\nmod tests {\n    const A: &str = \"gemma3\";\n}\n";
        let files = [
            ("crates/engine/src/lib.rs", text),
            ("crates/model/src/arch/mod.rs", text),
            ("crates/model/src/arch/llama.rs", text),
            ("crates/model/tests/golden.rs", text),
        ];
        let found = check(architectures, &files);
        assert_eq!(
            found,
            [
                "crates/engine/src/lib.rs:2",
                "crates/model/src/arch/llama.rs:2"
            ]
        );
    }
}
