//! Weights of the K formats for tile products: integer times integer scale as two signed bytes.
//!
//! `p = q · scale` needs up to 13 bits. Split as `p = low + (high << SHIFT)`, both parts fit the
//! tiles, so a block's sum is two chains of tile products joined at its end, with no work for each
//! group of weights.

use std::arch::x86_64::*;

use super::{Avx512, Sixteen};

/// Multiples of 0 to 15 by 0 to 7.
static MULTIPLES: [[u8; 16]; 8] = {
    let mut table = [[0; 16]; 8];
    let mut i = 0;
    while i < 128 {
        table[i / 16][i % 16] = (i / 16 * (i % 16)) as u8;
        i += 1;
    }
    table
};

/// The scales of 32 weights, from the sixteen of a block, before every second byte.
static EVERY_SECOND: [[u8; 32]; 8] = {
    let mut table = [[0x80; 32]; 8];
    let mut i = 0;
    while i < 128 {
        table[i / 16][2 * (i % 16)] = (2 * (i / 16) + i % 16 / 8) as u8;
        i += 1;
    }
    table
};

impl Avx512 {
    /// Sixteen scales within i8 as bytes.
    #[inline(always)]
    pub(crate) fn scale_bytes(self, scales: __m256i) -> [u8; 16] {
        let mut out = [0; 16];
        op!(_mm_storeu_si128(
            out.as_mut_ptr().cast(),
            _mm256_cvtepi16_epi8(scales)
        ));
        out
    }

    /// Every second of sixteen i16.
    #[inline(always)]
    pub(crate) fn every_second(self, x: __m256i) -> [i16; 8] {
        let mut out = [0; 8];
        op!(_mm_storeu_si128(
            out.as_mut_ptr().cast(),
            _mm256_cvtepi32_epi16(x)
        ));
        out
    }

    /// `x − y` of each byte.
    #[inline(always)]
    pub(crate) fn less(self, x: __m256i, y: i8) -> __m256i {
        op!(_mm256_sub_epi8(x, _mm256_set1_epi8(y)))
    }

    /// Parts of `weights · scale`, for 32 weights up to 15 and a scale up to 63, `SHIFT` = 3.
    #[inline(always)]
    pub(crate) fn small_products(self, weights: __m256i, scale: u8, to: [&mut [i8; 32]; 2]) {
        for (to, part) in to.into_iter().zip([scale & 7, scale >> 3]) {
            let table = &MULTIPLES[usize::from(part & 7)];
            let table = op!(_mm256_broadcastsi128_si256(_mm_loadu_si128(
                table.as_ptr().cast()
            )));
            let products = op!(_mm256_shuffle_epi8(table, weights));
            op!(_mm256_storeu_si256(to.as_mut_ptr().cast(), products));
        }
    }

    /// `weights · scale` and the minimum of each weight, for weights of which vector `g` of a block is
    /// given; the products are at most 127, and so are scales and minima.
    #[inline(always)]
    pub(crate) fn byte_products(
        self,
        weights: __m256i,
        [scales, mins]: [&[u8; 16]; 2],
        g: usize,
        [products, minima]: [&mut [i8; 32]; 2],
    ) {
        let spread = op!(_mm256_loadu_si256(EVERY_SECOND[g].as_ptr().cast()));
        let [scales, mins] = [scales, mins].map(
            #[inline(always)]
            |bytes| {
                let bytes = op!(_mm_loadu_si128(bytes.as_ptr().cast()));
                op!(_mm256_shuffle_epi8(
                    _mm256_broadcastsi128_si256(bytes),
                    spread
                ))
            },
        );
        // A word times a scale is both of its bytes times it.
        let both = op!(_mm256_mullo_epi16(weights, scales));
        op!(_mm256_storeu_si256(products.as_mut_ptr().cast(), both));
        let both = op!(_mm256_or_si256(mins, _mm256_slli_epi16::<8>(mins)));
        op!(_mm256_storeu_si256(minima.as_mut_ptr().cast(), both));
    }

