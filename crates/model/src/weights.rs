//! The model's tensors, typed, each with the shape its metadata demands.

use std::collections::HashSet;
use std::sync::Arc;

use redline_compute::{Backend, Format, WeightBytes, quant};
use redline_gguf::{Gguf, Tensor, TensorType};

use crate::error::known_formats;
use crate::{Error, ModelFile, Properties};

/// Llama 3's frequency factors.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// LongRoPE's factors for short and for long contexts.
pub(crate) const LONG_ROPE_FACTORS: [&str; 2] =
    ["rope_factors_short.weight", "rope_factors_long.weight"];

/// All weights: matrices where the file is mapped, vectors in F32.
#[derive(Debug)]
pub(crate) struct Weights<B: Backend> {
    /// `[vocab, hidden]`
    pub(crate) embedding: Arc<B::Matrix>,
    /// One for each layer.
    pub(crate) layers: Vec<LayerWeights<B>>,
    /// `[hidden]`
    pub(crate) final_norm: B::Vector,
    /// `[vocab, hidden]`; the embedding itself where the model ties them.
    pub(crate) head: Arc<B::Matrix>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(crate) struct LayerWeights<B: Backend> {
    /// `[hidden]`
    pub(crate) attention_norm: B::Vector,
    /// `[heads · head_dim, hidden]`
    pub(crate) query: Linear<B>,
    /// `[kv_heads · head_dim, hidden]`
    pub(crate) key: Linear<B>,
    /// `[kv_heads · head_dim, hidden]`
    pub(crate) value: Linear<B>,
    /// `[head_dim]`
    pub(crate) query_norm: Option<B::Vector>,
    /// `[head_dim]`
    pub(crate) key_norm: Option<B::Vector>,
    /// `[hidden, heads · head_dim]`
    pub(crate) attention_output: Linear<B>,
    /// `[hidden]`
    pub(crate) attention_post_norm: Option<B::Vector>,
    /// `[hidden]`
    pub(crate) feed_forward_norm: B::Vector,
    /// `[feed_forward, hidden]`
    pub(crate) gate: Linear<B>,
    /// `[feed_forward, hidden]`
    pub(crate) up: Linear<B>,
    /// `[hidden, feed_forward]`
    pub(crate) down: Linear<B>,
    /// `[hidden]`
    pub(crate) feed_forward_post_norm: Option<B::Vector>,
}

/// `x · weightsᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear<B: Backend> {
    /// `[rows, cols]`
    pub(crate) matrix: B::Matrix,
    /// `[rows]`
    pub(crate) bias: Option<B::Vector>,
}

impl<B: Backend> Weights<B> {
    /// Finds and checks every tensor. Nothing of a matrix is read yet.
    ///
    /// # Errors
    /// If a tensor is missing, misshapen, of an unusable type, or not part of the model.
    pub(crate) fn load(
        file: &ModelFile,
        gguf: &Gguf<'_>,
        properties: &Properties,
        backend: &B,
    ) -> Result<Self, Error> {
        let (hidden, vocab) = (properties.hidden, properties.vocab);
        let mut tensors = Tensors {
            file,
            gguf,
            backend,
            // Read by the architecture, if it is there at all.
            used: HashSet::from([ROPE_FACTORS]),
        };
        if properties.ropes.iter().any(|rope| rope.long.is_some()) {
            tensors.used.extend(LONG_ROPE_FACTORS);
        }
        let embedding = Arc::new(tensors.matrix("token_embd.weight", vocab, hidden)?);
        let head = if gguf.tensor("output.weight").is_some() {
            Arc::new(tensors.matrix("output.weight", vocab, hidden)?)
        } else {
            Arc::clone(&embedding)
        };
        let final_norm = tensors.vector("output_norm.weight", hidden)?;
        let layers = (0..properties.layers.len())
            .map(|layer| LayerWeights::load(&mut tensors, properties, layer))
            .collect::<Result<_, _>>()?;
        tensors.all_used()?;
        Ok(Self {
            embedding,
            layers,
            final_norm,
            head,
        })
    }
}

