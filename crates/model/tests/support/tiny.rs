//! Tiny models with random weights, built in memory, one part at a time changeable.

use redline_compute::{Backend, Cpu, Format, Isa, KvFormat, quant};
use redline_gguf::{ArrayBuf, TensorType, TokenId, Value, Writer};
use redline_model::{
    Error, Forward, LoadOptions, LogitRows, Model, ModelFile, PageId, SequenceStep, StepPlan,
};
use redline_testkit::Random;

pub(crate) const VOCAB: usize = 96;
pub(crate) const HIDDEN: usize = 256;
pub(crate) const CONTEXT: usize = 320;
const FEED_FORWARD: usize = 256;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;

/// A file that is not written yet.
#[derive(Clone)]
pub(crate) struct TinyModel {
    pub(crate) metadata: Vec<(String, Metadata)>,
    pub(crate) tensors: Vec<TinyTensor>,
}

#[derive(Clone)]
pub(crate) enum Metadata {
    Int(u64),
    Float(f32),
    Text(&'static str),
    Texts(Vec<String>),
}

/// Weights in any format; `values` are F32 whatever it is.
#[derive(Clone)]
pub(crate) struct TinyTensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) tensor_type: TensorType,
    pub(crate) values: Vec<f32>,
}

/// What differs between the tiny models.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    /// Of the matrices, in turn.
    pub(crate) formats: &'static [Format],
    pub(crate) window: Option<u64>,
}

pub(crate) const LLAMA: Shape = Shape {
    architecture: "llama",
    layers: 2,
    formats: &[Format::F32],
    window: None,
};
pub(crate) const MISTRAL: Shape = Shape {
    formats: &[Format::F16, Format::BF16, Format::Q8_0],
    window: Some(20),
    ..LLAMA
};
pub(crate) const QWEN2: Shape = Shape {
    architecture: "qwen2",
    formats: &[Format::Q5_0, Format::Q4_0, Format::Q4_1, Format::Q5_1],
    ..LLAMA
};
pub(crate) const GEMMA3: Shape = Shape {
    architecture: "gemma3",
    layers: 3,
    formats: &[Format::Q4_K, Format::Q6_K, Format::Q5_K],
    window: Some(20),
};

pub(crate) const PHI3: Shape = Shape {
    architecture: "phi3",
    formats: &[Format::Q5_K, Format::Q4_K, Format::F32, Format::Q6_K],
    window: Some(100),
    ..LLAMA
};

pub(crate) const GPT_OSS: Shape = Shape {
    architecture: "gpt-oss",
    formats: &[Format::Q8_0, Format::Q4_0, Format::F32],
    window: Some(20),
    ..LLAMA
};
/// Of [`GPT_OSS`].
pub(crate) const EXPERTS: usize = 5;

