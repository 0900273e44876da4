//! From logits to a token.
//!
//! The order is fixed: bias and penalties, temperature, top-k, top-p, min-p, draw. The result is a
//! function of (logits, parameters, tokens so far, seed, sequence, position) alone, with the same
//! bits on every host: exponentials are the portable ones of `libm`, in F64, summed in ascending
//! order of ids or of rank, whichever is stated.

mod candidates;
mod logprob;
mod params;
mod random;
mod sampler;

/// Exponentials that are taken at a time.
const PIECE: usize = 1024;

pub use logprob::log_probability;
pub(crate) use logprob::logprob;
pub use params::SamplingParams;
pub use random::{draw_unit, random_seed};
pub use sampler::{Sampler, SamplingError, Scratch};
