//! A folder as Hugging Face transformers keeps a model: `config.json` beside tensors in safetensors
//! files.
//!
//! It becomes what a GGUF file of that model would be. Metadata is written into such a file in memory;
//! tensors that change on the way have memory of their own; all other weights stay where their files are
//! mapped.
//! Source of the formats: <https://huggingface.co/docs/safetensors>, and of shards
//! <https://huggingface.co/docs/transformers/main/en/big_models>.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redline_compute::Mapping;
use redline_gguf::{Tensor, TensorType, Writer};
use redline_huggingface::{Change, Config, Place, Stored};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::Error;
use crate::file::map;

const CONFIG: &str = "config.json";
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// More than any model's configuration, and than the index of its shards.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// A tensor in a mapping.
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
        let paths = shards(folder)?;
        let mut mappings: Vec<_> = paths
            .iter()
            .map(|path| map(path))
            .collect::<Result<_, _>>()?;
        let shards: Vec<_> = paths
            .iter()
            .zip(&mappings)
            .map(|(path, mapping)| Shard::parse(path, mapping))
            .collect::<Result<_, _>>()?;
        let mut tensors = Tensors {
            config: &parsed,
            shards: &shards,
            owned: rope_factors(&parsed),
            borrowed: Vec::new(),
        };
        tensors.take_all()?;
        let Tensors {
            owned,
            mut borrowed,
            ..
        } = tensors;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let file = metadata(&parsed, &name).map_err(|source| Error::Config {
            path: config,
            source,
        })?;
        mappings.insert(0, Arc::new(Mapping::from_bytes(file)));
        for (name, stored) in owned {
            borrowed.push(Borrowed {
                name,
                dims: stored.dims,
                tensor_type: stored.tensor_type,
                shard: mappings.len(),
                offset: 0,
                bytes: stored.bytes.len(),
            });
            mappings.push(Arc::new(Mapping::from_bytes(stored.bytes)));
        }
        Ok(Self { mappings, borrowed })
    }
}

/// The file in memory: metadata alone.
fn metadata(config: &Config, name: &str) -> Result<Vec<u8>, redline_huggingface::Error> {
    let mut writer = Writer::new();
    config.declare(name, &mut writer)?;
    Ok(writer.start(Vec::new())?.finish()?)
}

/// Tensors that files have and folders do not.
fn rope_factors(config: &Config) -> Vec<(String, Stored)> {
    let factors = config.rope_factors().into_iter().map(|(name, factors)| {
        let bytes = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
        let stored = Stored {
            dims: vec![factors.len()],
            tensor_type: TensorType::F32,
            bytes,
        };
        (name.to_owned(), stored)
    });
    factors.collect()
}

/// A safetensors file.
struct Shard<'m> {
    path: &'m Path,
    mapping: &'m Mapping,
    tensors: SafeTensors<'m>,
}

impl<'m> Shard<'m> {
    fn parse(path: &'m Path, mapping: &'m Mapping) -> Result<Self, Error> {
        let tensors = SafeTensors::deserialize(mapping).map_err(|source| Error::Safetensors {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path,
            mapping,
            tensors,
        })
    }

    fn config(&self, source: redline_huggingface::Error) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            source,
        }
    }
}

/// The tensors found so far.
struct Tensors<'c> {
    config: &'c Config,
    shards: &'c [Shard<'c>],
    owned: Vec<(String, Stored)>,
    borrowed: Vec<Borrowed>,
}

impl<'c> Tensors<'c> {
    /// Takes those of every shard, in the order in which they are stored.
    fn take_all(&mut self) -> Result<(), Error> {
        let shards = self.shards;
        for (index, shard) in shards.iter().enumerate() {
            let mut tensors = shard.tensors.tensors();
            tensors.sort_by_key(|(_, view)| view.data().as_ptr());
            for (name, view) in tensors {
                self.take(index, &name, &view)?;
            }
        }
        Ok(())
    }

    /// Takes a tensor of a shard.
    fn take(&mut self, index: usize, name: &str, view: &TensorView<'_>) -> Result<(), Error> {
        let shard = &self.shards[index];
        let config = |source| shard.config(source);
        let places = self.config.places(name).map_err(config)?;
        if places.is_empty() {
            return Ok(());
        }
        if let Some(scales) = self.config.scales(name) {
            let stored = self.joined(shard, (name, view), &scales)?;
            return self.change(shard, (name, &stored), places);
        }
        let tensor_type = match view.dtype() {
            Dtype::F32 => TensorType::F32,
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::BF16,
            other => return Err(other_type(name, "F32, F16 or BF16", other)),
        };
        let (same, changed): (Vec<_>, Vec<_>) = places
            .into_iter()
            .partition(|place| place.change == Change::None);
        for place in same {
            self.borrowed.push(Borrowed {
                name: place.name,
                dims: dims(view),
                tensor_type,
                // After the file in memory.
                shard: index + 1,
                offset: view.data().as_ptr().addr() - shard.mapping.as_ptr().addr(),
                bytes: view.data().len(),
            });
        }
        if changed.is_empty() {
            return Ok(());
        }
        let stored = Stored {
            dims: dims(view),
            tensor_type,
            bytes: view.data().to_vec(),
        };
        self.change(shard, (name, &stored), changed)
    }

    fn change(
        &mut self,
        shard: &Shard<'_>,
        (name, stored): (&str, &Stored),
        places: Vec<Place>,
    ) -> Result<(), Error> {
        for place in places {
            let changed = place.change.apply(name, stored);
            let changed = changed.map_err(|source| shard.config(source))?;
            self.owned.push((place.name, changed));
        }
        Ok(())
    }

    /// Blocks of weights and their scales, which may be in another shard.
    fn joined(
        &self,
        shard: &Shard<'_>,
        (name, blocks): (&str, &TensorView<'_>),
        scales: &str,
    ) -> Result<Stored, Error> {
        let mut found = self.shards.iter();
        let Some(of) = found.find_map(|shard| shard.tensors.tensor(scales).ok()) else {
            let mut expected = dims(blocks);
            expected.drain(..1.min(expected.len()));
            return Err(Error::MissingTensor {
                name: scales.to_owned(),
                expected,
            });
        };
        for (name, view) in [(name, blocks), (scales, &of)] {
            if view.dtype() != Dtype::U8 {
                return Err(other_type(name, "U8", view.dtype()));
            }
        }
        let blocks = (&*dims(blocks), blocks.data());
        Stored::mxfp4(name, blocks, (&*dims(&of), of.data())).map_err(|e| shard.config(e))
    }
}

/// The first varies fastest.
fn dims(view: &TensorView<'_>) -> Vec<usize> {
    view.shape().iter().rev().copied().collect()
}

fn other_type(name: &str, expected: &str, found: Dtype) -> Error {
    Error::TensorType {
        name: name.to_owned(),
        expected: expected.to_owned(),
        found: format!("{found:?}"),
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
