//! The verbs, one module each: its flags ([`clap::Args`]) and its `run`.

pub(crate) mod bench;
pub(crate) mod embed;
pub(crate) mod inspect;
pub(crate) mod limits;
pub(crate) mod logits;
pub(crate) mod perplexity;
pub(crate) mod pull;
pub(crate) mod quantize;
mod repl;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod synth;
pub(crate) mod tokenize;

use crate::cli::{Cli, Command, Compute};
use crate::config::Config;
use crate::failure::Usage;
use crate::interrupt::Interrupt;
use crate::output;

/// What every verb is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// The resolved settings.
    pub(crate) config: Config,
    /// Machine output on stdout.
    pub(crate) json: bool,
    /// Ctrl-C.
    pub(crate) interrupt: Interrupt,
}

/// Resolves the settings and carries out the verb.
///
/// # Errors
/// The verb's own; [`crate::failure`] turns them into an exit code.
pub(crate) fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let mut config = Config::resolve(&cli.global, &compute_flags(cli.command.as_ref()))?;
    if let Some(Command::Serve(args)) = &cli.command {
        config.set_api_key(args.api_key())?;
    }
    if cli.global.print_config {
        return print_config(&config, cli.global.json);
    }
    let Some(command) = cli.command else {
        return Err(Usage("no verb given: try `redline --help`".into()).into());
    };
    let context = Context {
        config,
        json: cli.global.json,
        interrupt: Interrupt::install()?,
    };
    match command {
        Command::Run(args) => run::run(&args, &context),
        Command::Serve(args) => serve::run(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Tokenize(args) => tokenize::run(&args, &context),
        Command::Logits(args) => logits::run(&args, &context),
        Command::Embed(args) => embed::run(&args, &context),
        Command::Perplexity(args) => perplexity::run(&args, &context),
        Command::Bench(args) => bench::run(&args, &context),
        Command::BenchWorker(args) => crate::bench::worker::run(&args, &context),
        Command::Limits(args) => limits::run(&args, &context),
        Command::Synth(args) => synth::run(&args, &context),
        Command::Quantize(args) => quantize::run(&args, &context),
        Command::Pull(args) => pull::run(&args, &context),
    }
}

/// The flags of a verb that are settings too.
fn compute_flags(command: Option<&Command>) -> Compute {
    match command {
        Some(Command::Run(args)) => Compute {
            context: args.context,
            draft: args.draft.clone(),
            ..args.compute.clone()
        },
        Some(Command::Serve(args)) => Compute {
            context: args.context,
            residency_check: args.residency_check,
            draft: args.draft.clone(),
            ..args.compute.clone()
        },
        Some(Command::Inspect(args)) => Compute {
            context: args.context,
            ..Compute::default()
        },
        Some(Command::Quantize(args)) => Compute {
            threads: args.threads,
            ..Compute::default()
        },
        Some(Command::Logits(args)) => args.compute.clone(),
        Some(Command::Embed(args)) => args.compute.clone(),
        Some(Command::Perplexity(args)) => args.compute.clone(),
        Some(Command::Bench(args)) => args.compute.clone(),
        Some(Command::BenchWorker(args)) => args.compute.clone(),
        _ => Compute::default(),
    }
}

fn print_config(config: &Config, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(config);
    }
    let serde_json::Value::Object(settings) = serde_json::to_value(config)? else {
        unreachable!("a struct is an object");
    };
    for (name, value) in settings {
        match value {
            serde_json::Value::Null => output::line(format!("# {name} is unset"))?,
            value => output::line(format!("{name} = {value}"))?,
        }
    }
    Ok(())
}
