//! What is written is what is read.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use redline_gguf::{Array, ArrayBuf, Gguf, TensorType, Value, Writer};

/// A value that owns what it holds.
#[derive(Debug, Clone)]
enum Owned {
    Plain(Value<'static>),
    Text(String),
    Array(ArrayBuf),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => *value,
            Self::Text(text) => text.into(),
            Self::Array(array) => array.into(),
        }
    }
}

/// Equal to the bit: NaN is itself, -0 is not 0.
fn same(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::F32(left), Value::F32(right)) => left.to_bits() == right.to_bits(),
        (Value::F64(left), Value::F64(right)) => left.to_bits() == right.to_bits(),
        _ => left == right,
    }
}

fn flat_arrays() -> impl Strategy<Value = ArrayBuf> {
    macro_rules! of {
        ($($plain:ty),*) => {
            prop_oneof![
                vec(".{0,9}", 0..6).prop_map(ArrayBuf::strings),
                $(vec(any::<$plain>(), 0..6).prop_map(|values| ArrayBuf::from(&values[..])),)*
            ]
        };
    }
    of!(u8, i8, u16, i16, u32, i32, f32, bool, u64, i64, f64)
}

fn arrays() -> impl Strategy<Value = ArrayBuf> {
    flat_arrays().prop_recursive(3, 30, 4, |inner| {
        vec(inner, 0..4).prop_map(|arrays| ArrayBuf::arrays(&arrays).unwrap())
    })
}

fn values() -> impl Strategy<Value = Owned> {
    macro_rules! plain {
        ($($plain:ty),*) => {
            prop_oneof![$(any::<$plain>().prop_map(|value| Owned::Plain(value.into())),)*]
        };
    }
    prop_oneof![
        plain!(u8, i8, u16, i16, u32, i32, f32, bool, u64, i64, f64),
        ".{0,20}".prop_map(Owned::Text),
        arrays().prop_map(Owned::Array),
    ]
}

/// Type, and dimensions that suit it.
fn shapes() -> impl Strategy<Value = (TensorType, Vec<usize>)> {
    let tensor_type = prop::sample::select(TensorType::ALL);
    (tensor_type, vec(1_usize..5, 1..=4)).prop_map(|(tensor_type, mut dims)| {
        dims[0] *= tensor_type.block_weights();
        (tensor_type, dims)
    })
}

/// Byte `index` of tensor `number`.
fn byte(number: usize, index: usize) -> u8 {
    (number * 131 + index * 7 + index / 251) as u8
}

/// Writes the tensors in pieces of `piece` bytes at most.
fn write(
    metadata: &[(String, Owned)],
    tensors: &[(&String, &(TensorType, Vec<usize>))],
    alignment: u32,
    piece: usize,
) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.metadata("general.alignment", alignment).unwrap();
    for (key, value) in metadata {
        writer.metadata(key, value.value()).unwrap();
    }
    for (name, (tensor_type, dims)) in tensors {
        writer.tensor(name, dims, *tensor_type).unwrap();
    }
    let mut stream = writer.start(Vec::new()).unwrap();
    for (number, (expected, _)) in tensors.iter().enumerate() {
        let (name, len) = stream.current().unwrap();
        assert_eq!(name, *expected);
        let bytes: Vec<u8> = (0..len).map(|index| byte(number, index)).collect();
        for bytes in bytes.chunks(piece) {
            stream.write(bytes).unwrap();
        }
    }
    stream.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        // A failure becomes a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_file_reads_as_it_was_written(
        metadata in vec(("[a-z_.é🦀]{1,12}", values()), 0..8),
        tensors in btree_map("[a-z.0-9ß]{1,20}", shapes(), 0..6),
        alignment in 3_u32..12,
        piece in 1_usize..3_000,
    ) {
        let mut metadata = metadata;
        for (index, (key, _)) in metadata.iter_mut().enumerate() {
            *key += &index.to_string(); // unique
        }
        let tensors: Vec<_> = tensors.iter().collect();
        let alignment = 1 << alignment;
        let file = write(&metadata, &tensors, alignment, piece);
        prop_assert_eq!(&file, &write(&metadata, &tensors, alignment, usize::MAX));
        common::walk_within_bounds(&[&file]).unwrap();

        let gguf = Gguf::parse(&[&file]).unwrap();
        prop_assert_eq!((gguf.version(), gguf.alignment()), (3, alignment as usize));
        prop_assert_eq!(gguf.metadata().len(), metadata.len() + 1);
        for ((found_key, found), (key, value)) in gguf.metadata().iter().skip(1).zip(&metadata) {
            prop_assert_eq!(found_key, key);
            prop_assert!(same(found, &value.value()), "{:?} is not {:?}", found, value);
        }
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (number, (found, (name, (tensor_type, dims)))) in
            gguf.tensors().iter().zip(&tensors).enumerate()
        {
            prop_assert_eq!(found.name, *name);
            prop_assert_eq!((found.tensor_type, &found.dims), (*tensor_type, dims));
            prop_assert_eq!(found.offset % alignment as usize, 0);
            let expected: Vec<u8> = (0..found.data.len()).map(|at| byte(number, at)).collect();
            prop_assert_eq!(found.data, &expected[..]);
        }
    }

    #[test]
    fn metadata_copied_from_a_file_is_the_same(metadata in vec(values(), 0..8)) {
        let metadata: Vec<_> =
            metadata.into_iter().enumerate().map(|(key, value)| (key.to_string(), value)).collect();
        let file = write(&metadata, &[], 32, 1);
        let gguf = Gguf::parse(&[&file]).unwrap();
        let mut copy = Writer::new();
        for (key, value) in gguf.metadata().iter() {
            copy.metadata(key, *value).unwrap();
        }
        prop_assert_eq!(copy.start(Vec::new()).unwrap().finish().unwrap(), file);
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_header_are_refused_or_load(
        counts in (0_u8..4, 0_u8..4),
        tail in vec(any::<u8>(), 0..200),
    ) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([counts.0, 0, 0, 0, 0, 0, 0, 0, counts.1, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(tail);
        let _ = common::walk_within_bounds(&[&file]);
    }
}

#[test]
fn the_elements_of_an_array_are_what_went_in() {
    let strings = ["", "a", "🦀"];
    let array = ArrayBuf::strings(strings);
    assert_eq!(
        array.as_array().strings().unwrap().collect::<Vec<_>>(),
        strings
    );
    let numbers = ArrayBuf::from(&[1_i16, -2][..]);
    let found: Vec<Value<'_>> = numbers.as_array().into_iter().collect();
    assert_eq!(found, [Value::I16(1), Value::I16(-2)]);
    assert!(numbers.as_array().strings().is_none());

    let nested = ArrayBuf::arrays(&[array.clone(), numbers]).unwrap();
    let inner: Vec<Array<'_>> = nested
        .as_array()
        .iter()
        .map(|value| value.as_array().unwrap())
        .collect();
    assert_eq!(inner[0], array.as_array());
    assert_eq!(inner[1].len(), 2);
    let deeper = ArrayBuf::arrays([&nested]).unwrap();
    let deepest = ArrayBuf::arrays([&deeper]).unwrap();
    let error = ArrayBuf::arrays([&deepest]).unwrap_err().to_string();
    assert!(
        error == "an array to write nests deeper than 4 arrays",
        "{error}"
    );
}
