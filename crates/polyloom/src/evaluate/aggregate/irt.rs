//! Item response theory: ability of systems and difficulty of items (methods/evaluation.md 3.5).
//!
//! A system of ability θ answers item i rightly with probability 1 / (1 + e^(−aᵢ(θ − bᵢ))) (Birnbaum 1968; Rasch 1960 with
//! all a = 1). Abilities are standard normal over the systems. Use it to read items, not for headline scores: for language
//! models it did not make comparisons steadier ("Quantifying Variance in Evaluation Benchmarks").

use super::quadrature::normal_points;
use crate::evaluate::{EvalError, Result, error::same_length};

const WHAT: &str = "item response";
/// Points for the mean over abilities, the upper end of the 41 to 61 that are usual.
const POINTS: usize = 61;

/// An item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// Discrimination a: how steeply the probability rises; above 0.
    pub discrimination: f64,
    /// Difficulty b: the ability at which it is one half.
    pub difficulty: f64,
}

impl Item {
    /// Probability of a right answer at an ability.
    pub fn probability(&self, ability: f64) -> f64 {
        logistic(self.discrimination * (ability - self.difficulty))
    }

    /// Fisher information at an ability, a² p (1 − p).
    pub fn information(&self, ability: f64) -> f64 {
        let p = self.probability(ability);
        self.discrimination.powi(2) * p * (1.0 - p)
    }
}

/// A checked set of items.
#[derive(Debug, Clone, PartialEq)]
pub struct Items(Vec<Item>);

impl Items {
    /// Checks items.
    ///
    /// # Errors
    /// No item; a difficulty that is not finite, a discrimination that is not finite and above 0.
    pub fn new(items: Vec<Item>) -> Result<Self> {
        if items.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        let fine = |i: &Item| {
            i.difficulty.is_finite() && i.discrimination.is_finite() && i.discrimination > 0.0
        };
        if let Some(at) = items.iter().position(|i| !fine(i)) {
            let problem = format!("item {at}: {:?}", items[at]);
            return Err(EvalError::invalid(WHAT, problem));
        }
        Ok(Self(items))
    }

    /// The items.
    pub fn items(&self) -> &[Item] {
        &self.0
    }

    /// Log-likelihood of a system's answers at an ability; `None` is an answer that is missing.
    ///
    /// # Errors
    /// Another number of answers than of items.
    pub fn log_likelihood(&self, ability: f64, answers: &[Option<bool>]) -> Result<f64> {
        self.check(answers)?;
        Ok(self.likelihood(ability, answers))
    }

    /// Derivative of the log-likelihood with respect to the ability.
    ///
    /// # Errors
    /// Another number of answers than of items.
    pub fn gradient(&self, ability: f64, answers: &[Option<bool>]) -> Result<f64> {
        self.check(answers)?;
        Ok(self.slope(ability, answers))
    }

    /// Information of all items at an ability; 1 / √ of it is about the standard error of an ability there.
    pub fn information(&self, ability: f64) -> f64 {
        self.0.iter().map(|i| i.information(ability)).sum()
    }

    /// The most likely ability; infinite where all answers are right or all wrong, `NaN` where there is none.
    ///
    /// # Errors
    /// Another number of answers than of items.
    pub fn ability_ml(&self, answers: &[Option<bool>]) -> Result<f64> {
        self.check(answers)?;
        let count = |right: bool| answers.iter().filter(|a| **a == Some(right)).count();
        Ok(match (count(true), count(false)) {
            (0, 0) => f64::NAN,
            (_, 0) => f64::INFINITY,
            (0, _) => f64::NEG_INFINITY,
            _ => root(|t| self.slope(t, answers)),
        })
    }

    /// The most likely ability under a standard normal prior (MAP); 0 without any answer.
    ///
    /// # Errors
    /// Another number of answers than of items.
    pub fn ability_map(&self, answers: &[Option<bool>]) -> Result<f64> {
        self.check(answers)?;
        Ok(root(|t| self.slope(t, answers) - t))
    }

