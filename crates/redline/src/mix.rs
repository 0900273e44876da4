//! Which format each matrix of a file has: formats, and the mixes of formats that llama.cpp knows.
//!
//! Source: llama.cpp's quantizer (`llama_tensor_get_type_impl` and `tensor_type_fallback` in
//! `src/llama-quant.cpp`), without an importance matrix: a file is named after the format most of its
//! matrices have.

use std::fmt;
use std::str::FromStr;

use redline_compute::Format;

/// What the matrices of a file are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quant {
    /// One format, except where the quantizer never uses it: see [`Quant::format`].
    Mostly(Format),
    /// Q3_K, with Q4_K and Q5_K for values, down and attention output matrices.
    Q3KM,
    /// Q3_K, with Q5_K for those.
    Q3KL,
    /// Q4_K, with Q5_K for the first layers' value and down matrices.
    Q4KS,
    /// Q4_K, with Q6_K for half of the value and down matrices.
    Q4KM,
    /// Q5_K, with Q6_K for half of the value and down matrices.
    Q5KM,
    /// MXFP4 for the matrices of experts, Q8_0 for all others.
    Mxfp4Moe,
}

/// What a matrix does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The embedding, in a model that has an output matrix too.
    Embedding,
    /// The output matrix, or an embedding that is the output matrix too.
    Head,
    /// Values, or queries, keys and values in one.
    Value {
        /// Which one of the model's, in order of layers.
        nth: usize,
        /// How many there are.
        of: usize,
    },
    /// Queries, keys and values in one, as files of Phi-3 have them that were published in 2024: the
    /// quantizer took these for values only later.
    Fused,
    /// Keys.
    Key,
    /// The output of attention.
    Output,
    /// The down projection of a layer.
    Down {
        /// The layer.
        layer: usize,
    },
    /// One projection of all experts.
    Experts,
    /// Another matrix of a model that has experts.
    BesideExperts,
    /// Any other.
    Plain,
}

/// What the mixes ask of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Layers.
    pub(crate) layers: usize,
    /// Query heads for each key head.
    pub(crate) queries_per_key: usize,
    /// Experts of a layer, 0 where there are none.
    pub(crate) experts: usize,
}

/// A matrix to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// What it does.
    pub(crate) role: Role,
    /// Weights of a row.
    pub(crate) cols: usize,
    /// Whether it is several experts' matrices.
    pub(crate) experts: bool,
}

