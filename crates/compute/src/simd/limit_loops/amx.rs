//! AMX: products of 16-row tiles, by inline assembly (the intrinsics are unstable).

use std::arch::asm;

use crate::simd::tiles::{Configuration, has_bf16, has_int8};

/// Accumulator tiles: two of each operand, every pair.
pub(super) const CHAINS: u64 = 4;
/// Multiplications of one instruction: 16 × 16 results of 64 bytes each.
pub(super) const INT8_PRODUCTS: u64 = 16 * 16 * 64;
/// As above, 32 values each.
pub(super) const BF16_PRODUCTS: u64 = 16 * 16 * 32;

static TILES: Configuration = Configuration::of_depth(64);

/// `steps` times: four tile products with the instruction named.
macro_rules! tile_loop {
    ($name:ident, $instruction:literal, $has:ident, $fill:expr) => {
        pub(super) fn $name(steps: u64) -> u64 {
            assert!($has());
            let operand = [$fill; 1024];
            let mut result = [0_u8; 1024];
            // SAFETY: the instructions were detected and permitted; they read the configuration
            // and `operand` and write `result`, each of the size they need.
            unsafe {
                asm!(
                    "ldtilecfg [{configuration}]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tileloadd tmm4, [{operand} + {stride}]",
                    "tileloadd tmm5, [{operand} + {stride}]",
                    "tileloadd tmm6, [{operand} + {stride}]",
                    "tileloadd tmm7, [{operand} + {stride}]",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    "tilestored [{result} + {stride}], tmm0",
                    "tilerelease",
                    configuration = in(reg) &raw const TILES,
                    operand = in(reg) operand.as_ptr(),
                    result = in(reg) result.as_mut_ptr(),
                    stride = in(reg) 64_usize,
                    steps = inout(reg) steps => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
            result.iter().fold(0, |sum, &byte| sum + u64::from(byte))
        }
    };
}

tile_loop!(int8, "tdpbusd", has_int8, 3_u8);
tile_loop!(bf16, "tdpbf16ps", has_bf16, 0_u8);