    /// Parts of `(weights − offset) · scale`, for weights up to 63 of which vector `g` of a block
    /// is given, `SHIFT` = 7.
    #[inline(always)]
    pub(crate) fn wide_products(
        self,
        weights: __m256i,
        offset: i8,
        (scales, g): (&[u8; 16], usize),
        [low, high]: [&mut [i8; 32]; 2],
    ) {
        let scales = op!(_mm256_broadcastsi128_si256(_mm_loadu_si128(
            scales.as_ptr().cast()
        )));
        let spread = op!(_mm256_loadu_si256(EVERY_SECOND[g].as_ptr().cast()));
        let even = op!(_mm256_shuffle_epi8(scales, spread));
        let odd = op!(_mm256_slli_epi16::<8>(even));
        let mut products = [
            op!(_mm256_maddubs_epi16(weights, even)),
            op!(_mm256_maddubs_epi16(weights, odd)),
        ];
        if offset != 0 {
            let offset = op!(_mm256_maddubs_epi16(_mm256_set1_epi8(offset), even));
            products = products.map(
                #[inline(always)]
                |products| op!(_mm256_sub_epi16(products, offset)),
            );
        }
        op!(store_low(products, low));
        op!(store_high(products, high));
    }

    /// Parts of `weights · scale`, for signed weights, at least −127, of which vector `g` of a block is
    /// given, and scales within −64..=63, `SHIFT` = 7.
    #[inline(always)]
    pub(crate) fn signed_products(
        self,
        weights: __m256i,
        (scales, g): (&[u8; 16], usize),
        [low, high]: [&mut [i8; 32]; 2],
    ) {
        let scales = op!(_mm256_broadcastsi128_si256(_mm_loadu_si128(
            scales.as_ptr().cast()
        )));
        let spread = op!(_mm256_loadu_si256(EVERY_SECOND[g].as_ptr().cast()));
        let even = op!(_mm256_shuffle_epi8(scales, spread));
        let odd = op!(_mm256_slli_epi16::<8>(even));
        // w·sc = |w| · (sign(w) sc)
        let magnitude = op!(_mm256_abs_epi8(weights));
        let products = [even, odd].map(
            #[inline(always)]
            |scales| {
                op!(_mm256_maddubs_epi16(
                    magnitude,
                    _mm256_sign_epi8(scales, weights)
                ))
            },
        );
        op!(store_low(products, low));
        op!(store_high(products, high));
    }

    #[inline(always)]
    pub(crate) fn load_i32(self, x: &Sixteen<i32>) -> __m512i {
        op!(_mm512_load_si512(x.0.as_ptr().cast()))
    }

    /// `low + (high << SHIFT)`.
    #[inline(always)]
    pub(crate) fn join<const SHIFT: u32>(self, low: &Sixteen<i32>, high: &Sixteen<i32>) -> __m512i {
        let (low, high) = (self.load_i32(low), self.load_i32(high));
        op!(_mm512_add_epi32(low, _mm512_slli_epi32::<SHIFT>(high)))
    }
}

/// The low 7 bits of even and odd products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_low([even, odd]: [__m256i; 2], to: &mut [i8; 32]) {
    let both = _mm256_mask_blend_epi8(0xaaaa_aaaa, even, _mm256_slli_epi16::<8>(odd));
    let low = _mm256_and_si256(both, _mm256_set1_epi8(127));
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), low) };
}

/// The bits above those; products have at most 15 bits with the sign.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_high([even, odd]: [__m256i; 2], to: &mut [i8; 32]) {
    let even = _mm256_srai_epi16::<7>(even);
    let high = _mm256_mask_blend_epi8(0xaaaa_aaaa, even, _mm256_slli_epi16::<1>(odd));
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), high) };
}
