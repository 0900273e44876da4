//! What the writer refuses, and that it does not outlive a failing output.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{self, Write};

use redline_gguf::{Error, Gguf, TensorType, Value, Writer};

fn says(result: Result<impl Sized, Error>, expected: &str) {
    assert_eq!(result.err().expect("an error").to_string(), expected);
}

#[test]
fn keys_are_checked() {
    let mut writer = Writer::new();
    writer.metadata("a", 1_u8).unwrap();
    says(
        writer.metadata("a", 2_u8),
        "shard 0: metadata key \"a\" appears twice",
    );
    says(
        writer.metadata("", 2_u8),
        "a metadata key, \"\", has 0 bytes: expected 1 to 65535",
    );
    assert!(writer.metadata(&"k".repeat(65_536), 2_u8).is_err());
    writer.metadata(&"k".repeat(65_535), 2_u8).unwrap();
    says(
        writer.metadata("general.alignment", 12_u32),
        "shard 0: general.alignment is 12: expected a power of two from 8 to 1048576",
    );
    says(
        writer.metadata("general.alignment", "32"),
        "metadata \"general.alignment\" is of type string: expected u32",
    );
}

#[test]
fn a_refused_alignment_changes_nothing() {
    let mut writer = Writer::new();
    writer.metadata("general.alignment", 8_u32).unwrap();
    assert!(writer.metadata("general.alignment", 64_u32).is_err());
    assert!(writer.metadata("general.alignment", 3_u32).is_err());
    writer.tensor("a", &[2], TensorType::I8).unwrap();
    let mut stream = writer.start(Vec::new()).unwrap();
    stream.write(&[1, 2]).unwrap();
    let file = stream.finish().unwrap();
    assert_eq!(
        Gguf::parse(&[&file]).unwrap().tensor("a").unwrap().data,
        [1, 2]
    );
}

#[test]
fn tensors_are_checked() {
    let mut writer = Writer::new();
    writer.tensor("t", &[4], TensorType::F32).unwrap();
    says(
        writer.tensor("t", &[4], TensorType::F32),
        "tensor \"t\" appears twice, in shards 0 and 0",
    );
    says(
        writer.tensor("u", &[], TensorType::F32),
        "tensor \"u\" has 0 dimensions: expected 1 to 4",
    );
    says(
        writer.tensor("u", &[100], TensorType::Q6_K),
        "tensor \"u\" has rows of 100 weights: expected a multiple of 256, the block of Q6_K",
    );
    says(
        writer.tensor("u", &[usize::MAX, 2], TensorType::I8),
        "tensor \"u\" of dimensions [18446744073709551615, 2] and type I8 is too large to address",
    );
    assert!(
        writer
            .tensor(&"n".repeat(65), &[1], TensorType::I8)
            .is_err()
    );
    writer
        .tensor(&"n".repeat(64), &[1], TensorType::I8)
        .unwrap();
}

#[test]
fn a_file_too_large_to_address_is_refused() {
    let mut writer = Writer::new();
    writer
        .tensor("a", &[usize::MAX - 100], TensorType::I8)
        .unwrap();
    writer.tensor("b", &[1000], TensorType::I8).unwrap();
    let error = writer.start(Vec::new()).unwrap_err().to_string();
    assert!(
        error.ends_with("type I8 is too large to address"),
        "{error}"
    );
}

#[test]
fn bytes_are_counted() {
    let mut writer = Writer::new();
    writer.tensor("a", &[3], TensorType::I8).unwrap();
    writer.tensor("b", &[2], TensorType::I8).unwrap();
    let mut stream = writer.start(Vec::new()).unwrap();
    stream.write(&[1]).unwrap();
    stream.write(&[]).unwrap();
    assert_eq!(stream.current(), Some(("a", 2)));
    says(
        stream.write(&[2, 3, 4]),
        "3 bytes written to tensor \"a\": expected at most 2, all it still lacks",
    );
    stream.write(&[2, 3]).unwrap();
    assert_eq!(stream.current(), Some(("b", 2)));
    stream.write(&[4]).unwrap();
    says(
        stream.finish(),
        "the file was finished early: tensor \"b\" still lacks 1 bytes",
    );
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    let mut writer = Writer::new();
    writer.metadata("general.alignment", 8_u32).unwrap();
    writer.tensor("a", &[3], TensorType::I8).unwrap();
    let mut stream = writer.start(Vec::new()).unwrap();
    stream.write(&[1, 2, 3]).unwrap();
    assert_eq!(stream.current(), None);
    says(
        stream.write(&[9]),
        "1 bytes written after the last tensor: expected none",
    );
    let file = stream.finish().unwrap();
    assert_eq!(file.len() % 8, 0);
    assert_eq!(
        Gguf::parse(&[&file]).unwrap().tensor("a").unwrap().data,
        [1, 2, 3]
    );
}

#[test]
fn a_large_alignment_is_padded_with_zeros() {
    let mut writer = Writer::new();
    writer
        .metadata("general.alignment", Value::U32(1 << 14))
        .unwrap();
    writer.tensor("a", &[1], TensorType::I8).unwrap();
    writer.tensor("b", &[1], TensorType::I8).unwrap();
    let mut stream = writer.start(Vec::new()).unwrap();
    stream.write(&[1]).unwrap();
    stream.write(&[2]).unwrap();
    let file = stream.finish().unwrap();
    assert_eq!(file.len(), 3 << 14);
    assert_eq!(
        file[1 << 14..]
            .iter()
            .map(|byte| u32::from(*byte))
            .sum::<u32>(),
        3
    );
    assert_eq!((file[1 << 14], file[2 << 14]), (1, 2));
}

/// Takes so many bytes, then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full"));
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_that_says_where() {
    let start = |room| {
        let mut writer = Writer::new();
        writer.tensor("a", &[64], TensorType::I8).unwrap();
        writer.start(Full(room))
    };
    says(start(10), "cannot write the header");
    let mut stream = start(100).unwrap();
    says(stream.write(&[0; 64]), "cannot write the tensor data");
}
