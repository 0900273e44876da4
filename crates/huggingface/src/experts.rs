//! Stacked experts, whose gates and ups transformers keeps in turns in one tensor.
//!
//! Source: `GptOssExperts` of transformers' `modeling_gpt_oss.py`; names of published GGUF files. The
//! published checkpoints have MXFP4 in place of each weight, blocks and their scales in two tensors:
//! <https://huggingface.co/openai/gpt-oss-20b>.

use redline_gguf::TensorType;

use crate::change::{Stored, size};
use crate::names::of_layer;
use crate::{Change, Error, Place};

/// Weights of an MXFP4 block.
const BLOCK: usize = 32;
/// Bytes of its weights.
const PACKED: usize = BLOCK / 2;

/// Where a tensor of gpt-oss's experts goes, nowhere if another carries it along; `None` if it is no
/// such tensor.
pub(crate) fn places(name: &str) -> Option<Vec<Place>> {
    let (layer, rest) = of_layer(name, "model.layers.")?;
    let tensor = rest.strip_prefix("mlp.experts.")?;
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
    let rows = |first| Change::Rows { first, step: 2 };
    Some(match tensor {
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
        "gate_up_proj_blocks" => vec![
            place("gate_exps.weight", rows(0)),
            place("up_exps.weight", rows(1)),
        ],
        "down_proj_blocks" => vec![place("down_exps.weight", Change::None)],
        "gate_up_proj_scales" | "down_proj_scales" => Vec::new(),
        _ => return None,
    })
}

/// The tensor of scales that belong to the blocks called `name`, if that is what it is called.
pub(crate) fn scales(name: &str) -> Option<String> {
    let weight = name.strip_suffix("_blocks")?;
    (!places(name)?.is_empty()).then(|| format!("{weight}_scales"))
}

/// Blocks and scales, bytes `[…, blocks, 16]` and `[…, blocks]`, as MXFP4 of a GGUF file.
///
/// Published blocks have weights 2j and 2j + 1 in byte j; a file's have j and j + 16, after the scale.
pub(crate) fn join(
    name: &str,
    (dims, packed): (&[usize], &[u8]),
    (scale_dims, scales): (&[usize], &[u8]),
) -> Result<Stored, Error> {
    let (blocks, rest) = packed.as_chunks::<PACKED>();
    let fit = dims.split_first() == Some((&PACKED, scale_dims))
        && rest.is_empty()
        && blocks.len() == scales.len();
    let (Some(per_row), true, false) = (scale_dims.first(), fit, blocks.is_empty()) else {
        let expected = format!("{PACKED} for each of its {} scales", scales.len());
        return Err(size(name, expected, packed.len()));
    };
    let mut bytes = Vec::with_capacity(packed.len() + scales.len());
    for (block, scale) in blocks.iter().zip(scales) {
        bytes.push(*scale);
        let code = |i: usize| block[i / 2] >> (4 * (i % 2)) & 0xf;
        bytes.extend((0..PACKED).map(|i| code(i) | code(i + PACKED) << 4));
    }
    let mut dims = scale_dims.to_vec();
    dims[0] = per_row * BLOCK;
    Ok(Stored {
        dims,
        tensor_type: TensorType::MXFP4,
        bytes,
    })
}

/// Rows `first`, `first + step`… of every matrix.
pub(crate) fn rows(
    name: &str,
    tensor: &Stored,
    (first, step): (usize, usize),
) -> Result<Stored, Error> {
    let all: usize = tensor.dims.iter().skip(1).product();
    let each = tensor.bytes.len().checked_div(all).unwrap_or(0);
    let mut dims = tensor.dims.clone();
    let Some(rows) = dims.get_mut(1).filter(|rows| rows.is_multiple_of(step)) else {
        return Err(size(name, format!("rows by {step}"), tensor.bytes.len()));
    };
    if each == 0 || !tensor.bytes.len().is_multiple_of(all) {
        return Err(size(name, format!("{all} rows"), tensor.bytes.len()));
    }
    *rows /= step;
    let taken = tensor.bytes.chunks_exact(each).skip(first).step_by(step);
    Ok(Stored {
        dims,
        tensor_type: tensor.tensor_type,
        bytes: taken.flatten().copied().collect(),
    })
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
        let all = places("model.layers.7.mlp.experts.gate_up_proj").unwrap();
        let made: Vec<_> = all
            .iter()
            .map(|place| {
                (
                    place.name.as_str(),
                    place.change.apply("x", &tensor).unwrap(),
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
        let all = places("model.layers.0.mlp.experts.gate_up_proj_bias").unwrap();
        let up = all[1].change.apply("x", &tensor).unwrap();
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

    #[test]
    fn blocks_and_scales_become_one_tensor() {
        // Two rows of a block each: weights 0 to 15 twice, and 15 to 0.
        let up: [u8; 16] = std::array::from_fn(|j| (2 * j % 16 + (2 * j + 1) % 16 * 16) as u8);
        let down: [u8; 16] = std::array::from_fn(|j| !up[j]);
        let packed = [up, down].concat();
        let joined = join("x", (&[16, 1, 2], &packed), (&[1, 2], &[120, 130])).unwrap();
        assert_eq!((&*joined.dims, joined.bytes.len()), (&[32, 2][..], 34));
        assert_eq!(joined.tensor_type, TensorType::MXFP4);
        assert_eq!((joined.bytes[0], joined.bytes[17]), (120, 130));
        for j in 0..16 {
            // Weights j and j + 16 are the same here.
            assert_eq!(joined.bytes[1 + j], j as u8 * 17);
            assert_eq!(joined.bytes[18 + j], (15 - j as u8) * 17);
        }
        let second = rows("x", &joined, (1, 2)).unwrap();
        assert_eq!(
            (second.dims, &*second.bytes),
            (vec![32, 1], &joined.bytes[17..])
        );
    }

    #[test]
    fn blocks_without_their_scales_are_refused() {
        let packed = [0; 32];
        for (dims, scale_dims, scales) in [
            (&[16, 1, 2][..], &[1, 2][..], 1),
            (&[16, 2], &[1, 2], 2),
            (&[8, 2, 2], &[2, 2], 4),
            (&[], &[], 2),
            (&[16, 0, 2], &[0, 2], 0),
        ] {
            let scales = vec![0; scales];
            let error = join("x", (dims, &packed), (scale_dims, &scales)).unwrap_err();
            assert!(error.to_string().contains("scales"), "{error}");
        }
        assert!(join("x", (&[16, 0, 2], &[]), (&[0, 2], &[])).is_err());
        let odd = stored(&[2, 3], &[0; 6]);
        assert!(rows("x", &odd, (0, 2)).is_err());
        assert!(rows("x", &stored(&[0, 0], &[]), (0, 2)).is_err());
        assert!(rows("x", &stored(&[4], &[0; 4]), (0, 2)).is_err());
    }

    #[test]
    fn only_blocks_of_experts_have_scales() {
        let found = scales("model.layers.3.mlp.experts.down_proj_blocks");
        assert_eq!(
            found.as_deref(),
            Some("model.layers.3.mlp.experts.down_proj_scales")
        );
        assert_eq!(scales("model.layers.3.mlp.experts.down_proj"), None);
        assert_eq!(scales("model.layers.3.self_attn.q_proj_blocks"), None);
    }
}
