//! The matmul verb: quantise the input once, then split every job's rows over the threads.

use super::{Buffer, Cpu, Matrix};
use crate::kernels::matmul::{self, Next, Tile, Weights, activation_group};
#[cfg(target_arch = "x86_64")]
use crate::kernels::panel;
use crate::kernels::quantized::{self, Group, QuantizedRows};
use crate::pool::{Columns, Pool, Rows, share};
use crate::{Isa, MatmulJob};

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
        *slot = Some(Product {
            weights: job.weights,
            bias: job.bias.map(Vec::as_slice),
            width: job.out.width,
            out: &mut job.out.data,
        });
    }
    let (data, width) = (&input.data, input.width);
    self::products(cpu, Input { data, width }, &mut products, next);
}

impl Matrix {
    fn weights(&self) -> Weights<'_> {
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

impl Input<'_> {
    fn tokens(&self) -> usize {
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

/// All `products` on one input, in one dispatch; `next` stands for the first of the next one.
pub(super) fn products(
    cpu: &mut Cpu,
    input: Input<'_>,
    products: &mut [Option<Product<'_>>],
    next: Option<&Matrix>,
) {
    let tokens = input.tokens();
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

    let mut columns: [Option<Split<'_>>; MAX_JOBS] = Default::default();
    for (slot, job) in columns.iter_mut().zip(products.iter_mut().flatten()) {
        let weights = job.weights;
        assert_eq!(
            weights.cols, input.width,
            "weights' columns are the input's"
        );
        assert_eq!(
            weights.rows, job.width,
            "weights' rows are the output's columns"
        );
        assert!(
            job.bias.is_none_or(|bias| bias.len() == weights.rows),
            "one bias a row"
        );
        assert_eq!(job.out.len(), tokens * job.width, "a row of output a token");
        *slot = Some(Split {
            weights: weights.weights(),
            bias: job.bias,
            columns: Columns::new(job.out, weights.rows, ROWS, cpu.pool.threads()),
        });
    }
    let (isa, threads) = (cpu.isa, cpu.pool.threads());
    let (small, k, next) = (&cpu.small, &cpu.k, next.map(Matrix::weights));
    let room = Rows::new(&mut cpu.float, matmul::FLOAT_ROOM, threads);
    cpu.pool.run(&|thread| {
        let (_, room) = room.take(thread);
        let mut jobs = columns.iter().flatten().peekable();
        while let Some(job) = jobs.next() {
            let mut out = job.columns.take(thread);
            let next = jobs.peek().map(|job| job.weights).or(next);
            let tile = Tile {
                weights: job.weights,
                tokens,
                out: &mut out,
                next: next.map(|weights| Next {
                    weights,
                    rows: share(weights.rows(), ROWS, thread, threads),
                }),
            };
            match activation_group(job.weights.format) {
                Some(Group::Small) => matmul::quantized(isa, tile, small),
                Some(Group::K) => matmul::quantized(isa, tile, k),
                None => matmul::float(isa, tile, input.data, room),
            }
            if let Some(bias) = job.bias {
                let range = out.range();
                for token in 0..tokens {
                    let row = out.row(token, range.clone());
                    for (x, bias) in row.iter_mut().zip(&bias[range.clone()]) {
                        *x += bias;
                    }
                }
            }
        }
    });
}

/// A job, its output split by columns.
struct Split<'a> {
    weights: Weights<'a>,
    bias: Option<&'a [f32]>,
    columns: Columns<'a>,
}

/// Quantises every row of `input`, split over the threads where there is more than one.
fn quantize(isa: Isa, pool: &mut Pool, group: Group, input: Input<'_>, to: &mut QuantizedRows) {
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
