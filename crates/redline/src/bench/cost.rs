//! What a test must read and compute at least, in closed form over the model's tensors.
//!
//! A decode step reads every matrix once, one row of an untied embedding, norms and biases, and the
//! keys and values of each layer up to its window. Of a mixture it reads the experts that are chosen: as
//! many as a token takes, and for several sequences as many as choices drawn evenly would touch. A
//! multiplication and an addition are two operations; attention counts.

use redline_compute::KvFormat;
use redline_compute::limits::Operand;
use redline_gguf::{Gguf, Tensor, TensorType};
use redline_model::Properties;

use super::selection::{Phase, Test};

/// A model's costs.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    /// Bytes of weights one step reads, without experts'.
    weight_bytes: u64,
    /// Bytes of all experts.
    expert_bytes: u64,
    /// The part of the experts that one token takes; 1 where there are none.
    expert_share: f64,
    /// Weights of integer formats in the matrices of every token, without the head's.
    body_int8: f64,
    /// The same of floating-point formats.
    body_f32: f64,
    /// Weights of the head, and whether they are of an integer format.
    head: (f64, bool),
    /// For each layer, its window.
    windows: Vec<Option<usize>>,
    /// Bytes of a position's keys in one layer, and its values.
    kv_bytes: f64,
    /// Elements of a position's queries in one layer.
    query_width: f64,
}

/// What a test computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Operations {
    /// Matrix products in integers.
    pub(crate) int8: f64,
    /// Matrix products in floating point.
    pub(crate) f32: f64,
    /// Attention, in floating point.
    pub(crate) attention: f64,
}

impl Operations {
    /// All matrix products: what is told of as the rate of the linear layers.
    pub(crate) fn linear(self) -> f64 {
        self.int8 + self.f32
    }

    /// What most matrix products multiply.
    pub(crate) fn operand(self) -> Operand {
        if self.int8 >= self.f32 {
            Operand::Int8
        } else {
            Operand::F32
        }
    }
}

impl Cost {
    /// A model of integer weights alone, for tests.
    #[cfg(test)]
    pub(crate) fn of_weights(weight_bytes: u64, body_int8: f64) -> Self {
        Self {
            weight_bytes,
            expert_bytes: 0,
            expert_share: 1.0,
            body_int8,
            body_f32: 0.0,
            head: (0.0, true),
            windows: Vec::new(),
            kv_bytes: 0.0,
            query_width: 0.0,
        }
    }

    /// Adds up a model.
    pub(crate) fn new(gguf: &Gguf<'_>, properties: &Properties, kv: KvFormat) -> Self {
        let tied = gguf.tensor("output.weight").is_none();
        let mut cost = Self {
            weight_bytes: 0,
            expert_bytes: 0,
            expert_share: (properties.experts).map_or(1.0, |experts| {
                experts.per_token as f64 / experts.count as f64
            }),
            body_int8: 0.0,
            body_f32: 0.0,
            head: (0.0, false),
            windows: properties.layers.iter().map(|layer| layer.window).collect(),
            kv_bytes: (2 * properties.kv_heads * kv.vector_bytes(properties.head_dim)) as f64,
            query_width: (properties.heads * properties.head_dim) as f64,
        };
        for tensor in gguf.tensors() {
            cost.add(tensor, tied);
        }
        cost
    }

    fn add(&mut self, tensor: &Tensor<'_>, tied: bool) {
        let bytes = tensor.data.len() as u64;
        let is_head = tensor.name
            == if tied {
                "token_embd.weight"
            } else {
                "output.weight"
            };
        let integer = is_integer(tensor.tensor_type);
        match tensor.name {
            // Read at load, into the tables.
            "rope_freqs.weight" | "rope_factors_short.weight" | "rope_factors_long.weight" => {}
            _ if is_head => {
                self.weight_bytes += bytes;
                self.head = (tensor.weights() as f64, integer);
            }
            "token_embd.weight" | "position_embd.weight" => {
                let rows = tensor.dims.get(1).copied().unwrap_or(1).max(1);
                self.weight_bytes += bytes / rows as u64;
            }
            name if name.contains("_exps.") => {
                self.expert_bytes += bytes;
                // A token is multiplied with its own experts.
                if tensor.dims.len() == 3 {
                    let weights = tensor.weights() as f64 * self.expert_share;
                    *self.body(integer) += weights;
                }
            }
            _ => {
                self.weight_bytes += bytes;
                if tensor.dims.len() == 2 {
                    *self.body(integer) += tensor.weights() as f64;
                }
            }
        }
    }

