//! Quantised activations in slabs of sixteen tokens side by side: what the panel kernels multiply
//! with. Written once for each input of matrix products, from its quantised rows.

mod split;

use std::ops::Range;

pub(crate) use split::{Split, SplitPart};

use super::quantized::Group;
use crate::memory::grow;
use crate::pool::{Columns, Pool};
use crate::simd::{Isa, Kernel, Lanes, Quad, Sixteen, dispatch_x86};

/// Tokens of a slab.
pub(crate) const TOKENS: usize = 16;

/// Rows `[tokens, cols]` as slabs; the last one is padded with zeros.
#[derive(Debug)]
pub(crate) struct Slabs {
    group: Group,
    cols: usize,
    /// `[slabs, cols / 4]`
    q: Vec<Sixteen<Quad>>,
    /// `[slabs, cols / group]`
    scales: Vec<Sixteen<f32>>,
    /// `[slabs, cols / 32]`: two sums of 16 consecutive integers.
    sums: Vec<Sixteen<[i16; 2]>>,
    /// `[slabs, cols / 64]`: two sums of 32 consecutive integers, for groups of 256.
    wide_sums: Vec<Sixteen<[i16; 2]>>,
    /// `[slabs, cols / 32]`: sums of a group's integers, for groups of 32.
    totals: Vec<Sixteen<f32>>,
}

/// A range of columns of one slab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slab<'a> {
    /// `[columns / 4]`
    pub(crate) q: &'a [Sixteen<Quad>],
    /// `[columns / group]`
    pub(crate) scales: &'a [Sixteen<f32>],
    /// `[columns / 32]`
    pub(crate) sums: &'a [Sixteen<[i16; 2]>],
    /// `[columns / 64]`, for groups of 256.
    pub(crate) wide_sums: &'a [Sixteen<[i16; 2]>],
    /// `[columns / 32]`, for groups of 32.
    pub(crate) totals: &'a [Sixteen<f32>],
}

impl Slabs {
    pub(crate) const fn new(group: Group) -> Self {
        Self {
            group,
            cols: 0,
            q: Vec::new(),
            scales: Vec::new(),
            sums: Vec::new(),
            wide_sums: Vec::new(),
            totals: Vec::new(),
        }
    }

    /// Makes room for `tokens` rows of `cols` values.
    pub(crate) fn reserve(&mut self, tokens: usize, cols: usize) {
        let slabs = tokens.div_ceil(TOKENS);
        grow(&mut self.q, slabs * cols / 4);
        grow(&mut self.scales, slabs * cols / self.group.width());
        grow(&mut self.sums, slabs * cols / 32);
        match self.group {
            Group::K => grow(&mut self.wide_sums, slabs * cols / 64),
            Group::Small => grow(&mut self.totals, slabs * cols / 32),
        }
    }

    /// The same, whatever the groups will be.
    pub(crate) fn reserve_any(&mut self, tokens: usize, cols: usize) {
        for group in [Group::Small, Group::K] {
            self.group = group;
            self.reserve(tokens, cols);
        }
    }

    /// Sets the shape, in such groups, and splits the columns into `parts` to write, between groups.
    ///
    /// # Panics
    /// If `cols` is not a multiple of the group's width.
    pub(crate) fn split(
        &mut self,
        group: Group,
        tokens: usize,
        cols: usize,
        parts: usize,
    ) -> Split<'_> {
        let (slabs, width) = (tokens.div_ceil(TOKENS), group.width());
        assert!(cols.is_multiple_of(width), "{cols} columns in whole groups");
        self.group = group;
        self.cols = cols;
        let q = first(&mut self.q, slabs * cols / 4);
        let scales = first(&mut self.scales, slabs * cols / width);
        let sums = first(&mut self.sums, slabs * cols / 32);
        let (mut wide_sums, mut totals) = (None, None);
        match group {
            Group::K => {
                let wide = first(&mut self.wide_sums, slabs * cols / 64);
                wide_sums = Some(Columns::new(wide, cols / 64, width / 64, parts));
            }
            Group::Small => {
                let all = first(&mut self.totals, slabs * cols / 32);
                totals = Some(Columns::new(all, cols / 32, 1, parts));
            }
        }
        Split {
            width,
            q: Columns::new(q, cols / 4, width / 4, parts),
            scales: Columns::new(scales, cols / width, 1, parts),
            sums: Columns::new(sums, cols / 32, width / 32, parts),
            wide_sums,
            totals,
        }
    }

    /// Quantises rows `x: [tokens, cols]` by the rule of [`super::quantized`], the columns split over
    /// the threads: there may be one slab only.
    ///
    /// # Panics
    /// If `cols` is not a multiple of the group's width.
    pub(crate) fn quantize(&mut self, isa: Isa, pool: &mut Pool, x: &[f32], cols: usize) {
        let split = self.split(self.group, x.len() / cols, cols, pool.threads());
        pool.run(&|thread| {
            let to = split.take(thread);
            dispatch_x86(isa, Quantize { cols, x, to });
        });
    }

    /// Columns `columns` (whole groups) of slab `slab`.
    #[inline(always)]
    pub(crate) fn slab(&self, slab: usize, columns: Range<usize>) -> Slab<'_> {
        let part = Part {
            slab,
            cols: self.cols,
            columns,
        };
        Slab {
            q: part.of(&self.q, 4),
            scales: part.of(&self.scales, self.group.width()),
            sums: part.of(&self.sums, 32),
            wide_sums: match self.group {
                Group::K => part.of(&self.wide_sums, 64),
                Group::Small => &[],
            },
            totals: match self.group {
                Group::K => &[],
                Group::Small => part.of(&self.totals, 32),
            },
        }
    }
}

