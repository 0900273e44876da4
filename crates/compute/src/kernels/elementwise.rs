//! Activations, residual addition, and RoPE.

use super::math;
use crate::simd::{Isa, Kernel, Simd, dispatch};
use crate::{Activation, RopeStyle};

/// `gate = activation(gate) · up`, or what the activation makes of both.
pub(crate) fn gated(isa: Isa, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    dispatch(
        isa,
        Gated {
            activation,
            gate,
            up,
        },
    );
}

struct Gated<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl<S: Simd> Kernel<S> for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (gates, gate_tail) = self.gate.as_chunks_mut::<16>();
        let (ups, up_tail) = self.up.as_chunks::<16>();
        for (gate, up) in gates.iter_mut().zip(ups) {
            s.store(gate_of(s, self.activation, s.load(gate), s.load(up)), gate);
        }
        if !gate_tail.is_empty() {
            let (gate, up) = (s.load_partial(gate_tail), s.load_partial(up_tail));
            s.store_partial(gate_of(s, self.activation, gate, up), gate_tail);
        }
    }
}

// Not a closure: one that is called twice may stay out of line, without the instruction set.
#[inline(always)]
pub(super) fn gate_of<S: Simd>(s: S, activation: Activation, gate: S::F32, up: S::F32) -> S::F32 {
    match activation {
        Activation::ClampedSwiglu => math::clamped_swiglu(s, gate, up),
        _ => s.mul(activation_of(s, activation, gate), up),
    }
}

#[inline(always)]
fn activation_of<S: Simd>(s: S, activation: Activation, x: S::F32) -> S::F32 {
    match activation {
        Activation::Silu => math::silu(s, x),
        Activation::GeluTanh => math::gelu_tanh(s, x),
        Activation::GeluErf => math::gelu_erf(s, x),
        Activation::ClampedSwiglu => math::clamped_swiglu(s, x, s.zero()),
    }
}

/// `x = activation(x)`.
pub(crate) fn activate(isa: Isa, activation: Activation, x: &mut [f32]) {
    dispatch(isa, Activate { activation, x });
}

struct Activate<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (vectors, tail) = self.x.as_chunks_mut::<16>();
        for x in vectors {
            s.store(activation_of(s, self.activation, s.load(x)), x);
        }
        if !tail.is_empty() {
            let x = s.load_partial(tail);
            s.store_partial(activation_of(s, self.activation, x), tail);
        }
    }
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rotates the first `2 · angles.len()` elements of every head of one row.
///
/// A pair `(a, b)` becomes `(fma(a, cos, −(b·sin)), fma(a, sin, b·cos))`.
pub(crate) fn rope(
    isa: Isa,
    style: RopeStyle,
    angles: &[(f32, f32)],
    head_dim: usize,
    row: &mut [f32],
) {
    assert!(
        2 * angles.len() <= head_dim && row.len().is_multiple_of(head_dim),
        "whole heads"
    );
    dispatch(
        isa,
        Rope {
            style,
            angles,
            head_dim,
            row,
        },
    );
}

struct Rope<'a> {
    style: RopeStyle,
    angles: &'a [(f32, f32)],
    head_dim: usize,
    row: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for Rope<'_> {
    type Output = ();

    // Plain code: compiled here, `mul_add` is one instruction where the ISA has it.
    #[inline(always)]
    fn run(self, _: S) {
        let pairs = self.angles.len();
        for head in self.row.chunks_exact_mut(self.head_dim) {
            match self.style {
                RopeStyle::Interleaved => {
                    let (elements, _) = head.as_chunks_mut::<2>();
                    for ([a, b], angle) in elements.iter_mut().zip(self.angles) {
                        (*a, *b) = rotate(*a, *b, *angle);
                    }
                }
                RopeStyle::Neox => {
                    let (first, second) = head.split_at_mut(pairs);
                    for ((a, b), angle) in first.iter_mut().zip(second).zip(self.angles) {
                        (*a, *b) = rotate(*a, *b, *angle);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn rotate(a: f32, b: f32, (cos, sin): (f32, f32)) -> (f32, f32) {
    (a.mul_add(cos, -(b * sin)), a.mul_add(sin, b * cos))
}
