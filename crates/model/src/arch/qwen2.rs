//! `qwen2`: Qwen2 and Qwen2.5.
//!
//! Source: <https://arxiv.org/abs/2407.10671>: a Llama with biases on queries, keys and values.

use redline_compute::RopeStyle;

use super::keys::Keys;
use crate::{Biases, Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    keys.refuse_experts()?;
    let mut properties = keys.decoder(RopeStyle::Neox)?;
    properties.biases = Biases::Qkv;
    Ok(properties)
}
