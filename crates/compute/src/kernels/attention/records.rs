//! Rows whose chunks several threads computed.

use super::Work;
use super::scratch::Scratch;
use crate::memory::grow;
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Query heads of a unit that there is room for; with more, fewer chunks of a row fit.
const USUAL_GROUP: usize = 16;

/// Chunks that one thread computed of at most two rows that it shares with others.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The unit of each chunk.
    units: Vec<usize>,
    /// `[chunks, queries]`
    maxima: Vec<f32>,
    /// `[chunks, queries]`
    sums: Vec<f32>,
    /// `[chunks, queries, vectors]`
    outs: Vec<[f32; 16]>,
}

impl Records {
    /// Makes room for rows of `chunks` chunks.
    pub(super) fn reserve(&mut self, vectors: usize, chunks: usize) {
        self.clear();
        grow(&mut self.units, 2 * chunks);
        grow(&mut self.maxima, 2 * chunks * USUAL_GROUP);
        grow(&mut self.sums, 2 * chunks * USUAL_GROUP);
        grow(&mut self.outs, 2 * chunks * USUAL_GROUP * vectors);
    }

    /// Chunks of a row that fit.
    pub(super) fn room(&self, work: &Work<'_>) -> usize {
        let vectors = work.shape.head_dim.div_ceil(16);
        let queries = self.sums.capacity().min(self.outs.capacity() / vectors);
        self.units.capacity().min(queries / work.group) / 2
    }

    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.maxima.clear();
        self.sums.clear();
        self.outs.clear();
    }

    /// Unit, maxima, sums and outputs of every chunk.
    fn chunks(
        &self,
        group: usize,
        vectors: usize,
    ) -> impl Iterator<Item = (usize, &[f32], &[f32], &[[f32; 16]])> {
        (self.units.iter().copied())
            .zip(self.maxima.chunks_exact(group))
            .zip(self.sums.chunks_exact(group))
            .zip(self.outs.chunks_exact(group * vectors))
            .map(|(((unit, maxima), sums), outs)| (unit, maxima, sums, outs))
    }

    pub(super) fn push(&mut self, unit: usize, maxima: &[f32], sums: &[f32], outs: &[[f32; 16]]) {
        debug_assert!(
            self.units.len() < self.units.capacity(),
            "split heeds the room"
        );
        self.units.push(unit);
        self.maxima.extend_from_slice(maxima);
        self.sums.extend_from_slice(sums);
        self.outs.extend_from_slice(outs);
    }
}

/// Merges the chunks that `scratches`, one a thread in the order of the work, have recorded into
/// their rows of `out` (`[rows, heads · head_dim]`).
pub(crate) fn merge_shared_rows(
    isa: Isa,
    work: Work<'_>,
    scratches: &mut [Scratch],
    out: &mut [f32],
) {
    if scratches
        .iter()
        .any(|scratch| !scratch.records.units.is_empty())
    {
        dispatch(
            isa,
            MergeShared {
                work,
                scratches,
                out,
            },
        );
    }
}

struct MergeShared<'a> {
    work: Work<'a>,
    scratches: &'a mut [Scratch],
    out: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for MergeShared<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self {
            work,
            scratches,
            out,
        } = self;
        let (first, others) = scratches.split_first_mut().expect("one scratch a thread");
        let own = std::mem::take(&mut first.records);
        let (group, vectors) = (work.group, work.shape.head_dim.div_ceil(16));
        let mut current = None;
        let all = std::iter::once(&own).chain(others.iter().map(|scratch| &scratch.records));
        for (unit, maxima, sums, outs) in all.flat_map(|records| records.chunks(group, vectors)) {
            let is_first = current != Some(unit);
            if let Some(done) = current.filter(|_| is_first) {
                store(s, &work, done, first, out);
            }
            current = Some(unit);
            first.load_chunk(maxima, sums, outs);
            first.merge_chunk(s, 0..group, vectors, is_first);
        }
        if let Some(done) = current {
            store(s, &work, done, first, out);
        }
        first.records = own;
    }
}

/// Divides a row's state into its place.
#[inline(always)]
fn store<S: Simd>(s: S, work: &Work<'_>, unit: usize, state: &Scratch, out: &mut [f32]) {
    let (rows, head_dim) = (work.rows(), work.shape.head_dim);
    let vectors = head_dim.div_ceil(16);
    let at = unit % rows * work.shape.heads * head_dim + unit / rows * work.columns();
    for (query, to) in out[at..][..work.columns()]
        .chunks_exact_mut(head_dim)
        .enumerate()
    {
        let sink = work.sink(unit / rows, query);
        state.divide(s, query, vectors, sink, to);
    }
}
