//! Values of a single row, whose few queries take them as they are stored: widened first, they would
//! be written and read again for each other query only.

use std::ops::Range;

use super::scratch::{Scratch, weights_of};
use super::tile::{Tile, evenly};
use super::{CHUNK, micro};
use crate::KvFormat;
use crate::backend::PAGE_POSITIONS;
use crate::kernels::kv::{Slab, Values};
use crate::simd::Simd;

/// Vectors of output dimensions that are added to at a time.
const VECTORS: usize = 2;

impl Tile<'_> {
    /// Whether [`add_stored`](Self::add_stored) is made for this tile.
    pub(super) fn takes_values_as_stored<S: Simd>(&self) -> bool {
        S::ROW_QUERIES > 0
            && self.piece.rows.len() == 1
            && self.work.shape.head_dim.is_multiple_of(16 * VECTORS)
    }

    /// Adds the weighted values of `positions`, of one page, to all queries' outputs of the chunk.
    #[inline(always)]
    pub(super) fn add_stored<S: Simd>(
        &mut self,
        s: S,
        positions: &Range<usize>,
        values: Slab<'_>,
        ahead: &[u8],
    ) {
        let start = positions.start % PAGE_POSITIONS;
        let offsets = start..start + positions.len();
        let place = positions.start % CHUNK;
        match values.format {
            KvFormat::F16 => self.add_all(s, place, values.halves(offsets, ahead)),
            KvFormat::F32 => self.add_all(s, place, values.floats(offsets, ahead)),
            KvFormat::Q8_0 => self.add_all(s, place, values.quants(offsets, ahead)),
        }
    }

    #[inline(always)]
    fn add_all<S: Simd>(&mut self, s: S, place: usize, values: impl Values) {
        for batch in evenly(0..self.group, S::ROW_QUERIES) {
            let first = batch.start;
            match batch.len() {
                1 => self.add::<S, 1>(s, first, place, values),
                2 => self.add::<S, 2>(s, first, place, values),
                3 => self.add::<S, 3>(s, first, place, values),
                4 => self.add::<S, 4>(s, first, place, values),
                5 => self.add::<S, 5>(s, first, place, values),
                6 => self.add::<S, 6>(s, first, place, values),
                7 => self.add::<S, 7>(s, first, place, values),
                8 => self.add::<S, 8>(s, first, place, values),
                _ => unreachable!("a batch has at most S::ROW_QUERIES queries"),
            }
        }
    }

    /// Adds `values`, whose weights begin at `place`, to queries `first..first + N`.
    #[inline(always)]
    fn add<S: Simd, const N: usize>(
        &mut self,
        s: S,
        first: usize,
        place: usize,
        values: impl Values,
    ) {
        let Scratch {
            weights, chunk_out, ..
        } = &mut *self.scratch;
        let p = weights_of(weights, first);
        for vector in (0..self.vectors).step_by(VECTORS) {
            let mut rows = chunk_out[first * self.vectors..].chunks_exact_mut(self.vectors);
            let acc: [&mut [[f32; 16]]; N] = std::array::from_fn(|_| {
                &mut rows.next().expect("outputs of every query")[vector..][..VECTORS]
            });
            micro::mix::<S, N, VECTORS>(s, (p, place), values, vector, acc);
        }
    }
}
