//! Any metadata and tensors: refused by the writer, or read back as they were written.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use redline_gguf::{ArrayBuf, Error, Gguf, TensorType, Value, Writer};

#[derive(Debug, Arbitrary)]
struct File {
    metadata: Vec<(String, Owned)>,
    tensors: Vec<Declaration>,
    alignment: Option<u32>,
    /// Bytes per write; 0 for all at once.
    piece: u8,
}

#[derive(Debug, Arbitrary)]
struct Declaration {
    name: String,
    tensor_type: u8,
    /// Blocks in a row, then the other dimensions.
    dims: Vec<u8>,
    fill: u8,
}

#[derive(Debug, Arbitrary)]
enum Owned {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    U64(u64),
    I64(i64),
    F64(f64),
    Text(String),
    Array(List),
}

#[derive(Debug, Arbitrary)]
enum List {
    U8(Vec<u8>),
    I16(Vec<i16>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    U64(Vec<u64>),
    Text(Vec<String>),
    Lists(Vec<List>),
}

impl List {
    fn array(&self) -> Result<ArrayBuf, Error> {
        Ok(match self {
            Self::U8(numbers) => ArrayBuf::from(&numbers[..]),
            Self::I16(numbers) => ArrayBuf::from(&numbers[..]),
            Self::F32(numbers) => ArrayBuf::from(&numbers[..]),
            Self::Bool(booleans) => ArrayBuf::from(&booleans[..]),
            Self::U64(numbers) => ArrayBuf::from(&numbers[..]),
            Self::Text(strings) => ArrayBuf::strings(strings),
            Self::Lists(lists) => {
                let arrays: Result<Vec<ArrayBuf>, Error> = lists.iter().map(Self::array).collect();
                ArrayBuf::arrays(&arrays?)?
            }
        })
    }
}

/// Calls `see` with the value, unless arrays nest too deep for there to be one.
fn with_value<T>(owned: &Owned, see: impl FnOnce(Value<'_>) -> T) -> Option<T> {
    let array = if let Owned::Array(list) = owned {
        Some(list.array().ok()?)
    } else {
        None
    };
    Some(see(match owned {
        Owned::U8(value) => Value::U8(*value),
        Owned::I8(value) => Value::I8(*value),
        Owned::U16(value) => Value::U16(*value),
        Owned::I16(value) => Value::I16(*value),
        Owned::U32(value) => Value::U32(*value),
        Owned::I32(value) => Value::I32(*value),
        Owned::F32(value) => Value::F32(*value),
        Owned::Bool(value) => Value::Bool(*value),
        Owned::U64(value) => Value::U64(*value),
        Owned::I64(value) => Value::I64(*value),
        Owned::F64(value) => Value::F64(*value),
        Owned::Text(text) => Value::String(text),
        Owned::Array(_) => Value::Array(array.as_ref()?.as_array()),
    }))
}

/// Equal to the bit: NaN is itself.
fn same(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::F32(left), Value::F32(right)) => left.to_bits() == right.to_bits(),
        (Value::F64(left), Value::F64(right)) => left.to_bits() == right.to_bits(),
        _ => left == right,
    }
}

fuzz_target!(|file: File| {
    let mut writer = Writer::new();
    if let Some(alignment) = file.alignment {
        // Larger ones only make the fuzzer slow.
        let _ = writer.metadata("general.alignment", alignment % 8193);
    }
    let mut written = Vec::new();
    for (key, value) in &file.metadata {
        // What has these is a shard, and not a file that can be read by itself.
        if key.starts_with("split.") {
            continue;
        }
        let accepted = with_value(value, |value| writer.metadata(key, value).is_ok());
        if accepted == Some(true) && key != "general.alignment" {
            written.push((key, value));
        }
    }
    let mut declared = Vec::new();
    for tensor in &file.tensors {
        let types = TensorType::ALL;
        let tensor_type = types[usize::from(tensor.tensor_type) % types.len()];
        let mut dims: Vec<usize> = tensor
            .dims
            .iter()
            .map(|dim| usize::from(*dim % 8))
            .collect();
        if let Some(cols) = dims.first_mut() {
            *cols *= tensor_type.block_weights();
        }
        if writer.tensor(&tensor.name, &dims, tensor_type).is_ok() {
            declared.push((&tensor.name, dims, tensor_type, tensor.fill));
        }
    }

    let mut stream = writer.start(Vec::new()).expect("small enough to address");
    for (name, _, _, fill) in &declared {
        let (current, lacks) = stream.current().expect("a tensor to write");
        assert_eq!(current, *name);
        let bytes = vec![*fill; lacks];
        let piece = if file.piece == 0 {
            lacks
        } else {
            usize::from(file.piece)
        };
        bytes
            .chunks(piece)
            .for_each(|bytes| stream.write(bytes).expect("room for these bytes"));
    }
    let bytes = stream.finish().expect("nothing is missing");

    let gguf = Gguf::parse(&[&bytes]).expect("what the writer wrote");
    let read = gguf
        .metadata()
        .iter()
        .filter(|(key, _)| *key != "general.alignment");
    let read: Vec<(&str, &Value<'_>)> = read.collect();
    assert_eq!(read.len(), written.len());
    for ((found_key, found), (key, value)) in read.into_iter().zip(written) {
        assert_eq!(found_key, key);
        assert_eq!(with_value(value, |value| same(found, &value)), Some(true));
    }
    assert_eq!(gguf.tensors().len(), declared.len());
    for (found, (name, dims, tensor_type, fill)) in gguf.tensors().iter().zip(declared) {
        assert_eq!(
            (found.name, &found.dims, found.tensor_type),
            (&name[..], &dims, tensor_type)
        );
        assert_eq!(found.offset % gguf.alignment(), 0);
        assert!(found.data.iter().all(|byte| *byte == fill));
    }
});
