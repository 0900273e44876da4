//! A mixture of experts: routing, the chosen experts' products, their sum.

use std::collections::BTreeSet;

use redline_compute::{
    Backend, Cpu, ExpertJob, ExpertRows, Format, Isa, RouteShape, Routing, WeightBytes, quant,
};

use super::lab::{self, Lab};
use super::{Cost, Outputs, Work};

/// Experts and their sizes: those of OLMoE-1B-7B.
pub(super) const EXPERTS: usize = 64;
pub(super) const PER_TOKEN: usize = 8;
pub(super) const ROWS: usize = 1024;
pub(super) const COLS: usize = 2048;
/// Different rows of an expert; all others repeat them.
const DISTINCT_ROWS: usize = 16;
/// Choices that are made in turn, so that all experts are used sooner or later.
const CHOICES: usize = 16;

/// One layer's experts.
pub(super) struct Experts {
    format: Format,
    tokens: usize,
    stage: Stage,
}

/// A backend with weights, inputs and outputs.
struct Stage {
    backend: Cpu,
    weights: Vec<<Cpu as Backend>::Matrix>,
    /// `[tokens, EXPERTS]` each
    logits: Vec<<Cpu as Backend>::Buffer>,
    /// `[tokens, COLS]`
    input: <Cpu as Backend>::Buffer,
    routes: <Cpu as Backend>::Routes,
    /// `[pairs, ROWS]`
    pairs: <Cpu as Backend>::Buffer,
    /// `[tokens, ROWS]`
    out: <Cpu as Backend>::Buffer,
    next: usize,
}

/// The router's logits of one choice.
fn logits(choice: usize, tokens: usize) -> Vec<f32> {
    lab::values(100 + choice as u64, tokens * EXPERTS)
}

impl Stage {
    fn new(mut backend: Cpu, format: Format, tokens: usize) -> Self {
        let weights = (0..EXPERTS as u64).map(|expert| {
            let values = lab::values(200 + expert, DISTINCT_ROWS * COLS);
            let mut tile = vec![0; DISTINCT_ROWS * format.row_bytes(COLS)];
            quant::quantize(format, &values, &mut tile);
            let bytes = WeightBytes::owned(tile.repeat(ROWS / DISTINCT_ROWS));
            backend.matrix(format, ROWS, COLS, bytes)
        });
        let weights = weights.collect();
        let logits = (0..CHOICES)
            .map(|choice| lab::buffer(&mut backend, EXPERTS, &logits(choice, tokens)))
            .collect();
        let input = lab::buffer(&mut backend, COLS, &lab::values(10, tokens * COLS));
        let shape = RouteShape {
            max_tokens: tokens,
            experts: EXPERTS,
            per_token: PER_TOKEN,
            width: COLS,
        };
        Self {
            routes: backend.routes(shape),
            pairs: backend.buffer(shape.max_pairs(), ROWS),
            out: backend.buffer(tokens, ROWS),
            weights,
            logits,
            input,
            next: 0,
            backend,
        }
    }

    fn call(&mut self) {
        let backend = &mut self.backend;
        let logits = &self.logits[self.next];
        self.next = (self.next + 1) % CHOICES;
        backend.route_experts(Routing::SoftmaxOfChosen, logits, &mut self.routes);
        let job = ExpertJob {
            weights: &self.weights,
            bias: None,
            out: &mut self.pairs,
        };
        let rows = ExpertRows::Tokens;
        backend.expert_matmul(&mut self.routes, rows, &self.input, &mut [job]);
        backend.combine_experts(&self.routes, &self.pairs, &mut self.out);
    }

    /// The first token's sum.
    fn first(&mut self) -> Vec<f32> {
        self.next = 0;
        self.call();
        self.backend.read(&self.out)[..ROWS].to_vec()
    }
}

impl Experts {
    pub(super) fn new(lab: &Lab, format: Format, tokens: usize) -> Self {
        Self {
            format,
            tokens,
            stage: Stage::new(lab.backend(), format, tokens),
        }
    }
}

/// Experts that some token chooses, on average over the choices.
fn chosen(tokens: usize) -> f64 {
    let of = |choice| {
        let logits = logits(choice, tokens);
        let best = |row: &[f32]| -> Vec<usize> {
            let mut order: Vec<usize> = (0..EXPERTS).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order.truncate(PER_TOKEN);
            order
        };
        let chosen: BTreeSet<usize> = logits.chunks_exact(EXPERTS).flat_map(best).collect();
        chosen.len() as f64
    };
    (0..CHOICES).map(of).sum::<f64>() / CHOICES as f64
}

impl Work for Experts {
    fn cost(&self) -> Cost {
        let bytes = (ROWS * self.format.row_bytes(COLS)) as f64;
        Cost {
            set_bytes: EXPERTS * bytes as usize,
            bytes: chosen(self.tokens) * bytes,
            int8: 2.0 * (self.tokens * PER_TOKEN * ROWS * COLS) as f64,
            f32: 0.0,
        }
    }

    fn outputs(&mut self) -> Outputs {
        // Scalar code takes the first token alone: it is the same whatever its neighbours.
        let scalar = Cpu::new(Isa::Scalar, 1);
        Outputs {
            ours: self.stage.first(),
            scalar: Stage::new(scalar, self.format, 1).first(),
        }
    }

    fn call(&mut self) {
        self.stage.call();
    }
}
