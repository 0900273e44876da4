//! `llama`: Llama 1 to 3, CodeLlama, Mistral, SmolLM2 and everything else that is shaped like them.
//!
//! Source: <https://arxiv.org/abs/2302.13971>; GGUF's converter permutes query and key rows so that
//! rotated pairs are neighbours.

use redline_compute::RopeStyle;

use super::keys::Keys;
use crate::{Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    keys.refuse_experts()?;
    let mut properties = keys.decoder(RopeStyle::Interleaved)?;
    let dims = properties.ropes[0].dims;
    properties.ropes[0].factors = keys.rope_factors(dims)?;
    // Mistral 7B v0.1: every layer has the window.
    if let Some(window) = keys.optional_size("attention.sliding_window")? {
        for layer in &mut properties.layers {
            layer.window = Some(window);
        }
    }
    Ok(properties)
}
