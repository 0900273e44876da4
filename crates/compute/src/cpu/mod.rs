//! The verbs on this machine's cores.

mod experts;
mod feed_forward;
mod kv;
mod matmul;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::kernels::matmul::{FLOAT_ROOM, Vector};
use crate::kernels::quantized::{Group, QuantizedRows};
use crate::kernels::{attention, elementwise, embed, norm};
use crate::memory::Memory;
use crate::pool::{Blocks, MAX_PARTS, Pool, Rows};
use crate::{
    Activation, AttentionJob, AttentionShape, AttentionSpan, Backend, ExpertJob, ExpertRows,
    FeedForward, Format, Isa, KvShape, KvSlot, MatmulJob, Norm, PAGE_POSITIONS, PageId, RopeTable,
    RouteShape, Routing, WeightBytes,
};

pub use experts::Routes;
pub use kv::KvCache;

/// The CPU backend: an instruction set and a set of threads.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Pool,
    /// The current matmul input in groups of 32.
    small: QuantizedRows,
    /// The current matmul input in groups of 256.
    k: QuantizedRows,
    /// What is between the halves of a feed-forward network, in either.
    hidden: QuantizedRows,
    /// What float products and gated panels work in, a part for each thread.
    float: Memory<Vector>,
    /// One a thread.
    attention: Vec<attention::Scratch>,
}

/// Weights `[rows, cols]` where they are mapped.
#[derive(Debug)]
pub struct Matrix {
    format: Format,
    rows: usize,
    cols: usize,
    bytes: WeightBytes,
}

/// Activations `[tokens, width]`.
#[derive(Debug)]
pub struct Buffer {
    width: usize,
    max_tokens: usize,
    data: Memory<f32>,
}

impl Buffer {
    fn tokens(&self) -> usize {
        self.data.len() / self.width
    }

    fn set_tokens(&mut self, tokens: usize) {
        assert!(
            tokens <= self.max_tokens,
            "{tokens} rows fit, of at most {}",
            self.max_tokens
        );
        self.data.set_len(tokens * self.width);
    }
}

impl Cpu {
    /// A backend of `threads` threads, the caller's among them.
    ///
    /// # Panics
    /// If this machine lacks `isa`, if `threads` is not in `1..=64`, or if the system cannot start
    /// a thread.
    #[must_use]
    pub fn new(isa: Isa, threads: usize) -> Self {
        assert!(
            isa.is_available(),
            "{isa} is not an instruction set of this machine"
        );
        assert!(threads <= MAX_PARTS, "at most {} threads", MAX_PARTS);
        let room = threads * FLOAT_ROOM;
        let mut float = Memory::resident(room);
        float.set_len(room);
        Self {
            isa,
            pool: Pool::new(threads),
            small: QuantizedRows::with_capacity(Group::Small, 0),
            k: QuantizedRows::with_capacity(Group::K, 0),
            hidden: QuantizedRows::with_capacity(Group::Small, 0),
            float,
            attention: (0..threads).map(|_| attention::Scratch::new()).collect(),
        }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `work` on the rows of `x`, split over the threads where there is more than one row.
    fn each_rows(&mut self, x: &mut Buffer, work: impl Fn(Range<usize>, &mut [f32]) + Sync) {
        if x.tokens() <= 1 {
            let rows = 0..x.tokens();
            work(rows, &mut x.data);
            return;
        }
        let rows = Rows::new(&mut x.data, x.width, self.pool.threads());
        self.pool.run(&|thread| {
            let (range, data) = rows.take(thread);
            work(range, data);
        });
    }
}

impl Backend for Cpu {
    type Matrix = Matrix;
    type Vector = Vec<f32>;
    type Buffer = Buffer;
    type KvCache = KvCache;
    type Routes = Routes;

    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: WeightBytes) -> Matrix {
        assert_eq!(
            bytes.len(),
            rows * format.row_bytes(cols),
            "[{rows}, {cols}] {format}"
        );
        Matrix {
            format,
            rows,
            cols,
            bytes,
        }
    }

