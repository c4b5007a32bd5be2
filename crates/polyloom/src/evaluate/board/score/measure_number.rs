//! Metrics of probabilities, numbers, times and clusters.

use super::measure::{Form, Pairs, Params, at, each, whole};
use super::truth::Truth;
use crate::error::Result;
use crate::evaluate::EvalError;
use crate::evaluate::metric::calibration::{Calibration, CalibrationError, calibration_equal_mass};
use crate::evaluate::metric::class_scores::{self, ClassScores};
use crate::evaluate::metric::clustering::Clustering;
use crate::evaluate::metric::concordance::c_index;
use crate::evaluate::metric::confusion;
use crate::evaluate::metric::correlation::{KendallVariant, kendall, pearson, spearman};
use crate::evaluate::metric::curve::{MultiAuc, roc_auc_multi};
use crate::evaluate::metric::kmeans::KMeans;
use crate::evaluate::metric::ranking::abstention_nauc;
use crate::evaluate::metric::regression;
use crate::evaluate::metric::selective::Selective;
use crate::evaluate::sum::sum;

/// Metrics of a probability per class.
pub(super) fn probabilities<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut truth: Vec<u32> = Vec::new();
    let mut flat: Vec<f64> = Vec::new();
    let mut classes = pairs.goal.classes.len();
    for (t, given) in pairs.truths.iter().zip(&pairs.given) {
        let class = match t {
            Truth::Class(c) => *c,
            Truth::Choice(choices, gold) => {
                classes = choices.len();
                u32::try_from(*gold).unwrap_or(0)
            }
            _ => return Err(params.unfit("it is of classes")),
        };
        let Some(p) = given.probabilities().filter(|p| p.len() == classes) else {
            return Err(params.unfit("it needs a probability per class")
                .hint("columns `score_<class>`, a list in `probabilities`, or of two classes `score` from 0 to 1"));
        };
        truth.push(class);
        flat.extend(p);
    }
    let checked = ClassScores::new(&flat, classes).map_err(|e| params.failed(e))?;
    if params.metric != "top_k_accuracy" {
        checked.check_probabilities().map_err(|e| {
            params
                .failed(e)
                .hint("probabilities of an example add up to 1")
        })?;
    }
    let row = |i: usize| &flat[i * classes..(i + 1) * classes];
    let rows = 0..truth.len();
    match params.metric {
        "log_loss" => each(rows.map(|i| class_scores::surprise(row(i)[truth[i] as usize]))),
        "brier" => each(rows.map(|i| {
            sum(row(i)
                .iter()
                .enumerate()
                .map(|(c, p)| (p - f64::from(u8::from(c == truth[i] as usize))).powi(2)))
        })),
        "brier_binary" if classes == 2 => {
            each(rows.map(|i| (row(i)[1] - f64::from(truth[i])).powi(2)))
        }
        "brier_binary" => Err(params
            .unfit("it is of two classes")
            .hint("brier is of several")),
        "top_k_accuracy" => {
            let k = params.count("k")?.unwrap_or(2);
            let mut values = Vec::new();
            for i in rows {
                let one = ClassScores::new(row(i), classes).map_err(|e| params.failed(e))?;
                values.push(
                    class_scores::top_k_accuracy(&[truth[i]], &one, k)
                        .map_err(|e| params.failed(e))?,
                );
            }
            each(values.into_iter())
        }
        metric => {
            let bins = params.count("bins")?.unwrap_or(15);
            let share = params.number("share").unwrap_or(0.1);
            if !(0.0..=1.0).contains(&share) {
                return Err(params.unfit(&format!("`share` is {share}, not between 0 and 1")));
            }
            let n = truth.len();
            whole(params, n, move |places| {
                let t = at(&truth, places);
                let p: Vec<f64> = places
                    .iter()
                    .flat_map(|&i| &flat[i as usize * classes..(i as usize + 1) * classes])
                    .copied()
                    .collect();
                let p = ClassScores::new(&p, classes)?;
                let error = || -> crate::evaluate::Result<CalibrationError> {
                    let mut all = Calibration::new(bins)?;
                    all.add_classes(&t, &p)?;
                    all.finish()
                };
                let sure = || -> (Vec<f64>, Vec<bool>) {
                    (0..t.len())
                        .map(|i| p.best(i))
                        .zip(&t)
                        .map(|((c, s), t)| (s, c == *t as usize))
                        .unzip()
                };
                Ok(match metric {
                    "roc_auc_ovr" => roc_auc_multi(&t, &p, MultiAuc::OneVsRest)?,
                    "roc_auc_ovo" => roc_auc_multi(&t, &p, MultiAuc::OneVsOne)?,
                    "ece" => error()?.l1,
                    "ece_l2" => error()?.l2,
                    "mce" => error()?.max,
                    "ece_equal_mass" => {
                        let (s, right) = sure();
                        calibration_equal_mass(&s, &right, bins)?.l1
                    }
                    "selective_accuracy" | "coverage_accuracy_area" => {
                        let (s, right) = sure();
                        let found = Selective::new(&s, &right)?;
                        match metric {
                            "selective_accuracy" => found.at(share),
                            _ => found.area(),
                        }
                    }
                    "nauc" => {
                        let (s, right) = sure();
                        let right: Vec<f64> =
                            right.iter().map(|r| f64::from(u8::from(*r))).collect();
                        abstention_nauc(&s, &right)?
                    }
                    _ => {
                        return Err(EvalError::invalid(
                            "probabilities",
                            format!("{metric} is not computed here"),
                        ));
                    }
                })
            })
        }
    }
}

