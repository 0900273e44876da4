//! The tensors of a shape: names, dimensions and formats, in the order in which converters write
//! them; GPT-2's, in the order in which they are used.
//!
//! Source of the names: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, checked against
//! published files.

use redline_compute::{Format, RopeTable};

use super::shapes::{Architecture, Shape};
use crate::mix::{Facts, Matrix, Quant, Role};

/// A tensor to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// The first varies fastest.
    pub(super) dims: Vec<usize>,
    pub(super) format: Format,
    pub(super) content: Content,
}

impl Tensor {
    /// Bytes in the file.
    pub(super) fn byte_count(&self) -> usize {
        self.rows() * self.format.row_bytes(self.dims[0])
    }

    /// Weights of all rows.
    pub(super) fn weights(&self) -> usize {
        self.dims.iter().product()
    }

    fn rows(&self) -> usize {
        self.dims[1..].iter().product()
    }
}

/// What is in a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// Random weights of this root mean square and mean 0.
    Matrix {
        /// Root mean square.
        rms: f64,
    },
    /// Random values near 1.
    Norm,
    /// Random values near 0.
    Bias,
    /// These values.
    Values(Vec<f32>),
}

/// Every tensor of `shape`.
pub(super) fn list(shape: &Shape, quant: Quant) -> Vec<Tensor> {
    let mut list = List {
        shape,
        quant,
        tensors: Vec::new(),
    };
    let head = if shape.tied {
        Role::Head
    } else if shape.experts.is_some() {
        Role::BesideExperts
    } else {
        Role::Embedding
    };
    list.matrix("token_embd", shape.hidden, shape.vocab, head);
    if shape.architecture == Architecture::Gpt2 {
        list.float_matrix("position_embd", shape.hidden, shape.context as usize);
    }
    if let Some(factors) = rope_factors(shape) {
        let (dims, content) = (vec![factors.len()], Content::Values(factors));
        list.push("rope_freqs.weight", dims, Format::F32, content);
    }
    for layer in 0..shape.layers {
        list.layer(layer);
    }
    list.norm("output_norm", shape.hidden);
    if !shape.tied {
        list.matrix("output", shape.hidden, shape.vocab, Role::Head);
    }
    list.tensors
}

struct List<'s> {
    shape: &'s Shape,
    quant: Quant,
    tensors: Vec<Tensor>,
}

