//! One file: header, metadata, tensor directory.

use crate::cursor::{Cursor, Part};
use crate::error::{Error, quote};
use crate::gguf::Tensor;
use crate::metadata::Metadata;
use crate::tensor_type::TensorType;
use crate::{DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_TENSOR_DIMS};

/// Key length, one byte of key, value type, one byte of value.
const LEAST_ENTRY_BYTES: usize = 8 + 1 + 4 + 1;

/// Name length, one byte of name, number of dimensions, one dimension, type, offset.
const LEAST_TENSOR_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;

#[derive(Debug)]
pub(crate) struct Shard<'a> {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    pub(crate) metadata: Metadata<'a>,
    // In file order.
    pub(crate) tensors: Vec<Tensor<'a>>,
}

impl<'a> Shard<'a> {
    pub(crate) fn parse(bytes: &'a [u8], shard: usize) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, shard);
        let version = read_version(&mut cursor)?;
        let tensor_count_place = cursor.place();
        let tensor_count = cursor.u64(Part::TensorCount)?;
        let entry_count = cursor.count(LEAST_ENTRY_BYTES, Part::KeyCount)?;

        let mut entries = Vec::with_capacity(entry_count);
        for _ in 0..entry_count {
            let key = cursor.key()?;
            let value_type = cursor.value_type(key)?;
            entries.push((key, cursor.value(value_type, 0, Part::Value(key))?));
        }
        let metadata = Metadata::new(entries, shard)?;
        let alignment = read_alignment(&metadata, shard)?;

        let tensor_count = cursor.check_count(
            tensor_count,
            LEAST_TENSOR_BYTES,
            tensor_count_place,
            Part::TensorCount,
        )?;
        let mut tensors = Vec::with_capacity(tensor_count);
        for _ in 0..tensor_count {
            tensors.push(read_tensor(&mut cursor, alignment)?);
        }
        let data_start = cursor.place().offset.checked_next_multiple_of(alignment);
        let data = data_start
            .and_then(|start| bytes.get(start..))
            .unwrap_or_default();
        for tensor in &mut tensors {
            locate(tensor, data, data_start.unwrap_or(bytes.len()))?;
        }
        refuse_overlap(&tensors, shard)?;
        Ok(Self {
            version,
            alignment,
            metadata,
            tensors,
        })
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, Error> {
    let place = cursor.place();
    let found = cursor.magic()?;
    if &found != b"GGUF" {
        return Err(Error::Magic { place, found });
    }
    let place = cursor.place();
    match cursor.u32(Part::Version)? {
        version @ (2 | 3) => Ok(version),
        // A big-endian file has the version's bytes the other way round.
        swapped if swapped != 0 && swapped.trailing_zeros() >= 16 => Err(Error::BigEndian {
            place,
            version: swapped.swap_bytes(),
        }),
        found => Err(Error::Version { place, found }),
    }
}

fn read_alignment(metadata: &Metadata<'_>, shard: usize) -> Result<usize, Error> {
    let Some(found) = metadata.u64("general.alignment")? else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    check_alignment(found).ok_or(Error::Alignment { shard, found })
}

/// The alignment, if it is one that GGUF allows.
pub(crate) fn check_alignment(found: u64) -> Option<usize> {
    let alignment = usize::try_from(found).ok()?;
    (alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment)).then_some(alignment)
}

/// A directory entry; its offset counts from the start of the data until [`locate`] finds its bytes.
fn read_tensor<'a>(cursor: &mut Cursor<'a>, alignment: usize) -> Result<Tensor<'a>, Error> {
    let shard = cursor.place().shard;
    let name = cursor.tensor_name()?;
    let dim_count = cursor.u32(Part::DimensionCount(name))? as usize;
    check_dim_count(name, dim_count)?;
    let mut dims = Vec::with_capacity(dim_count);
    for _ in 0..dim_count {
        // What cannot be addressed is refused below: it does not fit into the data.
        dims.push(usize::try_from(cursor.u64(Part::Dimension(name))?).unwrap_or(usize::MAX));
    }
    let id = cursor.u32(Part::TensorType(name))?;
    let tensor_type = TensorType::from_id(id).ok_or_else(|| Error::UnknownTensorType {
        tensor: quote(name),
        id,
    })?;
    check_shape(name, &dims, tensor_type)?;
    let offset = cursor.u64(Part::TensorOffset(name))?;
    if offset.checked_rem(alignment as u64) != Some(0) {
        return Err(Error::TensorAlignment {
            tensor: quote(name),
            offset,
            alignment,
        });
    }
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    Ok(Tensor {
        name,
        dims,
        tensor_type,
        shard,
        offset,
        data: &[],
    })
}

fn check_dim_count(name: &str, found: usize) -> Result<(), Error> {
    if found == 0 || found > MAX_TENSOR_DIMS {
        return Err(Error::DimensionCount {
            tensor: quote(name),
            found,
        });
    }
    Ok(())
}

/// Bytes of a tensor of this shape; an error if there is no such tensor.
pub(crate) fn check_shape(
    name: &str,
    dims: &[usize],
    tensor_type: TensorType,
) -> Result<usize, Error> {
    check_dim_count(name, dims.len())?;
    if dims.contains(&0) {
        return Err(Error::ZeroDimension {
            tensor: quote(name),
            dims: dims.to_vec(),
        });
    }
    let cols = dims.first().copied().unwrap_or(0);
    if cols.checked_rem(tensor_type.block_weights()) != Some(0) {
        return Err(Error::PartialBlock {
            tensor: quote(name),
            tensor_type,
            cols,
        });
    }
    let row_bytes = tensor_type.row_bytes(cols);
    let bytes = dims.iter().skip(1).fold(row_bytes, |bytes, dim| {
        bytes.and_then(|bytes| bytes.checked_mul(*dim))
    });
    bytes.ok_or_else(|| Error::TensorSize {
        tensor: quote(name),
        tensor_type,
        dims: dims.to_vec(),
    })
}

/// Finds a tensor's bytes in `data`, which starts at byte `data_start` of the file.
fn locate<'a>(tensor: &mut Tensor<'a>, data: &'a [u8], data_start: usize) -> Result<(), Error> {
    let bytes = check_shape(tensor.name, &tensor.dims, tensor.tensor_type)?;
    let found = data.get(tensor.offset..).and_then(|from| from.get(..bytes));
    tensor.data = found.ok_or_else(|| Error::TensorBounds {
        tensor: quote(tensor.name),
        shard: tensor.shard,
        offset: tensor.offset,
        bytes,
        available: data.len(),
    })?;
    tensor.offset = tensor.offset.saturating_add(data_start);
    Ok(())
}

/// No byte may belong to two tensors. None is empty, so each in the order of offsets must end before
/// the next begins.
fn refuse_overlap(tensors: &[Tensor<'_>], shard: usize) -> Result<(), Error> {
    let mut by_offset: Vec<&Tensor<'_>> = tensors.iter().collect();
    by_offset.sort_unstable_by_key(|tensor| (tensor.offset, tensor.name));
    for (first, second) in by_offset.iter().zip(by_offset.iter().skip(1)) {
        if first.offset.saturating_add(first.data.len()) > second.offset {
            let (first, second) = (quote(first.name), quote(second.name));
            return Err(Error::TensorOverlap {
                shard,
                first,
                second,
            });
        }
    }
    Ok(())
}
