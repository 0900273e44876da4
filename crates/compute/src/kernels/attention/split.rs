//! Which thread computes what.
//!
//! The work is a line of units, head after head, in each the rows of all spans; a row costs the
//! positions it sees. Threads get contiguous parts of equal cost, cut between rows or between the
//! chunks of a row.

use std::ops::Range;

use super::{CHUNK, Work};
use crate::{AttentionShape, AttentionSpan};

/// Cost of a row beside that of its positions: merging, dividing, copying.
const ROW_COST: usize = 16;

/// A place between two chunks of the work, or at the start of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    /// `head · rows + row`
    pub(crate) unit: usize,
    /// The first chunk after the cut; 0: the row's start, whichever chunk that is.
    pub(crate) chunk: usize,
}

impl Cut {
    /// Units that are whole between this cut and `to`.
    pub(crate) fn whole_units(self, to: Self) -> Range<usize> {
        let start = self.unit + usize::from(self.chunk > 0);
        start..to.unit.max(start)
    }
}

/// Contiguous work of one head and one span.
#[derive(Debug, Clone)]
pub(super) struct Piece<'a> {
    pub(super) head: usize,
    pub(super) span: AttentionSpan<'a>,
    /// Rows within the span.
    pub(super) rows: Range<usize>,
    /// The first row's unit.
    pub(super) unit: usize,
    /// Chunks that some row sees and that are this part's.
    pub(super) chunks: Range<usize>,
    /// Whether these are all chunks of the rows.
    pub(super) whole: bool,
}

/// Positions that a row of a span sees.
pub(super) fn seen(shape: &AttentionShape, span: &AttentionSpan<'_>, row: usize) -> Range<usize> {
    if !shape.causal {
        return 0..span.position + span.rows;
    }
    let end = span.position + row + 1;
    shape.window.map_or(0, |window| end.saturating_sub(window))..end
}

/// Cost of the first `rows` rows of a span.
fn cost(shape: &AttentionShape, span: &AttentionSpan<'_>, rows: usize) -> usize {
    if !shape.causal {
        return rows * (span.position + span.rows + ROW_COST);
    }
    // Rows up to here see everything before them, later ones a window.
    let growing = shape.window.map_or(rows, |window| {
        window.saturating_sub(span.position).min(rows)
    });
    let seen = growing * span.position + growing * (growing + 1) / 2;
    seen + (rows - growing) * shape.window.unwrap_or(0) + rows * ROW_COST
}

/// Fills `cuts` with the ends of the parts of `cuts.len() − 1` threads. A row is cut only where its
/// chunks are at most `most_chunks`.
pub(super) fn split(work: &Work<'_>, most_chunks: usize, cuts: &mut [Cut]) {
    let parts = cuts.len() - 1;
    let rows = work.rows();
    let head: usize = (work.spans.iter())
        .map(|span| cost(&work.shape, span, span.rows))
        .sum();
    let total = head * work.heads();
    cuts.fill(Cut::default());
    if total == 0 {
        return;
    }
    for (part, cut) in cuts.iter_mut().enumerate().skip(1) {
        let target = total * part / parts;
        *cut = if part == parts {
            Cut {
                unit: rows * work.heads(),
                chunk: 0,
            }
        } else {
            let within = within_head(work, target % head, most_chunks);
            Cut {
                unit: target / head * rows + within.unit,
                ..within
            }
        };
    }
}

