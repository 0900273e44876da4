//! Running a model over given ids, and reading reference files.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part of this; a test may panic"
)]

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use redline_compute::{Cpu, Format, Isa, quant};
use redline_gguf::{Gguf, TensorType, TokenId, Writer};
use redline_model::{
    Forward, LoadOptions, LogitRows, Model, ModelFile, PageId, SequenceStep, StepPlan,
};

/// How a model is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
    /// Tokens of a step.
    pub(crate) chunk: usize,
}

/// Computes `ids` in steps of `setting.chunk` tokens and gives `each` the logits of every position
/// in turn.
pub(crate) fn teacher_force(
    path: &Path,
    ids: &[TokenId],
    setting: Setting,
    each: &mut dyn FnMut(usize, &[f32]),
) {
    teacher_force_rows(path, ids, setting, LogitRows::All, each);
}

/// The same, giving only the logits of each step that `rows` names.
pub(crate) fn teacher_force_rows(
    path: &Path,
    ids: &[TokenId],
    setting: Setting,
    rows: LogitRows,
    each: &mut dyn FnMut(usize, &[f32]),
) {
    let file = ModelFile::open(path).unwrap();
    let chunk = setting.chunk.min(ids.len());
    let options = LoadOptions {
        context: Some(ids.len()),
        max_step_tokens: chunk,
        max_logit_rows: chunk,
        ..LoadOptions::default()
    };
    let backend = Cpu::new(setting.isa, setting.threads);
    let gguf = file.gguf().unwrap();
    let mut model = Model::load(&file, &gguf, backend, &options, &mut |_| ()).unwrap();
    let pages: Vec<PageId> = (0..model.shape().page_count as u32).map(PageId).collect();
    let vocab = model.shape().vocab_size;
    let mut position = 0;
    for tokens in ids.chunks(chunk) {
        let sequences = [SequenceStep {
            tokens,
            position,
            pages: &pages,
            logits: rows,
        }];
        let plan = StepPlan {
            sequences: &sequences,
        };
        let logits = model.forward(&plan, &mut ()).unwrap();
        let count = rows.count(tokens.len());
        assert_eq!(logits.len(), count * vocab);
        position += tokens.len();
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            each(position - count + row, logits);
        }
    }
}

/// Writes the model `from` with all its weights as F32, which is exact, to `to`.
pub(crate) fn dequantise(from: &Path, to: &File) {
    let file = ModelFile::open(from).unwrap();
    let gguf = file.gguf().unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.metadata(key, *value).unwrap();
    }
    for tensor in gguf.tensors() {
        writer
            .tensor(tensor.name, &tensor.dims, TensorType::F32)
            .unwrap();
    }
    let mut out = writer.start(BufWriter::new(to)).unwrap();
    let (mut weights, mut bytes) = (Vec::new(), Vec::new());
    for tensor in gguf.tensors() {
        let format: Format = tensor.tensor_type.name().parse().unwrap();
        let row = tensor.dims[0];
        weights.resize(row, 0.0_f32);
        for packed in tensor.data.chunks_exact(format.row_bytes(row)) {
            quant::dequantize(format, packed, &mut weights);
            bytes.clear();
            bytes.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
            out.write(&bytes).unwrap();
        }
    }
    out.finish().unwrap();
}

/// The values of an F32 tensor.
pub(crate) fn floats(file: &Gguf<'_>, name: &str) -> Vec<f32> {
    words(file, name, TensorType::F32)
        .map(f32::from_le_bytes)
        .collect()
}

/// The values of an I32 tensor that holds token ids.
pub(crate) fn ids(file: &Gguf<'_>, name: &str) -> Vec<TokenId> {
    words(file, name, TensorType::I32)
        .map(|word| TokenId(u32::from_le_bytes(word)))
        .collect()
}

fn words<'a>(
    file: &Gguf<'a>,
    name: &str,
    expected: TensorType,
) -> impl Iterator<Item = [u8; 4]> + use<'a> {
    let tensor = file
        .tensor(name)
        .unwrap_or_else(|| panic!("no tensor {name}"));
    assert_eq!(tensor.tensor_type, expected, "{name}");
    let (words, rest) = tensor.data.as_chunks::<4>();
    assert!(rest.is_empty(), "{name}");
    words.iter().copied()
}
