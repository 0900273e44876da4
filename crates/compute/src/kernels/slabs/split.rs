//! Slabs written column by column, by several threads: from values whose lanes are tokens already.

use std::ops::Range;

use super::{TOKENS, quantize_group, scale_of, wide_sums, write_totals};
use crate::pool::{Columns, ColumnsPart};
use crate::simd::{Lanes, Quad, Sixteen};

/// Groups of columns of all slabs, to be written in parts.
pub(crate) struct Split<'a> {
    /// Columns of a group.
    pub(super) width: usize,
    pub(super) q: Columns<'a, Sixteen<Quad>>,
    pub(super) scales: Columns<'a, Sixteen<f32>>,
    pub(super) sums: Columns<'a, Sixteen<[i16; 2]>>,
    pub(super) wide_sums: Option<Columns<'a, Sixteen<[i16; 2]>>>,
    pub(super) totals: Option<Columns<'a, Sixteen<f32>>>,
}

impl<'a> Split<'a> {
    /// The groups of part `part`.
    ///
    /// # Panics
    /// If the part was taken before.
    pub(crate) fn take(&self, part: usize) -> SplitPart<'a> {
        SplitPart {
            width: self.width,
            q: self.q.take(part),
            scales: self.scales.take(part),
            sums: self.sums.take(part),
            wide_sums: self.wide_sums.as_ref().map(|sums| sums.take(part)),
            totals: self.totals.as_ref().map(|totals| totals.take(part)),
        }
    }
}

/// Some groups of columns of all slabs.
pub(crate) struct SplitPart<'a> {
    width: usize,
    q: ColumnsPart<'a, Sixteen<Quad>>,
    scales: ColumnsPart<'a, Sixteen<f32>>,
    sums: ColumnsPart<'a, Sixteen<[i16; 2]>>,
    wide_sums: Option<ColumnsPart<'a, Sixteen<[i16; 2]>>>,
    totals: Option<ColumnsPart<'a, Sixteen<f32>>>,
}

impl SplitPart<'_> {
    /// The columns.
    pub(crate) fn range(&self) -> Range<usize> {
        let groups = self.scales.range();
        self.width * groups.start..self.width * groups.end
    }

    /// Columns of a group.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Quantises the group of slab `slab` that begins at column `column`: `[columns][tokens]`.
    #[inline(always)]
    pub(crate) fn quantize<S: Lanes>(
        &mut self,
        s: S,
        slab: usize,
        column: usize,
        values: &[[f32; TOKENS]],
    ) {
        let mut amax = s.zero();
        for x in values {
            amax = s.max_magnitude(amax, s.load(x));
        }
        let Group { q, scales, sums } = self.group(slab, column);
        let inverse = scale_of(s, amax, scales);
        let q = q.as_chunks_mut::<8>().0;
        let values = values.as_chunks::<4>().0.as_chunks::<8>().0;
        for ((q, sums), values) in q.iter_mut().zip(sums).zip(values) {
            for (q, values) in q.iter_mut().zip(values) {
                let mut scaled = [s.zero(); 4];
                for k in 0..4 {
                    scaled[k] = s.mul(s.load(&values[k]), inverse);
                }
                *q = s.quads(scaled);
            }
            let (halves, _) = q.as_chunks::<4>();
            sums.0 = s.sums(&halves[0], &halves[1]);
        }
        self.add_up(s, slab, column);
    }

    /// Quantises the group of slab `slab` that begins at column `column`, of up to sixteen rows:
    /// `[tokens][columns]`.
    #[inline(always)]
    pub(super) fn quantize_rows<S: Lanes>(
        &mut self,
        s: S,
        slab: usize,
        column: usize,
        rows: &[&[f32]; TOKENS],
    ) {
        let Group { q, scales, sums } = self.group(slab, column);
        quantize_group(s, rows, q, scales, sums);
        self.add_up(s, slab, column);
    }

    #[inline(always)]
    fn group(&mut self, slab: usize, column: usize) -> Group<'_> {
        let part = self.part(column);
        Group {
            q: self.q.row(slab, part(4)),
            scales: &mut self.scales.row(slab, part(self.width))[0],
            sums: self.sums.row(slab, part(32)),
        }
    }

    /// What is made of a group's sums.
    #[inline(always)]
    fn add_up<S: Lanes>(&mut self, s: S, slab: usize, column: usize) {
        let part = self.part(column);
        let sums = self.sums.row(slab, part(32));
        if let Some(wide) = &mut self.wide_sums {
            wide_sums(wide.row(slab, part(64)), sums);
        }
        if let Some(totals) = &mut self.totals {
            write_totals(s, totals.row(slab, part(32)), sums);
        }
    }

    /// Where the group from `column` on stands in data with one element for each so many columns.
    #[inline(always)]
    fn part(&self, column: usize) -> impl Fn(usize) -> Range<usize> + use<> {
        let end = column + self.width;
        move |unit| column / unit..end / unit
    }
}

/// Where a group goes.
struct Group<'a> {
    q: &'a mut [Sixteen<Quad>],
    scales: &'a mut Sixteen<f32>,
    sums: &'a mut [Sixteen<[i16; 2]>],
}