/// The cut nearest to `target` of the cost of a head's rows.
fn within_head(work: &Work<'_>, mut target: usize, most_chunks: usize) -> Cut {
    let mut unit = 0;
    for span in work.spans {
        let all = cost(&work.shape, span, span.rows);
        if target >= all {
            target -= all;
            unit += span.rows;
            continue;
        }
        let (mut low, mut high) = (0, span.rows);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if cost(&work.shape, span, middle) <= target {
                low = middle;
            } else {
                high = middle;
            }
        }
        unit += low;
        let seen = seen(&work.shape, span, low);
        let position = seen.start + (target - cost(&work.shape, span, low)).min(seen.len());
        let (first, end) = (seen.start / CHUNK, seen.end.div_ceil(CHUNK));
        let before = (position / CHUNK * CHUNK).max(seen.start);
        let after = ((position / CHUNK + 1) * CHUNK).min(seen.end);
        // Of two as near, the later: the first part is the caller's, which has begun already.
        let chunk = position / CHUNK + usize::from(after - position <= position - before);
        return if chunk >= end
            || (end - first > most_chunks && 2 * position > seen.start + seen.end)
        {
            Cut {
                unit: unit + 1,
                chunk: 0,
            }
        } else if chunk <= first || end - first > most_chunks {
            Cut { unit, chunk: 0 }
        } else {
            Cut { unit, chunk }
        };
    }
    Cut { unit, chunk: 0 }
}

/// The piece that starts at `from`, of at most `most_rows` rows; `from` becomes its end.
pub(super) fn next_piece<'a>(
    work: &Work<'a>,
    from: &mut Cut,
    to: Cut,
    most_rows: usize,
) -> Option<Piece<'a>> {
    if *from >= to {
        return None;
    }
    let rows = work.rows();
    let (head, mut row) = (from.unit / rows, from.unit % rows);
    let span = work.spans.iter().find(|span| {
        let here = row < span.rows;
        if !here {
            row -= span.rows;
        }
        here
    })?;
    let whole = from.chunk == 0 && from.unit < to.unit;
    let count = if whole {
        (span.rows - row).min(to.unit - from.unit).min(most_rows)
    } else {
        1
    };
    let start = seen(&work.shape, span, row).start / CHUNK;
    let end = seen(&work.shape, span, row + count - 1).end.div_ceil(CHUNK);
    let end = if from.unit == to.unit {
        to.chunk.min(end)
    } else {
        end
    };
    let piece = Piece {
        head,
        span: *span,
        rows: row..row + count,
        unit: from.unit,
        chunks: start.max(from.chunk)..end,
        whole,
    };
    *from = if from.unit == to.unit {
        to
    } else {
        Cut {
            unit: from.unit + count,
            chunk: 0,
        }
    };
    Some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Cpu, Isa, KvFormat, KvShape, PageId};

    /// Where one query at `position` is cut for two threads.
    fn middle(kv_heads: usize, position: usize, most_chunks: usize) -> Cut {
        let head_dim = 16;
        let pages: Vec<PageId> = (0..8).map(PageId).collect();
        let cache = Cpu::new(Isa::Scalar, 1).kv_cache(KvShape {
            layers: 1,
            pages: pages.len(),
            kv_heads,
            head_dim,
            format: KvFormat::F16,
        });
        let shape = AttentionShape {
            layer: 0,
            heads: kv_heads,
            kv_heads,
            head_dim,
            scale: 1.0,
            window: None,
            causal: true,
        };
        let spans = [AttentionSpan {
            row: 0,
            rows: 1,
            position,
            pages: &pages,
        }];
        let q = vec![0.0; kv_heads * head_dim];
        let work = Work::new(&cache, shape, &spans, &q);
        let mut cuts = [Cut::default(); 3];
        split(&work, most_chunks, &mut cuts);
        cuts[1]
    }

    #[test]
    fn a_row_that_cannot_be_halved_goes_to_the_first_part() {
        let at = |unit, chunk| Cut { unit, chunk };
        for position in [0, 3, 100, 200, 255] {
            assert_eq!(middle(1, position, 8), at(1, 0), "{position}");
            assert_eq!(middle(2, position, 8), at(1, 0), "{position}");
            assert_eq!(middle(3, position, 8), at(2, 0), "{position}");
        }
        // Two chunks are cut between them, unless there is no room for records of them.
        assert_eq!(middle(1, 511, 8), at(0, 1));
        assert_eq!(middle(3, 511, 8), at(1, 1));
        assert_eq!(middle(3, 511, 1), at(2, 0));
        // 256 positions and 40 more: nearer to the cut than to the start.
        assert_eq!(middle(1, 295, 8), at(0, 1));
    }
}
