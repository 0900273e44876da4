//! `out = x · weightsᵀ` for a range of weight rows: which kernel computes which tile.

#[cfg(target_arch = "x86_64")]
use std::marker::PhantomData;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::quantized::{Group, activation_group};
use super::quantized::{QuantizedRow, QuantizedRows};
#[cfg(target_arch = "x86_64")]
use super::{
    feed_forward::Gated, panel, panel_float, panel_k::Large, panel_small::Small,
    rows_float::FloatFormat, rows_k, rows_small, strips, tiles,
};
use super::{rows_float, spec};
use crate::Format;
use crate::pool::ColumnsPart;
use crate::quant::{BFloat, Block, Float, Half, blocks};
#[cfg(target_arch = "x86_64")]
use crate::quant::{
    BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K,
    BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Amx, Avx2, Avx512, BlockLanes, KLanes, Lanes, dispatch_x86};
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Sixteen columns of a row, or sixteen chains.
pub(crate) type Vector = [f32; 16];
/// Vectors that a thread's float products need room for.
pub(crate) const FLOAT_ROOM: usize = 1 << 14;

/// Tokens a kernel takes at a time.
const TOKENS: usize = 4;

/// Weights `[rows, cols]`, row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) format: Format,
    pub(crate) cols: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.bytes.len() / self.format.row_bytes(self.cols)
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.format.row_bytes(self.cols);
        &self.bytes[row * bytes..][..bytes]
    }
}

/// Multiplies quantised rows `x` with the tile's weight rows.
///
/// # Panics
/// If the format's activations are not quantised ones.
pub(crate) fn quantized(isa: Isa, tile: Tile<'_, '_>, x: &QuantizedRows) {
    let tokens = tile.tokens;
    match isa {
        Isa::Scalar => by_specification(tile, x),
        #[cfg(target_arch = "x86_64")]
        _ if strips::wanted(isa, (tile.weights.format, tile.weights.cols), tokens) => {
            by_strips(tile, x)
        }
        #[cfg(target_arch = "x86_64")]
        isa if panel::wanted(isa, x.group, tokens) => {
            let (format, x) = (tile.weights.format, &x.slabs);
            on_panels(isa, format, panel::Product { tile, x });
        }
        #[cfg(target_arch = "x86_64")]
        isa => dispatch_x86(isa, Quantized { tile, x }),
        #[cfg(not(target_arch = "x86_64"))]
        isa => panic!("{isa} is not an instruction set of this machine"),
    }
}

/// Multiplies F32 rows `x: [tokens, cols]` with the tile's weight rows of a float format, in a
/// scratch of [`FLOAT_ROOM`] vectors.
pub(crate) fn float(isa: Isa, tile: Tile<'_, '_>, x: &[f32], room: &mut [Vector]) {
    #[cfg(target_arch = "x86_64")]
    if panel_float::wanted(isa, tile.tokens, tile.weights.cols) {
        return match tile.weights.format {
            Format::F32 => float_panels::<Float>(isa, tile, x, room),
            Format::F16 => float_panels::<Half>(isa, tile, x, room),
            Format::BF16 => float_panels::<BFloat>(isa, tile, x, room),
            format => panic!("{format} is not a float format"),
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = room;
    dispatch(isa, Floats { tile, x });
}

#[cfg(target_arch = "x86_64")]
fn float_panels<F: FloatFormat>(isa: Isa, tile: Tile<'_, '_>, x: &[f32], room: &mut [Vector]) {
    let format = PhantomData::<F>;
    let fill = panel_float::Fill {
        tile,
        x,
        room,
        format,
    };
    dispatch_x86(isa, fill);
}

/// How far ahead of its four streams of weights a row kernel asks for memory, in bytes. Farther than
/// a few cache lines, so that the latency of memory is covered; near enough that the requests, of
/// which a core has sixteen or so, find the lines already on their way by the hardware's own
/// prefetching.
const AHEAD: usize = 1536;

/// Asks for what the stream that `bytes` are part of needs soon.
#[inline(always)]
pub(super) fn prefetch<S: Simd>(s: S, bytes: &[u8]) {
    for line in (0..bytes.len()).step_by(64) {
        s.prefetch(bytes, AHEAD + line);
    }
}

/// Weight rows that a thread multiplies after those it multiplies now.
#[derive(Debug, Clone)]
pub(crate) struct Next<'a> {
    pub(crate) weights: Weights<'a>,
    pub(crate) rows: Range<usize>,
}

impl Next<'_> {
    /// Asks for a line of cache in each of the streams that a row kernel will begin with.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, line: usize) {
        if self.rows.is_empty() {
            return;
        }
        let row_bytes = self.weights.format.row_bytes(self.weights.cols);
        for row in far::<4>(&self.rows, 0) {
            s.prefetch(self.weights.bytes, row * row_bytes + 64 * line);
        }
    }
}

