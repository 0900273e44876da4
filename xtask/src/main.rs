//! Development tasks: `cargo xtask check`, `fetch`, `tidy`, `sizes`, `golden`.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's terminal program"
)]

mod check;
mod fetch;
mod gates;
mod golden;
mod peers;
mod shell;
mod sizes;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

  check [--only STEP]   everything a change must pass; STEP is one of its headings
  fetch                 real models and vocabularies into the cache
  golden [--python PATH] [VARIANT...]
                        tiny models and reference activations, by Hugging Face transformers
  peers [--help]        Redline beside llama.cpp, in turns, with probes
  tidy                  crate edges, caps and the other rules of the house
  counts [--write]      instructions of a fixed piece of work against xtask/counts.json, by callgrind
  assembly              whether everything in the kernels is inlined
  sizes                 lines of each crate and file
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["check"] => check::run(None),
        ["check", "--only", step] => check::run(Some(step)),
        ["fetch"] => fetch::run(),
        ["golden", rest @ ..] => golden::run(rest),
        ["peers", "--help"] => {
            print!("{}", peers::USAGE);
            Ok(())
        }
        ["peers", rest @ ..] => peers::run(rest),
        ["counts"] => gates::counts(false).map(drop),
        ["counts", "--write"] => gates::counts(true).map(drop),
        ["assembly"] => gates::assembly().map(drop),
        ["tidy"] => tidy::run(),
        ["sizes"] => sizes::run(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
