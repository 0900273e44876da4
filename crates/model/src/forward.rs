//! One step through all layers.

mod mixture;
mod step;

use redline_compute::{AttentionJob, AttentionSpan, Backend, FeedForward, MatmulJob, PageId};

use crate::load::{Limits, Output};
use crate::plan::{Forward, ForwardShape, MAX_SEQUENCES, Observer, Stage, StepPlan};
use crate::weights::{HalfNorms, LayerWeights, Linear, Network, NormWeights};
use crate::{Error, Model, Properties};
use mixture::MixtureScratch;
use step::{NO_SPAN, Step, spans_of};

/// Everything a step writes, sized once at load.
#[derive(Debug)]
pub(crate) struct Scratch<B: Backend> {
    /// Residual stream, `[tokens, hidden]`
    x: B::Buffer,
    /// Normalised input of a half layer, `[tokens, hidden]`
    normed: B::Buffer,
    /// Result of a half layer, `[tokens, hidden]`
    delta: B::Buffer,
    /// `[tokens, heads · head_dim]`
    q: B::Buffer,
    /// `[tokens, kv_heads · head_dim]`
    k: B::Buffer,
    /// `[tokens, kv_heads · head_dim]`
    v: B::Buffer,
    /// `[tokens, heads · head_dim]`
    attended: B::Buffer,
    /// `[tokens, feed_forward]`; of a mixture a row for each pair of a token and one of its experts
    gate: B::Buffer,
    /// As `gate`
    up: B::Buffer,
    mixture: Option<MixtureScratch<B>>,
    /// `[rows, hidden]`
    selected: B::Buffer,
    /// `[rows, hidden]`
    selected_normed: B::Buffer,
    /// `[rows, vocab]`, where rows get logits.
    logits: Option<B::Buffer>,
    step: Step,
}

impl<B: Backend> Scratch<B> {
    pub(crate) fn new(backend: &mut B, properties: &Properties, limits: &Limits) -> Self {
        let p = properties;
        let (tokens, rows) = (limits.max_step_tokens, limits.max_logit_rows);
        let (q_width, kv_width) = (p.heads * p.head_dim, p.kv_heads * p.head_dim);
        let networks = p.experts.map_or(1, |experts| experts.per_token);
        Self {
            x: backend.buffer(tokens, p.hidden),
            normed: backend.buffer(tokens, p.hidden),
            delta: backend.buffer(tokens, p.hidden),
            q: backend.buffer(tokens, q_width),
            k: backend.buffer(tokens, kv_width),
            v: backend.buffer(tokens, kv_width),
            attended: backend.buffer(tokens, q_width),
            gate: backend.buffer(networks * tokens, p.feed_forward),
            up: backend.buffer(networks * tokens, p.feed_forward),
            mixture: (p.experts.as_ref())
                .map(|experts| MixtureScratch::new(backend, experts, p.hidden, tokens)),
            selected: backend.buffer(rows, p.hidden),
            selected_normed: backend.buffer(rows, p.hidden),
            logits: match limits.output {
                Output::Logits => Some(backend.buffer(rows, p.vocab)),
                Output::Hidden => None,
            },
            step: Step::new(limits),
        }
    }
}

impl<B: Backend> Forward for Model<B> {
    fn shape(&self) -> ForwardShape {
        ForwardShape {
            vocab_size: self.properties.vocab,
            context_length: self.limits.context,
            page_count: self.limits.kv_pages,
            max_step_tokens: self.limits.max_step_tokens,
            max_logit_rows: self.limits.max_logit_rows,
        }
    }

    fn attention_window(&self) -> Option<usize> {
        self.properties.attention_window()
    }

    fn copy_page(&mut self, from: PageId, to: PageId) {
        self.backend.copy_page(&mut self.kv, from, to);
    }

