//! GGUF metadata and weights to `forward(plan) -> logits`.
//!
//! - [`ModelFile`]: the mapped file with all its splits; [`Properties`]: what its metadata says
//!   about the transformer, once an architecture's name has been matched (`arch/mod.rs`).
//! - [`MemoryPlan`]: what a load will take, before it is taken.
//! - [`MappedWeights`]: whether weights are in memory, and that they stay there.
//! - [`Model::load`]: weights stay where the file is mapped; the KV cache and all scratch memory
//!   are allocated here, so that a step allocates nothing.
//! - [`Forward`]: the one trait the engine sees: a plain [`StepPlan`] in, logits out.
//!
//! A step's result for a token depends on the sequence's tokens alone: never on the other
//! sequences of the step, on how its prompt was cut into steps, or on which pages hold its keys.
#![forbid(unsafe_code)]

mod arch;
mod error;
mod file;
mod folder;
mod forward;
mod hash;
mod load;
mod memory;
mod plan;
mod pooling;
mod properties;
mod residency;
mod weights;

pub use arch::KNOWN_ARCHITECTURES;
pub use error::{Error, PlanError};
pub use file::ModelFile;
pub use hash::{LogitsHash, logits_hash};
pub use load::{LoadOptions, LoadProgress, Model, Output};
pub use memory::MemoryPlan;
pub use plan::{
    Forward, ForwardShape, LogitRows, MAX_SEQUENCES, Observer, SequenceStep, Stage, StepPlan,
    pages_for,
};
pub use pooling::{Pooling, UnknownPooling, hidden_rows, normalize};
pub use properties::{
    Biases, Experts, LayerAttention, LongFactors, NormPlacement, Properties, Rope, Yarn,
};
pub use redline_compute::{ARITHMETIC_VERSION, PAGE_POSITIONS, PageId, exponentials};
pub use redline_gguf::TokenId;
pub use residency::MappedWeights;
