//! What a tensor's weights become on the way.

use redline_gguf::TensorType;

use crate::{Error, experts};

/// A tensor as a GGUF file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The first varies fastest.
    pub dims: Vec<usize>,
    /// F32, F16, BF16 or MXFP4.
    pub tensor_type: TensorType,
    /// The weights.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// MXFP4 weights of blocks called `name`, bytes `[…, blocks, 16]`, and of their scales,
    /// `[…, blocks]`; of dimensions, the first varies fastest.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn mxfp4(
        name: &str,
        blocks: (&[usize], &[u8]),
        scales: (&[usize], &[u8]),
    ) -> Result<Self, Error> {
        experts::join(name, blocks, scales)
    }
}

/// How readers of an architecture's GGUF files expect a tensor, where that is not as transformers has
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// As it is.
    None,
    /// F32 values, larger by 1: Gemma's norms multiply by 1 + w, and files hold that sum.
    AddOne,
    /// Rows become columns: GPT-2 stores weights `[inputs, outputs]`.
    Transpose,
    /// Columns `first`, `first + step`… of every matrix, as rows where that is said.
    Columns {
        /// The first column.
        first: usize,
        /// From one to the next.
        step: usize,
        /// Whether they become rows.
        as_rows: bool,
    },
    /// Rows `first`, `first + step`… of every matrix.
    Rows {
        /// The first row.
        first: usize,
        /// From one to the next.
        step: usize,
    },
    /// The rows of a `[heads · head_dim, …]` projection in another order: transformers rotates element i
    /// of a head with i + head_dim/2, and `llama` files are for rotating 2i with 2i + 1.
    Interleave {
        /// Heads of the projection.
        heads: usize,
        /// Rows of a head.
        head_dim: usize,
    },
}

impl Change {
    /// The tensor `name`, changed.
    ///
    /// # Errors
    /// If its bytes are not as many as the change takes.
    pub fn apply(self, name: &str, tensor: &Stored) -> Result<Stored, Error> {
        // Of the other dimensions, no product may be taken.
        if tensor.dims.contains(&0) {
            return Err(size(name, "no dimension of 0", tensor.bytes.len()));
        }
        match self {
            Self::None => Ok(tensor.clone()),
            Self::AddOne => add_one(name, tensor),
            Self::Transpose => transpose(name, tensor),
            Self::Columns {
                first,
                step,
                as_rows,
            } => experts::columns(name, tensor, (first, step), as_rows),
            Self::Rows { first, step } => experts::rows(name, tensor, (first, step)),
            Self::Interleave { heads, head_dim } => Ok(Stored {
                dims: tensor.dims.clone(),
                tensor_type: tensor.tensor_type,
                bytes: interleave(name, &tensor.bytes, heads, head_dim)?,
            }),
        }
    }
}

pub(crate) fn size(name: &str, expected: impl Into<String>, found: usize) -> Error {
    Error::Size {
        name: name.to_owned(),
        expected: expected.into(),
        found,
    }
}

fn add_one(name: &str, tensor: &Stored) -> Result<Stored, Error> {
    let halves = || {
        let (halves, rest) = tensor.bytes.as_chunks::<2>();
        rest.is_empty()
            .then(|| halves.iter().copied().map(u16::from_le_bytes))
            .ok_or_else(|| size(name, "two for each value", tensor.bytes.len()))
    };
    let values: Vec<f32> = match tensor.tensor_type {
        TensorType::BF16 => halves()?
            .map(|bits| f32::from_bits(u32::from(bits) << 16))
            .collect(),
        TensorType::F16 => halves()?.map(half).collect(),
        _ => {
            let (values, rest) = tensor.bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(size(name, "four for each value", tensor.bytes.len()));
            }
            values.iter().copied().map(f32::from_le_bytes).collect()
        }
    };
    Ok(Stored {
        dims: tensor.dims.clone(),
        tensor_type: TensorType::F32,
        bytes: values
            .iter()
            .flat_map(|value| (value + 1.0).to_le_bytes())
            .collect(),
    })
}

