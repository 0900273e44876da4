//! Which cases there are.

use redline_compute::{Activation, Format, KvFormat, RopeStyle};

use super::attention::Heads;
use super::experts::{self, EXPERTS, PER_TOKEN};
use super::rows::Verb;
use super::{Case, Kind, feed_forward, matmul};

/// `[rows, cols]` of matrices of real models: Phi-3-mini's fused queries, keys and values, and the
/// down projection of Qwen2.5-0.5B. Every format has whole blocks in both.
const MATRICES: [(usize, usize); 2] = [(9216, 3072), (896, 4864)];
/// Tokens of a decode step, of small batches, of a prompt.
const FEW_TOKENS: [usize; 4] = [1, 2, 4, 8];
const MANY_TOKENS: [usize; 3] = [32, 128, 512];
const DEPTHS: [usize; 3] = [128, 1024, 4096];
/// Attention of Qwen2.5-0.5B and of Phi-3-mini.
const HEADS: [Heads; 2] = [
    Heads {
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
    },
    Heads {
        heads: 32,
        kv_heads: 32,
        head_dim: 96,
    },
];
/// Width and hidden width of the feed-forward networks of Qwen2.5-0.5B, whose rows have no blocks of 256,
/// and of Phi-3-mini.
const NETWORKS: [(usize, usize); 2] = [(896, 4864), (3072, 8192)];
/// Width of the verbs that work on rows: Phi-3-mini's.
pub(super) const WIDTH: usize = 3072;

/// Every case, in the order of the report.
pub(super) fn all() -> Vec<Case> {
    let mut cases = matmuls();
    cases.extend(KvFormat::ALL.into_iter().flat_map(attentions));
    cases.extend(experts());
    cases.extend(feed_forwards());
    for tokens in [1, 512] {
        cases.extend(
            verbs()
                .into_iter()
                .map(|(name, verb)| rows(name, verb, tokens)),
        );
    }
    cases
}

fn matmuls() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in Format::ALL {
        for (rows, cols) in MATRICES {
            let case = |tokens, beyond_caches| Case {
                verb: "matmul",
                format: format.name().to_lowercase(),
                shape: format!("{rows}x{cols}"),
                tokens,
                depth: None,
                beyond_caches,
                kind: Kind::Matmul(matmul::Shape { format, rows, cols }),
            };
            cases.extend(FEW_TOKENS.map(|tokens| case(tokens, true)));
            cases.extend(FEW_TOKENS.map(|tokens| case(tokens, false)));
            cases.extend(MANY_TOKENS.map(|tokens| case(tokens, false)));
        }
    }
    cases
}

fn attentions(format: KvFormat) -> Vec<Case> {
    let mut cases = Vec::new();
    for heads in HEADS {
        let case = |tokens, depth| Case {
            verb: "attention",
            format: format.name().to_owned(),
            shape: format!(
                "{}/{} heads of {}",
                heads.heads, heads.kv_heads, heads.head_dim
            ),
            tokens,
            depth: Some(depth),
            beyond_caches: false,
            kind: Kind::Attention(heads, format),
        };
        cases.extend(DEPTHS.map(|depth| case(1, depth)));
        cases.extend([case(512, 0), case(512, 2048)]);
    }
    cases
}

fn experts() -> Vec<Case> {
    let case = |format: Format, tokens| Case {
        verb: "experts",
        format: format.name().to_lowercase(),
        shape: format!(
            "{PER_TOKEN} of {EXPERTS}, {}x{}",
            experts::ROWS,
            experts::COLS
        ),
        tokens,
        depth: None,
        beyond_caches: false,
        kind: Kind::Experts(format),
    };
    [Format::Q4_K, Format::Q8_0]
        .into_iter()
        .flat_map(|format| [1, 8, 128].map(|tokens| case(format, tokens)))
        .collect()
}

fn feed_forwards() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in Format::ALL {
        for (width, hidden) in NETWORKS {
            if !width.is_multiple_of(format.block_weights()) {
                continue;
            }
            let shape = feed_forward::Shape {
                format,
                width,
                hidden,
            };
            cases.extend([1, 8, 32, 128, 512].map(|tokens| Case {
                verb: "feed_forward",
                format: format.name().to_lowercase(),
                shape: format!("{width}-{hidden}"),
                tokens,
                depth: None,
                beyond_caches: false,
                kind: Kind::FeedForward(shape),
            }));
        }
    }
    cases
}

fn verbs() -> Vec<(&'static str, Verb)> {
    vec![
        ("embed", Verb::Embed(Format::Q4_K)),
        ("embed", Verb::Embed(Format::Q8_0)),
        ("embed", Verb::Embed(Format::F16)),
        ("norm rms", Verb::Norm),
        ("rope neox", Verb::Rope(RopeStyle::Neox)),
        ("rope interleaved", Verb::Rope(RopeStyle::Interleaved)),
        ("append_kv", Verb::AppendKv(KvFormat::F16)),
        ("append_kv", Verb::AppendKv(KvFormat::F32)),
        ("append_kv", Verb::AppendKv(KvFormat::Q8_0)),
        ("gated silu", Verb::Gated(Activation::Silu)),
        ("gated gelu", Verb::Gated(Activation::GeluTanh)),
        ("gated clamped", Verb::Gated(Activation::ClampedSwiglu)),
        ("add", Verb::Add),
    ]
}

fn rows(name: &'static str, verb: Verb, tokens: usize) -> Case {
    let format = match verb {
        Verb::Embed(format) => format.name().to_lowercase(),
        Verb::AppendKv(format) => format.name().to_owned(),
        _ => "f32".to_owned(),
    };
    Case {
        verb: name,
        format,
        shape: WIDTH.to_string(),
        tokens,
        depth: None,
        beyond_caches: false,
        kind: Kind::Rows(verb),
    }
}
