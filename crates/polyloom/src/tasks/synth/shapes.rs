//! Rendered scenes of simple bodies with five targets: class per pixel, depth, surface normals, edges, main class.
//!
//! Only + - * / sqrt and comparisons are used, so the bytes are the same on every machine.

use serde::{Deserialize, Serialize};

use super::random::{Random, int};

/// Height and width of an image.
pub const SIDE: usize = 48;
const PIXELS: usize = SIDE * SIDE;
/// Classes of a pixel.
pub const CLASSES: [&str; 6] = ["background", "dome", "box", "cone", "ramp", "half_cylinder"];
/// The targets, in the order in which they are withheld.
pub const TARGETS: [&str; 5] = ["segmentation", "depth", "normals", "edges", "label"];

/// Where colours come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Classes {
    /// The shape alone tells the class.
    #[default]
    Shape,
    /// Every class has its colour: an easy variant for smoke tests.
    Colour,
}

/// Options of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shapes {
    /// Below 2^16.
    pub seed: u64,
    /// Scenes.
    pub count: u64,
    /// Share of the targets of training scenes that are withheld, 0 to 1.
    pub missing: f64,
    /// Factor on the noise of pixels, at least 0.
    pub noise: f64,
    /// Where colours come from.
    pub classes: Classes,
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            seed: 7,
            count: 12_000,
            missing: 0.0,
            noise: 1.0,
            classes: Classes::Shape,
        }
    }
}

/// One scene; maps row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// u8, 48 x 48 x 3.
    pub image: Vec<u8>,
    /// u8, class 0..5 of what is seen.
    pub segmentation: Vec<u8>,
    /// u16, little endian: thousandths of 20 - height.
    pub depth: Vec<u8>,
    /// i8 x 3: 127 times the unit normal, rounded.
    pub normals: Vec<u8>,
    /// u8: what is seen differs from the right or the lower neighbour.
    pub edges: Vec<u8>,
    /// Class - 1 with the most pixels, the lowest on ties.
    pub label: u8,
    /// Bodies in the scene, also those that nothing is seen of.
    pub objects: u8,
}

/// One body.
#[derive(Debug, Clone, Copy)]
struct Object {
    kind: u8,
    centre: (f64, f64),
    r: f64,
    b: f64,
    c: f64,
    s: f64,
    e: f64,
    h: f64,
    albedo: [f64; 3],
}

impl Object {
    fn new(random: Random, first: u64, classes: Classes) -> Self {
        let u = |k: u64| random.uniform(3, first * 16 + k);
        let kind = (1 + int(5.0 * u(0))) as u8;
        let r = 5.0 + 8.0 * u(3);
        let t = 2.0 * u(5) - 1.0;
        let below = 1.0 + t * t;
        Self {
            kind,
            centre: (6.0 + 36.0 * u(1), 6.0 + 36.0 * u(2)),
            r,
            b: r * (0.6 + 0.8 * u(4)),
            c: (1.0 - t * t) / below,
            s: 2.0 * t / below,
            e: 6.0 * u(6),
            h: 3.0 + 7.0 * u(7),
            albedo: match classes {
                Classes::Shape => std::array::from_fn(|m| 0.25 + 0.7 * u(8 + m as u64)),
                Classes::Colour => colour(random, kind),
            },
        }
    }

    /// Height and gradient where the body is.
    #[inline]
    fn at(&self, x: f64, y: f64) -> Option<(f64, f64, f64)> {
        let (r, b, c, s, e, h) = (self.r, self.b, self.c, self.s, self.e, self.h);
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let d2 = dx * dx + dy * dy;
        match self.kind {
            1 => (d2 < r * r).then(|| {
                let w = (1.0 - d2 / (r * r)).max(0.0).sqrt();
                let f = -h / (r * r * w.max(0.05));
                (e + h * w, f * dx, f * dy)
            }),
            3 => {
                let rho = d2.sqrt();
                (rho < r).then(|| {
                    let (f, below) = (-(h / r), rho.max(1e-9));
                    (e + h * (1.0 - rho / r), f * dx / below, f * dy / below)
                })
            }
            kind => {
                let (p, q) = (c * dx + s * dy, c * dy - s * dx);
                (p.abs() < r && q.abs() < b).then(|| match kind {
                    2 => (e + h, 0.0, 0.0),
                    4 => {
                        let f = h / (2.0 * r);
                        (e + h * (p + r) / (2.0 * r), f * c, f * s)
                    }
                    _ => {
                        let w = (1.0 - q * q / (b * b)).max(0.0).sqrt();
                        let f = -h * q / (b * b * w.max(0.05));
                        (e + h * w, f * -s, f * c)
                    }
                })
            }
        }
    }
}

