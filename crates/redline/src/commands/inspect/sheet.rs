//! The report of `inspect` for people.

use std::fmt;

use super::{Entry, Memory, Report, Text};
use crate::units;

/// Characters of a metadata value that are shown.
const SHOWN_CHARACTERS: usize = 100;

/// A report laid out.
pub(super) struct Sheet<'r>(pub(super) &'r Report<'r>);

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        head(report, f)?;
        writeln!(f, "\nMetadata ({})", report.metadata.len())?;
        let width = report
            .metadata
            .iter()
            .map(|entry| entry.key.len())
            .max()
            .unwrap_or(0);
        for entry in &report.metadata {
            writeln!(
                f,
                "  {:width$}  {:12}  {}",
                entry.key,
                entry.value_type,
                shown(entry)
            )?;
        }
        writeln!(f, "\nTensors ({})", report.tensors.len())?;
        let width = report
            .tensors
            .iter()
            .map(|tensor| tensor.name.len())
            .max()
            .unwrap_or(0);
        for tensor in &report.tensors {
            let dims: Vec<String> = tensor.dims.iter().map(ToString::to_string).collect();
            let (dims, bytes) = (dims.join(" x "), units::bytes(tensor.bytes as u64));
            writeln!(
                f,
                "  {:width$}  {dims:16}  {:6}  {bytes:>10}",
                tensor.name, tensor.tensor_type
            )?;
        }
        writeln!(f, "\nTypes")?;
        for (name, total) in &report.types {
            let (weights, bytes) = (units::count(total.weights), units::bytes(total.bytes));
            writeln!(
                f,
                "  {name:6}  {:5} tensors  {weights:>8} weights  {bytes:>10}",
                total.tensors
            )?;
        }
        Ok(())
    }
}

fn head(report: &Report<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut line = |name: &str, value: String| writeln!(f, "{name:14} {value}");
    line("model", report.model.to_owned())?;
    line(
        "file",
        format!("{} ({})", report.path, units::bytes(report.file_bytes)),
    )?;
    let format = if report.safetensors {
        "safetensors, under the names of GGUF".to_owned()
    } else {
        let (version, alignment) = (report.gguf_version, report.alignment);
        format!("GGUF version {version}, alignment {alignment}")
    };
    line("format", format)?;
    line("architecture", report.architecture.to_owned())?;
    line("parameters", units::count(report.parameters))?;
    line(
        "tokenizer",
        match &report.tokenizer {
            Text::Kind { kind, vocab_size } => format!("{kind}, {vocab_size} tokens"),
            Text::Unsupported(reason) => format!("cannot be used: {reason}"),
        },
    )?;
    line(
        "chat template",
        if report.chat_template { "yes" } else { "no" }.to_owned(),
    )?;
    match (&report.memory, &report.unsupported) {
        (Some(memory), _) => line("memory", memory_line(memory)),
        (None, reason) => line("cannot be run", reason.clone().unwrap_or_default()),
    }
}

fn memory_line(memory: &Memory) -> String {
    let available = memory
        .available_bytes
        .map_or_else(|| "unknown".to_owned(), units::bytes);
    format!(
        "{} for {} positions: weights {}, KV cache {}, scratch {}; available {available}",
        units::bytes(memory.total_bytes),
        memory.context_tokens,
        units::bytes(memory.weight_bytes),
        units::bytes(memory.kv_bytes),
        units::bytes(memory.scratch_bytes),
    )
}

/// A value on one line, cut where it gets long.
fn shown(entry: &Entry<'_>) -> String {
    let mut text = match &entry.value {
        serde_json::Value::String(text) => format!("{text:?}"),
        value => value.to_string(),
    };
    if let Some((at, _)) = text.char_indices().nth(SHOWN_CHARACTERS) {
        text.truncate(at);
        text.push('…');
    } else if entry.abbreviated {
        // The type tells how many there are.
        text.pop();
        text.push_str(", …]");
    }
    text
}
