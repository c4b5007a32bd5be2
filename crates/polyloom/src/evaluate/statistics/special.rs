//! The distributions behind intervals and tests: normal, Student's t, chi-squared, F, binomial, beta, and the
//! studentized range of infinitely many degrees of freedom.
//!
//! Tails are computed as tails, so that a p-value of 1e-30 keeps its digits. Accuracy is some 1e-14 relative, for
//! Student's t some 1e-17 times the degrees of freedom where that is more. Arguments outside a distribution's domain give `NaN`.
//!
//! Sources: continued fractions and series of the NIST Digital Library of Mathematical Functions (7.6, 7.9, 8.7, 8.9,
//! 8.17), prefactors as in Loader, "Fast and accurate computation of binomial probabilities" (2000). Peers:
//! `scipy.stats.{norm, t, chi2, f, binom, beta, studentized_range}`.

use std::f64::consts::{PI, SQRT_2};

pub use super::normal_quantile::normal_quantile;

const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;
const SQRT_2PI: f64 = 2.506_628_274_631_000_7;
/// Terms after which a series that has not settled is given up; reached at some 1e10 degrees of freedom.
const TERMS: usize = 1_000_000;

/// Probability that a standard normal value is at most `z`.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / SQRT_2)
}

/// Probability that a standard normal value exceeds `z`.
pub fn normal_sf(z: f64) -> f64 {
    0.5 * erfc(z / SQRT_2)
}

/// `2/sqrt(pi)` times the integral of `exp(-t^2)` from `x` to infinity.
pub fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x < 2.0 {
        if x < -2.0 {
            return 2.0 - erfc(-x);
        }
        return 1.0 - erf_series(x);
    }
    if x > 27.3 {
        return 0.0;
    }
    // DLMF 7.9.2, from the bottom up.
    let mut fraction = 0.0;
    for k in (1..=120).rev() {
        fraction = 0.5 * f64::from(k) / (x + fraction);
    }
    // The square is split so that its rounding does not enter the exponent.
    let high = (x * 16.0).trunc() / 16.0;
    let exponential = (-high * high).exp() * (-(x - high) * (x + high)).exp();
    exponential / PI.sqrt() / (x + fraction)
}

/// DLMF 7.6.2: all terms of one sign.
fn erf_series(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
        if term.abs() < 1e-17 * sum.abs() {
            break;
        }
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// Logarithm of the gamma function for `x > 0` (Lanczos, g = 7).
pub fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Reflection keeps the digits near 0.
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let shifted = x + 7.5;
    let series = COEFFICIENTS[1..]
        .iter()
        .zip(1u8..)
        .fold(COEFFICIENTS[0], |sum, (c, i)| sum + c / (x + f64::from(i)));
    LN_SQRT_2PI + (x + 0.5) * shifted.ln() - shifted + series.ln()
}

/// What Stirling's formula lacks: `ln x! - ln(sqrt(2 pi x) (x/e)^x)`.
fn stirling_error(x: f64) -> f64 {
    if x < 15.0 {
        return ln_gamma(x + 1.0) - (x + 0.5) * x.ln() + x - LN_SQRT_2PI;
    }
    let y = 1.0 / (x * x);
    let series = 1.0 / 1680.0 - y * (1.0 / 1188.0 - y * 691.0 / 360_360.0);
    (1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1260.0 - y * series))) / x
}

