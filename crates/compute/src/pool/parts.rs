//! Disjoint mutable parts of one output, one for each thread.
//!
//! Both types hand out every part at most once (checked at run time by one bit a part), which is
//! what makes the shared mutable access sound without a lock or an allocation.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most parts an output can be split into, one bit each.
pub(crate) const MAX_PARTS: usize = 64;

/// The share of `units` that part `part` of `parts` gets: contiguous, ascending, sizes within one
/// `granule` of each other, boundaries on multiples of `granule`.
pub(crate) fn share(units: usize, granule: usize, part: usize, parts: usize) -> Range<usize> {
    let granules = units.div_ceil(granule);
    let at = |part: usize| (granules * part / parts * granule).min(units);
    at(part)..at(part + 1)
}

/// Which parts have been taken.
#[derive(Debug, Default)]
pub(super) struct Taken(AtomicU64);

impl Taken {
    pub(super) fn take(&self, part: usize, parts: usize) {
        assert!(part < parts && parts <= MAX_PARTS, "part {part} of {parts}");
        let before = self.0.fetch_or(1 << part, Ordering::Relaxed);
        assert!(before & (1 << part) == 0, "part {part} taken twice");
    }
}

/// A slice of equal units (rows, heads), split into contiguous runs.
#[derive(Debug)]
pub(crate) struct Rows<'a, T> {
    start: *mut T,
    units: usize,
    unit: usize,
    parts: usize,
    taken: Taken,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are disjoint and each is handed out once, so sharing the splitter shares no element.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// Splits `data` of units of `unit` elements into `parts`.
    pub(crate) fn new(data: &'a mut [T], unit: usize, parts: usize) -> Self {
        assert!(unit > 0 && data.len().is_multiple_of(unit), "whole units");
        let units = data.len() / unit;
        let start = data.as_mut_ptr();
        Self {
            start,
            units,
            unit,
            parts,
            taken: Taken::default(),
            borrow: PhantomData,
        }
    }

    /// Units `range` of part `part`, and their elements.
    ///
    /// # Panics
    /// If the part was taken before.
    pub(crate) fn take(&self, part: usize) -> (Range<usize>, &'a mut [T]) {
        self.taken.take(part, self.parts);
        let range = share(self.units, 1, part, self.parts);
        let (offset, len) = (range.start * self.unit, range.len() * self.unit);
        // SAFETY: `share` stays within `units`, so the offset is within the borrowed slice.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: the ranges of different parts are disjoint, within the slice borrowed for `'a`,
        // and `taken` hands out each once.
        (range, unsafe { std::slice::from_raw_parts_mut(start, len) })
    }
}

/// A matrix `[rows, width]` split into column ranges.
#[derive(Debug)]
pub(crate) struct Columns<'a, T = f32> {
    start: *mut T,
    rows: usize,
    width: usize,
    granule: usize,
    parts: usize,
    taken: Taken,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Rows`.
unsafe impl<T: Send> Sync for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// Splits the columns of `data` into `parts` at multiples of `granule`.
    pub(crate) fn new(data: &'a mut [T], width: usize, granule: usize, parts: usize) -> Self {
        assert!(width > 0 && data.len().is_multiple_of(width), "whole rows");
        let rows = data.len() / width;
        let start = data.as_mut_ptr();
        Self {
            start,
            rows,
            width,
            granule,
            parts,
            taken: Taken::default(),
            borrow: PhantomData,
        }
    }

    /// The columns of part `part`.
    ///
    /// # Panics
    /// If the part was taken before.
    pub(crate) fn take(&self, part: usize) -> ColumnsPart<'a, T> {
        self.taken.take(part, self.parts);
        let range = share(self.width, self.granule, part, self.parts);
        ColumnsPart {
            start: self.start,
            rows: self.rows,
            width: self.width,
            range,
            borrow: PhantomData,
        }
    }
}

/// All rows of a contiguous range of columns.
#[derive(Debug)]
pub(crate) struct ColumnsPart<'a, T = f32> {
    start: *mut T,
    rows: usize,
    width: usize,
    range: Range<usize>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> ColumnsPart<'_, T> {
    /// The columns of this part.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Columns `columns` of `row`.
    ///
    /// # Panics
    /// If they are not in this part.
    #[inline]
    pub(crate) fn row(&mut self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(row < self.rows, "row within the matrix");
        assert!(
            self.range.start <= columns.start
                && columns.start <= columns.end
                && columns.end <= self.range.end,
            "columns within the part"
        );
        // SAFETY: row and columns were just checked to lie within the matrix.
        let start = unsafe { self.start.add(row * self.width + columns.start) };
        // SAFETY: the elements belong to this part's columns, which no other part has, and the
        // result borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(start, columns.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for units in [0, 1, 3, 4, 5, 63, 64, 1000] {
            for granule in [1, 4, 16] {
                for parts in [1, 2, 3, 7, 64] {
                    let mut next = 0;
                    for part in 0..parts {
                        let range = share(units, granule, part, parts);
                        assert_eq!(range.start, next);
                        assert!(range.start.is_multiple_of(granule) || range.start == units);
                        next = range.end;
                    }
                    assert_eq!(next, units);
                }
            }
        }
    }

    #[test]
    fn parts_write_where_they_should() {
        let mut data = vec![0.0; 3 * 10];
        let columns = Columns::new(&mut data, 10, 4, 2);
        for part in 0..2 {
            let mut part_columns = columns.take(part);
            let range = part_columns.range();
            for row in 0..3 {
                part_columns
                    .row(row, range.clone())
                    .fill((row * 2 + part) as f32);
            }
        }
        let expected: Vec<f32> = (0..3)
            .flat_map(|row| (0..10).map(move |column| (row * 2 + usize::from(column >= 4)) as f32))
            .collect();
        assert_eq!(data, expected);
    }

    #[test]
    #[should_panic(expected = "taken twice")]
    fn a_part_is_taken_once() {
        let mut data = vec![0.0; 8];
        let rows = Rows::new(&mut data, 2, 2);
        let _first = rows.take(1);
        let _second = rows.take(1);
    }

    #[test]
    #[should_panic(expected = "columns within the part")]
    fn a_part_stays_within_its_columns() {
        let mut data = vec![0.0; 20];
        let columns = Columns::new(&mut data, 10, 1, 2);
        columns.take(0).row(0, 4..6);
    }
}
