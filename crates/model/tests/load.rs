//! Loading: progress, memory, options, splits; and the limits of a step.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each test file uses its part of the support module"
)]

#[path = "support/tiny.rs"]
mod tiny;

use redline_compute::{Cpu, Isa, KvFormat};
use redline_model::{
    Error, Forward, LoadOptions, LoadProgress, LogitRows, MemoryPlan, Model, ModelFile, Observer,
    SequenceStep, Stage, StepPlan,
};
use tiny::{
    CONTEXT, GEMMA3, HIDDEN, LLAMA, PHI3, TinyModel, VOCAB, load, options, pages, run, tokens,
};

#[test]
fn progress_passes_every_quarter_once_and_ends_ready() {
    for shape in [LLAMA, GEMMA3] {
        let file = TinyModel::new(shape).file();
        let mut reports: Vec<LoadProgress> = Vec::new();
        let backend = Cpu::new(Isa::detect(), 1);
        let gguf = file.gguf().unwrap();
        let model = Model::load(&file, &gguf, backend, &options(), &mut |report| {
            reports.push(report)
        });
        let total = model.unwrap().memory().weight_bytes;
        let percents: Vec<u8> = reports.iter().filter_map(|report| report.percent).collect();
        assert_eq!(percents, [0, 25, 50, 75, 100]);
        assert!(reports.is_sorted_by_key(|report| report.bytes));
        for report in &reports {
            assert_eq!(report.total_bytes, total);
            if let Some(percent) = report.percent {
                assert!(
                    report.bytes * 100 >= total * u64::from(percent),
                    "{report:?}"
                );
            }
        }
        assert_eq!(reports.last().unwrap().bytes, total);
    }
}

#[test]
fn memory_is_planned_before_it_is_taken() {
    for shape in [LLAMA, PHI3] {
        memory_is_planned(shape);
    }
}

fn memory_is_planned(shape: tiny::Shape) {
    let file = TinyModel::new(shape).file();
    let gguf = file.gguf().unwrap();
    let options = LoadOptions {
        context: Some(100),
        kv_pages: Some(3),
        kv_format: KvFormat::F16,
        max_step_tokens: 10,
        max_logit_rows: 2,
        ..LoadOptions::default()
    };
    let plan = MemoryPlan::new(&gguf, &options).unwrap();
    let weights: usize = gguf.tensors().iter().map(|tensor| tensor.data.len()).sum();
    // 2 layers, 2 heads of 64, keys and values, 2 bytes each.
    let kv = 3 * 64 * 2 * 2 * 64 * 2 * 2;
    // Residual, normed, delta; queries and attended; keys and values; gate and up.
    let tokens = 10 * (3 * 256 + 2 * 256 + 2 * 128 + 2 * 256);
    let rows = 2 * (2 * 256 + VOCAB);
    let ropes = 100 * 64;
    assert_eq!(plan.weight_bytes, weights as u64);
    assert_eq!(plan.kv_bytes, kv);
    assert_eq!(plan.scratch_bytes, 4 * (tokens + rows + ropes) as u64);
}

#[test]
fn options_have_ranges() {
    let file = TinyModel::new(LLAMA).file();
    let check = |options: LoadOptions, expected: &str| {
        let gguf = file.gguf().unwrap();
        let planned = MemoryPlan::new(&gguf, &options).unwrap_err().to_string();
        assert_eq!(planned, expected);
        let loaded = tiny::load_on(&file, Cpu::new(Isa::detect(), 1), &options);
        assert_eq!(loaded.map(|_| ()).unwrap_err().to_string(), expected);
    };
    check(
        LoadOptions {
            context: Some(CONTEXT + 1),
            ..options()
        },
        "load option context: expected 1..=320, found 321",
    );
    check(
        LoadOptions {
            context: Some(0),
            ..options()
        },
        "load option context: expected 1..=320, found 0",
    );
    check(
        LoadOptions {
            kv_pages: Some(0),
            ..options()
        },
        "load option kv_pages: expected 1..=4294967295, found 0",
    );
    check(
        LoadOptions {
            max_step_tokens: 0,
            ..options()
        },
        "load option max_step_tokens: expected 1..=65536, found 0",
    );
    check(
        LoadOptions {
            max_logit_rows: 65537,
            ..options()
        },
        "load option max_logit_rows: expected 1..=65536, found 65537",
    );
    let model = tiny::load_on(&file, Cpu::new(Isa::detect(), 1), &LoadOptions::default()).unwrap();
    assert_eq!(
        (model.shape().context_length, model.shape().page_count),
        (CONTEXT, CONTEXT / 64)
    );
}

