//! From tasks to a router: features of their rows, a tenth held out, the rule fitted on the rest.

use polyloom::MergeError;
use polyloom_core::rng::Stream;
use serde_json::json;

use super::assess::{Assessed, Worth};
use super::points::{Labelled, Points};
use super::predicted::{Costs, Predicted};
use super::records::Scores;
use super::router::{Expert, Method, Reads, Router, Rule, Tap};
use super::sense::Sense;
use super::{Centroid, Knn, Linear, MlpFit, Pilots, Reduce, Similarity};
use crate::error::Result;
use crate::train::Given;

/// What is fitted, and on how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The rule.
    pub method: Method,
    /// Split whose rows are seen.
    pub split: String,
    /// Rows of a task at most.
    pub most: Option<usize>,
    /// Seed of the rows that are drawn and held out, and of training.
    pub seed: u64,
    /// Divides similarities; 0.07 of cosines, 1 of inner products where nothing is said.
    pub temperature: Option<f32>,
    /// Below this similarity there is no expert (centroid, knn, pilots).
    pub min_similarity: Option<f32>,
    /// Neighbours of knn (10), pilots of an expert (1).
    pub k: Option<usize>,
    /// What an expert's pilots come to.
    pub reduce: Reduce,
    /// How pilots are compared.
    pub similarity: Similarity,
    /// Training of the perceptron; its seed is the one above.
    pub mlp: MlpFit,
}

impl Fit {
    /// The defaults of a method: all rows of the split `train`, seed 0.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self {
            method,
            split: "train".to_owned(),
            most: None,
            seed: 0,
            temperature: None,
            min_similarity: None,
            k: None,
            reduce: Reduce::Mean,
            similarity: Similarity::Dot,
            mlp: MlpFit::default(),
        }
    }

    /// Pilots of an expert.
    #[must_use]
    pub fn pilots(&self) -> usize {
        self.k.unwrap_or(1)
    }

    fn empty_pilots(&self, width: usize) -> Pilots {
        let dot = self.similarity == Similarity::Dot;
        Pilots {
            reduce: self.reduce,
            similarity: self.similarity,
            temperature: self.temperature.unwrap_or(if dot { 1.0 } else { 0.07 }),
            min_similarity: self.min_similarity,
            ..Pilots::empty(width)
        }
    }

    /// Says which values mean nothing.
    ///
    /// # Errors
    /// Values out of range, values that the method does not read.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(MergeError::plan("bad-flag", what).into());
        let method = self.method;
        let near = matches!(method, Method::Centroid | Method::Knn | Method::Pilots);
        if self.temperature.is_some_and(|t| t <= 0.0 || !t.is_finite()) {
            return wrong("--temperature must be above 0");
        }
        if self.k == Some(0) {
            return wrong("--k must be at least 1");
        }
        if self.k.is_some() && !matches!(method, Method::Knn | Method::Pilots) {
            return wrong("--k is the number of neighbours of knn or of pilots of an expert");
        }
        if !near && (self.temperature.is_some() || self.min_similarity.is_some()) {
            return wrong(
                "--temperature and --min-similarity are about similarities: centroid, knn, pilots",
            );
        }
        let usual = Self::new(method);
        let pilots = (self.reduce, self.similarity) != (usual.reduce, usual.similarity);
        if pilots && method != Method::Pilots {
            return wrong("--reduce and --similarity are about pilots");
        }
        if self.mlp != usual.mlp && method != Method::Mlp {
            return wrong("--hidden, --epochs, --rate, --batch-rows and --dropout are about mlp");
        }
        let mlp = &self.mlp;
        if mlp.hidden == Some(0)
            || mlp.batch < 2
            || mlp.epochs == 0
            || !(mlp.rate > 0.0 && mlp.rate.is_finite())
            || !(0.0..1.0).contains(&mlp.dropout)
        {
            return wrong(
                "mlp needs a width and epochs of at least 1, steps of at least 2 rows, a rate above 0, dropout in 0 to below 1",
            );
        }
        Ok(())
    }

    /// Fits the rule on examples; `held` is looked at by linear (its penalty) and mlp (its epoch). Gives what was found on
    /// the way, for the file.
    ///
    /// # Errors
    /// As [`Labelled::check`].
    pub fn rule(
        &self,
        train: &Labelled,
        held: &Labelled,
        experts: &[Expert],
    ) -> Result<(Rule, serde_json::Map<String, serde_json::Value>)> {
        train.check(experts.len())?;
        let n = experts.len();
        let mut found = serde_json::Map::new();
        let cosine = self.temperature.unwrap_or(0.07);
        let rule = match self.method {
            Method::Centroid => Rule::Centroid(Centroid {
                min_similarity: self.min_similarity,
                ..Centroid::fit(train, n, cosine)
            }),
            Method::Knn => Rule::Knn(Knn {
                min_similarity: self.min_similarity,
                ..Knn::fit(train, n, self.k.unwrap_or(10), cosine)
            }),
            Method::Linear => {
                let (linear, c) = Linear::fit(train, Some(held), n);
                found.insert("c".into(), json!(c));
                Rule::Linear(linear)
            }
            Method::PredictedLoss => {
                let what = "predicted_loss learns from the scores of saved systems";
                let error = MergeError::plan("bad-flag", what);
                return Err(error
                    .hint("--results NAME=results.json,... of `polyloom eval`")
                    .into());
            }
            Method::Mlp => {
                let settings = MlpFit {
                    seed: self.seed,
                    ..self.mlp.clone()
                };
                let (mlp, best) = settings.fit(train, Some(held), n);
                if let Some((epoch, _)) = best {
                    found.insert("epoch".into(), json!(epoch));
                }
                Rule::Mlp(Box::new(mlp))
            }
            Method::Pilots => {
                let sources: Vec<String> = experts.iter().map(|e| e.name.clone()).collect();
                let empty = self.empty_pilots(train.points.width);
                Rule::Pilots(empty.of_labels(train, &sources, self.pilots())?)
            }
        };
        Ok((rule, found))
    }
}

