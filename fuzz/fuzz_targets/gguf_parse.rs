//! Any bytes as a GGUF file: an error, or a file that can be read to its last element.
//!
//! An input with the magic number in it a second time is also tried as two shards, cut there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redline_gguf::{Array, Gguf, Value};

fuzz_target!(|data: &[u8]| {
    walk(&[data]);
    let second = data.windows(4).skip(1).position(|window| window == b"GGUF");
    if let Some(second) = second {
        let (first, second) = data.split_at(second + 1);
        walk(&[first, second]);
    }
});

fn walk(shards: &[&[u8]]) {
    let gguf = match Gguf::parse(shards) {
        Ok(gguf) => gguf,
        Err(error) => {
            assert!(error.to_string().len() < 2_000);
            return;
        }
    };
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        let found = metadata.get(key).expect("a key that is there");
        assert_eq!(found.value_type(), value.value_type());
        if let Value::Array(array) = value {
            walk_array(array);
        }
        let _ = (
            metadata.u32(key),
            metadata.i64(key),
            metadata.f32(key),
            metadata.str(key),
        );
        let _ = (
            metadata.i32_array(key),
            metadata.f32_array(key),
            metadata.bool_array(key),
        );
        if let Ok(Some(strings)) = metadata.str_array(key) {
            assert_eq!(strings.len(), strings.count());
        }
    }
    for tensor in gguf.tensors() {
        let found = gguf.tensor(tensor.name).expect("a tensor that is there");
        assert_eq!((found.shard, found.offset), (tensor.shard, tensor.offset));
        let end = tensor.offset + tensor.data.len();
        assert_eq!(&shards[tensor.shard][tensor.offset..end], tensor.data);
        let blocks = tensor.weights() / tensor.tensor_type.block_weights();
        assert_eq!(blocks * tensor.tensor_type.block_bytes(), tensor.data.len());
    }
}

fn walk_array(array: &Array<'_>) {
    assert_eq!(array.iter().count(), array.len());
    for element in array.iter() {
        assert_eq!(element.value_type(), array.element_type());
        if let Value::Array(inner) = element {
            walk_array(&inner);
        }
    }
}
