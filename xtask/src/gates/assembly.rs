//! `cargo xtask assembly`: reads the assembly of `redline-compute`.
//!
//! Target features do not cross a call that is not inlined. A kernel that still calls an intrinsic,
//! or an operation of an instruction-set token, is right but slow, and nothing else would tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::{Outcome, program};
use crate::shell::{command, root};

/// Instructions that a kernel is made for: the token's name, a part of the kernel's name, the
/// beginning of the instruction, its registers.
const EXPECTED: [(&str, &str, &str, &str); 18] = [
    ("Avx512", "kernels::matmul::Quantized", "vpdpbusd", "zmm"),
    ("Avx512", "kernels::strips::Fill", "vpdpbusd", "zmm"),
    ("Avx512", "kernels::tiles::Run", "tdpb", "tmm"),
    ("Avx512", "kernels::matmul::Floats", "vfmadd", "zmm"),
    ("Avx512", "kernels::matmul::Floats", "vcvtph2ps", "zmm"),
    ("Avx512", "kernels::panel_float::Fill", "vfmadd", "zmm"),
    ("Avx512", "kernels::attention::Part", "vfmadd", "zmm"),
    ("Avx512", "kernels::attention::Part", "vcvtph2ps", "zmm"),
    ("Avx512", "kernels::norm::Row", "vfmadd", "zmm"),
    ("Avx512", "kernels::elementwise::Gated", "vfmadd", "zmm"),
    ("Avx512", "kernels::quantized::Quantize", "vcvtps2dq", "zmm"),
    ("Avx2", "kernels::matmul::Quantized", "vpmaddubsw", "ymm"),
    ("Avx2", "kernels::matmul::Floats", "vfmadd", "ymm"),
    ("Avx2", "kernels::panel_float::Fill", "vfmadd", "ymm"),
    ("Avx2", "kernels::attention::Part", "vfmadd", "ymm"),
    ("Avx2", "kernels::norm::Row", "vfmadd", "ymm"),
    ("Avx2", "kernels::elementwise::Gated", "vfmadd", "ymm"),
    ("Avx2", "kernels::quantized::Quantize", "vcvtps2dq", "ymm"),
];

/// Builds, reads, judges.
pub(crate) fn run() -> Result<Outcome> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Outcome::skipped("assembly: the kernels are x86-64's"));
    }
    program()?;
    let path = newest(&root().join("target/gates/release/deps"))?;
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let functions = functions(&demangled(text)?);
    let mut findings = calls(&functions);
    findings.extend(missing(&functions));
    for finding in &findings {
        println!("{finding}");
    }
    let kernels = functions.keys().filter(|name| is_kernel(name)).count();
    ensure!(findings.is_empty(), "{} findings", findings.len());
    ensure!(kernels > 0, "no kernel in {}", path.display());
    println!("{kernels} kernels call no intrinsic, and hold the instructions they are made for");
    Ok(Outcome::Held)
}

/// The assembly of the last build.
fn newest(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let ours = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let ours = name.starts_with("redline_compute-") && name.ends_with(".s");
        let modified = entry.metadata().ok()?.modified().ok()?;
        ours.then(|| (modified, entry.path()))
    });
    let newest = ours.max().map(|(_, path)| path);
    newest.with_context(|| format!("no assembly in {}", folder.display()))
}

