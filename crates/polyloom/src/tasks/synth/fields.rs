//! Two differential equations over one source and one geometry: Poisson and screened Poisson, solved on a grid.
//!
//! After the multi-task operator networks of Kumar et al. 2024 (*Synergistic learning with multi-task DeepONet for efficient PDE
//! problem solving*): sources and geometries vary, one network answers for all. The equations, kinds and sizes are ours. Only
//! + - * / sqrt and comparisons are used, so the bytes are the same on every machine.

use serde::{Deserialize, Serialize};

use super::random::{Random, int};

/// Height and width of the grid.
pub const SIDE: usize = 24;
const PIXELS: usize = SIDE * SIDE;
/// The targets.
pub const TARGETS: [&str; 2] = ["poisson", "screened"];
/// Largest value of a source.
const STRENGTH: f64 = 1000.0;
/// `k^2` of the screened equation: what a source does fades over a tenth of the side.
const SCREEN: f64 = 100.0;
/// Steps of a solution at most; some hundred are needed.
const STEPS: usize = 4 * PIXELS;

/// Where the equations hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Geometry {
    /// One of the next four for every row.
    #[default]
    Seen,
    /// A rectangle.
    Rectangle,
    /// A disc.
    Disc,
    /// A turned ellipse.
    Ellipse,
    /// A rectangle without a quarter.
    Corner,
    /// A turned triangle: none of the seen ones.
    Triangle,
}

/// Options of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// Below 2^16.
    pub seed: u64,
    /// Rows.
    pub count: u64,
    /// Where the equations hold.
    pub geometry: Geometry,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            seed: 7,
            count: 6_000,
            geometry: Geometry::Seen,
        }
    }
}

/// One row; maps row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// u8, 24 x 24 x 2: the source, 255 for 1,000; 255 inside of the geometry and 0 outside.
    pub image: Vec<u8>,
    /// u16, little endian: thousandths of the solution of Poisson's equation, at least 1 inside; 0 outside.
    pub poisson: Vec<u8>,
    /// The same of the screened equation.
    pub screened: Vec<u8>,
}

impl Fields {
    /// Row `i`: what is asked, and both answers.
    #[must_use]
    pub fn field(&self, i: u64) -> Field {
        let random = Random::new(self.seed);
        let inside = self.inside(random, i);
        let source = source(random, i);
        let value = |at: usize| match inside[at] {
            true => STRENGTH * f64::from(source[at]) / 255.0,
            false => 0.0,
        };
        let right: Vec<f64> = (0..PIXELS).map(value).collect();
        let pairs = source.iter().zip(&inside);
        let image = pairs.flat_map(|(f, inside)| [*f, 255 * u8::from(*inside)]);
        let answer = |screen: f64| {
            let solved = solve(&right, &inside, screen);
            let each = solved.iter().zip(&inside).flat_map(|(u, inside)| {
                let thousandths = u16::from(*inside).max(rounded(1000.0 * u));
                (thousandths * u16::from(*inside)).to_le_bytes()
            });
            each.collect()
        };
        Field {
            image: image.collect(),
            poisson: answer(0.0),
            screened: answer(SCREEN),
        }
    }

    /// Which pixel centres lie in the geometry of a row.
    fn inside(&self, random: Random, i: u64) -> Vec<bool> {
        let u = |k: u64| random.uniform(62, 8 * i + k);
        let kinds = [
            Geometry::Rectangle,
            Geometry::Disc,
            Geometry::Ellipse,
            Geometry::Corner,
        ];
        let kind = match self.geometry {
            Geometry::Seen => kinds[int(4.0 * u(0)) as usize % 4],
            own => own,
        };
        let centre = (0.4 + 0.2 * u(1), 0.4 + 0.2 * u(2));
        let (a, b) = (0.22 + 0.14 * u(3), 0.22 + 0.14 * u(4));
        // A turn without sine and cosine: every angle, though not evenly.
        let t = 2.0 * u(5) - 1.0;
        let (c, s) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let quarter = int(4.0 * u(6));
        let holds = |x: f64, y: f64| {
            let (dx, dy) = (x - centre.0, y - centre.1);
            let (p, q) = (c * dx + s * dy, c * dy - s * dx);
            match kind {
                Geometry::Disc => dx * dx + dy * dy < a * a,
                Geometry::Ellipse => {
                    let (p, q) = (p / a, q / (0.6 * b));
                    p * p + q * q < 1.0
                }
                Geometry::Corner => {
                    let gone = (dx > 0.0) == (quarter % 2 == 1) && (dy > 0.0) == (quarter / 2 == 1);
                    dx.abs() < a && dy.abs() < b && !gone
                }
                Geometry::Triangle => q > -0.5 * a && p.abs() < 0.65 * (a - q),
                Geometry::Rectangle | Geometry::Seen => dx.abs() < a && dy.abs() < b,
            }
        };
        (0..PIXELS)
            .map(|at| holds(middle(at % SIDE), middle(at / SIDE)))
            .collect()
    }
}

/// The middle of a pixel, 0 to 1.
fn middle(place: usize) -> f64 {
    (place as f64 + 0.5) / SIDE as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped before"
)]
fn rounded(x: f64) -> u16 {
    (x.clamp(0.0, 65_534.0) + 0.5) as u16
}

/// Three hills, as bytes.
fn source(random: Random, i: u64) -> Vec<u8> {
    let hill = |j: u64| {
        let u = |k: u64| random.uniform(63, (4 * i + j) * 4 + k);
        let width = 0.08 + 0.17 * u(2);
        ((u(0), u(1)), width * width, 0.2 + 0.8 * u(3))
    };
    let hills = [hill(0), hill(1), hill(2)];
    let at = |at: usize| {
        let (x, y) = (middle(at % SIDE), middle(at / SIDE));
        let each = hills.iter().map(|((a, b), width, height)| {
            let far = 1.0 + ((x - a) * (x - a) + (y - b) * (y - b)) / width;
            height / (far * far)
        });
        rounded(255.0 * (each.sum::<f64>() / 2.0).min(1.0)).min(255) as u8
    };
    (0..PIXELS).map(at).collect()
}

