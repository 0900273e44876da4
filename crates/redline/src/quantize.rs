//! A model's file with its weights stored in another way.
//!
//! Metadata and whatever is no matrix are copied; [`Quant`] says the format of each matrix. Which
//! tensors are matrices, and what each does, is told by their names, as llama.cpp's quantizer does
//! (`tensor_allows_quantization` and `tensor_get_category` in `src/llama-quant.cpp`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use redline_compute::{Format, quant};
use redline_gguf::{Gguf, Metadata, Tensor, TensorStream, TensorType, Writer};

use crate::failure::Usage;
use crate::mix::{Facts, Matrix, Quant, Role};

/// `general.quantization_version` of the blocks that are written.
const QUANTIZATION_VERSION: u32 = 2;
/// Keys that the written file has its own values of, or, of splits, none.
const OWN_KEYS: [&str; 5] = [
    "general.file_type",
    "general.quantization_version",
    "split.no",
    "split.count",
    "split.tensors.count",
];
/// Parts of names of matrices that stay as they are.
const KEPT: [&str; 4] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "position_embd.weight",
    "token_types.weight",
];
/// Weights a thread works on at a time, about.
const PART_WEIGHTS: usize = 1 << 20;

/// What is to become of each tensor of a file.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    gguf: &'a Gguf<'a>,
    quant: Quant,
    steps: Vec<Step<'a>>,
}

#[derive(Debug)]
struct Step<'a> {
    tensor: &'a Tensor<'a>,
    /// The stored format and the new one, where they differ.
    change: Option<[Format; 2]>,
}

impl Step<'_> {
    fn tensor_type(&self) -> anyhow::Result<TensorType> {
        match self.change {
            None => Ok(self.tensor.tensor_type),
            Some([_, to]) => Ok(to.name().parse()?),
        }
    }

    fn rows(&self) -> usize {
        self.tensor.weights() / self.tensor.dims[0]
    }

    fn bytes(&self) -> usize {
        match self.change {
            None => self.tensor.data.len(),
            Some([_, to]) => self.rows() * to.row_bytes(self.tensor.dims[0]),
        }
    }
}

impl<'a> Plan<'a> {
    /// Decides on every tensor of `gguf`.
    ///
    /// # Errors
    /// If the metadata do not say what the mixes ask, or a matrix is stored in a way that is not
    /// computed.
    pub(crate) fn new(gguf: &'a Gguf<'a>, quant: Quant) -> anyhow::Result<Self> {
        let model = Model {
            facts: facts(gguf.metadata())?,
            tied: gguf.tensor("output.weight").is_none(),
            values: layers_with_values(gguf.tensors().iter().map(|tensor| tensor.name)),
        };
        let mut steps = Vec::with_capacity(gguf.tensors().len());
        for tensor in gguf.tensors() {
            let wanted = model.format(tensor.name, &tensor.dims, quant);
            let found = tensor.tensor_type.to_string();
            let change = match wanted.filter(|to| to.name() != found) {
                Some(to) => Some([stored(tensor)?, to]),
                None => None,
            };
            steps.push(Step { tensor, change });
        }
        Ok(Self { gguf, quant, steps })
    }

