//! The merges that a file lists, by the ids of their pieces.

use crate::error::{Error, quote};
use crate::merging::Merge;
use crate::vocabulary::Vocabulary;

/// A merge's two pieces, or the text that is none.
pub(crate) type Pair<'m> = Result<(&'m str, &'m str), &'m str>;

/// The two pieces of a merge; the first is not empty, so a space at its start belongs to it.
pub(crate) fn split(merge: &str) -> Pair<'_> {
    let mut spaces = merge.char_indices().skip(1);
    let pair = spaces
        .find(|(_, character)| *character == ' ')
        .map(|(space, _)| (&merge[..space], &merge[space + 1..]));
    pair.filter(|(_, right)| !right.is_empty()).ok_or(merge)
}

/// The merges, in the same order.
pub(crate) fn resolve<'m>(
    vocabulary: &Vocabulary<'_>,
    pairs: impl Iterator<Item = Pair<'m>>,
) -> Result<Vec<Merge>, Error> {
    let mut merges = Vec::new();
    let mut joined = String::new();
    for (index, pair) in pairs.enumerate() {
        let (left, right) = pair.map_err(|merge| Error::MergeForm {
            index,
            merge: quote(merge),
        })?;
        joined.clear();
        joined.extend([left, right]);
        let id = |piece: &str| {
            vocabulary.id(piece).ok_or_else(|| Error::MergePiece {
                index,
                merge: quote(&[left, right].join(" ")),
                piece: quote(piece),
            })
        };
        // Vocabularies are numbered as merges made them: most often it is simply the next.
        let next = merges.last().map_or(0, |merge: &Merge| merge.joined + 1);
        let is_next = vocabulary.pieces.get(next as usize) == Some(&&*joined);
        merges.push(Merge {
            left: id(left)?,
            right: id(right)?,
            joined: if is_next { next } else { id(&joined)? },
        });
    }
    Ok(merges)
}