/// A router, and how it did on the rows that were held out.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The router.
    pub router: Router,
    /// Rows of each expert that were learned from.
    pub rows: Vec<usize>,
    /// On the held-out rows; linear chose its penalty and mlp its epoch on them.
    pub held: Assessed,
}

/// A router over saved systems, and what its choices bring on the rows that were held out.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedScores {
    /// The router.
    pub router: Router,
    /// Features of the rows that were learned from.
    pub points: Points,
    /// The single system with the best mean score on them.
    pub best: usize,
    /// On the held-out rows; `own` is that system.
    pub held: Worth,
}

/// Places that are held out of `n`: a tenth, by the seed, none of fewer than ten.
fn held_out(n: usize, seed: u64, expert: usize) -> Vec<bool> {
    let stream = Stream::new(seed, "router held out", expert as u64);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| (stream.bits(i as u64), i));
    let mut held = vec![false; n];
    order.iter().take(n / 10).for_each(|&i| held[i] = true);
    held
}

/// Fits a router on features of every expert's examples, which were read at a tap of a model's pass.
///
/// # Errors
/// As [`Fit::check`] and [`Fit::rule`]; fewer than two experts.
pub fn on_points(
    settings: &Fit,
    (tap, reads): (Tap, &Reads),
    experts: Vec<Expert>,
    examples: &[Points],
) -> Result<Fitted> {
    settings.check()?;
    if experts.len() < 2 || experts.len() != examples.len() {
        let what = format!(
            "{} experts: a router chooses between two or more",
            experts.len()
        );
        return Err(MergeError::plan("bad-flag", what).into());
    }
    let (mut train, mut held) = (Labelled::default(), Labelled::default());
    for (i, points) in examples.iter().enumerate() {
        for (row, out) in points.rows().zip(held_out(points.len(), settings.seed, i)) {
            let to = if out { &mut held } else { &mut train };
            to.points.width = points.width;
            to.points.values.extend(row);
            to.labels.push(i as u32);
        }
    }
    let (rule, mut said) = settings.rule(&train, &held, &experts)?;
    let rows: Vec<usize> = train
        .by_expert(experts.len())
        .iter()
        .map(Vec::len)
        .collect();
    let mut router = Router {
        experts,
        tap,
        reads: reads.clone(),
        rule,
        fitted: serde_json::Map::new(),
    };
    let decided = match held.labels.is_empty() {
        true => Vec::new(),
        false => router.decide_all(&held.points)?,
    };
    let held = Assessed::new(router.experts.len(), &held.labels, &decided);
    said.insert("split".into(), json!(settings.split));
    said.insert("seed".into(), json!(settings.seed));
    said.insert("rows".into(), json!(rows));
    said.insert("held_out_rows".into(), json!(held.rows()));
    if let Some(share) = held.accuracy() {
        said.insert("held_out_accuracy".into(), json!(share));
    }
    router.fitted = said;
    Ok(Fitted { router, rows, held })
}