/// One of each `N`th part of `rows`: long streams in pages of their own, which the hardware follows
/// better than short neighbouring rows. Rows past the end are the last again.
#[inline(always)]
pub(super) fn far<const N: usize>(rows: &Range<usize>, i: usize) -> [usize; N] {
    let part = rows.len().div_ceil(N);
    let mut far = [0; N];
    for (n, row) in far.iter_mut().enumerate() {
        *row = (rows.start + n * part + i).min(rows.end - 1);
    }
    far
}

/// The blocks of four rows. Not `map`, which stays out of line and costs short rows a third of their time.
#[inline(always)]
pub(super) fn four_blocks<B: Block>(rows: [&[u8]; 4]) -> [&[B]; 4] {
    let mut typed = [blocks::<B>(rows[0]); 4];
    for r in 1..4 {
        typed[r] = blocks::<B>(rows[r]);
    }
    typed
}

/// Asks for all of `values`, which another thread may just have written: the first rows would wait
/// for one line after the other.
#[inline(always)]
fn fetch<S: Simd, T: bytemuck::NoUninit>(s: S, values: &[T]) {
    let bytes = bytemuck::cast_slice(values);
    for line in (0..bytes.len()).step_by(64) {
        s.prefetch(bytes, line);
    }
}

/// An output range: all tokens, the columns of `out`.
pub(crate) struct Tile<'a, 'b> {
    pub(crate) weights: Weights<'a>,
    pub(crate) tokens: usize,
    pub(crate) out: &'a mut ColumnsPart<'b>,
    /// What a row kernel asks for when there is nothing ahead in `weights` any more.
    pub(crate) next: Option<Next<'a>>,
}

impl Tile<'_, '_> {
    /// Fills the tile from a kernel for [`TOKENS`] tokens and one for a single token, each giving
    /// the rows of [`far`] from the first token on.
    #[inline(always)]
    fn fill<S: Simd>(
        self,
        s: S,
        many: impl Fn([&[u8]; 4], usize) -> [[f32; 4]; TOKENS],
        one: impl Fn([&[u8]; 4], usize) -> [[f32; 4]; 1],
    ) {
        self.each::<S, 1>(
            s,
            #[inline(always)]
            |tile, rows, columns| {
                let mut token = 0;
                while token + TOKENS <= tile.tokens {
                    for (t, values) in many(rows, token).iter().enumerate() {
                        tile.put(token + t, columns, *values);
                    }
                    token += TOKENS;
                }
                while token < tile.tokens {
                    let [values] = one(rows, token);
                    tile.put(token, columns, values);
                    token += 1;
                }
            },
        );
    }

