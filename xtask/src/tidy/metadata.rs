//! What `cargo metadata` says of our crates and of everything they use.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::shell::{command, output};

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// `None`: a crate of this workspace.
    pub(super) source: Option<String>,
    /// An SPDX expression.
    pub(super) license: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// `None`: normal; else `dev` or `build`.
    pub(super) kind: Option<String>,
}

impl Metadata {
    /// For this platform alone: what others would need is never downloaded.
    pub(super) fn read() -> Result<Self> {
        let version = output(&mut command("rustc", &["-vV"]))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc -vV names no host")?;
        let arguments = [
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            host,
        ];
        let json = output(&mut command("cargo", &arguments))?;
        serde_json::from_str(&json).context("cargo metadata")
    }

    pub(super) fn own(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| package.source.is_none())
    }
}
