//! K-format blocks in 512-bit vectors: two runs of 32 elements a vector.

mod tables;

use std::arch::asm;
use std::arch::x86_64::*;

use self::tables::{MINIMA, NARROW_SCALES, RUN_SCALES};
use super::{KLanes, centre256, level_scales};
use crate::simd::avx512::dpwssd;
use crate::simd::strips::table_bytes;
use crate::simd::{Avx512, IntSimd};

impl KLanes<4> for Avx512 {
    type Vector = __m512i;
    type Scales = [__m512i; 2];
    type Header = Header512;

    #[inline(always)]
    fn q4_k(self, qs: &[u8; 128]) -> [__m512i; 4] {
        let (parts, _) = qs.as_chunks::<64>();
        let a = op!(_mm512_loadu_si512(parts[0].as_ptr().cast()));
        let b = op!(_mm512_loadu_si512(parts[1].as_ptr().cast()));
        op!(nibbles512(a, b))
    }

    #[inline(always)]
    fn q5_k(self, qs: &[u8; 128], qh: &[u8; 32]) -> [__m512i; 4] {
        let high = self.bytes(qh);
        op!(q5_k512(self.q4_k(qs), high))
    }

    #[inline(always)]
    fn q6_k(self, ql: &[u8; 128], qh: &[u8; 64]) -> [__m512i; 4] {
        let (halves, _) = qh.as_chunks::<32>();
        let high = [self.bytes(&halves[0]), self.bytes(&halves[1])];
        op!(q6_k512(self.q4_k(ql), high))
    }

    #[inline(always)]
    fn q2_k(self, qs: &[u8; 64]) -> [__m512i; 4] {
        let (halves, _) = qs.as_chunks::<32>();
        op!(q2_k512([self.bytes(&halves[0]), self.bytes(&halves[1])]))
    }

    #[inline(always)]
    fn q3_k(self, qs: &[u8; 64], hmask: &[u8; 32]) -> [__m512i; 4] {
        op!(q3_k512(self.q2_k(qs), self.bytes(hmask)))
    }

    #[inline(always)]
    fn levels(self, qs: &[[u8; 16]; 8], table: &[u8; 16]) -> [__m512i; 4] {
        let table = &table.map(
            #[inline(always)]
            |level| level ^ 128,
        );
        let (halves, _) = qs.as_chunks::<4>();
        let a = op!(_mm512_loadu_si512(halves[0].as_ptr().cast()));
        let b = op!(_mm512_loadu_si512(halves[1].as_ptr().cast()));
        op!([
            table_bytes(table, a),
            table_bytes(table, _mm512_srli_epi16::<4>(a)),
            table_bytes(table, b),
            table_bytes(table, _mm512_srli_epi16::<4>(b)),
        ])
    }

    #[inline(always)]
    fn straight(self, q: &[i8; 256]) -> [__m512i; 4] {
        let (parts, _) = q.as_chunks::<64>();
        let mut out = [self.no_dots(); 4];
        for i in 0..4 {
            out[i] = op!(_mm512_loadu_si512(parts[i].as_ptr().cast()));
        }
        out
    }

