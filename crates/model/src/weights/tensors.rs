//! Tensors of a file by name, each with the shape that is asked for.

use std::collections::HashSet;
use std::sync::Arc;

use redline_compute::{Backend, Format, Norm, WeightBytes, quant};
use redline_gguf::{Gguf, Tensor, TensorType};

use super::{Linear, NormWeights};
use crate::error::known_formats;
use crate::{Error, ModelFile};

/// Hands out tensors by name and remembers which were asked for.
pub(super) struct Tensors<'g, 'a, B> {
    file: &'g ModelFile,
    gguf: &'g Gguf<'a>,
    backend: &'g B,
    used: HashSet<&'g str>,
}

impl<'g, 'a, B: Backend> Tensors<'g, 'a, B> {
    pub(super) fn new(file: &'g ModelFile, gguf: &'g Gguf<'a>, backend: &'g B) -> Self {
        let used = HashSet::new();
        Self {
            file,
            gguf,
            backend,
            used,
        }
    }

    /// Whether the file has a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// Counts tensors as used, whether or not the file has them.
    pub(super) fn skip(&mut self, names: &[&'static str]) {
        self.used.extend(names);
    }

    pub(super) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<B::Matrix, Error> {
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
        let matrix = self.cutter(tensor, cols)?;
        Ok(rows.map(matrix))
    }

    /// The matrices of `[count, rows, cols]`.
    pub(super) fn stacked(
        &mut self,
        name: &str,
        [count, rows, cols]: [usize; 3],
    ) -> Result<Vec<B::Matrix>, Error> {
        let tensor = self.find(name, &[cols, rows, count])?;
        let mut matrix = self.cutter(tensor, cols)?;
        Ok((0..count).map(|_| matrix(rows)).collect())
    }

    /// The vectors of `[count, width]`.
    pub(super) fn stacked_vectors(
        &mut self,
        name: &str,
        [count, width]: [usize; 2],
    ) -> Result<Vec<B::Vector>, Error> {
        let tensor = self.find(name, &[width, count])?;
        let values = float_values(tensor)?;
        let vectors = values.chunks_exact(width);
        Ok(vectors
            .map(|values| self.backend.vector(values.to_vec()))
            .collect())
    }

    /// Cuts matrices of any numbers of rows off a tensor's front.
    fn cutter(
        &self,
        tensor: &Tensor<'_>,
        cols: usize,
    ) -> Result<impl FnMut(usize) -> B::Matrix + use<'g, B>, Error> {
        let format = compute_format(tensor.tensor_type).ok_or_else(|| Error::TensorType {
            name: tensor.name.to_owned(),
            expected: known_formats(),
            found: tensor.tensor_type.to_string(),
        })?;
        let mapping = self.file.mapping(tensor.shard);
        assert_eq!(
            mapping[tensor.offset..].as_ptr(),
            tensor.data.as_ptr(),
            "the directory is of this very file"
        );
        let (mut start, backend) = (tensor.offset, self.backend);
        Ok(move |rows| {
            let range = start..start + rows * format.row_bytes(cols);
            start = range.end;
            let bytes = WeightBytes::new(Arc::clone(mapping), range);
            backend.matrix(format, rows, cols, bytes)
        })
    }

    /// Projections whose rows follow one another in one tensor, and their biases in another: as
    /// [`Self::linear`].
    pub(super) fn fused<const N: usize>(
        &mut self,
        name: &str,
        rows: [usize; N],
        cols: usize,
        needs_bias: bool,
    ) -> Result<[Linear<B>; N], Error> {
        let matrices = self.row_ranges(&format!("{name}.weight"), rows, cols)?;
        let bias = format!("{name}.bias");
        let width = rows.iter().sum();
        let mut values = None;
        if needs_bias || self.has(&bias) {
            values = Some(vector_values(self.find(&bias, &[width])?, width)?.into_iter());
        }
        let mut bias = |rows| {
            let values = values.as_mut()?.take(rows).collect();
            Some(self.backend.vector(values))
        };
        let mut rows = rows.into_iter();
        Ok(matrices.map(|matrix| Linear {
            matrix,
            bias: rows.next().and_then(&mut bias),
        }))
    }

    /// `{name}.weight` and, where the kind of norm has it, `{name}.bias`.
    pub(super) fn norm(
        &mut self,
        norm: Norm,
        name: &str,
        width: usize,
    ) -> Result<NormWeights<B>, Error> {
        let has_bias = matches!(norm, Norm::Layer { .. });
        Ok(NormWeights {
            weight: self.vector(&format!("{name}.weight"), width)?,
            bias: self.vector_if(has_bias, &format!("{name}.bias"), width)?,
        })
    }

    pub(super) fn vector(&mut self, name: &str, width: usize) -> Result<B::Vector, Error> {
        let values = vector_values(self.find(name, &[width])?, width)?;
        Ok(self.backend.vector(values))
    }

    pub(super) fn vector_if(
        &mut self,
        wanted: bool,
        name: &str,
        width: usize,
    ) -> Result<Option<B::Vector>, Error> {
        wanted.then(|| self.vector(name, width)).transpose()
    }

    /// `{name}.weight` and, where the file has it or the model needs it, `{name}.bias`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        needs_bias: bool,
    ) -> Result<Linear<B>, Error> {
        let bias = format!("{name}.bias");
        let has_bias = needs_bias || self.has(&bias);
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

    pub(super) fn all_used(&self) -> Result<(), Error> {
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
    float_values(tensor)
}

/// The values of a tensor of floats.
fn float_values(tensor: &Tensor<'_>) -> Result<Vec<f32>, Error> {
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
    let mut values = vec![0.0; tensor.weights()];
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
        TensorType::IQ4_NL => Format::IQ4_NL,
        TensorType::MXFP4 => Format::MXFP4,
        TensorType::Q2_K => Format::Q2_K,
        TensorType::Q3_K => Format::Q3_K,
        TensorType::Q4_K => Format::Q4_K,
        TensorType::Q5_K => Format::Q5_K,
        TensorType::Q6_K => Format::Q6_K,
        TensorType::IQ4_XS => Format::IQ4_XS,
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