/// Loader's deviance `x ln(x/m) + m - x`, without cancellation where `x` is near `m`.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * (x / m).ln() + m - x;
    }
    let v = (x - m) / (x + m);
    let mut sum = (x - m) * v;
    let mut term = 2.0 * x * v;
    for j in 1..1000 {
        term *= v * v;
        let next = sum + term / f64::from(2 * j + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// `n! / (x! (n-x)!) p^x q^(n-x)` for real `x` in `[0, n]`, `q = 1 - p`.
fn binomial_term(x: f64, n: f64, p: f64, q: f64) -> f64 {
    if p == 0.0 || q == 0.0 {
        let certain = if p == 0.0 { 0.0 } else { n };
        return if x == certain { 1.0 } else { 0.0 };
    }
    if x == 0.0 {
        return (n * if p < 0.5 { (-p).ln_1p() } else { q.ln() }).exp();
    }
    if x == n {
        return (n * if q < 0.5 { (-q).ln_1p() } else { p.ln() }).exp();
    }
    let rest = n - x;
    let exponent = stirling_error(n)
        - stirling_error(x)
        - stirling_error(rest)
        - deviance(x, n * p)
        - deviance(rest, n * q);
    exponent.exp() * (n / (2.0 * PI * x * rest)).sqrt()
}

/// Probability of `k` successes in `n` trials with success probability `p`.
pub fn binomial_pmf(k: u64, n: u64, p: f64) -> f64 {
    if k > n || !(0.0..=1.0).contains(&p) {
        return if k > n { 0.0 } else { f64::NAN };
    }
    binomial_term(k as f64, n as f64, p, 1.0 - p)
}

/// Probability of at most `k` successes in `n` trials with success probability `p`.
pub fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    beta_tails((n - k) as f64, k as f64 + 1.0, 1.0 - p, p).0
}

/// The regularised incomplete beta function `I_x(a, b)` and its complement, each with full relative accuracy; `y` is
/// `1 - x`, given apart because the caller often knows it more exactly.
pub fn beta_tails(a: f64, b: f64, x: f64, y: f64) -> (f64, f64) {
    let domain = a > 0.0 && b > 0.0 && (0.0..=1.0).contains(&x);
    if !domain {
        return (f64::NAN, f64::NAN);
    }
    if x == 0.0 || y == 0.0 {
        return if x == 0.0 { (0.0, 1.0) } else { (1.0, 0.0) };
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        let (upper, lower) = beta_lower(b, a, y, x);
        return (lower, upper);
    }
    beta_lower(a, b, x, y)
}

/// DLMF 8.17.22 by Lentz's method, for `x` below the mean.
fn beta_lower(a: f64, b: f64, x: f64, y: f64) -> (f64, f64) {
    // x^a y^b / B(a, b)
    let prefactor = a * b / (a + b) * binomial_term(a, a + b, x, y);
    let tiny = 1e-300;
    let away = |v: f64| if v.abs() < tiny { tiny } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..TERMS {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < 1e-16 {
            break;
        }
    }
    let lower = (prefactor * fraction / a).min(1.0);
    (lower, 1.0 - lower)
}

/// The `x` with `I_x(a, b) = p`.
pub fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let domain = a > 0.0 && b > 0.0 && (0.0..=1.0).contains(&p);
    if !domain {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return p;
    }
    let (mut low, mut high) = (0.0, 1.0);
    let mut x = a / (a + b);
    for _ in 0..200 {
        let excess = beta_tails(a, b, x, 1.0 - x).0 - p;
        if excess > 0.0 {
            high = x;
        } else {
            low = x;
        }
        let density = a * b / (a + b) * binomial_term(a, a + b, x, 1.0 - x) / (x * (1.0 - x));
        let newton = x - excess / density;
        let next = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
        if (next - x).abs() <= 1e-15 * x {
            return next;
        }
        x = next;
    }
    x
}

/// The regularised incomplete gamma functions `P(a, x)` and `Q(a, x) = 1 - P`.
pub fn gamma_tails(a: f64, x: f64) -> (f64, f64) {
    let domain = a > 0.0 && x >= 0.0;
    if !domain {
        return (f64::NAN, f64::NAN);
    }
    if x == 0.0 || x.is_infinite() {
        return if x == 0.0 { (0.0, 1.0) } else { (1.0, 0.0) };
    }
    // x^a e^-x / Gamma(a + 1)
    let prefactor = (-stirling_error(a) - deviance(a, x)).exp() / (2.0 * PI * a).sqrt();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0, 1.0);
        for n in 1..TERMS {
            term *= x / (a + n as f64);
            sum += term;
            if term < 1e-17 * sum {
                break;
            }
        }
        let lower = (prefactor * sum).min(1.0);
        return (lower, 1.0 - lower);
    }
    // DLMF 8.9.2 by Lentz's method.
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for i in 1..TERMS {
        let i = i as f64;
        b += 2.0;
        let k = -i * (i - a);
        d = 1.0 / (k * d + b);
        c = b + k / c;
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < 1e-16 {
            break;
        }
    }
    let upper = (prefactor * a * fraction).min(1.0);
    (1.0 - upper, upper)
}

