//! `out = x · weightsᵀ` for a range of weight rows: which kernel computes which tile.

#[cfg(target_arch = "x86_64")]
use std::marker::PhantomData;

use super::quantized::{Group, QuantizedRow, QuantizedRows};
#[cfg(target_arch = "x86_64")]
use super::{
    panel, panel_float, panel_k::Large, panel_small::Small, rows_float::FloatFormat, rows_k,
    rows_small, tiles,
};
use super::{rows_float, spec};
use crate::Format;
use crate::pool::ColumnsPart;
use crate::quant::{BFloat, Float, Half};
#[cfg(target_arch = "x86_64")]
use crate::quant::{
    BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Amx, Lanes, dispatch_x86};
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Tokens a kernel takes at a time.
const TOKENS: usize = 4;

/// How a format wants its activations: quantised in groups, or as they are.
pub(crate) const fn activation_group(format: Format) -> Option<Group> {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => None,
        Format::Q8_0 | Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => {
            Some(Group::Small)
        }
        Format::Q4_K | Format::Q5_K | Format::Q6_K => Some(Group::K),
    }
}

/// Weights `[rows, cols]`, row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) format: Format,
    pub(crate) cols: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// One row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.format.row_bytes(self.cols);
        &self.bytes[row * bytes..][..bytes]
    }

    /// Four rows from `row`; the last row stands in for those past `end`.
    #[inline(always)]
    fn four_rows(&self, row: usize, end: usize) -> [&'a [u8]; 4] {
        let mut rows = [self.bytes; 4];
        for (r, slot) in rows.iter_mut().enumerate() {
            *slot = self.row((row + r).min(end - 1));
        }
        rows
    }
}

/// Multiplies quantised rows `x` with the weight rows that `out` has columns for.
///
/// # Panics
/// If the format's activations are not quantised ones.
pub(crate) fn quantized(
    isa: Isa,
    weights: Weights<'_>,
    x: &QuantizedRows,
    tokens: usize,
    out: &mut ColumnsPart<'_>,
) {
    let tile = Tile {
        weights,
        tokens,
        out,
    };
    match isa {
        Isa::Scalar => by_specification(tile, x),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if panel::wanted(isa, tokens) => by_tiles(tile, x),
        #[cfg(target_arch = "x86_64")]
        isa => dispatch_x86(isa, Quantized { isa, tile, x }),
        #[cfg(not(target_arch = "x86_64"))]
        isa => panic!("{isa} is not an instruction set of this machine"),
    }
}

/// Multiplies F32 rows `x: [tokens, cols]` with weight rows of a float format.
pub(crate) fn float(isa: Isa, weights: Weights<'_>, x: &[f32], out: &mut ColumnsPart<'_>) {
    let tokens = x.len() / weights.cols;
    let tile = Tile {
        weights,
        tokens,
        out,
    };
    #[cfg(target_arch = "x86_64")]
    if panel_float::wanted(isa, tokens) {
        return match weights.format {
            Format::F32 => float_panels::<Float>(isa, tile, x),
            Format::F16 => float_panels::<Half>(isa, tile, x),
            Format::BF16 => float_panels::<BFloat>(isa, tile, x),
            format => panic!("{format} is not a float format"),
        };
    }
    dispatch(isa, Floats { tile, x });
}

#[cfg(target_arch = "x86_64")]
fn float_panels<F: FloatFormat>(isa: Isa, tile: Tile<'_, '_>, x: &[f32]) {
    let format = PhantomData::<F>;
    dispatch_x86(isa, panel_float::Fill { tile, x, format });
}

/// An output range: all tokens, the columns of `out`.
pub(super) struct Tile<'a, 'b> {
    pub(super) weights: Weights<'a>,
    pub(super) tokens: usize,
    pub(super) out: &'a mut ColumnsPart<'b>,
}

impl Tile<'_, '_> {
    /// Fills the tile from a kernel for [`TOKENS`] tokens and one for a single token, each giving
    /// four rows from the first token on.
    #[inline(always)]
    fn fill(
        self,
        many: impl Fn([&[u8]; 4], usize) -> [[f32; 4]; TOKENS],
        one: impl Fn([&[u8]; 4], usize) -> [[f32; 4]; 1],
    ) {
        let range = self.out.range();
        let mut row = range.start;
        while row < range.end {
            let rows = self.weights.four_rows(row, range.end);
            let columns = row..(row + 4).min(range.end);
            let mut token = 0;
            while token + TOKENS <= self.tokens {
                for (i, values) in many(rows, token).iter().enumerate() {
                    let out = self.out.row(token + i, columns.clone());
                    out.copy_from_slice(&values[..out.len()]);
                }
                token += TOKENS;
            }
            while token < self.tokens {
                let [values] = one(rows, token);
                let out = self.out.row(token, columns.clone());
                out.copy_from_slice(&values[..out.len()]);
                token += 1;
            }
            row += 4;
        }
    }
}

