//! Which file a model's name means.

pub(crate) mod cache;
pub(crate) mod catalogue;

use std::path::PathBuf;

use anyhow::Context as _;

use self::cache::Cache;
use crate::commands::{self, Context};
use crate::failure::Usage;
use crate::output;
use crate::pull::{self, Source};
use crate::synth;

/// What stands in where no real model can be had; needs no network.
pub(crate) const SYNTHETIC_DEFAULT: &str = "synth:qwen2.5-0.5b:q4_k_m";

/// A model that is on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// Its file, of a split model the first; or its folder.
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
    if name.starts_with(synth::SCHEME) {
        let made = commands::synth::make(&name.parse()?, None, context)?;
        return Ok(Resolved {
            path: made.path,
            name: name.to_owned(),
            synthetic: true,
        });
    }
    let path = if catalogue::find(name).is_some() || Source::has_scheme(name) {
        let source = Source::parse(name)?;
        match pull::find(&source, &Cache::new(&context.config.cache_dir))? {
            Some(path) => path,
            None => pull::pull(&source, context)?.path,
        }
    } else {
        existing(name)?
    };
    Ok(Resolved {
        path,
        name: name.to_owned(),
        synthetic: false,
    })
}

/// The file, or folder as transformers keeps a model, that a name means which is none of ours.
fn existing(name: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(name);
    let error = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => return Ok(path),
        Ok(_) if path.join("config.json").exists() => return Ok(path),
        Ok(_) => {
            let expected = "expected a GGUF file, or a folder with config.json and safetensors";
            return Err(Usage(format!("{name}: {expected}, found another folder")).into());
        }
        Err(error) => error,
    };
    // A path that is mistyped and a name that is unknown look alike.
    if name.contains(['/', '\\']) || name.ends_with(".gguf") {
        return Err(error).with_context(|| format!("cannot read the model {name}"));
    }
    Err(Usage(format!(
        "no model {name:?}: expected a GGUF file, one of {}, or synth:<shape>[:<quant>]",
        catalogue::names()
    ))
    .into())
}

/// The catalogue's default if it is here or can be fetched, else the synthetic one, saying so.
fn resolve_default(context: &Context) -> anyhow::Result<Resolved> {
    let entry = catalogue::DEFAULT;
    match resolve_name(entry.name, context) {
        Ok(resolved) => {
            output::note(&format!(
                "no model named: this is {} ({})",
                entry.name, entry.about
            ));
            Ok(resolved)
        }
        Err(error) if context.interrupt.asked() => Err(error),
        Err(error) => {
            output::note(&format!("{error:#}"));
            output::note(&format!(
                "no model named and {} cannot be had: this is {SYNTHETIC_DEFAULT}, whose weights are random and whose text means nothing",
                entry.name
            ));
            resolve_name(SYNTHETIC_DEFAULT, context)
        }
    }
}