/// The five-point scheme `-laplace u + screen u = right` on the pixels inside, 0 on all others; `right` is 0 outside. Conjugate
/// gradients from 0, until the residual has a 10^-12th of its length.
fn solve(right: &[f64], inside: &[bool], screen: f64) -> Vec<f64> {
    let squared = (SIDE * SIDE) as f64;
    let times = |u: &[f64]| -> Vec<f64> {
        let of = |there: bool, to: usize| if there { u[to] } else { 0.0 };
        let one = |at: usize| {
            if !inside[at] {
                return 0.0;
            }
            let (x, y) = (at % SIDE, at / SIDE);
            let around = of(x > 0, at.wrapping_sub(1))
                + of(x + 1 < SIDE, at + 1)
                + of(y > 0, at.wrapping_sub(SIDE))
                + of(y + 1 < SIDE, at + SIDE);
            squared * (4.0 * u[at] - around) + screen * u[at]
        };
        (0..u.len()).map(one).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut u = vec![0.0; right.len()];
    let (mut rest, mut way) = (right.to_vec(), right.to_vec());
    let mut length = dot(&rest, &rest);
    let least = 1e-24 * length;
    for _ in 0..STEPS {
        if length <= least {
            break;
        }
        let moved = times(&way);
        let step = length / dot(&way, &moved);
        for at in 0..u.len() {
            u[at] += step * way[at];
            rest[at] -= step * moved[at];
        }
        let next = dot(&rest, &rest);
        for (way, rest) in way.iter_mut().zip(&rest) {
            *way = rest + next / length * *way;
        }
        length = next;
    }
    u
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(map: &[u8]) -> Vec<u16> {
        let words = map.chunks_exact(2);
        words.map(|w| u16::from_le_bytes([w[0], w[1]])).collect()
    }

    /// One pixel alone: `4 u / h^2 = f`. Two beside each other: `(4 u - u) / h^2 = f`. Screened: more on the diagonal.
    #[test]
    fn small_grids_by_hand() {
        let squared = (SIDE * SIDE) as f64;
        let on = |pixels: &[usize], screen: f64| {
            let there: Vec<bool> = (0..PIXELS).map(|at| pixels.contains(&at)).collect();
            let right: Vec<f64> = there.iter().map(|t| f64::from(u8::from(*t))).collect();
            solve(&right, &there, screen)
        };
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * b.abs().max(1e-9);
        assert!(close(on(&[50], 0.0)[50], 1.0 / (4.0 * squared)));
        let two = on(&[50, 51], 0.0);
        assert!(close(two[50], 1.0 / (3.0 * squared)) && close(two[51], two[50]));
        assert!(close(on(&[50], 100.0)[50], 1.0 / (4.0 * squared + 100.0)));
        assert!(
            two.iter()
                .enumerate()
                .all(|(at, u)| at == 50 || at == 51 || *u == 0.0)
        );
    }

    /// A product of sines over the whole grid, with zeros one step outside of it, is an eigenvector of the scheme.
    #[test]
    fn a_product_of_sines_is_found() {
        let wave = |k: usize| (std::f64::consts::PI * (k + 1) as f64 / (SIDE + 1) as f64).sin();
        let u: Vec<f64> = (0..PIXELS)
            .map(|at| wave(at % SIDE) * wave(at / SIDE))
            .collect();
        let half = (std::f64::consts::PI / (2.0 * (SIDE + 1) as f64)).sin();
        let eigenvalue = 8.0 * half * half * (SIDE * SIDE) as f64;
        for screen in [0.0, SCREEN] {
            let right: Vec<f64> = u.iter().map(|u| (eigenvalue + screen) * u).collect();
            let found = solve(&right, &[true; PIXELS], screen);
            let far = found.iter().zip(&u).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f64::max) < 1e-10);
        }
    }

    /// Answers are there inside and nowhere else, screening makes them smaller, every kind has room and a solution that a word holds.
    #[test]
    fn rows_are_what_they_say() {
        let kinds = [Geometry::Seen, Geometry::Triangle];
        for geometry in kinds {
            let fields = Fields {
                geometry,
                ..Fields::default()
            };
            for i in 0..200 {
                let row = fields.field(i);
                let (poisson, screened) = (values(&row.poisson), values(&row.screened));
                let mut count = 0;
                for (at, pixel) in row.image.chunks_exact(2).enumerate() {
                    let inside = pixel[1] == 255;
                    count += usize::from(inside);
                    assert_eq!((poisson[at] > 0, screened[at] > 0), (inside, inside));
                    assert!(screened[at] <= poisson[at] && poisson[at] < 40_000);
                }
                assert!(
                    (30..400).contains(&count),
                    "row {i} of {geometry:?}: {count}"
                );
            }
        }
        // Rows are functions of the seed and their number.
        let fields = Fields::default();
        assert_eq!(fields.field(3), fields.field(3));
        assert_ne!(fields.field(3), fields.field(4));
        // Sums of a transcription in NumPy, whose solver is another one.
        let row = fields.field(0);
        let sum = |map: &[u8]| values(map).iter().map(|x| u64::from(*x)).sum::<u64>();
        let bytes: u64 = row.image.iter().map(|x| u64::from(*x)).sum();
        assert_eq!(
            (bytes, sum(&row.poisson), sum(&row.screened)),
            (40_957, 117_403, 52_287)
        );
    }
}
