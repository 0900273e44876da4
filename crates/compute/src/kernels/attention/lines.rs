//! Vectors that never lie across two cache lines, where each load would be two.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Vectors of sixteen, a cache line each.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    pub(super) fn zeros(count: usize) -> Self {
        Self(vec![Line([0.0; 16]); count])
    }
}

impl Deref for Lines {
    type Target = [[f32; 16]];

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for Lines {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
