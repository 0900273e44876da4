//! A matrix split into blocks of columns of single rows.

use std::marker::PhantomData;
use std::ops::Range;

use super::parts::{MAX_PARTS, Taken};

/// A matrix `[rows, width]` in blocks of `block` columns of one row each, counted column after column:
/// block `i` is row `i mod rows` of columns `i / rows · block ..`.
#[derive(Debug)]
pub(crate) struct Blocks<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    block: usize,
    parts: &'a [Range<usize>],
    taken: Taken,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: parts are disjoint and each is handed out once, so sharing the splitter shares no element.
unsafe impl Sync for Blocks<'_> {}

impl<'a> Blocks<'a> {
    /// Splits `data` into parts of these blocks; blocks between parts belong to none.
    ///
    /// # Panics
    /// If the parts are not ascending and within the matrix, or the blocks not whole.
    pub(crate) fn new(
        data: &'a mut [f32],
        width: usize,
        block: usize,
        parts: &'a [Range<usize>],
    ) -> Self {
        assert!(width > 0 && data.len().is_multiple_of(width), "whole rows");
        assert!(block > 0 && width.is_multiple_of(block), "whole blocks");
        assert!(parts.len() <= MAX_PARTS, "one bit a part");
        let rows = data.len() / width;
        let mut end = 0;
        for part in parts {
            assert!(
                end <= part.start && part.start <= part.end,
                "ascending parts"
            );
            end = part.end;
        }
        assert!(end <= width / block * rows, "blocks of the matrix");
        Self {
            start: data.as_mut_ptr(),
            rows,
            width,
            block,
            parts,
            taken: Taken::default(),
            borrow: PhantomData,
        }
    }

    /// The blocks of part `part`.
    ///
    /// # Panics
    /// If the part was taken before.
    pub(crate) fn take(&self, part: usize) -> BlocksPart<'a> {
        self.taken.take(part, self.parts.len());
        BlocksPart {
            start: self.start,
            rows: self.rows,
            width: self.width,
            block: self.block,
            range: self.parts[part].clone(),
            borrow: PhantomData,
        }
    }
}

/// A contiguous range of blocks.
#[derive(Debug)]
pub(crate) struct BlocksPart<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    block: usize,
    range: Range<usize>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl BlocksPart<'_> {
    /// Columns `column · block ..` of `row`.
    ///
    /// # Panics
    /// If the block is not in this part.
    #[inline]
    pub(crate) fn block(&mut self, row: usize, column: usize) -> &mut [f32] {
        assert!(
            row < self.rows && self.range.contains(&(column * self.rows + row)),
            "a block of the part"
        );
        let offset = row * self.width + column * self.block;
        // SAFETY: the block is one of the range, which `Blocks::new` has checked to lie in the matrix.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: ranges of different parts are disjoint, each is handed out once, and the result
        // borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(start, self.block) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_land_where_they_should() {
        let mut data = vec![0.0; 3 * 8];
        let parts = [0..2, 3..7, 7..12];
        let blocks = Blocks::new(&mut data, 8, 2, &parts);
        for (part, range) in parts.iter().enumerate() {
            let mut of_part = blocks.take(part);
            for block in range.clone() {
                of_part.block(block % 3, block / 3).fill((part + 1) as f32);
            }
        }
        let expected: Vec<f32> = (0..3)
            .flat_map(|row| (0..8).map(move |column| column / 2 * 3 + row))
            .map(|block| {
                (parts.iter().position(|part| part.contains(&block)))
                    .map_or(0.0, |p| (p + 1) as f32)
            })
            .collect();
        assert_eq!(data, expected);
    }

    #[test]
    #[should_panic(expected = "a block of the part")]
    fn a_part_stays_within_its_blocks() {
        let mut data = vec![0.0; 3 * 8];
        Blocks::new(&mut data, 8, 2, &[0..3, 4..12])
            .take(1)
            .block(0, 1);
    }

    #[test]
    #[should_panic(expected = "ascending parts")]
    fn parts_do_not_overlap() {
        Blocks::new(&mut [0.0; 24], 8, 2, &[0..3, 2..12]);
    }
}
