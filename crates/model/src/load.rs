//! From an open file to a model that can step.

use redline_compute::{Backend, KvFormat, PAGE_POSITIONS, RopeTable};
use redline_gguf::Gguf;

use crate::file::pieces;
use crate::forward::Scratch;
use crate::memory::kv_shape;
use crate::plan::pages_for;
use crate::weights::Weights;
use crate::{Error, MemoryPlan, ModelFile, Properties};

/// Positions a sequence gets where nobody asks for more: tables and cache for a model's whole
/// context can be larger than the model.
const DEFAULT_CONTEXT: usize = 4096;
/// Pages are numbered with 32 bits.
const MAX_PAGES: usize = u32::MAX as usize;
/// Tokens of a step and rows of logits, at most.
const MAX_ROWS: usize = 1 << 16;

/// What a step gives for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Logits, `[vocab]`.
    #[default]
    Logits,
    /// Hidden state after the last norm, `[hidden]`: no logits are computed.
    Hidden,
}

/// What a load is to prepare for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Positions a sequence can have, at most the model's context length;
    /// `None`: that or 4096, whichever is less.
    pub context: Option<usize>,
    /// Pages of the KV cache; `None`: enough for one sequence of `context` positions.
    pub kv_pages: Option<usize>,
    /// How keys and values are stored.
    pub kv_format: KvFormat,
    /// Tokens in one step.
    pub max_step_tokens: usize,
    /// Rows of output in one step.
    pub max_logit_rows: usize,
    /// What those rows are.
    pub output: Output,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            context: None,
            kv_pages: None,
            kv_format: KvFormat::default(),
            max_step_tokens: 512,
            max_logit_rows: 16,
            output: Output::default(),
        }
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Weight bytes that are resident.
    pub bytes: u64,
    /// Weight bytes in all.
    pub total_bytes: u64,
    /// 0, 25, 50, 75 and 100: each on exactly one report, in this order. 100 is the last report:
    /// the model is ready.
    pub percent: Option<u8>,
}

/// [`LoadOptions`] with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) context: usize,
    pub(crate) kv_pages: usize,
    pub(crate) kv_format: KvFormat,
    pub(crate) max_step_tokens: usize,
    pub(crate) max_logit_rows: usize,
    pub(crate) output: Output,
}

impl Limits {
    pub(crate) fn resolve(properties: &Properties, options: &LoadOptions) -> Result<Self, Error> {
        let trained = properties.context_length;
        let context = options.context.unwrap_or(trained.min(DEFAULT_CONTEXT));
        let kv_pages = options.kv_pages.unwrap_or(pages_for(context));
        let check = |option, found: usize, max: usize| {
            if (1..=max).contains(&found) {
                return Ok(found);
            }
            Err(Error::Option {
                option,
                expected: format!("1..={max}"),
                found,
            })
        };
        Ok(Self {
            context: check("context", context, trained)?,
            kv_pages: check("kv_pages", kv_pages, MAX_PAGES)?,
            kv_format: options.kv_format,
            max_step_tokens: check("max_step_tokens", options.max_step_tokens, MAX_ROWS)?,
            max_logit_rows: check("max_logit_rows", options.max_logit_rows, MAX_ROWS)?,
            output: options.output,
        })
    }
}

/// Weights on a backend, a KV cache, and the scratch memory of a step.
#[derive(Debug)]
pub struct Model<B: Backend> {
    pub(crate) backend: B,
    pub(crate) properties: Properties,
    pub(crate) limits: Limits,
    pub(crate) weights: Weights<B>,
    pub(crate) ropes: Vec<RopeTable>,
    pub(crate) kv: B::KvCache,
    pub(crate) scratch: Scratch<B>,
    memory: MemoryPlan,
}

impl<B: Backend> Model<B> {
    /// Checks every tensor, reads every weight once, and allocates all that steps will need.
    ///
    /// # Errors
    /// If metadata, tensors or options make no sense; see [`Error`].
    ///
    /// # Panics
    /// If `gguf` was not parsed from this `file`.
    pub fn load(
        file: &ModelFile,
        gguf: &Gguf<'_>,
        mut backend: B,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, Error> {
        let properties = Properties::from_gguf(gguf)?;
        if !properties.head && options.output == Output::Logits {
            let found = gguf.metadata().require_str("general.architecture")?;
            return Err(Error::NoHead {
                found: found.to_owned(),
            });
        }
        let limits = Limits::resolve(&properties, options)?;
        let memory = MemoryPlan::with_limits(gguf, &properties, &limits)?;
        let weights = Weights::load(file, gguf, &properties, &backend)?;
        make_resident(file, gguf, memory.weight_bytes, progress)?;
        let ropes = properties
            .ropes
            .iter()
            .map(|rope| rope.table(limits.context))
            .collect();
        let kv = backend.kv_cache(kv_shape(&properties, limits.kv_format, limits.kv_pages));
        let scratch = Scratch::new(&mut backend, &properties, &limits);
        let total_bytes = memory.weight_bytes;
        progress(LoadProgress {
            bytes: total_bytes,
            total_bytes,
            percent: Some(100),
        });
        Ok(Self {
            backend,
            properties,
            limits,
            weights,
            ropes,
            kv,
            scratch,
            memory,
        })
    }

    /// What the model is.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// What the model takes.
    #[must_use]
    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// Positions that fit in the whole KV cache.
    #[must_use]
    pub fn kv_positions(&self) -> usize {
        self.limits.kv_pages * PAGE_POSITIONS
    }
}

/// Brings the weights into memory, so that the first step does not wait for the disk, and reports
/// every few megabytes.
fn make_resident(
    file: &ModelFile,
    gguf: &Gguf<'_>,
    total_bytes: u64,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), Error> {
    let report = |bytes, percent| LoadProgress {
        bytes,
        total_bytes,
        percent,
    };
    progress(report(0, Some(0)));
    let (mut bytes, mut next_percent) = (0_u64, 25_u8);
    for tensor in gguf.tensors() {
        let mapping = file.mapping(tensor.shard);
        for piece in pieces(tensor.offset..tensor.offset + tensor.data.len()) {
            bytes += piece.len() as u64;
            mapping.page_in(piece).map_err(|source| Error::Read {
                name: tensor.name.to_owned(),
                source,
            })?;
            let due = |percent: u8| u128::from(total_bytes) * u128::from(percent) / 100;
            if next_percent == 100 || u128::from(bytes) < due(next_percent) {
                progress(report(bytes, None));
            }
            while next_percent < 100 && u128::from(bytes) >= due(next_percent) {
                progress(report(bytes, Some(next_percent)));
                next_percent += 25;
            }
        }
    }
    Ok(())
}
