//! Stacked experts, whose gates and ups transformers keeps in turns in one tensor.
//!
//! Source: `GptOssExperts` of transformers' `modeling_gpt_oss.py`; names of published GGUF files.

use crate::change::{Stored, size};
use crate::{Change, Error, Place};

/// Where a tensor of gpt-oss's experts goes; none if it is no such tensor.
pub(crate) fn places(name: &str) -> Vec<Place> {
    let parts = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        Some((layer, rest.strip_prefix("mlp.experts.")?))
    };
    let Some((layer, tensor)) = parts() else {
        return Vec::new();
    };
    let place = |part: &str, change| Place {
        name: format!("blk.{layer}.ffn_{part}"),
        change,
    };
    let weight = |first, step| Change::Columns {
        first,
        step,
        as_rows: true,
    };
    let bias = |first| Change::Columns {
        first,
        step: 2,
        as_rows: false,
    };
    match tensor {
        "gate_up_proj" => vec![
            place("gate_exps.weight", weight(0, 2)),
            place("up_exps.weight", weight(1, 2)),
        ],
        "gate_up_proj_bias" => vec![
            place("gate_exps.bias", bias(0)),
            place("up_exps.bias", bias(1)),
        ],
        "down_proj" => vec![place("down_exps.weight", weight(0, 1))],
        "down_proj_bias" => vec![place("down_exps.bias", Change::None)],
        _ => Vec::new(),
    }
}

/// Columns `first`, `first + step`… of every matrix, as its rows if `as_rows`.
pub(crate) fn columns(
    name: &str,
    tensor: &Stored,
    (first, step): (usize, usize),
    as_rows: bool,
) -> Result<Stored, Error> {
    let weights: usize = tensor.dims.iter().product();
    let [cols, rest @ ..] = tensor.dims.as_slice() else {
        return Err(size(name, "some dimensions", tensor.bytes.len()));
    };
    if weights == 0 || !cols.is_multiple_of(step) || !tensor.bytes.len().is_multiple_of(weights) {
        let expected = format!("rows of {step} by {step} columns");
        return Err(size(name, expected, tensor.bytes.len()));
    }
    let each = tensor.bytes.len() / weights;
    let rows = if as_rows {
        rest.first().copied().unwrap_or(1)
    } else {
        1
    };
    let mut bytes = Vec::with_capacity(tensor.bytes.len() / step);
    for matrix in tensor.bytes.chunks_exact(rows * cols * each) {
        for col in (first..*cols).step_by(step) {
            for row in 0..rows {
                bytes.extend(&matrix[(row * cols + col) * each..][..each]);
            }
        }
    }
    let mut dims = tensor.dims.clone();
    dims[0] = cols / step;
    if as_rows && dims.len() > 1 {
        dims.swap(0, 1);
    }
    Ok(Stored {
        dims,
        tensor_type: tensor.tensor_type,
        bytes,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use redline_gguf::TensorType;

    use super::*;

    fn stored(dims: &[usize], bytes: &[u8]) -> Stored {
        Stored {
            dims: dims.to_vec(),
            tensor_type: TensorType::F16,
            bytes: bytes.iter().flat_map(|byte| [*byte; 2]).collect(),
        }
    }

    #[test]
    fn gates_and_ups_are_taken_apart() {
        // Two experts, each two inputs by four outputs.
        let tensor = stored(&[4, 2, 2], &(0..16).collect::<Vec<u8>>());
        let all = places("model.layers.7.mlp.experts.gate_up_proj");
        let made: Vec<_> = all
            .iter()
            .map(|place| {
                (
                    place.name.as_str(),
                    place.change.apply("x", tensor.clone()).unwrap(),
                )
            })
            .collect();
        let gate = stored(&[2, 2, 2], &[0, 4, 2, 6, 8, 12, 10, 14]);
        let up = stored(&[2, 2, 2], &[1, 5, 3, 7, 9, 13, 11, 15]);
        assert_eq!(
            made,
            [
                ("blk.7.ffn_gate_exps.weight", gate),
                ("blk.7.ffn_up_exps.weight", up)
            ]
        );
    }

    #[test]
    fn so_are_their_biases() {
        let tensor = stored(&[4, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
        let all = places("model.layers.0.mlp.experts.gate_up_proj_bias");
        let up = all[1].change.apply("x", tensor).unwrap();
        assert_eq!(
            (all[1].name.as_str(), up),
            ("blk.0.ffn_up_exps.bias", stored(&[2, 2], &[1, 3, 5, 7]))
        );
    }

    #[test]
    fn columns_that_do_not_pair_are_refused() {
        assert!(columns("x", &stored(&[3, 2], &[0; 6]), (0, 2), true).is_err());
        assert!(columns("x", &stored(&[4, 2], &[0; 3]), (0, 2), true).is_err());
    }
}
