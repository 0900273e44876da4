//! Sizes: lines of a file; and that nobody lifts clippy's caps without being listed.
//!
//! The caps on functions (70 lines, 6 parameters) are clippy's, set in `clippy.toml`.

use super::source::has_word;
use super::{Findings, Tree};

/// Lines of a source file.
const FILE_LINES: usize = 500;
/// Lines of the floor plan, which must be read in one sitting.
const ARCHITECTURE_LINES: usize = 300;

pub(super) fn file_lines(tree: &Tree, findings: &mut Findings) {
    for file in &tree.files {
        let cap = match file.path.rsplit('.').next() {
            _ if file.path == "ARCHITECTURE.md" => ARCHITECTURE_LINES,
            Some("rs" | "py" | "sh" | "toml" | "md") if file.path != "CHANGELOG.md" => FILE_LINES,
            _ => continue,
        };
        let lines = file.text.lines().count();
        if lines > cap {
            findings.push(file.finding(
                cap + 1,
                "file-lines",
                format!("{lines} lines: split by sense, at most {cap}"),
            ));
        }
    }
}

/// An attribute that lifts a cap is a finding, so that it has to be in the allow-list.
pub(super) fn exceptions(tree: &Tree, findings: &mut Findings) {
    for (file, source) in tree.rust() {
        for (line, code) in source.lines() {
            for lint in ["too_many_lines", "too_many_arguments"] {
                if has_word(code, lint) {
                    findings.push(file.finding(
                        line,
                        "function-caps",
                        format!("lifts clippy::{lint}: split the function, or list the file"),
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        let (fits, long) = ("\n".repeat(500), "\n".repeat(501));
        let files = [
            ("a.rs", fits.as_str()),
            ("b.rs", &long),
            ("golden.json", &long),
        ];
        assert_eq!(check(file_lines, &files), ["b.rs:501"]);
        assert_eq!(
            check(file_lines, &[("ARCHITECTURE.md", &fits)]),
            ["ARCHITECTURE.md:301"]
        );
    }

    #[test]
    fn lifting_a_cap_is_found() {
        let text =
            "// too_many_lines\n#[expect(clippy::too_many_lines, reason = \"x\")]\nfn f() {}";
        assert_eq!(check(exceptions, &[("a.rs", text)]), ["a.rs:2"]);
    }
}
