//! `qwen3`: Qwen3, its dense sizes.
//!
//! Source: <https://arxiv.org/abs/2505.09388>: a Qwen2 without biases, whose query and key heads are
//! normalised, and as wide as the file says.

use redline_compute::RopeStyle;

use super::keys::Keys;
use crate::{Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    keys.refuse_experts()?;
    let mut properties = keys.decoder(RopeStyle::Neox)?;
    properties.qk_norm = true;
    Ok(properties)
}
