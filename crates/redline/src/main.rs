//! `redline`: run, inspect and measure language models on this machine.
//!
//! A verb is a module of [`commands`]; [`cli`] declares its flags, [`config`] resolves the settings,
//! [`output`] owns both streams. Exit codes are those of [`failure`].
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod commands;
mod config;
mod draft;
mod environment;
mod failure;
mod folder;
mod generate;
mod input;
mod interrupt;
mod memory;
mod mix;
mod models;
mod npy;
mod output;
mod perplexity;
mod progress;
mod prompt;
mod pull;
mod quantize;
mod room;
mod session;
mod speech;
mod splitmix;
mod synth;
mod units;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => failure::exit_code(commands::dispatch(cli)),
        // Help and version are asked for, and end well; clap knows which stream they belong to.
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            ExitCode::from(if usage { failure::USAGE } else { 0 })
        }
    }
}
