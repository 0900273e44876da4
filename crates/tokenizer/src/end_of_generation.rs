//! Which tokens end a generation.
//!
//! Files name one or two of them; the others are known by their text only. The list and its
//! exceptions follow what llama.cpp collects (`llama_vocab::impl::load` in `src/llama-vocab.cpp`).

use redline_gguf::{Metadata, TokenId};

use crate::error::Error;
use crate::vocabulary::{SpecialTokens, TokenKind, Vocabulary, special_id};

/// Ids in metadata that end a generation, beside `eos_token_id`.
const KEYS: [&str; 5] = [
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Texts that end a generation whatever kind the file gives them: no prose contains them.
const MARKERS: [&str; 22] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "_<EOT>",
    "[e~[",
    "<|fim_pad|>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<reponame>",
    "<|file_sep|>",
];

/// Texts that end a generation where the file calls them control tokens. As plain text they occur
/// in prose and markup.
const CONTROL_MARKERS: [&str; 5] = ["</s>", "<eos>", "<EOT>", "[EOT]", "[EOS]"];

/// The tokens that a file's metadata names, beside `eos_token_id`.
pub(crate) fn named(metadata: &Metadata<'_>, vocab_size: usize) -> Result<Vec<TokenId>, Error> {
    let ids = KEYS.map(|key| special_id(metadata, vocab_size, key));
    ids.into_iter().filter_map(Result::transpose).collect()
}

/// Finds the tokens that end a generation beside the `named` ones, ascending, and makes control tokens
/// of those that the file calls something else.
pub(crate) fn collect(
    named: Vec<TokenId>,
    vocabulary: &mut Vocabulary<'_>,
    special: &SpecialTokens,
) -> Vec<TokenId> {
    let mut ends = named;
    ends.extend(special.eos);
    for marker in MARKERS {
        let Some(id) = vocabulary.id(marker) else {
            continue;
        };
        vocabulary.kinds[id as usize] = TokenKind::Control;
        ends.push(TokenId(id));
    }
    for marker in CONTROL_MARKERS {
        let Some(id) = vocabulary.id(marker) else {
            continue;
        };
        if vocabulary.kinds[id as usize] == TokenKind::Control {
            ends.push(TokenId(id));
        }
    }
    // In the harmony format <|end|> closes one message of several; <|return|> and <|call|> end the
    // turn. The same holds of <|flush|> and <|calls|>.
    let has = |marker| vocabulary.id(marker).is_some();
    let has_call = has("<|call|>") || has("<|calls|>");
    if has_call && (has("<|return|>") || has("<|flush|>")) {
        let end = vocabulary
            .id("<|end|>")
            .map(TokenId)
            .filter(|end| special.eos != Some(*end));
        ends.retain(|id| Some(*id) != end);
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}
