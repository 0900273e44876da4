//! Four blocks in a 512-bit vector.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::BlockLanes;
use super::gather::{
    Headers, heads512, lanes512, load512, merge_words, words_of_heads, words_of_row,
};
use crate::simd::avx512::dpwssd;
use crate::simd::strips::table_bytes;
use crate::simd::{Avx512, IntSimd};

impl BlockLanes<4> for Avx512 {
    const SIGNED_OFFSET: i16 = 128;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    fn zero_lanes(self) -> __m512i {
        op!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn lanes<const STRIDE: usize, const AT: usize>(self, blocks: &[u8]) -> __m512i {
        op!(lanes512::<STRIDE, AT>(blocks))
    }

    #[inline(always)]
    fn heads<const STRIDE: usize>(self, blocks: &[u8]) -> __m512i {
        op!(heads512::<STRIDE>(blocks))
    }

    #[inline(always)]
    fn halves(self, q: &[[i8; 32]; 4]) -> [__m512i; 2] {
        let (pairs, _) = q.as_chunks::<2>();
        let x = op!(_mm512_loadu_si512(pairs[0].as_ptr().cast()));
        let y = op!(_mm512_loadu_si512(pairs[1].as_ptr().cast()));
        op!(halves512(x, y))
    }

    #[inline(always)]
    fn low_nibbles(self, x: __m512i) -> __m512i {
        op!(_mm512_and_si512(x, _mm512_set1_epi8(15)))
    }

    #[inline(always)]
    fn high_nibbles(self, x: __m512i) -> __m512i {
        self.low_nibbles(op!(_mm512_srli_epi16::<4>(x)))
    }

    #[inline(always)]
    fn table_halves(self, table: &[u8; 16], x: __m512i) -> [__m512i; 2] {
        op!([
            table_bytes(table, x),
            table_bytes(table, _mm512_srli_epi16::<4>(x))
        ])
    }

    #[inline(always)]
    fn fifth_bits<const AT: usize>(self, halves: [__m512i; 2], heads: __m512i) -> [__m512i; 2] {
        op!(fifth_bits512::<AT>(halves, heads))
    }

    #[inline(always)]
    fn dot_halves(self, u: [__m512i; 2], x: [__m512i; 2], _: i32) -> __m512i {
        op!(dot512(u, x))
    }

    #[inline(always)]
    fn dot_signed_halves(self, w: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
        // w + 128 as an unsigned byte; VNNI sums without saturation.
        op!(dot_signed512(w, x))
    }

    #[inline(always)]
    fn transposed_sums(
        self,
        (rows, largest): ([__m512i; 4], i32),
        sums: &[[i16; 2]; 4],
        offset: i16,
    ) -> __m512 {
        let sums = op!(_mm_loadu_si128(sums.as_ptr().cast()));
        op!(transposed_sums512(rows, largest, sums, offset))
    }

    #[inline(always)]
    fn block_scales<const STRIDE: usize>(
        self,
        rows: [&[u8]; 4],
        heads: Option<[__m512i; 4]>,
    ) -> __m512 {
        let words = first_words::<STRIDE>(self, rows, heads);
        op!(_mm512_cvtph_ps(_mm512_castsi512_si256(words)))
    }

    #[inline(always)]
    fn block_scales_and_minima<const STRIDE: usize>(
        self,
        rows: [&[u8]; 4],
        heads: Option<[__m512i; 4]>,
    ) -> [__m512; 2] {
        let words = first_words::<STRIDE>(self, rows, heads);
        op!([
            _mm512_cvtph_ps(_mm512_castsi512_si256(words)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(words)),
        ])
    }

    #[inline(always)]
    fn block_powers<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> __m512 {
        let words = first_words::<STRIDE>(self, rows, None);
        op!(half_powers(_mm512_castsi512_si256(words)))
    }

    #[inline(always)]
    fn lanes_mul(self, a: __m512, x: &[f32; 4]) -> __m512 {
        let x = op!(_mm_loadu_ps(x.as_ptr()));
        op!(_mm512_mul_ps(a, spread512(x)))
    }

    #[inline(always)]
    fn chain(self, mut acc: __m128, lanes: Range<usize>, scales: __m512, sums: __m512) -> __m128 {
        let (mut scale, mut sum) = (Spilled::EMPTY, Spilled::EMPTY);
        let (scale, sum) = (op!(scale.lanes(scales)), op!(sum.lanes(sums)));
        for b in lanes {
            acc = self.rows_fma(self.rows_load(&scale[b]), self.rows_load(&sum[b]), acc);
        }
        acc
    }

    #[inline(always)]
    fn chain_with_minima(
        self,
        mut acc: __m128,
        lanes: Range<usize>,
        (scales, minima): (__m512, __m512),
        (sums, sums_x): (__m512, &[[i16; 2]; 4]),
    ) -> __m128 {
        let (mut scale, mut sum) = (Spilled::EMPTY, Spilled::EMPTY);
        let (scale, sum) = (op!(scale.lanes(scales)), op!(sum.lanes(sums)));
        let (mut minimum, mut sum_x) = (Spilled::EMPTY, Spilled::EMPTY);
        let sums_x = op!(_mm_loadu_si128(sums_x.as_ptr().cast()));
        let minimum = op!(minimum.lanes(minima));
        let sum_x = op!(sum_x.floats(block_sums(sums_x)));
        for b in lanes {
            acc = self.rows_fma(self.rows_load(&scale[b]), self.rows_load(&sum[b]), acc);
            acc = self.rows_fma(self.rows_load(&minimum[b]), self.rows_splat(sum_x[b]), acc);
        }
        acc
    }
}

/// A vector in memory, to be read lane by lane: loads have ports of their own, while a lane extracted
/// from a register takes the one that permutes need.
#[repr(align(64))]
struct Spilled<T>(MaybeUninit<T>);

impl<T> Spilled<T> {
    const EMPTY: Self = Self(MaybeUninit::uninit());
}

impl Spilled<[[f32; 4]; 4]> {
    /// In assembly because the compiler would make extractions of a store that it sees.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn lanes(&mut self, x: __m512) -> &[[f32; 4]; 4] {
        // SAFETY: the instruction is enabled here and writes exactly `self`, which is aligned.
        unsafe {
            asm!(
                "vmovaps zmmword ptr [{to}], {x}",
                to = in(reg) self.0.as_mut_ptr(),
                x = in(zmm_reg) x,
                options(nostack, preserves_flags),
            );
        }
        // SAFETY: all of it was just written.
        unsafe { self.0.assume_init_ref() }
    }
}

