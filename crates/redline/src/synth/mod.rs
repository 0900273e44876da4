//! Synthetic models: GGUF files of a known model's exact shape with seeded random weights.
//!
//! Such a file has the tensors, dimensions, formats and metadata keys of a real one, and runs as fast
//! as it would; what it says means nothing. It is marked by the key `redline.synth.shape`. The same
//! shape, quantisation and seed give the same bytes on every machine and any number of threads.

mod shapes;
mod tensors;
mod vocabulary;
mod weights;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use redline_gguf::{TensorStream, TensorType, Writer};

use crate::failure::Usage;
use crate::mix::{Quant, UnknownQuant};
use crate::units;

pub(crate) use shapes::{ALL as SHAPES, Shape};

use self::shapes::Architecture;
use self::tensors::{Content, Tensor};
use self::weights::Noise;

/// Part of a cached file's name: another way to make the bytes is another number.
const VERSION: u32 = 1;

/// Bytes made at a time, at most.
const PIECE_BYTES: usize = 32 << 20;

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recipe {
    /// The shape.
    pub(crate) shape: &'static Shape,
    /// How its matrices are stored.
    pub(crate) quant: Quant,
    /// Decides every random byte.
    pub(crate) seed: u64,
}

impl Recipe {
    /// The shape and quantisation of these names.
    ///
    /// # Errors
    /// If either is unknown, with the known ones.
    pub(crate) fn new(shape: &str, quant: &str, seed: u64) -> Result<Self, Usage> {
        let found = shapes::find(shape).ok_or_else(|| {
            Usage(format!(
                "unknown shape {shape:?}: expected one of {}",
                shapes::names()
            ))
        })?;
        let quant = quant
            .parse()
            .map_err(|error: UnknownQuant| Usage(error.to_string()))?;
        Ok(Self {
            shape: found,
            quant,
            seed,
        })
    }

    /// The name of the file in the cache.
    fn file_name(&self) -> String {
        let (shape, quant) = (self.shape.name, self.quant);
        format!("{shape}-{quant}-seed{}-v{VERSION}.gguf", self.seed)
    }

    /// Bytes of all tensors.
    pub(crate) fn weight_bytes(&self) -> u64 {
        tensors::list(self.shape, self.quant)
            .iter()
            .map(|t| t.byte_count() as u64)
            .sum()
    }
}

/// `<shape>`, `<shape>:<quant>`, either after `synth:`; seed 0.
impl FromStr for Recipe {
    type Err = Usage;

    fn from_str(name: &str) -> Result<Self, Usage> {
        let name = name.strip_prefix(SCHEME).unwrap_or(name);
        let (shape, quant) = name.split_once(':').unwrap_or((name, DEFAULT_QUANT));
        Self::new(shape, quant, 0)
    }
}

/// What names of synthetic models begin with.
pub(crate) const SCHEME: &str = "synth:";

/// The quantisation of a name that says none.
pub(crate) const DEFAULT_QUANT: &str = "q4_k_m";

/// A synthetic model in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether it was there already.
    pub(crate) cached: bool,
}

