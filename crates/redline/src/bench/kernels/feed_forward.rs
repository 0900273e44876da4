//! Gated feed-forward networks.

use redline_compute::{
    Activation, Backend, Cpu, FeedForward, Format, Isa, MatmulJob, WeightBytes, quant,
};

use super::lab::{self, Lab};
use super::{Cost, Outputs, Work};

/// A network: that of Qwen2.5-0.5B, or of Phi-3-mini.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    /// Of all three matrices.
    pub(super) format: Format,
    pub(super) width: usize,
    pub(super) hidden: usize,
}

/// Different rows of a matrix; all others repeat them.
const DISTINCT_ROWS: usize = 64;

/// One network.
pub(super) struct Network {
    shape: Shape,
    tokens: usize,
    stage: Stage,
}

/// A backend with weights, input and outputs.
struct Stage {
    backend: Cpu,
    /// Gate, up and down.
    weights: [<Cpu as Backend>::Matrix; 3],
    /// `[tokens, width]`
    input: <Cpu as Backend>::Buffer,
    /// `[tokens, hidden]` each
    between: [<Cpu as Backend>::Buffer; 2],
    /// `[tokens, width]`
    out: <Cpu as Backend>::Buffer,
}

impl Stage {
    fn new(mut backend: Cpu, shape: Shape, tokens: &[f32]) -> Self {
        let Shape {
            format,
            width,
            hidden,
        } = shape;
        let matrix = |seed, rows: usize, cols: usize| {
            assert!(rows.is_multiple_of(DISTINCT_ROWS), "whole tiles");
            let mut tile = vec![0; DISTINCT_ROWS * format.row_bytes(cols)];
            quant::quantize(format, &lab::values(seed, DISTINCT_ROWS * cols), &mut tile);
            let bytes = WeightBytes::owned(tile.repeat(rows / DISTINCT_ROWS));
            backend.matrix(format, rows, cols, bytes)
        };
        let weights = [
            matrix(11, hidden, width),
            matrix(12, hidden, width),
            matrix(13, width, hidden),
        ];
        let count = tokens.len() / width;
        Self {
            weights,
            input: lab::buffer(&mut backend, width, tokens),
            between: [0, 1].map(|_| backend.buffer(count, hidden)),
            out: backend.buffer(count, width),
            backend,
        }
    }

    fn call(&mut self) {
        let [gate, up, down] = &self.weights;
        let [first, second] = &mut self.between;
        let job = |weights, out| MatmulJob {
            weights,
            bias: None,
            out,
        };
        let network = FeedForward {
            activation: Activation::Silu,
            gate_up: [job(gate, first), job(up, second)],
            down: job(down, &mut self.out),
        };
        self.backend.feed_forward(&self.input, network, None);
    }

    /// The last token's result.
    fn last(&mut self, width: usize) -> Vec<f32> {
        self.call();
        let out = self.backend.read(&self.out);
        out[out.len() - width..].to_vec()
    }
}

impl Network {
    pub(super) fn new(lab: &Lab, shape: Shape, tokens: usize) -> Self {
        let values = lab::values(14, tokens * shape.width);
        Self {
            shape,
            tokens,
            stage: Stage::new(lab.backend(), shape, &values),
        }
    }
}

impl Work for Network {
    fn cost(&self) -> Cost {
        let Shape {
            format,
            width,
            hidden,
        } = self.shape;
        let bytes = 2 * hidden * format.row_bytes(width) + width * format.row_bytes(hidden);
        let operations = 6.0 * (self.tokens * width * hidden) as f64;
        let float = matches!(format, Format::F32 | Format::F16 | Format::BF16);
        Cost {
            set_bytes: bytes,
            bytes: bytes as f64,
            int8: if float { 0.0 } else { operations },
            f32: if float { operations } else { 0.0 },
        }
    }

    fn outputs(&mut self) -> Outputs {
        // Scalar code takes the last token alone: it is the same whatever its neighbours.
        let width = self.shape.width;
        let values = lab::values(14, self.tokens * width);
        let last = &values[values.len() - width..];
        let scalar = Cpu::new(Isa::Scalar, 1);
        Outputs {
            ours: self.stage.last(width),
            scalar: Stage::new(scalar, self.shape, last).last(width),
        }
    }

    fn call(&mut self) {
        self.stage.call();
    }
}