impl TinyModel {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut model = Self {
            metadata: Vec::new(),
            tensors: Vec::new(),
        };
        model.describe(shape);
        let mut fill = Fill {
            model: &mut model,
            random: Random::new(1),
            formats: shape.formats,
            matrices: 0,
        };
        fill.matrix("token_embd.weight", HIDDEN, VOCAB);
        fill.vector("output_norm.weight", HIDDEN, 1.0);
        for layer in 0..shape.layers {
            fill.layer(layer, shape.architecture);
        }
        model
    }

    fn describe(&mut self, shape: Shape) {
        let key = |key: &str| format!("{}.{key}", shape.architecture);
        self.set("general.architecture", Metadata::Text(shape.architecture));
        for (name, value) in [
            ("block_count", shape.layers),
            ("context_length", CONTEXT),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", FEED_FORWARD),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
            ("attention.key_length", HEAD_DIM),
            ("attention.value_length", HEAD_DIM),
        ] {
            self.set(&key(name), Metadata::Int(value as u64));
        }
        self.set(
            &key("attention.layer_norm_rms_epsilon"),
            Metadata::Float(1e-5),
        );
        if let Some(window) = shape.window {
            self.set(&key("attention.sliding_window"), Metadata::Int(window));
        }
        if shape.architecture == "gemma3" {
            // Local, global, local.
            self.set("gemma3.attention.sliding_window_pattern", Metadata::Int(2));
        }
        if shape.architecture == "gpt-oss" {
            for (name, value) in [
                ("expert_count", EXPERTS),
                ("expert_used_count", 2),
                ("expert_feed_forward_length", FEED_FORWARD),
                ("rope.scaling.original_context_length", 64),
            ] {
                self.set(&key(name), Metadata::Int(value as u64));
            }
            self.set(&key("rope.scaling.type"), Metadata::Text("yarn"));
            self.set(&key("rope.scaling.factor"), Metadata::Float(8.0));
        }
        let tokens = (0..VOCAB).map(|token| format!("<{token}>")).collect();
        self.set("tokenizer.ggml.tokens", Metadata::Texts(tokens));
    }

    pub(crate) fn set(&mut self, key: &str, value: Metadata) {
        self.metadata.retain(|(found, _)| found != key);
        self.metadata.push((key.to_owned(), value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.metadata.retain(|(found, _)| found != key);
        self.tensors.retain(|tensor| tensor.name != key);
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut TinyTensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .unwrap()
    }

    pub(crate) fn push(
        &mut self,
        name: &str,
        dims: &[usize],
        tensor_type: TensorType,
        values: Vec<f32>,
    ) {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.tensors.push(TinyTensor {
            name,
            dims,
            tensor_type,
            values,
        });
    }

    pub(crate) fn file(&self) -> ModelFile {
        ModelFile::from_bytes(vec![self.bytes()])
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for (key, value) in &self.metadata {
            let texts;
            let value: Value<'_> = match value {
                Metadata::Int(value) => (*value).into(),
                Metadata::Float(value) => (*value).into(),
                Metadata::Text(text) => (*text).into(),
                Metadata::Texts(list) => {
                    texts = ArrayBuf::strings(list.iter().map(String::as_str));
                    (&texts).into()
                }
            };
            writer.metadata(key, value).unwrap();
        }
        for tensor in &self.tensors {
            writer
                .tensor(&tensor.name, &tensor.dims, tensor.tensor_type)
                .unwrap();
        }
        let mut stream = writer.start(Vec::new()).unwrap();
        for tensor in &self.tensors {
            let weights: usize = tensor.dims.iter().product();
            let kind = tensor.tensor_type;
            let mut bytes = vec![0; weights / kind.block_weights() * kind.block_bytes()];
            // A type the kernels do not know is never read: its bytes stay zero.
            if let Ok(format) = kind.name().parse::<Format>() {
                let mut values = tensor.values.clone();
                values.resize(weights, 0.5);
                quant::quantize(format, &values, &mut bytes);
            }
            stream.write(&bytes).unwrap();
        }
        stream.finish().unwrap()
    }
}

/// Random weights for a model.
struct Fill<'a> {
    model: &'a mut TinyModel,
    random: Random,
    formats: &'static [Format],
    matrices: usize,
}

