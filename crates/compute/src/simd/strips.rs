//! Sixteen weight rows side by side: a lane for each, in vectors of consecutive quads.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Avx512, Quad, Sixteen};

/// Four consecutive bytes of each of sixteen rows.
pub(crate) type Quads = __m512i;

impl Avx512 {
    /// Sixteen bytes of each row as four quads.
    #[inline(always)]
    pub(crate) fn quads(self, rows: [&[u8; 16]; 16]) -> [Quads; 4] {
        let mut lanes = [op!(_mm512_setzero_si512()); 4];
        for i in 0..4 {
            // Rows i, 4 + i, 8 + i and 12 + i.
            let mut parts = [op!(_mm_setzero_si128()); 4];
            for (lane, part) in parts.iter_mut().enumerate() {
                *part = op!(_mm_loadu_si128(rows[4 * lane + i].as_ptr().cast()));
            }
            let first = op!(_mm512_castsi128_si512(parts[0]));
            let second = op!(_mm512_mask_broadcast_i32x4(first, 0x00f0, parts[1]));
            let third = op!(_mm512_mask_broadcast_i32x4(second, 0x0f00, parts[2]));
            lanes[i] = op!(_mm512_mask_broadcast_i32x4(third, 0xf000, parts[3]));
        }
        op!(transposed_lanes(lanes))
    }

    /// Bits `SHIFT .. SHIFT + 4` of every byte.
    #[inline(always)]
    pub(crate) fn nibble_quads<const SHIFT: u32>(self, x: Quads) -> Quads {
        let x = if SHIFT == 0 {
            x
        } else {
            op!(_mm512_srli_epi16::<SHIFT>(x))
        };
        op!(_mm512_and_si512(x, _mm512_set1_epi8(15)))
    }

    /// The entries of a table that bits `SHIFT .. SHIFT + 4` of every byte name.
    #[inline(always)]
    pub(crate) fn table_quads<const SHIFT: u32>(self, table: &[u8; 16], x: Quads) -> Quads {
        let x = if SHIFT == 0 {
            x
        } else {
            op!(_mm512_srli_epi16::<SHIFT>(x))
        };
        op!(table_bytes(table, x))
    }

    /// Signed bytes `+ 128`, unsigned.
    #[inline(always)]
    pub(crate) fn biased_quads(self, x: Quads) -> Quads {
        op!(_mm512_xor_si512(x, _mm512_set1_epi8(i8::MIN)))
    }

    /// Adds 16 to byte `i` of a row's quad `j` where bit `4 j + i` of its word is set.
    #[inline(always)]
    pub(crate) fn fifth_bit_quads(self, quads: [Quads; 8], words: [&[u8; 4]; 16]) -> [Quads; 8] {
        let words = words.map(
            #[inline(always)]
            |word| i32::from_le_bytes(*word),
        );
        let words = op!(_mm512_loadu_si512(words.as_ptr().cast()));
        let mut out = quads;
        for (j, out) in out.iter_mut().enumerate() {
            *out = op!(fifth_bits(*out, words, 4 * j as i8));
        }
        out
    }

    /// Four times four rows' numbers in the lanes of four blocks: sixteen rows' for each block.
    #[inline(always)]
    pub(crate) fn rows_of_blocks(self, rows: [__m512; 4]) -> [__m512; 4] {
        op!(transposed_blocks(rows))
    }

    /// The products of each row's quads with those of the slab's token `token`, unsigned times
    /// signed, added up.
    #[inline(always)]
    pub(crate) fn strip_dots(
        self,
        quads: [Quads; 8],
        x: &[Sixteen<Quad>; 8],
        token: usize,
    ) -> __m512i {
        assert!(token < 16, "a token of the slab");
        op!(strip_dots(quads, x, token))
    }
}

/// The entries that the low four bits of every byte name. A permute of 64 bytes reads two bits more:
/// the table stands there four times, and nothing is masked.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
pub(super) fn table_bytes(table: &[u8; 16], x: __m512i) -> __m512i {
    // SAFETY: the load reads exactly `table`.
    let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
    _mm512_permutexvar_epi8(x, _mm512_broadcast_i32x4(table))
}

