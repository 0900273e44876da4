//! Exponentials of many numbers in F64, with the bits of [`libm::exp`].
//!
//! A draw takes one for each token of a vocabulary, which one call each would make the dearest part of
//! a step. The operations are those of `libm` in the same order (FreeBSD's `e_exp.c`, after Sun 1993),
//! without its branches: a compiler makes vectors of them where the instruction set has wide ones.

use crate::simd::{Isa, Kernel, Simd, dispatch};

/// From here to 0 the result is a normal number, and one multiplication scales it.
const LEAST: f64 = -708.0;
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
const INVERSE_LN2: f64 = f64::from_bits(0x3ff7_1547_652b_82fe);
const P: [f64; 5] = [
    f64::from_bits(0x3fc5_5555_5555_553e),
    f64::from_bits(0xbf66_c16c_16be_bd93),
    f64::from_bits(0x3f11_566a_af25_de2c),
    f64::from_bits(0xbebb_bd41_c5d2_6bf1),
    f64::from_bits(0x3e66_3769_72be_a4d0),
];
/// About ln 2 / 2 and 2⁻²⁸: `libm` compares upper halves of numbers, and so takes those that share
/// theirs with the limit for smaller.
const REDUCED: f64 = f64::from_bits(0x3fd6_2e43_0000_0000);
const TINY: f64 = f64::from_bits(0x3e30_0001_0000_0000);
/// 1.5 · 2⁵²: added to a whole number, it is in the lowest bits of the sum.
const TO_WHOLE: f64 = f64::from_bits(0x4338_0000_0000_0000);

/// Replaces each number by its exponential: [`libm::exp`], to the bit, and several times as fast for
/// a thousand numbers between -708 and 0.
pub fn exponentials(x: &mut [f64]) {
    let is_usual = |x: &f64| (LEAST <= *x) & (*x <= 0.0);
    if x.iter().fold(true, |all, x| all & is_usual(x)) {
        dispatch(Isa::detect(), Usual(x));
    } else {
        x.iter_mut().for_each(|x| *x = libm::exp(*x));
    }
}

/// Numbers between [`LEAST`] and 0.
struct Usual<'a>(&'a mut [f64]);

impl<S: Simd> Kernel<S> for Usual<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: S) {
        self.0.iter_mut().for_each(|x| *x = exp_of_usual(*x));
    }
}

/// Of a number between [`LEAST`] and 0.
#[inline(always)]
fn exp_of_usual(x: f64) -> f64 {
    // Towards zero, as a conversion to an integer.
    let goal = INVERSE_LN2 * x - 0.5;
    let nearest = (goal + TO_WHOLE) - TO_WHOLE;
    let above = nearest + if nearest < goal { 1.0 } else { 0.0 };
    let k = if -x >= REDUCED { above } else { 0.0 };
    let high = x - k * LN2_HIGH;
    let low = k * LN2_LOW;
    let r = high - low;
    let rr = r * r;
    let c = r - rr * (P[0] + rr * (P[1] + rr * (P[2] + rr * (P[3] + rr * P[4]))));
    let y = 1.0 + (r * c / (2.0 - c) - low + high);
    let power = f64::from_bits((k + TO_WHOLE).to_bits().wrapping_add(1023) << 52);
    if -x >= TINY { y * power } else { 1.0 + x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As one of many.
    fn check(x: f64) {
        let mut found = [x; 17];
        exponentials(&mut found);
        for found in found {
            assert_eq!(found.to_bits(), libm::exp(x).to_bits(), "{x:e}");
        }
    }

    #[test]
    fn where_libm_goes_another_way_bits_are_the_same() {
        let half_ln2 = std::f64::consts::LN_2 / 2.0;
        let mut edges = vec![REDUCED, TINY, half_ln2, 3.0 * half_ln2, -LEAST];
        edges.extend(
            [0x3ff0_a2b2_u64, 0x3e30_0000, 0x3fd6_2e42, 0x4086_232b]
                .map(|upper| f64::from_bits(upper << 32)),
        );
        edges.extend((1..1022).map(|k| f64::from(2 * k + 1) * half_ln2));
        for edge in edges {
            let bits = edge.to_bits();
            (bits - 300..bits + 300).for_each(|bits| check(-f64::from_bits(bits)));
        }
        for x in [
            0.0,
            -0.0,
            f64::NEG_INFINITY,
            -1e300,
            -745.2,
            1.0,
            710.0,
            f64::MIN_POSITIVE,
        ] {
            check(x);
        }
        let mut nan = [f64::NAN, -1.0];
        exponentials(&mut nan);
        assert!(nan[0].is_nan());
    }

    #[test]
    fn one_unusual_number_does_not_change_the_others() {
        let mut x = [-1.25; 20];
        x[3] = -800.0;
        exponentials(&mut x);
        assert_eq!(x[3], 0.0);
        assert_eq!(x[0].to_bits(), libm::exp(-1.25).to_bits());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn bits_are_those_of_libm(
            x in prop::collection::vec(
                prop_oneof![-709.0..0.0, -20.0..0.0, -1.0..0.0, -1e-7..0.0], 1..40,
            ),
        ) {
            let mut found = x.clone();
            exponentials(&mut found);
            for (found, x) in found.into_iter().zip(x) {
                prop_assert_eq!(found.to_bits(), libm::exp(x).to_bits());
            }
        }
    }
}
