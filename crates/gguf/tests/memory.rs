//! The promise about memory, on files made to break it and on one as large as real ones.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::{Duration, Instant};

use redline_gguf::{ArrayBuf, Gguf, TensorType, Writer};

/// Bytes allocated by a parse, all together.
fn allocated(file: &[u8]) -> u64 {
    let counted = allocation_counter::measure(|| {
        Gguf::parse(&[file]).unwrap();
    });
    counted.bytes_total
}

#[test]
fn the_smallest_keys_and_tensors_stay_within_the_factor() {
    let mut keys = Writer::new();
    let mut tensors = Writer::new();
    tensors.metadata("general.alignment", 8_u32).unwrap();
    for number in 0..20_000_u32 {
        let name = format!("{number:x}");
        keys.metadata(&name, 1_u8).unwrap();
        tensors.tensor(&name, &[1], TensorType::I8).unwrap();
    }
    let keys = keys.start(Vec::new()).unwrap().finish().unwrap();
    common::walk_within_bounds(&[&keys]).unwrap();

    let mut stream = tensors.start(Vec::new()).unwrap();
    while stream.current().is_some() {
        stream.write(&[0]).unwrap();
    }
    let tensors = stream.finish().unwrap();
    common::walk_within_bounds(&[&tensors]).unwrap();
    let per_byte = |file: &[u8]| allocated(file) as f64 / file.len() as f64;
    println!(
        "keys {:.2}, tensors {:.2} bytes per byte",
        per_byte(&keys),
        per_byte(&tensors)
    );
}

#[test]
fn a_vocabulary_is_read_in_place() {
    let tokens = ArrayBuf::strings((0..262_144).map(|number| format!("▁token{number}")));
    let mut writer = Writer::new();
    writer.metadata("tokenizer.ggml.tokens", &tokens).unwrap();
    let file = writer.start(Vec::new()).unwrap().finish().unwrap();
    assert!(allocated(&file) < 1_000);

    let started = Instant::now();
    let gguf = Gguf::parse(&[&file]).unwrap();
    let strings = gguf
        .metadata()
        .require_str_array("tokenizer.ggml.tokens")
        .unwrap();
    assert_eq!(strings.len(), 262_144);
    assert_eq!(
        strings.map(str::len).sum::<usize>(),
        tokens.as_array().bytes().len() - 8 * 262_144
    );
    // Some 10 ms on a slow machine; what must not happen is a slip into quadratic time.
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}
