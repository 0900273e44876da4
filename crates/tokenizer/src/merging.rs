//! The merge loop, as the `tokenizers` crate runs it.

use redline_gguf::TokenId;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};

use crate::error::Error;
use crate::vocabulary::Vocabulary;

/// Builds the merge loop over `pieces`; `merges` are in order of their rank, and both pieces of each,
/// and the two joined, are in the vocabulary.
pub(crate) fn build(
    vocabulary: &Vocabulary<'_>,
    mut pieces: Vocab,
    merges: Merges,
    unknown: Option<TokenId>,
    options: impl FnOnce(BpeBuilder) -> BpeBuilder,
) -> Result<BPE, Error> {
    // The crate's cache of words is kept for each thread and outlives the tokenizer.
    let mut builder = BPE::builder().cache_capacity(0);
    let unknown = unknown.map(|id| (id, vocabulary.pieces[id.0 as usize]));
    if let Some((id, piece)) = unknown.filter(|(_, piece)| !piece.is_empty()) {
        pieces.insert(piece.to_owned(), id.0);
        builder = builder.unk_token(piece.to_owned());
    }
    options(builder.vocab_and_merges(pieces, merges))
        .build()
        .map_err(library)
}

/// Appends the tokens of one word.
pub(crate) fn append_merged(model: &BPE, word: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
    let tokens = model.tokenize(word).map_err(library)?;
    ids.extend(tokens.iter().map(|token| TokenId(token.id)));
    Ok(())
}

fn library(error: tokenizers::Error) -> Error {
    Error::Library(error.to_string())
}
