//! `gpt-oss`: OpenAI's gpt-oss 20B and 120B.
//!
//! Source: <https://arxiv.org/abs/2508.10925> and its reference code
//! <https://github.com/openai/gpt-oss/blob/main/gpt_oss/torch/model.py>. Every other layer, from the
//! first on, has a window, which counts the query's own position; a blend of YaRN's frequencies begins
//! and ends between pairs.

use redline_compute::{Activation, RopeStyle, Routing};

use super::keys::Keys;
use crate::{Biases, Error, Properties};

/// Every second layer is global, where the file does not say.
const PATTERN: usize = 2;

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    let mut properties = keys.decoder(RopeStyle::Neox)?;
    properties.activation = Activation::ClampedSwiglu;
    properties.biases = Biases::All;
    properties.sinks = true;
    keys.experts(&mut properties, Routing::SoftmaxOfChosen)?;
    for rope in &mut properties.ropes {
        if let Some(yarn) = &mut rope.yarn {
            yarn.whole_pairs = false;
        }
    }
    let window = keys.optional_size("attention.sliding_window")?;
    let pattern = keys.size_or("attention.sliding_window_pattern", PATTERN)?;
    for (index, layer) in properties.layers.iter_mut().enumerate() {
        if !(index + 1).is_multiple_of(pattern) {
            layer.window = window;
        }
    }
    Ok(properties)
}
