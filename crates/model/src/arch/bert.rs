//! `bert`: BERT and the encoders of sentences made of it (MiniLM, BGE, E5).
//!
//! Source: <https://arxiv.org/abs/1810.04805>: learned positions, a plain network, biases everywhere.

use redline_compute::Activation;

use super::keys::Keys;
use crate::{Biases, Error, Properties};

pub(super) fn properties(keys: &Keys<'_, '_>) -> Result<Properties, Error> {
    let mut properties = keys.encoder(None)?;
    properties.activation = Activation::GeluErf;
    properties.gated = false;
    properties.biases = Biases::All;
    properties.learned_positions = true;
    Ok(properties)
}
