//! A whole model file: one GGUF file, or all shards of a split one.

use crate::error::{Error, quote};
use crate::metadata::Metadata;
use crate::shard::{Shard, check_shape};
use crate::tensor_type::TensorType;

/// A tensor of the directory, with its bytes.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Unique in the file.
    pub name: &'a str,
    /// One to four numbers, none zero; the first varies fastest (a row of a matrix is contiguous, and
    /// `dims[0]` is its length).
    pub dims: Vec<usize>,
    /// How the weights are stored.
    pub tensor_type: TensorType,
    /// Index into the shards given to [`Gguf::parse`].
    pub shard: usize,
    /// First byte of `data` within that shard.
    pub offset: usize,
    /// The stored weights: as many bytes as `dims` and `tensor_type` demand.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// Number of weights.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.dims
            .iter()
            .fold(1, |product, dim| product.saturating_mul(*dim))
    }
}

/// A parsed file; see the crate's documentation for what is checked.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    version: u32,
    alignment: usize,
    metadata: Metadata<'a>,
    // In file order, shard after shard.
    tensors: Vec<Tensor<'a>>,
    // Indices into `tensors`, sorted by name.
    by_name: Vec<usize>,
}

impl<'a> Gguf<'a> {
    /// Parses the bytes of one file, or of all shards of a split file in order.
    ///
    /// Shards after the first hold tensors only: of their metadata nothing but `general.alignment`
    /// and `split.*` counts.
    ///
    /// # Errors
    /// If the bytes are no GGUF file, or are one that is damaged, incomplete or hostile.
    pub fn parse(shards: &[&'a [u8]]) -> Result<Self, Error> {
        let mut parsed = Vec::with_capacity(shards.len());
        for (index, bytes) in shards.iter().enumerate() {
            parsed.push(Shard::parse(bytes, index)?);
        }
        check_split(&parsed)?;

        let others: usize = parsed
            .iter()
            .skip(1)
            .fold(0, |sum, shard| sum.saturating_add(shard.tensors.len()));
        let mut parsed = parsed.into_iter();
        let Shard {
            version,
            alignment,
            metadata,
            mut tensors,
        } = parsed.next().ok_or(Error::NoShards)?;
        tensors.reserve_exact(others);
        tensors.extend(parsed.flat_map(|shard| shard.tensors));
        let by_name = sort_by_name(&tensors)?;
        Ok(Self {
            version,
            alignment,
            metadata,
            tensors,
            by_name,
        })
    }

    /// The same directory with tensors added whose bytes are elsewhere. Their `shard` and `offset` are the
    /// caller's.
    ///
    /// # Errors
    /// If a shape is not GGUF's or not that of the bytes, or two tensors have the same name.
    pub fn with_tensors(mut self, tensors: Vec<Tensor<'a>>) -> Result<Self, Error> {
        for tensor in &tensors {
            let expected = check_shape(tensor.name, &tensor.dims, tensor.tensor_type)?;
            if expected != tensor.data.len() {
                return Err(Error::TensorBytes {
                    tensor: quote(tensor.name),
                    expected,
                    found: tensor.data.len(),
                });
            }
        }
        self.tensors.extend(tensors);
        self.by_name = sort_by_name(&self.tensors)?;
        Ok(self)
    }

    /// Version of the format: 2 or 3.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of the tensors' offsets, in bytes (of the first shard, where the file is split).
    #[must_use]
    pub const fn alignment(&self) -> usize {
        self.alignment
    }

    /// Keys and values (of the first shard, where the file is split).
    #[must_use]
    pub const fn metadata(&self) -> &Metadata<'a> {
        &self.metadata
    }

    /// All tensors, in file order, shard after shard.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        let tensor = |index: usize| self.tensors.get(index);
        let found = self
            .by_name
            .binary_search_by(|&index| tensor(index).map_or("", |tensor| tensor.name).cmp(name))
            .ok()?;
        self.by_name.get(found).and_then(|&index| tensor(index))
    }
}

/// Indices of the tensors by ascending name; an error if two have the same.
fn sort_by_name(tensors: &[Tensor<'_>]) -> Result<Vec<usize>, Error> {
    let name_and_shard = |index: usize| {
        tensors
            .get(index)
            .map_or(("", 0), |tensor| (tensor.name, tensor.shard))
    };
    let mut by_name: Vec<usize> = (0..tensors.len()).collect();
    by_name.sort_unstable_by_key(|&index| name_and_shard(index));
    for (&first, &second) in by_name.iter().zip(by_name.iter().skip(1)) {
        let ((name, first), (second_name, second)) =
            (name_and_shard(first), name_and_shard(second));
        if name == second_name {
            return Err(Error::DuplicateTensor {
                tensor: quote(name),
                first,
                second,
            });
        }
    }
    Ok(by_name)
}

/// That the shards given are all shards of one file, in order.
///
/// A file that is not split may say so (`split.count` of 0 or 1), as one put together again does.
fn check_split(shards: &[Shard<'_>]) -> Result<(), Error> {
    let tensors = shards.iter().fold(0, |sum: u64, shard| {
        sum.saturating_add(shard.tensors.len() as u64)
    });
    for (index, shard) in shards.iter().enumerate() {
        let split = shards.len() > 1;
        let expect = |key: &'static str, expected: u64| {
            let found = shard.metadata.u64(key)?;
            if found == Some(expected) || (found.is_none() && !split) {
                return Ok(());
            }
            let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
            Err(Error::Split {
                shard: index,
                key,
                expected,
                found,
            })
        };
        if !split && matches!(shard.metadata.u64("split.count")?, None | Some(0)) {
            continue;
        }
        expect("split.count", shards.len() as u64)?;
        expect("split.no", index as u64)?;
        expect("split.tensors.count", tensors)?;
    }
    Ok(())
}
