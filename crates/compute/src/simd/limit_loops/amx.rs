//! AMX: products of 16-row tiles, by inline assembly (the intrinsics are unstable).
//!
//! Linux grants a process the tile registers on request only.
//! Source: Intel 64 and IA-32 manuals, volume 1 chapter 18; Linux `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Accumulator tiles: two of each operand, every pair.
pub(super) const CHAINS: u64 = 4;
/// Multiplications of one instruction: 16 × 16 results of 64 bytes each.
pub(super) const INT8_PRODUCTS: u64 = 16 * 16 * 64;
/// As above, 32 values each.
pub(super) const BF16_PRODUCTS: u64 = 16 * 16 * 32;

/// CPUID leaf 7, register EDX.
const BF16: u32 = 1 << 22;
const TILE: u32 = 1 << 24;
const INT8: u32 = 1 << 25;

pub(super) fn has_int8() -> bool {
    features() & (INT8 | TILE) == INT8 | TILE
}

pub(super) fn has_bf16() -> bool {
    features() & (BF16 | TILE) == BF16 | TILE
}

/// The processor's AMX bits, or none where the system refuses the tile registers.
fn features() -> u32 {
    static FEATURES: OnceLock<u32> = OnceLock::new();
    *FEATURES.get_or_init(|| {
        let bits = if __cpuid_count(0, 0).eax >= 7 {
            __cpuid_count(7, 0).edx
        } else {
            0
        };
        if bits & TILE != 0 && permitted() {
            bits
        } else {
            0
        }
    })
}

/// Asks Linux for the tile data state, once for the whole process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: this system call takes two integers and touches no memory of ours; the kernel
    // clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The tile configuration in memory: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

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
