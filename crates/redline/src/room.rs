//! Whether there is room for a model, and what would make it smaller.

use anyhow::{Context as _, bail};
use redline_compute::KvFormat;
use redline_gguf::Gguf;
use redline_model::{LoadOptions, MemoryPlan};

use crate::models::Resolved;
use crate::session::DEFAULT_CONTEXT_TOKENS;
use crate::{memory, units};

/// What is not worth a flag: one part in so many of what is required.
const WORTH: u64 = 64;
/// A context that is of some use.
pub(crate) const LEAST_CONTEXT: usize = 128;
/// Prompt tokens of a step below which nothing is gained.
const LEAST_CHUNK: usize = 32;

/// A load that there is room for.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    options: LoadOptions,
    plan: MemoryPlan,
}

impl Room {
    /// As [`Self::find`], for a model that is called something.
    ///
    /// # Errors
    /// As there, with its path.
    pub(crate) fn of(
        resolved: &Resolved,
        gguf: &Gguf<'_>,
        options: LoadOptions,
        savings: impl FnOnce(&LoadOptions) -> Vec<Saving>,
    ) -> anyhow::Result<Self> {
        Self::find(gguf, options, savings)
            .with_context(|| format!("cannot load {}", resolved.path.display()))
    }

    /// Refuses a load the machine has no room for, with what would help: each of `savings` by itself,
    /// set as high as there is room for.
    ///
    /// # Errors
    /// If more is needed than is available, or the options make no sense. What cannot be found out
    /// refuses nothing.
    pub(crate) fn find(
        gguf: &Gguf<'_>,
        options: LoadOptions,
        savings: impl FnOnce(&LoadOptions) -> Vec<Saving>,
    ) -> anyhow::Result<Self> {
        let plan = MemoryPlan::new(gguf, &options)?;
        let required = plan.total_bytes();
        match memory::available_bytes() {
            Some(available) if required > available => {
                let bytes = |options: &LoadOptions| {
                    let plan = MemoryPlan::new(gguf, options);
                    plan.map_or(u64::MAX, |plan| plan.total_bytes())
                };
                bail!(
                    "not enough memory: required {required} bytes ({}: weights {}, KV cache {}, \
                     scratch {}), available {available} bytes ({}); {}",
                    units::bytes(required),
                    units::bytes(plan.weight_bytes),
                    units::bytes(plan.kv_bytes),
                    units::bytes(plan.scratch_bytes),
                    units::bytes(available),
                    help(&plan, available, &savings(&options), &bytes)
                )
            }
            _ => Ok(Self { options, plan }),
        }
    }

    /// Room for another model beside this one.
    ///
    /// # Errors
    /// If both need more than is available, or the options make no sense.
    pub(crate) fn beside(&self, gguf: &Gguf<'_>, options: LoadOptions) -> anyhow::Result<Self> {
        let plan = MemoryPlan::new(gguf, &options)?;
        let both = (self.plan.total_bytes()).saturating_add(plan.total_bytes());
        memory::check_bytes("both models", both)?;
        Ok(Self { options, plan })
    }

    /// How it is loaded.
    pub(crate) const fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Bytes of its weights.
    pub(crate) const fn weight_bytes(&self) -> u64 {
        self.plan.weight_bytes
    }
}

/// A flag, and what it could be set to, the largest first.
#[derive(Debug)]
pub(crate) struct Saving {
    settings: Vec<(String, LoadOptions)>,
}

impl Saving {
    /// Half of `value`, half of that, and so on while it is not below `least`.
    pub(crate) fn halves(
        flag: &str,
        value: usize,
        least: usize,
        options: impl Fn(usize) -> LoadOptions,
    ) -> Self {
        let halves = std::iter::successors(Some(value / 2), |value| Some(value / 2));
        let settings = halves
            .take_while(|value| *value >= least.max(1))
            .map(|value| (format!("{flag} {value}"), options(value)));
        Self {
            settings: settings.collect(),
        }
    }

    /// Keys and values in fewer bits.
    pub(crate) fn kv(options: &LoadOptions) -> Self {
        // Of a head, which has several times 32 elements.
        let bytes = |format: KvFormat| format.vector_bytes(64);
        let mut formats = KvFormat::ALL.to_vec();
        formats.retain(|format| bytes(*format) < bytes(options.kv_format));
        formats.sort_by_key(|format| std::cmp::Reverse(bytes(*format)));
        let with = |kv_format| LoadOptions {
            kv_format,
            ..options.clone()
        };
        let settings = formats
            .into_iter()
            .map(|format| (format!("--kv {format}"), with(format)));
        Self {
            settings: settings.collect(),
        }
    }

