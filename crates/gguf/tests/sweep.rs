//! Every way to cut a small file, and every way to change one byte of it by one bit.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{tiny_file, walk_within_bounds};
use redline_gguf::Gguf;

fn python_written() -> &'static [u8] {
    include_bytes!("data/python_written.gguf")
}

/// Where the last byte that matters ends.
fn end_of_data(file: &[u8]) -> usize {
    let gguf = Gguf::parse(&[file]).unwrap();
    gguf.tensors()
        .iter()
        .map(|tensor| tensor.offset + tensor.data.len())
        .max()
        .unwrap()
}

fn cut_everywhere(file: &[u8]) {
    let end = end_of_data(file);
    for len in 0..=file.len() {
        let result = walk_within_bounds(&[&file[..len]]);
        assert_eq!(
            result.is_ok(),
            len >= end,
            "cut to {len} of {end} bytes: {result:?}"
        );
    }
}

/// Changes each byte in every way `changes` tells; returns how many changed files still loaded.
fn change_everywhere(file: &[u8], changes: fn(u8) -> Vec<u8>) -> usize {
    let mut file = file.to_vec();
    let mut loaded = 0;
    for index in 0..file.len() {
        let original = file[index];
        for changed in changes(original) {
            file[index] = changed;
            loaded += usize::from(walk_within_bounds(&[&file]).is_ok());
        }
        file[index] = original;
    }
    loaded
}

fn flips_and_extremes(byte: u8) -> Vec<u8> {
    (0..8)
        .map(|bit| byte ^ (1 << bit))
        .chain([0x00, 0xff])
        .collect()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    cut_everywhere(&tiny_file());
    cut_everywhere(python_written());
}

#[test]
fn a_file_with_any_byte_changed_is_refused_or_loads() {
    let file = tiny_file();
    assert!(file.len() < 1_500);
    let loaded = change_everywhere(&file, flips_and_extremes);
    assert!(
        (1_000..10 * file.len()).contains(&loaded),
        "some changes are harmless: {loaded}"
    );
    change_everywhere(python_written(), flips_and_extremes);
}

#[test]
fn a_small_file_with_any_byte_changed_to_any_other_is_refused_or_loads() {
    change_everywhere(&tiny_file(), |_| (0..=255).collect());
}

#[test]
fn shards_cut_or_changed_anywhere_are_refused_or_load() {
    let shard = |number: u16| {
        let mut writer = redline_gguf::Writer::new();
        writer.metadata("split.no", number).unwrap();
        writer.metadata("split.count", 2_u16).unwrap();
        writer.metadata("split.tensors.count", 2_i32).unwrap();
        let name = format!("blk.{number}.weight");
        writer
            .tensor(&name, &[1], redline_gguf::TensorType::F32)
            .unwrap();
        let mut stream = writer.start(Vec::new()).unwrap();
        stream.write(&[1, 2, 3, 4]).unwrap();
        stream.finish().unwrap()
    };
    let (first, mut second) = (shard(0), shard(1));
    walk_within_bounds(&[&first, &second]).unwrap();
    for len in 0..end_of_data_of_shard(&second) {
        walk_within_bounds(&[&first, &second[..len]]).unwrap_err();
    }
    for index in 0..second.len() {
        let original = second[index];
        for changed in flips_and_extremes(original) {
            second[index] = changed;
            let _ = walk_within_bounds(&[&first, &second]);
        }
        second[index] = original;
    }
}

/// A shard alone does not parse: its only tensor is the last thing in it, 4 bytes and padding.
fn end_of_data_of_shard(shard: &[u8]) -> usize {
    shard.len() - 28
}
