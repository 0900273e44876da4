//! How parts of four blocks of a row come into the lanes of a 512-bit vector.

use std::arch::asm;
use std::arch::x86_64::*;

/// How `bytes` bytes from byte `at` of each of four blocks come into their lanes: the first lanes by
/// loads of their own, the others by a permute of 64 bytes.
struct Gather {
    /// Lanes that have loads of their own.
    alone: usize,
    /// First of the 64 bytes.
    start: usize,
    /// The byte of them for each byte of the other lanes.
    index: [u8; 64],
}

impl Gather {
    const fn new(stride: usize, at: usize, bytes: usize) -> Self {
        let alone = if 2 * stride + 16 <= 64 { 1 } else { 2 };
        let (first, last) = (alone * stride + at, 4 * stride - 64);
        let start = if first < last { first } else { last };
        let (mut index, mut i) = ([0; 64], 16 * alone);
        while i < 64 {
            let from = i / 16 * stride + at + i % 16 % bytes - start;
            assert!(from < 64, "64 bytes reach all blocks");
            index[i] = from as u8;
            i += 1;
        }
        Self {
            alone,
            start,
            index,
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn lanes512<const STRIDE: usize, const AT: usize>(blocks: &[u8]) -> __m512i {
    let first = load128(blocks, AT);
    let alone = if const { Gather::new(STRIDE, AT, 16).alone } == 1 {
        _mm512_castsi128_si512(first)
    } else {
        let second = load128(blocks, STRIDE + AT);
        _mm512_castsi256_si512(_mm256_set_m128i(second, first))
    };
    rest_of_lanes::<STRIDE, AT, 16>(alone, blocks)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn heads512<const STRIDE: usize>(blocks: &[u8]) -> __m512i {
    let first: &[u8; 8] = blocks.first_chunk().expect("a block");
    let twice: __m128i;
    // In assembly because the compiler would make a permute of it.
    // SAFETY: the instruction is enabled here and reads exactly `first`.
    unsafe {
        asm!(
            "vmovddup {twice}, qword ptr [{first}]",
            twice = out(xmm_reg) twice,
            first = in(reg) first,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    rest_of_lanes::<STRIDE, 0, 8>(_mm512_castsi128_si512(twice), blocks)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn rest_of_lanes<const STRIDE: usize, const AT: usize, const BYTES: usize>(
    lanes: __m512i,
    blocks: &[u8],
) -> __m512i {
    let gather = const { &Gather::new(STRIDE, AT, BYTES) };
    let (index, bytes) = (load512(&gather.index, 0), load512(blocks, gather.start));
    permute_into(lanes, u64::MAX << (16 * gather.alone), index, bytes)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load128(bytes: &[u8], from: usize) -> __m128i {
    let bytes: &[u8; 16] = bytes[from..].first_chunk().expect("sixteen bytes");
    // SAFETY: the load reads exactly `bytes`.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load512(bytes: &[u8], from: usize) -> __m512i {
    let bytes: &[u8; 64] = bytes[from..].first_chunk().expect("64 bytes");
    // SAFETY: the load reads exactly `bytes`.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// `bytes[index]` where `mask` is set, `x` elsewhere. In assembly because the compiler would take the
/// mask out and make an instruction of it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn permute_into(mut x: __m512i, mask: u64, index: __m512i, bytes: __m512i) -> __m512i {
    // SAFETY: the instruction is enabled here and touches the named registers only.
    unsafe {
        asm!(
            "vpermb {x} {{{mask}}}, {index}, {bytes}",
            x = inout(zmm_reg) x,
            mask = in(kreg) mask,
            index = in(zmm_reg) index,
            bytes = in(zmm_reg) bytes,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    x
}

/// `bytes[index]`. In assembly because the compiler would permute words where it can, which takes two
/// steps where bytes take one.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
fn permute(index: __m512i, bytes: __m512i) -> __m512i {
    let permuted: __m512i;
    // SAFETY: the instruction is enabled here and touches the named registers only.
    unsafe {
        asm!(
            "vpermb {permuted}, {index}, {bytes}",
            permuted = out(zmm_reg) permuted,
            index = in(zmm_reg) index,
            bytes = in(zmm_reg) bytes,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    permuted
}

/// Bits of `a` where `mask` is set, of `b` elsewhere.
#[inline]
#[target_feature(enable = "avx512f")]
fn select(mask: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1100_1010>(mask, a, b)
}

/// Each head's first word, then its second, from four rows' heads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn words_of_heads(heads: [__m512i; 4]) -> __m512i {
    let ab = _mm512_unpacklo_epi16(heads[0], heads[1]);
    let cd = _mm512_unpacklo_epi16(heads[2], heads[3]);
    let words = _mm512_unpacklo_epi32(ab, cd);
    let quarters = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_permutexvar_epi64(quarters, words)
}

/// A row's words, each in all four slots of its block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn words_of_row(blocks: &[u8], headers: &Headers) -> __m512i {
    let mut bytes = load512(blocks, 0);
    if headers.start > 0 {
        let far = load512(blocks, headers.start);
        bytes = select(load512(&headers.far, 0), far, bytes);
    }
    permute(load512(&headers.index, 0), bytes)
}

/// Slot `4 b + row` (and `16 + 4 b + row`) of each row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn merge_words(rows: [__m512i; 4]) -> __m512i {
    let first = _mm512_set1_epi32(0xffff);
    let ab = select(first, rows[0], rows[1]);
    let cd = select(first, rows[2], rows[3]);
    select(_mm512_set1_epi64(0xffff_ffff), ab, cd)
}

/// Where the first two words of four blocks are found with one or two loads of 64 bytes.
pub(super) struct Headers {
    /// Byte of the second load; zero if there is none.
    start: usize,
    /// The bytes that the second load has.
    far: [u8; 64],
    /// The byte of both loads together for each byte of a slot.
    index: [u8; 64],
}

impl Headers {
    pub(super) const fn new(stride: usize) -> Self {
        // The last two blocks' words come to lie eight bytes after the first two's.
        let start = if 3 * stride + 4 <= 64 {
            0
        } else {
            2 * stride - 8
        };
        let (mut far, mut index, mut byte) = ([0; 64], [0; 64], 0);
        while byte < 64 {
            let (block, word) = (byte % 32 / 8, byte / 32);
            let mut from = block * stride + 2 * word + byte % 2;
            if start > 0 && block >= 2 {
                from -= start;
                far[from] = 0xff;
            }
            index[byte] = from as u8;
            byte += 1;
        }
        Self { start, far, index }
    }
}
