//! What the kernels need to know of each K format.

use std::arch::x86_64::{__m128, __m256i};

use super::formats_small::shifted;
use crate::quant::{
    Block, BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, Half, iq4_nl,
};
use crate::simd::{IntSimd, KLanes};

/// What a K format is made of. With `products = Σ scale · Σ u·x` over groups and
/// `sums = Σ per_sum · Σ₁₆ x`, both exact, a block takes one or two chain steps.
pub(super) trait KFormat: Block {
    /// Groups with a scale of their own: 8 or 16.
    const GROUPS: usize;
    /// Whether the integers are signed bytes, at least −127; else they are unsigned and at most 63.
    const SIGNED: bool = false;

    /// Integers in element order, 32 a vector.
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8];
    /// The scale of every 16 elements, sixteen i16.
    fn scales<S: IntSimd>(&self, s: S) -> __m256i;
    /// What multiplies the sums of every 16 activations, sixteen i16.
    fn per_sum<S: IntSimd>(&self, s: S) -> __m256i;
    /// The block's scale, and the scale of its minima (zero where it has none).
    fn d_and_dmin(&self) -> (Half, Half);

    /// The integers in the order of [`Self::activations`].
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N];
    /// Activations in the order of the format's integers.
    #[inline(always)]
    fn activations<S: KLanes<N>, const N: usize>(s: S, q: &[i8; 256]) -> [S::Vector; N] {
        s.straight(q)
    }
    /// What four rows' blocks are better unpacked for together, if anything.
    #[inline(always)]
    fn common<S: KLanes<N>, const N: usize>(_: S, _: [&Self; 4]) -> Option<S::Header> {
        None
    }
    /// The scales of a row's products.
    fn vector_scales<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        common: Option<S::Header>,
        row: usize,
    ) -> S::Scales;
    /// Lanes that are `Σ scale · Σ u·x` in all; `sums` are those of every sixteen activations.
    #[inline(always)]
    fn dots<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        weights: ([S::Vector; N], S::Scales),
        x: ([S::Vector; N], &[i16; 16]),
    ) -> S::Vector {
        s.dots(s.no_dots(), weights.0, x.0, weights.1)
    }
    /// The chain steps of four rows.
    fn rows_chain<S: KLanes<N>, const N: usize>(
        s: S,
        block: ([&Self; 4], Option<S::Header>),
        x: (__m128, __m128, &[i16; 16]),
        acc: __m128,
    ) -> __m128;
}

/// The eight scales and the eight minima of Q4_K and Q5_K, four bytes at a time: the same fields as
/// `quant::BlockQ4K::scales_and_mins`, each pair of words little-endian.
#[inline(always)]
fn scales_and_mins(packed: &[u8; 12]) -> (u64, u64) {
    const LOW_SIX: u32 = 0x3f3f_3f3f;
    const LOW_FOUR: u32 = 0x0f0f_0f0f;
    const TOP_TWO: u32 = 0x3030_3030;
    let (words, _) = packed.as_chunks::<4>();
    let [first, second, third] = [0, 1, 2].map(|i| u32::from_le_bytes(words[i]));
    let scales = third & LOW_FOUR | first >> 2 & TOP_TWO;
    let mins = third >> 4 & LOW_FOUR | second >> 2 & TOP_TWO;
    let join = |low: u32, high: u32| u64::from(low & LOW_SIX) | u64::from(high) << 32;
    (join(first, scales), join(second, mins))
}

macro_rules! affine {
    () => {
        const GROUPS: usize = 8;

        #[inline(always)]
        fn scales<S: IntSimd>(&self, s: S) -> __m256i {
            s.widen_twice(scales_and_mins(&self.scales).0)
        }

        #[inline(always)]
        fn per_sum<S: IntSimd>(&self, s: S) -> __m256i {
            s.widen_twice(scales_and_mins(&self.scales).1)
        }

        #[inline(always)]
        fn d_and_dmin(&self) -> (Half, Half) {
            (self.d, self.dmin)
        }

        #[inline(always)]
        fn activations<S: KLanes<N>, const N: usize>(s: S, q: &[i8; 256]) -> [S::Vector; N] {
            s.paired(q)
        }

        #[inline(always)]
        fn common<S: KLanes<N>, const N: usize>(s: S, rows: [&Self; 4]) -> Option<S::Header> {
            Some(s.header(rows.map(
                #[inline(always)]
                |row| row.header(),
            )))
        }

        #[inline(always)]
        fn vector_scales<S: KLanes<N>, const N: usize>(
            &self,
            s: S,
            common: Option<S::Header>,
            row: usize,
        ) -> S::Scales {
            s.run_scales(common.expect("of affine formats"), row)
        }

        #[inline(always)]
        fn rows_chain<S: KLanes<N>, const N: usize>(
            s: S,
            (_, common): ([&Self; 4], Option<S::Header>),
            (d_x, products, sums): (__m128, __m128, &[i16; 16]),
            acc: __m128,
        ) -> __m128 {
            let header = common.expect("of affine formats");
            let [d, dmin] = s.header_floats(header);
            let minima = s.rows_to_floats(s.minima(header, sums));
            let acc = s.rows_fma(s.rows_mul(d, d_x), products, acc);
            s.rows_fnma(s.rows_mul(dmin, d_x), minima, acc)
        }
    };
}