    /// Where the weights of matrices of every token are counted.
    fn body(&mut self, integer: bool) -> &mut f64 {
        if integer {
            &mut self.body_int8
        } else {
            &mut self.body_f32
        }
    }

    /// Bytes one decode step reads, averaged over a test's steps: weights once, the keys and values
    /// of every sequence.
    pub(crate) fn bytes_per_step(&self, test: Test) -> f64 {
        let attended = self.attended(test) / test.tokens as f64;
        let kv_bytes = attended * self.kv_bytes;
        let untouched = (1.0 - self.expert_share).powi(test.sequences as i32);
        let expert_bytes = self.expert_bytes as f64 * (1.0 - untouched);
        self.weight_bytes as f64 + expert_bytes + kv_bytes
    }

    /// Operations of a whole test. Prefill computes the head for its last token only.
    pub(crate) fn operations(&self, test: Test) -> Operations {
        let tokens = test.total_tokens() as f64;
        let heads = match test.phase {
            Phase::Prefill => 1.0,
            Phase::Decode => tokens,
        };
        let (head, integer_head) = self.head;
        let head = 2.0 * head * heads;
        Operations {
            int8: 2.0 * self.body_int8 * tokens + if integer_head { head } else { 0.0 },
            f32: 2.0 * self.body_f32 * tokens + if integer_head { 0.0 } else { head },
            // Scores and their sum over the values: two products for each position.
            attention: 2.0 * 2.0 * self.query_width * self.attended(test),
        }
    }

    /// Positions attended to by the timed tokens of all sequences, over all layers.
    fn attended(&self, test: Test) -> f64 {
        let positions = |window: Option<usize>| -> f64 {
            (test.depth + 1..=test.positions())
                .map(|seen| seen.min(window.unwrap_or(seen)) as f64)
                .sum()
        };
        let layers = self.windows.iter().map(|window| positions(*window));
        test.sequences as f64 * layers.sum::<f64>()
    }
}