#[test]
fn plans_have_limits() {
    let limits = LoadOptions {
        context: Some(200),
        kv_pages: Some(4),
        kv_format: KvFormat::F16,
        max_step_tokens: 100,
        max_logit_rows: 10,
        ..LoadOptions::default()
    };
    let file = TinyModel::new(LLAMA).file();
    let mut model = tiny::load_on(&file, Cpu::new(Isa::detect(), 1), &limits).unwrap();
    let (tokens, four, one) = (tokens(201, 1), pages(0..4), pages([2]));
    let bad_token = [redline_model::TokenId(VOCAB as u32)];
    let (bad_page, revisited) = (pages([4]), pages([0, 1, 0]));
    let step = |tokens, position, pages, logits| SequenceStep {
        tokens,
        position,
        pages,
        logits,
    };
    let (none, last, all) = (LogitRows::None, LogitRows::Last, LogitRows::All);
    let mut check = |sequences: &[SequenceStep<'_>], expected: &str| {
        let error = model.forward(&StepPlan { sequences }, &mut ()).unwrap_err();
        assert_eq!(error.to_string(), format!("step plan: {expected}"));
    };
    check(&[step(&[], 0, &four, none)], "sequence 0 has no tokens");
    check(
        &[step(&tokens[..101], 0, &four, none)],
        "101 tokens, at most 100",
    );
    check(
        &[step(&tokens[..11], 0, &four, all)],
        "11 rows of logits, at most 10",
    );
    check(
        &[step(&bad_token, 0, &four, last)],
        "sequence 0: token id 96, vocabulary of 96",
    );
    check(
        &[step(&tokens[..1], 200, &four, last)],
        "sequence 0: 201 positions, context of 200",
    );
    check(
        &[step(&tokens[..1], usize::MAX, &four, last)],
        &format!("sequence 0: {} positions, context of 200", usize::MAX),
    );
    check(
        &[step(&tokens[..65], 0, &one, last)],
        "sequence 0: 1 pages for 65 positions, needs 2",
    );
    check(
        &[step(&tokens[..1], 0, &bad_page, last)],
        "sequence 0: page 4, cache of 4",
    );
    check(
        &[
            step(&tokens[..1], 0, &four, last),
            step(&tokens[..1], 140, &revisited, last),
        ],
        "sequence 1: page 0 is written to twice in this step",
    );
    let many = vec![step(&tokens[..1], 0, &one, none); 257];
    check(&many, "257 sequences, at most 256");
    // A plan that was refused leaves the model as it was.
    model
        .forward(
            &StepPlan {
                sequences: &[step(&tokens[..3], 0, &four, last)],
            },
            &mut (),
        )
        .unwrap();
}

#[test]
fn splits_on_disk_give_the_same_logits() {
    let model = TinyModel::new(LLAMA);
    let expected = run(&mut load(&model).unwrap(), &tokens(20, 1), &pages([0]), 20);
    let folder = tempfile::tempdir().unwrap();
    let middle = model.tensors.len() / 2;
    for index in 0..2 {
        let mut part = model.clone();
        part.tensors = if index == 0 {
            part.tensors[..middle].to_vec()
        } else {
            part.tensors[middle..].to_vec()
        };
        for (key, value) in [
            ("split.no", index),
            ("split.count", 2),
            ("split.tensors.count", model.tensors.len() as u64),
        ] {
            part.set(key, tiny::Metadata::Int(value));
        }
        let name = format!("tiny-{:05}-of-00002.gguf", index + 1);
        std::fs::write(folder.path().join(name), part.bytes()).unwrap();
    }
    for first in ["tiny-00001-of-00002.gguf", "tiny-00002-of-00002.gguf"] {
        let file = ModelFile::open(&folder.path().join(first)).unwrap();
        let mut split = tiny::load_on(&file, Cpu::new(Isa::detect(), 1), &options()).unwrap();
        // Weights keep their mapping alive.
        drop(file);
        assert_eq!(run(&mut split, &tokens(20, 1), &pages([0]), 20), expected);
    }
    std::fs::remove_file(folder.path().join("tiny-00002-of-00002.gguf")).unwrap();
    let error = ModelFile::open(&folder.path().join("tiny-00001-of-00002.gguf")).unwrap_err();
    assert!(
        matches!(
            error,
            Error::MissingSplit {
                index: 2,
                count: 2,
                ..
            }
        ),
        "{error}"
    );
}

/// Counts what it sees and cancels before a half of a layer.
#[derive(Default)]
struct Watcher {
    seen: Vec<(Stage, usize)>,
    polls: usize,
    cancels_at: Option<usize>,
}

impl Observer for Watcher {
    fn wants_hidden(&self) -> bool {
        true
    }

    fn hidden(&mut self, stage: Stage, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(HIDDEN));
        self.seen.push((stage, rows.len() / HIDDEN));
    }

    fn cancelled(&mut self) -> bool {
        self.polls += 1;
        self.cancels_at.is_some_and(|half| self.polls > half)
    }
}

#[test]
fn an_observer_sees_every_stage_and_can_cancel_before_every_half_of_a_layer() {
    let mut model = load(&TinyModel::new(GEMMA3)).unwrap();
    let (tokens, pages) = (tokens(5, 1), pages([0]));
    let step = |logits| {
        [SequenceStep {
            tokens: &tokens,
            position: 0,
            pages: &pages,
            logits,
        }]
    };
    let (last, none) = (step(LogitRows::Last), step(LogitRows::None));
    let stages = [
        (Stage::Embedding, 5),
        (Stage::Layer(0), 5),
        (Stage::Layer(1), 5),
        (Stage::Layer(2), 5),
        (Stage::FinalNorm, 1),
    ];
    let mut watcher = Watcher::default();
    let expected = model
        .forward(&StepPlan { sequences: &last }, &mut watcher)
        .unwrap()
        .to_vec();
    assert_eq!(expected.len(), VOCAB);
    assert_eq!(watcher.seen, stages);

    let mut watcher = Watcher::default();
    assert!(
        model
            .forward(&StepPlan { sequences: &none }, &mut watcher)
            .unwrap()
            .is_empty()
    );
    assert_eq!(watcher.seen, stages[..4]);

    // Before each half of a layer.
    for (half, seen) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let mut watcher = Watcher {
            cancels_at: Some(half),
            ..Watcher::default()
        };
        let error = model
            .forward(&StepPlan { sequences: &last }, &mut watcher)
            .unwrap_err();
        assert!(matches!(error, Error::Cancelled));
        assert_eq!(watcher.seen, stages[..seen]);
    }
    // The same step again gives what it would have given.
    let again = model
        .forward(&StepPlan { sequences: &last }, &mut ())
        .unwrap();
    assert_eq!(again, expected);
}
