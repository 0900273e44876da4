//! Runs a model on token ids without meaning: `steps FILE ISA PROMPT STEPS`.
//!
//! A prompt of PROMPT tokens in one step, then STEPS steps of one token, on one thread; prints the
//! hash of the last logits. Nothing else is in the program, so that its instructions can be counted
//! (`cargo xtask counts`) and its assembly read (`cargo xtask assembly`).
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::error::Error;
use std::path::Path;

use redline_compute::{Cpu, Isa};
use redline_model::{
    Forward as _, LoadOptions, LogitRows, Model, ModelFile, PageId, SequenceStep, StepPlan,
    TokenId, logits_hash,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, isa, prompt, steps] = arguments.as_slice() else {
        return Err("usage: steps FILE ISA PROMPT STEPS".into());
    };
    let (isa, prompt, steps): (Isa, usize, usize) = (isa.parse()?, prompt.parse()?, steps.parse()?);
    if !isa.is_available() {
        return Err(format!("this machine lacks {isa}").into());
    }
    let file = ModelFile::open(Path::new(file))?;
    let gguf = file.gguf()?;
    let options = LoadOptions {
        context: Some((prompt + steps).max(1)),
        max_step_tokens: prompt.max(1),
        max_logit_rows: 1,
        ..LoadOptions::default()
    };
    let mut model = Model::load(&file, &gguf, Cpu::new(isa, 1), &options, &mut |_| {})?;
    let pages: Vec<PageId> = (0..model.shape().page_count as u32).map(PageId).collect();
    let vocab = model.shape().vocab_size;
    let ids: Vec<TokenId> = (0..prompt + steps)
        .map(|position| TokenId((position * 31 % vocab) as u32))
        .collect();
    let mut hash = 0;
    let chunks = std::iter::once(0..prompt).chain((prompt..prompt + steps).map(|at| at..at + 1));
    for chunk in chunks.filter(|chunk| !chunk.is_empty()) {
        let sequences = [SequenceStep {
            position: chunk.start,
            tokens: &ids[chunk],
            pages: &pages,
            logits: LogitRows::Last,
        }];
        let plan = StepPlan {
            sequences: &sequences,
        };
        hash = logits_hash(model.forward(&plan, &mut ())?);
    }
    println!("{hash:016x}");
    Ok(())
}