    /// What helps any load whose context is given.
    pub(crate) fn usual(options: &LoadOptions) -> Vec<Self> {
        vec![Self::kv(options), Self::chunk(options)]
    }

    /// Fewer prompt tokens in a step.
    pub(crate) fn chunk(options: &LoadOptions) -> Self {
        Self::halves("--chunk", options.max_step_tokens, LEAST_CHUNK, |tokens| {
            LoadOptions {
                max_step_tokens: tokens,
                ..options.clone()
            }
        })
    }

    /// A shorter context, with pages for one sequence.
    pub(crate) fn context(options: &LoadOptions) -> Self {
        let positions = options.context.unwrap_or(DEFAULT_CONTEXT_TOKENS);
        Self::halves("--context", positions, LEAST_CONTEXT, |context| {
            LoadOptions {
                context: Some(context),
                ..options.clone()
            }
        })
    }
}

/// What would help, by what a load with other options takes.
fn help(
    plan: &MemoryPlan,
    available: u64,
    savings: &[Saving],
    bytes: &dyn Fn(&LoadOptions) -> u64,
) -> String {
    if plan.weight_bytes > available {
        return "the weights alone need more: take a smaller model, or the same with weights of fewer bits \
                (redline quantize)"
            .to_owned();
    }
    let enough = |saving: &Saving| {
        let mut settings = saving.settings.iter();
        let (flag, options) = settings.find(|(_, options)| bytes(options) <= available)?;
        Some(format!("{flag} ({})", units::bytes(bytes(options))))
    };
    let enough: Vec<String> = savings.iter().filter_map(enough).collect();
    if !enough.is_empty() {
        return format!("enough would be any of {}", enough.join(", "));
    }
    let required = plan.total_bytes();
    let less = |saving: &Saving| {
        let (flag, options) = saving.settings.last()?;
        let saved = required.saturating_sub(bytes(options));
        (saved >= required / WORTH).then(|| format!("{flag} saves {}", units::bytes(saved)))
    };
    match savings.iter().filter_map(less).collect::<Vec<_>>() {
        less if less.is_empty() => "take a smaller model".to_owned(),
        less => format!("no flag alone is enough: {}", less.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a load: 1000 a position in F16 and 10 a token of a step, beside weights.
    fn bytes(options: &LoadOptions) -> u64 {
        let of_kv = options.kv_format.vector_bytes(64) as u64 * 1000 / 128;
        let kv = options.context.unwrap() as u64 * of_kv;
        5_000_000 + kv + 10 * options.max_step_tokens as u64
    }

    fn helped(kv_format: KvFormat, available: u64) -> String {
        let options = LoadOptions {
            context: Some(8192),
            kv_format,
            max_step_tokens: 512,
            ..LoadOptions::default()
        };
        let plan = MemoryPlan {
            weight_bytes: 5_000_000,
            kv_bytes: bytes(&options) - 5_005_120,
            scratch_bytes: 5_120,
        };
        let savings = [
            Saving::kv(&options),
            Saving::context(&options),
            Saving::chunk(&options),
        ];
        help(&plan, available, &savings, &bytes)
    }

    #[test]
    fn each_flag_that_helps_is_named_as_high_as_there_is_room() {
        let check = |kv, available, expected: &str| {
            let found = helped(kv, available);
            assert_eq!(found, expected, "{available}");
        };
        check(
            KvFormat::F32,
            13_200_000,
            "enough would be any of --kv f16 (12.6 MiB), --context 4096 (12.6 MiB)",
        );
        check(
            KvFormat::F16,
            13_195_000,
            "enough would be any of --kv q8_0 (8.9 MiB), --context 4096 (8.7 MiB), --chunk 256 (12.6 MiB)",
        );
        check(
            KvFormat::F32,
            8_000_000,
            "enough would be any of --context 1024 (6.7 MiB)",
        );
        check(
            KvFormat::F32,
            5_100_000,
            "no flag alone is enough: --kv q8_0 saves 11.5 MiB, --context 128 saves 15.4 MiB",
        );
        check(
            KvFormat::F16,
            4_999_999,
            "the weights alone need more: take a smaller model, or the same with weights of fewer bits \
             (redline quantize)",
        );
    }
}
