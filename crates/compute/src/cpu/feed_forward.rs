//! The feed-forward verb: many tokens keep what is between its halves quantised, panel by panel; for few
//! the activation is part of the first half's dispatch.

use super::matmul::{self, Dispatch, Input, Product};
use super::{Buffer, Cpu, Matrix};
#[cfg(target_arch = "x86_64")]
use crate::kernels::{
    feed_forward::Gated,
    matmul::{self as kernels, FLOAT_ROOM},
    quantized::Group,
};
#[cfg(target_arch = "x86_64")]
use crate::pool::Rows;
use crate::{Activation, FeedForward, MatmulJob};

pub(super) fn run(
    cpu: &mut Cpu,
    input: &Buffer,
    network: FeedForward<'_, Cpu>,
    next: Option<&Matrix>,
) {
    let FeedForward {
        activation,
        gate_up: [mut gate, mut up],
        mut down,
    } = network;
    let tokens = input.tokens();
    let hidden = gate.weights.rows;
    assert!(
        gate.weights.cols == input.width && up.weights.cols == input.width,
        "weights' columns are the input's"
    );
    assert!(
        up.weights.rows == hidden && down.weights.cols == hidden,
        "gate, up and down agree"
    );
    for out in [&mut *gate.out, &mut *up.out, &mut *down.out] {
        out.set_tokens(tokens);
    }
    #[cfg(target_arch = "x86_64")]
    let shapes = [&gate, &up, &down].map(|job| (job.weights.format, job.weights.cols));
    #[cfg(target_arch = "x86_64")]
    if let Some(groups) = kernels::gates(cpu.isa, tokens, shapes) {
        in_panels(cpu, input, (activation, [&gate, &up]), groups);
        let dispatch = Dispatch {
            isa: cpu.isa,
            pool: &mut cpu.pool,
            room: &mut cpu.float,
            tokens,
            x: [&cpu.hidden; 2],
            floats: &[],
            activation: None,
        };
        dispatch.run(&mut [Some(Product::of(&mut down))], next);
        return;
    }
    let halves = &mut [Some(Product::of(&mut gate)), Some(Product::of(&mut up))];
    let then = Some(down.weights);
    matmul::products(cpu, Input::of(input), halves, Some(activation), then);
    let between = Input::of(gate.out);
    matmul::products(
        cpu,
        between,
        &mut [Some(Product::of(&mut down))],
        None,
        next,
    );
}

/// The first half, into `cpu.hidden`.
#[cfg(target_arch = "x86_64")]
fn in_panels(
    cpu: &mut Cpu,
    input: &Buffer,
    (activation, [gate, up]): (Activation, [&MatmulJob<'_, Cpu>; 2]),
    [from, to]: [Group; 2],
) {
    let Cpu {
        isa,
        pool,
        small,
        k,
        hidden,
        float,
        ..
    } = cpu;
    let (isa, threads, tokens) = (*isa, pool.threads(), input.tokens());
    let x = match from {
        Group::Small => small,
        Group::K => k,
    };
    matmul::quantize(isa, pool, from, Input::of(input), x);
    let out = hidden.split(to, tokens, gate.weights.rows, threads);
    let room = Rows::new(float, FLOAT_ROOM, threads);
    pool.run(&|thread| {
        let work = Gated {
            activation,
            gate: gate.weights.weights(),
            up: up.weights.weights(),
            bias: [gate.bias, up.bias].map(|bias| bias.map(Vec::as_slice)),
            tokens,
            x: &x.slabs,
            out: &mut out.take(thread),
            room: room.take(thread).1,
        };
        kernels::gated(isa, work);
    });
}
