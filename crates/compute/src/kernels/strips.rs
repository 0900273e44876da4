//! Sixteen weight rows of a 32-weight format, a lane for each, times a few dozen tokens (several
//! sequences that decode together).
//!
//! A block's integers are brought side by side once, straight from the file, and stay in registers
//! while the integers of every token are broadcast to them from its slab. Nothing is unpacked to
//! memory, and no sum lies across lanes.

use std::marker::PhantomData;
use std::ops::Range;

use super::formats_small::{SmallFormat, TableFormat};
use super::matmul::{Tile, far, prefetch};
use super::panel;
use super::quantized::{Group, activation_group};
use super::slabs::{self, Slab, Slabs};
use crate::Format;
use crate::pool::ColumnsPart;
use crate::quant::{
    BlockIq4Nl, BlockMxfp4, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, blocks,
};
use crate::simd::{Avx512, BlockLanes, Isa, Kernel, Lanes, Quads, Simd, Sixteen};

/// Tokens for which the kernels of a token at a time are faster.
pub(super) const MIN_TOKENS: usize = 2;
/// Tokens for which panels are not faster on AVX-512. Four slabs of tokens share a panel's broadcasts;
/// fewer do not, and wait for them.
const MAX_TOKENS: usize = 48;
/// Tokens for which tiles are not faster, nor panels of rows that are longer than [`NEAR`].
pub(super) const FEW_TOKENS: usize = 24;
/// Columns of dozens of tokens that every strip finds in a core's own cache.
const NEAR: usize = 2048;
/// The slabs they stand in.
const SLABS: usize = MAX_TOKENS.div_ceil(slabs::TOKENS);
/// Weight rows of a strip.
const ROWS: usize = 16;
/// Strips that are written together, a vector of neighbouring rows at a time.
const GROUP: usize = 16;
/// Blocks whose scales are read together.
const STEP: usize = 4;

/// Whether products of weights of a format and so many columns with so many tokens are computed in
/// strips.
pub(super) fn wanted(isa: Isa, (format, cols): (Format, usize), tokens: usize) -> bool {
    let most = match isa {
        Isa::Scalar | Isa::Avx2 => return false,
        Isa::Avx512 if cols <= NEAR => MAX_TOKENS,
        Isa::Avx512 | Isa::Amx => FEW_TOKENS,
    };
    (MIN_TOKENS..=most).contains(&tokens)
        && activation_group(format) == Some(Group::Small)
        && cols >= 32 * STEP
}

/// What a 32-weight format does in a strip.
pub(super) trait StripFormat: SmallFormat {
    /// The integers of sixteen rows' blocks as they are stored, signed ones `+ 128`: quad after quad.
    fn quads(s: Avx512, rows: [&Self; ROWS]) -> [Quads; 8];
    /// The heads of four rows' blocks, where more than the scales is needed of those.
    #[inline(always)]
    fn heads(_: Avx512, _: [&[u8]; 4]) -> Option<[Quads; 4]> {
        None
    }
}

/// The heads of blocks of `STRIDE` bytes.
#[inline(always)]
fn heads<const STRIDE: usize>(s: Avx512, rows: [&[u8]; 4]) -> Option<[Quads; 4]> {
    let mut heads = [s.zero_lanes(); 4];
    for r in 0..4 {
        heads[r] = s.heads::<STRIDE>(rows[r]);
    }
    Some(heads)
}

/// A tile of the output to fill.
pub(super) struct Fill<'a, 'b, F> {
    tile: Tile<'a, 'b>,
    x: &'a Slabs,
    format: PhantomData<F>,
}

impl<'a, 'b, F> Fill<'a, 'b, F> {
    pub(super) fn new(tile: Tile<'a, 'b>, x: &'a Slabs) -> Self {
        Self {
            tile,
            x,
            format: PhantomData,
        }
    }
}

impl<F: StripFormat> Kernel<Avx512> for Fill<'_, '_, F> {
    type Output = ();

    /// The rows of a strip are one of each sixteenth of the tile: sixteen long streams, which the
    /// hardware follows better than short ones.
    #[inline(always)]
    fn run(self, s: Avx512) {
        let Self { tile, x, .. } = self;
        let range = tile.out.range();
        let mut room = [[Sixteen([0.0; ROWS]); MAX_TOKENS]; GROUP];
        let mut slabs = [x.slab(0, 0..tile.weights.cols); SLABS];
        let slabs = &mut slabs[..tile.tokens.div_ceil(slabs::TOKENS)];
        for (i, slab) in slabs.iter_mut().enumerate() {
            *slab = x.slab(i, 0..tile.weights.cols);
        }
        let x = &*slabs;
        let strips = range.len().div_ceil(ROWS);
        for first in (0..strips).step_by(GROUP) {
            let group = first..strips.min(first + GROUP);
            for (strip, chains) in group.clone().zip(&mut room) {
                let chains = &mut chains[..tile.tokens];
                chains.fill(Sixteen([0.0; ROWS]));
                let columns = far::<ROWS>(&range, strip);
                let mut rows = [[].as_slice(); ROWS];
                for r in 0..ROWS {
                    rows[r] = blocks::<F>(tile.weights.row(columns[r]));
                }
                take(s, rows, x, chains);
            }
            write(s, &room, group, tile.tokens, tile.out);
        }
    }
}

