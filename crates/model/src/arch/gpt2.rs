//! `gpt2`: GPT-2, all sizes.
//!
//! Source: Radford et al. 2019, <https://github.com/openai/gpt-2>: layer norms, learned positions, a
//! plain network, biases everywhere. Converters transpose its weights, which are stored by input.

use redline_compute::Activation;

use super::keys::Keys;
use crate::{Biases, Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    let mut properties = keys.transformer(keys.layer_norm()?, None)?;
    properties.activation = Activation::GeluTanh;
    properties.gated = false;
    properties.biases = Biases::All;
    properties.fused_qkv = true;
    properties.learned_positions = true;
    Ok(properties)
}
