//! Many tokens times a panel of weight rows (prefill): the panel's weights are unpacked once for
//! each piece of 256 columns and multiplied with every slab of tokens; lanes are tokens.
//!
//! Only the order of exact integer sums differs from the row kernels. The F32 chain of each
//! (row, token) takes the same steps in the same order, kept between pieces in a small buffer.

use std::marker::PhantomData;
use std::ops::Range;

use super::matmul::{Tile, Weights};
use super::quantized::Group;
use super::slabs::{self, Slab, Slabs};
use super::strips;
use crate::pool::ColumnsPart;
use crate::quant::{Block, K_BLOCK, blocks};
use crate::simd::{Isa, Kernel, Lanes, Sixteen};

/// Rows of a panel.
pub(super) const ROWS: usize = 32;
/// Columns unpacked at a time.
pub(super) const PIECE: usize = K_BLOCK;
/// Tokens for which the row kernels are slower than panels.
const MIN_TOKENS: usize = 6;
/// Panels that share a piece of the activations while it is near.
pub(super) const PANELS: usize = 4;
/// Slabs whose chains are kept at a time.
const BATCH: usize = 32;
/// Slabs that make do with less room for chains.
const FEW: usize = 4;

/// Whether products of so many tokens, quantised in such groups, take them in slabs: the kernels of
/// strips and of panels.
pub(crate) fn wanted(isa: Isa, group: Group, tokens: usize) -> bool {
    match (isa, group) {
        (Isa::Scalar, _) => false,
        (Isa::Avx512 | Isa::Amx, Group::Small) => tokens >= strips::MIN_TOKENS,
        _ => tokens >= MIN_TOKENS,
    }
}

/// A piece of a panel, unpacked; every field row after row.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Integers in element order.
    pub(super) weights: [[u8; PIECE]; ROWS],
    /// Scales of the blocks (32-weight formats), or one (K formats).
    pub(super) d: [[f32; 8]; ROWS],
    /// Minima, likewise.
    pub(super) m: [[f32; 8]; ROWS],
    /// Integer scales of groups (K formats).
    pub(super) scales: [[i32; 16]; ROWS],
    /// Integer minima of groups (K formats).
    pub(super) mins: [[i16; 16]; ROWS],
}

impl Panel {
    pub(super) const ZERO: Self = Self {
        weights: [[0; PIECE]; ROWS],
        d: [[0.0; 8]; ROWS],
        m: [[0.0; 8]; ROWS],
        scales: [[0; 16]; ROWS],
        mins: [[0; 16]; ROWS],
    };
}

/// The F32 chains of some slabs, `[slabs][ROWS]`.
pub(super) type Chains = [[Sixteen<f32>; ROWS]];

/// What a quant format does in a panel.
pub(super) trait PanelFormat {
    /// The format's block.
    type Block: Block;

    /// Unpacks block `b` of the piece into row `row`.
    fn place<S: Lanes>(s: S, block: &Self::Block, panel: &mut Panel, row: usize, b: usize);

    /// Takes the chain steps of a piece for `R` rows from `row` and `V` slabs.
    fn advance<S: Lanes, const R: usize, const V: usize>(
        s: S,
        panel: &Panel,
        row: usize,
        x: [Slab<'_>; V],
        chains: &mut Chains,
    );
}

/// What multiplies pieces of panels.
pub(super) trait Multiply<S> {
    /// Takes the chain steps of a piece.
    fn multiply(&mut self, s: S, piece: &Piece<'_>, chains: &mut Chains);
}

/// The rows of a panel.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) weights: Weights<'a>,
    /// The first row, and the end.
    pub(super) rows: (usize, usize),
}

/// Some columns of a panel of rows, and the slabs to multiply them with.
pub(super) struct Piece<'a> {
    source: Source<'a>,
    pub(super) columns: Range<usize>,
    /// The panel and the first column of the piece after this one.
    next: (Source<'a>, usize),
    pub(super) x: &'a Slabs,
    pub(super) first_slab: usize,
}

impl Piece<'_> {
    /// Rows to unpack: whole sixteens.
    pub(super) fn padded_rows(&self) -> usize {
        (self.source.rows.1 - self.source.rows.0).next_multiple_of(16)
    }

    /// Gives `place` every block with its row and its number in the piece, the last row standing in
    /// for those that are missing.
    #[inline(always)]
    pub(super) fn unpack<B: Block>(&self, mut place: impl FnMut(&B, usize, usize)) {
        let width = B::FORMAT.block_weights();
        let Source {
            weights,
            rows: (first, end),
        } = self.source;
        for row in 0..self.padded_rows() {
            let weights = weights.row((first + row).min(end - 1));
            let columns = self.columns.start / width..self.columns.end / width;
            for (b, block) in blocks::<B>(weights)[columns].iter().enumerate() {
                place(block, row, b);
            }
        }
    }