impl<B: Backend> LayerWeights<B> {
    fn load(
        tensors: &mut Tensors<'_, '_, B>,
        properties: &Properties,
        layer: usize,
    ) -> Result<Self, Error> {
        let Properties {
            hidden,
            feed_forward,
            head_dim,
            ..
        } = *properties;
        let (q_width, kv_width) = (properties.heads * head_dim, properties.kv_heads * head_dim);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let [query, key, value] = if properties.fused_projections {
            tensors.fused(
                &name("attn_qkv.weight"),
                [q_width, kv_width, kv_width],
                hidden,
            )?
        } else {
            let bias = properties.qkv_bias;
            [
                tensors.linear(&name("attn_q"), q_width, hidden, bias)?,
                tensors.linear(&name("attn_k"), kv_width, hidden, bias)?,
                tensors.linear(&name("attn_v"), kv_width, hidden, bias)?,
            ]
        };
        let [gate, up] = if properties.fused_projections {
            tensors.fused(&name("ffn_up.weight"), [feed_forward; 2], hidden)?
        } else {
            [
                tensors.linear(&name("ffn_gate"), feed_forward, hidden, false)?,
                tensors.linear(&name("ffn_up"), feed_forward, hidden, false)?,
            ]
        };
        Ok(Self {
            attention_norm: tensors.vector(&name("attn_norm.weight"), hidden)?,
            query,
            key,
            value,
            query_norm: tensors.vector_if(
                properties.qk_norm,
                &name("attn_q_norm.weight"),
                head_dim,
            )?,
            key_norm: tensors.vector_if(
                properties.qk_norm,
                &name("attn_k_norm.weight"),
                head_dim,
            )?,
            attention_output: tensors.linear(&name("attn_output"), hidden, q_width, false)?,
            attention_post_norm: tensors.vector_if(
                properties.post_norms,
                &name("post_attention_norm.weight"),
                hidden,
            )?,
            feed_forward_norm: tensors.vector(&name("ffn_norm.weight"), hidden)?,
            gate,
            up,
            down: tensors.linear(&name("ffn_down"), hidden, feed_forward, false)?,
            feed_forward_post_norm: tensors.vector_if(
                properties.post_norms,
                &name("post_ffw_norm.weight"),
                hidden,
            )?,
        })
    }
}

/// Hands out tensors by name and remembers which were asked for.
struct Tensors<'g, 'a, B> {
    file: &'g ModelFile,
    gguf: &'g Gguf<'a>,
    backend: &'g B,
    used: HashSet<&'g str>,
}

impl<'g, 'a, B: Backend> Tensors<'g, 'a, B> {
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Matrix, Error> {
        let [matrix] = self.row_ranges(name, [rows], cols)?;
        Ok(matrix)
    }

    /// Matrices of `rows` rows each that follow one another in one tensor.
    fn row_ranges<const N: usize>(
        &mut self,
        name: &str,
        rows: [usize; N],
        cols: usize,
    ) -> Result<[B::Matrix; N], Error> {
        let tensor = self.find(name, &[cols, rows.iter().sum()])?;
        let format = compute_format(tensor.tensor_type).ok_or_else(|| Error::TensorType {
            name: name.to_owned(),
            expected: known_formats(),
            found: tensor.tensor_type.to_string(),
        })?;
        let mapping = self.file.mapping(tensor.shard);
        assert_eq!(
            mapping[tensor.offset..].as_ptr(),
            tensor.data.as_ptr(),
            "the directory is of this very file"
        );
        let mut start = tensor.offset;
        Ok(rows.map(|rows| {
            let range = start..start + rows * format.row_bytes(cols);
            start = range.end;
            let bytes = WeightBytes::new(Arc::clone(mapping), range);
            self.backend.matrix(format, rows, cols, bytes)
        }))
    }

