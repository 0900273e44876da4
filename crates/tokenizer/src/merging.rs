//! The merge loop of BPE.
//!
//! The pair of neighbours whose merge ranks first is joined, the leftmost of equals, until no merge is
//! left: a heap over linked symbols, n·log n. It is the loop of the `tokenizers` crate, whose table of
//! merges is built from owned strings in a multiple of the time; docs/decisions/0002-tokenizer.md.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use redline_gguf::TokenId;

use crate::vocabulary::Vocabulary;

/// The ids of pieces.
pub(crate) type PieceIds<'a> = HashMap<Cow<'a, str>, u32>;

/// A merge: left and right piece, and the two joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) left: u32,
    pub(crate) right: u32,
    pub(crate) joined: u32,
}

/// What is done with characters and words beside merging.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    /// A character without a piece is unknown.
    ByteLevel {
        /// A word that is a piece is that piece, whatever merges would give.
        whole_words: bool,
    },
    /// A character without a piece falls back to its bytes; neighbours without them are one unknown.
    SentencePiece,
}

/// Merges the characters of words.
pub(crate) struct Merger {
    /// Pieces of one character; where whole words are looked up, all.
    pieces: HashMap<Box<str>, u32>,
    /// `(left, right)` to `(rank, joined)`.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// `<0x00>` to `<0xFF>`, where the style falls back to them.
    bytes: Option<Box<[Option<u32>; 256]>>,
    unknown: Option<u32>,
    whole_words: bool,
}

impl Merger {
    /// A merge loop over `pieces`; `merges` are in order of their rank.
    pub(crate) fn new(
        vocabulary: &Vocabulary<'_>,
        pieces: &PieceIds<'_>,
        merges: &[Merge],
        unknown: Option<TokenId>,
        style: Style,
    ) -> Self {
        let whole_words = matches!(style, Style::ByteLevel { whole_words: true });
        let looked_up = |piece: &str| whole_words || piece.chars().nth(1).is_none();
        let mut own: HashMap<Box<str>, u32> = pieces
            .iter()
            .filter(|(piece, _)| looked_up(piece))
            .map(|(piece, id)| (Box::from(&**piece), *id))
            .collect();
        let unknown = unknown
            .map(|id| (id.0, vocabulary.pieces[id.0 as usize]))
            .filter(|(_, piece)| !piece.is_empty());
        if let Some((id, piece)) = unknown.filter(|(_, piece)| looked_up(piece)) {
            own.insert(piece.into(), id);
        }
        let byte = |byte: usize| pieces.get(&*format!("<0x{byte:02X}>")).copied();
        let mut table = HashMap::with_capacity(merges.len());
        for (rank, merge) in (0..).zip(merges) {
            table.insert((merge.left, merge.right), (rank, merge.joined));
        }
        Self {
            pieces: own,
            merges: table,
            bytes: matches!(style, Style::SentencePiece)
                .then(|| Box::new(std::array::from_fn(byte))),
            unknown: unknown.map(|(id, _)| id),
            whole_words,
        }
    }

    /// The piece of one character.
    pub(crate) fn character(&self, character: &str) -> Option<u32> {
        self.pieces.get(character).copied()
    }

    /// Appends the tokens of one word.
    pub(crate) fn append(&self, word: &str, ids: &mut Vec<TokenId>) {
        if self.whole_words
            && let Some(id) = self.pieces.get(word)
        {
            ids.push(TokenId(*id));
            return;
        }
        let mut symbols = self.symbols(word);
        self.merge(&mut symbols);
        let left = symbols.iter().filter(|symbol| !symbol.merged);
        ids.extend(left.map(|symbol| TokenId(symbol.id)));
    }

    /// A symbol for each character or byte.
    fn symbols(&self, word: &str) -> Vec<Symbol> {
        let mut ids = Vec::with_capacity(word.len());
        // As upstream, an unknown one waits for the next piece, and bytes overtake it.
        let mut waiting = None;
        let mut buffer = [0; 4];
        for character in word.chars() {
            let character = &*character.encode_utf8(&mut buffer);
            if let Some(id) = self.character(character) {
                ids.extend(waiting.take());
                ids.push(id);
                continue;
            }
            if let Some(bytes) = &self.bytes {
                let fallback = character.bytes().map(|byte| bytes[usize::from(byte)]);
                if fallback.clone().all(|id| id.is_some()) {
                    ids.extend(fallback.flatten());
                    continue;
                }
            } else {
                ids.extend(waiting.take());
            }
            waiting = self.unknown;
        }
        ids.extend(waiting);
        let last = ids.len().wrapping_sub(1);
        (0..)
            .zip(ids)
            .map(|(at, id)| Symbol {
                id,
                before: (at > 0).then(|| at - 1),
                after: (at < last).then_some(at + 1),
                merged: false,
            })
            .collect()
    }