    /// Asks for row `row` of the piece after this one: between other work, since requests that come
    /// one after the other wait for each other.
    #[inline(always)]
    pub(super) fn ask<B: Block, S: Lanes>(&self, s: S, row: usize) {
        let (Source { weights, rows }, column) = self.next;
        let start = (rows.0 + row) * B::FORMAT.row_bytes(weights.cols)
            + column / B::FORMAT.block_weights() * size_of::<B>();
        let bytes = PIECE / B::FORMAT.block_weights() * size_of::<B>();
        for line in (0..bytes).step_by(64) {
            s.prefetch(weights.bytes, start + line);
        }
        s.prefetch(weights.bytes, start + bytes - 1);
    }
}

/// Work on panels, whatever multiplies their pieces.
pub(super) trait Work {
    fn run<S: Lanes>(self, s: S, by: impl Multiply<S>);
}

/// A tile of the output, to be filled from slabs.
pub(super) struct Product<'a, 'b> {
    pub(super) tile: Tile<'a, 'b>,
    pub(super) x: &'a Slabs,
}

impl Work for Product<'_, '_> {
    /// Fills the tile: for some rows and some tokens at a time, so that chains and activations stay
    /// near, piece after piece of the columns, and of each piece panel after panel.
    #[inline(always)]
    fn run<S: Lanes>(self, s: S, mut by: impl Multiply<S>) {
        let Self { tile, x } = self;
        let weights = tile.weights;
        let range = tile.out.range();
        let panel = |first: usize| Source {
            weights,
            rows: (first, (first + ROWS).min(range.end)),
        };
        let mut room = Room::new(tile.tokens);
        for first_row in range.clone().step_by(PANELS * ROWS) {
            let rows = first_row..(first_row + PANELS * ROWS).min(range.end);
            let mut panels = [panel(first_row); PANELS];
            let count = rows.len().div_ceil(ROWS);
            for (panel_of, first) in panels.iter_mut().zip(rows.clone().step_by(ROWS)) {
                *panel_of = panel(first);
            }
            let group = PanelGroup {
                panels: &panels[..count],
                next: panel(rows.end),
                x,
            };
            for slabs in batches(tile.tokens) {
                let chains = room.chains(&group, &slabs);
                group.multiply(
                    s,
                    &mut by,
                    slabs.start,
                    chains,
                    #[inline(always)]
                    |panel| {
                        let rows = panel.rows.0..panel.rows.1;
                        prefetch(s, &rows, &slabs, tile.tokens, tile.out);
                    },
                );
                let batch = slabs.len();
                for (i, slab) in slabs.enumerate() {
                    let first = slab * slabs::TOKENS;
                    let tokens = first..tile.tokens.min(first + slabs::TOKENS);
                    for (panel, chains) in group.panels.iter().zip(chains.chunks_exact(batch)) {
                        let rows = panel.rows.0..panel.rows.1;
                        write(s, &chains[i], &rows, &tokens, tile.out);
                    }
                }
            }
        }
    }
}

/// Ranges of slabs whose chains are kept at a time.
pub(super) fn batches(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let slabs = tokens.div_ceil(slabs::TOKENS);
    (0..slabs)
        .step_by(BATCH)
        .map(move |first| first..(first + BATCH).min(slabs))
}

/// Where the chains of a batch are kept. Clearing the larger one would cost more than a product of few
/// tokens.
#[allow(
    clippy::large_enum_variant,
    reason = "on the stack, where the smaller one is to stay small"
)]
pub(super) enum Room {
    Few([[Sixteen<f32>; ROWS]; PANELS * FEW]),
    Many([[Sixteen<f32>; ROWS]; PANELS * BATCH]),
}

impl Room {
    #[inline(always)]
    pub(super) fn new(tokens: usize) -> Self {
        if tokens <= FEW * slabs::TOKENS {
            Self::Few([[Sixteen([0.0; 16]); ROWS]; PANELS * FEW])
        } else {
            Self::Many([[Sixteen([0.0; 16]); ROWS]; PANELS * BATCH])
        }
    }

    /// Chains of some slabs of each panel of a group, from zero.
    #[inline(always)]
    pub(super) fn chains(&mut self, group: &PanelGroup<'_>, slabs: &Range<usize>) -> &mut Chains {
        let all: &mut Chains = match self {
            Self::Few(chains) => chains,
            Self::Many(chains) => chains,
        };
        let chains = &mut all[..group.panels.len() * slabs.len()];
        chains.fill([Sixteen([0.0; 16]); ROWS]);
        chains
    }
}

/// Panels that share a piece of the activations while it is near: at most [`PANELS`], of as many
/// columns.
pub(super) struct PanelGroup<'a> {
    pub(super) panels: &'a [Source<'a>],
    /// The first panel of the group after this one; it need not exist.
    pub(super) next: Source<'a>,
    pub(super) x: &'a Slabs,
}