    fn forward(
        &mut self,
        plan: &StepPlan<'_>,
        observer: &mut dyn Observer,
    ) -> Result<&[f32], Error> {
        self.scratch
            .step
            .lay_out(plan, &self.properties, &self.limits)?;
        let mut spans = [NO_SPAN; MAX_SEQUENCES];
        let spans = spans_of(plan, &mut spans);
        if !spans.is_empty() {
            self.embed(observer);
            for layer in 0..self.weights.layers.len() {
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                self.attend(layer, spans);
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                self.feed_forward(layer);
                self.show(observer, Stage::Layer(layer), &self.scratch.x);
            }
        }
        self.finish(observer);
        let s = &self.scratch;
        Ok(self
            .backend
            .read(s.logits.as_ref().unwrap_or(&s.selected_normed)))
    }
}

impl<B: Backend> Model<B> {
    fn embed(&mut self, observer: &mut dyn Observer) {
        let (b, w, s) = (&mut self.backend, &self.weights, &mut self.scratch);
        let scale = self.properties.embedding_scale;
        b.embed(&w.embedding, &s.step.ids, scale, &mut s.x);
        for (table, rows) in [
            (&w.token_types, &s.step.types),
            (&w.positions, &s.step.positions),
        ] {
            if let Some(table) = table {
                b.embed(table, rows, 1.0, &mut s.delta);
                b.add(&mut s.x, &s.delta);
            }
        }
        if let Some(norm) = &w.embedding_norm {
            norm.replace(b, &self.properties, &mut s.x, &mut s.normed);
        }
        self.show(observer, Stage::Embedding, &self.scratch.x);
    }

