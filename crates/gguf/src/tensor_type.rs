//! The tensor types GGUF defines, with their block sizes.

use std::fmt;
use std::str::FromStr;

use crate::Error;

macro_rules! tensor_types {
    ($($name:ident = $id:literal, $block_weights:literal, $block_bytes:literal;)*) => {
        /// How the weights of a tensor are stored.
        ///
        /// Numbers and block layouts are those of ggml. Numbers it has withdrawn (4, 5, 31..=33,
        /// 36..=38) are unknown.
        ///
        /// Source: `enum ggml_type` in ggml's `ggml.h`, block structures in `ggml-common.h`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(non_camel_case_types, reason = "the types' own names: Q4_K, not Q4K")]
        #[allow(missing_docs, reason = "each name is the documentation; sizes are in the methods")]
        pub enum TensorType { $($name,)* }

        impl TensorType {
            /// Every type, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The type with this number in a file, if GGUF defines one.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The type's number in a file.
            #[must_use]
            pub const fn id(self) -> u32 {
                match self { $(Self::$name => $id,)* }
            }

            /// Weights in one block.
            #[must_use]
            pub const fn block_weights(self) -> usize {
                match self { $(Self::$name => $block_weights,)* }
            }

            /// Bytes of one block.
            #[must_use]
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$name => $block_bytes,)* }
            }

            /// The type's name: `"F32"`, `"Q4_K"`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

// name = number, weights per block, bytes per block
tensor_types! {
    F32 = 0, 1, 4;
    F16 = 1, 1, 2;
    Q4_0 = 2, 32, 18;
    Q4_1 = 3, 32, 20;
    Q5_0 = 6, 32, 22;
    Q5_1 = 7, 32, 24;
    Q8_0 = 8, 32, 34;
    Q8_1 = 9, 32, 36;
    Q2_K = 10, 256, 84;
    Q3_K = 11, 256, 110;
    Q4_K = 12, 256, 144;
    Q5_K = 13, 256, 176;
    Q6_K = 14, 256, 210;
    Q8_K = 15, 256, 292;
    IQ2_XXS = 16, 256, 66;
    IQ2_XS = 17, 256, 74;
    IQ3_XXS = 18, 256, 98;
    IQ1_S = 19, 256, 50;
    IQ4_NL = 20, 32, 18;
    IQ3_S = 21, 256, 110;
    IQ2_S = 22, 256, 82;
    IQ4_XS = 23, 256, 136;
    I8 = 24, 1, 1;
    I16 = 25, 1, 2;
    I32 = 26, 1, 4;
    I64 = 27, 1, 8;
    F64 = 28, 1, 8;
    IQ1_M = 29, 256, 56;
    BF16 = 30, 1, 2;
    TQ1_0 = 34, 256, 54;
    TQ2_0 = 35, 256, 66;
    MXFP4 = 39, 32, 17;
    NVFP4 = 40, 64, 36;
    Q1_0 = 41, 128, 18;
    Q2_0 = 42, 64, 18;
}

impl TensorType {
    /// Bytes of a row of `cols` weights; `None` if that is not whole blocks, or overflows.
    #[must_use]
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        match (
            cols.checked_rem(self.block_weights()),
            cols.checked_div(self.block_weights()),
        ) {
            (Some(0), Some(blocks)) => blocks.checked_mul(self.block_bytes()),
            _ => None,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TensorType {
    type Err = Error;

    /// Case does not matter.
    fn from_str(s: &str) -> Result<Self, Error> {
        Self::ALL
            .iter()
            .copied()
            .find(|tensor_type| tensor_type.name().eq_ignore_ascii_case(s))
            .ok_or_else(|| Error::UnknownTensorTypeName {
                found: s.to_owned(),
            })
    }
}
