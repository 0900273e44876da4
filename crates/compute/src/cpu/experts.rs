//! The verbs of mixtures of experts: pairs of a token and an expert are ordered by expert, then each
//! chosen expert is a matmul of its own tokens.

use super::matmul::{Input, MAX_JOBS, Product};
use super::{Buffer, Cpu, matmul};
use crate::experts::MAX_EXPERTS_PER_TOKEN;
use crate::kernels::experts;
use crate::pool::Rows;
use crate::{Backend, ExpertJob, ExpertRows, RouteShape, Routing};

/// Each token's experts and their weights, and the order of the pairs.
#[derive(Debug)]
pub struct Routes {
    shape: RouteShape,
    /// `[tokens, per_token]`, ascending in each token
    ids: Vec<u32>,
    /// `[tokens, per_token]`
    weights: Vec<f32>,
    /// `[tokens, per_token]`: each pair's row in a buffer of pairs
    rows: Vec<u32>,
    /// `[pairs]`: the token of each such row
    tokens: Vec<u32>,
    /// `[experts + 1]`: where each expert's rows begin
    starts: Vec<u32>,
    /// The rows of one expert's tokens, `[tokens, width]`
    gathered: Buffer,
}

impl Routes {
    pub(super) fn new(cpu: &mut Cpu, shape: RouteShape) -> Self {
        let RouteShape {
            max_tokens,
            experts,
            per_token,
            width,
        } = shape;
        assert!(
            (1..=experts.min(MAX_EXPERTS_PER_TOKEN)).contains(&per_token),
            "{per_token} of {experts} experts"
        );
        let pairs = shape.max_pairs();
        assert!(u32::try_from(pairs).is_ok(), "pairs are counted in 32 bits");
        Self {
            shape,
            ids: Vec::with_capacity(pairs),
            weights: Vec::with_capacity(pairs),
            rows: Vec::with_capacity(pairs),
            tokens: Vec::with_capacity(pairs),
            starts: Vec::with_capacity(experts + 1),
            gathered: cpu.buffer(max_tokens, width),
        }
    }

    /// The experts of each token, `[tokens, per_token]`, ascending in each token.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The weights of [`Self::ids`].
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Orders the pairs by expert, then by token: counts, places, marks.
    fn order(&mut self) {
        let Self {
            shape,
            ids,
            rows,
            tokens,
            starts,
            ..
        } = self;
        starts.clear();
        starts.resize(shape.experts + 1, 0);
        for id in &*ids {
            starts[*id as usize + 1] += 1;
        }
        for expert in 0..shape.experts {
            starts[expert + 1] += starts[expert];
        }
        rows.clear();
        tokens.clear();
        tokens.resize(ids.len(), 0);
        for (pair, id) in ids.iter().enumerate() {
            let next = &mut starts[*id as usize];
            tokens[*next as usize] = (pair / shape.per_token) as u32;
            rows.push(*next);
            *next += 1;
        }
        // Every start has moved to the next expert's.
        starts.rotate_right(1);
        starts[0] = 0;
    }

    /// The first expert from `expert` on that has tokens.
    fn chosen_from(&self, expert: usize) -> Option<usize> {
        (expert..self.shape.experts).find(|expert| !self.of(*expert).is_empty())
    }

    /// The rows of an expert's pairs.
    fn of(&self, expert: usize) -> std::ops::Range<usize> {
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }
}

pub(super) fn route(cpu: &mut Cpu, routing: Routing, logits: &Buffer, routes: &mut Routes) {
    let RouteShape {
        max_tokens,
        experts,
        per_token,
        ..
    } = routes.shape;
    let tokens = logits.tokens();
    assert_eq!(logits.width, experts, "a logit for each expert");
    assert!(
        tokens <= max_tokens,
        "{tokens} tokens, of at most {max_tokens}"
    );
    routes.ids.resize(tokens * per_token, 0);
    routes.weights.resize(tokens * per_token, 0.0);
    let (isa, threads) = (cpu.isa, cpu.pool.threads());
    let ids = Rows::new(&mut routes.ids, per_token, threads);
    let weights = Rows::new(&mut routes.weights, per_token, threads);
    let choose = |thread: usize| {
        let (range, ids) = ids.take(thread);
        let (_, weights) = weights.take(thread);
        let logits = &logits.data[range.start * experts..range.end * experts];
        experts::choose(isa, routing, logits, experts, (ids, weights));
    };
    if tokens <= 1 {
        (0..threads).for_each(choose);
    } else {
        cpu.pool.run(&choose);
    }
    routes.order();
}

