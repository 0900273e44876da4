//! `redline inspect`: what is in a model's file, and what running it would take.

mod sheet;

use std::collections::BTreeMap;

use redline_gguf::{Array, Gguf, Tensor, Value};
use redline_model::{MemoryPlan, ModelFile, Properties};
use serde::Serialize;
use serde_json::json;

use crate::commands::Context;
use crate::models::{self, Resolved};
use crate::{memory, output, session};

/// Elements of an array that are shown.
const SHOWN_ELEMENTS: usize = 8;

/// Flags of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, a folder of safetensors, a short name, or `synth:<shape>[:<quant>]`
    model: String,
    /// Positions to plan the memory for [default: those of a chat, 4096 at most]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<usize>,
}

/// Machine-readable result.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    path: String,
    file_bytes: u64,
    /// Of the directory; a folder's is made in memory.
    gguf_version: u32,
    alignment: usize,
    /// Whether the model is a folder of safetensors.
    safetensors: bool,
    architecture: &'a str,
    /// Why the model cannot be run, if it cannot.
    unsupported: Option<String>,
    parameters: u64,
    memory: Option<Memory>,
    tokenizer: Text,
    chat_template: bool,
    types: BTreeMap<&'static str, TypeTotal>,
    metadata: Vec<Entry<'a>>,
    tensors: Vec<TensorRow<'a>>,
}

#[derive(Debug, Serialize)]
struct Memory {
    context_tokens: usize,
    weight_bytes: u64,
    kv_bytes: u64,
    scratch_bytes: u64,
    total_bytes: u64,
    available_bytes: Option<u64>,
}

/// What a tokenizer is, or why there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Text {
    Kind {
        kind: &'static str,
        vocab_size: usize,
    },
    Unsupported(String),
}

#[derive(Debug, Default, Serialize)]
struct TypeTotal {
    tensors: usize,
    weights: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    key: &'a str,
    #[serde(rename = "type")]
    value_type: String,
    value: serde_json::Value,
    /// Elements of an array are missing.
    #[serde(skip)]
    abbreviated: bool,
}

#[derive(Debug, Serialize)]
struct TensorRow<'a> {
    name: &'a str,
    /// Fastest-varying first, as in the file.
    dims: &'a [usize],
    #[serde(rename = "type")]
    tensor_type: &'static str,
    bytes: usize,
}

/// Reads and prints.
///
/// # Errors
/// If the file cannot be read or is no valid GGUF. An architecture that is not known is no error.
pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let resolved = models::resolve(Some(&args.model), context)?;
    let file = session::open(&resolved)?;
    let gguf = session::parse(&file, &resolved)?;
    let report = report(&gguf, &resolved, &file, context);
    if context.json {
        return output::json(&report);
    }
    output::text(&sheet::Sheet(&report).to_string())
}

fn report<'a>(
    gguf: &'a Gguf<'a>,
    resolved: &'a Resolved,
    file: &ModelFile,
    context: &Context,
) -> Report<'a> {
    let tokenizer = session::tokenizer(gguf, resolved);
    let chat_template = match &tokenizer {
        Ok(tokenizer) => tokenizer.chat_template().is_some(),
        Err(_) => gguf.metadata().get("tokenizer.chat_template").is_some(),
    };
    let memory = memory_of(gguf, context);
    let unsupported = memory.as_ref().err().map(ToString::to_string);
    Report {
        model: &resolved.name,
        path: resolved.path.display().to_string(),
        file_bytes: file.bytes(),
        gguf_version: gguf.version(),
        alignment: gguf.alignment(),
        safetensors: file.is_folder(),
        architecture: gguf
            .metadata()
            .str("general.architecture")
            .ok()
            .flatten()
            .unwrap_or("unknown"),
        unsupported,
        parameters: gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.weights() as u64)
            .sum(),
        memory: memory.ok(),
        tokenizer: match tokenizer {
            Ok(tokenizer) => Text::Kind {
                kind: tokenizer.kind(),
                vocab_size: tokenizer.vocab_size(),
            },
            Err(error) => Text::Unsupported(error.root_cause().to_string()),
        },
        chat_template,
        types: type_totals(gguf.tensors()),
        metadata: gguf
            .metadata()
            .iter()
            .map(|(key, value)| entry(key, value))
            .collect(),
        tensors: gguf.tensors().iter().map(tensor_row).collect(),
    }
}

/// What a load takes; fails where a load would, for a reason that is in the metadata.
fn memory_of(gguf: &Gguf<'_>, context: &Context) -> Result<Memory, redline_model::Error> {
    let trained = Properties::from_gguf(gguf)?.context_length;
    let asked = context.config.context_tokens.map(usize::from);
    let context_tokens = asked.unwrap_or(trained.min(session::DEFAULT_CONTEXT_TOKENS));
    let options = session::load_options(&context.config, Some(context_tokens));
    let plan = MemoryPlan::new(gguf, &options)?;
    Ok(Memory {
        context_tokens,
        weight_bytes: plan.weight_bytes,
        kv_bytes: plan.kv_bytes,
        scratch_bytes: plan.scratch_bytes,
        total_bytes: plan.total_bytes(),
        available_bytes: memory::available_bytes(),
    })
}

fn type_totals(tensors: &[Tensor<'_>]) -> BTreeMap<&'static str, TypeTotal> {
    let mut totals: BTreeMap<&'static str, TypeTotal> = BTreeMap::new();
    for tensor in tensors {
        let total = totals.entry(tensor.tensor_type.name()).or_default();
        total.tensors += 1;
        total.weights += tensor.weights() as u64;
        total.bytes += tensor.data.len() as u64;
    }
    totals
}

fn tensor_row<'a>(tensor: &'a Tensor<'a>) -> TensorRow<'a> {
    TensorRow {
        name: tensor.name,
        dims: &tensor.dims,
        tensor_type: tensor.tensor_type.name(),
        bytes: tensor.data.len(),
    }
}

fn entry<'a>(key: &'a str, value: &Value<'_>) -> Entry<'a> {
    let (value_type, abbreviated) = match value {
        Value::Array(array) => {
            let value_type = format!("{}[{}]", array.element_type().name(), array.len());
            (value_type, array.len() > SHOWN_ELEMENTS)
        }
        plain => (plain.value_type().name().to_owned(), false),
    };
    Entry {
        key,
        value_type,
        value: json_value(value),
        abbreviated,
    }
}

/// A value as JSON; of a long array, the first elements. A number JSON cannot express (an infinity)
/// becomes text.
fn json_value(value: &Value<'_>) -> serde_json::Value {
    let float = |value: f64| {
        if value.is_finite() {
            json!(value)
        } else {
            json!(value.to_string())
        }
    };
    match value {
        Value::Array(array) => json_array(*array),
        Value::String(text) => json!(text),
        Value::Bool(value) => json!(value),
        // Through its decimal form, so that 1e-5 does not become 0.000009999999747378752.
        Value::F32(value) => value
            .to_string()
            .parse()
            .map_or_else(|_| json!(value.to_string()), float),
        Value::F64(value) => float(*value),
        Value::U64(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::U16(value) => json!(value),
        Value::I16(value) => json!(value),
        Value::U8(value) => json!(value),
        Value::I8(value) => json!(value),
    }
}

fn json_array(array: Array<'_>) -> serde_json::Value {
    array
        .iter()
        .take(SHOWN_ELEMENTS)
        .map(|element| json_value(&element))
        .collect()
}
