//! From safetensors as transformers names and arranges them to GGUF files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use redline_gguf::{TensorType, Writer};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::names::gguf_name;
use super::plan::Config;

#[derive(Debug, Deserialize)]
struct Provenance {
    architecture: String,
    config: Config,
}

/// A tensor as a GGUF file holds it.
#[derive(Debug, PartialEq)]
struct Stored {
    /// The first varies fastest.
    dims: Vec<usize>,
    tensor_type: TensorType,
    bytes: Vec<u8>,
}

type Tensors = BTreeMap<String, Stored>;

/// Makes the files of `to` out of the script's files in `from`.
pub(super) fn convert(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from.join("provenance.json"))?;
    let provenance: Provenance = serde_json::from_str(&text)?;
    let name = to.file_name().context("a variant without a name")?;
    let name = name.to_str().context("a variant's name is not UTF-8")?;

    let mut writer = Writer::new();
    provenance
        .config
        .declare(&provenance.architecture, name, &mut writer)?;
    let bytes = fs::read(from.join("weights.safetensors"))?;
    let model = write(
        writer,
        &weights(&provenance, &SafeTensors::deserialize(&bytes)?)?,
    )?;

    let mut writer = Writer::new();
    writer.metadata("general.architecture", "reference")?;
    writer.metadata("general.name", name)?;
    let bytes = fs::read(from.join("reference.safetensors"))?;
    let reference = write(writer, &reference(&SafeTensors::deserialize(&bytes)?)?)?;

    let mut record: serde_json::Value = serde_json::from_str(&text)?;
    let fields = record.as_object_mut().context("provenance is no object")?;
    let sum = |bytes: &[u8]| -> String {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    fields.insert("written_by".to_owned(), "cargo xtask golden".into());
    fields.insert("model_sha256".to_owned(), sum(&model).into());
    fields.insert("reference_sha256".to_owned(), sum(&reference).into());
    let record = serde_json::to_string_pretty(&record)? + "\n";

    fs::create_dir_all(to)?;
    fs::write(to.join("model.gguf"), model)?;
    fs::write(to.join("reference.gguf"), reference)?;
    fs::write(to.join("provenance.json"), record)?;
    Ok(())
}

fn write(mut writer: Writer, tensors: &Tensors) -> Result<Vec<u8>> {
    for (name, tensor) in tensors {
        writer.tensor(name, &tensor.dims, tensor.tensor_type)?;
    }
    let mut stream = writer.start(Vec::new())?;
    for tensor in tensors.values() {
        stream.write(&tensor.bytes)?;
    }
    Ok(stream.finish()?)
}

fn stored(view: &safetensors::tensor::TensorView<'_>) -> Result<Stored> {
    let tensor_type = match view.dtype() {
        Dtype::F32 => TensorType::F32,
        Dtype::I32 => TensorType::I32,
        other => bail!("{other:?}: expected F32 or I32"),
    };
    Ok(Stored {
        dims: view.shape().iter().rev().copied().collect(),
        tensor_type,
        bytes: view.data().to_vec(),
    })
}

fn reference(from: &SafeTensors<'_>) -> Result<Tensors> {
    from.tensors()
        .iter()
        .map(|(name, view)| Ok((name.clone(), stored(view).context(name.clone())?)))
        .collect()
}

/// The weights under their new names, arranged as readers of the architecture expect them.
fn weights(provenance: &Provenance, from: &SafeTensors<'_>) -> Result<Tensors> {
    let (architecture, config) = (provenance.architecture.as_str(), &provenance.config);
    let mut tensors = Tensors::new();
    for (name, view) in from.tensors() {
        let mut tensor = stored(&view).with_context(|| name.clone())?;
        if architecture == "gemma3" && name.ends_with("norm.weight") {
            add_one(&mut tensor.bytes);
        }
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => config.num_attention_heads,
            Some("k_proj") => config.num_key_value_heads,
            _ => 0,
        };
        if architecture == "llama" && heads > 0 {
            tensor.bytes =
                interleave(&tensor.bytes, heads, config.head_dim).with_context(|| name.clone())?;
        }
        tensors.insert(gguf_name(architecture, &name)?, tensor);
    }
    for (name, factors) in config.rope_factors() {
        let factors = Stored {
            dims: vec![factors.len()],
            tensor_type: TensorType::F32,
            bytes: factors.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        tensors.insert(name.to_owned(), factors);
    }
    Ok(tensors)
}

/// Gemma's norms multiply by 1 + w, and files hold that sum.
fn add_one(bytes: &mut [u8]) {
    let (values, _) = bytes.as_chunks_mut::<4>();
    for value in values {
        *value = (f32::from_le_bytes(*value) + 1.0).to_le_bytes();
    }
}

/// Reorders the rows of a `[heads * head_dim, …]` projection: transformers rotates element i of a
/// head with i + head_dim/2, and `llama` files are for rotating 2i with 2i + 1.
fn interleave(bytes: &[u8], heads: usize, head_dim: usize) -> Result<Vec<u8>> {
    let rows = heads * head_dim;
    ensure!(
        head_dim.is_multiple_of(2) && rows > 0 && bytes.len().is_multiple_of(rows),
        "{} bytes are not {heads} heads of {head_dim} rows",
        bytes.len()
    );
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
        let out = interleave(rows.as_flattened(), 2, 4).unwrap();
        assert_eq!(out, [0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7]);
    }

    #[test]
    fn a_projection_of_another_size_is_refused() {
        assert!(interleave(&[0; 9], 2, 4).is_err());
    }

    #[test]
    fn folding_adds_one() {
        let mut bytes = [-0.5_f32, 2.0].map(f32::to_le_bytes).concat();
        add_one(&mut bytes);
        assert_eq!(bytes, [0.5_f32, 3.0].map(f32::to_le_bytes).concat());
    }
}
