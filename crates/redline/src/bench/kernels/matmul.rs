//! Matrix products.

use std::sync::Arc;

use redline_compute::{Backend, Cpu, Format, Isa, Mapping, MatmulJob, WeightBytes, quant};

use super::lab::{self, Lab};
use super::{Cost, Outputs, Work};

/// Weights of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// Different rows of a matrix; all others repeat them, so that gigabytes need not be quantised.
const DISTINCT_ROWS: usize = 64;

/// `out = input · weightsᵀ` of one matrix after the other.
pub(super) struct Matmul {
    backend: Cpu,
    shape: Shape,
    tokens: usize,
    /// The distinct rows, stored.
    tile: Vec<u8>,
    /// `[tokens, cols]`
    values: Vec<f32>,
    matrices: Vec<<Cpu as Backend>::Matrix>,
    /// `[tokens, cols]`
    input: <Cpu as Backend>::Buffer,
    /// `[tokens, rows]`
    out: <Cpu as Backend>::Buffer,
    next: usize,
}

impl Matmul {
    /// One matrix, or as many as it takes to reach beyond the caches.
    pub(super) fn new(lab: &Lab, shape: Shape, tokens: usize, beyond_caches: bool) -> Self {
        let Shape { format, rows, cols } = shape;
        assert!(rows.is_multiple_of(DISTINCT_ROWS), "whole tiles");
        let weights = lab::values(1, DISTINCT_ROWS * cols);
        let mut tile = vec![0; DISTINCT_ROWS * format.row_bytes(cols)];
        quant::quantize(format, &weights, &mut tile);
        let bytes = rows * format.row_bytes(cols);
        let count = if beyond_caches {
            lab.cycle_bytes.div_ceil(bytes)
        } else {
            1
        };
        let mapping = Arc::new(Mapping::from_bytes(
            tile.repeat(count * rows / DISTINCT_ROWS),
        ));
        let mut backend = lab.backend();
        let matrix = |index: usize| {
            let range = index * bytes..(index + 1) * bytes;
            let weights = WeightBytes::new(Arc::clone(&mapping), range);
            backend.matrix(format, rows, cols, weights)
        };
        let matrices = (0..count).map(matrix).collect();
        let values = lab::values(2, tokens * cols);
        let input = lab::buffer(&mut backend, cols, &values);
        let out = backend.buffer(tokens, rows);
        Self {
            backend,
            shape,
            tokens,
            tile,
            values,
            matrices,
            input,
            out,
            next: 0,
        }
    }

    /// The first and the last token's products with the distinct rows, by scalar code.
    fn scalar(&self) -> Vec<Vec<f32>> {
        let Shape { format, cols, .. } = self.shape;
        let mut backend = Cpu::new(Isa::Scalar, 1);
        let tile = WeightBytes::owned(self.tile.clone());
        let tile = backend.matrix(format, DISTINCT_ROWS, cols, tile);
        [0, self.tokens - 1]
            .map(|token| {
                let values = &self.values[token * cols..][..cols];
                let input = lab::buffer(&mut backend, cols, values);
                let mut out = backend.buffer(1, DISTINCT_ROWS);
                multiply(&mut backend, &tile, &input, &mut out);
                backend.read(&out).to_vec()
            })
            .to_vec()
    }
}

fn multiply(
    backend: &mut Cpu,
    weights: &<Cpu as Backend>::Matrix,
    input: &<Cpu as Backend>::Buffer,
    out: &mut <Cpu as Backend>::Buffer,
) {
    let job = MatmulJob {
        weights,
        bias: None,
        out,
    };
    backend.matmul(input, &mut [job], None);
}

impl Work for Matmul {
    fn cost(&self) -> Cost {
        let Shape { format, rows, cols } = self.shape;
        let bytes = rows * format.row_bytes(cols);
        let operations = 2.0 * (self.tokens * rows * cols) as f64;
        let float = matches!(format, Format::F32 | Format::F16 | Format::BF16);
        Cost {
            set_bytes: self.matrices.len() * bytes,
            bytes: bytes as f64,
            int8: if float { 0.0 } else { operations },
            f32: if float { operations } else { 0.0 },
        }
    }

    fn outputs(&mut self) -> Outputs {
        // The last matrix, so that the whole set is where it should be.
        self.next = self.matrices.len() - 1;
        self.call();
        let rows = self.shape.rows;
        let out = self.backend.read(&self.out);
        let ends = [0, self.tokens - 1].map(|token| &out[token * rows..][..rows]);
        let repeated = |tile: &Vec<f32>| tile.repeat(rows / DISTINCT_ROWS);
        Outputs {
            ours: ends.concat(),
            scalar: self.scalar().iter().flat_map(repeated).collect(),
        }
    }

    fn call(&mut self) {
        let weights = &self.matrices[self.next];
        multiply(&mut self.backend, weights, &self.input, &mut self.out);
        self.next = (self.next + 1) % self.matrices.len();
    }
}