/// The text with readable names, by binutils' `c++filt`.
fn demangled(text: Vec<u8>) -> Result<String> {
    let mut filter = command("c++filt", &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start c++filt, of binutils")?;
    let mut stdin = filter.stdin.take().context("its stdin is piped")?;
    let writer = std::thread::spawn(move || stdin.write_all(&text));
    let output = filter.wait_with_output()?;
    writer.join().ok().context("writing to c++filt")??;
    ensure!(output.status.success(), "c++filt: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a function does, as far as it matters here.
#[derive(Debug, Default, PartialEq)]
struct Function {
    /// Functions it calls by name.
    calls: BTreeSet<String>,
    /// Vector instructions, each with its widest registers: `vpdpbusd zmm`.
    instructions: BTreeSet<String>,
}

/// The functions of an assembly file (GNU syntax, as rustc writes it).
fn functions(assembly: &str) -> BTreeMap<String, Function> {
    let mut functions: BTreeMap<String, Function> = BTreeMap::new();
    let mut current = String::new();
    for line in assembly.lines() {
        if !line.starts_with(['\t', ' ', '.', '#']) && line.ends_with(':') {
            current = without_hashes(line.trim_end_matches(':'));
        }
        let Some((instruction, operands)) = line.trim().split_once('\t') else {
            continue;
        };
        if !line.starts_with('\t') || instruction.starts_with('.') {
            continue;
        }
        let function = functions.entry(current.clone()).or_default();
        if instruction.starts_with("call") || instruction.starts_with("jmp") {
            let target = operands.trim_start_matches('*');
            let target = target.split('@').next().unwrap_or(target);
            if !target.starts_with(['.', '%', '(']) {
                function.calls.insert(without_hashes(target));
            }
        } else if instruction.starts_with(['v', 't']) {
            let width = ["tmm", "zmm", "ymm"]
                .into_iter()
                .find(|width| operands.contains(&format!("%{width}")));
            let width = width.unwrap_or("xmm");
            function
                .instructions
                .insert(format!("{instruction} {width}"));
        }
    }
    functions
}

/// `core[c1f1a4ba060b9bfa]::slice` is `core::slice`.
fn without_hashes(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        let hash = after.split(']').next().unwrap_or(after);
        let is_hash = hash.len() >= 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            rest = &after[(hash.len() + 1).min(after.len())..];
        } else {
            text.push('[');
            rest = after;
        }
    }
    text + rest
}

/// Whether a function is a kernel compiled for an instruction set.
fn is_kernel(name: &str) -> bool {
    name.contains(">::vectorize::inner::<")
}

/// Calls of what should have been inlined, wherever they are: what a kernel did not inline calls
/// its own intrinsics in turn.
fn calls(functions: &BTreeMap<String, Function>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, function) in functions {
        for call in &function.calls {
            let intrinsic = call.contains("core_arch::");
            let tokens = ["<redline_compute::simd::avx", "<redline_compute::simd::amx"];
            // `<Avx2 as Simd>::fma`, but neither `<Avx2>::detect` nor `<Avx2>::vectorize`.
            let method =
                tokens.iter().any(|token| call.starts_with(token)) && call.contains(" as ");
            let method = method && !is_kernel(call);
            if intrinsic || method {
                findings.push(format!("{name}\n    calls {call}"));
            }
        }
    }
    findings
}

/// Instructions that the kernels made for them do not hold.
fn missing(functions: &BTreeMap<String, Function>) -> Vec<String> {
    let lacks = |(token, kernel, instruction, registers): &(&str, &str, &str, &str)| {
        let mut kernels = functions.iter().filter(|(name, _)| {
            is_kernel(name) && name.contains(&format!("::{token}>")) && name.contains(kernel)
        });
        let held = kernels.any(|(_, function)| {
            let mut instructions = function.instructions.iter();
            instructions.any(|held| held.starts_with(instruction) && held.ends_with(registers))
        });
        (!held).then(|| format!("no {kernel} for {token} holds {instruction} on {registers}"))
    };
    EXPECTED.iter().filter_map(lacks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "<redline_compute::simd::avx512::Avx512>::vectorize::inner::\
        <redline_compute::kernels::matmul::Quantized>";

    fn assembly(line: &str) -> String {
        format!(
            "\t.section .text\n<redline_compute[b5179a45a7def05e]::simd::avx512::Avx512>::vectorize::inner::\
             <redline_compute[b5179a45a7def05e]::kernels::matmul::Quantized>:\n.Lfunc_begin0:\n\
             \tvpdpbusd\t(%rdi), %zmm1, %zmm2\n{line}\n\tjmp\t.LBB1_2\n\tcallq\t*%rax\n\tretq\n"
        )
    }

    #[test]
    fn a_kernel_that_calls_an_intrinsic_or_an_operation_is_found() {
        let found = |line: &str| calls(&functions(&assembly(line))).len();
        assert_eq!(found("\tcallq\t*memcpy@GOTPCREL(%rip)"), 0);
        assert_eq!(
            found("\tcallq\tcore[c1f1a4ba060b9bfa]::panicking::panic_fmt"),
            0
        );
        assert_eq!(
            found("\tcallq\t<redline_compute[b5179a45a7def05e]::simd::avx512::Avx512>::detect"),
            0
        );
        assert_eq!(
            found("\tcallq\tcore[c1f1a4ba060b9bfa]::core_arch::x86::avx512f::_mm512_add_ps"),
            1
        );
        let method = "<redline_compute[b5179a45a7def05e]::simd::avx2::Avx2 as \
            redline_compute[b5179a45a7def05e]::simd::Simd>::fma";
        assert_eq!(found(&format!("\tjmp\t{method}")), 1);
        assert_eq!(found(&format!("\tcallq\t*{method}@GOTPCREL(%rip)")), 1);
    }

    #[test]
    fn instructions_are_told_with_their_registers() {
        let functions = functions(&assembly("\tvpmaddwd\t%ymm0, %ymm1, %ymm2"));
        let held: Vec<&str> = functions[KERNEL]
            .instructions
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(held, ["vpdpbusd zmm", "vpmaddwd ymm"]);
        let missing = missing(&functions);
        assert_eq!(missing.len(), EXPECTED.len() - 1, "{missing:?}");
    }

    #[test]
    fn only_hashes_are_taken_out_of_names() {
        assert_eq!(
            without_hashes("<[&[u8]; 4: usize]>::f::<core[c1f1a4ba060b9bfa]::x>"),
            "<[&[u8]; 4: usize]>::f::<core::x>"
        );
    }
}