    /// `x += attention(norm(x))`, or with the norms elsewhere.
    fn attend(&mut self, layer: usize, spans: &[AttentionSpan<'_>]) {
        let (b, p, s) = (&mut self.backend, &self.properties, &mut self.scratch);
        let w = &self.weights.layers[layer];
        let input = w.attention_norms.input(b, p, &s.x, &mut s.normed);
        let mut jobs = [
            w.query.job(&mut s.q),
            w.key.job(&mut s.k),
            w.value.job(&mut s.v),
        ];
        b.matmul(input, &mut jobs, Some(&w.attention_output.matrix));
        if let Some(weight) = &w.query_norm {
            b.norm_heads(p.norm, weight, &mut s.q);
        }
        if let Some(weight) = &w.key_norm {
            b.norm_heads(p.norm, weight, &mut s.k);
        }
        if let Some(rope) = p.layers[layer].rope {
            let rope = &self.ropes[rope];
            b.rope(rope, p.head_dim, &s.step.positions, &mut s.q);
            b.rope(rope, p.head_dim, &s.step.positions, &mut s.k);
        }
        b.append_kv(&mut self.kv, layer, &s.step.slots, &s.k, &s.v);
        let job = AttentionJob {
            shape: p.attention(layer),
            sinks: w.sinks.as_ref(),
        };
        b.attention(&self.kv, job, spans, &s.q, &mut s.attended);
        b.matmul(
            &s.attended,
            &mut [w.attention_output.job(&mut s.delta)],
            Some(w.network.first()),
        );
        add_delta(b, p, &w.attention_norms, s);
    }

    /// `x += network(norm(x))`, or with the norms elsewhere.
    fn feed_forward(&mut self, layer: usize) {
        let (b, p, s) = (&mut self.backend, &self.properties, &mut self.scratch);
        let w: &LayerWeights<B> = &self.weights.layers[layer];
        let input = w.feed_forward_norms.input(b, p, &s.x, &mut s.normed);
        let next = match self.weights.layers.get(layer + 1) {
            Some(next) => Some(&next.query.matrix),
            None => self.weights.head.as_deref(),
        };
        match &w.network {
            Network::Gated { gate, up, down } => {
                let network = FeedForward {
                    activation: p.activation,
                    gate_up: [gate.job(&mut s.gate), up.job(&mut s.up)],
                    down: down.job(&mut s.delta),
                };
                b.feed_forward(input, network, next);
            }
            Network::Plain { up, down } => {
                b.matmul(input, &mut [up.job(&mut s.up)], Some(&down.matrix));
                b.activate(p.activation, &mut s.up);
                b.matmul(&s.up, &mut [down.job(&mut s.delta)], next);
            }
            Network::Mixture(mixture) => {
                let room = s.mixture.as_mut();
                let room = room.expect("a model with experts has room for them");
                let buffers = [&mut s.gate, &mut s.up, &mut s.delta];
                mixture.apply(b, p.activation, input, room, buffers);
            }
        }
        add_delta(b, p, &w.feed_forward_norms, s);
    }

    /// The rows that were asked for: their last norm and, unless hidden state is wanted, logits.
    fn finish(&mut self, observer: &mut dyn Observer) {
        let (b, w, s) = (&mut self.backend, &self.weights, &mut self.scratch);
        if s.step.rows.is_empty() {
            let out = s.logits.as_mut().unwrap_or(&mut s.selected_normed);
            b.resize(out, 0);
            return;
        }
        b.select(&s.x, &s.step.rows, &mut s.selected);
        match &w.final_norm {
            Some(norm) => norm.apply(b, &self.properties, &s.selected, &mut s.selected_normed),
            None => std::mem::swap(&mut s.selected, &mut s.selected_normed),
        }
        if let (Some(head), Some(out)) = (&w.head, &mut s.logits) {
            let job = MatmulJob {
                weights: &**head,
                bias: None,
                out,
            };
            // With which the next step begins.
            let first = w.layers.first();
            b.matmul(
                &s.selected_normed,
                &mut [job],
                first.map(|layer| &layer.query.matrix),
            );
        }
        self.show(observer, Stage::FinalNorm, &self.scratch.selected_normed);
    }

    fn show(&self, observer: &mut dyn Observer, stage: Stage, buffer: &B::Buffer) {
        if observer.wants_hidden() {
            observer.hidden(stage, self.backend.read(buffer));
        }
    }
}

impl<B: Backend> Linear<B> {
    fn job<'a>(&'a self, out: &'a mut B::Buffer) -> MatmulJob<'a, B> {
        MatmulJob {
            weights: &self.matrix,
            bias: self.bias.as_ref(),
            out,
        }
    }
}

impl<B: Backend> NormWeights<B> {
    fn apply(&self, backend: &mut B, properties: &Properties, x: &B::Buffer, out: &mut B::Buffer) {
        backend.norm(properties.norm, &self.weight, self.bias.as_ref(), x, out);
    }

    /// Normalises `x`; `room` is as large.
    fn replace(
        &self,
        backend: &mut B,
        properties: &Properties,
        x: &mut B::Buffer,
        room: &mut B::Buffer,
    ) {
        self.apply(backend, properties, x, room);
        std::mem::swap(x, room);
    }
}

impl<B: Backend> HalfNorms<B> {
    /// What the half layer is given.
    fn input<'s>(
        &self,
        backend: &mut B,
        properties: &Properties,
        x: &'s B::Buffer,
        normed: &'s mut B::Buffer,
    ) -> &'s B::Buffer {
        match &self.before {
            None => x,
            Some(norm) => {
                norm.apply(backend, properties, x, normed);
                normed
            }
        }
    }
}

/// `x += delta`, with the norms of it and of the sum that the model has.
fn add_delta<B: Backend>(
    backend: &mut B,
    properties: &Properties,
    norms: &HalfNorms<B>,
    scratch: &mut Scratch<B>,
) {
    let Scratch {
        x, normed, delta, ..
    } = scratch;
    if let Some(norm) = &norms.after {
        norm.replace(backend, properties, delta, normed);
    }
    backend.add(x, delta);
    if let Some(norm) = &norms.after_sum {
        norm.replace(backend, properties, x, normed);
    }
}