impl Spilled<[f32; 4]> {
    /// The same.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn floats(&mut self, x: __m128) -> &[f32; 4] {
        // SAFETY: the instruction is enabled here and writes exactly the floats, which are aligned.
        unsafe {
            asm!(
                "vmovaps xmmword ptr [{to}], {x}",
                to = in(reg) self.0.as_mut_ptr(),
                x = in(xmm_reg) x,
                options(nostack, preserves_flags),
            );
        }
        // SAFETY: all of it was just written.
        unsafe { self.0.assume_init_ref() }
    }
}

/// The first word of each block in slot `4 b + row`, the second in slot `16 + 4 b + row`.
#[inline(always)]
fn first_words<const STRIDE: usize>(
    s: Avx512,
    rows: [&[u8]; 4],
    heads: Option<[__m512i; 4]>,
) -> __m512i {
    if let Some(heads) = heads {
        return op!(words_of_heads(heads));
    }
    let headers = const { &Headers::new(STRIDE) };
    let mut words = [s.zero_lanes(); 4];
    for row in 0..4 {
        words[row] = op!(words_of_row(rows[row], headers));
    }
    op!(merge_words(words))
}

/// `2^(e − 128)` of each word's low byte.
#[inline]
#[target_feature(enable = "avx512f")]
fn half_powers(words: __m256i) -> __m512 {
    let e = _mm512_and_si512(_mm512_cvtepu16_epi32(words), _mm512_set1_epi32(255));
    let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
    let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), e);
    let is_subnormal = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_subnormal, subnormal))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot512(u: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
    let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u[0], x[0]);
    _mm512_dpbusd_epi32(sum, u[1], x[1])
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_signed512(w: [__m512i; 2], x: [__m512i; 2]) -> __m512i {
    // w + 128 as an unsigned byte; VNNI sums without saturation.
    let bias = _mm512_set1_epi8(i8::MIN);
    dot512(
        [_mm512_xor_si512(w[0], bias), _mm512_xor_si512(w[1], bias)],
        x,
    )
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn halves512(x: __m512i, y: __m512i) -> [__m512i; 2] {
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(x, y),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(x, y),
    ]
}

