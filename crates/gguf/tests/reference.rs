//! Agreement with the reference implementations: files of the Python package, types of ggml.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use redline_gguf::{Array, Gguf, Metadata, TensorType, Value};
use serde_json::{Value as Json, json};

#[test]
fn a_file_written_by_the_python_package_reads_exactly() {
    let file = include_bytes!("data/python_written.gguf");
    let expected: Json = serde_json::from_str(include_str!("data/python_written.json")).unwrap();
    let gguf = Gguf::parse(&[file]).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(
        Some(gguf.alignment() as u64),
        expected["alignment"].as_u64()
    );
    assert_eq!(metadata_as_json(gguf.metadata()), expected["metadata"]);

    let tensors = expected["tensors"].as_array().unwrap();
    assert_eq!(gguf.tensors().len(), tensors.len());
    assert!(tensors.len() >= 25);
    for (tensor, expected) in gguf.tensors().iter().zip(tensors) {
        let head: String = tensor
            .data
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let found = json!({
            "name": tensor.name,
            "dims": tensor.dims,
            "type": tensor.tensor_type.name(),
            "offset": tensor.offset,
            "bytes": tensor.data.len(),
            "head": head,
        });
        assert_eq!(&found, expected);
    }
    let cube = gguf.tensor("cube").unwrap();
    assert_eq!(cube.dims, [5, 4, 3, 2]);
    assert_eq!(cube.data, (0..120).collect::<Vec<u8>>());
}

fn metadata_as_json(metadata: &Metadata<'_>) -> Json {
    metadata
        .iter()
        .map(|(key, value)| (key.to_owned(), value_as_json(value)))
        .collect()
}

/// Type and value, as the Python script writes them.
fn value_as_json(value: &Value<'_>) -> Json {
    let plain = match *value {
        Value::Array(array) => array_as_json(&array),
        Value::String(text) => json!(text),
        Value::Bool(value) => json!(value),
        // The shortest digits of the `f32`, which is what the script was given.
        Value::F32(value) => json!(value.to_string().parse::<f64>().unwrap()),
        Value::F64(value) => json!(value),
        Value::U64(value) => json!(value),
        _ => json!(i64::try_from(value.as_integer().unwrap()).unwrap()),
    };
    json!([value.value_type().name(), plain])
}

/// Element type and elements; elements that are arrays again as `[element type, elements]`.
fn array_as_json(array: &Array<'_>) -> Json {
    let elements = array.iter().map(|element| match element {
        Value::Array(inner) => array_as_json(&inner),
        plain => value_as_json(&plain)[1].take(),
    });
    json!([array.element_type().name(), elements.collect::<Vec<Json>>()])
}

#[test]
fn tensor_types_have_the_numbers_names_and_blocks_of_ggml() {
    let table = include_str!("data/ggml_types.tsv");
    let rows: Vec<String> = table.lines().skip(2).map(str::to_owned).collect();
    let ours = TensorType::ALL.iter().map(|tensor_type| {
        let (weights, bytes) = (tensor_type.block_weights(), tensor_type.block_bytes());
        format!("{}\t{tensor_type}\t{weights}\t{bytes}", tensor_type.id())
    });
    assert_eq!(ours.collect::<Vec<_>>(), rows);
}

#[test]
fn tensor_types_are_found_by_number_and_by_name_in_any_case() {
    for &tensor_type in TensorType::ALL {
        assert_eq!(TensorType::from_id(tensor_type.id()), Some(tensor_type));
        assert_eq!(
            tensor_type.name().parse::<TensorType>().unwrap(),
            tensor_type
        );
        assert_eq!(
            tensor_type
                .name()
                .to_lowercase()
                .parse::<TensorType>()
                .unwrap(),
            tensor_type
        );
    }
    assert_eq!(TensorType::from_id(4), None);
    let error = "Q9_K".parse::<TensorType>().unwrap_err().to_string();
    assert!(
        error.starts_with("unknown tensor type \"Q9_K\": expected one of F32, F16,"),
        "{error}"
    );
}
