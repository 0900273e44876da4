//! Weights that are in memory, and that stay there.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use redline_compute::WeightBytes;
use redline_gguf::Gguf;

use crate::ModelFile;

/// The bytes of a model's weights where they are mapped. While it lives, they are.
#[derive(Debug, Clone)]
pub struct MappedWeights {
    /// Of each file that has any, from the first tensor to the last: metadata is read once, and may go.
    parts: Vec<WeightBytes>,
}

impl MappedWeights {
    /// Those of `gguf`, the directory of `file`.
    #[must_use]
    pub fn new(file: &ModelFile, gguf: &Gguf<'_>) -> Self {
        let mut ranges: Vec<(usize, Range<usize>)> = Vec::new();
        for tensor in gguf.tensors() {
            let range = tensor.offset..tensor.offset + tensor.data.len();
            match ranges.iter_mut().find(|(shard, _)| *shard == tensor.shard) {
                Some((_, all)) => *all = all.start.min(range.start)..all.end.max(range.end),
                None => ranges.push((tensor.shard, range)),
            }
        }
        let part = |(shard, range)| WeightBytes::new(Arc::clone(file.mapping(shard)), range);
        Self {
            parts: ranges.into_iter().map(part).collect(),
        }
    }

    /// Takes those of another model in.
    pub fn append(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Those that are in memory, as [`WeightBytes::resident_bytes`] says.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let parts = self.parts.iter().map(WeightBytes::resident_bytes);
        parts.map(|bytes| Ok(bytes? as u64)).sum()
    }

    /// Keeps them in memory while the files are mapped.
    ///
    /// # Errors
    /// As [`WeightBytes::lock`]. What was locked of other files stays so.
    pub fn lock(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(WeightBytes::lock)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use redline_gguf::{TensorType, Value, Writer};

    use super::*;

    /// A file of two tensors of `count` numbers each.
    fn shard(names: [&str; 2], count: usize, number: u16) -> Vec<u8> {
        let mut writer = Writer::new();
        for (key, value) in [
            ("split.no", Value::from(number)),
            ("split.count", Value::from(2_u16)),
            ("split.tensors.count", Value::from(4_i32)),
        ] {
            writer.metadata(key, value).unwrap();
        }
        for name in names {
            writer.tensor(name, &[count], TensorType::F32).unwrap();
        }
        let mut stream = writer.start(Vec::new()).unwrap();
        for _ in names {
            stream.write(&vec![7; 4 * count]).unwrap();
        }
        stream.finish().unwrap()
    }

    #[test]
    fn weights_are_the_tensors_of_all_files_without_their_metadata() {
        let shards = vec![shard(["a", "b"], 8, 0), shard(["c", "d"], 80_000, 1)];
        let file = ModelFile::from_bytes(shards);
        let weights = MappedWeights::new(&file, &file.gguf().unwrap());
        assert_eq!(weights.bytes(), 2 * 4 * (8 + 80_000));
        assert_eq!(weights.resident_bytes().unwrap(), weights.bytes());
        let mut both = weights.clone();
        both.append(weights.clone());
        assert_eq!(both.bytes(), 2 * weights.bytes());
        assert_eq!(both.resident_bytes().unwrap(), both.bytes());
    }
}