    /// Bytes of all tensors of the new file.
    pub(crate) fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.bytes() as u64).sum()
    }

    /// A quantised format that matrices are taken from, if any: each rounding adds its errors.
    pub(crate) fn requantised(&self) -> Option<Format> {
        self.steps
            .iter()
            .filter_map(|step| step.change.map(|[from, _]| from))
            .find(|from| from.block_weights() > 1)
    }

    /// How many tensors of each type the new file has.
    pub(crate) fn types(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut types = BTreeMap::new();
        for step in &self.steps {
            *types.entry(step.tensor_type()?.to_string()).or_insert(0) += 1;
        }
        Ok(types)
    }

    /// Writes the file to `path`, which appears when all is written and must not be there before.
    ///
    /// `progress` hears of the bytes of tensors that are done, and may stop the work with an error.
    ///
    /// # Errors
    /// If the file cannot be written or is there, `progress` fails, or a weight is not finite.
    pub(crate) fn create(
        &self,
        path: &Path,
        threads: usize,
        progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let scratch = tempfile::Builder::new()
            .prefix(".quantize-")
            .make_in(folder.unwrap_or(Path::new(".")), |path| {
                File::create_new(path)
            })
            .with_context(cannot)?;
        let mut out = BufWriter::new(scratch.as_file());
        self.write(threads, &mut out, progress)?;
        out.flush().with_context(cannot)?;
        drop(out);
        scratch.persist_noclobber(path).with_context(cannot)?;
        Ok(())
    }

    /// Writes the file to any output.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) fn write(
        &self,
        threads: usize,
        out: impl Write,
        progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut writer = Writer::new();
        for (key, value) in self.gguf.metadata().iter() {
            if !OWN_KEYS.contains(&key) {
                writer.metadata(key, *value)?;
            }
        }
        writer.metadata("general.quantization_version", QUANTIZATION_VERSION)?;
        writer.metadata("general.file_type", self.quant.file_type())?;
        for step in &self.steps {
            let tensor = step.tensor;
            writer.tensor(tensor.name, &tensor.dims, step.tensor_type()?)?;
        }
        let mut stream = writer.start(out)?;
        let mut done = 0;
        for step in &self.steps {
            match step.change {
                None => stream.write(step.tensor.data)?,
                Some(change) => convert(step.tensor, change, threads, &mut stream, &mut |bytes| {
                    progress(done + bytes)
                })?,
            }
            done += step.bytes() as u64;
            progress(done)?;
        }
        stream.finish()?;
        Ok(())
    }
}

/// Stores a matrix anew, some rows at a time, split over the threads.
fn convert(
    tensor: &Tensor<'_>,
    [from, to]: [Format; 2],
    threads: usize,
    stream: &mut TensorStream<impl Write>,
    progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cols = tensor.dims[0];
    let (old, new) = (from.row_bytes(cols), to.row_bytes(cols));
    let rows = (PART_WEIGHTS / cols).max(1);
    let infinite = AtomicBool::new(false);
    let mut out = vec![0; threads.max(1) * rows * new];
    let mut done = 0;
    for data in tensor.data.chunks(threads.max(1) * rows * old) {
        let out = &mut out[..data.len() / old * new];
        std::thread::scope(|scope| {
            let parts = data.chunks(rows * old).zip(out.chunks_mut(rows * new));
            for (data, out) in parts {
                let infinite = &infinite;
                scope.spawn(move || {
                    let mut values = vec![0.0; data.len() / old * cols];
                    quant::dequantize(from, data, &mut values);
                    if !values.iter().all(|value| value.is_finite()) {
                        infinite.store(true, Ordering::Relaxed);
                    }
                    quant::quantize(to, &values, out);
                });
            }
        });
        if infinite.load(Ordering::Relaxed) {
            bail!("tensor {}: a weight is not finite", tensor.name);
        }
        stream.write(out)?;
        done += out.len() as u64;
        progress(done)?;
    }
    Ok(())
}

/// How a matrix is stored.
fn stored(tensor: &Tensor<'_>) -> anyhow::Result<Format> {
    let found = tensor.tensor_type.to_string();
    found.parse().map_err(|_| {
        let known = Format::ALL.map(Format::name).join(", ");
        Usage(format!(
            "tensor {}: expected type {known}, found {found}",
            tensor.name
        ))
        .into()
    })
}

/// What the mixes ask of the metadata.
fn facts(metadata: &Metadata<'_>) -> anyhow::Result<Facts> {
    let architecture = metadata.require_str("general.architecture")?;
    // Some models give a number for each layer: the first stands for all.
    let number = |key: &str| {
        let value = metadata.get(&format!("{architecture}.{key}"))?;
        let first = match value {
            redline_gguf::Value::Array(array) => array.iter().next()?.as_integer(),
            value => value.as_integer(),
        };
        first.and_then(|number| usize::try_from(number).ok())
    };
    let layers = number("block_count")
        .with_context(|| format!("metadata {architecture}.block_count: missing"))?;
    let heads = number("attention.head_count").unwrap_or(0);
    let keys = number("attention.head_count_kv").unwrap_or(heads);
    Ok(Facts {
        layers,
        queries_per_key: heads.checked_div(keys).unwrap_or(0),
        experts: number("expert_count").unwrap_or(0),
    })
}

