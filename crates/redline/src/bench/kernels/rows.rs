//! The verbs that treat each row alone.

use redline_compute::{
    Activation, AttentionJob, AttentionShape, AttentionSpan, Backend, Cpu, Format, Isa, KvFormat,
    KvShape, KvSlot, Norm, PAGE_POSITIONS, PageId, RopeStyle, RopeTable, WeightBytes, quant,
};

use super::lab::{self, Lab};
use super::list::WIDTH;
use super::{Cost, Outputs, Work};

/// Which verb.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verb {
    Embed(Format),
    Norm,
    Rope(RopeStyle),
    AppendKv(KvFormat),
    Gated(Activation),
    Add,
}

/// Elements of a head, where the verb knows heads.
const HEAD_DIM: usize = 96;
/// Rows of an embedding.
const VOCABULARY: usize = 1024;

/// A verb on rows of one width.
pub(super) struct Rows {
    verb: Verb,
    tokens: usize,
    stage: Stage,
}

/// A backend, and what the verb is given on it.
struct Stage {
    backend: Cpu,
    /// `[tokens, WIDTH]`, what the verb changes.
    x: <Cpu as Backend>::Buffer,
    /// `[tokens, WIDTH]`
    y: <Cpu as Backend>::Buffer,
    /// `[tokens, WIDTH]`
    values: Vec<f32>,
    table: <Cpu as Backend>::Matrix,
    weight: <Cpu as Backend>::Vector,
    rope: RopeTable,
    cache: <Cpu as Backend>::KvCache,
    /// `[tokens]`
    ids: Vec<u32>,
    /// `[tokens]`
    positions: Vec<u32>,
    /// `[tokens]`
    slots: Vec<KvSlot>,
}

impl Stage {
    fn new(mut backend: Cpu, verb: Verb, tokens: usize) -> Self {
        let values = lab::values(6, tokens * WIDTH);
        let x = lab::buffer(&mut backend, WIDTH, &values);
        let y = lab::buffer(&mut backend, WIDTH, &lab::values(7, tokens * WIDTH));
        let (format, rows) = match verb {
            Verb::Embed(format) => (format, VOCABULARY),
            _ => (Format::F32, 1),
        };
        let mut bytes = vec![0; rows * format.row_bytes(WIDTH)];
        quant::quantize(format, &lab::values(8, rows * WIDTH), &mut bytes);
        let table = backend.matrix(format, rows, WIDTH, WeightBytes::owned(bytes));
        let weight = backend.vector(lab::values(9, WIDTH));
        let style = match verb {
            Verb::Rope(style) => style,
            _ => RopeStyle::Neox,
        };
        let frequencies = RopeTable::frequencies(10_000.0, HEAD_DIM);
        let cache = backend.kv_cache(stored(verb, tokens));
        Self {
            x,
            y,
            values,
            table,
            weight,
            rope: RopeTable::new(style, HEAD_DIM, &frequencies, 1.0, tokens),
            cache,
            ids: (0..tokens).map(|token| (token * 7 % rows) as u32).collect(),
            positions: (0..tokens as u32).collect(),
            slots: (0..tokens)
                .map(|token| KvSlot {
                    page: PageId((token / PAGE_POSITIONS) as u32),
                    offset: token % PAGE_POSITIONS,
                })
                .collect(),
            backend,
        }
    }

    fn call(&mut self, verb: Verb) {
        let backend = &mut self.backend;
        match verb {
            Verb::Embed(_) => backend.embed(&self.table, &self.ids, 1.0, &mut self.x),
            Verb::Norm => {
                let norm = Norm::Rms { eps: 1e-5 };
                backend.norm(norm, &self.weight, None, &self.y, &mut self.x);
            }
            Verb::Rope(_) => backend.rope(&self.rope, HEAD_DIM, &self.positions, &mut self.x),
            Verb::AppendKv(_) => {
                backend.append_kv(&mut self.cache, 0, &self.slots, &self.x, &self.y);
            }
            Verb::Gated(activation) => backend.gated_activation(activation, &mut self.x, &self.y),
            Verb::Add => backend.add(&mut self.x, &self.y),
        }
    }

    /// What a call leaves: the changed rows, or what scalar attention sees in the cache.
    fn output(&mut self, verb: Verb) -> Vec<f32> {
        self.call(verb);
        if !matches!(verb, Verb::AppendKv(_)) {
            return self.backend.read(&self.x).to_vec();
        }
        let shape = AttentionShape {
            layer: 0,
            heads: WIDTH / HEAD_DIM,
            kv_heads: WIDTH / HEAD_DIM,
            head_dim: HEAD_DIM,
            scale: 0.1,
            window: None,
            causal: true,
        };
        let pages: Vec<PageId> = (0..self.slots.len().div_ceil(PAGE_POSITIONS) as u32)
            .map(PageId)
            .collect();
        let span = AttentionSpan {
            row: 0,
            rows: 1,
            position: self.slots.len() - 1,
            pages: &pages,
        };
        let mut scalar = Cpu::new(Isa::Scalar, 1);
        // What a backend needs for a cache's sizes, it makes together with a cache.
        let _unused = scalar.kv_cache(stored(verb, self.slots.len()));
        let q = lab::buffer(&mut scalar, WIDTH, &self.values[..WIDTH]);
        let mut out = scalar.buffer(1, WIDTH);
        let job = AttentionJob { shape, sinks: None };
        scalar.attention(&self.cache, job, &[span], &q, &mut out);
        scalar.read(&out).to_vec()
    }
}

fn stored(verb: Verb, tokens: usize) -> KvShape {
    KvShape {
        layers: 1,
        pages: tokens.div_ceil(PAGE_POSITIONS),
        kv_heads: WIDTH / HEAD_DIM,
        head_dim: HEAD_DIM,
        format: match verb {
            Verb::AppendKv(format) => format,
            _ => KvFormat::F16,
        },
    }
}

impl Rows {
    pub(super) fn new(lab: &Lab, verb: Verb, tokens: usize) -> Self {
        Self {
            verb,
            tokens,
            stage: Stage::new(lab.backend(), verb, tokens),
        }
    }
}

impl Work for Rows {
    fn cost(&self) -> Cost {
        let row = (WIDTH * 4) as f64;
        let bytes = self.tokens as f64
            * match self.verb {
                Verb::Embed(format) => row + format.row_bytes(WIDTH) as f64,
                Verb::Norm | Verb::Rope(_) => 2.0 * row,
                Verb::Gated(_) | Verb::Add => 3.0 * row,
                // A row of keys and one of values, in and out.
                Verb::AppendKv(format) => {
                    let heads = WIDTH / HEAD_DIM;
                    2.0 * row + (2 * heads * format.vector_bytes(HEAD_DIM)) as f64
                }
            };
        Cost {
            set_bytes: bytes as usize,
            bytes,
            ..Cost::default()
        }
    }

    fn outputs(&mut self) -> Outputs {
        let scalar = Cpu::new(Isa::Scalar, 1);
        Outputs {
            ours: self.stage.output(self.verb),
            scalar: Stage::new(scalar, self.verb, self.tokens).output(self.verb),
        }
    }

    fn reset(&mut self) {
        // What is multiplied by its own activation again and again is soon zero.
        if matches!(self.verb, Verb::Gated(_)) {
            let Stage {
                backend, x, values, ..
            } = &mut self.stage;
            lab::fill(backend, x, WIDTH, values);
        }
    }

    fn call(&mut self) {
        self.stage.call(self.verb);
    }
}