impl PanelGroup<'_> {
    /// Takes all chain steps, those of a panel after the other's: `[panels][slabs]`. Tells before a
    /// panel's last piece.
    #[inline(always)]
    pub(super) fn multiply<S: Lanes>(
        &self,
        s: S,
        by: &mut impl Multiply<S>,
        first_slab: usize,
        chains: &mut Chains,
        mut before_last: impl FnMut(&Source<'_>),
    ) {
        let cols = self.next.weights.cols;
        let batch = chains.len() / self.panels.len();
        for first in (0..cols).step_by(PIECE) {
            let columns = first..(first + PIECE).min(cols);
            let panels = self.panels.iter().zip(chains.chunks_exact_mut(batch));
            for (i, (panel, chains)) in panels.enumerate() {
                let next = match self.panels.get(i + 1) {
                    Some(next) => (*next, first),
                    None if columns.end < cols => (self.panels[0], columns.end),
                    None => (self.next, 0),
                };
                if columns.end == cols {
                    before_last(panel);
                }
                let piece = Piece {
                    source: *panel,
                    columns: columns.clone(),
                    next,
                    x: self.x,
                    first_slab,
                };
                by.multiply(s, &piece, chains);
            }
        }
    }
}

/// Work done with the vector kernels of a format.
pub(super) struct ByVectors<F, W> {
    work: W,
    format: PhantomData<F>,
}

impl<F, W> ByVectors<F, W> {
    pub(super) fn new(work: W) -> Self {
        let format = PhantomData;
        Self { work, format }
    }
}

impl<F: PanelFormat, S: Lanes, W: Work> Kernel<S> for ByVectors<F, W> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.work.run(s, Vectors::<F>::NEW);
    }
}

/// Asks for the lines of the output that a panel will write: they lie far apart.
#[inline(always)]
fn prefetch<S: Lanes>(
    s: S,
    rows: &Range<usize>,
    slabs: &Range<usize>,
    tokens: usize,
    out: &mut ColumnsPart<'_>,
) {
    for token in slabs.start * slabs::TOKENS..tokens.min(slabs.end * slabs::TOKENS) {
        let row: &[u8] = bytemuck::cast_slice(out.row(token, rows.clone()));
        for at in (0..row.len()).step_by(64) {
            s.prefetch(row, at);
        }
    }
}

/// The vector kernels of a format.
pub(super) struct Vectors<F> {
    panel: Panel,
    format: PhantomData<F>,
}

impl<F> Vectors<F> {
    pub(super) const NEW: Self = Self {
        panel: Panel::ZERO,
        format: PhantomData,
    };
}

impl<F: PanelFormat, S: Lanes> Multiply<S> for Vectors<F> {
    #[inline(always)]
    fn multiply(&mut self, s: S, piece: &Piece<'_>, chains: &mut Chains) {
        let panel = &mut self.panel;
        piece.unpack(
            #[inline(always)]
            |block: &F::Block, row, b| {
                if b == 0 {
                    piece.ask::<F::Block, S>(s, row);
                }
                F::place(s, block, panel, row, b);
            },
        );
        let mut done = 0;
        macro_rules! slabs {
            ($rows:literal, $slabs:literal) => {
                while chains.len() - done >= $slabs {
                    let first = piece.first_slab + done;
                    let mut slabs = [piece.x.slab(first, piece.columns.clone()); $slabs];
                    for (v, slab) in slabs.iter_mut().enumerate() {
                        *slab = piece.x.slab(first + v, piece.columns.clone());
                    }
                    let chains = &mut chains[done..done + $slabs];
                    for row in (0..piece.padded_rows()).step_by($rows) {
                        F::advance::<S, $rows, $slabs>(s, &self.panel, row, slabs, chains);
                    }
                    done += $slabs;
                }
            };
        }
        if S::WIDE {
            slabs!(4, 4);
            slabs!(16, 1);
        } else {
            slabs!(4, 1);
        }
    }
}

/// Writes a slab's finished chains to its rows of the output, those that exist.
#[inline(always)]
fn write<S: Lanes>(
    s: S,
    chains: &[Sixteen<f32>; ROWS],
    rows: &Range<usize>,
    tokens: &Range<usize>,
    out: &mut ColumnsPart<'_>,
) {
    for (half, chains) in chains.chunks_exact(16).enumerate() {
        let first_row = rows.start + 16 * half;
        if first_row >= rows.end {
            break;
        }
        let columns = first_row..(first_row + 16).min(rows.end);
        let mut vectors = [s.zero(); 16];
        for i in 0..16 {
            vectors[i] = s.load(&chains[i].0);
        }
        for (token, vector) in tokens.clone().zip(s.transpose(vectors)) {
            let out = out.row(token, columns.clone());
            store(s, vector, out);
        }
    }
}

/// Writes the first lanes of a vector, as many as there is room for, to 1 to 16 columns.
#[inline(always)]
pub(super) fn store<S: Lanes>(s: S, vector: S::F32, out: &mut [f32]) {
    match out.as_chunks_mut::<16>() {
        ([out], []) => s.store(vector, out),
        _ => s.store_partial(vector, out),
    }
}