/// The first `count` of `data`, which may be there already: inputs of different widths take turns.
fn first<T: Clone + Default>(data: &mut Vec<T>, count: usize) -> &mut [T] {
    if data.len() < count {
        data.resize(count, T::default());
    }
    &mut data[..count]
}

/// Sums of 32 from sums of 16.
#[inline(always)]
fn wide_sums(wide: &mut [Sixteen<[i16; 2]>], sums: &[Sixteen<[i16; 2]>]) {
    for (wide, [first, second]) in wide.iter_mut().zip(sums.as_chunks().0) {
        for ((wide, first), second) in wide.0.iter_mut().zip(first.0).zip(second.0) {
            *wide = [first[0] + first[1], second[0] + second[1]];
        }
    }
}

#[inline(always)]
fn write_totals<S: Lanes>(s: S, totals: &mut [Sixteen<f32>], sums: &[Sixteen<[i16; 2]>]) {
    for (total, sums) in totals.iter_mut().zip(sums) {
        let sum = s.i32_to_f32(s.dot2(s.i32_zero(), sums, [1; 2]));
        s.store(sum, &mut total.0);
    }
}

/// Writes the scales for the largest magnitudes; gives what to multiply with.
#[inline(always)]
fn scale_of<S: Lanes>(s: S, amax: S::F32, scales: &mut Sixteen<f32>) -> S::F32 {
    let (tiny, full) = (s.splat(1e-30), s.splat(127.0));
    s.store(
        s.select_lt(amax, tiny, s.zero(), s.div(amax, full)),
        &mut scales.0,
    );
    s.select_lt(amax, tiny, s.zero(), s.div(full, amax))
}

/// Some columns of a slab.
struct Part {
    slab: usize,
    cols: usize,
    columns: Range<usize>,
}

impl Part {
    /// Their share of data with one element for each `unit` columns.
    #[inline(always)]
    fn of<'a, T>(&self, data: &'a [T], unit: usize) -> &'a [T] {
        let slab = &data[self.slab * (self.cols / unit)..];
        &slab[self.columns.start / unit..self.columns.end / unit]
    }
}

/// Rows, and where some of their columns go.
struct Quantize<'a, 'b> {
    cols: usize,
    x: &'a [f32],
    to: SplitPart<'b>,
}

impl<S: Lanes> Kernel<S> for Quantize<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { cols, x, mut to } = self;
        let width = to.width();
        for (slab, rows) in x.chunks(TOKENS * cols).enumerate() {
            for column in to.range().step_by(width) {
                let mut columns = [[].as_slice(); TOKENS];
                for (columns, row) in columns.iter_mut().zip(rows.chunks_exact(cols)) {
                    *columns = &row[column..][..width];
                }
                to.quantize_rows(s, slab, column, &columns);
            }
        }
    }
}