fn by_specification(tile: Tile<'_, '_>, x: &QuantizedRows) {
    for row in tile.out.range() {
        let weights = tile.weights.row(row);
        for token in 0..tile.tokens {
            tile.out.row(token, row..row + 1)[0] =
                spec::dot(tile.weights.format, weights, x.row(token));
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn by_tiles(tile: Tile<'_, '_>, x: &QuantizedRows) {
    let amx = Amx::detect().expect("AMX, checked at start");
    let x = &x.slabs;
    match tile.weights.format {
        Format::Q8_0 => tiles::fill_32::<Small<BlockQ8_0>>(amx, tile, x),
        Format::Q4_0 => tiles::fill_32::<Small<BlockQ4_0>>(amx, tile, x),
        Format::Q4_1 => tiles::fill_32::<Small<BlockQ4_1>>(amx, tile, x),
        Format::Q5_0 => tiles::fill_32::<Small<BlockQ5_0>>(amx, tile, x),
        Format::Q5_1 => tiles::fill_32::<Small<BlockQ5_1>>(amx, tile, x),
        Format::Q4_K => tiles::fill_64::<Large<BlockQ4K>>(amx, tile, x),
        Format::Q5_K => tiles::fill_64::<Large<BlockQ5K>>(amx, tile, x),
        Format::Q6_K => tiles::fill_64::<Large<BlockQ6K>>(amx, tile, x),
        Format::F32 | Format::F16 | Format::BF16 => {
            panic!("{} has no quantised activations", tile.weights.format)
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Quantized<'a, 'b> {
    isa: Isa,
    tile: Tile<'a, 'b>,
    x: &'a QuantizedRows,
}

#[cfg(target_arch = "x86_64")]
impl<S: Lanes> Kernel<S> for Quantized<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { isa, tile, x } = self;
        let many = |token: usize| -> [QuantizedRow<'_>; TOKENS] {
            [
                x.row(token),
                x.row(token + 1),
                x.row(token + 2),
                x.row(token + 3),
            ]
        };
        macro_rules! fill {
            ($kernels:ident, $panel:ident, $block:ty) => {
                if panel::wanted(isa, tile.tokens) {
                    panel::fill::<$panel<$block>, S>(s, tile, &x.slabs);
                } else {
                    tile.fill(
                        #[inline(always)]
                        |rows, token| {
                            $kernels::four_rows::<$block, S, TOKENS>(s, rows, many(token))
                        },
                        #[inline(always)]
                        |rows, token| $kernels::four_rows::<$block, S, 1>(s, rows, [x.row(token)]),
                    );
                }
            };
        }
        match tile.weights.format {
            Format::Q8_0 => fill!(rows_small, Small, BlockQ8_0),
            Format::Q4_0 => fill!(rows_small, Small, BlockQ4_0),
            Format::Q4_1 => fill!(rows_small, Small, BlockQ4_1),
            Format::Q5_0 => fill!(rows_small, Small, BlockQ5_0),
            Format::Q5_1 => fill!(rows_small, Small, BlockQ5_1),
            Format::Q4_K => fill!(rows_k, Large, BlockQ4K),
            Format::Q5_K => fill!(rows_k, Large, BlockQ5K),
            Format::Q6_K => fill!(rows_k, Large, BlockQ6K),
            Format::F32 | Format::F16 | Format::BF16 => {
                panic!("{} has no quantised activations", tile.weights.format)
            }
        }
    }
}

struct Floats<'a, 'b> {
    tile: Tile<'a, 'b>,
    x: &'a [f32],
}

impl<S: Simd> Kernel<S> for Floats<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { tile, x } = self;
        let cols = tile.weights.cols;
        let row = |token: usize| &x[token * cols..][..cols];
        let many = |token: usize| -> [&[f32]; TOKENS] {
            [row(token), row(token + 1), row(token + 2), row(token + 3)]
        };
        macro_rules! fill {
            ($block:ty) => {
                tile.fill(
                    #[inline(always)]
                    |rows, token| rows_float::four_rows::<$block, S, TOKENS>(s, rows, many(token)),
                    #[inline(always)]
                    |rows, token| rows_float::four_rows::<$block, S, 1>(s, rows, [row(token)]),
                )
            };
        }
        match tile.weights.format {
            Format::F32 => fill!(Float),
            Format::F16 => fill!(Half),
            Format::BF16 => fill!(BFloat),
            format => panic!("{format} is not a float format"),
        }
    }
}