/// What decides on a model's tensors.
#[derive(Debug)]
struct Model {
    facts: Facts,
    /// Whether the embedding is the output matrix too.
    tied: bool,
    /// The layers with values, in order.
    values: Vec<usize>,
}

impl Model {
    /// The format of a tensor to be quantised; `None`: it stays as it is.
    fn format(&self, name: &str, dims: &[usize], quant: Quant) -> Option<Format> {
        let is_matrix = dims.iter().skip(1).any(|dim| *dim > 1)
            && name.ends_with("weight")
            && !KEPT.iter().any(|part| name.contains(part));
        let matrix = Matrix {
            role: self.role(name),
            cols: dims[0],
            experts: dims.get(2).is_some_and(|experts| *experts > 1),
        };
        is_matrix.then(|| quant.format(matrix, self.facts))
    }

    fn role(&self, name: &str) -> Role {
        let has = |part: &str| name.contains(part);
        let layer = layer(name).unwrap_or(0);
        match name {
            "output.weight" => Role::Head,
            "token_embd.weight" | "per_layer_token_embd.weight" if self.tied => Role::Head,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
            _ if VALUES.iter().any(|part| has(part)) => Role::Value {
                nth: self.values.partition_point(|value| *value < layer),
                of: self.values.len(),
            },
            _ if has("attn_k.weight") => Role::Key,
            _ if has("attn_output.weight") => Role::Output,
            _ if has("ffn_down") => Role::Down { layer },
            _ => Role::Plain,
        }
    }
}

/// Parts of names of matrices whose products are values.
const VALUES: [&str; 3] = ["attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"];

/// The layers that have values, in order.
fn layers_with_values<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let values = names.filter(|name| VALUES.iter().any(|part| name.contains(part)));
    let mut layers: Vec<usize> = values.filter_map(layer).collect();
    layers.sort_unstable();
    layers
}

/// The layer that a tensor is named after.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Made by `quantize_types.py` beside it.
    const TYPES: &str = include_str!("../tests/data/quantize_types.json");

    fn number(value: &Value) -> usize {
        usize::try_from(value.as_u64().unwrap()).unwrap()
    }

    /// The type of a matrix by `[most, {other: [layers]}]`.
    fn expected(types: &Value, layer: usize) -> &str {
        let others = types.get(1).and_then(Value::as_object);
        let is_in = |layers: &Value| {
            layers
                .as_array()
                .unwrap()
                .iter()
                .any(|l| number(l) == layer)
        };
        let other = others.and_then(|others| others.iter().find(|(_, layers)| is_in(layers)));
        other.map_or_else(|| types[0].as_str().unwrap(), |(name, _)| name)
    }

    /// Every matrix of a model, with its type in a mix.
    fn check(title: &str, described: &Value, mix: &str, types: &Value) {
        let cols = described["cols"].as_object().unwrap();
        let layers = number(&described["layers"]);
        let names = |name: &str| match name {
            "token_embd.weight" | "output.weight" => vec![(0, name.to_owned())],
            name => (0..layers)
                .map(|layer| (layer, format!("blk.{layer}.{name}")))
                .collect(),
        };
        let all: Vec<String> = cols
            .keys()
            .flat_map(|name| names(name).into_iter().map(|(_, name)| name))
            .collect();
        let experts = number(&described["experts"]);
        let model = Model {
            facts: Facts {
                layers,
                queries_per_key: number(&described["heads"]) / number(&described["key_heads"]),
                experts,
            },
            tied: !cols.contains_key("output.weight"),
            values: layers_with_values(all.iter().map(String::as_str)),
        };
        let quant: Quant = mix.parse().unwrap();
        for (name, cols) in cols {
            for (layer, full) in names(name) {
                let experts = if name.contains("_exps") { experts } else { 1 };
                let dims = [number(cols), 2, experts];
                let found = model.format(&full, &dims, quant);
                // What stays as it is was F32.
                let found = found.map_or("F32", Format::name);
                assert_eq!(found, expected(&types[name], layer), "{title} {mix} {full}");
            }
        }
    }

    #[test]
    fn mixes_are_those_of_llama_cpp() {
        let types: Value = serde_json::from_str(TYPES).unwrap();
        for (title, described) in types["models"].as_object().unwrap() {
            for (mix, types) in described["mixes"].as_object().unwrap() {
                check(title, described, mix, types);
            }
        }
    }
}
