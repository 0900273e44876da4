//! The matmul verb: quantise the input once, then split every job's rows over the threads.

use super::{Buffer, Cpu, Matrix};
use crate::kernels::elementwise;
use crate::kernels::matmul::{self, Next, Tile, Weights};
#[cfg(target_arch = "x86_64")]
use crate::kernels::panel;
use crate::kernels::quantized::{self, Group, QuantizedRows, activation_group};
use crate::pool::{Columns, ColumnsPart, Pool, Rows, share};
use crate::{Activation, Isa, MatmulJob};

/// Most products of one dispatch.
pub(super) const MAX_JOBS: usize = 4;
/// Weight rows a kernel takes at a time; threads split at multiples of it.
const ROWS: usize = 4;

pub(super) fn run(
    cpu: &mut Cpu,
    input: &Buffer,
    jobs: &mut [MatmulJob<'_, Cpu>],
    next: Option<&Matrix>,
) {
    assert!(
        jobs.len() <= MAX_JOBS,
        "{} jobs, of at most {MAX_JOBS}",
        jobs.len()
    );
    let mut products: [Option<Product<'_>>; MAX_JOBS] = Default::default();
    for (slot, job) in products.iter_mut().zip(&mut *jobs) {
        job.out.set_tokens(input.tokens());
        *slot = Some(Product::of(job));
    }
    self::products(cpu, Input::of(input), &mut products, None, next);
}

impl Matrix {
    pub(super) fn weights(&self) -> Weights<'_> {
        Weights {
            format: self.format,
            cols: self.cols,
            bytes: &self.bytes,
        }
    }
}

/// Rows of activations, `[tokens, width]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) data: &'a [f32],
    pub(super) width: usize,
}

impl<'a> Input<'a> {
    pub(super) fn of(buffer: &'a Buffer) -> Self {
        let (data, width) = (&buffer.data, buffer.width);
        Self { data, width }
    }

    pub(super) fn tokens(&self) -> usize {
        self.data.len() / self.width
    }
}

/// One product of a dispatch.
pub(super) struct Product<'a> {
    pub(super) weights: &'a Matrix,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) width: usize,
    /// `[tokens, width]`
    pub(super) out: &'a mut [f32],
}

