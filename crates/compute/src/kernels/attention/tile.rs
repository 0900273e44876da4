//! Query heads and rows that go through the positions together.

use std::ops::Range;

use super::scratch::{QUERIES, Scratch, VECTORS, weights_of};
use super::softmax::weigh;
use super::split::{Piece, seen};
use super::{CHUNK, Work, micro};
use crate::backend::PAGE_POSITIONS;
use crate::kernels::kv::{self, Widened};
use crate::pool::BlocksPart;
use crate::simd::Simd;

/// Queries, and positions that they take together.
#[derive(Debug, Default)]
struct Segments {
    /// Two for each query of a batch, one for all.
    list: [(Range<usize>, Range<usize>); 2 * 4 + 1],
    count: usize,
}

impl Segments {
    fn push(&mut self, queries: Range<usize>, positions: Range<usize>) {
        if !positions.is_empty() {
            self.list[self.count] = (queries, positions);
            self.count += 1;
        }
    }
}

/// Rows of a tile, at most, with `group` query heads each.
pub(super) fn rows(group: usize) -> usize {
    (QUERIES / group).max(1)
}

/// Parts of `queries` of at most `most`, as few and as alike as can be.
pub(super) fn evenly(queries: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, len) = (queries.start, queries.len());
    let count = len.div_ceil(most);
    (0..count).map(move |i| start + len * i / count..start + len * (i + 1) / count)
}

/// A piece of the work in a scratch of its own.
pub(super) struct Tile<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) piece: &'a Piece<'a>,
    kv_head: usize,
    pub(super) group: usize,
    pub(super) vectors: usize,
    pub(super) scratch: &'a mut Scratch,
}

impl<'a> Tile<'a> {
    pub(super) fn new(work: &'a Work<'a>, piece: &'a Piece<'a>, scratch: &'a mut Scratch) -> Self {
        let (group, head_dim) = (work.group, work.shape.head_dim);
        let vectors = head_dim.div_ceil(16);
        let width = work.shape.heads * head_dim;
        for (i, row) in piece.rows.clone().enumerate() {
            let q = &work.q[(piece.span.row + row) * width + piece.head * work.columns()..];
            for (g, q) in q[..work.columns()].chunks_exact(head_dim).enumerate() {
                let to = &mut scratch.q[(i * group + g) * vectors..][..vectors];
                let to = to.as_flattened_mut();
                to[..head_dim].copy_from_slice(q);
                to[head_dim..].fill(0.0);
            }
        }
        Self {
            work,
            piece,
            kv_head: work.kv_head(piece.head),
            group,
            vectors,
            scratch,
        }
    }

    fn queries(&self) -> usize {
        self.piece.rows.len() * self.group
    }

    /// Positions of `chunk` that row `i` of the tile sees, which may be none.
    fn seen(&self, i: usize, chunk: usize) -> Range<usize> {
        let seen = seen(
            &self.work.shape,
            &self.piece.span,
            self.piece.rows.start + i,
        );
        seen.start.max(chunk * CHUNK)..seen.end.min((chunk + 1) * CHUNK)
    }

    /// Rows of the tile that see a position of `positions`.
    fn rows_that_see(&self, positions: &Range<usize>) -> Range<usize> {
        if !self.work.shape.causal {
            return 0..self.piece.rows.len();
        }
        let position = self.piece.span.position + self.piece.rows.start;
        let end = match self.work.shape.window {
            None => usize::MAX,
            Some(window) => (positions.end + window - 1).saturating_sub(position),
        };
        let rows = self.piece.rows.len();
        positions.start.saturating_sub(position).min(rows)..end.min(rows)
    }

    /// Positions of `chunk` that any row sees.
    fn all_seen(&self, chunk: usize) -> Range<usize> {
        self.seen(0, chunk).start..self.seen(self.piece.rows.len() - 1, chunk).end
    }