/// For each half, the first bit of the head of which byte `e` of a lane takes eight: such that bit `e`
/// of the field at byte `at` becomes its bit 4.
const fn fifth_bit_controls(at: usize) -> [[u8; 64]; 2] {
    let (mut controls, mut byte) = ([[0; 64]; 2], 0);
    while byte < 64 {
        let first = 8 * at + byte % 16 + 60;
        controls[0][byte] = (first % 64) as u8;
        controls[1][byte] = ((first + 16) % 64) as u8;
        byte += 1;
    }
    controls
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn fifth_bits512<const AT: usize>([low, high]: [__m512i; 2], heads: __m512i) -> [__m512i; 2] {
    let [first, last] = const { &fifth_bit_controls(AT) };
    let add = |x, control: &[u8; 64]| {
        let bits = _mm512_multishift_epi64_epi8(load512(control, 0), heads);
        // x | (bits & 16)
        _mm512_ternarylogic_epi32::<0b1111_1000>(x, bits, _mm512_set1_epi8(16))
    };
    [add(low, first), add(high, last)]
}

/// `Σ first 16 + Σ last 16` of each block.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn block_sums(sums: __m128i) -> __m128 {
    _mm_cvtepi32_ps(_mm_madd_epi16(sums, _mm_set1_epi16(1)))
}

/// `−offset · (Σ first 16 + Σ last 16)` of each block, four times in its lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn less(sums: __m128i, offset: i16) -> __m512i {
    let sums = _mm_madd_epi16(sums, _mm_set1_epi16(-offset));
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    _mm512_permutexvar_epi32(lanes, _mm512_castsi128_si512(sums))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn transposed_sums512(rows: [__m512i; 4], largest: i32, sums: __m128i, offset: i16) -> __m512 {
    let ones = _mm512_set1_epi16(1);
    let add_pairs = |start: Option<__m512i>, words| match start {
        Some(start) if offset != 0 => dpwssd(start, words, ones),
        _ => _mm512_madd_epi16(words, ones),
    };
    let evens = |a, b| pick_dwords::<0b10_00_10_00>(a, b);
    let odds = |a, b| pick_dwords::<0b11_01_11_01>(a, b);
    let pack = |a, b| _mm512_packs_epi32(a, b);
    let sums = if largest <= 15 {
        // Sums of eight, then of sixteen, products stay within i16: 16 · 15 · 127.
        let ab = add_pairs(None, pack(rows[0], rows[1]));
        let cd = add_pairs(None, pack(rows[2], rows[3]));
        add_pairs(Some(less(sums, offset)), pack(ab, cd))
    } else if largest <= 31 {
        // Sums of eight do: 8 · 31 · 127. Two of the dwords that are started are summed.
        let start = less(sums, offset / 2);
        let ab = add_pairs(Some(start), pack(rows[0], rows[1]));
        let cd = add_pairs(Some(start), pack(rows[2], rows[3]));
        _mm512_add_epi32(evens(ab, cd), odds(ab, cd))
    } else {
        let pair = |a, b| _mm512_add_epi32(evens(a, b), odds(a, b));
        let all = pair(pair(rows[0], rows[1]), pair(rows[2], rows[3]));
        _mm512_add_epi32(all, less(sums, offset))
    };
    _mm512_cvtepi32_ps(sums)
}

/// Two dwords of each lane of `a`, then two of `b`.
#[inline]
#[target_feature(enable = "avx512f")]
fn pick_dwords<const WHICH: i32>(a: __m512i, b: __m512i) -> __m512i {
    _mm512_castps_si512(_mm512_shuffle_ps::<WHICH>(
        _mm512_castsi512_ps(a),
        _mm512_castsi512_ps(b),
    ))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn spread512(x: __m128) -> __m512 {
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(x))
}