    /// The mean ability under a standard normal prior (EAP) and its standard deviation, by 61 Gauss–Hermite points; (0, 1)
    /// without any answer.
    ///
    /// # Errors
    /// Another number of answers than of items.
    pub fn ability_eap(&self, answers: &[Option<bool>]) -> Result<(f64, f64)> {
        self.check(answers)?;
        let points = normal_points(POINTS);
        let logs: Vec<f64> = points
            .iter()
            .map(|&(t, _)| self.likelihood(t, answers))
            .collect();
        let top = logs.iter().copied().fold(f64::MIN, f64::max);
        let mass = points.iter().zip(&logs);
        let mass: Vec<f64> = mass.map(|(&(_, w), l)| w * (l - top).exp()).collect();
        let total: f64 = mass.iter().sum();
        let moment = |k: i32| {
            let terms = points.iter().zip(&mass).map(|(&(t, _), m)| m * t.powi(k));
            terms.sum::<f64>() / total
        };
        let mean = moment(1);
        Ok((mean, (moment(2) - mean * mean).max(0.0).sqrt()))
    }

    fn check(&self, answers: &[Option<bool>]) -> Result<()> {
        same_length(WHAT, self.0.len(), answers.len())
    }

    fn likelihood(&self, ability: f64, answers: &[Option<bool>]) -> f64 {
        let log = |item: &Item, right: bool| {
            let z = item.discrimination * (ability - item.difficulty);
            log_logistic(if right { z } else { -z })
        };
        let answered = self.0.iter().zip(answers);
        answered.filter_map(|(i, a)| a.map(|a| log(i, a))).sum()
    }

    fn slope(&self, ability: f64, answers: &[Option<bool>]) -> f64 {
        let term = |item: &Item, right: bool| {
            item.discrimination * (f64::from(u8::from(right)) - item.probability(ability))
        };
        let answered = self.0.iter().zip(answers);
        answered.filter_map(|(i, a)| a.map(|a| term(i, a))).sum()
    }
}

/// Which discriminations are estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Model {
    /// All a = 1 (Rasch).
    Rasch,
    /// One a for all items (1PL).
    Shared,
    /// An a per item (2PL).
    #[default]
    PerItem,
}

/// Fit of items to answers by marginal maximum likelihood: abilities are averaged out over a standard normal
/// distribution (Bock and Aitkin 1981).
#[derive(Debug, Clone, PartialEq)]
pub struct Marginal {
    /// Which discriminations are estimated.
    pub model: Model,
    /// Standard deviation of a normal prior on ln a, 0.5 by default; `None` for none, as girth. It keeps the steepness of
    /// items that split the systems perfectly finite.
    pub prior: Option<f64>,
    /// Most rounds of expectation and maximisation.
    pub rounds: usize,
    /// The fit is at rest when no a or b moves more than this.
    pub tolerance: f64,
}

impl Default for Marginal {
    fn default() -> Self {
        Self {
            model: Model::PerItem,
            prior: Some(0.5),
            rounds: 2000,
            tolerance: 1e-6,
        }
    }
}

/// Items fitted to answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The items; a lies in 0.25 to 4 (unless it is fixed at 1), b in −12 to 12: an item that everybody or nobody gets
    /// right has no finite difficulty and ends at a bound.
    pub items: Items,
    /// Marginal log-likelihood of the answers, without the prior.
    pub log_likelihood: f64,
    /// Rounds until it was at rest.
    pub rounds: usize,
    /// Whether it came to rest within the rounds allowed.
    pub converged: bool,
}

const STEEP: (f64, f64) = (0.25, 4.0);
const FAR: f64 = 12.0;

