//! The catalogue of shapes: published configurations of known models, and tiny ones.
//!
//! Sources: the `config.json` of each model's repository, named in its `about`.

/// A family of models with the same tensors and metadata keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Llama 1 to 3 and what is shaped like it.
    Llama,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: norms of each query and key head.
    Qwen3,
    /// GPT-2: layer norms, learned positions, a network without a gate, biases everywhere.
    Gpt2,
    /// Gemma 3: norms around every part, and of each head.
    Gemma3,
    /// Phi-3: query, key and value rows in one tensor, gate and up rows in another.
    Phi3,
    /// gpt-oss: experts, sinks, biases, YaRN.
    GptOss,
}

impl Architecture {
    /// `general.architecture`, the prefix of the model's keys.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gpt2 => "gpt2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::GptOss => "gpt-oss",
        }
    }
}

/// Which tokenizer's kind and special tokens a vocabulary has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokenizer {
    /// SentencePiece of Llama 1 and 2, Mistral.
    Llama2,
    /// Llama 2's with the tokens of Phi-3's conversations.
    Phi3,
    /// SentencePiece of Gemma.
    Gemma,
    /// Byte-level BPE of Llama 3.
    Llama3,
    /// Byte-level BPE of Qwen2.
    Qwen2,
    /// Byte-level BPE of GPT-2.
    Gpt2,
    /// Byte-level BPE of SmolLM.
    SmolLm,
    /// Byte-level BPE of gpt-oss.
    GptOss,
}

/// Llama 3's stretching of the slow rotations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RopeScaling {
    pub(super) factor: f64,
    pub(super) low_frequency_factor: f64,
    pub(super) high_frequency_factor: f64,
    pub(super) original_context: f64,
}

/// YaRN's stretching of the slow rotations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Yarn {
    pub(super) factor: f32,
    pub(super) original_context: u32,
}

/// Networks of which each token takes a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Experts {
    pub(super) count: usize,
    pub(super) per_token: usize,
}

/// Everything that decides tensors, their sizes, and metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// The name users give.
    pub(crate) name: &'static str,
    /// Whose shape it is.
    pub(crate) about: &'static str,
    pub(super) architecture: Architecture,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) feed_forward: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) vocab: usize,
    pub(super) context: u32,
    pub(super) norm_eps: f32,
    pub(super) rope_base: f32,
    pub(super) rope_scaling: Option<RopeScaling>,
    pub(super) yarn: Option<Yarn>,
    pub(super) experts: Option<Experts>,
    /// Positions that local layers see.
    pub(super) window: Option<u32>,
    /// The embedding is the head too.
    pub(super) tied: bool,
    pub(super) tokenizer: Tokenizer,
}

/// What most Llamas share; sizes are to be given.
const LLAMA: Shape = Shape {
    name: "",
    about: "",
    architecture: Architecture::Llama,
    layers: 0,
    hidden: 0,
    feed_forward: 0,
    heads: 0,
    kv_heads: 0,
    head_dim: 0,
    vocab: 32_000,
    context: 4096,
    norm_eps: 1e-5,
    rope_base: 10_000.0,
    rope_scaling: None,
    yarn: None,
    experts: None,
    window: None,
    tied: false,
    tokenizer: Tokenizer::Llama2,
};

/// What the small Qwen2.5 share.
const QWEN: Shape = Shape {
    architecture: Architecture::Qwen2,
    vocab: 151_936,
    context: 32_768,
    norm_eps: 1e-6,
    rope_base: 1_000_000.0,
    tied: true,
    tokenizer: Tokenizer::Qwen2,
    ..LLAMA
};

/// What the small Qwen3 share.
const QWEN3: Shape = Shape {
    architecture: Architecture::Qwen3,
    context: 40_960,
    head_dim: 128,
    ..QWEN
};

/// What all GPT-2 share.
const GPT2: Shape = Shape {
    architecture: Architecture::Gpt2,
    vocab: 50_257,
    context: 1024,
    tied: true,
    tokenizer: Tokenizer::Gpt2,
    ..LLAMA
};

/// What the small Phi-3 share.
const PHI: Shape = Shape {
    architecture: Architecture::Phi3,
    vocab: 32_064,
    window: Some(2047),
    tokenizer: Tokenizer::Phi3,
    ..LLAMA
};

/// What the small Gemma 3 share.
const GEMMA: Shape = Shape {
    architecture: Architecture::Gemma3,
    heads: 4,
    kv_heads: 1,
    head_dim: 256,
    vocab: 262_144,
    context: 32_768,
    norm_eps: 1e-6,
    rope_base: 1_000_000.0,
    window: Some(512),
    tied: true,
    tokenizer: Tokenizer::Gemma,
    ..LLAMA
};

/// What gpt-oss's sizes share.
const GPT_OSS: Shape = Shape {
    architecture: Architecture::GptOss,
    head_dim: 64,
    vocab: 201_088,
    context: 131_072,
    rope_base: 150_000.0,
    yarn: Some(Yarn {
        factor: 32.0,
        original_context: 4096,
    }),
    window: Some(128),
    tokenizer: Tokenizer::GptOss,
    ..LLAMA
};

