//! `cargo xtask sizes`: lines of each crate and file, largest first.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::tidy::Tree;

pub(crate) fn run() -> Result<()> {
    let tree = Tree::read()?;
    let mut crates: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs")) {
        crates
            .entry(crate_of(&file.path))
            .or_default()
            .push((file.text.lines().count(), &file.path));
    }
    let mut crates: Vec<_> = crates
        .into_iter()
        .map(|(name, files)| (total(&files), name, files))
        .collect();
    crates.sort_unstable_by(|a, b| b.cmp(a));
    for (lines, name, files) in &mut crates {
        println!("{lines:6}  {name}");
        files.sort_unstable_by(|a, b| b.cmp(a));
        for (lines, path) in files {
            println!("{lines:6}    {path}");
        }
    }
    println!(
        "{:6}  in all",
        crates.iter().map(|(lines, ..)| lines).sum::<usize>()
    );
    Ok(())
}

fn total(files: &[(usize, &str)]) -> usize {
    files.iter().map(|(lines, _)| lines).sum()
}

/// `crates/gguf/src/lib.rs` → `gguf`; anything outside `crates/` → its first folder.
fn crate_of(path: &str) -> &str {
    let within = path.strip_prefix("crates/").unwrap_or(path);
    within.split('/').next().unwrap_or(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_their_crate() {
        assert_eq!(crate_of("crates/gguf/src/lib.rs"), "gguf");
        assert_eq!(crate_of("xtask/src/main.rs"), "xtask");
    }
}