pub(super) fn matmul(
    cpu: &mut Cpu,
    routes: &mut Routes,
    rows: ExpertRows,
    input: &Buffer,
    jobs: &mut [ExpertJob<'_, Cpu>],
) {
    let pairs = routes.tokens.len();
    let tokens = pairs / routes.shape.per_token;
    match rows {
        ExpertRows::Tokens => {
            assert_eq!(input.width, routes.shape.width, "the width of the routes");
            assert_eq!(input.tokens(), tokens, "a row for each token");
        }
        ExpertRows::Pairs => assert_eq!(input.tokens(), pairs, "a row for each pair"),
    }
    assert!(
        jobs.len() <= MAX_JOBS,
        "{} jobs, of at most {MAX_JOBS}",
        jobs.len()
    );
    for job in &mut *jobs {
        assert_eq!(job.weights.len(), routes.shape.experts, "all experts");
        assert!(
            job.bias.is_none_or(|bias| bias.len() == job.weights.len()),
            "all biases"
        );
        job.out.set_tokens(pairs);
    }
    let first = jobs.first().map(|job| job.weights);
    let mut next = routes.chosen_from(0);
    while let Some(expert) = next {
        let range = routes.of(expert);
        next = routes.chosen_from(expert + 1);
        let mut products: [Option<Product<'_>>; MAX_JOBS] = Default::default();
        for (slot, job) in products.iter_mut().zip(&mut *jobs) {
            let width = job.out.width;
            *slot = Some(Product {
                weights: &job.weights[expert],
                bias: job.bias.map(|bias| bias[expert].as_slice()),
                width,
                out: &mut job.out.data[range.start * width..range.end * width],
            });
        }
        let data = match rows {
            ExpertRows::Pairs => &input.data[range.start * input.width..range.end * input.width],
            ExpertRows::Tokens => {
                let Routes {
                    tokens, gathered, ..
                } = &mut *routes;
                gather(cpu, input, &tokens[range], gathered);
                &gathered.data
            }
        };
        let width = input.width;
        let next = first.zip(next).map(|(weights, expert)| &weights[expert]);
        matmul::products(cpu, Input { data, width }, &mut products, None, next);
    }
}

/// Copies the rows of `tokens`.
fn gather(cpu: &mut Cpu, input: &Buffer, tokens: &[u32], to: &mut Buffer) {
    to.set_tokens(tokens.len());
    let width = input.width;
    cpu.each_rows(to, |rows, data| {
        for (token, row) in tokens[rows].iter().zip(data.chunks_exact_mut(width)) {
            row.copy_from_slice(&input.data[*token as usize * width..][..width]);
        }
    });
}

pub(super) fn combine(cpu: &mut Cpu, routes: &Routes, pairs: &Buffer, out: &mut Buffer) {
    let per_token = routes.shape.per_token;
    assert_eq!(pairs.tokens(), routes.rows.len(), "a row for each pair");
    assert_eq!(pairs.width, out.width, "rows of like width");
    out.set_tokens(routes.rows.len() / per_token);
    let (isa, width) = (cpu.isa, out.width);
    cpu.each_rows(out, |tokens, data| {
        for (token, out) in tokens.zip(data.chunks_exact_mut(width)) {
            let range = token * per_token..(token + 1) * per_token;
            let (weights, rows) = (&routes.weights[range.clone()], &routes.rows[range]);
            experts::combine(isa, weights, rows, &pairs.data, out);
        }
    });
}