    /// Fills a tile of one token and at least two rows from a kernel for four pairs of neighbours,
    /// giving their first rows, then their second.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn fill_pairs<S: Simd>(self, s: S, pairs: impl Fn([&[u8]; 4]) -> [[f32; 4]; 2]) {
        self.each::<S, 2>(
            s,
            #[inline(always)]
            |tile, rows, columns| {
                let [first, second] = pairs(rows);
                tile.put(0, columns, first);
                let next = [0, 1, 2, 3].map(
                    #[inline(always)]
                    |q| columns[q] + 1,
                );
                tile.put(0, next, second);
            },
        );
    }

    /// Calls `work` with `R` rows at a time of each quarter, and the columns of the first of them.
    #[inline(always)]
    fn each<S: Simd, const R: usize>(
        mut self,
        s: S,
        work: impl Fn(&mut Self, [&[u8]; 4], [usize; 4]),
    ) {
        let range = self.out.range();
        let quarter = range.len().div_ceil(4);
        let bytes = self.weights.format.row_bytes(self.weights.cols);
        for i in (0..quarter).step_by(R) {
            for i in i..i + R {
                if let Some(next) = &self.next
                    && let Some(line) = (i + AHEAD / 64).checked_sub(quarter)
                {
                    next.prefetch(s, line);
                }
            }
            // Where a pair is cut by an end, one of its rows is computed again.
            let columns = far(&(range.start..range.end + 1 - R), i);
            let mut rows = [self.weights.bytes; 4];
            for q in 0..4 {
                rows[q] = &self.weights.bytes[columns[q] * bytes..][..R * bytes];
            }
            work(&mut self, rows, columns);
        }
    }

    #[inline(always)]
    fn put(&mut self, token: usize, columns: [usize; 4], values: [f32; 4]) {
        let range = self.out.range();
        let out = self.out.row(token, range.clone());
        for (column, value) in columns.into_iter().zip(values) {
            out[column - range.start] = value;
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
fn by_strips(tile: Tile<'_, '_>, x: &QuantizedRows) {
    let s = Avx512::detect().expect("AVX-512, checked at start");
    let x = &x.slabs;
    match tile.weights.format {
        Format::Q8_0 => s.vectorize(strips::Fill::<BlockQ8_0>::new(tile, x)),
        Format::Q4_0 => s.vectorize(strips::Fill::<BlockQ4_0>::new(tile, x)),
        Format::Q4_1 => s.vectorize(strips::Fill::<BlockQ4_1>::new(tile, x)),
        Format::Q5_0 => s.vectorize(strips::Fill::<BlockQ5_0>::new(tile, x)),
        Format::Q5_1 => s.vectorize(strips::Fill::<BlockQ5_1>::new(tile, x)),
        Format::IQ4_NL => s.vectorize(strips::Fill::<BlockIq4Nl>::new(tile, x)),
        Format::MXFP4 => s.vectorize(strips::Fill::<BlockMxfp4>::new(tile, x)),
        format => panic!("{format} is not taken in strips"),
    }
}

/// Does work on panels of a quantised format, with the vectors or the tiles of `isa`.
#[cfg(target_arch = "x86_64")]
fn on_panels(isa: Isa, format: Format, work: impl panel::Work) {
    macro_rules! by {
        ($depth:literal, $format:ty) => {
            match isa {
                Isa::Amx => {
                    let amx = Amx::detect().expect("AMX, checked at start");
                    tiles::run::<$format, $depth>(amx, work);
                }
                isa => dispatch_x86(isa, panel::ByVectors::<$format, _>::new(work)),
            }
        };
    }
    match format {
        Format::Q8_0 => by!(32, Small<BlockQ8_0>),
        Format::Q4_0 => by!(32, Small<BlockQ4_0>),
        Format::Q4_1 => by!(32, Small<BlockQ4_1>),
        Format::Q5_0 => by!(32, Small<BlockQ5_0>),
        Format::Q5_1 => by!(32, Small<BlockQ5_1>),
        Format::IQ4_NL => by!(32, Small<BlockIq4Nl>),
        Format::MXFP4 => by!(32, Small<BlockMxfp4>),
        Format::Q2_K => by!(64, Large<BlockQ2K>),
        Format::Q3_K => by!(64, Large<BlockQ3K>),
        Format::Q4_K => by!(64, Large<BlockQ4K>),
        Format::Q5_K => by!(64, Large<BlockQ5K>),
        Format::Q6_K => by!(64, Large<BlockQ6K>),
        Format::IQ4_XS => by!(64, Large<BlockIq4Xs>),
        Format::F32 | Format::F16 | Format::BF16 => {
            panic!("{format} has no quantised activations")
        }
    }
}

/// How [`gated`] takes gate and up of such formats and columns for so many tokens, on their way to a
/// product with `down`: what their input is quantised in, and what comes out. `None`: it does not.
#[cfg(target_arch = "x86_64")]
pub(crate) fn gates(
    isa: Isa,
    tokens: usize,
    [gate, up, down]: [(Format, usize); 3],
) -> Option<[Group; 2]> {
    let groups = [activation_group(gate.0)?, activation_group(down.0)?];
    let by_themselves = tokens <= strips::FEW_TOKENS
        || [gate, down].iter().all(|w| strips::wanted(isa, *w, tokens));
    let wanted = isa != Isa::Scalar && gate.0 == up.0 && !by_themselves;
    wanted.then_some(groups)
}

/// Does the work of a gated half with the vectors or tiles of `isa`.
///
/// # Panics
/// If [`gates`] says none.
#[cfg(target_arch = "x86_64")]
pub(crate) fn gated(isa: Isa, work: Gated<'_, '_>) {
    on_panels(isa, work.gate.format, work);
}

#[cfg(target_arch = "x86_64")]
struct Quantized<'a, 'b> {
    tile: Tile<'a, 'b>,
    x: &'a QuantizedRows,
}

#[cfg(target_arch = "x86_64")]
impl Kernel<Avx2> for Quantized<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: Avx2) {
        self.fill::<_, 2, 8>(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel<Avx512> for Quantized<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: Avx512) {
        self.fill::<_, 4, 4>(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl Quantized<'_, '_> {
    /// `B`: blocks of a small format in a vector; `N`: vectors in a block of a K format.
    #[inline(always)]
    fn fill<S, const B: usize, const N: usize>(self, s: S)
    where
        S: Lanes + BlockLanes<B> + KLanes<N>,
    {
        let Self { tile, x } = self;
        let many = |token: usize| -> [QuantizedRow<'_>; TOKENS] {
            [
                x.row(token),
                x.row(token + 1),
                x.row(token + 2),
                x.row(token + 3),
            ]
        };
        for token in 0..tile.tokens.min(TOKENS) {
            let x = x.row(token);
            fetch(s, x.q);
            fetch(s, x.scales);
            fetch(s, x.sums);
        }
        macro_rules! fill {
            ($kernels:ident, $($generics:tt)*) => {
                tile.fill(
                    s,
                    #[inline(always)]
                    |rows, token| {
                        $kernels::four_rows::<$($generics)*, TOKENS>(s, rows, many(token))
                    },
                    #[inline(always)]
                    |rows, token| {
                        $kernels::four_rows::<$($generics)*, 1>(s, rows, [x.row(token)])
                    },
                )
            };
        }
        macro_rules! small {
            ($block:ty) => {
                match rows_small::Halved::of(&tile, x) {
                    Some(x) => tile.fill_pairs(
                        s,
                        #[inline(always)]
                        |rows| rows_small::pairs_of_rows::<$block, S, B>(s, rows, &x),
                    ),
                    None => fill!(rows_small, $block, S, B),
                }
            };
        }
        macro_rules! large {
            ($block:ty) => {
                fill!(rows_k, $block, S, N)
            };
        }
        match tile.weights.format {
            Format::Q8_0 => small!(BlockQ8_0),
            Format::Q4_0 => small!(BlockQ4_0),
            Format::Q4_1 => small!(BlockQ4_1),
            Format::Q5_0 => small!(BlockQ5_0),
            Format::Q5_1 => small!(BlockQ5_1),
            Format::IQ4_NL => small!(BlockIq4Nl),
            Format::MXFP4 => small!(BlockMxfp4),
            Format::Q2_K => large!(BlockQ2K),
            Format::Q3_K => large!(BlockQ3K),
            Format::Q4_K => large!(BlockQ4K),
            Format::Q5_K => large!(BlockQ5K),
            Format::Q6_K => large!(BlockQ6K),
            Format::IQ4_XS => large!(BlockIq4Xs),
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
        fetch(s, &x[..cols * tile.tokens.min(TOKENS)]);
        let row = |token: usize| &x[token * cols..][..cols];
        let many = |token: usize| -> [&[f32]; TOKENS] {
            [row(token), row(token + 1), row(token + 2), row(token + 3)]
        };
        macro_rules! fill {
            ($block:ty) => {
                tile.fill(
                    s,
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
