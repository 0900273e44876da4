//! Transcendental functions on sixteen lanes, made only of operations every ISA has, so that they
//! give the same bits everywhere.

use crate::simd::Simd;

/// `eˣ`; 0 below −87, and x is taken as 88 above that (where `eˣ` nears the largest F32).
///
/// Within 1 ulp of the exact value in between. Reduction `x = n ln 2 + r` in two steps, then
/// a polynomial in r (coefficients: Cephes `expf`, S. Moshier), then `2ⁿ`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    exp_up_to_88(s, s.min_of(x, s.splat(88.0)))
}

/// [`exp`] of numbers of at most 88.
#[inline(always)]
pub(crate) fn exp_up_to_88<S: Simd>(s: S, x: S::F32) -> S::F32 {
    /// High part of ln 2: nine significant bits, so that n times it is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = s.fma(p, r, s.splat(*coefficient));
    }
    let power = s.add(s.fma(s.mul(r, r), p, r), s.splat(1.0));
    let result = s.mul(power, s.exp2_integer(n));
    // What has come of numbers below is not a power of e.
    s.select_lt(x, s.splat(-87.0), s.zero(), result)
}

/// `x · sigmoid(x)` as `x / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let negative = s.sub(s.zero(), x);
    s.div(x, s.add(s.splat(1.0), exp(s, negative)))
}

/// `0.5 x (1 + tanh u)` with `u = √(2/π)(x + 0.044715 x³)`, as `x / (1 + e⁻²ᵘ)`, which is the same.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    /// `−2 √(2/π)`.
    const MINUS_TWO_ROOT: f32 = -1.595_769_2;
    let square = s.mul(x, x);
    let inner = s.mul(x, s.fma(square, s.splat(0.044_715), s.splat(1.0)));
    let minus_2u = s.mul(inner, s.splat(MINUS_TWO_ROOT));
    s.div(x, s.add(s.splat(1.0), exp(s, minus_2u)))
}

/// `x Φ(x)` with Φ the normal distribution, `0.5 (1 + erf(x / √2))`.
///
/// The tail `1 − Φ(a)`, a = |x|, is `e^(−a²/2) t p(t)` with `t = 1 / (1 + 0.275 a)` (the form of
/// Hastings 1955) and p fitted to within 4e-8 of its value over 0..13.3, beyond which the exponential
/// is 0. No digits are lost: x is multiplied with the tail, or has that product taken away.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(s: S, x: S::F32) -> S::F32 {
    const POLYNOMIAL: [f32; 9] = [
        0.025_990_935,
        -0.104_734_69,
        0.117_457_055,
        -0.020_138_268,
        0.077_319_21,
        0.083_607_89,
        0.100_969_19,
        0.109_828_38,
        0.109_700_36,
    ];
    let a = s.abs(x);
    let one = s.splat(1.0);
    let t = s.div(one, s.fma(a, s.splat(0.275), one));
    let mut p = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = s.fma(p, t, s.splat(*coefficient));
    }
    let power = exp_up_to_88(s, s.mul(s.mul(a, s.splat(-0.5)), a));
    let tail = s.mul(s.mul(p, t), power);
    let lost = s.mul(x, tail);
    s.select_lt(x, s.zero(), lost, s.sub(x, lost))
}