    /// The queries of `rows` in runs that see the same positions, or nearly so, in batches of at most
    /// `S::QUERIES`.
    #[inline(always)]
    fn batches<S: Simd>(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<S> {
        let queries = rows.start * self.group..rows.end * self.group;
        let run = if 2 * self.group > S::QUERIES {
            self.group
        } else {
            queries.len().max(1)
        };
        let starts = queries.step_by(run);
        starts.flat_map(move |start| evenly(start..start + run, S::QUERIES))
    }

    /// Scores, weights and outputs of one chunk.
    #[inline(always)]
    pub(super) fn chunk<S: Simd>(&mut self, s: S, chunk: usize) {
        self.scores(s, chunk);
        for row in self.rows_that_see(&(chunk * CHUNK..(chunk + 1) * CHUNK)) {
            let seen = self.seen(row, chunk);
            let seen = seen.start - chunk * CHUNK..seen.end - chunk * CHUNK;
            for query in row * self.group..(row + 1) * self.group {
                let (weights, _) = self.scratch.weights.as_flattened_mut().as_chunks_mut();
                let (maximum, sum) = weigh(s, seen.clone(), &mut weights[query]);
                self.scratch.chunk.maxima[query] = maximum;
                self.scratch.chunk.sums[query] = sum;
            }
        }
        self.outputs(s, chunk);
    }

    #[inline(always)]
    fn scores<S: Simd>(&mut self, s: S, chunk: usize) {
        let all = self.all_seen(chunk);
        for block in all.start / 16..all.end.div_ceil(16) {
            let positions = 16 * block..16 * (block + 1);
            let page = self.piece.span.pages[positions.start / PAGE_POSITIONS];
            let keys = self
                .work
                .cache
                .keys(self.work.shape.layer, page, self.kv_head);
            let ahead = self.ahead(chunk, positions.start / PAGE_POSITIONS, false);
            kv::widen_keys(
                s,
                keys,
                positions.start % PAGE_POSITIONS / 16,
                ahead,
                &mut self.scratch.keys.as_chunks_mut().0[..self.vectors],
            );
            for batch in self.batches::<S>(self.rows_that_see(&positions)) {
                match batch.len() {
                    1 => self.score::<S, 1>(s, batch.start, block),
                    2 if S::QUERIES >= 2 => self.score::<S, 2>(s, batch.start, block),
                    3 if S::QUERIES >= 3 => self.score::<S, 3>(s, batch.start, block),
                    4 if S::QUERIES >= 4 => self.score::<S, 4>(s, batch.start, block),
                    _ => unreachable!("a batch has at most S::QUERIES queries"),
                }
            }
        }
    }

    /// Scores of queries `first..first + N` at sixteen positions.
    #[inline(always)]
    fn score<S: Simd, const N: usize>(&mut self, s: S, first: usize, block: usize) {
        let Scratch {
            keys, q, weights, ..
        } = &mut *self.scratch;
        let vectors = self.vectors;
        let q: [&[[f32; 16]]; N] = std::array::from_fn(|j| &q[(first + j) * vectors..][..vectors]);
        let scores = micro::scores(s, q, &keys.as_chunks().0[..vectors]);
        for j in 0..N {
            let to = &mut weights[(first + j) * (CHUNK / 16) + block % (CHUNK / 16)];
            s.store(s.mul(scores[j], s.splat(self.work.shape.scale)), to);
        }
    }

    #[inline(always)]
    fn outputs<S: Simd>(&mut self, s: S, chunk: usize) {
        let queries = self.queries();
        self.scratch.chunk_out[..queries * self.vectors].fill([0.0; 16]);
        let as_stored = self.takes_values_as_stored::<S>();
        let all = self.all_seen(chunk);
        for page in all.start / PAGE_POSITIONS..all.end.div_ceil(PAGE_POSITIONS) {
            let start = page * PAGE_POSITIONS;
            let positions = all.start.max(start)..all.end.min(start + PAGE_POSITIONS);
            let values = self.work.cache.values(
                self.work.shape.layer,
                self.piece.span.pages[page],
                self.kv_head,
            );
            let ahead = self.ahead(chunk, page, true);
            if as_stored {
                self.add_stored(s, &positions, values, ahead);
                continue;
            }
            for vector in (0..self.vectors).step_by(VECTORS) {
                let offsets = positions.start - start..positions.end - start;
                let to = self.scratch.values.as_chunks_mut::<VECTORS>().0;
                kv::widen_values(s, values, offsets, vector, ahead, to);
                for batch in self.batches::<S>(self.rows_that_see(&positions)) {
                    let segments = self.segments(batch, &positions);
                    for (queries, positions) in segments.list.into_iter().take(segments.count) {
                        match queries.len() {
                            1 => self.add_values::<S, 1>(s, queries.start, positions, vector),
                            2 if S::QUERIES >= 2 => {
                                self.add_values::<S, 2>(s, queries.start, positions, vector)
                            }
                            3 if S::QUERIES >= 3 => {
                                self.add_values::<S, 3>(s, queries.start, positions, vector)
                            }
                            4 if S::QUERIES >= 4 => {
                                self.add_values::<S, 4>(s, queries.start, positions, vector)
                            }
                            _ => unreachable!("a batch has at most S::QUERIES queries"),
                        }
                    }
                }
            }
        }
    }

    /// The positions that all queries of a batch see, between those that only some see, which each
    /// query takes by itself; of a page's `positions`.
    fn segments(&self, batch: Range<usize>, positions: &Range<usize>) -> Segments {
        let seen = |query: usize| {
            let row = self.piece.rows.start + query / self.group;
            let seen = seen(&self.work.shape, &self.piece.span, row);
            seen.start.max(positions.start)..seen.end.min(positions.end)
        };
        let mut segments = Segments::default();
        let (first, last) = (seen(batch.start), seen(batch.end - 1));
        if first == last {
            segments.push(batch, first);
            return segments;
        }
        let common = if last.start < first.end {
            last.start..first.end
        } else {
            positions.end..positions.end
        };
        for query in batch.clone() {
            let seen = seen(query);
            segments.push(query..query + 1, seen.start..seen.end.min(common.start));
        }
        segments.push(batch.clone(), common.clone());
        for query in batch {
            let seen = seen(query);
            segments.push(query..query + 1, seen.start.max(common.end)..seen.end);
        }
        segments
    }

    /// Adds the weighted values of `positions`, of one page, to the chunk's outputs of queries
    /// `first..first + N`, from vector `vector` on as far as values are widened.
    #[inline(always)]
    fn add_values<S: Simd, const N: usize>(
        &mut self,
        s: S,
        first: usize,
        positions: Range<usize>,
        vector: usize,
    ) {
        let vectors = self.vectors;
        let count = (vectors - vector).min(VECTORS);
        let mut done = 0;
        if count == 4 {
            self.mix::<S, N, 4>(s, first, &positions, (vector, 0));
            done = 4;
        }
        if count - done >= 2 {
            self.mix::<S, N, 2>(s, first, &positions, (vector, 0));
            done = 2;
        }
        if count - done == 1 {
            self.mix::<S, N, 1>(s, first, &positions, (vector, done));
        }
    }

    #[inline(always)]
    fn mix<S: Simd, const N: usize, const V: usize>(
        &mut self,
        s: S,
        first: usize,
        positions: &Range<usize>,
        (vector, offset): (usize, usize),
    ) {
        let Scratch {
            weights,
            chunk_out,
            values,
            ..
        } = &mut *self.scratch;
        let (start, len) = (positions.start, positions.len());
        let p = weights_of(weights, first);
        let mut rows = chunk_out[first * self.vectors..].chunks_exact_mut(self.vectors);
        let acc: [&mut [[f32; 16]]; N] = std::array::from_fn(|_| {
            &mut rows.next().expect("outputs of every query")[vector + offset..][..V]
        });
        let (values, _) = values.as_chunks();
        let values = Widened::<VECTORS>(&values[start % PAGE_POSITIONS..][..len]);
        micro::mix::<S, N, V>(s, (p, start % CHUNK), values, offset, acc);
    }

    /// Stored bytes that are read next after the keys (or values) of a page.
    fn ahead(&self, chunk: usize, page: usize, values: bool) -> &'a [u8] {
        let all = self.all_seen(chunk);
        let (first, end) = (all.start / PAGE_POSITIONS, all.end.div_ceil(PAGE_POSITIONS));
        let (page, values) = match (page + 1 < end, values) {
            (true, values) => (page + 1, values),
            (false, false) => (first, true),
            (false, true) if chunk + 1 < self.piece.chunks.end => (page + 1, false),
            (false, true) => (page, true),
        };
        let (cache, layer) = (self.work.cache, self.work.shape.layer);
        let id = self.piece.span.pages[page];
        if values {
            cache.values(layer, id, self.kv_head).bytes
        } else {
            cache.keys(layer, id, self.kv_head).bytes
        }
    }

