//! A tokenizer's vocabulary as a tree of bytes, in which all tokens that may come next are found in
//! one walk.

use std::collections::HashSet;
use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use redline_tokenizer::{TokenId, Tokenizer};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use crate::Error;
use crate::error::reason;

/// Bytes of a token, and nodes of a tree, that llguidance has room for.
const MAX_TOKEN_BYTES: usize = 1000;
const MAX_NODES: usize = (1 << 22) - 1;

/// What one set of tokens may cost; what it does not reach is an error. Counted, not timed: the answer
/// depends on nothing else.
fn limits() -> ParserLimits {
    ParserLimits {
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// What compiles grammars for the vocabulary of `tokenizer`.
pub(crate) fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, Error> {
    let words = words(tokenizer);
    if nodes(&words) > MAX_NODES {
        let message = format!("its vocabulary makes a tree of more than {MAX_NODES} nodes");
        return Err(Error::Unavailable(message));
    }
    let unavailable = |error| Error::Unavailable(reason(error));
    let ends: Vec<u32> = (tokenizer.end_of_generation().iter())
        .map(|id| id.0)
        .collect();
    let none = toktrie::INVALID_TOKEN;
    let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(none));
    let mut tree = TokTrie::from(&info, &words);
    if !ends.is_empty() {
        tree = tree.with_eos_tokens(&ends);
    }
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(tree));
    let slices = SlicedBiasComputer::general_slices();
    let capabilities = InferenceCapabilities::default();
    let mut factory =
        ParserFactory::new(&environment, capabilities, &slices).map_err(unavailable)?;
    *factory.limits_mut() = limits();
    factory.quiet();
    Ok(factory)
}

/// What each token stands for. A control token is no text: it has a mark before it, which no text has.
/// Of tokens that stand for the same, the first counts; what stands for nothing is never allowed.
fn words(tokenizer: &Tokenizer) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    let word = |id: usize| {
        let id = TokenId(id as u32);
        let bytes = tokenizer.piece_bytes(id).unwrap_or_default();
        let mark: &[u8] = match tokenizer.is_special(id) {
            true => &[TokTrie::SPECIAL_TOKEN_MARKER],
            false => &[],
        };
        let word = [mark, bytes].concat();
        let counts =
            !bytes.is_empty() && word.len() <= MAX_TOKEN_BYTES && seen.insert(word.clone());
        if counts { word } else { Vec::new() }
    };
    (0..tokenizer.vocab_size()).map(word).collect()
}

/// Nodes of the tree of `words`: bytes that a word, in their order, has beyond what it shares with the
/// one before.
fn nodes(words: &[Vec<u8>]) -> usize {
    let mut sorted: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let mut before: &[u8] = &[];
    let own = sorted.into_iter().map(|word| {
        let shared = before.iter().zip(word).take_while(|(a, b)| a == b).count();
        before = word;
        word.len() - shared
    });
    1 + own.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_as_the_tree_has_them() {
        let words: Vec<Vec<u8>> = ["", "ab", "abc", "abd", "b", "", "xyz"]
            .map(|word| word.as_bytes().to_vec())
            .to_vec();
        assert_eq!(nodes(&words), 1 + 2 + 1 + 1 + 1 + 3);
    }
}