impl KFormat for BlockQ4K {
    affine!();

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q4_k(&self.qs)
    }

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let (packed, _) = self.qs.as_chunks::<32>();
        let mut weights = [s.zero_i32(); 8];
        for pair in 0..4 {
            let bytes = s.bytes(&packed[pair]);
            weights[2 * pair] = s.field::<0>(bytes, 15);
            weights[2 * pair + 1] = s.field::<4>(bytes, 15);
        }
        weights
    }
}

impl KFormat for BlockQ5K {
    affine!();

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q5_k(&self.qs, &self.qh)
    }

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let (packed, _) = self.qs.as_chunks::<32>();
        let high = s.bytes(&self.qh);
        // Bit g of byte j is the fifth bit of element j of group g.
        let fifth = [
            s.field::<0>(high, 1),
            s.field::<1>(high, 1),
            s.field::<2>(high, 1),
            s.field::<3>(high, 1),
            s.field::<4>(high, 1),
            s.field::<5>(high, 1),
            s.field::<6>(high, 1),
            s.field::<7>(high, 1),
        ];
        let mut weights = [s.zero_i32(); 8];
        for pair in 0..4 {
            let bytes = s.bytes(&packed[pair]);
            weights[2 * pair] = s.merge::<4>(s.field::<0>(bytes, 15), fifth[2 * pair]);
            weights[2 * pair + 1] = s.merge::<4>(s.field::<4>(bytes, 15), fifth[2 * pair + 1]);
        }
        weights
    }
}

/// The parts that formats without minima share: scales of 16 elements, integers around `2^SHIFT`.
macro_rules! around {
    ($shift:literal, |$block:ident| $scales:expr) => {
        const GROUPS: usize = 16;

        #[inline(always)]
        fn scales<S: IntSimd>(&self, s: S) -> __m256i {
            let $block = self;
            s.widen_i8(&$scales)
        }

        #[inline(always)]
        fn per_sum<S: IntSimd>(&self, s: S) -> __m256i {
            KFormat::scales(self, s)
        }

        #[inline(always)]
        fn vector_scales<S: KLanes<N>, const N: usize>(
            &self,
            s: S,
            _: Option<S::Header>,
            _: usize,
        ) -> S::Scales {
            let $block = self;
            s.narrow_scales(&$scales)
        }

        // Σ sc·(q − 2^SHIFT)·x = Σ sc·q·x − 2^SHIFT Σ sc·x
        #[inline(always)]
        fn dots<S: KLanes<N>, const N: usize>(
            &self,
            s: S,
            (weights, scales): ([S::Vector; N], S::Scales),
            (x, sums): ([S::Vector; N], &[i16; 16]),
        ) -> S::Vector {
            let $block = self;
            s.dots(s.centre::<$shift>(&$scales, sums), weights, x, scales)
        }

        without_minima!();
    };
}

macro_rules! without_minima {
    () => {
        #[inline(always)]
        fn d_and_dmin(&self) -> (Half, Half) {
            (self.d, Half([0; 2]))
        }

        #[inline(always)]
        fn rows_chain<S: KLanes<N>, const N: usize>(
            s: S,
            (rows, _): ([&Self; 4], Option<S::Header>),
            (d_x, products, _): (__m128, __m128, &[i16; 16]),
            acc: __m128,
        ) -> __m128 {
            let d = s.rows_widen_f16(rows.map(
                #[inline(always)]
                |row| row.d.0,
            ));
            s.rows_fma(s.rows_mul(d, d_x), products, acc)
        }
    };
}

impl KFormat for BlockQ6K {
    around!(5, |block| block.scales);

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let (low, _) = self.ql.as_chunks::<32>();
        let (high, _) = self.qh.as_chunks::<32>();
        let mut weights = [s.zero_i32(); 8];
        for half in 0..2 {
            let (first, second) = (s.bytes(&low[2 * half]), s.bytes(&low[2 * half + 1]));
            let top = s.bytes(&high[half]);
            weights[4 * half] = s.merge::<4>(s.field::<0>(first, 15), s.field::<0>(top, 3));
            weights[4 * half + 1] = s.merge::<4>(s.field::<0>(second, 15), s.field::<2>(top, 3));
            weights[4 * half + 2] = s.merge::<4>(s.field::<4>(first, 15), s.field::<4>(top, 3));
            weights[4 * half + 3] = s.merge::<4>(s.field::<4>(second, 15), s.field::<6>(top, 3));
        }
        weights
    }

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q6_k(&self.ql, &self.qh)
    }
}

