//! The gated half of a feed-forward network for many tokens: gate, up, the activation between them and
//! the quantising of what comes out, panel by panel. Nothing of it goes through memory as F32.

use std::ops::Range;

use super::elementwise::gate_of;
use super::matmul::{Vector, Weights};
use super::panel::{self, Multiply, PANELS, PanelGroup, ROWS, Room, Source, Work};
use super::slabs::{Slabs, SplitPart};
use crate::Activation;
use crate::simd::{Lanes, Sixteen};

/// Panels of each of gate and up that share a piece of the activations.
const GATED: usize = PANELS / 2;

/// `out = quantised(activation(gate · x) · (up · x))` for the columns of `out`.
pub(crate) struct Gated<'a, 'b> {
    pub(crate) activation: Activation,
    pub(crate) gate: Weights<'a>,
    pub(crate) up: Weights<'a>,
    /// Of gate and up.
    pub(crate) bias: [Option<&'a [f32]>; 2],
    pub(crate) tokens: usize,
    pub(crate) x: &'a Slabs,
    pub(crate) out: &'a mut SplitPart<'b>,
    /// For the values of a group of columns, of a batch of slabs.
    pub(crate) room: &'a mut [Vector],
}

impl Work for Gated<'_, '_> {
    #[inline(always)]
    fn run<S: Lanes>(mut self, s: S, mut by: impl Multiply<S>) {
        let range = self.out.range();
        let mut chains = Room::new(self.tokens);
        let unit = self.out.width().max(GATED * ROWS);
        for first in range.clone().step_by(unit) {
            let columns = first..(first + unit).min(range.end);
            for slabs in panel::batches(self.tokens) {
                for first in columns.clone().step_by(GATED * ROWS) {
                    let columns = first..(first + GATED * ROWS).min(columns.end);
                    self.columns(s, &mut by, columns, &slabs, &mut chains);
                }
            }
        }
    }
}

impl Gated<'_, '_> {
    /// Some columns of a batch of slabs. Finished groups are quantised.
    #[inline(always)]
    fn columns<S: Lanes>(
        &mut self,
        s: S,
        by: &mut impl Multiply<S>,
        columns: Range<usize>,
        slabs: &Range<usize>,
        chains: &mut Room,
    ) {
        // Gate and up of the same rows stand side by side.
        let panel = |weights, first| Source {
            weights,
            rows: (first, first + ROWS),
        };
        let mut panels = [panel(self.gate, columns.start); 2 * GATED];
        for (i, first) in columns.clone().step_by(ROWS).enumerate() {
            panels[2 * i] = panel(self.gate, first);
            panels[2 * i + 1] = panel(self.up, first);
        }
        let group = PanelGroup {
            panels: &panels[..2 * columns.len() / ROWS],
            next: panel(self.gate, columns.end),
            x: self.x,
        };
        let chains = chains.chains(&group, slabs);
        group.multiply(
            s,
            by,
            slabs.start,
            chains,
            #[inline(always)]
            |_| {},
        );
        let (width, batch) = (self.out.width(), slabs.len());
        for (pair, first) in chains.chunks_exact(2 * batch).zip(columns.step_by(ROWS)) {
            let (gate, up) = pair.split_at(batch);
            for (i, slab) in slabs.clone().enumerate() {
                let group = &mut self.room[i * width..][..width];
                let values = &mut group[first % width..][..ROWS];
                let bias = self.bias.map(
                    #[inline(always)]
                    |bias| bias.map(|bias| &bias[first..first + ROWS]),
                );
                activate(s, self.activation, [&gate[i], &up[i]], bias, values);
                if (first + ROWS).is_multiple_of(width) {
                    self.out.quantize(s, slab, first + ROWS - width, group);
                }
            }
        }
    }
}

/// The activation of a panel's finished chains.
#[inline(always)]
fn activate<S: Lanes>(
    s: S,
    activation: Activation,
    [gate, up]: [&[Sixteen<f32>; ROWS]; 2],
    bias: [Option<&[f32]>; 2],
    out: &mut [Vector],
) {
    for r in 0..ROWS {
        let mut of = [s.load(&gate[r].0), s.load(&up[r].0)];
        for (x, bias) in of.iter_mut().zip(bias) {
            if let Some(bias) = bias {
                *x = s.add(*x, s.splat(bias[r]));
            }
        }
        s.store(gate_of(s, activation, of[0], of[1]), &mut out[r]);
    }
}