impl List<'_> {
    fn layer(&mut self, layer: usize) {
        let Shape {
            architecture,
            hidden,
            feed_forward,
            head_dim,
            ..
        } = *self.shape;
        let (queries, keys) = (self.shape.heads * head_dim, self.shape.kv_heads * head_dim);
        let gemma = architecture == Architecture::Gemma3;
        let value = Role::Value {
            nth: layer,
            of: self.shape.layers,
        };
        let down = Role::Down { layer };
        let name = |part: &str| format!("blk.{layer}.{part}");

        if architecture == Architecture::GptOss {
            self.gpt_oss_layer(name);
            return;
        }
        if architecture == Architecture::Gpt2 {
            let rows = queries + 2 * keys;
            self.norm(&name("attn_norm"), hidden);
            self.biased(&name("attn_qkv"), [hidden, rows], value);
            self.biased(&name("attn_output"), [queries, hidden], Role::Output);
            self.norm(&name("ffn_norm"), hidden);
            self.biased(&name("ffn_up"), [hidden, feed_forward], Role::Plain);
            self.biased(&name("ffn_down"), [feed_forward, hidden], down);
            return;
        }
        let head_norms = gemma || architecture == Architecture::Qwen3;
        self.norm(&name("attn_norm"), hidden);
        self.matrix(&name("ffn_down"), feed_forward, hidden, down);
        if architecture == Architecture::Phi3 {
            let rows = queries + 2 * keys;
            self.matrix(&name("ffn_up"), hidden, 2 * feed_forward, Role::Plain);
            self.norm(&name("ffn_norm"), hidden);
            self.matrix(&name("attn_output"), queries, hidden, Role::Output);
            self.matrix(&name("attn_qkv"), hidden, rows, Role::Fused);
            return;
        }
        self.matrix(&name("ffn_gate"), hidden, feed_forward, Role::Plain);
        self.matrix(&name("ffn_up"), hidden, feed_forward, Role::Plain);
        if gemma {
            self.norm(&name("post_attention_norm"), hidden);
            self.norm(&name("post_ffw_norm"), hidden);
        }
        self.norm(&name("ffn_norm"), hidden);
        if head_norms {
            self.norm(&name("attn_k_norm"), head_dim);
        }
        self.projection(&name("attn_k"), keys, Role::Key);
        self.matrix(&name("attn_output"), queries, hidden, Role::Output);
        if head_norms {
            self.norm(&name("attn_q_norm"), head_dim);
        }
        self.projection(&name("attn_q"), queries, Role::Plain);
        self.projection(&name("attn_v"), keys, value);
    }

    fn gpt_oss_layer(&mut self, name: impl Fn(&str) -> String) {
        let Shape {
            hidden,
            feed_forward,
            head_dim,
            heads,
            kv_heads,
            experts,
            ..
        } = *self.shape;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let experts = experts.map_or(0, |experts| experts.count);
        self.norm(&name("attn_norm"), hidden);
        for (part, cols, rows) in [
            ("ffn_down_exps", feed_forward, hidden),
            ("ffn_gate_exps", hidden, feed_forward),
            ("ffn_up_exps", hidden, feed_forward),
        ] {
            self.matrix(&name(part), cols, rows * experts, Role::Experts);
            if let Some(stacked) = self.tensors.last_mut() {
                stacked.dims = vec![cols, rows, experts];
            }
            self.bias(&name(part), vec![rows, experts]);
        }
        self.float_matrix(&name("ffn_gate_inp"), hidden, experts);
        self.bias(&name("ffn_gate_inp"), vec![experts]);
        self.norm(&name("post_attention_norm"), hidden);
        self.push(
            &name("attn_sinks.weight"),
            vec![heads],
            Format::F32,
            Content::Bias,
        );
        for (part, cols, rows) in [
            ("attn_k", hidden, keys),
            ("attn_output", queries, hidden),
            ("attn_q", hidden, queries),
            ("attn_v", hidden, keys),
        ] {
            self.biased(&name(part), [cols, rows], Role::BesideExperts);
        }
    }

    fn bias(&mut self, name: &str, dims: Vec<usize>) {
        self.push(&format!("{name}.bias"), dims, Format::F32, Content::Bias);
    }

    /// Of the normalised input, with a bias where the architecture has it.
    fn projection(&mut self, name: &str, rows: usize, role: Role) {
        if self.shape.architecture == Architecture::Qwen2 {
            self.bias(name, vec![rows]);
        }
        self.matrix(name, self.shape.hidden, rows, role);
    }

    fn biased(&mut self, name: &str, [cols, rows]: [usize; 2], role: Role) {
        self.matrix(name, cols, rows, role);
        self.bias(name, vec![rows]);
    }

    /// Weights whose products with values of variance 1 have variance 1: nothing blows up.
    fn matrix(&mut self, name: &str, cols: usize, rows: usize, role: Role) {
        let facts = Facts {
            layers: self.shape.layers,
            queries_per_key: self.shape.heads / self.shape.kv_heads,
            experts: 0,
        };
        let matrix = Matrix {
            role,
            cols,
            experts: false,
        };
        let format = self.quant.format(matrix, facts);
        self.matrix_as(format, name, [cols, rows]);
    }

    /// What quantizers store as it is, whatever the file's type.
    fn float_matrix(&mut self, name: &str, cols: usize, rows: usize) {
        self.matrix_as(Format::F32, name, [cols, rows]);
    }

    fn matrix_as(&mut self, format: Format, name: &str, [cols, rows]: [usize; 2]) {
        let rms = (cols as f64).sqrt().recip();
        let name = format!("{name}.weight");
        self.push(&name, vec![cols, rows], format, Content::Matrix { rms });
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(
            &format!("{name}.weight"),
            vec![width],
            Format::F32,
            Content::Norm,
        );
        if self.shape.architecture == Architecture::Gpt2 {
            self.bias(name, vec![width]);
        }
    }

    fn push(&mut self, name: &str, dims: Vec<usize>, format: Format, content: Content) {
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims,
            format,
            content,
        });
    }
}