/// Whether kernels multiply the format's values as integers.
fn is_integer(tensor_type: TensorType) -> bool {
    !matches!(
        tensor_type,
        TensorType::F32 | TensorType::F16 | TensorType::BF16 | TensorType::F64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(
        name: &'static str,
        dims: &[usize],
        tensor_type: TensorType,
    ) -> (Vec<usize>, Vec<u8>, &'static str, TensorType) {
        let weights: usize = dims.iter().product();
        let bytes = weights / tensor_type.block_weights() * tensor_type.block_bytes();
        (dims.to_vec(), vec![0; bytes], name, tensor_type)
    }

    fn cost(
        tensors: &[(Vec<usize>, Vec<u8>, &'static str, TensorType)],
        windows: &[Option<usize>],
    ) -> Cost {
        let mut cost = Cost {
            weight_bytes: 0,
            expert_bytes: 0,
            expert_share: 0.25,
            body_int8: 0.0,
            body_f32: 0.0,
            head: (0.0, false),
            windows: windows.to_vec(),
            kv_bytes: 16.0,
            query_width: 8.0,
        };
        let tied = !tensors
            .iter()
            .any(|(_, _, name, _)| *name == "output.weight");
        for (dims, data, name, tensor_type) in tensors {
            let tensor = Tensor {
                name,
                dims: dims.clone(),
                tensor_type: *tensor_type,
                shard: 0,
                offset: 0,
                data,
            };
            cost.add(&tensor, tied);
        }
        cost
    }

    #[test]
    fn a_tied_head_is_read_whole_and_an_untied_embedding_by_one_row() {
        let embedding = tensor("token_embd.weight", &[32, 10], TensorType::Q8_0);
        let matrix = tensor("blk.0.attn_q.weight", &[32, 2], TensorType::Q8_0);
        let norm = tensor("output_norm.weight", &[32], TensorType::F32);
        let tied = cost(&[embedding.clone(), matrix.clone(), norm.clone()], &[None]);
        assert_eq!(tied.weight_bytes, 10 * 34 + 2 * 34 + 128);
        let head = tensor("output.weight", &[32, 10], TensorType::F16);
        let untied = cost(&[embedding, matrix, norm, head], &[None]);
        assert_eq!(untied.weight_bytes, 34 + 2 * 34 + 128 + 640);
    }

    fn test(phase: Phase, tokens: usize, depth: usize, sequences: usize) -> Test {
        Test {
            phase,
            tokens,
            depth,
            sequences,
        }
    }

    #[test]
    fn cached_bytes_grow_with_depth_up_to_the_window() {
        let matrix = tensor("blk.0.attn_q.weight", &[32, 2], TensorType::Q8_0);
        let cost = cost(&[matrix], &[None, Some(2)]);
        // Three steps see 1, 2, 3 positions in one layer and 1, 2, 2 in the other: 11 in all, each
        // 2 · 4 elements of 2 bytes.
        let bytes =
            |depth, sequences| cost.bytes_per_step(test(Phase::Decode, 3, depth, sequences));
        assert_eq!(bytes(0, 1), 68.0 + 11.0 * 16.0 / 3.0);
        // At depth 10: 11, 12, 13 and 2, 2, 2.
        assert_eq!(bytes(10, 1), 68.0 + 42.0 * 16.0 / 3.0);
        assert_eq!(bytes(10, 4), 68.0 + 4.0 * 42.0 * 16.0 / 3.0);
    }

    #[test]
    fn of_a_mixture_the_chosen_experts_count() {
        let matrix = tensor("blk.0.attn_q.weight", &[32, 2], TensorType::Q8_0);
        let experts = tensor("blk.0.ffn_up_exps.weight", &[32, 1, 8], TensorType::Q8_0);
        let biases = tensor("blk.0.ffn_up_exps.bias", &[1, 8], TensorType::F32);
        let cost = cost(&[matrix, experts, biases], &[Some(1)]);
        let bytes = |sequences| cost.bytes_per_step(test(Phase::Decode, 1, 0, sequences));
        // A quarter of them; of two sequences what both leave is nine sixteenths.
        let all = 8.0 * 38.0;
        assert_eq!(bytes(1), 68.0 + all / 4.0 + 16.0);
        assert_eq!(bytes(2), 68.0 + all * 7.0 / 16.0 + 32.0);
        let operations = cost.operations(test(Phase::Prefill, 3, 0, 1));
        assert_eq!(operations.int8, 2.0 * 3.0 * (64.0 + 256.0 / 4.0));
    }

    #[test]
    fn operations_follow_the_formats() {
        let integer = tensor("blk.0.attn_q.weight", &[32, 2], TensorType::Q8_0);
        let float = tensor("blk.0.attn_k.weight", &[32, 1], TensorType::F16);
        let head = tensor("token_embd.weight", &[32, 10], TensorType::Q8_0);
        let cost = cost(&[integer, float, head], &[None]);
        let prefill = cost.operations(test(Phase::Prefill, 2, 0, 1));
        let expected = Operations {
            int8: 2.0 * 64.0 * 2.0 + 640.0,
            f32: 2.0 * 32.0 * 2.0,
            attention: 2.0 * 2.0 * 8.0 * 3.0,
        };
        assert_eq!(prefill, expected);
        assert_eq!(prefill.operand(), Operand::Int8);
        let deeper = cost.operations(test(Phase::Prefill, 2, 5, 1));
        assert_eq!(deeper.attention, 2.0 * 2.0 * 8.0 * 13.0);
        let decode = cost.operations(test(Phase::Decode, 2, 0, 3));
        assert_eq!(decode.int8, 3.0 * (2.0 * 64.0 * 2.0 + 2.0 * 640.0));
    }
}