/// All `products` on one input, in one dispatch. With an activation, it is applied to the first, and
/// that multiplied with the second. `next` stands for the first product of the next dispatch.
pub(super) fn products(
    cpu: &mut Cpu,
    input: Input<'_>,
    products: &mut [Option<Product<'_>>],
    activation: Option<Activation>,
    next: Option<&Matrix>,
) {
    for job in products.iter().flatten() {
        assert_eq!(
            job.weights.cols, input.width,
            "weights' columns are the input's"
        );
    }
    let wants = |group| {
        let mut products = products.iter().flatten();
        products.any(|job| activation_group(job.weights.format) == Some(group))
    };
    if wants(Group::Small) {
        quantize(cpu.isa, &mut cpu.pool, Group::Small, input, &mut cpu.small);
    }
    if wants(Group::K) {
        quantize(cpu.isa, &mut cpu.pool, Group::K, input, &mut cpu.k);
    }
    let dispatch = Dispatch {
        isa: cpu.isa,
        pool: &mut cpu.pool,
        room: &mut cpu.float,
        tokens: input.tokens(),
        x: [&cpu.small, &cpu.k],
        floats: input.data,
        activation,
    };
    dispatch.run(products, next);
}

/// Products of an input that has been quantised.
pub(super) struct Dispatch<'a> {
    pub(super) isa: Isa,
    pub(super) pool: &'a mut Pool,
    pub(super) room: &'a mut [matmul::Vector],
    pub(super) tokens: usize,
    /// In groups of 32, and in groups of 256.
    pub(super) x: [&'a QuantizedRows; 2],
    pub(super) floats: &'a [f32],
    /// As for [`products`].
    pub(super) activation: Option<Activation>,
}

impl Dispatch<'_> {
    pub(super) fn run(self, products: &mut [Option<Product<'_>>], next: Option<&Matrix>) {
        let Self {
            isa,
            tokens,
            x: [small, k],
            floats,
            activation,
            ..
        } = self;
        let threads = self.pool.threads();
        let mut columns: [Option<Split<'_>>; MAX_JOBS] = Default::default();
        for (slot, job) in columns.iter_mut().zip(products.iter_mut().flatten()) {
            job.check(tokens);
            *slot = Some(Split {
                weights: job.weights.weights(),
                bias: job.bias,
                columns: Columns::new(job.out, job.width, ROWS, threads),
            });
        }
        let next = next.map(Matrix::weights);
        let room = Rows::new(self.room, matmul::FLOAT_ROOM, threads);
        self.pool.run(&|thread| {
            let (_, room) = room.take(thread);
            let mut outs: [Option<ColumnsPart<'_>>; MAX_JOBS] = Default::default();
            let mut jobs = columns.iter().flatten().peekable();
            for out in &mut outs {
                let Some(job) = jobs.next() else { break };
                let out = out.insert(job.columns.take(thread));
                let next = jobs.peek().map(|job| job.weights).or(next);
                let tile = Tile {
                    weights: job.weights,
                    tokens,
                    out,
                    next: next.map(|weights| Next {
                        weights,
                        rows: share(weights.rows(), ROWS, thread, threads),
                    }),
                };
                match activation_group(job.weights.format) {
                    Some(Group::Small) => matmul::quantized(isa, tile, small),
                    Some(Group::K) => matmul::quantized(isa, tile, k),
                    None => matmul::float(isa, tile, floats, room),
                }
                if let Some(bias) = job.bias {
                    add_bias(bias, tokens, out);
                }
            }
            if let (Some(activation), [Some(gate), Some(up), ..]) = (activation, &mut outs) {
                let range = gate.range();
                for token in 0..tokens {
                    let up = up.row(token, range.clone());
                    elementwise::gated(isa, activation, gate.row(token, range.clone()), up);
                }
            }
        });
    }
}

impl<'a> Product<'a> {
    /// The product of a job whose output has its rows.
    pub(super) fn of(job: &'a mut MatmulJob<'_, Cpu>) -> Self {
        Self {
            weights: job.weights,
            bias: job.bias.map(Vec::as_slice),
            width: job.out.width,
            out: &mut job.out.data,
        }
    }

    fn check(&self, tokens: usize) {
        assert_eq!(
            self.weights.rows, self.width,
            "weights' rows are the output's columns"
        );
        assert!(
            self.bias.is_none_or(|bias| bias.len() == self.weights.rows),
            "one bias a row"
        );
        assert_eq!(
            self.out.len(),
            tokens * self.width,
            "a row of output a token"
        );
    }
}

fn add_bias(bias: &[f32], tokens: usize, out: &mut ColumnsPart<'_>) {
    let range = out.range();
    for token in 0..tokens {
        let row = out.row(token, range.clone());
        for (x, bias) in row.iter_mut().zip(&bias[range.clone()]) {
            *x += bias;
        }
    }
}

/// A job, its output split by columns.
struct Split<'a> {
    weights: Weights<'a>,
    bias: Option<&'a [f32]>,
    columns: Columns<'a>,
}

/// Quantises every row of `input`, split over the threads where there is more than one.
pub(super) fn quantize(
    isa: Isa,
    pool: &mut Pool,
    group: Group,
    input: Input<'_>,
    to: &mut QuantizedRows,
) {
    let (tokens, width) = (input.tokens(), input.width);
    #[cfg(target_arch = "x86_64")]
    if panel::wanted(isa, group, tokens) {
        to.slabs.quantize(isa, pool, input.data, width);
        return;
    }
    to.resize(tokens, width);
    if tokens <= 1 {
        quantized::quantize(
            isa,
            group,
            input.data,
            &mut to.q,
            &mut to.scales,
            &mut to.sums,
        );
        return;
    }
    let threads = pool.threads();
    let q = Rows::new(&mut to.q, width, threads);
    let scales = Rows::new(&mut to.scales, width / group.width(), threads);
    let sums = Rows::new(&mut to.sums, width / 16, threads);
    pool.run(&|thread| {
        let (rows, q) = q.take(thread);
        let (_, scales) = scales.take(thread);
        let (_, sums) = sums.take(thread);
        let x = &input.data[rows.start * width..rows.end * width];
        quantized::quantize(isa, group, x, q, scales, sums);
    });
}
