//! `gemma3`: the text model of Gemma 3.
//!
//! Source: <https://arxiv.org/abs/2503.19786> and its reference code
//! <https://github.com/google/gemma_pytorch/blob/main/gemma/config.py>. Norm weights are stored as
//! `1 + w` already. The metadata's base and scaling are those of the global layers.

use redline_compute::{Activation, RopeStyle};

use super::keys::Keys;
use crate::{Error, LayerAttention, NormPlacement, Pooling, Properties, Rope};

/// Base of the local layers' rotation, where the file does not say.
const LOCAL_ROPE_BASE: f64 = 10_000.0;
/// Every sixth layer is global, where the file does not say.
const PATTERN: usize = 6;
/// Depth of the 27B model: its attention scale is that of `hidden / heads`, not of a head.
const LAYERS_27B: usize = 62;

const GLOBAL: usize = 0;
const LOCAL: usize = 1;

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    keys.refuse_softcap("final_logit_softcapping")?;
    keys.refuse_softcap("attn_logit_softcapping")?;
    let mut properties = keys.decoder(RopeStyle::Neox)?;
    properties.activation = Activation::GeluTanh;
    properties.pooling = keys.pooling_or(Pooling::Mean)?;
    properties.qk_norm = true;
    properties.norm_placement = NormPlacement::Around;
    properties.embedding_scale = (properties.hidden as f32).sqrt();
    if properties.layers.len() == LAYERS_27B {
        properties.attention_scale =
            1.0 / (properties.hidden as f32 / properties.heads as f32).sqrt();
    }
    if let Some(window) = keys.optional_size("attention.sliding_window")? {
        let local_base = keys.float_or("rope.freq_base_swa", LOCAL_ROPE_BASE)?;
        let global = &properties.ropes[GLOBAL];
        let local = Rope {
            base: local_base,
            linear_factor: 1.0,
            factors: None,
            ..global.clone()
        };
        properties.ropes.push(local);
        let pattern = keys.size_or("attention.sliding_window_pattern", PATTERN)?;
        for (index, layer) in properties.layers.iter_mut().enumerate() {
            if !(index + 1).is_multiple_of(pattern) {
                *layer = LayerAttention {
                    window: Some(window),
                    rope: Some(LOCAL),
                };
            }
        }
    }
    Ok(properties)
}