/// One group of sixteen rows; a missing row is empty, and counts as zeros.
#[inline(always)]
fn quantize_group<S: Lanes>(
    s: S,
    rows: &[&[f32]; TOKENS],
    q: &mut [Sixteen<Quad>],
    scales: &mut Sixteen<f32>,
    sums: &mut [Sixteen<[i16; 2]>],
) {
    let mut largest = [s.zero(); TOKENS];
    for (largest, row) in largest.iter_mut().zip(rows) {
        for x in row.as_chunks::<16>().0 {
            *largest = s.max_magnitude(*largest, s.load(x));
        }
    }
    let mut amax = s.zero();
    for lane in s.transpose(largest) {
        amax = s.max_magnitude(amax, lane);
    }
    let mut inverse = [0.0; TOKENS];
    s.store(scale_of(s, amax, scales), &mut inverse);

    // Sixteen quads, or the eight of a group of 32.
    for (i, q) in q.chunks_mut(16).enumerate() {
        let mut lines = [[0_i8; 64]; TOKENS];
        for token in 0..TOKENS {
            let (line, _) = lines[token].as_chunks_mut::<16>();
            let x = &rows[token].as_chunks::<16>().0;
            let x = &x[(4 * i).min(x.len())..(4 * i + q.len() / 4).min(x.len())];
            for (line, x) in line.iter_mut().zip(x) {
                s.narrow_i8(s.mul(s.load(x), s.splat(inverse[token])), line);
            }
        }
        let mut vectors = [s.zero(); TOKENS];
        for token in 0..TOKENS {
            vectors[token] = s.load_bytes(bytemuck::cast_ref(&lines[token]));
        }
        for (q, vector) in q.iter_mut().zip(s.transpose(vectors)) {
            let mut lanes = [0.0; 16];
            s.store(vector, &mut lanes);
            q.0 = bytemuck::cast(lanes);
        }
        for (q, sums) in q.as_chunks::<8>().0.iter().zip(&mut sums[2 * i..]) {
            let (halves, _) = q.as_chunks::<4>();
            sums.0 = s.sums(&halves[0], &halves[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::quantized::{self, QuantizedRows};

    #[test]
    fn a_nan_leaves_its_group_of_one_token_without_a_scale() {
        for group in [Group::Small, Group::K] {
            for isa in Isa::available()
                .into_iter()
                .filter(|isa| *isa != Isa::Scalar)
            {
                for place in (0..512).step_by(7) {
                    let token = place % TOKENS;
                    let mut x = vec![1.0; TOKENS * 512];
                    x[token * 512 + place] = f32::NAN;
                    let mut slabs = Slabs::new(group);
                    slabs.quantize(isa, &mut Pool::new(1), &x, 512);
                    for (i, scales) in slabs.slab(0, 0..512).scales.iter().enumerate() {
                        for (lane, scale) in scales.0.iter().enumerate() {
                            let spoilt = (i, lane) == (place / group.width(), token);
                            assert_eq!(scale.is_nan(), spoilt, "{isa} {group:?} {place}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_slab_holds_what_the_rows_hold() {
        for (group, cols) in [(Group::Small, 32), (Group::Small, 160), (Group::K, 512)] {
            for tokens in [1, 15, 16, 33] {
                let x: Vec<f32> = (0..tokens * cols)
                    .map(|i| (i * 37 % 101) as f32 - 50.0)
                    .collect();
                let mut rows = QuantizedRows::with_capacity(group, 0);
                rows.resize(tokens, cols);
                quantized::quantize(
                    Isa::Scalar,
                    group,
                    &x,
                    &mut rows.q,
                    &mut rows.scales,
                    &mut rows.sums,
                );
                for isa in Isa::available() {
                    if isa == Isa::Scalar {
                        continue;
                    }
                    let mut slabs = Slabs::new(group);
                    // What an earlier, larger input left behind.
                    slabs.quantize(isa, &mut Pool::new(1), &vec![1.0; 64 * cols], cols);
                    slabs.quantize(isa, &mut Pool::new(2), &x, cols);
                    for token in 0..tokens.next_multiple_of(TOKENS) {
                        let slab = slabs.slab(token / TOKENS, 0..cols);
                        let lane = token % TOKENS;
                        let row = (token < tokens).then(|| rows.row(token));
                        for k in 0..cols {
                            let expected = row.map_or(0, |row| row.q[k]);
                            assert_eq!(slab.q[k / 4].0[lane][k % 4], expected, "{isa}");
                        }
                        for (i, scale) in slab.scales.iter().enumerate() {
                            assert_eq!(scale.0[lane], row.map_or(0.0, |row| row.scales[i]));
                        }
                        let sum = |i: usize| row.map_or(0, |row| row.sums[i]);
                        for (i, sums) in slab.sums.iter().enumerate() {
                            assert_eq!(sums.0[lane], [sum(2 * i), sum(2 * i + 1)]);
                        }
                        assert_eq!(
                            slab.wide_sums.len(),
                            if group == Group::K { cols / 64 } else { 0 }
                        );
                        for (i, sums) in slab.wide_sums.iter().enumerate() {
                            let wide = [0, 2].map(|j| sum(4 * i + j) + sum(4 * i + j + 1));
                            assert_eq!(sums.0[lane], wide);
                        }
                        assert_eq!(
                            slab.totals.len(),
                            if group == Group::K { 0 } else { cols / 32 }
                        );
                        for (i, total) in slab.totals.iter().enumerate() {
                            let sum = sum(2 * i) + sum(2 * i + 1);
                            assert_eq!(total.0[lane], f32::from(sum));
                        }
                    }
                }
            }
        }
    }
}