/// Fits a router whose experts are tasks (or belong to one each), on their rows. `watch` is told the number of the task and
/// how many of its rows passed, and stops the run where it says no.
///
/// # Errors
/// As [`Sense::task`] and [`on_points`].
pub fn on_tasks(
    settings: &Fit,
    sense: &Sense,
    experts: Vec<Expert>,
    tasks: &[Given],
    watch: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Fitted> {
    settings.check()?;
    let mut examples = Vec::with_capacity(tasks.len());
    for (i, task) in tasks.iter().enumerate() {
        let (split, most) = (&settings.split, settings.most);
        let mut step = |rows| watch(i, rows);
        let found = sense.task(task, split, most, settings.seed, &mut step)?;
        examples.push(found.points);
    }
    on_points(settings, (sense.tap, &sense.reads), experts, &examples)
}

/// Fits a router over saved systems, on what each scored on the rows of tasks: `predicted_loss` (1 less the score is the
/// loss), or `pilots` (queries grouped by the system that does best on them).
///
/// # Errors
/// As [`Sense::task`]; another method, systems without a score on some row.
pub fn on_scores(
    settings: &Fit,
    sense: &Sense,
    experts: Vec<Expert>,
    tasks: &[Given],
    (results, costs): (&[Scores], Costs),
    watch: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<FittedScores> {
    settings.check()?;
    let n = experts.len();
    if n < 2 || results.len() != n {
        let what = format!("{n} systems: a router chooses between two or more");
        return Err(MergeError::plan("bad-flag", what).into());
    }
    let mut parts = [Learned::default(), Learned::default()];
    for (i, task) in tasks.iter().enumerate() {
        let (split, most) = (&settings.split, settings.most);
        let mut step = |rows| watch(i, rows);
        let found = sense.task(task, split, most, settings.seed, &mut step)?;
        let id = &task.spec.id;
        let scores = scores_of(results, &experts, id, &found.ids)?;
        let held = held_out(found.ids.len(), settings.seed, i);
        for ((row, scores), held) in found.points.rows().zip(scores).zip(held) {
            let to = &mut parts[usize::from(held)];
            to.points.width = found.points.width;
            to.points.values.extend(row);
            to.scores.extend(scores.iter().map(|s| *s as f32));
            to.tasks.push(id.clone());
        }
    }
    let [train, held] = parts;
    let mean = |system: usize| -> f64 {
        let own = train.scores.iter().skip(system).step_by(n);
        own.map(|s| f64::from(*s)).sum()
    };
    let best = (1..n).fold(0, |best, i| if mean(i) > mean(best) { i } else { best });
    let rule = match settings.method {
        Method::PredictedLoss => {
            let losses = |of: &Learned| -> Vec<f32> { of.scores.iter().map(|s| 1.0 - s).collect() };
            let (here, there) = (losses(&train), losses(&held));
            let beside = Some((&held.points, &there[..]));
            Rule::Predicted(Box::new(Predicted::fit(
                (&train.points, &here),
                beside,
                n,
                costs,
            )))
        }
        Method::Pilots => {
            let empty = settings.empty_pilots(train.points.width);
            let k = settings.pilots();
            Rule::Pilots(empty.of_scores(&train.points, &train.tasks, &train.scores, n, k)?)
        }
        other => {
            let what = format!("`{}` does not learn from scores", other.word());
            let error = MergeError::plan("bad-flag", what).at("--results");
            return Err(error.hint("--method predicted_loss or pilots").into());
        }
    };
    let mut said = serde_json::Map::new();
    let ids: Vec<&str> = tasks.iter().map(|t| &*t.spec.id).collect();
    said.insert("split".into(), json!(settings.split));
    said.insert("seed".into(), json!(settings.seed));
    said.insert("tasks".into(), json!(ids));
    said.insert("rows".into(), json!(train.tasks.len()));
    let router = Router {
        experts,
        tap: sense.tap,
        reads: sense.reads.clone(),
        rule,
        fitted: said,
    };
    let decided = match held.tasks.is_empty() {
        true => Vec::new(),
        false => router.decide_all(&held.points)?,
    };
    let scores: Vec<Vec<Option<f64>>> = held
        .scores
        .chunks_exact(n)
        .map(|row| row.iter().map(|s| Some(f64::from(*s))).collect())
        .collect();
    Ok(FittedScores {
        router,
        points: train.points,
        best,
        held: Worth::new(&scores, best, &decided),
    })
}

/// Rows with what every system scored on them.
#[derive(Default)]
struct Learned {
    points: Points,
    scores: Vec<f32>,
    tasks: Vec<String>,
}

/// What every system scored on the rows of a task.
///
/// # Errors
/// A system without a score on some row.
pub fn scores_of(
    results: &[Scores],
    experts: &[Expert],
    task: &str,
    ids: &[String],
) -> Result<Vec<Vec<f64>>> {
    let mut found = vec![Vec::with_capacity(results.len()); ids.len()];
    for (scores, expert) in results.iter().zip(experts) {
        let own = scores.get(task);
        let mut absent = 0;
        for (row, id) in found.iter_mut().zip(ids) {
            match own.and_then(|o| o.get(id)) {
                Some(score) => row.push(*score),
                None => absent += 1,
            }
        }
        if absent > 0 {
            let what = format!(
                "`{}` has no score on {absent} of {} rows of task `{task}`",
                expert.name,
                ids.len()
            );
            return Err(MergeError::plan("no-records", what)
                .at("--results")
                .hint("evaluate all systems on all rows of this split: `polyloom eval MODEL -t TASK --split NAME`")
                .into());
        }
    }
    Ok(found)
}
