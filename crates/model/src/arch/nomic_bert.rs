//! `nomic-bert`: nomic-embed-text, versions 1 and 1.5.
//!
//! Source: <https://arxiv.org/abs/2402.01613>: a BERT that rotates, with a gated network and no biases
//! but those of its norms.

use redline_compute::RopeStyle;

use super::keys::Keys;
use crate::{Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    keys.refuse_experts()?;
    let mut properties = keys.encoder(Some(RopeStyle::Neox))?;
    properties.fused_qkv = true;
    Ok(properties)
}
