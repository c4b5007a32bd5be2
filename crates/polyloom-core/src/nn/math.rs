//! Functions of one number that compile to straight lines of vector instructions: no branches, no calls.

/// Exponential, within 2 units in the last place; 0 below -87.3, that of 88.72 above it (not infinity); not a number stays
/// so.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // x = n ln 2 + r, e^r by a polynomial (Cephes), 2^n by its bits. Adding 1.5 * 2^23 rounds to a whole number.
    const MAGIC: f32 = 12_582_912.0;
    let x = if x > 88.72 { 88.72 } else { x };
    let tiny = x < -87.33;
    let x = if tiny { -87.33 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    // 2^n in two steps: n may be 128.
    let bits = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = bits >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let found = p * power(half) * power(bits - half);
    if tiny { 0.0 } else { found }
}

/// Logistic function.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent by the quotient of polynomials that Eigen uses; within 4 units in the last place.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let small = x.abs() < 0.0004;
    let c = x.clamp(-7.905_311, 7.905_311);
    let s = c * c;
    let mut p = -2.760_768_5e-16;
    for a in [
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297_1e-8,
        1.485_722_4e-5,
        6.372_619e-4,
        4.893_524_6e-3,
    ] {
        p = p * s + a;
    }
    let mut q = 1.198_258_4e-6;
    for b in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
        q = q * s + b;
    }
    if small { x } else { c * p / q }
}

/// Error function by the quotient of polynomials that Eigen uses; absolute error below 5e-7.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let c = x.clamp(-4.0, 4.0);
    let s = c * c;
    let mut p = -2.726_142_3e-10;
    for a in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * s + a;
    }
    let mut q = -1.456_607_2e-5;
    for b in [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ] {
        q = q * s + b;
    }
    c * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn close_to_the_exact_functions() {
        for i in -4000..=4000 {
            let x = i as f32 * 0.0213;
            let exact = f64::from(x).exp();
            let ulp = f64::from(exact as f32) * 2f64.powi(-23);
            if exact < 3e38 && x > -87.3 {
                assert!(
                    (f64::from(exp(x)) - exact).abs() <= 2.0 * ulp.abs().max(1e-45),
                    "exp({x}) = {} not {exact}",
                    exp(x)
                );
            }
            let x = i as f32 * 0.0023;
            let exact = f64::from(x).tanh();
            assert!(
                (f64::from(tanh(x)) - exact).abs() <= 5e-7 * exact.abs(),
                "tanh({x}) = {} not {exact}",
                tanh(x)
            );
            let x = i as f32 * 0.0012;
            assert!(
                (f64::from(erf(x)) - erf_series(f64::from(x))).abs() < 5e-7,
                "erf({x}) = {}",
                erf(x)
            );
        }
    }

    #[test]
    fn ends() {
        assert_eq!(
            (exp(0.0), exp(-1000.0), exp(f32::NEG_INFINITY)),
            (1.0, 0.0, 0.0)
        );
        assert!(
            exp(1000.0).is_finite()
                && exp(88.0) > 1.6e38
                && exp(f32::NAN).is_nan()
                && tanh(f32::NAN).is_nan()
        );
        assert_eq!(
            (sigmoid(0.0), sigmoid(-1e9), sigmoid(1e9)),
            (0.5, 1.0 / (1.0 + exp(1e9)), 1.0)
        );
        assert!((tanh(50.0) - 1.0).abs() < 1e-6 && (erf(-9.0) + 1.0).abs() < 1e-6);
    }
}
