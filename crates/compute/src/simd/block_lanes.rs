//! Vectors of 128-bit lanes, one lane for each of a few consecutive 32-weight blocks of a row.
//!
//! A block's first sixteen elements make a lane of one vector, its last sixteen the same lane of
//! another. Four rows' lane sums, transposed, give one F32 a row in each block's lane.

use std::arch::x86_64::*;

use super::{Avx2, Avx512, IntSimd};

/// One operation under the token's proof.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: the token `self` proves the instructions; pointers come from references to
        // exactly the bytes read.
        unsafe { $call }
    };
}

/// Vectors of `B` lanes of 128 bits.
pub(crate) trait BlockLanes<const B: usize>: IntSimd {
    /// What [`Self::dot_signed`] adds for each unit of an activation.
    const SIGNED_OFFSET: i16;
    /// Sixteen bytes, or four i32, a lane.
    type Ints: Copy;
    /// Four F32 a lane.
    type Floats: Copy;

    /// Lane `b` is `parts[b]`.
    fn lanes(self, parts: [&[u8; 16]; B]) -> Self::Ints;
    /// The blocks' first sixteen elements, and their last sixteen.
    fn halves(self, q: &[[i8; 32]; B]) -> [Self::Ints; 2];
    fn low_nibbles(self, x: Self::Ints) -> Self::Ints;
    fn high_nibbles(self, x: Self::Ints) -> Self::Ints;
    /// Adds 16 to element `e` of block `b` (lanes of both halves) where bit `e` of `bits[b]` is set.
    fn fifth_bits(self, halves: [Self::Ints; 2], bits: [&[u8; 4]; B]) -> [Self::Ints; 2];
    fn no_sum(self) -> Self::Ints;
    /// Adds to each i32 its four products: `u` unsigned and at most 128, `x` at least −127.
    fn dot_lanes(self, acc: Self::Ints, u: Self::Ints, x: Self::Ints) -> Self::Ints;
    /// The same for any signed bytes `w`, too much by `SIGNED_OFFSET · Σ x`.
    fn dot_lanes_signed(self, acc: Self::Ints, w: Self::Ints, x: Self::Ints) -> Self::Ints;
    /// `factor · (Σ first 16 + Σ last 16)` of each block, four times in its lane.
    fn block_sums(self, sums: &[[i16; 2]; B], factor: i16) -> Self::Ints;
    /// Four rows' lane sums: lane `b` is `[row 0, row 1, row 2, row 3]` of block `b`, less `offset`.
    fn transposed_sums(self, rows: [Self::Ints; 4], offset: Self::Ints) -> Self::Floats;
    fn lanes_to_floats(self, x: Self::Ints) -> Self::Floats;
    /// The half-precision number that starts each block of `STRIDE` bytes, exactly widened: lane `b`
    /// is `[row 0, row 1, row 2, row 3]` of block `b`. Each row holds exactly `B` blocks.
    fn block_scales<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> Self::Floats;
    /// The same for the first two numbers of each block.
    fn block_scales_and_minima<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> [Self::Floats; 2];
    /// `x[b]` four times in lane `b`.
    fn spread(self, x: &[f32; B]) -> Self::Floats;
    fn lanes_mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Lane by lane.
    fn split(self, x: Self::Floats) -> [__m128; B];
}

impl BlockLanes<4> for Avx512 {
    const SIGNED_OFFSET: i16 = 128;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    fn lanes(self, parts: [&[u8; 16]; 4]) -> __m512i {
        let mut lanes = [op!(_mm_setzero_si128()); 4];
        for b in 0..4 {
            lanes[b] = op!(_mm_loadu_si128(parts[b].as_ptr().cast()));
        }
        op!(join512(lanes))
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
    fn fifth_bits(self, halves: [__m512i; 2], bits: [&[u8; 4]; 4]) -> [__m512i; 2] {
        let words = bits.map(|bits| i32::from_le_bytes(*bits));
        op!(fifth_bits512(halves, words))
    }

    #[inline(always)]
    fn no_sum(self) -> __m512i {
        op!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn dot_lanes(self, acc: __m512i, u: __m512i, x: __m512i) -> __m512i {
        op!(_mm512_dpbusd_epi32(acc, u, x))
    }

    #[inline(always)]
    fn dot_lanes_signed(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // w + 128 as an unsigned byte; VNNI sums without saturation.
        let biased = op!(_mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN)));
        self.dot_lanes(acc, biased, x)
    }

    #[inline(always)]
    fn block_sums(self, sums: &[[i16; 2]; 4], factor: i16) -> __m512i {
        let sums = op!(_mm_loadu_si128(sums.as_ptr().cast()));
        op!(block_sums512(sums, factor))
    }

    #[inline(always)]
    fn transposed_sums(self, rows: [__m512i; 4], offset: __m512i) -> __m512 {
        op!(transposed_sums512(rows, offset))
    }

