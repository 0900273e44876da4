//! The feed-forward half of a layer whose tokens choose among networks.

use redline_compute::{Activation, Backend, ExpertJob, ExpertRows, RouteShape, Routing};

use crate::Experts;
use crate::weights::{Mixture, Stack};

/// What a mixture writes beside what every network does.
#[derive(Debug)]
pub(super) struct MixtureScratch<B: Backend> {
    routing: Routing,
    /// `[tokens, experts]`
    logits: B::Buffer,
    routes: B::Routes,
    /// Experts' results, `[pairs, hidden]`
    results: B::Buffer,
}

impl<B: Backend> MixtureScratch<B> {
    pub(super) fn new(
        backend: &mut B,
        experts: &Experts,
        hidden: usize,
        max_tokens: usize,
    ) -> Self {
        let shape = RouteShape {
            max_tokens,
            experts: experts.count,
            per_token: experts.per_token,
            width: hidden,
        };
        Self {
            routing: experts.routing,
            logits: backend.buffer(max_tokens, experts.count),
            routes: backend.routes(shape),
            results: backend.buffer(shape.max_pairs(), hidden),
        }
    }
}

impl<B: Backend> Mixture<B> {
    /// `out = Σ weight · down(activation(gate(input), up(input)))` over each token's experts.
    pub(super) fn apply(
        &self,
        b: &mut B,
        activation: Activation,
        input: &B::Buffer,
        s: &mut MixtureScratch<B>,
        [gate, up, out]: [&mut B::Buffer; 3],
    ) {
        b.matmul(input, &mut [self.router.job(&mut s.logits)], None);
        b.route_experts(s.routing, &s.logits, &mut s.routes);
        let mut jobs = [self.gate.job(gate), self.up.job(up)];
        b.expert_matmul(&mut s.routes, ExpertRows::Tokens, input, &mut jobs);
        b.gated_activation(activation, gate, up);
        let mut jobs = [self.down.job(&mut s.results)];
        b.expert_matmul(&mut s.routes, ExpertRows::Pairs, gate, &mut jobs);
        b.combine_experts(&s.routes, &s.results, out);
    }
}

impl<B: Backend> Stack<B> {
    fn job<'a>(&'a self, out: &'a mut B::Buffer) -> ExpertJob<'a, B> {
        ExpertJob {
            weights: &self.matrices,
            bias: self.biases.as_deref(),
            out,
        }
    }
}