    fn vector(&self, values: Vec<f32>) -> Vec<f32> {
        values
    }

    fn buffer(&mut self, max_tokens: usize, width: usize) -> Buffer {
        assert!(width > 0, "a row has elements");
        // Any buffer may be the input of a matmul.
        self.small.reserve(max_tokens, width);
        self.k.reserve(max_tokens, width);
        #[cfg(target_arch = "x86_64")]
        self.hidden.slabs.reserve_any(max_tokens, width);
        Buffer {
            width,
            max_tokens,
            data: Memory::resident(max_tokens * width),
        }
    }

    fn kv_cache(&mut self, shape: KvShape) -> KvCache {
        for scratch in &mut self.attention {
            scratch.reserve(shape.head_dim, shape.pages * PAGE_POSITIONS);
        }
        KvCache::new(shape)
    }

    fn routes(&mut self, shape: RouteShape) -> Routes {
        Routes::new(self, shape)
    }

    fn resize(&self, buffer: &mut Buffer, tokens: usize) {
        buffer.set_tokens(tokens);
    }

    fn read<'a>(&self, buffer: &'a Buffer) -> &'a [f32] {
        &buffer.data
    }

    fn embed(&mut self, table: &Matrix, ids: &[u32], scale: f32, out: &mut Buffer) {
        assert_eq!(table.cols, out.width, "an embedding fills a row");
        out.set_tokens(ids.len());
        let (isa, bytes) = (self.isa, table.format.row_bytes(table.cols));
        self.each_rows(out, |rows, data| {
            for (id, row) in ids[rows].iter().zip(data.chunks_exact_mut(table.cols)) {
                let id = *id as usize;
                assert!(id < table.rows, "token {id} of {}", table.rows);
                let stored = &table.bytes[id * bytes..][..bytes];
                embed::embed(isa, table.format, stored, scale, row);
            }
        });
    }

    fn norm(
        &mut self,
        norm: Norm,
        weight: &Vec<f32>,
        bias: Option<&Vec<f32>>,
        input: &Buffer,
        out: &mut Buffer,
    ) {
        assert!(
            weight.len() == input.width && out.width == input.width,
            "one weight a column"
        );
        assert!(
            bias.is_none_or(|bias| bias.len() == weight.len()),
            "one bias a column"
        );
        out.set_tokens(input.tokens());
        let (isa, width) = (self.isa, input.width);
        let bias = bias.map(Vec::as_slice);
        self.each_rows(out, |rows, out| {
            let x = &input.data[rows.start * width..rows.end * width];
            norm::rows(isa, norm, weight, bias, x, out);
        });
    }

    fn norm_heads(&mut self, norm: Norm, weight: &Vec<f32>, x: &mut Buffer) {
        assert!(x.width.is_multiple_of(weight.len()), "whole heads");
        let isa = self.isa;
        self.each_rows(x, |_, x| norm::rows_in_place(isa, norm, weight, x));
    }

    fn matmul(&mut self, input: &Buffer, jobs: &mut [MatmulJob<'_, Self>], next: Option<&Matrix>) {
        matmul::run(self, input, jobs, next);
    }

    fn feed_forward(
        &mut self,
        input: &Buffer,
        network: FeedForward<'_, Self>,
        next: Option<&Matrix>,
    ) {
        feed_forward::run(self, input, network, next);
    }

    fn rope(&mut self, table: &RopeTable, head_dim: usize, positions: &[u32], x: &mut Buffer) {
        assert_eq!(positions.len(), x.tokens(), "one position a row");
        let (isa, pairs, width) = (self.isa, table.dims / 2, x.width);
        self.each_rows(x, |rows, data| {
            for (position, row) in positions[rows].iter().zip(data.chunks_exact_mut(width)) {
                let angles = &table.table[*position as usize * pairs..][..pairs];
                elementwise::rope(isa, table.style, angles, head_dim, row);
            }
        });
    }

    fn append_kv(
        &mut self,
        cache: &mut KvCache,
        layer: usize,
        slots: &[KvSlot],
        k: &Buffer,
        v: &Buffer,
    ) {
        cache.append(self.isa, layer, slots, &k.data, &v.data);
    }

    fn copy_page(&mut self, cache: &mut KvCache, from: PageId, to: PageId) {
        cache.copy_page(from, to);
    }

    fn attention(
        &mut self,
        cache: &KvCache,
        job: AttentionJob<'_, Self>,
        spans: &[AttentionSpan<'_>],
        q: &Buffer,
        out: &mut Buffer,
    ) {
        let AttentionJob { shape, sinks } = job;
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = shape;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "whole groups of query heads"
        );
        assert!(
            q.width == heads * head_dim && out.width == q.width,
            "heads fill a row"
        );
        assert!(
            shape.causal || shape.window.is_none(),
            "a window of causal attention"
        );
        assert!(
            sinks.is_none_or(|sinks| sinks.len() == heads),
            "one sink a head"
        );
        cache.assert_holds(shape, spans);
        out.set_tokens(q.tokens());
        let (isa, threads) = (self.isa, self.pool.threads());
        let work =
            attention::Work::new(cache, shape, spans, &q.data).with_sinks(sinks.map(Vec::as_slice));
        let mut cuts = [attention::Cut::default(); MAX_PARTS + 1];
        work.split(&self.attention[0], &mut cuts[..=threads]);
        let parts: [Range<usize>; MAX_PARTS] =
            std::array::from_fn(|part| cuts[part].whole_units(cuts[part + 1]));
        let blocks = Blocks::new(&mut out.data, q.width, work.columns(), &parts[..threads]);
        let scratches = Rows::new(&mut self.attention, 1, threads);
        let part = |thread: usize| {
            let (_, scratch) = scratches.take(thread);
            let between = [cuts[thread], cuts[thread + 1]];
            attention::part(
                isa,
                work,
                between,
                &mut scratch[0],
                &mut blocks.take(thread),
            );
        };
        if cuts[1] == cuts[threads] {
            // Too little to share: no row is cut.
            part(0);
            return;
        }
        self.pool.run(&part);
        attention::merge_shared_rows(isa, work, &mut self.attention, &mut out.data);
    }

    fn gated_activation(&mut self, activation: Activation, gate: &mut Buffer, up: &Buffer) {
        assert!(
            gate.width == up.width && gate.tokens() == up.tokens(),
            "gate and up alike"
        );
        let (isa, width) = (self.isa, up.width);
        self.each_rows(gate, |rows, gate| {
            let up = &up.data[rows.start * width..rows.end * width];
            elementwise::gated(isa, activation, gate, up);
        });
    }

    fn activate(&mut self, activation: Activation, x: &mut Buffer) {
        let isa = self.isa;
        self.each_rows(x, |_, x| elementwise::activate(isa, activation, x));
    }

    fn add(&mut self, x: &mut Buffer, y: &Buffer) {
        assert!(
            x.width == y.width && x.tokens() == y.tokens(),
            "sums of like shapes"
        );
        let width = y.width;
        self.each_rows(x, |rows, x| {
            elementwise::add(x, &y.data[rows.start * width..rows.end * width]);
        });
    }

    fn route_experts(&mut self, routing: Routing, logits: &Buffer, routes: &mut Routes) {
        experts::route(self, routing, logits, routes);
    }

    fn expert_matmul(
        &mut self,
        routes: &mut Routes,
        rows: ExpertRows,
        input: &Buffer,
        jobs: &mut [ExpertJob<'_, Self>],
    ) {
        experts::matmul(self, routes, rows, input, jobs);
    }

    fn combine_experts(&mut self, routes: &Routes, pairs: &Buffer, out: &mut Buffer) {
        experts::combine(self, routes, pairs, out);
    }

    fn select(&mut self, input: &Buffer, rows: &[usize], out: &mut Buffer) {
        assert_eq!(input.width, out.width, "rows of like width");
        out.set_tokens(rows.len());
        let width = input.width;
        for (row, out) in rows.iter().zip(out.data.chunks_exact_mut(width)) {
            out.copy_from_slice(&input.data[row * width..][..width]);
        }
    }
}
