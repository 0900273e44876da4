//! A folder as Hugging Face transformers keeps a model: `config.json` beside tensors in safetensors
//! files.
//!
//! It becomes what a GGUF file of that model would be. Metadata, and the few tensors that change on the
//! way, are written into such a file in memory; all other weights stay where their files are mapped.
//! Source of the formats: <https://huggingface.co/docs/safetensors>, and of shards
//! <https://huggingface.co/docs/transformers/main/en/big_models>.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redline_compute::Mapping;
use redline_gguf::{Tensor, TensorType, Writer};
use redline_huggingface::{Change, Config, Stored};
use safetensors::{Dtype, SafeTensors};

use crate::Error;
use crate::file::map;

const CONFIG: &str = "config.json";
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// More than any model's configuration, and than the index of its shards.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// A tensor that stays in a safetensors file.
#[derive(Debug)]
pub(crate) struct Borrowed {
    name: String,
    dims: Vec<usize>,
    tensor_type: TensorType,
    /// Index of the file among the mappings.
    shard: usize,
    offset: usize,
    bytes: usize,
}

impl Borrowed {
    /// As part of a directory.
    pub(crate) fn tensor<'a>(&'a self, mappings: &'a [Arc<Mapping>]) -> Tensor<'a> {
        Tensor {
            name: &self.name,
            dims: self.dims.clone(),
            tensor_type: self.tensor_type,
            shard: self.shard,
            offset: self.offset,
            data: &mappings[self.shard][self.offset..][..self.bytes],
        }
    }
}

/// A folder's files: the first mapping is a GGUF file in memory.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) mappings: Vec<Arc<Mapping>>,
    pub(crate) borrowed: Vec<Borrowed>,
}

impl Folder {
    /// Maps the files of `folder`.
    ///
    /// # Errors
    /// If one is missing or malformed, or the model is not known.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let config = folder.join(CONFIG);
        let parsed = Config::parse(&text(&config)?);
        let parsed = parsed.map_err(|source| Error::Config {
            path: config.clone(),
            source,
        })?;
        let mut tensors = Tensors {
            config: &parsed,
            owned: Vec::new(),
            borrowed: Vec::new(),
        };
        let shards = shards(folder)?;
        let mut mappings = Vec::with_capacity(shards.len() + 1);
        for (index, path) in shards.iter().enumerate() {
            let mapping = map(path)?;
            tensors.add(path, index + 1, &mapping)?;
            mappings.push(mapping);
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let file = write(&parsed, &name, &tensors.owned);
        let file = file.map_err(|source| Error::Config {
            path: config,
            source,
        })?;
        mappings.insert(0, Arc::new(Mapping::from_bytes(file)));
        Ok(Self {
            mappings,
            borrowed: tensors.borrowed,
        })
    }
}

/// The file in memory: metadata and tensors that are not what the folder holds.
fn write(
    config: &Config,
    name: &str,
    owned: &[(String, Stored)],
) -> Result<Vec<u8>, redline_huggingface::Error> {
    let mut writer = Writer::new();
    config.declare(name, &mut writer)?;
    let factors = config.rope_factors().into_iter().map(|(name, factors)| {
        let bytes = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
        let stored = Stored {
            dims: vec![factors.len()],
            tensor_type: TensorType::F32,
            bytes,
        };
        (name.to_owned(), stored)
    });
    let factors: Vec<_> = factors.collect();
    let all = || factors.iter().chain(owned);
    for (name, tensor) in all() {
        writer.tensor(name, &tensor.dims, tensor.tensor_type)?;
    }
    let mut stream = writer.start(Vec::new())?;
    for (_, tensor) in all() {
        stream.write(&tensor.bytes)?;
    }
    Ok(stream.finish()?)
}

/// The tensors found so far.
struct Tensors<'c> {
    config: &'c Config,
    owned: Vec<(String, Stored)>,
    borrowed: Vec<Borrowed>,
}

impl Tensors<'_> {
    /// Takes those of a file, whose mapping will have this index.
    fn add(&mut self, path: &Path, shard: usize, mapping: &Mapping) -> Result<(), Error> {
        let parsed = SafeTensors::deserialize(mapping).map_err(|source| Error::Safetensors {
            path: path.to_owned(),
            source,
        })?;
        let mut tensors = parsed.tensors();
        tensors.sort_by_key(|(_, view)| view.data().as_ptr());
        for (name, view) in tensors {
            let config = |source| Error::Config {
                path: path.to_owned(),
                source,
            };
            let places = self.config.places(&name).map_err(config)?;
            if places.is_empty() {
                continue;
            }
            let tensor_type = match view.dtype() {
                Dtype::F32 => TensorType::F32,
                Dtype::F16 => TensorType::F16,
                Dtype::BF16 => TensorType::BF16,
                other => {
                    return Err(Error::TensorType {
                        name,
                        expected: "F32, F16 or BF16".to_owned(),
                        found: format!("{other:?}"),
                    });
                }
            };
            let dims: Vec<usize> = view.shape().iter().rev().copied().collect();
            for place in places {
                let dims = dims.clone();
                if place.change == Change::None {
                    let offset = view.data().as_ptr().addr() - mapping.as_ptr().addr();
                    self.borrowed.push(Borrowed {
                        name: place.name,
                        dims,
                        tensor_type,
                        shard,
                        offset,
                        bytes: view.data().len(),
                    });
                } else {
                    let stored = Stored {
                        dims,
                        tensor_type,
                        bytes: view.data().to_vec(),
                    };
                    let changed = place.change.apply(&name, stored).map_err(config)?;
                    self.owned.push((place.name, changed));
                }
            }
        }
        Ok(())
    }
}

/// The files with tensors: one, or those that an index names.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let path = folder.join(INDEX);
    if !path.exists() {
        let whole = folder.join(WHOLE);
        if whole.exists() {
            return Ok(vec![whole]);
        }
        return Err(malformed(
            folder,
            &format!("expected {WHOLE} or {INDEX} in it, found neither"),
        ));
    }
    let index: Index = serde_json::from_str(&text(&path)?)
        .map_err(|error| malformed(&path, &error.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    if files.is_empty() {
        return Err(malformed(&path, "expected names of files, found none"));
    }
    files
        .into_iter()
        .map(|file| {
            let plain = Path::new(&file).file_name() == Some(file.as_ref());
            if !plain {
                let problem = format!("expected names of files beside it, found {file:?}");
                return Err(malformed(&path, &problem));
            }
            Ok(folder.join(file))
        })
        .collect()
}

fn malformed(path: &Path, problem: &str) -> Error {
    Error::Folder {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

/// A small text file.
fn text(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_JSON_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > MAX_JSON_BYTES => {
            let problem = format!("expected at most {MAX_JSON_BYTES} bytes, found more");
            Err(malformed(path, &problem))
        }
        Ok(_) => Ok(text),
        Err(source) => Err(Error::Open {
            path: path.to_owned(),
            source,
        }),
    }
}