    fn merge(&self, symbols: &mut [Symbol]) {
        let candidate = |left: usize, pair| {
            let (rank, joined) = *self.merges.get(&pair)?;
            Some(Reverse((rank, left, joined)))
        };
        let pairs = symbols.windows(2).enumerate();
        let mut queue: BinaryHeap<_> = pairs
            .filter_map(|(left, pair)| candidate(left, (pair[0].id, pair[1].id)))
            .collect();
        while let Some(Reverse((_, left, joined))) = queue.pop() {
            let Symbol {
                id,
                before,
                after: Some(right),
                merged: false,
            } = symbols[left]
            else {
                continue;
            };
            // What stood here when this was queued may have been merged since.
            let pair = (id, symbols[right].id);
            if self.merges.get(&pair).is_none_or(|(_, now)| *now != joined) {
                continue;
            }
            let after = symbols[right].after;
            symbols[right].merged = true;
            symbols[left].id = joined;
            symbols[left].after = after;
            if let Some(after) = after {
                symbols[after].before = Some(left);
                queue.extend(candidate(left, (joined, symbols[after].id)));
            }
            if let Some(before) = before {
                queue.extend(candidate(before, (symbols[before].id, joined)));
            }
        }
    }
}

/// A part of a word, linked to its neighbours.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    before: Option<usize>,
    after: Option<usize>,
    /// It has become part of the one before.
    merged: bool,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use tokenizers::Model as _;
    use tokenizers::models::bpe::{BPE, Vocab};

    use super::*;

    /// An unknown piece, three characters, the bytes of one that has no piece (é); then what merges join.
    const PIECES: [&str; 6] = ["<unk>", "<0xC3>", "<0xA9>", "a", "b", "ä"];
    const TEXT: usize = 3;

    /// Pieces, and the merges that made them of the pairs that `choices` picks among those before.
    fn table(choices: &[(usize, usize)]) -> (Vec<String>, Vec<Merge>) {
        let mut pieces: Vec<String> = PIECES.map(str::to_owned).into();
        let mut merges: Vec<Merge> = Vec::new();
        for (left, right) in choices {
            let text = pieces.len() - TEXT;
            let (left, right) = (TEXT + left % text, TEXT + right % text);
            let piece = [&*pieces[left], &*pieces[right]].concat();
            let known = pieces.iter().position(|known| *known == piece);
            let merge = Merge {
                left: left as u32,
                right: right as u32,
                joined: known.unwrap_or(pieces.len()) as u32,
            };
            let is_new = |other: &Merge| (other.left, other.right) != (merge.left, merge.right);
            if merges.iter().all(is_new) {
                merges.push(merge);
                pieces.extend(known.is_none().then_some(piece));
            }
        }
        (pieces, merges)
    }

    /// The `tokenizers` crate's ids.
    fn upstream(
        pieces: &[String],
        merges: &[Merge],
        has_unknown: bool,
        style: Style,
        word: &str,
    ) -> Vec<TokenId> {
        let vocab: Vocab = pieces.iter().cloned().zip(0..).collect();
        let piece = |id: u32| pieces[id as usize].clone();
        let merges = merges
            .iter()
            .map(|merge| (piece(merge.left), piece(merge.right)));
        let mut builder = BPE::builder()
            .cache_capacity(0)
            .vocab_and_merges(vocab, merges.collect());
        if has_unknown {
            builder = builder.unk_token(PIECES[0].to_owned());
        }
        let builder = match style {
            Style::ByteLevel { whole_words } => builder.ignore_merges(whole_words),
            Style::SentencePiece => builder.byte_fallback(true).fuse_unk(true),
        };
        let tokens = builder.build().unwrap().tokenize(word).unwrap();
        tokens.iter().map(|token| TokenId(token.id)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(0), ..ProptestConfig::default() })]

        #[test]
        fn ids_are_those_of_the_crate_that_vocabularies_are_defined_by(
            choices in vec((0_usize..64, 0_usize..64), 0..24),
            word in "[abäéö]{0,40}",
            has_unknown: bool,
            style in prop::sample::select(vec![
                Style::ByteLevel { whole_words: false },
                Style::ByteLevel { whole_words: true },
                Style::SentencePiece,
            ]),
        ) {
            let (pieces, merges) = table(&choices);
            let ids = pieces.iter().map(|piece| Cow::Borrowed(&**piece)).zip(0..).collect();
            let vocabulary = Vocabulary {
                pieces: pieces.iter().map(|piece| &**piece).collect(),
                kinds: Vec::new(),
                ids: PieceIds::new(),
            };
            let unknown = has_unknown.then_some(TokenId(0));
            let mut found = Vec::new();
            Merger::new(&vocabulary, &ids, &merges, unknown, style).append(&word, &mut found);
            prop_assert_eq!(found, upstream(&pieces, &merges, has_unknown, style, &word));
        }
    }
}