/// `x · sigmoid(1.702 x) · (up + 1)` as `x / (1 + e^(−1.702 x)) · (up + 1)`, where x is `gate` or 7 if
/// that is less, and `up` is held between −7 and 7.
#[inline(always)]
pub(crate) fn clamped_swiglu<S: Simd>(s: S, gate: S::F32, up: S::F32) -> S::F32 {
    const LIMIT: f32 = 7.0;
    const MINUS_ALPHA: f32 = -1.702;
    let x = s.min_of(gate, s.splat(LIMIT));
    let up = s.max_of(s.min_of(up, s.splat(LIMIT)), s.splat(-LIMIT));
    let exp = exp(s, s.mul(x, s.splat(MINUS_ALPHA)));
    let gate = s.div(x, s.add(s.splat(1.0), exp));
    s.mul(gate, s.add(up, s.splat(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel, dispatch};

    struct Exp<'a>(&'a [f32; 16]);

    impl<S: Simd> Kernel<S> for Exp<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        fn run(self, s: S) -> [f32; 16] {
            let mut out = [0.0; 16];
            s.store(exp(s, s.load(self.0)), &mut out);
            out
        }
    }

    struct Gates<'a>(&'a [f32; 16]);

    impl<S: Simd> Kernel<S> for Gates<'_> {
        type Output = [[f32; 16]; 3];
        #[inline(always)]
        fn run(self, s: S) -> [[f32; 16]; 3] {
            let mut out = [[0.0; 16]; 3];
            s.store(silu(s, s.load(self.0)), &mut out[0]);
            s.store(gelu_tanh(s, s.load(self.0)), &mut out[1]);
            s.store(gelu_erf(s, s.load(self.0)), &mut out[2]);
            out
        }
    }

    struct Swiglu<'a>(&'a [f32; 16], &'a [f32; 16]);

    impl<S: Simd> Kernel<S> for Swiglu<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        fn run(self, s: S) -> [f32; 16] {
            let mut out = [0.0; 16];
            s.store(clamped_swiglu(s, s.load(self.0), s.load(self.1)), &mut out);
            out
        }
    }

    #[test]
    fn the_clamped_gate_follows_its_definition() {
        sweep(|gate| {
            // Both ends of `up` and what is between them, at every gate.
            let up: [f32; 16] =
                std::array::from_fn(|lane| lane as f32 * 1.25 - 9.0 + gate[0] / 400.0);
            let scalar = dispatch(Isa::Scalar, Swiglu(gate, &up));
            for isa in Isa::available() {
                let other = dispatch(isa, Swiglu(gate, &up));
                assert_eq!(other.map(f32::to_bits), scalar.map(f32::to_bits), "{isa}");
            }
            for ((gate, up), found) in gate.iter().zip(up).zip(scalar) {
                let (x, up) = (f64::from(*gate).min(7.0), f64::from(up).clamp(-7.0, 7.0));
                let exact = x / (1.0 + (-1.702 * x).exp()) * (up + 1.0);
                let error = (f64::from(found) - exact).abs() / exact.abs().max(1.0);
                assert!(error < 1e-6, "of {gate} and {up}: {found}, not {exact}");
            }
        });
        let nan = dispatch(Isa::Scalar, Swiglu(&[f32::NAN; 16], &[1.0; 16]));
        assert!(nan.iter().all(|x| x.is_nan()), "a NaN is not clamped");
    }

    fn sweep(each: impl Fn(&[f32; 16])) {
        for step in 0..20_000_i32 {
            each(&std::array::from_fn(|lane| {
                (step * 16 + lane as i32 - 160_000) as f32 * (200.0 / 320_000.0)
            }));
        }
    }

    #[test]
    fn exp_is_within_one_ulp_and_equal_on_every_isa() {
        sweep(|x| {
            let scalar = dispatch(Isa::Scalar, Exp(x));
            for isa in Isa::available() {
                assert_eq!(
                    dispatch(isa, Exp(x)).map(f32::to_bits),
                    scalar.map(f32::to_bits),
                    "{isa} at {x:?}"
                );
            }
            for (x, y) in x.iter().zip(scalar) {
                if (-87.0..=88.0).contains(x) {
                    let exact = f64::from(*x).exp();
                    let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1))
                        - f64::from(exact as f32);
                    let error = (f64::from(y) - exact).abs() / ulp;
                    assert!(error <= 1.0, "exp({x}) = {y}, {error} ulp off");
                }
            }
        });
    }

    #[test]
    fn exp_ends_are_as_documented() {
        let mut x = [0.0; 16];
        x[..6].copy_from_slice(&[-1e30, -87.1, f32::NEG_INFINITY, 1e30, 0.0, -0.0]);
        for isa in Isa::available() {
            let y = dispatch(isa, Exp(&x));
            assert_eq!(&y[..3], &[0.0; 3], "{isa}");
            assert!(y[3].is_finite() && y[3] > 1.6e38, "{isa}: {}", y[3]);
            assert_eq!(&y[4..6], &[1.0; 2], "{isa}");
        }
    }

    #[test]
    fn gates_follow_their_definitions() {
        sweep(|x| {
            let scalar = dispatch(Isa::Scalar, Gates(x));
            for isa in Isa::available() {
                let other = dispatch(isa, Gates(x));
                for (other, scalar) in other.iter().zip(&scalar) {
                    assert_eq!(other.map(f32::to_bits), scalar.map(f32::to_bits), "{isa}");
                }
            }
            for (i, x) in x.iter().map(|x| f64::from(*x)).enumerate() {
                let silu = x / (1.0 + (-x).exp());
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                let gelu = 0.5 * x * (1.0 + u.tanh());
                let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-6 * b.abs().max(1.0);
                let normal = 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2);
                for (name, found, exact) in [
                    ("silu", scalar[0][i], silu),
                    ("gelu by tanh", scalar[1][i], gelu),
                    ("gelu by erf", scalar[2][i], normal),
                ] {
                    assert!(close(found, exact), "{name}({x}) = {found}, not {exact}");
                }
                // Its lower tail keeps its digits as far as the exponential does.
                if (-13.0..0.0).contains(&x) {
                    let relative = (f64::from(scalar[2][i]) / normal - 1.0).abs();
                    assert!(relative < 6e-6, "gelu by erf({x}): {relative:e}");
                }
            }
        });
    }
}
