//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::hint::black_box;

use redline_gguf::{
    Array, ArrayBuf, Error, Gguf, MAX_ALLOCATION_BASE, MAX_ALLOCATION_PER_BYTE, TensorType, Value,
    Writer,
};

/// A file of under 1.5 kB with every metadata type and several tensors.
pub(crate) fn tiny_file() -> Vec<u8> {
    let mut writer = Writer::new();
    fill_metadata(&mut writer).unwrap();
    let tensors: [(&str, &[usize], TensorType); 4] = [
        ("token_embd.weight", &[32, 2], TensorType::Q8_0),
        ("blk.0.ffn_gate_exps.weight", &[2, 1, 3, 2], TensorType::F16),
        ("blk.0.attn_norm.weight", &[3], TensorType::F32),
        ("output.weight", &[64], TensorType::Q4_0),
    ];
    for (name, dims, tensor_type) in tensors {
        writer.tensor(name, dims, tensor_type).unwrap();
    }
    let mut stream = writer.start(Vec::new()).unwrap();
    let mut next = 1_u8;
    while let Some((_, lacks)) = stream.current() {
        let bytes: Vec<u8> = (0..lacks).map(|at| next.wrapping_add(at as u8)).collect();
        stream.write(&bytes).unwrap();
        next = next.wrapping_mul(31);
    }
    stream.finish().unwrap()
}

fn fill_metadata(writer: &mut Writer) -> Result<(), Error> {
    writer.metadata("general.architecture", "llama")?;
    writer.metadata("general.alignment", 16_u32)?;
    writer
        .metadata("plain.u8", 200_u8)?
        .metadata("plain.i8", -2_i8)?;
    writer
        .metadata("plain.u16", 60_000_u16)?
        .metadata("plain.i16", -300_i16)?;
    writer
        .metadata("plain.i32", -70_000_i32)?
        .metadata("plain.f32", 1e-5_f32)?;
    writer
        .metadata("plain.bool", true)?
        .metadata("plain.u64", u64::MAX)?;
    writer
        .metadata("plain.i64", i64::MIN)?
        .metadata("plain.f64", 0.1_f64)?;
    writer.metadata(
        "tokenizer.ggml.tokens",
        &ArrayBuf::strings(["<s>", "Ġa", "", "🦀"]),
    )?;
    writer.metadata(
        "tokenizer.ggml.scores",
        &ArrayBuf::from(&[0.5_f32, -1.0, 0.0, 2.0][..]),
    )?;
    writer.metadata(
        "tokenizer.ggml.token_type",
        &ArrayBuf::from(&[3_i32, 1, 1, 1][..]),
    )?;
    writer.metadata("swa", &ArrayBuf::from(&[true, false][..]))?;
    let inner = [ArrayBuf::from(&[1_u16, 2][..]), ArrayBuf::strings(["x"])];
    writer.metadata("nested", &ArrayBuf::arrays(&inner)?)?;
    Ok(())
}

/// Parses, then reads everything there is, twice over where there are two ways to it.
pub(crate) fn walk(shards: &[&[u8]]) -> Result<(), Error> {
    let gguf = Gguf::parse(shards)?;
    for (key, value) in gguf.metadata().iter() {
        assert_eq!(
            gguf.metadata().get(key).map(Value::value_type),
            Some(value.value_type())
        );
        if let Value::Array(array) = value {
            walk_array(array);
        }
        let _ = black_box(gguf.metadata().u32(key));
        let _ = black_box(gguf.metadata().str_array(key).map(Option::into_iter));
        let _ = black_box(gguf.metadata().i32_array(key));
        let _ = black_box(gguf.metadata().f32_array(key));
    }
    for tensor in gguf.tensors() {
        let found = gguf.tensor(tensor.name).unwrap();
        assert_eq!((found.offset, found.shard), (tensor.offset, tensor.shard));
        let end = tensor.offset + tensor.data.len();
        assert_eq!(&shards[tensor.shard][tensor.offset..end], tensor.data);
        let blocks = tensor.weights() / tensor.tensor_type.block_weights();
        assert_eq!(blocks * tensor.tensor_type.block_bytes(), tensor.data.len());
    }
    Ok(())
}

fn walk_array(array: &Array<'_>) {
    assert_eq!(array.iter().len(), array.len());
    let mut elements = 0;
    for element in array.iter() {
        assert_eq!(element.value_type(), array.element_type());
        if let Value::Array(inner) = element {
            walk_array(&inner);
        }
        elements += 1;
    }
    assert_eq!(elements, array.len());
}

/// [`walk`], and the promise about memory: of the parse alone, all allocations together.
pub(crate) fn walk_within_bounds(shards: &[&[u8]]) -> Result<(), Error> {
    let mut result = Ok(());
    let counted = allocation_counter::measure(|| result = Gguf::parse(shards).map(drop));
    let bytes: usize = shards.iter().map(|shard| shard.len()).sum();
    let limit = MAX_ALLOCATION_BASE * shards.len() + MAX_ALLOCATION_PER_BYTE * bytes;
    let found = counted.bytes_total;
    assert!(
        found <= limit as u64,
        "{found} bytes allocated for {bytes}: expected at most {limit}"
    );
    result?;
    walk(shards)
}