fn transpose(name: &str, tensor: &Stored) -> Result<Stored, Error> {
    let weights: usize = tensor.dims.iter().product();
    let [cols, rows] = tensor.dims[..] else {
        return Err(size(name, "two dimensions", tensor.bytes.len()));
    };
    if weights == 0 || !tensor.bytes.len().is_multiple_of(weights) {
        let expected = format!("some for each of {weights} weights");
        return Err(size(name, expected, tensor.bytes.len()));
    }
    let each = tensor.bytes.len() / weights;
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for col in 0..cols {
        for row in 0..rows {
            bytes.extend(&tensor.bytes[(row * cols + col) * each..][..each]);
        }
    }
    Ok(Stored {
        dims: vec![rows, cols],
        tensor_type: tensor.tensor_type,
        bytes,
    })
}

/// The value of a binary16 number.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2_f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    };
    sign * magnitude
}

fn interleave(name: &str, bytes: &[u8], heads: usize, head_dim: usize) -> Result<Vec<u8>, Error> {
    let rows = heads * head_dim;
    if !head_dim.is_multiple_of(2) || rows == 0 || !bytes.len().is_multiple_of(rows) {
        let expected = format!("{heads} heads of {head_dim} rows, an even number");
        return Err(size(name, expected, bytes.len()));
    }
    let row_bytes = bytes.len() / rows;
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(head_dim * row_bytes) {
        for pair in 0..head_dim / 2 {
            for row in [pair, pair + head_dim / 2] {
                out.extend(&head[row * row_bytes..][..row_bytes]);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn interleaving_pairs_the_halves_of_each_head() {
        let rows = [
            [0, 0],
            [1, 1],
            [2, 2],
            [3, 3],
            [4, 4],
            [5, 5],
            [6, 6],
            [7, 7],
        ];
        let out = interleave("q", rows.as_flattened(), 2, 4).unwrap();
        assert_eq!(out, [0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7]);
    }

    #[test]
    fn transposing_makes_rows_of_columns() {
        let stored = |dims: [usize; 2], bytes: [u8; 6]| Stored {
            dims: dims.to_vec(),
            tensor_type: TensorType::F16,
            bytes: bytes.iter().flat_map(|byte| [*byte; 2]).collect(),
        };
        let out = Change::Transpose.apply("c", &stored([3, 2], [1, 2, 3, 4, 5, 6]));
        assert_eq!(out.unwrap(), stored([2, 3], [1, 4, 2, 5, 3, 6]));
        assert!(
            Change::Transpose
                .apply("c", &stored([5, 4], [0; 6]))
                .is_err()
        );
    }

    #[test]
    fn a_projection_of_another_size_is_refused() {
        let error = interleave("q", &[0; 9], 2, 4).unwrap_err().to_string();
        assert!(error.contains("2 heads of 4 rows"), "{error}");
    }

    #[test]
    fn one_is_added_in_f32_whatever_the_type() {
        let stored = |tensor_type, bytes: &[u8]| Stored {
            dims: vec![2],
            tensor_type,
            bytes: bytes.to_vec(),
        };
        // -0.5 and 2^-14 in each type.
        let f32s = [-0.5_f32, 2_f32.powi(-14)].map(f32::to_le_bytes).concat();
        let expected = [0.5_f32, 1.0 + 2_f32.powi(-14)]
            .map(f32::to_le_bytes)
            .concat();
        for (tensor_type, bytes) in [
            (TensorType::F32, f32s.as_slice()),
            (TensorType::BF16, &[0x00, 0xbf, 0x80, 0x38]),
            (TensorType::F16, &[0x00, 0xb8, 0x00, 0x04]),
        ] {
            let out = Change::AddOne.apply("n", &stored(tensor_type, bytes));
            assert_eq!(out.unwrap(), stored(TensorType::F32, &expected));
        }
        let odd = Change::AddOne.apply("n", &stored(TensorType::BF16, &[0; 3]));
        assert!(odd.is_err());
    }
}
