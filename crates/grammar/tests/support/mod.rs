//! A real vocabulary.

use redline_gguf::Gguf;
use redline_testkit::{SMOLLM2, cached};
use redline_tokenizer::Tokenizer;

/// SmolLM2's tokenizer; `None` without the model.
pub(crate) fn tokenizer() -> Option<Tokenizer> {
    let file = std::fs::read(cached(SMOLLM2)?).unwrap();
    let gguf = Gguf::parse(&[&file]).unwrap();
    Some(Tokenizer::from_gguf(gguf.metadata()).unwrap())
}
