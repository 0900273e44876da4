//! Embeddings of many texts at a time are those of each alone, whoever else asks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use redline_engine::{Embedding, EmbeddingEngine, EmbeddingId, PageId, Progress, TokenId};
use redline_model::{
    Error as ModelError, Forward, ForwardShape, Observer, Pooling, StepPlan, pages_for,
};

const STEP: usize = 100;
const PAGES: usize = 4;

/// A model whose rows are a token's id and 1.
#[derive(Debug, Default)]
struct Ids {
    rows: Vec<f32>,
    fails: bool,
    /// Tokens of a step, and pages, beyond `STEP` and `PAGES`.
    more: usize,
}

impl Forward for Ids {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: 1000,
            context_length: STEP,
            page_count: PAGES + self.more,
            max_step_tokens: STEP + self.more,
            max_logit_rows: STEP + self.more,
        }
    }

    fn copy_page(&mut self, _: PageId, _: PageId) {}

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], ModelError> {
        if observer.cancelled() {
            return Err(ModelError::Cancelled);
        }
        if self.fails {
            return Err(ModelError::Unsupported {
                key: "weather".to_owned(),
                expected: "sun".to_owned(),
                found: "rain".to_owned(),
            });
        }
        let tokens: usize = plan.sequences.iter().map(|s| s.tokens.len()).sum();
        let pages: Vec<_> = plan.sequences.iter().flat_map(|s| s.pages).collect();
        let mut own = pages.clone();
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), pages.len(), "each text has pages of its own");
        let shape = self.shape();
        assert!(tokens <= shape.max_step_tokens && pages.len() <= shape.page_count);
        for sequence in plan.sequences {
            assert_eq!(sequence.pages.len(), pages_for(sequence.tokens.len()));
        }
        let tokens = plan.sequences.iter().flat_map(|sequence| sequence.tokens);
        self.rows = tokens.flat_map(|token| [token.0 as f32, 1.0]).collect();
        Ok(&self.rows)
    }
}

fn engine(model: Ids) -> EmbeddingEngine<Ids> {
    let embedding = Embedding {
        pooling: Pooling::Last,
        dimensions: 2,
    };
    EmbeddingEngine::new(model, embedding)
}

/// A text that ends in `last`.
fn text(length: usize, last: u32) -> Vec<TokenId> {
    let mut text = vec![TokenId(7); length];
    text[length - 1] = TokenId(last);
    text
}

/// Every job's embeddings, in the order in which they were done.
fn run(engine: &mut EmbeddingEngine<Ids>) -> Vec<(EmbeddingId, Vec<Vec<f32>>)> {
    let mut all = Vec::new();
    loop {
        let mut done = Vec::new();
        let progress = engine.step(&mut |_| false, &mut done);
        all.extend(
            done.into_iter()
                .map(|embedded| (embedded.id, embedded.rows.unwrap())),
        );
        if progress == Progress::Idle {
            assert_eq!(engine.open(), 0);
            return all;
        }
    }
}

proptest! {
    /// Whatever comes together, each text has its own embedding, in its job's order.
    #[test]
    fn each_text_has_its_own(
        jobs in prop::collection::vec(prop::collection::vec((1..=STEP, 0..1000_u32), 1..12), 1..6),
    ) {
        let mut engine = engine(Ids::default());
        let ids: BTreeMap<_, _> = jobs
            .iter()
            .map(|job| {
                let texts = job.iter().map(|(length, last)| text(*length, *last));
                (engine.submit(texts.collect()), job)
            })
            .collect();
        let done = run(&mut engine);
        prop_assert_eq!(done.len(), jobs.len());
        for (id, rows) in done {
            let lasts = rows.iter().map(|row| (row[0] / row[1]).round() as u32);
            prop_assert!(lasts.eq(ids[&id].iter().map(|(_, last)| *last)));
        }
    }
}

#[test]
fn short_texts_are_computed_together_and_few_do_not_wait_for_many() {
    let mut engine = engine(Ids::default());
    let many = engine.submit((0..20).map(|i| text(3, i)).collect());
    let few = engine.submit(vec![text(3, 500)]);
    let done = run(&mut engine);
    assert_eq!(done[0].0, few);
    assert_eq!(done[1].0, many);
    // As many as there are pages.
    let mut again = self::engine(Ids::default());
    again.submit((0..8).map(|i| text(3, i)).collect());
    let mut steps = 0;
    while again.step(&mut |_| false, &mut Vec::new()) == Progress::Step {
        steps += 1;
    }
    assert_eq!(steps, 8 / PAGES);
}

#[test]
fn a_step_that_is_broken_off_is_made_again_and_a_job_that_is_forgotten_is_not() {
    let mut engine = engine(Ids::default());
    let (one, other) = (
        engine.submit(vec![text(2, 1)]),
        engine.submit(vec![text(2, 2)]),
    );
    let mut asked = Vec::new();
    let mut break_off = |ids: &[EmbeddingId]| {
        asked = ids.to_vec();
        true
    };
    let mut done = Vec::new();
    let progress = engine.step(&mut break_off, &mut done);
    assert_eq!(progress, Progress::BrokenOff);
    assert_eq!((asked, engine.open(), done.len()), (vec![one, other], 2, 0));
    engine.cancel(one);
    let done = run(&mut engine);
    assert_eq!(done.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [other]);
}

#[test]
fn what_fails_is_told_once_and_others_go_on() {
    let mut engine = engine(Ids {
        fails: true,
        ..Ids::default()
    });
    let first = engine.submit(vec![text(60, 1)]);
    let second = engine.submit(vec![text(60, 2)]);
    for expected in [first, second] {
        let mut done = Vec::new();
        assert_eq!(engine.step(&mut |_| false, &mut done), Progress::Step);
        assert!(done[0].rows.is_err());
        let failed: Vec<EmbeddingId> = done.iter().map(|embedded| embedded.id).collect();
        assert_eq!(failed, [expected]);
    }
    assert_eq!(engine.step(&mut |_| false, &mut Vec::new()), Progress::Idle);
}

#[test]
fn no_step_has_more_texts_than_a_model_takes() {
    let wide = Ids {
        more: 1000,
        ..Ids::default()
    };
    let mut engine = engine(wide);
    engine.submit((0..300).map(|last| text(1, last)).collect());
    let mut done = Vec::new();
    assert_eq!(engine.step(&mut |_| false, &mut done), Progress::Step);
    assert!(done.is_empty(), "{done:?}");
    engine.step(&mut |_| false, &mut done);
    assert_eq!(done[0].rows.as_ref().unwrap().len(), 300);
}
