//! Attention over paged keys and values.
//!
//! Positions are taken in chunks of 256, fixed by absolute position. In a chunk: scores by the
//! sixteen-chain dot product times the scale; their maximum m; p = exp(s − m); sum of p in sixteen
//! chains (chain = position mod 16) and the tree; the output one chain for each dimension,
//! `o = fma(p, v, o)` in position order. Chunks merge ascending by the online-softmax rule (Milakov &
//! Gimelshein 2018): with m' the larger maximum, a = exp(m − m'), b = exp(m_c − m'),
//! `l = fma(l_c, b, l·a)` and `o = fma(o_c, b, o·a)`; then the head's sink, if it has one, as a chunk of
//! that score, the sum 1 and no output; at the end `o / l`. Positions that a query does not see are not
//! visited.
//!
//! All query heads of a key head, of as many rows as fit a [`Tile`], go through the positions
//! together, so that stored keys and values are read and widened once for all of them; no score
//! outlives its chunk. What a thread gets is cut by cost, in the middle of a row where need be
//! ([`split`]); a row that is cut is merged from its chunks by the caller ([`merge_shared_rows`]).

mod lines;
mod micro;
mod records;
mod row;
mod scratch;
mod softmax;
mod split;
mod tile;

use crate::backend::PAGE_POSITIONS;
use crate::cpu::KvCache;
use crate::pool::BlocksPart;
use crate::simd::{Isa, Kernel, Simd, dispatch};
use crate::{AttentionShape, AttentionSpan};

pub(crate) use records::merge_shared_rows;
pub(crate) use scratch::Scratch;
pub(crate) use split::Cut;

use scratch::QUERIES;
use tile::Tile;

/// Positions reduced together, a whole number of pages.
const CHUNK: usize = 256;
const _: () = assert!(CHUNK.is_multiple_of(PAGE_POSITIONS) && PAGE_POSITIONS.is_multiple_of(16));

/// One layer's attention, the same for every thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work<'a> {
    cache: &'a KvCache,
    shape: AttentionShape,
    spans: &'a [AttentionSpan<'a>],
    /// `[rows, heads · head_dim]`
    q: &'a [f32],
    /// `[heads]`
    sinks: Option<&'a [f32]>,
    /// Query heads that are computed together: all that share a key head, unless those are too many.
    group: usize,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        cache: &'a KvCache,
        shape: AttentionShape,
        spans: &'a [AttentionSpan<'a>],
        q: &'a [f32],
    ) -> Self {
        let shared = shape.heads / shape.kv_heads;
        let most = (1..=shared.min(QUERIES)).rev();
        let group = most
            .into_iter()
            .find(|group| shared.is_multiple_of(*group))
            .unwrap_or(1);
        Self {
            cache,
            shape,
            spans,
            q,
            sinks: None,
            group,
        }
    }

    /// The same with a sink for each head.
    pub(crate) fn with_sinks(self, sinks: Option<&'a [f32]>) -> Self {
        Self { sinks, ..self }
    }

    /// The sink of query `query` of a group of query heads.
    fn sink(&self, head: usize, query: usize) -> Option<f32> {
        self.sinks.map(|sinks| sinks[head * self.group + query])
    }

    /// Groups of query heads.
    fn heads(&self) -> usize {
        self.shape.heads / self.group
    }

    /// The key head of a group.
    fn kv_head(&self, head: usize) -> usize {
        head * self.group / (self.shape.heads / self.shape.kv_heads)
    }

    /// Columns of a group of query heads.
    pub(crate) fn columns(&self) -> usize {
        self.group * self.shape.head_dim
    }

    /// Rows of all spans.
    fn rows(&self) -> usize {
        self.spans.iter().map(|span| span.rows).sum()
    }

    /// Fills `cuts` with where threads begin and end, one more than there are threads. A row that is
    /// cut must fit the threads' scratches, which are alike.
    pub(crate) fn split(&self, scratch: &Scratch, cuts: &mut [Cut]) {
        split::split(self, scratch.records.room(self), cuts);
    }
}

/// Computes what lies between two cuts: whole rows into `out`, cut ones into `scratch`.
pub(crate) fn part(
    isa: Isa,
    work: Work<'_>,
    cuts: [Cut; 2],
    scratch: &mut Scratch,
    out: &mut BlocksPart<'_>,
) {
    dispatch(
        isa,
        Part {
            work,
            cuts,
            scratch,
            out,
        },
    );
}

struct Part<'a, 'b> {
    work: Work<'a>,
    cuts: [Cut; 2],
    scratch: &'a mut Scratch,
    out: &'a mut BlocksPart<'b>,
}

impl<S: Simd> Kernel<S> for Part<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let [mut from, to] = self.cuts;
        self.scratch.records.clear();
        let most_rows = tile::rows(self.work.group);
        while let Some(piece) = split::next_piece(&self.work, &mut from, to, most_rows) {
            let mut tile = Tile::new(&self.work, &piece, self.scratch);
            for chunk in piece.chunks.clone() {
                tile.chunk(s, chunk);
                if piece.whole {
                    tile.merge(s, chunk);
                } else {
                    tile.keep();
                }
            }
            if piece.whole {
                tile.finish(s, self.out);
            }
        }
    }
}
