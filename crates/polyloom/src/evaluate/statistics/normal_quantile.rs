//! Quantiles of the normal distribution: Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution",
//! Applied Statistics 37 (1988), PPND16 (some 1e-16 relative; three ratios of polynomials, one for each part of the range).

#![allow(
    clippy::excessive_precision,
    reason = "coefficients as they were published"
)]

/// Coefficients of a ratio of polynomials, those of the highest power first.
#[derive(Debug)]
pub struct Ratio(pub [f64; 8], pub [f64; 8]);

impl Ratio {
    fn at(&self, x: f64) -> f64 {
        let value = |of: &[f64; 8]| of.iter().fold(0.0, |sum: f64, c| sum * x + c);
        value(&self.0) / value(&self.1)
    }
}

/// How far from one half [`MIDDLE`] reaches.
pub const NEAR: f64 = 0.425;

/// Within [`NEAR`] of one half: `p - 0.5` times the ratio at `NEAR^2 - (p - 0.5)^2`.
pub const MIDDLE: Ratio = Ratio(
    [
        2.509_080_928_730_122_672_7e3,
        3.343_057_558_358_812_810_5e4,
        6.726_577_092_700_870_085_3e4,
        4.592_195_393_154_987_145_7e4,
        1.373_169_376_550_946_112_5e4,
        1.971_590_950_306_551_442_7e3,
        1.331_416_678_917_843_774_5e2,
        3.387_132_872_796_366_608,
    ],
    [
        5.226_495_278_852_854_561e3,
        2.872_908_573_572_194_267_4e4,
        3.930_789_580_009_271_061e4,
        2.121_379_430_158_659_586_7e4,
        5.394_196_021_424_751_107_7e3,
        6.871_870_074_920_579_083e2,
        4.231_333_070_160_091_125_2e1,
        1.0,
    ],
);

/// Taken off of `sqrt(-ln p)` for [`TAIL`].
pub const TAIL_FROM: f64 = 1.6;

/// Nearer to 0, while `sqrt(-ln p)` is up to five: minus the ratio at `sqrt(-ln p)` less [`TAIL_FROM`]. Near 1 the same of `1 - p`,
/// without the minus.
pub const TAIL: Ratio = Ratio(
    [
        7.745_450_142_783_414_076_4e-4,
        2.272_384_498_926_918_458_33e-2,
        2.417_807_251_774_506_117_7e-1,
        1.270_458_252_452_368_382_58,
        3.647_848_324_763_204_605_04,
        5.769_497_221_460_691_405_5,
        4.630_337_846_156_545_295_9,
        1.423_437_110_749_683_577_34,
    ],
    [
        1.050_750_071_644_416_843_24e-9,
        5.475_938_084_995_344_946e-4,
        1.519_866_656_361_645_719_66e-2,
        1.481_039_764_274_800_745_9e-1,
        6.897_673_349_851_000_045_5e-1,
        1.676_384_830_183_803_849_4,
        2.053_191_626_637_758_821_87,
        1.0,
    ],
);

/// Beyond five, by `sqrt(-ln p) - 5`.
const FAR: Ratio = Ratio(
    [
        2.010_334_399_292_288_132_65e-7,
        2.711_555_568_743_487_578_15e-5,
        1.242_660_947_388_078_438_6e-3,
        2.653_218_952_657_612_309_3e-2,
        2.965_605_718_285_048_912_3e-1,
        1.784_826_539_917_291_335_8,
        5.463_784_911_164_114_369_9,
        6.657_904_643_501_103_777_2,
    ],
    [
        2.044_263_103_389_939_785_64e-15,
        1.421_511_758_316_445_888_7e-7,
        1.846_318_317_510_054_681_8e-5,
        7.868_691_311_456_132_591e-4,
        1.487_536_129_085_061_485_25e-2,
        1.369_298_809_227_358_053_1e-1,
        5.998_322_065_558_879_376_9e-1,
        1.0,
    ],
);

/// The value that a standard normal value stays at or below with probability `p`; infinite at 0 and 1, `NaN` outside.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let away = p - 0.5;
    if away.abs() <= NEAR {
        return away * MIDDLE.at(NEAR * NEAR - away * away);
    }
    let tail = if away < 0.0 { p } else { 1.0 - p };
    if tail == 0.0 {
        return f64::INFINITY.copysign(away);
    }
    let root = (-tail.ln()).sqrt();
    let z = match root <= 5.0 {
        true => TAIL.at(root - TAIL_FROM),
        false => FAR.at(root - 5.0),
    };
    z.copysign(away)
}