/// Metrics of numbers.
pub(super) fn values<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut truth = Vec::new();
    let mut said = Vec::new();
    for (t, given) in pairs.truths.iter().zip(&pairs.given) {
        let t = match t {
            Truth::Number(t) => *t,
            // Ordered classes, as in a five-star task.
            Truth::Class(c) => f64::from(*c),
            _ => return Err(params.unfit("it is of numbers")),
        };
        let p = match (given.number, given.class, t) {
            (Some(p), None, _) => p,
            (_, Some(c), _) => f64::from(c),
            _ => return Err(params.unfit("it needs a number per example")),
        };
        truth.push(t);
        said.push(p);
    }
    let errors = truth.iter().zip(&said);
    match params.metric {
        "mse" => return each(errors.map(|(t, p)| (t - p).powi(2))),
        "mae" => return each(errors.map(|(t, p)| (t - p).abs())),
        "mape" => return each(errors.map(|(t, p)| (t - p).abs() / t.abs().max(f64::EPSILON))),
        _ => {}
    }
    let metric = params.metric;
    let training = pairs.training_mean;
    if metric == "rmse_ratio" && training.is_none() {
        return Err(
            params.unfit("it needs the split `train`, whose mean is what the error is divided by")
        );
    }
    whole(params, truth.len(), move |places| {
        let (t, p) = (at(&truth, places), at(&said, places));
        let means = || regression::errors(&t, &p).and_then(|e| e.finish());
        Ok(match metric {
            "rmse" => means()?.rmse,
            "rmse_ratio" => {
                let mean = vec![training.unwrap_or(f64::NAN); t.len()];
                means()?.rmse / regression::errors(&t, &mean)?.finish()?.rmse
            }
            "median_ae" => regression::median_absolute_error(&t, &p)?,
            "max_error" => t
                .iter()
                .zip(&p)
                .map(|(t, p)| (t - p).abs())
                .fold(0.0, f64::max),
            "r2" => regression::r2(&t, &p)?,
            "explained_variance" => regression::explained_variance(&t, &p)?,
            "pearson" => pearson(&t, &p)?.r,
            "spearman" => spearman(&t, &p)?.r,
            "kendall_b" => kendall(&t, &p, KendallVariant::B)?.r,
            "kendall_c" => kendall(&t, &p, KendallVariant::C)?.r,
            _ => {
                return Err(EvalError::invalid(
                    "numbers",
                    format!("{metric} is not computed here"),
                ));
            }
        })
    })
}

/// Concordance of times.
pub(super) fn survival<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let (mut time, mut event, mut score) = (Vec::new(), Vec::new(), Vec::new());
    for (t, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Time(t, seen), Some(s)) = (t, given.number) else {
            return Err(params.unfit("it needs a number per example, higher for the later event"));
        };
        time.push(*t);
        event.push(*seen);
        score.push(s);
    }
    whole(params, time.len(), move |p| {
        c_index(&at(&time, p), &at(&score, p), Some(&at(&event, p)))
    })
}

/// Clusters of embeddings, as many as there are classes.
fn from_embeddings(params: &Params<'_>, pairs: &Pairs<'_>, truth: &[u32]) -> Result<Vec<u32>> {
    let mut points = Vec::new();
    let mut width = 0;
    for given in &pairs.given {
        let Some(row) = given.embedding.as_ref().filter(|r| !r.is_empty()) else {
            return Err(params.unfit("some examples have no `embedding`"));
        };
        if width != 0 && width != row.len() {
            let why = format!("embeddings have {width} and {} numbers", row.len());
            return Err(params.unfit(&why));
        }
        width = row.len();
        points.extend(row);
    }
    let classes: std::collections::BTreeSet<u32> = truth.iter().copied().collect();
    let found = KMeans::new(classes.len()).fit(&points, width);
    Ok(found.map_err(|e| params.failed(e))?.labels)
}

/// Agreement of clusters and classes.
pub(super) fn clusters<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut truth = Vec::new();
    for t in &pairs.truths {
        let Truth::Class(c) = t else {
            return Err(params.unfit("it needs the true class of each example"));
        };
        truth.push(*c);
    }
    let found = match pairs.given.iter().any(|g| g.embedding.is_some()) {
        true => from_embeddings(params, pairs, &truth)?,
        false => {
            let names: Vec<&str> = pairs.given.iter().map(|g| &*g.shown).collect();
            confusion::codes(&names, &[]).1
        }
    };
    let metric = params.metric;
    let beta = params.number("beta").unwrap_or(1.0);
    whole(params, truth.len(), move |places| {
        let both = Clustering::new(&at(&truth, places), &at(&found, places))?;
        Ok(match metric {
            "homogeneity" => both.homogeneity(),
            "completeness" => both.completeness(),
            "v_measure" => both.v_measure(beta)?,
            "nmi" => both.normalized_mutual_information(),
            "ami" => both.adjusted_mutual_information(),
            "ari" => both.adjusted_rand(),
            "fowlkes_mallows" => both.fowlkes_mallows(),
            _ => both.mutual_information()?,
        })
    })
}