/// The colour of a class.
fn colour(random: Random, kind: u8) -> [f64; 3] {
    std::array::from_fn(|m| 0.25 + 0.7 * random.uniform(7, 3 * u64::from(kind) + m as u64))
}

impl Shapes {
    /// Scene `i`: a pure function of the options and `i`. About 0.2 ms, 23 kB.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped or bounded before"
    )]
    pub fn scene(&self, i: u64) -> Scene {
        let random = Random::new(self.seed);
        let count = 2 + int(4.0 * random.uniform(1, i)) as u8;
        let b: [f64; 7] = std::array::from_fn(|k| random.uniform(2, 8 * i + k as u64));
        let (gx, gy) = (0.1 * (b[0] - 0.5), 0.1 * (b[1] - 0.5));
        let ground = match self.classes {
            Classes::Shape => std::array::from_fn(|m| 0.25 + 0.7 * b[2 + m]),
            Classes::Colour => colour(random, 0),
        };
        let objects: Vec<Object> = (0..u64::from(count))
            .map(|j| Object::new(random, 8 * i + j, self.classes))
            .collect();
        let (lx, ly) = (2.0 * b[5] - 1.0, 2.0 * b[6] - 1.0);
        let light = (lx * lx + ly * ly + 1.0).sqrt();
        let noise = 0.08 * self.noise;
        let mut scene = Scene {
            image: Vec::with_capacity(PIXELS * 3),
            segmentation: Vec::with_capacity(PIXELS),
            depth: Vec::with_capacity(PIXELS * 2),
            normals: Vec::with_capacity(PIXELS * 3),
            edges: vec![0; PIXELS],
            label: 0,
            objects: count,
        };
        let mut owners = [0u8; PIXELS];
        let mut seen = [0u32; CLASSES.len()];
        for (at, owner) in owners.iter_mut().enumerate() {
            let (x, y) = ((at % SIDE) as f64 + 0.5, (at / SIDE) as f64 + 0.5);
            let (mut z, mut zx, mut zy) = (gx * (x - 24.0) + gy * (y - 24.0), gx, gy);
            for (j, object) in (1u8..).zip(&objects) {
                if let Some(point) = object.at(x, y).filter(|p| p.0 > z) {
                    (z, zx, zy) = point;
                    *owner = j;
                }
            }
            let body = objects.get(usize::from(*owner).wrapping_sub(1));
            let (kind, albedo) = body.map_or((0, &ground), |o| (o.kind, &o.albedo));
            let length = (zx * zx + zy * zy + 1.0).sqrt();
            let (nx, ny, nz) = (-zx / length, -zy / length, 1.0 / length);
            let shade = 0.3 + 0.7 * ((nx * lx + ny * ly + nz) / light).max(0.0);
            let first = (PIXELS as u64 * i + at as u64) * 3;
            for (g, albedo) in (first..).zip(albedo) {
                let u = |s| random.uniform(s, g);
                let v = albedo * shade + noise * (u(4) + u(5) + u(6) - 1.5);
                scene.image.push((255.0 * v.clamp(0.0, 1.0) + 0.5) as u8);
            }
            scene.segmentation.push(kind);
            seen[usize::from(kind)] += 1;
            let depth = (1000.0 * (20.0 - z) + 0.5) as u16;
            scene.depth.extend(depth.to_le_bytes());
            for n in [nx, ny, nz] {
                let size = (127.0 * n.abs() + 0.5) as i8;
                let signed = if n < 0.0 { -size } else { size };
                scene.normals.extend(signed.to_le_bytes());
            }
        }
        for at in 0..PIXELS {
            let right = at % SIDE + 1 < SIDE && owners[at] != owners[at + 1];
            let lower = at + SIDE < PIXELS && owners[at] != owners[at + SIDE];
            scene.edges[at] = u8::from(right || lower);
        }
        let most = seen[1..].iter().max();
        scene.label = seen[1..].iter().position(|n| Some(n) == most).unwrap_or(0) as u8;
        scene
    }

    /// Whether target `t` (in the order of [`TARGETS`]) of a training scene is withheld.
    #[must_use]
    pub fn withheld(&self, i: u64, t: u64) -> bool {
        self.missing > 0.0 && Random::new(self.seed).uniform(9, 8 * i + t) < self.missing
    }
}
