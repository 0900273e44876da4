//! One generic kernel for each algorithm, over an ISA token.
//!
//! Threads outside, ISA inside: a thread's task dispatches once, and everything it calls is inlined
//! into the token's `vectorize`.
#![allow(
    clippy::needless_range_loop,
    reason = "one index for a lane, a row or a block names the same thing in several arrays"
)]

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod embed;
pub(crate) mod experts;
mod exponentials;
#[cfg(target_arch = "x86_64")]
pub(crate) mod feed_forward;
#[cfg(target_arch = "x86_64")]
mod formats_k;
#[cfg(target_arch = "x86_64")]
mod formats_small;
pub(crate) mod kv;
pub(crate) mod math;
pub(crate) mod matmul;
pub(crate) mod norm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod panel;
#[cfg(target_arch = "x86_64")]
mod panel_float;
#[cfg(target_arch = "x86_64")]
mod panel_k;
#[cfg(target_arch = "x86_64")]
mod panel_small;
pub(crate) mod quantized;
mod rows_float;
#[cfg(target_arch = "x86_64")]
mod rows_k;
#[cfg(target_arch = "x86_64")]
mod rows_small;
#[cfg(target_arch = "x86_64")]
pub(crate) mod slabs;
pub(crate) mod spec;
#[cfg(target_arch = "x86_64")]
mod strips;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod tiles_k;
#[cfg(target_arch = "x86_64")]
mod tiles_small;

pub use exponentials::exponentials;