/// Llama 3's factor for each pair of a head: 1 for fast rotations, the full factor for slow ones,
/// between them a blend.
///
/// Source: `compute_llama3_parameters` of Hugging Face transformers, as converters store it.
fn rope_factors(shape: &Shape) -> Option<Vec<f32>> {
    let scaling = shape.rope_scaling?;
    // Not the standard library's power, whose last bit differs from system to system.
    let frequencies = RopeTable::frequencies(f64::from(shape.rope_base), shape.head_dim);
    let factor = |frequency: f64| {
        let turns = scaling.original_context * frequency / std::f64::consts::TAU;
        let (low, high) = (scaling.low_frequency_factor, scaling.high_frequency_factor);
        let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - fast) / scaling.factor + fast)) as f32
    };
    Some(frequencies.into_iter().map(factor).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::synth::shapes;

    fn parameters(tensors: &[Tensor]) -> usize {
        tensors
            .iter()
            .map(|tensor| tensor.dims.iter().product::<usize>())
            .sum()
    }

    #[test]
    fn counts_are_those_of_the_published_models() {
        // Tensors of the published GGUF files; parameters of the model cards, ties counted once.
        for (name, count, weights) in [
            ("qwen2.5-0.5b", 290, 494_032_768),
            ("qwen2.5-1.5b", 338, 1_543_714_304),
            ("qwen3-0.6b", 310, 596_049_920),
            ("gpt2", 148, 124_439_808),
            ("smollm2-135m", 272, 134_515_008),
            ("llama3.2-1b", 147, 1_235_814_400 + 32),
            ("llama2-7b", 291, 6_738_415_616),
            ("mistral-7b", 291, 7_248_023_552),
            ("phi-3-mini-4k", 195, 3_821_079_552),
            ("gemma3-270m", 236, 268_098_176),
            ("gemma3-1b", 340, 999_885_952),
            ("gpt-oss-20b", 459, 20_914_757_184),
        ] {
            let tensors = list(shapes::find(name).unwrap(), Quant::Q4KM);
            assert_eq!(tensors.len(), count, "{name}");
            assert_eq!(parameters(&tensors), weights, "{name}");
        }
    }

    #[test]
    fn qwen_has_the_published_dimensions_and_formats() {
        let tensors = list(shapes::find("qwen2.5-0.5b").unwrap(), Quant::Q4KM);
        let by_name: HashMap<&str, (&[usize], Format)> = tensors
            .iter()
            .map(|t| (&*t.name, (&*t.dims, t.format)))
            .collect();
        for (name, dims, format) in [
            ("token_embd.weight", &[896, 151_936][..], Format::Q8_0),
            ("blk.0.attn_q.weight", &[896, 896], Format::Q5_0),
            ("blk.0.attn_q.bias", &[896], Format::F32),
            ("blk.23.attn_k.weight", &[896, 128], Format::Q5_0),
            ("blk.0.attn_v.weight", &[896, 128], Format::Q8_0),
            ("blk.3.attn_v.weight", &[896, 128], Format::Q5_0),
            ("blk.0.ffn_down.weight", &[4864, 896], Format::Q6_K),
            ("blk.3.ffn_down.weight", &[4864, 896], Format::Q4_K),
            ("output_norm.weight", &[896], Format::F32),
        ] {
            assert_eq!(by_name.get(name), Some(&(dims, format)), "{name}");
        }
        assert!(!by_name.contains_key("output.weight"));
        let bytes: usize = tensors.iter().map(Tensor::byte_count).sum();
        assert_eq!(bytes, 391_859_712);
    }

    #[test]
    fn phi_has_the_published_dimensions_and_formats() {
        let tensors = list(shapes::find("phi-3-mini-4k").unwrap(), Quant::Q4KM);
        let by_name: HashMap<&str, (&[usize], Format)> = tensors
            .iter()
            .map(|t| (&*t.name, (&*t.dims, t.format)))
            .collect();
        for (name, dims, format) in [
            ("token_embd.weight", &[3072, 32_064][..], Format::Q4_K),
            ("blk.0.attn_qkv.weight", &[3072, 9216], Format::Q5_K),
            ("blk.9.attn_output.weight", &[3072, 3072], Format::Q4_K),
            ("blk.9.ffn_up.weight", &[3072, 16_384], Format::Q4_K),
            ("blk.0.ffn_down.weight", &[8192, 3072], Format::Q6_K),
            ("blk.4.ffn_down.weight", &[8192, 3072], Format::Q4_K),
            ("output.weight", &[3072, 32_064], Format::Q6_K),
        ] {
            assert_eq!(by_name.get(name), Some(&(dims, format)), "{name}");
        }
        // The published file has 2,393,231,072 bytes, its metadata and vocabulary among them.
        let bytes: usize = tensors.iter().map(Tensor::byte_count).sum();
        assert_eq!(bytes, 2_392_493_568);
    }

    #[test]
    fn gpt_oss_has_the_published_formats_and_size() {
        let quant = Quant::Mostly(Format::MXFP4);
        let tensors = list(shapes::find("gpt-oss-20b").unwrap(), quant);
        let count = |format| tensors.iter().filter(|t| t.format == format).count();
        assert_eq!(
            [Format::F32, Format::Q8_0, Format::MXFP4].map(count),
            [289, 98, 72]
        );
        let experts = tensors
            .iter()
            .find(|t| t.name == "blk.23.ffn_gate_exps.weight");
        let experts = experts.unwrap();
        assert_eq!(
            (&*experts.dims, experts.format),
            (&[2880, 2880, 32][..], Format::MXFP4)
        );
        // 11.27 GiB, as readers of the published file say.
        let bytes: usize = tensors.iter().map(Tensor::byte_count).sum();
        assert_eq!(bytes, 12_096_558_336);
    }

    /// Bytes that the performance notes of llama.cpp's own quantisations of it speak of.
    #[test]
    fn qwen_has_the_published_sizes() {
        for (quant, megabytes) in [
            (Quant::Mostly(Format::F16), 988),
            (Quant::Mostly(Format::Q8_0), 525),
            (Quant::Mostly(Format::Q4_0), 346),
            (Quant::Q4KM, 392),
        ] {
            let tensors = list(shapes::find("qwen2.5-0.5b").unwrap(), quant);
            let bytes: usize = tensors.iter().map(Tensor::byte_count).sum();
            assert_eq!((bytes + 500_000) / 1_000_000, megabytes, "{quant}");
        }
    }

    #[test]
    fn every_row_of_every_shape_is_whole_blocks() {
        for shape in &shapes::ALL {
            for quant in Quant::all() {
                for tensor in list(shape, quant) {
                    assert!(
                        tensor.byte_count() > 0,
                        "{} {quant} {}",
                        shape.name,
                        tensor.name
                    );
                }
            }
        }
    }

    #[test]
    fn slow_rotations_are_stretched_and_fast_ones_not() {
        let factors = rope_factors(shapes::find("llama3.2-1b").unwrap()).unwrap();
        assert_eq!(factors.len(), 32);
        assert_eq!((factors[0], factors[14], factors[31]), (1.0, 1.0, 32.0));
        assert!(factors.is_sorted());
        assert_eq!(rope_factors(shapes::find("llama2-7b").unwrap()), None);
    }
}