    #[inline(always)]
    fn paired(self, q: &[i8; 256]) -> [__m512i; 4] {
        let (runs, _) = q.as_chunks::<32>();
        let mut out = [self.no_dots(); 4];
        for (i, [low, high]) in [[0, 2], [1, 3], [4, 6], [5, 7]].into_iter().enumerate() {
            let (low, high) = (self.bytes_i8(&runs[low]), self.bytes_i8(&runs[high]));
            out[i] = op!(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high));
        }
        out
    }

    #[inline(always)]
    fn halved(self, q: &[i8; 256]) -> [__m512i; 4] {
        op!(halved512(self.straight(q)))
    }

    #[inline(always)]
    fn header(self, rows: [&[u8; 16]; 4]) -> Header512 {
        op!(header512(a_row_a_lane(rows)))
    }

    #[inline(always)]
    fn run_scales(self, header: Header512, row: usize) -> [__m512i; 2] {
        op!(picked_scales(&RUN_SCALES[row], header.bytes))
    }

    #[inline(always)]
    fn minima(self, header: Header512, sums: &[i16; 16]) -> __m128i {
        let words = MINIMA.map(
            #[inline(always)]
            |index| op!(low_bytes(load512(&index), header.bytes)),
        );
        op!(minima512(words, sums))
    }

    #[inline(always)]
    fn header_floats(self, header: Header512) -> [__m128; 2] {
        op!(header_floats512(header.packed))
    }

    #[inline(always)]
    fn narrow_scales(self, scales: &[i8; 16]) -> [__m512i; 2] {
        op!(narrow_scales512(self.widen_i8(scales)))
    }

    #[inline(always)]
    fn level_scales(self, packed: &[[u8; 4]; 2]) -> [__m512i; 2] {
        op!(a_lane_each(
            level_scales(packed.map(i32::from_le_bytes)),
            0xffff
        ))
    }

    #[inline(always)]
    fn narrow_header(self, rows: [&[u8; 16]; 4]) -> Header512 {
        let packed = op!(a_row_a_lane(rows));
        let bytes = op!(_mm512_and_si512(packed, _mm512_set1_epi8(15)));
        Header512 { packed, bytes }
    }

    #[inline(always)]
    fn narrow_run_scales(self, header: Header512, row: usize) -> [__m512i; 2] {
        op!(picked_scales(&NARROW_SCALES[row], header.bytes))
    }

    #[inline(always)]
    fn narrow_minima(self, header: Header512, sums: &[i16; 16]) -> __m128i {
        op!(narrow_minima512(header.packed, sums))
    }

    #[inline(always)]
    fn centre<const SHIFT: i32>(self, scales: &[i8; 16], sums: &[i16; 16]) -> __m512i {
        let sums = op!(_mm256_loadu_si256(sums.as_ptr().cast()));
        op!(_mm512_zextsi256_si512(centre256::<SHIFT>(
            self.widen_i8(scales),
            sums
        )))
    }

    #[inline(always)]
    fn no_dots(self) -> __m512i {
        op!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn dots(self, acc: __m512i, u: [__m512i; 4], x: [__m512i; 4], scales: [__m512i; 2]) -> __m512i {
        let mut fours = u;
        for (fours, x) in fours.iter_mut().zip(x) {
            *fours = op!(_mm512_dpbusd_epi32(self.no_dots(), *fours, x));
        }
        // Four products stay within i16: 4 · 63 · 127.
        let words = [
            op!(_mm512_packs_epi32(fours[0], fours[1])),
            op!(_mm512_packs_epi32(fours[2], fours[3])),
        ];
        let acc = op!(dpwssd(acc, words[0], scales[0]));
        op!(dpwssd(acc, words[1], scales[1]))
    }

    #[inline(always)]
    fn level_dots(
        self,
        w: [__m512i; 4],
        x: [__m512i; 4],
        scales: [__m512i; 2],
        sums: &[i16; 16],
    ) -> __m512i {
        // Weights are 128 too large: each run starts at −128 Σ x.
        let sums = op!(_mm256_loadu_si256(sums.as_ptr().cast()));
        let runs = op!(_mm256_madd_epi16(sums, _mm256_set1_epi16(-128)));
        let starts = op!(a_lane_each(runs, 0x1111));
        let mut acc = self.no_dots();
        for half in 0..2 {
            let mut dots = starts[half];
            for v in 2 * half..2 * half + 2 {
                dots = op!(_mm512_dpbusd_epi32(dots, w[v], x[v]));
            }
            acc = op!(_mm512_add_epi32(
                acc,
                _mm512_mullo_epi32(dots, scales[half])
            ));
        }
        acc
    }

    #[inline(always)]
    fn total(self, rows: [__m512i; 4]) -> __m128i {
        op!(total512(rows))
    }
}

/// Four rows' headers, one a lane.
#[derive(Clone, Copy)]
pub(crate) struct Header512 {
    /// As stored.
    packed: __m512i,
    /// Eight scales, then eight minima, a byte each.
    bytes: __m512i,
}

/// Words whose low bytes are `bytes[index]`, high bytes zero. In assembly because the compiler would
/// take the mask out and make an instruction of it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn low_bytes(index: __m512i, bytes: __m512i) -> __m512i {
    let words: __m512i;
    // SAFETY: the instruction is enabled here and touches the named registers only.
    unsafe {
        asm!(
            "vpermb {words} {{{mask}}} {{z}}, {index}, {bytes}",
            words = out(zmm_reg) words,
            mask = in(kreg) 0x5555_5555_5555_5555_u64,
            index = in(zmm_reg) index,
            bytes = in(zmm_reg) bytes,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    words
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the load reads exactly `bytes`.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn a_row_a_lane(rows: [&[u8; 16]; 4]) -> __m512i {
    // SAFETY: each load reads exactly a row.
    let [a, b, c, d] = rows.map(|row| unsafe { _mm_loadu_si128(row.as_ptr().cast()) });
    let (ab, cd) = (_mm256_set_m128i(b, a), _mm256_set_m128i(d, c));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(ab), cd)
}

/// Words of the bytes that two vectors of indices name.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn picked_scales(index: &[[u8; 64]; 2], bytes: __m512i) -> [__m512i; 2] {
    let [first, last] = index;
    [
        low_bytes(load512(first), bytes),
        low_bytes(load512(last), bytes),
    ]
}