/// Every shape.
pub(crate) const ALL: [Shape; 19] = [
    Shape {
        name: "qwen2.5-0.5b",
        about: "Qwen/Qwen2.5-0.5B-Instruct",
        layers: 24,
        hidden: 896,
        feed_forward: 4864,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        ..QWEN
    },
    Shape {
        name: "qwen2.5-1.5b",
        about: "Qwen/Qwen2.5-1.5B-Instruct",
        layers: 28,
        hidden: 1536,
        feed_forward: 8960,
        heads: 12,
        kv_heads: 2,
        head_dim: 128,
        ..QWEN
    },
    Shape {
        name: "qwen3-0.6b",
        about: "Qwen/Qwen3-0.6B",
        layers: 28,
        hidden: 1024,
        feed_forward: 3072,
        heads: 16,
        kv_heads: 8,
        ..QWEN3
    },
    Shape {
        name: "gpt2",
        about: "openai-community/gpt2",
        layers: 12,
        hidden: 768,
        feed_forward: 3072,
        heads: 12,
        kv_heads: 12,
        head_dim: 64,
        ..GPT2
    },
    Shape {
        name: "smollm2-135m",
        about: "HuggingFaceTB/SmolLM2-135M-Instruct",
        layers: 30,
        hidden: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocab: 49_152,
        context: 8192,
        rope_base: 100_000.0,
        tied: true,
        tokenizer: Tokenizer::SmolLm,
        ..LLAMA
    },
    Shape {
        name: "llama3.2-1b",
        about: "meta-llama/Llama-3.2-1B-Instruct",
        layers: 16,
        hidden: 2048,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        vocab: 128_256,
        context: 131_072,
        rope_base: 500_000.0,
        rope_scaling: Some(RopeScaling {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        }),
        tied: true,
        tokenizer: Tokenizer::Llama3,
        ..LLAMA
    },
    Shape {
        name: "llama2-7b",
        about: "meta-llama/Llama-2-7b-hf",
        layers: 32,
        hidden: 4096,
        feed_forward: 11_008,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        ..LLAMA
    },
    Shape {
        name: "mistral-7b",
        about: "mistralai/Mistral-7B-v0.3",
        layers: 32,
        hidden: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab: 32_768,
        context: 32_768,
        rope_base: 1_000_000.0,
        ..LLAMA
    },
    Shape {
        name: "phi-3-mini-4k",
        about: "microsoft/Phi-3-mini-4k-instruct",
        layers: 32,
        hidden: 3072,
        feed_forward: 8192,
        heads: 32,
        kv_heads: 32,
        head_dim: 96,
        ..PHI
    },
    Shape {
        name: "gemma3-270m",
        about: "google/gemma-3-270m",
        layers: 18,
        hidden: 640,
        feed_forward: 2048,
        ..GEMMA
    },
    Shape {
        name: "gemma3-1b",
        about: "google/gemma-3-1b-it",
        layers: 26,
        hidden: 1152,
        feed_forward: 6912,
        ..GEMMA
    },
    Shape {
        name: "gpt-oss-20b",
        about: "openai/gpt-oss-20b",
        layers: 24,
        hidden: 2880,
        feed_forward: 2880,
        heads: 64,
        kv_heads: 8,
        experts: Some(Experts {
            count: 32,
            per_token: 4,
        }),
        ..GPT_OSS
    },
    Shape {
        name: "tiny-llama",
        about: "a model of nobody: rows of whole K blocks, an output matrix of its own",
        layers: 2,
        hidden: 256,
        feed_forward: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 512,
        context: 512,
        ..LLAMA
    },
    Shape {
        name: "tiny-qwen2",
        about: "a model of nobody: rows that are no whole K blocks",
        layers: 2,
        hidden: 128,
        feed_forward: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        vocab: 512,
        context: 512,
        ..QWEN
    },
    Shape {
        name: "tiny-qwen3",
        about: "a model of nobody: heads wider together than the residual stream",
        layers: 2,
        hidden: 128,
        feed_forward: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 512,
        context: 512,
        ..QWEN3
    },
    Shape {
        name: "tiny-gpt2",
        about: "a model of nobody: learned positions, a network without a gate",
        layers: 2,
        hidden: 256,
        feed_forward: 512,
        heads: 4,
        kv_heads: 4,
        head_dim: 64,
        vocab: 512,
        context: 512,
        ..GPT2
    },
    Shape {
        name: "tiny-gemma3",
        about: "a model of nobody: six local layers' pattern and a window of 16",
        layers: 7,
        hidden: 128,
        feed_forward: 256,
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
        vocab: 512,
        context: 512,
        window: Some(16),
        ..GEMMA
    },
    Shape {
        name: "tiny-phi3",
        about: "a model of nobody: shared keys and a window of 48",
        layers: 2,
        hidden: 256,
        feed_forward: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 512,
        context: 512,
        window: Some(48),
        ..PHI
    },
    Shape {
        name: "tiny-gpt-oss",
        about: "a model of nobody: two of five experts, a window of 16 in every other layer",
        layers: 3,
        hidden: 128,
        feed_forward: 160,
        heads: 6,
        kv_heads: 2,
        head_dim: 32,
        vocab: 512,
        context: 512,
        yarn: Some(Yarn {
            factor: 8.0,
            original_context: 64,
        }),
        window: Some(16),
        experts: Some(Experts {
            count: 5,
            per_token: 2,
        }),
        ..GPT_OSS
    },
];

/// The shape called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Shape> {
    const SHAPES: &[Shape] = &ALL;
    SHAPES.iter().find(|shape| shape.name == name)
}

/// All names, for messages.
pub(crate) fn names() -> String {
    ALL.iter()
        .map(|shape| shape.name)
        .collect::<Vec<_>>()
        .join(", ")
}
