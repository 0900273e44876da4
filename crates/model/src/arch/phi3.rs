//! `phi3`: Phi-3 and Phi-3.5 mini and medium, Phi-4 and Phi-4-mini.
//!
//! Source: <https://arxiv.org/abs/2404.14219>: a Llama whose query, key and value rows are one
//! tensor, gate and up rows another, and whose long-context versions rotate by LongRoPE
//! (<https://arxiv.org/abs/2402.13753>). Converters write a window of 0 for models without one.

use redline_compute::RopeStyle;

use super::keys::Keys;
use crate::{Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    keys.refuse_experts()?;
    let mut properties = keys.decoder(RopeStyle::Neox)?;
    properties.fused_qkv = true;
    properties.fused_gate_up = true;
    let context = properties.context_length;
    keys.long_rope(context, &mut properties.ropes[0])?;
    if let Some(window) = keys.optional_size("attention.sliding_window")? {
        for layer in &mut properties.layers {
            layer.window = Some(window);
        }
    }
    Ok(properties)
}
