//! Which file a model's name means.

pub(crate) mod cache;
pub(crate) mod catalogue;

use std::path::PathBuf;

use anyhow::Context as _;

use self::cache::Cache;
use crate::commands::Context;
use crate::failure::Usage;
use crate::output;
use crate::pull::{self, Source};

/// A model that is on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// Its file; of a split model, the first.
    pub(crate) path: PathBuf,
    /// How the user calls it.
    pub(crate) name: String,
    /// Whether its weights are made up.
    pub(crate) synthetic: bool,
}

impl Resolved {
    /// `real` or `synthetic`.
    pub(crate) fn weights(&self) -> &'static str {
        if self.synthetic { "synthetic" } else { "real" }
    }
}

/// Finds the model called `name`, fetching or making it if need be; with no name, the default.
///
/// # Errors
/// [`Usage`] for a name that means nothing; otherwise if the model cannot be had.
pub(crate) fn resolve(name: Option<&str>, context: &Context) -> anyhow::Result<Resolved> {
    match name.or(context.config.model.as_deref()) {
        Some(name) => resolve_name(name, context),
        None => resolve_default(context),
    }
}

fn resolve_name(name: &str, context: &Context) -> anyhow::Result<Resolved> {
    if catalogue::find(name).is_some() || Source::has_scheme(name) {
        let source = Source::parse(name)?;
        let found = pull::find(&source, &Cache::new(&context.config.cache_dir))?;
        let path = match found {
            Some(path) => path,
            None => pull::pull(&source, context)?.path,
        };
        return Ok(Resolved {
            path,
            name: name.to_owned(),
            synthetic: false,
        });
    }
    let path = PathBuf::from(name);
    if path.is_file() {
        return Ok(Resolved {
            path,
            name: name.to_owned(),
            synthetic: false,
        });
    }
    if path.is_dir() {
        return Err(Usage(format!("{name}: expected a GGUF file, found a folder")).into());
    }
    // A path that is mistyped and a name that is unknown look alike; answer both.
    let path_like = name.contains(['/', '\\']) || name.ends_with(".gguf");
    let hint = format!(
        "expected a GGUF file, one of {}, or synth:<shape>[:<quant>]",
        catalogue::names()
    );
    let error = Usage(format!("no model {name:?}: {hint}"));
    if path_like {
        return std::fs::metadata(&path)
            .map(|_| unreachable!("it is neither file nor folder"))
            .with_context(|| format!("cannot read the model {name:?}"));
    }
    Err(error.into())
}

/// The catalogue's default if it is here or can be fetched, else the synthetic one, saying so.
fn resolve_default(context: &Context) -> anyhow::Result<Resolved> {
    let entry = catalogue::DEFAULT;
    output::note(&format!("no model named: using {}", entry.name));
    resolve_name(entry.name, context)
}