    /// Projections without bias whose rows follow one another in one tensor.
    fn fused<const N: usize>(
        &mut self,
        name: &str,
        rows: [usize; N],
        cols: usize,
    ) -> Result<[Linear<B>; N], Error> {
        let matrices = self.row_ranges(name, rows, cols)?;
        Ok(matrices.map(|matrix| Linear { matrix, bias: None }))
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<B::Vector, Error> {
        let values = vector_values(self.find(name, &[width])?, width)?;
        Ok(self.backend.vector(values))
    }

    fn vector_if(
        &mut self,
        wanted: bool,
        name: &str,
        width: usize,
    ) -> Result<Option<B::Vector>, Error> {
        wanted.then(|| self.vector(name, width)).transpose()
    }

    /// `{name}.weight` and, where the file has it or the model needs it, `{name}.bias`.
    fn linear(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        needs_bias: bool,
    ) -> Result<Linear<B>, Error> {
        let bias = format!("{name}.bias");
        let has_bias = needs_bias || self.gguf.tensor(&bias).is_some();
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.vector_if(has_bias, &bias, rows)?,
        })
    }

    fn find(&mut self, name: &str, dims: &[usize]) -> Result<&'g Tensor<'a>, Error> {
        let Some(tensor) = self.gguf.tensor(name) else {
            return Err(Error::MissingTensor {
                name: name.to_owned(),
                expected: dims.to_vec(),
            });
        };
        self.used.insert(tensor.name);
        if tensor.dims != dims {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                expected: dims.to_vec(),
                found: tensor.dims.clone(),
            });
        }
        Ok(tensor)
    }

    fn all_used(&self) -> Result<(), Error> {
        match self
            .gguf
            .tensors()
            .iter()
            .find(|tensor| !self.used.contains(tensor.name))
        {
            None => Ok(()),
            Some(tensor) => Err(Error::UnexpectedTensor {
                name: tensor.name.to_owned(),
            }),
        }
    }
}

/// The values of a norm, a bias or a table of factors, `[width]`.
pub(crate) fn vector_values(tensor: &Tensor<'_>, width: usize) -> Result<Vec<f32>, Error> {
    if tensor.dims != [width] {
        return Err(Error::TensorShape {
            name: tensor.name.to_owned(),
            expected: vec![width],
            found: tensor.dims.clone(),
        });
    }
    let format = match compute_format(tensor.tensor_type) {
        Some(format @ (Format::F32 | Format::F16 | Format::BF16)) => format,
        _ => {
            return Err(Error::TensorType {
                name: tensor.name.to_owned(),
                expected: "F32, F16 or BF16".to_owned(),
                found: tensor.tensor_type.to_string(),
            });
        }
    };
    let mut values = vec![0.0; width];
    quant::dequantize(format, tensor.data, &mut values);
    Ok(values)
}

/// The kernels' name for a file's tensor type, if they know it.
pub(crate) fn compute_format(tensor_type: TensorType) -> Option<Format> {
    Some(match tensor_type {
        TensorType::F32 => Format::F32,
        TensorType::F16 => Format::F16,
        TensorType::BF16 => Format::BF16,
        TensorType::Q8_0 => Format::Q8_0,
        TensorType::Q4_0 => Format::Q4_0,
        TensorType::Q4_1 => Format::Q4_1,
        TensorType::Q5_0 => Format::Q5_0,
        TensorType::Q5_1 => Format::Q5_1,
        TensorType::MXFP4 => Format::MXFP4,
        TensorType::Q4_K => Format::Q4_K,
        TensorType::Q5_K => Format::Q5_K,
        TensorType::Q6_K => Format::Q6_K,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gguf_and_compute_agree_on_every_block() {
        for format in Format::ALL {
            let tensor_type: TensorType = format.name().parse().unwrap();
            assert_eq!(compute_format(tensor_type), Some(format));
            assert_eq!(
                tensor_type.block_weights(),
                format.block_weights(),
                "{format}"
            );
            assert_eq!(tensor_type.block_bytes(), format.block_bytes(), "{format}");
        }
    }
}