/// Probability that a chi-squared value with `df` degrees of freedom exceeds `x`.
pub fn chi2_sf(x: f64, df: f64) -> f64 {
    if x <= 0.0 && df > 0.0 {
        return 1.0;
    }
    gamma_tails(0.5 * df, 0.5 * x).1
}

/// Probability that an F value with `df1` and `df2` degrees of freedom exceeds `x`.
pub fn f_sf(x: f64, df1: f64, df2: f64) -> f64 {
    let domain = df1 > 0.0 && df2 > 0.0;
    if !domain || x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let total = df2 + df1 * x;
    beta_tails(0.5 * df2, 0.5 * df1, df2 / total, df1 * x / total).0
}

/// Probability that a Student's t value with `df` degrees of freedom exceeds `t`.
pub fn t_sf(t: f64, df: f64) -> f64 {
    let half = 0.5 * t_two_sided(t, df);
    if t < 0.0 { 1.0 - half } else { half }
}

/// Probability that a Student's t value with `df` degrees of freedom is at least as far from 0 as `t`.
pub fn t_two_sided(t: f64, df: f64) -> f64 {
    if t.is_nan() || df.is_nan() || df <= 0.0 {
        return f64::NAN;
    }
    if t.is_infinite() {
        return 0.0;
    }
    let total = df + t * t;
    beta_tails(0.5 * df, 0.5, df / total, t * t / total).0
}

/// The value that a Student's t value with `df` degrees of freedom stays at or below with probability `p`.
pub fn t_quantile(p: f64, df: f64) -> f64 {
    let domain = df > 0.0 && (0.0..=1.0).contains(&p);
    if !domain {
        return f64::NAN;
    }
    if p < 0.5 {
        return -upper_t(p, df);
    }
    if p == 0.5 {
        return 0.0;
    }
    upper_t(1.0 - p, df)
}

/// The positive t that is exceeded with probability `q < 1/2`: Newton's method on the logarithm of the tail, inside a
/// bracket.
fn upper_t(q: f64, df: f64) -> f64 {
    if q == 0.0 {
        return f64::INFINITY;
    }
    let mut low = 0.0;
    let mut high = -normal_quantile(q).min(-1.0);
    while t_sf(high, df) > q {
        low = high;
        high *= 2.0;
    }
    let ln_scale = ln_gamma(0.5 * (df + 1.0)) - ln_gamma(0.5 * df) - 0.5 * (df * PI).ln();
    let mut t = 0.5 * (low + high);
    for _ in 0..200 {
        let tail = t_sf(t, df);
        if tail > q {
            low = t;
        } else {
            high = t;
        }
        let density = (ln_scale - 0.5 * (df + 1.0) * (t * t / df).ln_1p()).exp();
        let newton = t + tail * (tail / q).ln() / density;
        let next = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
        if (next - t).abs() <= 1e-15 * t {
            return next;
        }
        t = next;
    }
    t
}

/// Probability that the range of `k` independent standard normal values is at most `q` (the studentized range with
/// infinitely many degrees of freedom). Trapezia over the whole line converge faster than any power of the step.
pub fn range_cdf(q: f64, k: usize) -> f64 {
    if k < 2 || q.is_nan() {
        return f64::NAN;
    }
    if q <= 0.0 {
        return 0.0;
    }
    let step = 0.0625;
    let reach = (8.5 + q.min(12.0)) / step;
    let mut sum = 0.0;
    let mut i = -(8.5 / step) as i32;
    while f64::from(i) <= reach {
        let z = f64::from(i) * step;
        let density = (-0.5 * z * z).exp() / SQRT_2PI;
        let within = normal_sf(z - q) - normal_sf(z);
        sum += density * within.max(0.0).powf(k as f64 - 1.0);
        i += 1;
    }
    (k as f64 * step * sum).min(1.0)
}

