//! The verbs of a transformer and their CPU kernels.
//!
//! - [`Format`] and [`quant`]: the weight formats; the scalar code there is the specification of the
//!   canonical arithmetic.
//! - [`Backend`]: the coarse verbs a model is written in. It is no tensor library.
//! - [`Cpu`]: the verbs on this machine's cores, bit-equal on every [`Isa`] and thread count.
//!
//! This crate knows nothing of files' layouts or of model architectures.

mod backend;
pub mod cpu;
mod experts;
mod format;
mod kernels;
pub mod limits;
pub mod mapping;
mod memory;
mod pool;
pub mod quant;
mod simd;

pub use backend::{
    Activation, AttentionJob, AttentionShape, AttentionSpan, Backend, FeedForward, KvFormat,
    KvShape, KvSlot, MatmulJob, Norm, PAGE_POSITIONS, PageId, RopeStyle, RopeTable,
    UnknownKvFormat,
};
pub use cpu::Cpu;
pub use experts::{ExpertJob, ExpertRows, MAX_EXPERTS_PER_TOKEN, RouteShape, Routing};
pub use format::Format;
pub use kernels::exponentials;
pub use mapping::{Mapping, WeightBytes};
pub use simd::Isa;

/// Version of the canonical arithmetic. Any change of a result's bits is a change of this number,
/// made on purpose and with a decision record.
pub const ARITHMETIC_VERSION: u32 = 1;
