//! An interaction log: impressions, of which some are clicked, then put in the cart, then bought, with known
//! probabilities.

use serde::{Deserialize, Serialize};

use super::random::{Random, int};

/// Latent dimensions.
const K: usize = 6;
/// Categories of items.
const CATEGORIES: u32 = 20;
/// Impressions of a session.
pub const SESSION: u64 = 8;
/// What the steps value in the latent dimensions: two shared ones help, the last one conflicts.
const STEPS: [[f64; K]; 3] = [
    [1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
    [1.0, 1.0, 0.0, 0.0, 1.0, 1.0],
    [1.0, 0.0, 1.0, 0.0, 1.0, -1.0],
];

/// Options of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Below 2^16.
    pub seed: u64,
    /// Impressions.
    pub count: u64,
    /// Users.
    pub users: u32,
    /// Items, a multiple of 20.
    pub items: u32,
    /// How much the shown item is the one that would be clicked; 0 = no exposure bias.
    pub bias: f64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            seed: 7,
            count: 300_000,
            users: 2000,
            items: 3000,
            bias: 1.0,
        }
    }
}

impl Log {
    /// The first impression behind a share of the log, in whole sessions.
    #[must_use]
    pub fn cut(&self, tenths: u64) -> u64 {
        self.count * tenths / 10 / SESSION * SESSION
    }
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Age band 0..7, job 8..19, region 20..29.
    pub features: [u32; 3],
    p: [f64; K],
}

/// What is known of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// 0..19.
    pub category: u32,
    /// 0..99.
    pub brand: u32,
    /// 0..4.
    pub price: u32,
    /// 0..199.
    pub words: [u32; 3],
    /// Not shown in the first 80 % of the log.
    pub cold: bool,
    q: [f64; K],
}

/// One impression; the last three fields are for judges, never for learners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impression {
    /// User.
    pub user: u32,
    /// Item.
    pub item: u32,
    /// Category that the session looks for.
    pub want: u32,
    /// Probability of the click; of the cart given a click; of the purchase given a cart.
    pub p: [f64; 3],
    /// What each step would do, whether or not the step before it was taken.
    pub potential: [bool; 3],
}

impl Impression {
    /// What is observed: a step happens only after the one before.
    #[must_use]
    pub fn observed(&self) -> [bool; 3] {
        let [a, b, c] = self.potential;
        [a, a && b, a && b && c]
    }
}

/// Users and items of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The options.
    pub log: Log,
    /// Users.
    pub users: Vec<User>,
    /// Items.
    pub items: Vec<Item>,
}

impl World {
    /// Users and items; a few milliseconds.
    #[must_use]
    pub fn new(log: Log) -> Self {
        let r = Random::new(log.seed);
        Self {
            log,
            users: (0..u64::from(log.users)).map(|i| user(r, i)).collect(),
            items: (0..log.items).map(|i| item(r, i)).collect(),
        }
    }

    /// Affinity of a step.
    fn affinity(&self, step: usize, user: u32, item: u32) -> f64 {
        let (p, q) = (&self.users[user as usize].p, &self.items[item as usize].q);
        let terms = STEPS[step]
            .iter()
            .zip(p)
            .zip(q)
            .map(|((a, p), q)| a * p * q);
        terms.fold(0.0, |sum, t| sum + t) / 3.0
    }

    /// Impression `r`: a pure function of the options and `r`, which has to be below their count.
    #[must_use]
    pub fn impression(&self, r: u64) -> Impression {
        let Log {
            items, users, bias, ..
        } = self.log;
        let random = Random::new(self.log.seed);
        let (session, pos) = (r / SESSION, r % SESSION);
        let v = random.uniform(30, session);
        let user = int(f64::from(users) * (v * v.sqrt()));
        let want = random.below(CATEGORIES, 31, session);
        let warm_only = r < self.log.cut(8);
        let candidate = |c: u64| {
            let x = random.uniform(34 + c, r);
            let mut item = if random.uniform(32 + c, r) < 0.6 {
                CATEGORIES * int(f64::from(items / CATEGORIES) * x * x) + want
            } else {
                int(f64::from(items) * x * x)
            };
            // A category of cold items alone keeps its candidate.
            let mut left = if warm_only { items / CATEGORIES } else { 0 };
            while left > 0 && self.items[item as usize].cold {
                item = (item + CATEGORIES) % items;
                left -= 1;
            }
            item
        };
        let (a, b) = (candidate(0), candidate(1));
        let lead = self.affinity(0, user, b) - self.affinity(0, user, a);
        let second = random.uniform(36, r) < sigmoid(bias * lead);
        let item = if second { b } else { a };
        let shown = &self.items[item as usize];
        let m = f64::from(u8::from(shown.category == want));
        let price = f64::from(shown.price);
        let f: [f64; 3] = std::array::from_fn(|j| self.affinity(j, user, item));
        let p = [
            sigmoid(-3.4 + 1.8 * f[0] + 0.8 * m - 0.1 * pos as f64),
            sigmoid(-1.6 + 2.0 * f[1] + 0.6 * m - 0.2 * price),
            sigmoid(-0.8 + 2.0 * f[2] - 0.3 * price),
        ];
        Impression {
            user,
            item,
            want,
            p,
            potential: std::array::from_fn(|j| random.uniform(37 + j as u64, r) < p[j]),
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn item(r: Random, index: u32) -> Item {
    let i = u64::from(index);
    let category = index % CATEGORIES;
    let brand = 5 * category + r.below(5, 20, i);
    let words: [u32; 3] = std::array::from_fn(|m| {
        let u = r.uniform(22, 3 * i + m as u64);
        int(200.0 * (u * u))
    });
    let q = std::array::from_fn(|k| {
        let k = k as u64;
        let n = |stream, of: u32| r.normal(stream, 6 * u64::from(of) + k);
        let told = n(25, words[0]) + n(25, words[1]) + n(25, words[2]);
        0.7 * n(23, category) + 0.5 * n(24, brand) + 0.4 * told / 3f64.sqrt() + 0.3 * n(26, index)
    });
    Item {
        category,
        brand,
        price: r.below(5, 21, i),
        words,
        cold: r.uniform(29, i) < 0.15,
        q,
    }
}

fn user(r: Random, i: u64) -> User {
    let features = [
        r.below(8, 40, i),
        8 + r.below(12, 41, i),
        20 + r.below(10, 42, i),
    ];
    let p = std::array::from_fn(|k| {
        let k = k as u64;
        let n = |of: u32| r.normal(27, 6 * u64::from(of) + k);
        let told = n(features[0]) + n(features[1]) + n(features[2]);
        0.55 * told + 0.3 * r.normal(28, 6 * i + k)
    });
    User { features, p }
}