/// By assembly, with the token's address in one register: the compiler would add an index, which
/// makes two operations of each broadcast product. Two sums, since one would wait for itself longer
/// than other tokens' products can fill.
///
/// # Safety
/// `token` is less than 16.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn strip_dots(quads: [Quads; 8], x: &[Sixteen<Quad>; 8], token: usize) -> __m512i {
    let (mut first, mut last) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    // SAFETY: the instructions are AVX-512 VNNI; each reads one of sixteen quads in each of the
    // eight lines of 64 bytes.
    unsafe {
        asm!(
            "vpdpbusd {first}, {q0}, dword ptr [{x}]{{1to16}}",
            "vpdpbusd {last}, {q4}, dword ptr [{x} + 256]{{1to16}}",
            "vpdpbusd {first}, {q1}, dword ptr [{x} + 64]{{1to16}}",
            "vpdpbusd {last}, {q5}, dword ptr [{x} + 320]{{1to16}}",
            "vpdpbusd {first}, {q2}, dword ptr [{x} + 128]{{1to16}}",
            "vpdpbusd {last}, {q6}, dword ptr [{x} + 384]{{1to16}}",
            "vpdpbusd {first}, {q3}, dword ptr [{x} + 192]{{1to16}}",
            "vpdpbusd {last}, {q7}, dword ptr [{x} + 448]{{1to16}}",
            first = inout(zmm_reg) first,
            last = inout(zmm_reg) last,
            q0 = in(zmm_reg) quads[0],
            q1 = in(zmm_reg) quads[1],
            q2 = in(zmm_reg) quads[2],
            q3 = in(zmm_reg) quads[3],
            q4 = in(zmm_reg) quads[4],
            q5 = in(zmm_reg) quads[5],
            q6 = in(zmm_reg) quads[6],
            q7 = in(zmm_reg) quads[7],
            x = in(reg) x.as_ptr().cast::<Quad>().wrapping_add(token),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    _mm512_add_epi32(first, last)
}

/// Word `i` of lane `l` of vector `j` from word `j` of lane `l` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_last, cd_last) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_last, cd_last),
        _mm512_unpackhi_epi64(ab_last, cd_last),
    ]
}

/// Lane `i` of vector `j` from lane `j` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed_blocks([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    let first = |x, y| _mm512_shuffle_f32x4::<0b01_00_01_00>(x, y);
    let last = |x, y| _mm512_shuffle_f32x4::<0b11_10_11_10>(x, y);
    let even = |x, y| _mm512_shuffle_f32x4::<0b10_00_10_00>(x, y);
    let odd = |x, y| _mm512_shuffle_f32x4::<0b11_01_11_01>(x, y);
    let (ab, cd) = (first(a, b), first(c, d));
    let (ab_last, cd_last) = (last(a, b), last(c, d));
    [
        even(ab, cd),
        odd(ab, cd),
        even(ab_last, cd_last),
        odd(ab_last, cd_last),
    ]
}

/// Adds 16 to byte `i` of each quad where bit `first + i` of its word is set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn fifth_bits(x: __m512i, words: __m512i, first: i8) -> __m512i {
    // Eight bits of a pair of words such that the wanted one is bit 4.
    let (even, odd) = (first + 60, first + 28);
    let control = _mm512_set1_epi64(i64::from_le_bytes([
        even as u8 & 63,
        (even as u8 + 1) & 63,
        (even as u8 + 2) & 63,
        (even as u8 + 3) & 63,
        odd as u8 & 63,
        (odd as u8 + 1) & 63,
        (odd as u8 + 2) & 63,
        (odd as u8 + 3) & 63,
    ]));
    let bits = _mm512_multishift_epi64_epi8(control, words);
    // x | (bits & 16)
    _mm512_ternarylogic_epi32::<0b1111_1000>(x, bits, _mm512_set1_epi8(16))
}