/// All chain steps of a strip.
#[inline(always)]
fn take<F: StripFormat>(
    s: Avx512,
    rows: [&[F]; ROWS],
    x: &[Slab<'_>],
    chains: &mut [Sixteen<f32>],
) {
    let blocks = rows[0].len();
    for first in (0..=blocks - STEP).step_by(STEP) {
        step(s, rows, first, 0, x, chains);
    }
    let rest = blocks % STEP;
    if rest > 0 {
        // The last blocks again, of which only the rest takes chain steps.
        step(s, rows, blocks - STEP, STEP - rest, x, chains);
    }
}

/// Writes the finished chains of a group of strips, whose rows are neighbours in each sixteenth of the
/// tile.
#[inline(always)]
fn write(
    s: Avx512,
    room: &[[Sixteen<f32>; MAX_TOKENS]; GROUP],
    group: Range<usize>,
    tokens: usize,
    out: &mut ColumnsPart<'_>,
) {
    let range = out.range();
    let part = range.len().div_ceil(ROWS);
    for token in 0..tokens {
        let mut vectors = [s.zero(); GROUP];
        for (vector, chains) in vectors.iter_mut().zip(room) {
            *vector = s.load(&chains[token].0);
        }
        for (n, vector) in s.transpose(vectors).into_iter().enumerate() {
            let start = range.start + n * part;
            let rows = start + group.start..range.end.min(start + group.end);
            if !rows.is_empty() {
                panel::store(s, vector, out.row(token, rows));
            }
        }
    }
}

/// The chain steps of the [`STEP`] blocks from block `first` on, but of the first `skip` of them.
#[inline(always)]
fn step<F: StripFormat>(
    s: Avx512,
    rows: [&[F]; ROWS],
    first: usize,
    skip: usize,
    x: &[Slab<'_>],
    chains: &mut [Sixteen<f32>],
) {
    let none = [F::zeroed(); STEP];
    let mut blocks = [&none; ROWS];
    for r in 0..ROWS {
        blocks[r] = rows[r][first..].first_chunk().expect("blocks of a step");
        prefetch(s, bytemuck::cast_slice(blocks[r]));
    }
    let (mut d, mut m) = ([s.zero(); STEP], [s.zero(); STEP]);
    for group in 0..4 {
        let mut rows = [[].as_slice(); 4];
        for r in 0..4 {
            rows[r] = bytemuck::cast_slice(blocks[4 * group + r]);
        }
        let (scales, minima) = F::scales::<Avx512, STEP>(s, rows, F::heads(s, rows));
        d[group] = scales;
        if let Some(minima) = minima {
            m[group] = minima;
        }
    }
    d = s.rows_of_blocks(d);
    if F::MINIMUM {
        m = s.rows_of_blocks(m);
    }
    for b in skip..STEP {
        let mut block = [&none[0]; ROWS];
        for r in 0..ROWS {
            block[r] = &blocks[r][b];
        }
        let weights = Weights {
            quads: F::quads(s, block),
            d: d[b],
            m: m[b],
        };
        weights.advance::<F>(s, first + b, x, chains);
    }
}

/// A block of sixteen rows.
struct Weights {
    quads: [Quads; 8],
    d: <Avx512 as Simd>::F32,
    m: <Avx512 as Simd>::F32,
}

impl Weights {
    /// The chain steps of a block for every token.
    #[inline(always)]
    fn advance<F: StripFormat>(
        &self,
        s: Avx512,
        block: usize,
        x: &[Slab<'_>],
        chains: &mut [Sixteen<f32>],
    ) {
        let offset = if F::SIGNED { 128 } else { F::OFFSET };
        // Sums of a block's products are exact in F32, and so is their difference.
        const { assert!(32 * 127 * (if F::SIGNED { 255 } else { F::LARGEST }) < 1 << 24) };
        let less = s.splat(-f32::from(offset));
        for (x, chains) in x.iter().zip(chains.chunks_mut(slabs::TOKENS)) {
            let q = &x.q.as_chunks().0[block];
            let (d_x, totals) = (&x.scales[block].0, &x.totals[block].0);
            for token in 0..chains.len().min(slabs::TOKENS) {
                let chain = &mut chains[token].0;
                let total = s.splat(totals[token]);
                let mut dots = s.i32_to_f32(s.strip_dots(self.quads, q, token));
                if offset != 0 {
                    dots = s.fma(less, total, dots);
                }
                let d_x = s.splat(d_x[token]);
                let mut acc = s.fma(s.mul(self.d, d_x), dots, s.load(chain));
                if F::MINIMUM {
                    acc = s.fma(s.mul(self.m, d_x), total, acc);
                }
                s.store(acc, chain);
            }
        }
    }
}

/// Sixteen bytes of nibbles as eight quads: all low ones, then all high ones.
#[inline(always)]
fn nibbles(s: Avx512, packed: [&[u8; 16]; ROWS]) -> [Quads; 8] {
    let [a, b, c, d] = s.quads(packed);
    [
        s.nibble_quads::<0>(a),
        s.nibble_quads::<0>(b),
        s.nibble_quads::<0>(c),
        s.nibble_quads::<0>(d),
        s.nibble_quads::<4>(a),
        s.nibble_quads::<4>(b),
        s.nibble_quads::<4>(c),
        s.nibble_quads::<4>(d),
    ]
}

macro_rules! of_nibbles {
    ($block:ty) => {
        impl StripFormat for $block {
            #[inline(always)]
            fn quads(s: Avx512, rows: [&Self; ROWS]) -> [Quads; 8] {
                nibbles(
                    s,
                    rows.map(
                        #[inline(always)]
                        |row| &row.qs,
                    ),
                )
            }
        }
    };
}

of_nibbles!(BlockQ4_0);
of_nibbles!(BlockQ4_1);

impl StripFormat for BlockMxfp4 {
    #[inline(always)]
    fn quads(s: Avx512, rows: [&Self; ROWS]) -> [Quads; 8] {
        named(s, rows)
    }
}

impl StripFormat for BlockIq4Nl {
    #[inline(always)]
    fn quads(s: Avx512, rows: [&Self; ROWS]) -> [Quads; 8] {
        named(s, rows)
    }
}

/// The entries of a format's table that sixteen bytes of nibbles name, as eight quads.
#[inline(always)]
fn named<F: TableFormat>(s: Avx512, rows: [&F; ROWS]) -> [Quads; 8] {
    let [a, b, c, d] = s.quads(rows.map(
        #[inline(always)]
        |row| row.packed(),
    ));
    let mut table = F::TABLE;
    if F::SIGNED {
        for byte in &mut table {
            *byte ^= 128;
        }
    }
    let table = &table;
    [
        s.table_quads::<0>(table, a),
        s.table_quads::<0>(table, b),
        s.table_quads::<0>(table, c),
        s.table_quads::<0>(table, d),
        s.table_quads::<4>(table, a),
        s.table_quads::<4>(table, b),
        s.table_quads::<4>(table, c),
        s.table_quads::<4>(table, d),
    ]
}

macro_rules! of_five_bits {
    ($block:ty) => {
        impl StripFormat for $block {
            #[inline(always)]
            fn heads(s: Avx512, rows: [&[u8]; 4]) -> Option<[Quads; 4]> {
                heads::<{ size_of::<Self>() }>(s, rows)
            }

            #[inline(always)]
            fn quads(s: Avx512, rows: [&Self; ROWS]) -> [Quads; 8] {
                let four = nibbles(
                    s,
                    rows.map(
                        #[inline(always)]
                        |row| &row.qs,
                    ),
                );
                s.fifth_bit_quads(
                    four,
                    rows.map(
                        #[inline(always)]
                        |row| &row.qh,
                    ),
                )
            }
        }
    };
}

of_five_bits!(BlockQ5_0);
of_five_bits!(BlockQ5_1);

impl StripFormat for BlockQ8_0 {
    #[inline(always)]
    fn quads(s: Avx512, rows: [&Self; ROWS]) -> [Quads; 8] {
        let (mut first, mut last) = ([&[0; 16]; ROWS], [&[0; 16]; ROWS]);
        for r in 0..ROWS {
            let bytes: &[u8; 32] = bytemuck::cast_ref(&rows[r].qs);
            let (halves, _) = bytes.as_chunks();
            (first[r], last[r]) = (&halves[0], &halves[1]);
        }
        let ([a, b, c, d], [e, f, g, h]) = (s.quads(first), s.quads(last));
        let mut quads = [a, b, c, d, e, f, g, h];
        for quads in &mut quads {
            *quads = s.biased_quads(*quads);
        }
        quads
    }
}