    /// Merges the chunk just computed into the ones before it.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(&mut self, s: S, chunk: usize) {
        let positions = chunk * CHUNK..(chunk + 1) * CHUNK;
        // Under a window rows start one by one, the later ones perhaps here.
        let rows = self.rows_that_see(&positions);
        let started = rows
            .clone()
            .take_while(|row| self.first_seen(*row) < positions.start)
            .count();
        let queries = |rows: Range<usize>| rows.start * self.group..rows.end * self.group;
        let before = queries(rows.start..rows.start + started);
        let starting = queries(rows.start + started..rows.end);
        self.scratch.merge_chunk(s, before, self.vectors, false);
        self.scratch.merge_chunk(s, starting, self.vectors, true);
    }

    /// The first position that row `i` of the tile sees.
    fn first_seen(&self, i: usize) -> usize {
        seen(
            &self.work.shape,
            &self.piece.span,
            self.piece.rows.start + i,
        )
        .start
    }

    /// Keeps the chunk just computed, of a row that several threads share.
    pub(super) fn keep(&mut self) {
        let queries = self.queries();
        let Scratch {
            records,
            chunk,
            chunk_out,
            ..
        } = &mut *self.scratch;
        let (maxima, sums) = (&chunk.maxima[..queries], &chunk.sums[..queries]);
        records.push(
            self.piece.unit,
            maxima,
            sums,
            &chunk_out[..queries * self.vectors],
        );
    }

    /// Divides, and puts the rows where they belong.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&mut self, s: S, out: &mut BlocksPart<'_>) {
        let head_dim = self.work.shape.head_dim;
        for i in 0..self.piece.rows.len() {
            let row = self.piece.span.row + self.piece.rows.start + i;
            let to = out.block(row, self.piece.head);
            for (g, to) in to.chunks_exact_mut(head_dim).enumerate() {
                let query = i * self.group + g;
                let sink = self.work.sink(self.piece.head, g);
                self.scratch.divide(s, query, self.vectors, sink, to);
            }
        }
    }
}