impl Marginal {
    /// Fits items to `answers[system][item]`; `None` is missing and says nothing. With few systems the items are hardly
    /// determined: take hundreds, or read the result as a sorting of the items.
    ///
    /// Differs from girth (`rasch_mml`, `twopl_mml`) in the points of the mean (61 Gauss–Hermite here, 41 Gauss–Legendre
    /// on −5 to 5 there), in fitting Rasch difficulties jointly instead of item by item from the share of right answers,
    /// and in the prior on a. O(rounds · systems · items · 61).
    ///
    /// # Errors
    /// No system or item, rows of different lengths, an item that nobody answered, settings that are not above 0.
    pub fn fit(&self, answers: &[Vec<Option<bool>>]) -> Result<Fitted> {
        let items = answers.first().map_or(0, Vec::len);
        for row in answers {
            same_length(WHAT, items, row.len())?;
        }
        if items == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        if let Some(item) = (0..items).find(|&i| answers.iter().all(|r| r[i].is_none())) {
            return Err(EvalError::invalid(
                WHAT,
                format!("nobody answered item {item}"),
            ));
        }
        if !(self.tolerance > 0.0 && self.prior.is_none_or(|s| s > 0.0) && self.rounds > 0) {
            return Err(EvalError::invalid(WHAT, format!("the settings {self:?}")));
        }
        let points = normal_points(POINTS);
        let share = |i: usize| {
            let given: Vec<bool> = answers.iter().filter_map(|r| r[i]).collect();
            let right = given.iter().filter(|&&a| a).count() as f64;
            (right + 0.5) / (given.len() as f64 + 1.0)
        };
        // Slope and intercept: z = a θ + c, b = −c / a.
        let mut lines: Vec<(f64, f64)> = (0..items)
            .map(|i| (1.0, (share(i) / (1.0 - share(i))).ln()))
            .collect();
        let (mut converged, mut rounds) = (false, 0);
        while !converged && rounds < self.rounds {
            rounds += 1;
            let (counts, _) = expect(&points, &lines, answers);
            let next = self.maximise(&points, &counts, &lines);
            let moved = lines.iter().zip(&next).map(|(old, new)| {
                let b = |l: &(f64, f64)| -l.1 / l.0;
                (old.0 - new.0).abs().max((b(old) - b(new)).abs())
            });
            converged = moved.fold(0.0, f64::max) <= self.tolerance;
            lines = next;
        }
        let (_, log_likelihood) = expect(&points, &lines, answers);
        let item = |&(a, c): &(f64, f64)| Item {
            discrimination: a,
            difficulty: (-c / a).clamp(-FAR, FAR),
        };
        Ok(Fitted {
            items: Items::new(lines.iter().map(item).collect())?,
            log_likelihood,
            rounds,
            converged,
        })
    }

    /// New lines from expected counts: a few steps of Newton's method per item, the shared slope by itself.
    fn maximise(
        &self,
        points: &[(f64, f64)],
        counts: &[Vec<(f64, f64)>],
        lines: &[(f64, f64)],
    ) -> Vec<(f64, f64)> {
        let mut next = lines.to_vec();
        for (line, counts) in next.iter_mut().zip(counts) {
            for _ in 0..3 {
                let step = Derivatives::of(points, counts, *line);
                match self.model {
                    Model::PerItem => *line = step.both(*line, self.prior),
                    Model::Rasch | Model::Shared => line.1 = step.intercept(line.1),
                }
                line.1 = line.1.clamp(-FAR * line.0, FAR * line.0);
            }
        }
        if self.model == Model::Shared {
            let mut all = Derivatives::default();
            for (line, counts) in next.iter().zip(counts) {
                all.add(&Derivatives::of(points, counts, *line));
            }
            let slope = all.slope(next[0].0, self.prior);
            next.iter_mut().for_each(|line| line.0 = slope);
        }
        next
    }
}

/// Gradient and curvature of the expected log-likelihood in slope and intercept.
#[derive(Default)]
struct Derivatives {
    a: f64,
    c: f64,
    aa: f64,
    ac: f64,
    cc: f64,
}

impl Derivatives {
    fn of(points: &[(f64, f64)], counts: &[(f64, f64)], line: (f64, f64)) -> Self {
        let mut found = Self::default();
        for (&(t, _), &(right, all)) in points.iter().zip(counts) {
            let p = logistic(line.0 * t + line.1);
            let (rest, weight) = (right - all * p, all * p * (1.0 - p));
            found.c += rest;
            found.a += rest * t;
            found.cc += weight;
            found.ac += weight * t;
            found.aa += weight * t * t;
        }
        found
    }

    fn add(&mut self, other: &Self) {
        self.a += other.a;
        self.c += other.c;
        self.aa += other.aa;
        self.ac += other.ac;
        self.cc += other.cc;
    }

    fn intercept(&self, c: f64) -> f64 {
        c + (self.c / self.cc.max(1e-9)).clamp(-1.0, 1.0)
    }

