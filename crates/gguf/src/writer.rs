//! Writing a file: declare everything, then stream the tensors' bytes.

use std::collections::{HashSet, VecDeque};
use std::io::Write;

use crate::error::{Error, quote};
use crate::shard::{check_alignment, check_shape};
use crate::tensor_type::TensorType;
use crate::value::{Value, encode_string};
use crate::{DEFAULT_ALIGNMENT, MAX_KEY_BYTES, MAX_TENSOR_NAME_BYTES};

/// A GGUF file (version 3, little-endian) in the making.
///
/// Metadata and tensors come out in the order in which they were declared, and the same calls give
/// the same bytes.
#[derive(Debug, Clone)]
pub struct Writer {
    // Key, value type and value, as the file holds them.
    entries: Vec<u8>,
    keys: HashSet<String>,
    tensors: Vec<Declaration>,
    names: HashSet<String>,
    alignment: usize,
}

/// A tensor that is to be written.
#[derive(Debug, Clone)]
struct Declaration {
    name: String,
    dims: Vec<usize>,
    tensor_type: TensorType,
    byte_count: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            keys: HashSet::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
            alignment: DEFAULT_ALIGNMENT,
        }
    }

    /// Adds a key. `general.alignment` also sets how tensors are aligned.
    ///
    /// # Errors
    /// If the key is empty, too long or already there, or an alignment GGUF does not allow.
    pub fn metadata<'v>(
        &mut self,
        key: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<&mut Self, Error> {
        let value = value.into();
        check_length("a metadata key", key, MAX_KEY_BYTES)?;
        if self.keys.contains(key) {
            return Err(Error::DuplicateKey {
                shard: 0,
                key: quote(key),
            });
        }
        if key == "general.alignment" {
            self.alignment = alignment_of(&value)?;
        }
        self.keys.insert(key.to_owned());
        encode_string(key, &mut self.entries);
        self.entries.extend(value.value_type().id().to_le_bytes());
        value.encode(&mut self.entries);
        Ok(self)
    }

    /// Declares a tensor. `dims`: the first varies fastest.
    ///
    /// # Errors
    /// If the name is empty, too long or already there, or there is no tensor of such a shape.
    pub fn tensor(
        &mut self,
        name: &str,
        dims: &[usize],
        tensor_type: TensorType,
    ) -> Result<&mut Self, Error> {
        check_length("a tensor name", name, MAX_TENSOR_NAME_BYTES)?;
        let byte_count = check_shape(name, dims, tensor_type)?;
        if !self.names.insert(name.to_owned()) {
            return Err(Error::DuplicateTensor {
                tensor: quote(name),
                first: 0,
                second: 0,
            });
        }
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.tensors.push(Declaration {
            name,
            dims,
            tensor_type,
            byte_count,
        });
        Ok(self)
    }

    /// Writes everything before the tensors' bytes, and returns what takes those.
    ///
    /// # Errors
    /// If `out` fails, or the file would be too large to address.
    pub fn start<W: Write>(self, out: W) -> Result<TensorStream<W>, Error> {
        let mut header = Vec::new();
        header.extend(b"GGUF");
        header.extend(3_u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.keys.len() as u64).to_le_bytes());
        header.extend(&self.entries);
        let mut offset = 0_usize;
        for tensor in &self.tensors {
            encode_string(&tensor.name, &mut header);
            let dim_count = u32::try_from(tensor.dims.len()).unwrap_or(u32::MAX);
            header.extend(dim_count.to_le_bytes());
            for dim in &tensor.dims {
                header.extend((*dim as u64).to_le_bytes());
            }
            header.extend(tensor.tensor_type.id().to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset = offset
                .checked_add(tensor.byte_count)
                .and_then(|end| end.checked_next_multiple_of(self.alignment))
                .ok_or_else(|| Error::TensorSize {
                    tensor: quote(&tensor.name),
                    tensor_type: tensor.tensor_type,
                    dims: tensor.dims.clone(),
                })?;
        }
        let mut stream = TensorStream {
            out,
            written: 0,
            alignment: self.alignment,
            pending: self
                .tensors
                .into_iter()
                .map(|t| (t.name, t.byte_count))
                .collect(),
        };
        stream.put(&header, "header")?;
        stream.pad()?;
        Ok(stream)
    }
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<(), Error> {
    if text.is_empty() || text.len() > limit {
        return Err(Error::NameToWrite {
            what,
            text: quote(text),
            found: text.len(),
            limit,
        });
    }
    Ok(())
}

fn alignment_of(value: &Value<'_>) -> Result<usize, Error> {
    let Value::U32(found) = *value else {
        let key = quote("general.alignment");
        return Err(Error::WrongType {
            key,
            expected: "u32",
            found: value.value_type(),
        });
    };
    check_alignment(found.into()).ok_or(Error::Alignment {
        shard: 0,
        found: found.into(),
    })
}

/// Takes the bytes of the declared tensors, in order and in pieces of any size, and puts the padding
/// between them.
#[derive(Debug)]
pub struct TensorStream<W> {
    out: W,
    // Bytes in the file so far.
    written: u64,
    alignment: usize,
    // Name, and bytes still to come, of each tensor that is not complete.
    pending: VecDeque<(String, usize)>,
}

impl<W: Write> TensorStream<W> {
    /// The tensor that the next bytes belong to, and how many bytes it still lacks.
    #[must_use]
    pub fn current(&self) -> Option<(&str, usize)> {
        self.pending
            .front()
            .map(|(name, lacks)| (name.as_str(), *lacks))
    }

    /// Adds bytes to the current tensor; once it is complete, the next one is current.
    ///
    /// # Errors
    /// If there are more bytes than the current tensor lacks, or the output fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let given = bytes.len();
        let Some((name, lacks)) = self.pending.front_mut() else {
            return Err(Error::NoTensorLeft { given });
        };
        let Some(left) = lacks.checked_sub(given) else {
            return Err(Error::TooManyBytes {
                tensor: quote(name),
                expected: *lacks,
                given,
            });
        };
        *lacks = left;
        self.put(bytes, "tensor data")?;
        if left == 0 {
            self.pending.pop_front();
            self.pad()?;
        }
        Ok(())
    }

    /// Ends the file and gives back the flushed output.
    ///
    /// # Errors
    /// If a tensor is incomplete, or the output fails.
    pub fn finish(mut self) -> Result<W, Error> {
        if let Some((name, lacks)) = self.current() {
            return Err(Error::TooFewBytes {
                tensor: quote(name),
                lacks,
            });
        }
        self.out.flush().map_err(|source| Error::Io {
            what: "end of the file",
            source,
        })?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8], what: &'static str) -> Result<(), Error> {
        self.out
            .write_all(bytes)
            .map_err(|source| Error::Io { what, source })?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Zeros up to the next aligned byte.
    fn pad(&mut self) -> Result<(), Error> {
        let aligned = self.written.checked_next_multiple_of(self.alignment as u64);
        let mut left = aligned.unwrap_or(self.written).saturating_sub(self.written);
        let zeros = [0; 4096];
        while left > 0 {
            let piece = zeros
                .get(..usize::try_from(left).unwrap_or(usize::MAX))
                .unwrap_or(&zeros);
            self.put(piece, "padding")?;
            left = left.saturating_sub(piece.len() as u64);
        }
        Ok(())
    }
}