    #[inline(always)]
    fn lanes_to_floats(self, x: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn block_scales<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> __m512 {
        let words = header_words::<STRIDE>(self, rows, 0x1111);
        op!(_mm512_cvtph_ps(_mm512_castsi512_si256(words)))
    }

    #[inline(always)]
    fn block_scales_and_minima<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> [__m512; 2] {
        let words = header_words::<STRIDE>(self, rows, 0x1111_1111);
        op!([
            _mm512_cvtph_ps(_mm512_castsi512_si256(words)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(words)),
        ])
    }

    #[inline(always)]
    fn spread(self, x: &[f32; 4]) -> __m512 {
        let x = op!(_mm_loadu_ps(x.as_ptr()));
        op!(spread512(x))
    }

    #[inline(always)]
    fn lanes_mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn split(self, x: __m512) -> [__m128; 4] {
        op!(split512(x))
    }
}

/// The first word of each block in slot `4 b + row`, the second in slot `16 + 4 b + row`; `slots` says
/// which of row 0's are wanted.
#[inline(always)]
fn header_words<const STRIDE: usize>(s: Avx512, rows: [&[u8]; 4], slots: u32) -> __m512i {
    let Headers { start, near, index } = const { Headers::new(STRIDE) };
    let index = op!(_mm512_loadu_epi16(index.as_ptr()));
    let mut words = s.no_sum();
    for (row, bytes) in rows.into_iter().enumerate() {
        let slots = slots << row;
        let first: &[u8; 64] = bytes.first_chunk().expect("four blocks fill 64 bytes");
        let first = op!(_mm512_loadu_si512(first.as_ptr().cast()));
        words = op!(_mm512_mask_permutexvar_epi16(
            words,
            slots & near,
            index,
            first
        ));
        if slots & !near != 0 {
            let second: &[u8; 64] = bytes[start..].first_chunk().expect("64 bytes to the end");
            let second = op!(_mm512_loadu_si512(second.as_ptr().cast()));
            words = op!(_mm512_mask_permutexvar_epi16(
                words,
                slots & !near,
                index,
                second
            ));
        }
    }
    words
}

/// Where the first two words of four blocks are found with two loads of 64 bytes.
struct Headers {
    /// Byte of the second load.
    start: usize,
    /// The slots of blocks whose words the first load has.
    near: u32,
    /// The word of its load in which a slot lies.
    index: [i16; 32],
}

impl Headers {
    const fn new(stride: usize) -> Self {
        let last = 4 * stride - 64;
        let start = if last < 2 * stride { last } else { 2 * stride };
        let (mut near, mut index, mut slot) = (0, [0; 32], 0);
        while slot < 32 {
            let block = slot % 16 / 4 * stride;
            let word = slot / 16 * 2;
            let from = if block + 4 <= 64 { 0 } else { start };
            if from == 0 {
                near |= 1 << slot;
            }
            index[slot] = ((block + word - from) / 2) as i16;
            slot += 1;
        }
        Self { start, near, index }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn join512([a, b, c, d]: [__m128i; 4]) -> __m512i {
    let ab = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let cd = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(ab), cd)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn halves512(x: __m512i, y: __m512i) -> [__m512i; 2] {
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(x, y),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(x, y),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn fifth_bits512([low, high]: [__m512i; 2], bits: [i32; 4]) -> [__m512i; 2] {
    let mut words = _mm512_set1_epi32(bits[0]);
    words = _mm512_mask_set1_epi32(words, 0x00f0, bits[1]);
    words = _mm512_mask_set1_epi32(words, 0x0f00, bits[2]);
    words = _mm512_mask_set1_epi32(words, 0xf000, bits[3]);
    // Byte e of a lane takes eight bits of the (repeated) word such that bit e is its bit 4.
    let first = _mm512_broadcast_i32x4(_mm_setr_epi8(
        60, 61, 62, 63, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    ));
    let last = _mm512_add_epi8(first, _mm512_set1_epi8(16));
    let add = |x, control| {
        let bits = _mm512_multishift_epi64_epi8(control, words);
        // x | (bits & 16)
        _mm512_ternarylogic_epi32::<0b1111_1000>(x, bits, _mm512_set1_epi8(16))
    };
    [add(low, first), add(high, last)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn block_sums512(sums: __m128i, factor: i16) -> __m512i {
    let sums = _mm_madd_epi16(sums, _mm_set1_epi16(factor));
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    _mm512_permutexvar_epi32(lanes, _mm512_castsi128_si512(sums))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transposed_sums512(rows: [__m512i; 4], offset: __m512i) -> __m512 {
    // [a0+a2, b0+b2, a1+a3, b1+b3] of rows a and b, then both pairs.
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
    let sums = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, offset))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn spread512(x: __m128) -> __m512 {
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn split512(x: __m512) -> [__m128; 4] {
    [
        _mm512_castps512_ps128(x),
        _mm512_extractf32x4_ps::<1>(x),
        _mm512_extractf32x4_ps::<2>(x),
        _mm512_extractf32x4_ps::<3>(x),
    ]
}

impl BlockLanes<2> for Avx2 {
    const SIGNED_OFFSET: i16 = 0;
    type Ints = __m256i;
    type Floats = __m256;

    #[inline(always)]
    fn lanes(self, parts: [&[u8; 16]; 2]) -> __m256i {
        let a = op!(_mm_loadu_si128(parts[0].as_ptr().cast()));
        let b = op!(_mm_loadu_si128(parts[1].as_ptr().cast()));
        op!(_mm256_set_m128i(b, a))
    }

    #[inline(always)]
    fn halves(self, q: &[[i8; 32]; 2]) -> [__m256i; 2] {
        op!(halves256(self.bytes_i8(&q[0]), self.bytes_i8(&q[1])))
    }

    #[inline(always)]
    fn low_nibbles(self, x: __m256i) -> __m256i {
        self.field::<0>(x, 15)
    }

    #[inline(always)]
    fn high_nibbles(self, x: __m256i) -> __m256i {
        self.field::<4>(x, 15)
    }

    #[inline(always)]
    fn fifth_bits(self, halves: [__m256i; 2], bits: [&[u8; 4]; 2]) -> [__m256i; 2] {
        let words = bits.map(|bits| i32::from_le_bytes(*bits));
        op!(fifth_bits256(halves, words))
    }

    #[inline(always)]
    fn no_sum(self) -> __m256i {
        self.zero_i32()
    }

    #[inline(always)]
    fn dot_lanes(self, acc: __m256i, u: __m256i, x: __m256i) -> __m256i {
        self.dot(acc, u, x)
    }

    #[inline(always)]
    fn dot_lanes_signed(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        self.dot_signed(acc, w, x)
    }

    #[inline(always)]
    fn block_sums(self, sums: &[[i16; 2]; 2], factor: i16) -> __m256i {
        let sum = |b: usize| i32::from(factor) * (i32::from(sums[b][0]) + i32::from(sums[b][1]));
        op!(_mm256_set_m128i(
            _mm_set1_epi32(sum(1)),
            _mm_set1_epi32(sum(0))
        ))
    }

    #[inline(always)]
    fn transposed_sums(self, rows: [__m256i; 4], offset: __m256i) -> __m256 {
        op!(transposed_sums256(rows, offset))
    }

    #[inline(always)]
    fn lanes_to_floats(self, x: __m256i) -> __m256 {
        op!(_mm256_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn block_scales<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> __m256 {
        widen_words::<STRIDE>(rows, 0)
    }

    #[inline(always)]
    fn block_scales_and_minima<const STRIDE: usize>(self, rows: [&[u8]; 4]) -> [__m256; 2] {
        [
            widen_words::<STRIDE>(rows, 0),
            widen_words::<STRIDE>(rows, 2),
        ]
    }

    #[inline(always)]
    fn spread(self, x: &[f32; 2]) -> __m256 {
        op!(_mm256_set_m128(_mm_set1_ps(x[1]), _mm_set1_ps(x[0])))
    }

    #[inline(always)]
    fn lanes_mul(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn split(self, x: __m256) -> [__m128; 2] {
        op!([_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)])
    }
}

/// The half-precision number `offset` bytes into each of two blocks of four rows.
#[inline(always)]
fn widen_words<const STRIDE: usize>(rows: [&[u8]; 4], offset: usize) -> __m256 {
    let mut words = [[0_u8; 2]; 8];
    for (slot, word) in words.iter_mut().enumerate() {
        let at = slot / 4 * STRIDE + offset;
        *word = [rows[slot % 4][at], rows[slot % 4][at + 1]];
    }
    // SAFETY: called by methods of the AVX2 token alone; `words` is 16 bytes.
    let words = unsafe { _mm_loadu_si128(words.as_ptr().cast()) };
    // SAFETY: the token also proves F16C.
    unsafe { _mm256_cvtph_ps(words) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn halves256(x: __m256i, y: __m256i) -> [__m256i; 2] {
    [
        _mm256_permute2x128_si256::<0x20>(x, y),
        _mm256_permute2x128_si256::<0x31>(x, y),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn fifth_bits256([low, high]: [__m256i; 2], bits: [i32; 2]) -> [__m256i; 2] {
    let bits = _mm256_set_m128i(_mm_set1_epi32(bits[1]), _mm_set1_epi32(bits[0]));
    // Each element's byte of the bits, then its bit tested.
    let byte = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let byte = _mm256_broadcastsi128_si256(byte);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let add = |x, byte| {
        let bytes = _mm256_shuffle_epi8(bits, byte);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        _mm256_or_si256(x, _mm256_and_si256(set, _mm256_set1_epi8(16)))
    };
    let last = _mm256_add_epi8(byte, _mm256_set1_epi8(2));
    [add(low, byte), add(high, last)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn transposed_sums256(rows: [__m256i; 4], offset: __m256i) -> __m256 {
    let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (ab, cd) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
    let sums = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, offset))
}