impl KFormat for BlockQ3K {
    around!(2, |block| block.scales());

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        s.three_bits(&self.qs, &self.hmask)
    }

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q3_k(&self.qs, &self.hmask)
    }
}

impl KFormat for BlockIq4Xs {
    const GROUPS: usize = 8;
    const SIGNED: bool = true;
    without_minima!();

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        let mut weights = [s.zero_i32(); 8];
        for (weights, qs) in weights.iter_mut().zip(&self.qs) {
            *weights = s.table_bytes(&LEVELS, s.nibbles(qs));
        }
        weights
    }

    #[inline(always)]
    fn scales<S: IntSimd>(&self, s: S) -> __m256i {
        let scales = self.scales();
        let mut twice = [0; 16];
        for (g, twice) in twice.iter_mut().enumerate() {
            *twice = scales[g / 2];
        }
        s.widen_i8(&twice)
    }

    #[inline(always)]
    fn per_sum<S: IntSimd>(&self, s: S) -> __m256i {
        s.zero_i32()
    }

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.levels(&self.qs, &LEVELS)
    }

    #[inline(always)]
    fn activations<S: KLanes<N>, const N: usize>(s: S, q: &[i8; 256]) -> [S::Vector; N] {
        s.halved(q)
    }

    #[inline(always)]
    fn vector_scales<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        _: Option<S::Header>,
        _: usize,
    ) -> S::Scales {
        s.level_scales(&self.packed_scales())
    }

    #[inline(always)]
    fn dots<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        (weights, scales): ([S::Vector; N], S::Scales),
        (x, sums): ([S::Vector; N], &[i16; 16]),
    ) -> S::Vector {
        s.level_dots(weights, x, scales, sums)
    }
}

/// IQ4_XS's levels as bytes.
const LEVELS: [u8; 16] = shifted(iq4_nl::LEVELS, 0);

impl BlockQ2K {
    /// The groups' scales, and their minima.
    #[inline(always)]
    fn nibbles(&self) -> [[i8; 16]; 2] {
        let bytes = u128::from_le_bytes(self.scales);
        const LOW: u128 = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
        [bytes & LOW, bytes >> 4 & LOW].map(
            #[inline(always)]
            |bytes| bytemuck::cast(bytes.to_le_bytes()),
        )
    }
}

impl KFormat for BlockQ2K {
    const GROUPS: usize = 16;

    #[inline(always)]
    fn weights<S: IntSimd>(&self, s: S) -> [__m256i; 8] {
        s.two_bits(&self.qs)
    }

    #[inline(always)]
    fn scales<S: IntSimd>(&self, s: S) -> __m256i {
        s.widen_i8(&self.nibbles()[0])
    }

    #[inline(always)]
    fn per_sum<S: IntSimd>(&self, s: S) -> __m256i {
        s.widen_i8(&self.nibbles()[1])
    }

    #[inline(always)]
    fn d_and_dmin(&self) -> (Half, Half) {
        (self.d, self.dmin)
    }

    #[inline(always)]
    fn vectors<S: KLanes<N>, const N: usize>(&self, s: S) -> [S::Vector; N] {
        s.q2_k(&self.qs)
    }

    #[inline(always)]
    fn common<S: KLanes<N>, const N: usize>(s: S, rows: [&Self; 4]) -> Option<S::Header> {
        Some(s.narrow_header(rows.map(
            #[inline(always)]
            |row| &row.scales,
        )))
    }

    #[inline(always)]
    fn vector_scales<S: KLanes<N>, const N: usize>(
        &self,
        s: S,
        common: Option<S::Header>,
        row: usize,
    ) -> S::Scales {
        s.narrow_run_scales(common.expect("of affine formats"), row)
    }

    #[inline(always)]
    fn rows_chain<S: KLanes<N>, const N: usize>(
        s: S,
        (rows, common): ([&Self; 4], Option<S::Header>),
        (d_x, products, sums): (__m128, __m128, &[i16; 16]),
        acc: __m128,
    ) -> __m128 {
        let header = common.expect("of affine formats");
        let [d, dmin] = s.half_pairs(rows.map(
            #[inline(always)]
            |row| [row.d.0, row.dmin.0],
        ));
        let minima = s.rows_to_floats(s.narrow_minima(header, sums));
        let acc = s.rows_fma(s.rows_mul(d, d_x), products, acc);
        s.rows_fnma(s.rows_mul(dmin, d_x), minima, acc)
    }
}