impl Quant {
    /// Every choice.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Format::ALL.into_iter().map(Self::Mostly).chain([
            Self::Q3KM,
            Self::Q3KL,
            Self::Q4KS,
            Self::Q4KM,
            Self::Q5KM,
            Self::Mxfp4Moe,
        ])
    }

    /// The format of most matrices.
    const fn base(self) -> Format {
        match self {
            Self::Mostly(format) => format,
            Self::Q3KM | Self::Q3KL => Format::Q3_K,
            Self::Q4KS | Self::Q4KM => Format::Q4_K,
            Self::Q5KM => Format::Q5_K,
            Self::Mxfp4Moe => Format::Q8_0,
        }
    }

    /// The format of a matrix.
    pub(crate) fn format(self, matrix: Matrix, facts: Facts) -> Format {
        let (base, cols) = (self.base(), matrix.cols);
        if matches!(base, Format::F32 | Format::F16 | Format::BF16) {
            return base;
        }
        let wanted = match matrix.role {
            Role::Head if matches!(base, Format::Q8_0 | Format::MXFP4) => Format::Q8_0,
            Role::Head if !fits(base, cols) => Format::Q8_0,
            Role::Head => Format::Q6_K,
            Role::Experts if self == Self::Mxfp4Moe => Format::MXFP4,
            _ if matrix.experts && self == Self::Mxfp4Moe => Format::MXFP4,
            Role::BesideExperts if base == Format::MXFP4 => Format::Q8_0,
            Role::Value { nth, of } => self.value(nth, of, facts),
            Role::Key if facts.experts == 8 && self != Self::Mxfp4Moe => Format::Q8_0,
            Role::Down { layer } => self.down(layer, facts.layers),
            Role::Output => self.attention_output(facts),
            Role::Fused => match self {
                Self::Q3KM | Self::Q3KL => Format::Q4_K,
                Self::Q4KM => Format::Q5_K,
                Self::Q5KM => Format::Q6_K,
                _ => base,
            },
            _ => base,
        };
        fitting(wanted, cols)
    }

    fn value(self, nth: usize, of: usize, facts: Facts) -> Format {
        let many = facts.queries_per_key >= 4;
        let wanted = match self {
            Self::Mostly(Format::Q2_K) if many => Format::Q4_K,
            Self::Mostly(Format::Q2_K) => Format::Q3_K,
            Self::Mostly(Format::IQ4_NL | Format::IQ4_XS) if many => Format::Q5_K,
            Self::Q3KM if nth < 2 => Format::Q5_K,
            Self::Q3KM => Format::Q4_K,
            Self::Q3KL => Format::Q5_K,
            Self::Q4KS if nth < 4 => Format::Q5_K,
            Self::Q4KM | Self::Q5KM if more_bits(nth, of) => Format::Q6_K,
            _ => self.base(),
        };
        match wanted {
            _ if facts.experts == 8 && self != Self::Mxfp4Moe => Format::Q8_0,
            // Of models with 80 layers and shared keys, values are small.
            Format::Q3_K | Format::Q4_K if facts.layers == 80 && facts.queries_per_key > 1 => {
                Format::Q5_K
            }
            wanted => wanted,
        }
    }

    fn down(self, layer: usize, layers: usize) -> Format {
        match self {
            Self::Mostly(Format::Q2_K) => Format::Q3_K,
            Self::Q3KM if layer < layers / 16 => Format::Q5_K,
            Self::Q3KM => Format::Q4_K,
            Self::Q3KL => Format::Q5_K,
            Self::Mostly(Format::IQ4_NL | Format::IQ4_XS) | Self::Q4KS if layer < layers / 8 => {
                Format::Q5_K
            }
            Self::Q4KM | Self::Q5KM if more_bits(layer, layers) => Format::Q6_K,
            _ => self.base(),
        }
    }

    fn attention_output(self, facts: Facts) -> Format {
        match self {
            Self::Mostly(Format::Q2_K | Format::Q3_K | Format::IQ4_NL | Format::IQ4_XS)
            | Self::Q3KM
            | Self::Q4KS
            | Self::Q4KM
                if facts.experts == 8 =>
            {
                Format::Q5_K
            }
            Self::Mostly(Format::Q2_K) => Format::Q3_K,
            Self::Q3KM => Format::Q4_K,
            Self::Q3KL if facts.experts != 8 => Format::Q5_K,
            _ => self.base(),
        }
    }

    /// llama.cpp's number for such a file, `general.file_type` (`llama_ftype`).
    pub(crate) const fn file_type(self) -> u32 {
        match self {
            Self::Mostly(Format::F32) => 0,
            Self::Mostly(Format::F16) => 1,
            Self::Mostly(Format::Q4_0) => 2,
            Self::Mostly(Format::Q4_1) => 3,
            Self::Mostly(Format::Q8_0) => 7,
            Self::Mostly(Format::Q5_0) => 8,
            Self::Mostly(Format::Q5_1) => 9,
            Self::Mostly(Format::Q2_K) => 10,
            Self::Mostly(Format::Q3_K) => 11,
            Self::Q3KM => 12,
            Self::Q3KL => 13,
            // The small mix, of Q4_K alone the nearest that has a number.
            Self::Mostly(Format::Q4_K) | Self::Q4KS => 14,
            Self::Q4KM => 15,
            Self::Mostly(Format::Q5_K) => 16,
            Self::Q5KM => 17,
            Self::Mostly(Format::Q6_K) => 18,
            Self::Mostly(Format::IQ4_NL) => 25,
            Self::Mostly(Format::IQ4_XS) => 30,
            Self::Mostly(Format::BF16) => 32,
            Self::Mostly(Format::MXFP4) | Self::Mxfp4Moe => 38,
        }
    }
}

/// The format, or what stands in for it where rows are not whole blocks.
fn fitting(wanted: Format, cols: usize) -> Format {
    if fits(wanted, cols) {
        return wanted;
    }
    let smaller = match wanted {
        Format::IQ4_XS => Format::IQ4_NL,
        Format::Q2_K | Format::Q3_K => Format::Q4_0,
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        _ => Format::F16,
    };
    if fits(smaller, cols) {
        smaller
    } else {
        Format::F16
    }
}