    /// Slope with the prior on its logarithm, in steps of the logarithm so that it stays above 0.
    fn slope(&self, a: f64, prior: Option<f64>) -> f64 {
        let (gradient, curvature) = on_log(a, self.a, self.aa, prior);
        stepped(a, gradient / curvature)
    }

    fn both(&self, (a, c): (f64, f64), prior: Option<f64>) -> (f64, f64) {
        let (gradient, curvature) = on_log(a, self.a, self.aa, prior);
        let (mixed, cc) = (self.ac * a, self.cc.max(1e-9));
        let determinant = curvature * cc - mixed * mixed;
        if determinant <= 1e-12 * curvature * cc {
            return (stepped(a, gradient / curvature), self.intercept(c));
        }
        let da = (cc * gradient - mixed * self.c) / determinant;
        let dc = (curvature * self.c - mixed * gradient) / determinant;
        (stepped(a, da), c + dc.clamp(-1.0, 1.0))
    }
}

/// Gradient and curvature (as a positive number, Fisher's form) with respect to ln a.
fn on_log(a: f64, gradient: f64, curvature: f64, prior: Option<f64>) -> (f64, f64) {
    let precision = prior.map_or(0.0, |s| 1.0 / (s * s));
    let gradient = gradient * a - precision * a.ln();
    (gradient, (curvature * a * a + precision).max(1e-9))
}

fn stepped(a: f64, on_log: f64) -> f64 {
    (a * on_log.clamp(-0.5, 0.5).exp()).clamp(STEEP.0, STEEP.1)
}

