//! The CPU backend with textbook attention: F32 keys and values, everything else of it in F64.

use redline_compute::{
    Activation, AttentionJob, AttentionShape, AttentionSpan, Backend, Cpu, ExpertJob, ExpertRows,
    FeedForward, Format, KvShape, KvSlot, MatmulJob, Norm, PAGE_POSITIONS, RopeTable, RouteShape,
    Routing, WeightBytes,
};

/// Shows what is left of a difference once the KV cache does not round.
#[derive(Debug)]
pub(crate) struct ExactAttention(pub(crate) Cpu);

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) struct ExactKv {
    /// Positions of all pages.
    positions: usize,
    width: usize,
    /// `[layers, positions, 2, kv_heads · head_dim]`
    data: Vec<f32>,
}

impl ExactKv {
    fn index(&self, layer: usize, position: usize, is_value: bool) -> usize {
        ((layer * self.positions + position) * 2 + usize::from(is_value)) * self.width
    }
}

impl Backend for ExactAttention {
    type Matrix = <Cpu as Backend>::Matrix;
    type Vector = <Cpu as Backend>::Vector;
    type Buffer = <Cpu as Backend>::Buffer;
    type KvCache = ExactKv;
    type Routes = <Cpu as Backend>::Routes;

    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: WeightBytes) -> Self::Matrix {
        self.0.matrix(format, rows, cols, bytes)
    }

    fn vector(&self, values: Vec<f32>) -> Self::Vector {
        self.0.vector(values)
    }

    fn buffer(&mut self, max_tokens: usize, width: usize) -> Self::Buffer {
        self.0.buffer(max_tokens, width)
    }

    fn kv_cache(&mut self, shape: KvShape) -> ExactKv {
        let positions = shape.pages * PAGE_POSITIONS;
        let width = shape.kv_heads * shape.head_dim;
        ExactKv {
            positions,
            width,
            data: vec![0.0; shape.layers * positions * 2 * width],
        }
    }

    fn resize(&self, buffer: &mut Self::Buffer, tokens: usize) {
        self.0.resize(buffer, tokens);
    }

    fn read<'a>(&self, buffer: &'a Self::Buffer) -> &'a [f32] {
        self.0.read(buffer)
    }

    fn embed(&mut self, table: &Self::Matrix, ids: &[u32], scale: f32, out: &mut Self::Buffer) {
        self.0.embed(table, ids, scale, out);
    }

    fn norm(
        &mut self,
        norm: Norm,
        weight: &Self::Vector,
        bias: Option<&Self::Vector>,
        input: &Self::Buffer,
        out: &mut Self::Buffer,
    ) {
        self.0.norm(norm, weight, bias, input, out);
    }

    fn norm_heads(&mut self, norm: Norm, weight: &Self::Vector, x: &mut Self::Buffer) {
        self.0.norm_heads(norm, weight, x);
    }

    fn matmul(
        &mut self,
        input: &Self::Buffer,
        jobs: &mut [MatmulJob<'_, Self>],
        next: Option<&Self::Matrix>,
    ) {
        for MatmulJob { weights, bias, out } in jobs {
            let (weights, bias) = (*weights, *bias);
            self.0
                .matmul(input, &mut [MatmulJob { weights, bias, out }], next);
        }
    }

    fn rope(
        &mut self,
        table: &RopeTable,
        head_dim: usize,
        positions: &[u32],
        x: &mut Self::Buffer,
    ) {
        self.0.rope(table, head_dim, positions, x);
    }

    fn append_kv(
        &mut self,
        cache: &mut ExactKv,
        layer: usize,
        slots: &[KvSlot],
        k: &Self::Buffer,
        v: &Self::Buffer,
    ) {
        let width = cache.width;
        for (source, is_value) in [(k, false), (v, true)] {
            for (slot, row) in slots.iter().zip(self.0.read(source).chunks_exact(width)) {
                let position = slot.page.0 as usize * PAGE_POSITIONS + slot.offset;
                let at = cache.index(layer, position, is_value);
                cache.data[at..][..width].copy_from_slice(row);
            }
        }
    }

    fn attention(
        &mut self,
        cache: &ExactKv,
        job: AttentionJob<'_, Self>,
        spans: &[AttentionSpan<'_>],
        q: &Self::Buffer,
        out: &mut Self::Buffer,
    ) {
        let AttentionJob { shape, sinks } = job;
        let width = shape.heads * shape.head_dim;
        let queries = self.0.read(q);
        let mut result = vec![0.0_f32; queries.len()];
        for span in spans {
            for i in 0..span.rows {
                for head in 0..shape.heads {
                    let at = (span.row + i) * width + head * shape.head_dim;
                    let query = &queries[at..][..shape.head_dim];
                    let out = &mut result[at..][..shape.head_dim];
                    let sink = sinks.map(|sinks| sinks[head]);
                    let place = (head, span.position + i);
                    attend(cache, (shape, sink), span, place, (query, out));
                }
            }
        }
        // The verbs have one way to set a buffer's rows: look them up in a table of rows.
        let rows = result.len() / width;
        let bytes = result.iter().flat_map(|x| x.to_le_bytes()).collect();
        let table = self
            .0
            .matrix(Format::F32, rows, width, WeightBytes::owned(bytes));
        let ids: Vec<u32> = (0..rows as u32).collect();
        self.0.embed(&table, &ids, 1.0, out);
    }

    fn feed_forward(
        &mut self,
        input: &Self::Buffer,
        network: FeedForward<'_, Self>,
        next: Option<&Self::Matrix>,
    ) {
        let network = FeedForward {
            activation: network.activation,
            gate_up: network.gate_up.map(job),
            down: job(network.down),
        };
        self.0.feed_forward(input, network, next);
    }

    fn gated_activation(
        &mut self,
        activation: Activation,
        gate: &mut Self::Buffer,
        up: &Self::Buffer,
    ) {
        self.0.gated_activation(activation, gate, up);
    }

    fn activate(&mut self, activation: Activation, x: &mut Self::Buffer) {
        self.0.activate(activation, x);
    }

    fn add(&mut self, x: &mut Self::Buffer, y: &Self::Buffer) {
        self.0.add(x, y);
    }

    fn routes(&mut self, shape: RouteShape) -> Self::Routes {
        self.0.routes(shape)
    }

    fn route_experts(
        &mut self,
        routing: Routing,
        logits: &Self::Buffer,
        routes: &mut Self::Routes,
    ) {
        self.0.route_experts(routing, logits, routes);
    }

    fn expert_matmul(
        &mut self,
        routes: &mut Self::Routes,
        rows: ExpertRows,
        input: &Self::Buffer,
        jobs: &mut [ExpertJob<'_, Self>],
    ) {
        for ExpertJob { weights, bias, out } in jobs {
            let (weights, bias) = (*weights, *bias);
            let out = &mut **out;
            let jobs = &mut [ExpertJob { weights, bias, out }];
            self.0.expert_matmul(routes, rows, input, jobs);
        }
    }

    fn combine_experts(
        &mut self,
        routes: &Self::Routes,
        pairs: &Self::Buffer,
        out: &mut Self::Buffer,
    ) {
        self.0.combine_experts(routes, pairs, out);
    }

    fn select(&mut self, input: &Self::Buffer, rows: &[usize], out: &mut Self::Buffer) {
        self.0.select(input, rows, out);
    }
}

/// `softmax(scale · q Kᵀ) V` of one query head at one position, with its sink in the sum.
fn attend(
    cache: &ExactKv,
    (shape, sink): (AttentionShape, Option<f32>),
    span: &AttentionSpan<'_>,
    (head, position): (usize, usize),
    (query, out): (&[f32], &mut [f32]),
) {
    let position = match shape.causal {
        true => position,
        false => span.position + span.rows - 1,
    };
    let first = shape
        .window
        .map_or(0, |window| (position + 1).saturating_sub(window));
    let column = head / (shape.heads / shape.kv_heads) * shape.head_dim;
    let stored = |seen: usize, is_value: bool| {
        let page = span.pages[seen / PAGE_POSITIONS].0 as usize;
        let at = cache.index(
            shape.layer,
            page * PAGE_POSITIONS + seen % PAGE_POSITIONS,
            is_value,
        );
        &cache.data[at + column..][..shape.head_dim]
    };
    let scores: Vec<f64> = (first..=position)
        .map(|seen| {
            let products = query.iter().zip(stored(seen, false));
            let sum: f64 = products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            sum * f64::from(shape.scale)
        })
        .collect();
    let all = || scores.iter().copied().chain(sink.map(f64::from));
    let largest = all().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = all().map(|score| (score - largest).exp()).sum();
    for (dim, out) in out.iter_mut().enumerate() {
        let weighted = scores.iter().zip(first..).map(|(score, seen)| {
            (score - largest).exp() / total * f64::from(stored(seen, true)[dim])
        });
        *out = weighted.sum::<f64>() as f32;
    }
}

/// The same job for the backend that does the rest.
fn job<'a>(job: MatmulJob<'a, ExactAttention>) -> MatmulJob<'a, Cpu> {
    let MatmulJob { weights, bias, out } = job;
    MatmulJob { weights, bias, out }
}
