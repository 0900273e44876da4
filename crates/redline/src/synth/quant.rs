//! Which format each matrix of a file has.
//!
//! Source: llama.cpp's quantizer (`llama_tensor_get_type_impl` and `tensor_type_fallback` in
//! `src/llama-quant.cpp`): a file is named after the format most of its matrices have.

use std::fmt;
use std::str::FromStr;

use redline_compute::Format;

/// What the matrices of a file are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quant {
    /// One format, except where the quantizer never uses it: see [`Quant::format`].
    Mostly(Format),
    /// Q4_K, with Q6_K for half of the value and down matrices.
    Q4KM,
    /// Q5_K, with Q6_K for half of the value and down matrices.
    Q5KM,
}

/// What a matrix does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The embedding, in a model that has an output matrix too.
    Embedding,
    /// The output matrix, or an embedding that is the output matrix too.
    Head,
    /// Values, or the down projection, of a layer.
    Sensitive {
        /// The layer.
        layer: usize,
    },
    /// One projection of all experts.
    Experts,
    /// Another matrix of a model that has experts.
    BesideExperts,
    /// Queries, keys and values in one.
    Fused,
    /// Any other.
    Plain,
}

impl Quant {
    /// Every choice.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Format::ALL
            .into_iter()
            .map(Self::Mostly)
            .chain([Self::Q4KM, Self::Q5KM])
    }

    /// The format of most matrices.
    const fn base(self) -> Format {
        match self {
            Self::Mostly(format) => format,
            Self::Q4KM => Format::Q4_K,
            Self::Q5KM => Format::Q5_K,
        }
    }

    /// The format of a matrix with rows of `cols` weights in a model of `layers` layers.
    pub(super) fn format(self, role: Role, cols: usize, layers: usize) -> Format {
        let base = self.base();
        if matches!(base, Format::F32 | Format::F16 | Format::BF16) {
            return base;
        }
        let mixed = matches!(self, Self::Q4KM | Self::Q5KM);
        let wanted = match role {
            Role::Head if base == Format::Q8_0 || !fits(base, cols) => Format::Q8_0,
            Role::Head => Format::Q6_K,
            Role::Sensitive { layer } if mixed && more_bits(layer, layers) => Format::Q6_K,
            Role::BesideExperts if base == Format::MXFP4 => Format::Q8_0,
            Role::Fused if self == Self::Q4KM => Format::Q5_K,
            Role::Fused if self == Self::Q5KM => Format::Q6_K,
            _ => base,
        };
        if fits(wanted, cols) {
            return wanted;
        }
        match wanted {
            Format::Q4_K => Format::Q5_0,
            Format::Q5_K => Format::Q5_1,
            Format::Q6_K => Format::Q8_0,
            _ => Format::F16,
        }
    }

    /// llama.cpp's number for such a file, `general.file_type` (`llama_ftype`).
    pub(super) const fn file_type(self) -> u32 {
        match self {
            Self::Mostly(Format::F32) => 0,
            Self::Mostly(Format::F16) => 1,
            Self::Mostly(Format::Q4_0) => 2,
            Self::Mostly(Format::Q4_1) => 3,
            Self::Mostly(Format::Q8_0) => 7,
            Self::Mostly(Format::Q5_0) => 8,
            Self::Mostly(Format::Q5_1) => 9,
            // The small mix, the nearest that has a number.
            Self::Mostly(Format::Q4_K) => 14,
            Self::Q4KM => 15,
            Self::Mostly(Format::Q5_K) => 16,
            Self::Q5KM => 17,
            Self::Mostly(Format::Q6_K) => 18,
            Self::Mostly(Format::BF16) => 32,
            Self::Mostly(Format::MXFP4) => 38,
        }
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
            Self::Q4KM => f.write_str("q4_k_m"),
            Self::Q5KM => f.write_str("q5_k_m"),
        }
    }
}

impl FromStr for Quant {
    type Err = UnknownQuant;

    fn from_str(name: &str) -> Result<Self, UnknownQuant> {
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

    #[test]
    fn the_mix_is_that_of_a_real_gemma_3_270m_q4_k_m() {
        // 18 layers, hidden 640, feed-forward 2048: read from the published file.
        let more: Vec<usize> = (0..18).filter(|layer| more_bits(*layer, 18)).collect();
        assert_eq!(more, [0, 1, 4, 7, 10, 13, 15, 16, 17]);
        let format = |role, cols| Quant::Q4KM.format(role, cols, 18);
        assert_eq!(format(Role::Head, 640), Format::Q8_0);
        assert_eq!(format(Role::Plain, 640), Format::Q5_0);
        assert_eq!(format(Role::Plain, 1024), Format::Q4_K);
        assert_eq!(format(Role::Sensitive { layer: 0 }, 640), Format::Q8_0);
        assert_eq!(format(Role::Sensitive { layer: 0 }, 2048), Format::Q6_K);
        assert_eq!(format(Role::Sensitive { layer: 2 }, 640), Format::Q5_0);
        assert_eq!(format(Role::Sensitive { layer: 2 }, 2048), Format::Q4_K);
    }

    #[test]
    fn a_file_of_one_format_keeps_its_head_better() {
        // As the published SmolLM2 135M Q4_1: hidden 576, tied.
        let format = |quant, role, cols| Quant::Mostly(quant).format(role, cols, 30);
        assert_eq!(format(Format::Q4_1, Role::Head, 576), Format::Q8_0);
        assert_eq!(
            format(Format::Q4_1, Role::Sensitive { layer: 0 }, 576),
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
        let error = "q3_k".parse::<Quant>().unwrap_err().to_string();
        assert!(
            error.contains("q3_k") && error.contains("q4_k_m"),
            "{error}"
        );
    }
}