/// The model's file in `folder`, made if it is not there.
///
/// `progress` hears of the bytes of weights that are done, of [`Recipe::weight_bytes`], and may stop
/// the work with an error.
///
/// # Errors
/// If the folder cannot be written, or `progress` fails.
pub(crate) fn cached(
    recipe: &Recipe,
    folder: &Path,
    threads: usize,
    progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<Made> {
    let path = folder.join(recipe.file_name());
    // A file comes into its place only when it is whole.
    if path.is_file() {
        return Ok(Made { path, cached: true });
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    create(recipe, &path, threads, progress)?;
    Ok(Made {
        path,
        cached: false,
    })
}

/// Writes the model to `path`, which appears, or is replaced, when all is written.
///
/// # Errors
/// As [`cached`].
pub(crate) fn create(
    recipe: &Recipe,
    path: &Path,
    threads: usize,
    progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    check_space(folder.unwrap_or(Path::new(".")), recipe.weight_bytes())?;
    let scratch = tempfile::Builder::new()
        .prefix(".synth-")
        .make_in(folder.unwrap_or(Path::new(".")), |path| {
            File::create_new(path)
        })
        .with_context(cannot)?;
    let out = BufWriter::new(scratch.as_file());
    write(recipe, threads, out, progress).with_context(cannot)?;
    scratch.persist(path).with_context(cannot)?;
    Ok(())
}

/// Refuses to begin what the disk has no room for. Where that cannot be found out, nothing is refused.
fn check_space(folder: &Path, required: u64) -> anyhow::Result<()> {
    let Ok(found) = rustix::fs::statvfs(folder) else {
        return Ok(());
    };
    let available = found.f_bavail.saturating_mul(found.f_frsize);
    anyhow::ensure!(
        required <= available,
        "not enough room in {}: required {required} bytes ({}), available {available} bytes ({})",
        folder.display(),
        units::bytes(required),
        units::bytes(available)
    );
    Ok(())
}

/// Writes the model to any output.
///
/// # Errors
/// If the output or `progress` fails.
pub(crate) fn write<W: Write>(
    recipe: &Recipe,
    threads: usize,
    out: W,
    progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<W> {
    let tensors = tensors::list(recipe.shape, recipe.quant);
    let mut writer = Writer::new();
    declare(recipe, &mut writer)?;
    for tensor in &tensors {
        let tensor_type: TensorType = tensor.format.name().parse()?;
        writer.tensor(&tensor.name, &tensor.dims, tensor_type)?;
    }
    let mut stream = writer.start(out)?;
    let mut done = 0;
    for tensor in &tensors {
        let noise = Noise::new(recipe.seed, &tensor.name);
        match &tensor.content {
            Content::Matrix { rms } => {
                matrix(tensor, (noise, *rms), threads, &mut stream, &mut |bytes| {
                    progress(done + bytes)
                })?;
            }
            Content::Norm => vector(&noise.values(tensor.weights(), 1.0, 0.125), &mut stream)?,
            Content::Bias => vector(&noise.values(tensor.weights(), 0.0, 0.125), &mut stream)?,
            Content::Values(values) => vector(values, &mut stream)?,
        }
        done += tensor.byte_count() as u64;
        progress(done)?;
    }
    Ok(stream.finish()?)
}

fn vector(
    values: &[f32],
    stream: &mut TensorStream<impl Write>,
) -> Result<(), redline_gguf::Error> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    stream.write(&bytes)
}

fn matrix(
    tensor: &Tensor,
    (noise, rms): (Noise, f64),
    threads: usize,
    stream: &mut TensorStream<impl Write>,
    progress: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let format = tensor.format;
    let block = format.block_bytes();
    let total = tensor.byte_count();
    let mut piece = vec![0; (PIECE_BYTES / block * block).min(total)];
    let mut done = 0;
    while done < total {
        let piece_bytes = piece.len().min(total - done);
        let piece = &mut piece[..piece_bytes];
        let part = (piece_bytes / block).div_ceil(threads.max(1)) * block;
        std::thread::scope(|scope| {
            for (index, part_of_piece) in piece.chunks_mut(part).enumerate() {
                let first = ((done + index * part) / block) as u64;
                let mut make = move || weights::fill(format, noise, rms, first, part_of_piece);
                // A thread costs more than a small part.
                if part < 1 << 18 {
                    make()
                } else {
                    drop(scope.spawn(make))
                }
            }
        });
        stream.write(piece)?;
        done += piece_bytes;
        progress(done as u64)?;
    }
    Ok(())
}

/// Declares everything but tensors: the keys of the architecture, as converters write them.
fn declare(recipe: &Recipe, writer: &mut Writer) -> Result<(), redline_gguf::Error> {
    let shape = recipe.shape;
    let prefix = shape.architecture.name();
    writer.metadata("general.architecture", prefix)?;
    writer.metadata("general.type", "model")?;
    writer.metadata("general.name", &format!("{} (synthetic)", shape.name))?;
    writer.metadata(
        "general.description",
        "Seeded random weights in a known model's shape: for measuring speed, not for use.",
    )?;
    writer.metadata("redline.synth.shape", shape.name)?;
    writer.metadata("redline.synth.quant", &recipe.quant.to_string())?;
    writer.metadata("redline.synth.seed", recipe.seed)?;

    let mut key = |name: &str, value: u32| {
        writer
            .metadata(&format!("{prefix}.{name}"), value)
            .map(|_| ())
    };
    key("context_length", shape.context)?;
    key("embedding_length", shape.hidden as u32)?;
    key("block_count", shape.layers as u32)?;
    key("feed_forward_length", shape.feed_forward as u32)?;
    key("attention.head_count", shape.heads as u32)?;
    key("attention.head_count_kv", shape.kv_heads as u32)?;
    match shape.architecture {
        Architecture::Llama => {
            key("rope.dimension_count", shape.head_dim as u32)?;
            key("vocab_size", shape.vocab as u32)?;
        }
        Architecture::Phi3 => {
            key("rope.dimension_count", shape.head_dim as u32)?;
            key("rope.scaling.original_context_length", shape.context)?;
        }
        Architecture::Qwen2 | Architecture::Gpt2 => {}
        Architecture::GptOss => {
            key("attention.key_length", shape.head_dim as u32)?;
            key("attention.value_length", shape.head_dim as u32)?;
            key("expert_feed_forward_length", shape.feed_forward as u32)?;
        }
        Architecture::Gemma3 | Architecture::Qwen3 => {
            key("attention.key_length", shape.head_dim as u32)?;
            key("attention.value_length", shape.head_dim as u32)?;
        }
    }
    if let Some(window) = shape.window {
        key("attention.sliding_window", window)?;
    }
    if let Some(experts) = shape.experts {
        key("expert_count", experts.count as u32)?;
        key("expert_used_count", experts.per_token as u32)?;
    }
    if let Some(yarn) = shape.yarn {
        let original = "rope.scaling.original_context_length";
        key(original, yarn.original_context)?;
        writer.metadata(&format!("{prefix}.rope.scaling.type"), "yarn")?;
        writer.metadata(&format!("{prefix}.rope.scaling.factor"), yarn.factor)?;
    }
    let eps = if shape.architecture == Architecture::Gpt2 {
        "layer_norm_epsilon"
    } else {
        writer.metadata(&format!("{prefix}.rope.freq_base"), shape.rope_base)?;
        "layer_norm_rms_epsilon"
    };
    writer.metadata(&format!("{prefix}.attention.{eps}"), shape.norm_eps)?;
    vocabulary::declare(shape, writer)?;
    writer.metadata("general.quantization_version", 2_u32)?;
    writer.metadata("general.file_type", recipe.quant.file_type())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redline_compute::{Cpu, Isa};
    use redline_gguf::Gguf;
    use redline_model::{LoadOptions, Model, ModelFile};
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn bytes(name: &str, threads: usize, seed: u64) -> Vec<u8> {
        let recipe = Recipe {
            seed,
            ..name.parse().unwrap()
        };
        write(&recipe, threads, Vec::new(), &mut |_| Ok(())).unwrap()
    }

    #[test]
    fn bytes_depend_on_the_recipe_alone() {
        // Another hash is another VERSION: cached files must not be taken for what they are not.
        let pinned = [
            (
                "tiny-llama:q4_k_m",
                "e17c6500351ab89aba7766fc66929c77baa504b5da9eb0ec3f70cc6de291da51",
            ),
            (
                "tiny-qwen2:q8_0",
                "ac861f0a521b1459f62ef5bb304f4d0c2a353f83068f5bd17fff90fa08de04d0",
            ),
            (
                "tiny-qwen3:q4_k_m",
                "a5c8f8c068ffeeecca1cf1d32a1c52104e359e4a149ecaaa0e84fb36026697e1",
            ),
            (
                "tiny-gpt2:q8_0",
                "e03d1d19ffd0ed21a892c618ccf3e798be7e17763f7b0ec3cc2271dec6d5ef51",
            ),
            (
                "tiny-phi3:q4_k_m",
                "c394a5e63d824406edd1eefa21a233afe195f1c234372889d332d115dcabf48d",
            ),
            (
                "tiny-gemma3:f16",
                "c55ff9cc45ee63c34b709d154aae2c569deb534d1db60768afb6ef6b9211b19e",
            ),
        ];
        for (name, hash) in pinned {
            let one = bytes(name, 1, 0);
            for threads in [2, 3, 64] {
                assert!(
                    bytes(name, threads, 0) == one,
                    "{name} by {threads} threads"
                );
            }
            assert!(bytes(name, 1, 1) != one, "{name} with another seed");
            assert_eq!(units::hex(&Sha256::digest(&one)), hash, "{name}");
        }
    }

    /// A model has every tensor its metadata speaks of and no other.
    fn loads(name: &str, file: Vec<u8>) {
        let file = ModelFile::from_bytes(vec![file]);
        let options = LoadOptions {
            context: Some(64),
            ..LoadOptions::default()
        };
        let backend = Cpu::new(Isa::detect(), 1);
        let loaded = Model::load(&file, &file.gguf().unwrap(), backend, &options, &mut |_| ());
        assert!(loaded.is_ok(), "{name}: {:?}", loaded.err());
    }

    #[test]
    fn every_shape_that_is_small_parses_back_and_loads_in_every_quantisation() {
        for shape in SHAPES.iter().filter(|shape| shape.name.starts_with("tiny")) {
            for quant in Quant::all() {
                let recipe = Recipe::new(shape.name, &quant.to_string(), 0).unwrap();
                let mut last = 0;
                let file = write(&recipe, 2, Vec::new(), &mut |done| {
                    assert!(done >= last);
                    last = done;
                    Ok(())
                });
                let file = file.unwrap();
                assert_eq!(last, recipe.weight_bytes());
                let gguf = Gguf::parse(&[&file]).unwrap();
                let tensors = tensors::list(shape, quant);
                assert_eq!(gguf.tensors().len(), tensors.len());
                for (read, made) in gguf.tensors().iter().zip(&tensors) {
                    assert_eq!((read.name, &read.dims), (&*made.name, &made.dims));
                    assert_eq!(read.tensor_type.to_string(), made.format.name());
                    assert_eq!(read.data.len(), made.byte_count());
                }
                assert_eq!(
                    gguf.metadata().require_str("redline.synth.shape").unwrap(),
                    shape.name
                );
                loads(shape.name, file);
            }
        }
    }

    #[test]
    fn what_the_disk_has_no_room_for_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        check_space(folder.path(), 1).unwrap();
        let error = check_space(folder.path(), u64::MAX)
            .unwrap_err()
            .to_string();
        let required = format!("required {} bytes", u64::MAX);
        assert!(
            error.contains(&required) && error.contains("available "),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_made_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("synth");
        let recipe: Recipe = "synth:tiny-llama".parse().unwrap();
        let stopped = cached(&recipe, &cache, 1, &mut |_| anyhow::bail!("stop"));
        assert!(format!("{:#}", stopped.unwrap_err()).contains("stop"));
        assert_eq!(
            std::fs::read_dir(&cache).unwrap().count(),
            0,
            "nothing is left behind"
        );
        let first = cached(&recipe, &cache, 2, &mut |_| Ok(())).unwrap();
        let second = cached(&recipe, &cache, 1, &mut |_| unreachable!("it is there")).unwrap();
        assert_eq!((first.cached, second.cached), (false, true));
        assert_eq!(first.path, second.path);
        assert!(std::fs::read(&first.path).unwrap() == bytes("tiny-llama", 1, 0));
    }

    #[test]
    fn names_are_answered_with_what_is_known() {
        let recipe: Recipe = "synth:qwen2.5-0.5b:Q8_0".parse().unwrap();
        assert_eq!(
            (recipe.shape.name, recipe.quant.to_string()),
            ("qwen2.5-0.5b", "q8_0".into())
        );
        let recipe: Recipe = "gemma3-270m".parse().unwrap();
        assert_eq!(recipe.quant, Quant::Q4KM);
        let error = "synth:gpt9".parse::<Recipe>().unwrap_err().to_string();
        assert!(
            error.contains("gpt9") && error.contains("llama2-7b"),
            "{error}"
        );
        let error = "synth:llama2-7b:q9"
            .parse::<Recipe>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("q9") && error.contains("q4_k_m"), "{error}");
    }
}