/// The first four dwords, then the last four, each in all dwords of a lane that `mask` has.
#[inline]
#[target_feature(enable = "avx512f")]
fn a_lane_each(dwords: __m256i, mask: __mmask16) -> [__m512i; 2] {
    let dwords = _mm512_castsi256_si512(dwords);
    let lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    let after = _mm512_add_epi32(lane, _mm512_set1_epi32(4));
    [
        _mm512_maskz_permutexvar_epi32(mask, lane, dwords),
        _mm512_maskz_permutexvar_epi32(mask, after, dwords),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
fn header_floats512(packed: __m512i) -> [__m128; 2] {
    // The first words of the lanes, then the second ones.
    let index = _mm256_setr_epi16(0, 8, 16, 24, 1, 9, 17, 25, 0, 0, 0, 0, 0, 0, 0, 0);
    let halves = _mm512_permutexvar_epi16(_mm512_castsi256_si512(index), packed);
    let floats = _mm256_cvtph_ps(_mm512_castsi512_si128(halves));
    [
        _mm256_castps256_ps128(floats),
        _mm256_extractf128_ps::<1>(floats),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles512(a: __m512i, b: __m512i) -> [__m512i; 4] {
    let low = _mm512_set1_epi8(15);
    [
        _mm512_and_si512(a, low),
        _mm512_and_si512(_mm512_srli_epi16::<4>(a), low),
        _mm512_and_si512(b, low),
        _mm512_and_si512(_mm512_srli_epi16::<4>(b), low),
    ]
}

/// Eight controls of a multishift that takes bit `first` of each byte of the lower half and bit
/// `first + 2` of the upper half to bit 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn to_bit_four(first: i64) -> __m512i {
    let bytes = 0x3830_2820_1810_0800 + 0x0101_0101_0101_0101 * 60;
    let wrapped = (bytes + 0x0101_0101_0101_0101 * first) & 0x3f3f_3f3f_3f3f_3f3f;
    let upper = (bytes + 0x0101_0101_0101_0101 * (first + 2)) & 0x3f3f_3f3f_3f3f_3f3f;
    _mm512_setr_epi64(
        wrapped, wrapped, wrapped, wrapped, upper, upper, upper, upper,
    )
}

/// `low | (high's bits moved to bit 4 & mask)`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn with_high(low: __m512i, high: __m512i, first: i64, mask: i8) -> __m512i {
    let bits = _mm512_multishift_epi64_epi8(to_bit_four(first), high);
    _mm512_ternarylogic_epi32::<0b1111_1000>(low, bits, _mm512_set1_epi8(mask))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn q5_k512(low: [__m512i; 4], high: __m256i) -> [__m512i; 4] {
    // Bit g of byte j is the fifth bit of element j of run g.
    let high = _mm512_broadcast_i64x4(high);
    [
        with_high(low[0], high, 0, 16),
        with_high(low[1], high, 1, 16),
        with_high(low[2], high, 4, 16),
        with_high(low[3], high, 5, 16),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn q6_k512(low: [__m512i; 4], high: [__m256i; 2]) -> [__m512i; 4] {
    // Bits 2 i and 2 i + 1 of byte j are the top bits of element j of run i of a half.
    let high = [
        _mm512_broadcast_i64x4(high[0]),
        _mm512_broadcast_i64x4(high[1]),
    ];
    [
        with_high(low[0], high[0], 0, 48),
        with_high(low[1], high[0], 4, 48),
        with_high(low[2], high[1], 0, 48),
        with_high(low[3], high[1], 4, 48),
    ]
}

/// Two rows of a half a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q2_k512(halves: [__m256i; 2]) -> [__m512i; 4] {
    let by_two = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(2));
    let rows = |half, first| {
        let shift = _mm512_add_epi16(by_two, _mm512_set1_epi16(first));
        let bits = _mm512_srlv_epi16(_mm512_broadcast_i64x4(half), shift);
        _mm512_and_si512(bits, _mm512_set1_epi8(3))
    };
    [
        rows(halves[0], 0),
        rows(halves[0], 4),
        rows(halves[1], 0),
        rows(halves[1], 4),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q3_k512(low: [__m512i; 4], high: __m256i) -> [__m512i; 4] {
    // Bit r of byte j is the third bit of element j of run r: moved to bit 2.
    let high = _mm512_broadcast_i64x4(high);
    let one = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(1));
    let left = _mm512_sub_epi16(_mm512_set1_epi16(2), one);
    let right = |first| _mm512_srlv_epi16(high, _mm512_add_epi16(one, _mm512_set1_epi16(first)));
    // low | (bits & 4)
    let with = |low, bits| _mm512_ternarylogic_epi32::<0b1111_1000>(low, bits, _mm512_set1_epi8(4));
    [
        with(low[0], _mm512_sllv_epi16(high, left)),
        with(low[1], right(0)),
        with(low[2], right(2)),
        with(low[3], right(4)),
    ]
}

/// Four first halves of runs, then their last halves, of two vectors each.
#[inline]
#[target_feature(enable = "avx512f")]
fn halved512([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b),
        _mm512_shuffle_i64x2::<0b10_00_10_00>(c, d),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(c, d),
    ]
}

/// A row a lane: eight scales, then eight minima, from d, dmin and three packed words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn header512(packed: __m512i) -> Header512 {
    // Words 1, 1, 2, 2: low six bits of the first four, top two of the last four.
    let own = _mm512_shuffle_epi32::<0b10_10_01_01>(packed);
    let own = _mm512_srlv_epi32(own, _mm512_set4_epi32(2, 0, 2, 0));
    let own = _mm512_and_si512(
        own,
        _mm512_set4_epi32(0x3030_3030, 0x3f3f_3f3f, 0x3030_3030, 0x3f3f_3f3f),
    );
    let last = _mm512_shuffle_epi32::<0b11_11_11_11>(packed);
    let last = _mm512_srlv_epi32(last, _mm512_set4_epi32(4, 0, 0, 0));
    let four = _mm512_set4_epi32(0x0f0f_0f0f, 0, 0x0f0f_0f0f, 0);
    Header512 {
        packed,
        bytes: _mm512_ternarylogic_epi32::<0b1111_1000>(own, last, four),
    }
}

/// `Σ minimum · Σ x` of each row: minima as words, those of the first eight sums and of the last.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn minima512(words: [__m512i; 2], sums: &[i16; 16]) -> __m128i {
    let (sums, _) = sums.as_chunks::<8>();
    // SAFETY: each load reads exactly eight sums.
    let load = |sums: &[i16; 8]| unsafe { _mm_loadu_si128(sums.as_ptr().cast()) };
    let dots = _mm512_madd_epi16(words[0], _mm512_broadcast_i32x4(load(&sums[0])));
    let dots = dpwssd(dots, words[1], _mm512_broadcast_i32x4(load(&sums[1])));
    let dots = _mm512_add_epi32(dots, _mm512_shuffle_epi32::<0b01_00_11_10>(dots));
    let dots = _mm512_add_epi32(dots, _mm512_shuffle_epi32::<0b10_11_00_01>(dots));
    let rows = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm512_castsi512_si128(_mm512_permutexvar_epi32(rows, dots))
}

/// As [`minima512`], of minima in the high nibbles of sixteen bytes a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn narrow_minima512(packed: __m512i, sums: &[i16; 16]) -> __m128i {
    let mins = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), _mm512_set1_epi8(15));
    let zero = _mm512_setzero_si512();
    let words = [
        _mm512_unpacklo_epi8(mins, zero),
        _mm512_unpackhi_epi8(mins, zero),
    ];
    minima512(words, sums)
}

/// The scales of what [`KLanes::dots`] packs, where vector `i` has scale `4 i + lane` in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn narrow_scales512(words: __m256i) -> [__m512i; 2] {
    let words = _mm512_castsi256_si512(words);
    let spread = |x: i64| x * 0x0001_0001_0001_0001;
    let first = _mm512_setr_epi64(
        spread(0),
        spread(4),
        spread(1),
        spread(5),
        spread(2),
        spread(6),
        spread(3),
        spread(7),
    );
    let last = _mm512_add_epi16(first, _mm512_set1_epi16(8));
    [
        _mm512_permutexvar_epi16(first, words),
        _mm512_permutexvar_epi16(last, words),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn total512(rows: [__m512i; 4]) -> __m128i {
    // [a0+a2, b0+b2, a1+a3, b1+b3] of rows a and b in each lane, then both pairs, then the lanes.
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(
        _mm512_castsi512_si256(all),
        _mm512_extracti64x4_epi64::<1>(all),
    );
    _mm_add_epi32(
        _mm256_castsi256_si128(half),
        _mm256_extracti128_si256::<1>(half),
    )
}
