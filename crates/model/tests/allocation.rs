//! After load, a step allocates nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each test file uses its part of the support module"
)]

#[path = "support/tiny.rs"]
mod tiny;

use redline_compute::{Cpu, Isa, KvFormat};
use redline_model::{Forward, LoadOptions, LogitRows, SequenceStep, StepPlan};
use tiny::{GEMMA3, GPT_OSS, LLAMA, MISTRAL, QWEN2, TinyModel, pages, tokens};

#[test]
fn steps_allocate_nothing() {
    let (tokens, pages_a, pages_b) = (tokens(65, 1), pages(0..5), pages([7, 8]));
    let options = LoadOptions {
        max_step_tokens: 64,
        max_logit_rows: 64,
        ..tiny::options()
    };
    for shape in [LLAMA, MISTRAL, QWEN2, GEMMA3, GPT_OSS] {
        let file = TinyModel::new(shape).file();
        for (isa, (threads, kv_format)) in Isa::available().into_iter().flat_map(|isa| {
            let two = KvFormat::ALL.map(|format| (2, format));
            std::iter::once((1, KvFormat::F16))
                .chain(two)
                .map(move |rest| (isa, rest))
        }) {
            let options = LoadOptions {
                kv_format,
                ..options.clone()
            };
            let mut model = tiny::load_on(&file, Cpu::new(isa, threads), &options).unwrap();
            let step = |range: std::ops::Range<usize>, pages, logits| SequenceStep {
                position: range.start,
                tokens: &tokens[range],
                pages,
                logits,
            };
            // A decode step first, so that nothing can grow later unseen; then the largest step
            // there is, and a batch.
            let plans: [&[SequenceStep<'_>]; 4] = [
                &[step(0..1, &pages_a, LogitRows::Last)],
                &[step(0..64, &pages_a, LogitRows::All)],
                &[
                    step(0..30, &pages_a, LogitRows::None),
                    step(0..30, &pages_b, LogitRows::Last),
                ],
                &[
                    step(64..65, &pages_a, LogitRows::Last),
                    step(30..31, &pages_b, LogitRows::Last),
                ],
            ];
            let counted = allocation_counter::measure(|| {
                for sequences in plans {
                    model.forward(&StepPlan { sequences }, &mut ()).unwrap();
                }
            });
            let what = format!(
                "{} {isa}, {threads} threads, {kv_format}",
                shape.architecture
            );
            assert_eq!(counted.count_total, 0, "{what}: {counted:?}");
        }
    }
}
