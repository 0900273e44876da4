//! From safetensors as transformers names and arranges them to GGUF files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use redline_gguf::{TensorType, Writer};
use redline_huggingface::{Config, Stored};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::vocabulary;

#[derive(Debug, Deserialize)]
struct Provenance {
    architecture: String,
    config: serde_json::Value,
}

type Tensors = BTreeMap<String, Stored>;

/// Makes the files of `to` out of the script's files in `from`.
pub(super) fn convert(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from.join("provenance.json"))?;
    let provenance: Provenance = serde_json::from_str(&text)?;
    let name = to.file_name().context("a variant without a name")?;
    let name = name.to_str().context("a variant's name is not UTF-8")?;

    let config = Config::parse(&provenance.config.to_string())?;
    ensure!(
        config.architecture() == provenance.architecture,
        "{name} is of {}: expected {}",
        config.architecture(),
        provenance.architecture
    );
    let mut writer = Writer::new();
    config.declare(name, &mut writer)?;
    vocabulary::declare(config.vocab_size(), &mut writer)?;
    let bytes = fs::read(from.join("weights.safetensors"))?;
    let model = write(
        writer,
        &weights(&config, &SafeTensors::deserialize(&bytes)?)?,
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
fn weights(config: &Config, from: &SafeTensors<'_>) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, view) in from.tensors() {
        let tensor = stored(&view).with_context(|| name.clone())?;
        for place in config.places(&name)? {
            tensors.insert(place.name, place.change.apply(&name, &tensor)?);
        }
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
