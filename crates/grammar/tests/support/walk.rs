//! Answers made by drawing from what is allowed.

use redline_engine::{Grammar, TokenId, TokenSet};
use redline_testkit::Random;
use redline_tokenizer::Tokenizer;

/// An answer that a grammar allows, by drawing any allowed token: more often than not one that closes
/// something. `None` if it is not whole after `max_tokens`.
pub(crate) fn walk(
    grammar: &dyn Grammar,
    tokenizer: &Tokenizer,
    random: &mut Random,
    max_tokens: usize,
) -> Option<String> {
    let vocab = tokenizer.vocab_size();
    let mut matcher = grammar.matcher().unwrap();
    let mut allowed = TokenSet::new(vocab);
    let mut ids = Vec::new();
    let closes = |id: &usize| {
        let bytes = tokenizer.piece_bytes(TokenId(*id as u32)).unwrap();
        tokenizer.is_end_of_generation(TokenId(*id as u32)) || b"\"]}".contains(&bytes[0])
    };
    for _ in 0..max_tokens {
        matcher.allow(&mut allowed).unwrap();
        let ids_allowed: Vec<usize> = (0..vocab).filter(|id| allowed.contains(*id)).collect();
        assert!(!ids_allowed.is_empty(), "an answer has a way to go on");
        let closing: Vec<usize> = ids_allowed.iter().copied().filter(closes).collect();
        let close = !closing.is_empty() && !random.once_in(3);
        let id = TokenId(*random.one_of(if close { &closing } else { &ids_allowed }) as u32);
        let is_end = tokenizer.is_end_of_generation(id);
        matcher.accept(id).unwrap();
        if !is_end {
            ids.push(id);
        }
        if is_end || matcher.is_whole() {
            return Some(tokenizer.decode(&ids, false));
        }
    }
    None
}