fn fits(format: Format, cols: usize) -> bool {
    cols.is_multiple_of(format.block_weights())
}

/// The first and last eighth of the layers, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mostly(format) => f.write_str(&format.name().to_lowercase()),
            Self::Q3KM => f.write_str("q3_k_m"),
            Self::Q3KL => f.write_str("q3_k_l"),
            Self::Q4KS => f.write_str("q4_k_s"),
            Self::Q4KM => f.write_str("q4_k_m"),
            Self::Q5KM => f.write_str("q5_k_m"),
            Self::Mxfp4Moe => f.write_str("mxfp4_moe"),
        }
    }
}

impl FromStr for Quant {
    type Err = UnknownQuant;

    fn from_str(name: &str) -> Result<Self, UnknownQuant> {
        // Small mixes that are no mixes.
        let name = match name.to_lowercase().as_str() {
            "q3_k_s" => "q3_k",
            "q5_k_s" => "q5_k",
            _ => name,
        };
        let named = |quant: &Self| quant.to_string().eq_ignore_ascii_case(name);
        Self::all().find(named).ok_or_else(|| UnknownQuant {
            found: name.to_owned(),
        })
    }
}

/// A name that is no [`Quant`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown quantisation {found:?}: expected one of {}", names())]
pub(crate) struct UnknownQuant {
    found: String,
}

/// All names, for messages.
pub(crate) fn names() -> String {
    Quant::all()
        .map(|quant| quant.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        layers: 18,
        queries_per_key: 4,
        experts: 0,
    };

    fn matrix(role: Role, cols: usize) -> Matrix {
        Matrix {
            role,
            cols,
            experts: false,
        }
    }

    #[test]
    fn the_mix_is_that_of_a_real_gemma_3_270m_q4_k_m() {
        // 18 layers, hidden 640, feed-forward 2048: read from the published file.
        let more: Vec<usize> = (0..18).filter(|layer| more_bits(*layer, 18)).collect();
        assert_eq!(more, [0, 1, 4, 7, 10, 13, 15, 16, 17]);
        let format = |role, cols| Quant::Q4KM.format(matrix(role, cols), FACTS);
        let value = |nth| Role::Value { nth, of: 18 };
        assert_eq!(format(Role::Head, 640), Format::Q8_0);
        assert_eq!(format(Role::Plain, 640), Format::Q5_0);
        assert_eq!(format(Role::Plain, 1024), Format::Q4_K);
        assert_eq!(format(value(0), 640), Format::Q8_0);
        assert_eq!(format(Role::Down { layer: 0 }, 2048), Format::Q6_K);
        assert_eq!(format(value(2), 640), Format::Q5_0);
        assert_eq!(format(Role::Down { layer: 2 }, 2048), Format::Q4_K);
    }

    #[test]
    fn a_file_of_one_format_keeps_its_head_better() {
        // As the published SmolLM2 135M Q4_1: hidden 576, tied.
        let format = |quant, role, cols| Quant::Mostly(quant).format(matrix(role, cols), FACTS);
        assert_eq!(format(Format::Q4_1, Role::Head, 576), Format::Q8_0);
        assert_eq!(
            format(Format::Q4_1, Role::Down { layer: 0 }, 576),
            Format::Q4_1
        );
        assert_eq!(format(Format::Q4_0, Role::Head, 4096), Format::Q6_K);
        assert_eq!(format(Format::Q4_0, Role::Embedding, 4096), Format::Q4_0);
        assert_eq!(format(Format::Q8_0, Role::Head, 4096), Format::Q8_0);
        assert_eq!(format(Format::Q5_K, Role::Plain, 576), Format::Q5_1);
        assert_eq!(format(Format::F16, Role::Head, 4096), Format::F16);
    }

    #[test]
    fn names_are_read_in_any_case_and_unknown_ones_answered_with_the_known() {
        for quant in Quant::all() {
            assert_eq!(quant.to_string().parse(), Ok(quant));
            assert_eq!(quant.to_string().to_uppercase().parse(), Ok(quant));
        }
        let error = "q7_k".parse::<Quant>().unwrap_err().to_string();
        assert!(
            error.contains("q7_k") && error.contains("q4_k_m"),
            "{error}"
        );
    }
}