/// The range that `k` independent standard normal values stay within with probability `p`.
pub fn range_quantile(p: f64, k: usize) -> f64 {
    let domain = k >= 2 && (0.0..1.0).contains(&p);
    if !domain {
        return f64::NAN;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while range_cdf(high, k) < p {
        low = high;
        high *= 2.0;
        if high > 64.0 {
            return f64::INFINITY;
        }
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if range_cdf(middle, k) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64, relative: f64) {
        assert!(
            (found - wanted).abs() <= relative * wanted.abs(),
            "{found} is not {wanted}"
        );
    }

    #[test]
    fn normal_against_printed_tables() {
        close(normal_cdf(1.0), 0.841_344_746_068_542_9, 1e-15);
        close(normal_sf(10.0), 7.619_853_024_160_526e-24, 1e-13);
        close(normal_sf(37.0), 5.725_571_222_524_577e-300, 1e-12);
        close(normal_quantile(0.975), 1.959_963_984_540_054, 3e-15);
        close(normal_quantile(1e-300), -37.047_096_299_361_2, 1e-13);
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert!(normal_quantile(0.5).abs() < 1e-16 && normal_quantile(1.5).is_nan());
    }

    #[test]
    fn closed_forms() {
        // t with one degree of freedom is Cauchy, with two it is algebraic.
        close(t_sf(3.0, 1.0), 0.5 - 3f64.atan() / PI, 1e-14);
        close(t_sf(3.0, 2.0), 0.5 - 1.5 / 11f64.sqrt(), 1e-13);
        close(t_quantile(0.999, 1.0), (0.499 * PI).tan(), 1e-12);
        close(t_quantile(0.975, 1e5), 1.959_987_707_534_609_6, 1e-11);
        close(t_quantile(0.025, 7.0), -2.364_624_251_592_785, 1e-13);
        // chi-squared with two degrees of freedom is exponential.
        close(chi2_sf(700.0, 2.0), (-350f64).exp(), 1e-12);
        close(chi2_sf(1.0, 2.0), (-0.5f64).exp(), 1e-14);
        // F with two numerator degrees of freedom is algebraic.
        close(
            f_sf(3.2, 2.0, 18.0),
            (1.0 + 6.4 / 18.0f64).powf(-9.0),
            1e-14,
        );
        close(beta_tails(2.0, 3.0, 0.5, 0.5).0, 0.6875, 1e-15);
        close(beta_quantile(0.6875, 2.0, 3.0), 0.5, 1e-14);
        close(gamma_tails(2.5, 30.0).1, 1.215_456_977_718_303_8e-11, 1e-13);
        close(
            beta_tails(30.5, 200.0, 0.1, 0.9).0,
            0.064_703_464_846_220_07,
            1e-13,
        );
        close(ln_gamma(0.5), PI.sqrt().ln(), 1e-14);
        close(
            ln_gamma(101.0),
            (1..=100).map(|i| f64::from(i).ln()).sum(),
            1e-14,
        );
    }

    #[test]
    fn binomials_sum_up() {
        close(binomial_pmf(3, 10, 0.5), 120.0 / 1024.0, 1e-14);
        close(binomial_cdf(3, 10, 0.5), 176.0 / 1024.0, 1e-14);
        close(
            binomial_pmf(0, 1000, 1e-5),
            (1000.0 * (-1e-5f64).ln_1p()).exp(),
            1e-14,
        );
        let whole: f64 = (0..=40).map(|k| binomial_pmf(k, 40, 0.3)).sum();
        close(whole, 1.0, 1e-13);
        assert_eq!(binomial_cdf(10, 10, 0.5), 1.0);
    }

    #[test]
    fn range_of_two_is_a_difference() {
        // The range of two values is |z1 - z2|, normal with variance 2.
        let wanted = 1.0 - 2.0 * normal_sf(2.0 / SQRT_2);
        close(range_cdf(2.0, 2), wanted, 1e-12);
        close(
            range_quantile(0.95, 2),
            SQRT_2 * 1.959_963_984_540_054,
            1e-12,
        );
    }
}
