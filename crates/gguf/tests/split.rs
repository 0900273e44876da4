//! Files in several shards.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use redline_gguf::{Gguf, TensorType, Value, Writer};

/// A shard with one tensor of one `f32`, and the `split.*` keys given.
fn shard(tensor: &str, number: f32, keys: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in keys {
        writer.metadata(key, *value).unwrap();
    }
    writer.tensor(tensor, &[1], TensorType::F32).unwrap();
    let mut stream = writer.start(Vec::new()).unwrap();
    stream.write(&number.to_le_bytes()).unwrap();
    stream.finish().unwrap()
}

/// The keys as llama.cpp's `gguf-split` writes them.
fn keys(number: u16, count: u16, tensors: i32) -> [(&'static str, Value<'static>); 3] {
    [
        ("split.no", number.into()),
        ("split.tensors.count", tensors.into()),
        ("split.count", count.into()),
    ]
}

#[test]
fn tensors_of_all_shards_are_found() {
    let mut first_keys = keys(0, 3, 3).to_vec();
    first_keys.push(("general.architecture", "llama".into()));
    let shards = [
        shard("c", 1.0, &first_keys),
        shard("a", 2.0, &keys(1, 3, 3)),
        shard("b", 3.0, &keys(2, 3, 3)),
    ];
    let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    common::walk_within_bounds(&shards).unwrap();
    let gguf = Gguf::parse(&shards).unwrap();
    assert_eq!(
        gguf.metadata().require_str("general.architecture").unwrap(),
        "llama"
    );
    let names: Vec<&str> = gguf.tensors().iter().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["c", "a", "b"]);
    for (name, shard, number) in [("a", 1, 2.0_f32), ("b", 2, 3.0), ("c", 0, 1.0)] {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(
            (tensor.shard, tensor.data),
            (shard, &number.to_le_bytes()[..])
        );
    }
    assert!(gguf.tensor("d").is_none());
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let check = |shards: &[Vec<u8>], expected: &str| {
        let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
        assert_eq!(Gguf::parse(&shards).unwrap_err().to_string(), expected);
    };
    let good = |number: u16| shard(&format!("t{number}"), 0.0, &keys(number, 2, 2));
    check(&[], "no bytes to parse: expected at least one GGUF file");
    check(&[good(0)], "shard 0: split.count is 2: expected 1");
    check(&[good(1), good(0)], "shard 0: split.no is 1: expected 0");
    check(&[good(0), good(0)], "shard 1: split.no is 0: expected 1");
    check(
        &[good(0), shard("t1", 0.0, &keys(1, 2, 3))],
        "shard 1: split.tensors.count is 3: expected 2",
    );
    check(
        &[good(0), shard("t1", 0.0, &keys(1, 3, 2))],
        "shard 1: split.count is 3: expected 2",
    );
    check(
        &[good(0), shard("t1", 0.0, &[])],
        "shard 1: split.count is missing: expected 2",
    );
    check(
        &[good(0), shard("t0", 0.0, &keys(1, 2, 2))],
        "tensor \"t0\" appears twice, in shards 0 and 1",
    );
    check(
        &[good(0), shard("t1", 0.0, &[("split.count", "2".into())])],
        "metadata \"split.count\" is of type string: expected u64",
    );
    check(
        &[
            good(0),
            shard("t1", 0.0, &[("split.count", Value::I32(-2))]),
        ],
        "metadata \"split.count\" holds -2: expected a number in the range of u64",
    );
}

#[test]
fn a_file_put_together_again_is_whole() {
    let merged = shard(
        "t",
        0.0,
        &[("split.count", 0_u16.into()), ("split.no", 0_u16.into())],
    );
    Gguf::parse(&[&merged]).unwrap();
    let of_one = shard("t", 0.0, &keys(0, 1, 1));
    Gguf::parse(&[&of_one]).unwrap();
}