impl Fill<'_> {
    fn layer(&mut self, layer: usize, architecture: &str) {
        let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        let name = |part: &str| format!("blk.{layer}.{part}");
        if architecture == "gpt-oss" {
            for (part, cols, rows) in [
                ("ffn_gate_exps", HIDDEN, FEED_FORWARD),
                ("ffn_up_exps", HIDDEN, FEED_FORWARD),
                ("ffn_down_exps", FEED_FORWARD, HIDDEN),
            ] {
                self.stack(&name(part), cols, rows);
            }
        }
        let matrices: &[_] = if architecture == "gpt-oss" {
            &[
                ("attn_q", HIDDEN, q),
                ("attn_k", HIDDEN, kv),
                ("attn_v", HIDDEN, kv),
                ("attn_output", q, HIDDEN),
                ("ffn_gate_inp", HIDDEN, EXPERTS),
            ]
        } else if architecture == "phi3" {
            &[
                ("attn_qkv", HIDDEN, q + 2 * kv),
                ("attn_output", q, HIDDEN),
                ("ffn_up", HIDDEN, 2 * FEED_FORWARD),
                ("ffn_down", FEED_FORWARD, HIDDEN),
            ]
        } else {
            &[
                ("attn_q", HIDDEN, q),
                ("attn_k", HIDDEN, kv),
                ("attn_v", HIDDEN, kv),
                ("attn_output", q, HIDDEN),
                ("ffn_gate", HIDDEN, FEED_FORWARD),
                ("ffn_up", HIDDEN, FEED_FORWARD),
                ("ffn_down", FEED_FORWARD, HIDDEN),
            ]
        };
        for &(part, cols, rows) in matrices {
            self.matrix(&format!("blk.{layer}.{part}.weight"), cols, rows);
        }
        let mut vectors = vec![("attn_norm.weight", HIDDEN, 1.0)];
        if architecture != "gpt-oss" {
            vectors.push(("ffn_norm.weight", HIDDEN, 1.0));
        }
        match architecture {
            "gpt-oss" => vectors.extend([
                ("post_attention_norm.weight", HIDDEN, 1.0),
                ("attn_q.bias", q, 0.0),
                ("attn_k.bias", kv, 0.0),
                ("attn_v.bias", kv, 0.0),
                ("attn_output.bias", HIDDEN, 0.0),
                ("attn_sinks.weight", HEADS, 0.0),
                ("ffn_gate_inp.bias", EXPERTS, 0.0),
            ]),
            "qwen2" => vectors.extend([
                ("attn_q.bias", q, 0.0),
                ("attn_k.bias", kv, 0.0),
                ("attn_v.bias", kv, 0.0),
            ]),
            "gemma3" => vectors.extend([
                ("attn_q_norm.weight", HEAD_DIM, 1.0),
                ("attn_k_norm.weight", HEAD_DIM, 1.0),
                ("post_attention_norm.weight", HIDDEN, 1.0),
                ("post_ffw_norm.weight", HIDDEN, 1.0),
            ]),
            _ => (),
        }
        for (part, width, middle) in vectors {
            self.vector(&format!("blk.{layer}.{part}"), width, middle);
        }
    }

    /// The same projection of every expert, and their biases.
    fn stack(&mut self, name: &str, cols: usize, rows: usize) {
        self.matrix(&format!("{name}.weight"), cols, EXPERTS * rows);
        let stacked = self.model.tensors.last_mut().unwrap();
        stacked.dims = vec![cols, rows, EXPERTS];
        self.vector(&format!("{name}.bias"), EXPERTS * rows, 0.0);
        let stacked = self.model.tensors.last_mut().unwrap();
        stacked.dims = vec![rows, EXPERTS];
    }

    fn matrix(&mut self, name: &str, cols: usize, rows: usize) {
        let format = self.formats[self.matrices % self.formats.len()];
        self.matrices += 1;
        let spread = 2.0 / (cols as f32).sqrt();
        let values = values(&mut self.random, cols * rows, 0.0, spread);
        self.model
            .push(name, &[cols, rows], format.name().parse().unwrap(), values);
    }

    fn vector(&mut self, name: &str, width: usize, middle: f32) {
        let values = values(&mut self.random, width, middle, 0.3);
        self.model.push(name, &[width], TensorType::F32, values);
    }
}

fn values(random: &mut Random, count: usize, middle: f32, spread: f32) -> Vec<f32> {
    let unit = |bits: u64| (bits >> 40) as f32 / (1_u32 << 24) as f32;
    (0..count)
        .map(|_| middle + spread * (2.0 * unit(random.next()) - 1.0))
        .collect()
}

pub(crate) fn options() -> LoadOptions {
    LoadOptions {
        context: Some(CONTEXT),
        kv_pages: Some(12),
        kv_format: KvFormat::F16,
        max_step_tokens: 512,
        max_logit_rows: 512,
        ..LoadOptions::default()
    }
}

pub(crate) fn load_on<B: Backend>(
    file: &ModelFile,
    backend: B,
    options: &LoadOptions,
) -> Result<Model<B>, Error> {
    Model::load(file, &file.gguf()?, backend, options, &mut |_| ())
}

pub(crate) fn load(model: &TinyModel) -> Result<Model<Cpu>, Error> {
    load_on(&model.file(), Cpu::new(Isa::detect(), 1), &options())
}

pub(crate) fn tokens(count: usize, seed: u64) -> Vec<TokenId> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| TokenId(random.index(VOCAB) as u32))
        .collect()
}

pub(crate) fn pages(ids: impl IntoIterator<Item = u32>) -> Vec<PageId> {
    ids.into_iter().map(PageId).collect()
}

/// Logits of every token, computed in chunks of one sequence alone.
pub(crate) fn run(
    model: &mut impl Forward,
    tokens: &[TokenId],
    pages: &[PageId],
    chunk: usize,
) -> Vec<f32> {
    let mut logits = Vec::new();
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let sequence = SequenceStep {
            tokens,
            position: i * chunk,
            pages,
            logits: LogitRows::All,
        };
        let plan = StepPlan {
            sequences: &[sequence],
        };
        logits.extend_from_slice(model.forward(&plan, &mut ()).unwrap());
    }
    logits
}