/// Expected right and all answers by item and point, and the marginal log-likelihood.
fn expect(
    points: &[(f64, f64)],
    lines: &[(f64, f64)],
    answers: &[Vec<Option<bool>>],
) -> (Vec<Vec<(f64, f64)>>, f64) {
    // Log-probabilities of right and wrong, by item and point.
    let logs: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .map(|&(a, c)| {
            let at = |&(t, _): &(f64, f64)| (log_logistic(a * t + c), log_logistic(-(a * t + c)));
            points.iter().map(at).collect()
        })
        .collect();
    let mut counts = vec![vec![(0.0, 0.0); points.len()]; lines.len()];
    let prior: Vec<f64> = points.iter().map(|(_, w)| w.ln()).collect();
    let (mut mass, mut total) = (vec![0.0; points.len()], 0.0);
    for row in answers {
        mass.copy_from_slice(&prior);
        for (answer, logs) in row.iter().zip(&logs) {
            if let Some(right) = answer {
                let terms = mass.iter_mut().zip(logs);
                terms.for_each(|(m, &(yes, no))| *m += if *right { yes } else { no });
            }
        }
        let top = mass.iter().copied().fold(f64::MIN, f64::max);
        let mut sum = 0.0;
        for m in &mut mass {
            *m = (*m - top).exp();
            sum += *m;
        }
        total += top + sum.ln();
        for (answer, counts) in row.iter().zip(&mut counts) {
            if let Some(right) = answer {
                let yes = f64::from(u8::from(*right)) / sum;
                for (count, m) in counts.iter_mut().zip(&mass) {
                    count.0 += m * yes;
                    count.1 += m / sum;
                }
            }
        }
    }
    (counts, total)
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// ln of the logistic function, without loss at either end.
fn log_logistic(z: f64) -> f64 {
    if z < 0.0 {
        z - z.exp().ln_1p()
    } else {
        -(-z).exp().ln_1p()
    }
}

/// Root of a falling function.
fn root(f: impl Fn(f64) -> f64) -> f64 {
    let mut width = 1.0;
    while (f(-width) < 0.0 || f(width) > 0.0) && width < 1e6 {
        width *= 2.0;
    }
    let (mut low, mut high) = (-width, width);
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if f(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(list: &[(f64, f64)]) -> Items {
        let one = |&(discrimination, difficulty): &(f64, f64)| Item {
            discrimination,
            difficulty,
        };
        Items::new(list.iter().map(one).collect()).unwrap()
    }

    #[test]
    fn one_item_by_hand() {
        let one = items(&[(2.0, 1.0)]);
        assert_eq!(one.items()[0].probability(1.0), 0.5);
        assert_eq!(one.information(1.0), 1.0);
        let right = [Some(true)];
        assert!((one.log_likelihood(1.0, &right).unwrap() - 0.5f64.ln()).abs() < 1e-15);
        assert_eq!(one.gradient(1.0, &right).unwrap(), 1.0);
        assert_eq!(one.ability_ml(&right).unwrap(), f64::INFINITY);
        assert_eq!(one.ability_ml(&[Some(false)]).unwrap(), f64::NEG_INFINITY);
        assert!(one.ability_ml(&[None]).unwrap().is_nan());
        assert!(one.ability_map(&[None]).unwrap().abs() < 1e-12);
        let (mean, deviation) = one.ability_eap(&[None]).unwrap();
        assert!(mean.abs() < 1e-12 && (deviation - 1.0).abs() < 1e-12);
        // At the mode the slope is the ability: 2 (1 − p(θ)) = θ.
        let map = one.ability_map(&right).unwrap();
        assert!((2.0 * (1.0 - one.items()[0].probability(map)) - map).abs() < 1e-12);
        assert!(one.log_likelihood(0.0, &[]).is_err());
    }

    #[test]
    fn two_opposite_answers_meet_in_the_middle() {
        let two = items(&[(1.0, -1.0), (1.0, 1.0)]);
        let ml = two.ability_ml(&[Some(true), Some(false)]).unwrap();
        assert!(ml.abs() < 1e-12);
    }

    /// Answers of a known model from a fixed sequence.
    fn simulated(list: &[(f64, f64)], systems: usize) -> Vec<Vec<Option<bool>>> {
        let mut state = 1u64;
        let mut uniform = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let items = items(list);
        (0..systems)
            .map(|_| {
                let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
                let answer = |i: &Item| Some(uniform() < i.probability(normal));
                items.items().iter().map(answer).collect()
            })
            .collect()
    }

    #[test]
    fn a_known_model_comes_back() {
        let list = [
            (1.0, -1.0),
            (1.5, 0.0),
            (0.8, 0.5),
            (2.0, 1.0),
            (1.2, -0.5),
            (1.0, 0.2),
        ];
        let answers = simulated(&list, 3000);
        let fit = |model| {
            Marginal {
                model,
                ..Marginal::default()
            }
            .fit(&answers)
            .unwrap()
        };
        let two = fit(Model::PerItem);
        assert!(two.converged);
        for (item, (a, b)) in two.items.items().iter().zip(list) {
            assert!((item.difficulty - b).abs() < 0.15, "{item:?} {b}");
            assert!((item.discrimination - a).abs() < 0.3, "{item:?} {a}");
        }
        let (one, rasch) = (fit(Model::Shared), fit(Model::Rasch));
        assert!(rasch.items.items().iter().all(|i| i.discrimination == 1.0));
        let shared = one.items.items()[0].discrimination;
        assert!(shared > 1.0 && one.items.items().iter().all(|i| i.discrimination == shared));
        assert!(rasch.log_likelihood < one.log_likelihood);
        assert!(one.log_likelihood < two.log_likelihood);
    }

    #[test]
    fn missing_answers_and_extremes() {
        let mut answers = simulated(&[(1.0, -0.5), (1.0, 0.5), (1.0, 0.0)], 200);
        for (s, row) in answers.iter_mut().enumerate() {
            row.push(Some(true));
            if s % 3 == 0 {
                row[s % 2] = None;
            }
        }
        let found = Marginal::default().fit(&answers).unwrap();
        let b: Vec<f64> = found.items.items().iter().map(|i| i.difficulty).collect();
        assert!(
            b[0] < b[2] && b[2] < b[1] && b[3] < -2.0 && b[3] >= -12.0,
            "{b:?}"
        );
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(Items::new(vec![]).is_err());
        let flat = Item {
            discrimination: 0.0,
            difficulty: 0.0,
        };
        assert!(Items::new(vec![flat]).is_err());
        let fit = |answers: &[Vec<Option<bool>>]| Marginal::default().fit(answers);
        assert!(fit(&[]).is_err() && fit(&[vec![]]).is_err());
        assert!(fit(&[vec![None], vec![None]]).is_err());
        assert!(fit(&[vec![Some(true)], vec![]]).is_err());
        let still = Marginal {
            rounds: 0,
            ..Marginal::default()
        };
        assert!(still.fit(&[vec![Some(true)]]).is_err());
    }
}
