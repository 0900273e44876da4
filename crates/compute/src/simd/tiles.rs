//! AMX: products of int8 tiles, exact in i32, beside the vector instructions of AVX-512.
//!
//! By inline assembly, since the intrinsics are unstable. Tiles 0 to 3 are results, 4 and 5 weights,
//! 6 and 7 activations. They keep their contents from one piece of assembly to the next: the compiler
//! knows the tile registers by name only, and nothing else uses them while a [`Tiles`] exists.
//! Source: Intel 64 and IA-32 manuals, volume 1 chapter 18; Linux `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::{Avx512, Quad, Sixteen};

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

/// A tile configuration in memory, of palette 1.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Tiles of 16 × 64 bytes, but the operands' common dimension is `depth` bytes.
    pub(super) const fn of_depth(depth: u8) -> Self {
        let (row, quads) = (depth as u16, depth / 4);
        Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 64, 64, row, row, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 16, 16, 16, quads, quads, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// Proof that this machine has AVX-512 as [`Avx512`] asks for, and AMX int8, and that the system
/// lets this process use it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx {
    vectors: Avx512,
}

/// Sums `[16 weight rows, 16 tokens]`.
pub(crate) type Sums = [Sixteen<i32>; 16];

/// Consecutive quads of a slab.
pub(crate) type Quads<const QUADS: usize> = [Sixteen<Quad>; QUADS];

impl Amx {
    /// The token, where the machine has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let vectors = Avx512::detect()?;
        has_int8().then_some(Self { vectors })
    }

    /// The vector instructions beside the tiles.
    pub(crate) fn vectors(self) -> Avx512 {
        self.vectors
    }

    /// This thread's tiles for operands of `DEPTH` columns.
    pub(crate) fn tiles<const DEPTH: usize>(self) -> Tiles<DEPTH> {
        Tiles::new(const { &Configuration::of_depth(DEPTH as u8) })
    }
}

/// The tile registers of this thread, configured for operands of `DEPTH` columns until dropped.
/// There is one at a time.
#[derive(Debug)]
pub(crate) struct Tiles<const DEPTH: usize> {
    /// The configuration belongs to the thread.
    thread: PhantomData<*const ()>,
}

impl<const DEPTH: usize> Tiles<DEPTH> {
    /// For [`Amx`] alone, whose existence proves the instructions.
    fn new(configuration: &'static Configuration) -> Self {
        // SAFETY: an `Amx` exists, so the instruction is there and permitted; it reads the 64 bytes
        // of the configuration.
        unsafe {
            asm!("ldtilecfg [{0}]", in(reg) configuration, options(nostack, readonly));
        }
        Self {
            thread: PhantomData,
        }
    }
}

impl<const DEPTH: usize> Drop for Tiles<DEPTH> {
    fn drop(&mut self) {
        // SAFETY: as in `new`; without it the system would save 8 KB at every switch of threads.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Tiles<32> {
    /// Result `R`: the products of 16 weight rows with a slab over 32 columns.
    #[inline(always)]
    pub(crate) fn product<const R: usize>(&self, weights: &[[i8; 32]; 16], x: &Quads<8>) {
        const { assert!(R < 4) };
        // SAFETY: `self` says that tiles are configured: 4 as 16 rows of 32 bytes, 6 as 8 rows of 64,
        // which is what the references are to, and 0 to 3 as 16 rows of 64.
        unsafe {
            asm!(
                "tileloadd tmm4, [{weights} + {stride}]",
                "tileloadd tmm6, [{x} + 2 * {stride}]",
                "tilezero tmm{r}",
                "tdpbssd tmm{r}, tmm4, tmm6",
                weights = in(reg) weights,
                x = in(reg) x,
                stride = in(reg) 32_usize,
                r = const R,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm6") _,
                options(nostack, readonly),
            );
        }
    }

    /// Stores result `R`.
    #[inline(always)]
    pub(crate) fn store<const R: usize>(&self, out: &mut Sums) {
        const { assert!(R < 4) };
        // SAFETY: `self` says that tiles 0 to 3 are configured as 16 rows of 64 bytes, the size of
        // `Sums`.
        unsafe {
            asm!(
                "tilestored [{out} + {stride}], tmm{r}",
                out = in(reg) out,
                stride = in(reg) 64_usize,
                r = const R,
                options(nostack),
            );
        }
    }
}

impl Tiles<64> {
    /// Begins results: of two integers a weight, times one or two slabs.
    #[inline(always)]
    pub(crate) fn clear(&self) {
        // SAFETY: `self` says that tiles are configured.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
    }

    /// Loads 64 columns of one of two integers a weight, of 16 weight rows.
    #[inline(always)]
    pub(crate) fn load_weights<const PART: usize>(&self, rows: &[[i8; 64]; 16]) {
        const { assert!(PART < 2) };
        // SAFETY: `self` says that tiles 4 and 5 are configured as 16 rows of 64 bytes, which is what
        // the reference is to.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{rows} + {stride}]",
                rows = in(reg) rows,
                stride = in(reg) 64_usize,
                tile = const 4 + PART,
                out("tmm4") _, out("tmm5") _,
                options(nostack, readonly),
            );
        }
    }

    /// Loads 64 columns of one of two slabs.
    #[inline(always)]
    pub(crate) fn load_slab<const SLAB: usize>(&self, quads: &Quads<16>) {
        const { assert!(SLAB < 2) };
        // SAFETY: as above, of tiles 6 and 7.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{quads} + {stride}]",
                quads = in(reg) quads,
                stride = in(reg) 64_usize,
                tile = const 6 + SLAB,
                out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
    }

    /// Adds to result `P` the product of slab `P / 2` and integer `P % 2` of the weights.
    #[inline(always)]
    pub(crate) fn add<const P: usize>(&self) {
        const { assert!(P < 4) };
        // SAFETY: `self` says that tiles are configured.
        unsafe {
            asm!(
                "tdpbssd tmm{result}, tmm{weights}, tmm{slab}",
                result = const P,
                weights = const 4 + P % 2,
                slab = const 6 + P / 2,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
    }

    /// Stores the results: `out[slab][integer]`.
    #[inline(always)]
    pub(crate) fn store<const SLABS: usize>(&self, out: &mut [[Sums; 2]; SLABS]) {
        const { assert!(SLABS == 1 || SLABS == 2) };
        // SAFETY: `self` says that tiles are configured as 16 rows of 64 bytes, the size of `Sums`.
        unsafe {
            asm!(
                "tilestored [{out} + {stride}], tmm0",
                "tilestored [{out} + {stride} + 1024], tmm1",
                out = in(reg) &mut out[0],
                stride = in(reg) 64_usize,
                options(nostack),
            );
        }
        if SLABS == 2 {
            // SAFETY: as above.
            unsafe {
                asm!(
                    "tilestored [{out} + {stride}], tmm2",
                    "tilestored [{out} + {stride} + 1024], tmm3",
                    out = in(reg) &mut out[SLABS - 1],
                    stride = in(reg) 64_usize,
                    options(nostack),
                );
            }
        }
    }
}
