//! A metric of a task on its joined examples: what it is per example, or as a function of which examples are taken.

use serde_json::{Map, Value};

use super::given::Given;
use super::goal::Goal;
use super::measure_map as map;
use super::measure_number as numbers;
use super::measure_rank as rank;
use super::measure_text as text;
use super::truth::Truth;
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::metric::classification::{self, KappaWeights};
use crate::evaluate::metric::curve::{Curve, roc_auc};
use crate::evaluate::metric::prf::{Average, PrfOptions};
use crate::evaluate::metric::registry;

/// A statistic of the examples at the places given.
pub(crate) type Statistic<'a> = Box<dyn Fn(&[u32]) -> f64 + Sync + 'a>;

/// What a metric is over the examples.
pub(crate) enum Form<'a> {
    /// The mean of a value per example; `NaN` leaves an example out.
    Each(Vec<f64>),
    /// A value of all together.
    Whole(Statistic<'a>),
}

/// The joined examples of one goal.
pub(crate) struct Pairs<'a> {
    pub goal: &'a Goal,
    pub truths: Vec<&'a Truth>,
    pub given: Vec<&'a Given>,
    /// Mean and root mean squared deviation are those of the training rows, for `rmse_ratio`.
    pub training_mean: Option<f64>,
}

/// The metric cannot be computed from what is there.
pub(crate) fn refuse(what: impl Into<String>) -> MergeError {
    MergeError::plan("not-scored", what)
}

/// A metric by its registry name and its parameters.
pub(crate) fn measure<'a>(
    name: &str,
    params: &Map<String, Value>,
    pairs: &'a Pairs<'a>,
) -> Result<Form<'a>> {
    use registry::Needs;
    let metric = registry::find(name).ok_or_else(|| refuse(format!("unknown metric `{name}`")))?;
    let params = Params {
        metric: metric.name,
        map: params,
    };
    params.check()?;
    match metric.needs {
        Needs::Labels if matches!(pairs.truths.first(), Some(Truth::Tags(_))) => {
            text::tags(&params, pairs)
        }
        Needs::Labels if matches!(pairs.truths.first(), Some(Truth::Choice(..))) => {
            rank::choices(&params, pairs)
        }
        Needs::Labels => labels(&params, pairs),
        Needs::LabelSets => sets(&params, pairs),
        Needs::Scores if metric.name == "c_index" => numbers::survival(&params, pairs),
        Needs::Scores => scores(&params, pairs),
        Needs::Probabilities => numbers::probabilities(&params, pairs),
        Needs::Values => numbers::values(&params, pairs),
        Needs::Clusters => numbers::clusters(&params, pairs),
        Needs::Text => text::texts(&params, pairs),
        Needs::Attempts => text::attempts(&params, pairs),
        Needs::Marks => text::marks(&params, pairs),
        Needs::Spans => text::spans(&params, pairs),
        Needs::Tags => text::tags(&params, pairs),
        Needs::Rankings => rank::rankings(&params, pairs),
        Needs::ChoiceLogliks => rank::choices(&params, pairs),
        Needs::TextLogliks => rank::perplexities(&params, pairs),
        Needs::Maps => map::maps(&params, pairs),
        Needs::Graphs => map::graphs(&params, pairs),
    }
}

/// Parameters of a metric.
pub(crate) struct Params<'p> {
    pub metric: &'static str,
    map: &'p Map<String, Value>,
}

impl Params<'_> {
    fn known(&self) -> &'static [&'static str] {
        match self.metric {
            "ndcg" | "map" | "mrr" | "recall_at_k" | "precision_at_k" | "success_at_k"
            | "capped_recall" | "hole_at_k" | "ndcg_ties" | "top_k_accuracy" | "pass_at_k"
            | "pass_hat_k" => &["k"],
            "ece" | "ece_l2" | "mce" | "ece_equal_mass" => &["bins"],
            "selective_accuracy" => &["share"],
            map if super::maps::Pixels::of(map).is_some() => &["mask"],
            "v_measure" => &["beta"],
            "rouge1" | "rouge2" | "rougeL" | "rougeLsum" => &["stem"],
            "bleu" => &["lowercase", "tokenize"],
            "exact_match" => &[
                "ignore_case",
                "ignore_punctuation",
                "ignore_numbers",
                "regexes_to_ignore",
            ],
            _ => &[],
        }
    }

    fn check(&self) -> Result<()> {
        match self
            .map
            .keys()
            .find(|k| !self.known().contains(&k.as_str()))
        {
            None => Ok(()),
            Some(key) => {
                let error = refuse(format!(
                    "metric `{}` has no parameter `{key}` here",
                    self.metric
                ));
                Err(match self.known().join(", ") {
                    known if known.is_empty() => error.hint("it has none"),
                    known => error.hint(format!("it has: {known}")),
                })
            }
        }
    }

    /// A whole number of at least 1.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.map.get(name) else {
            return Ok(None);
        };
        let n = value
            .as_u64()
            .filter(|n| *n > 0)
            .and_then(|n| usize::try_from(n).ok());
        n.map(Some).ok_or_else(|| {
            refuse(format!(
                "metric `{}`: `{name}` must be a whole number of at least 1",
                self.metric
            ))
        })
    }

    pub fn flag(&self, name: &str) -> bool {
        self.map.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn word(&self, name: &str) -> Option<&str> {
        self.map.get(name).and_then(Value::as_str)
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        let list = self.map.get(name).and_then(Value::as_array);
        list.map(|l| l.iter().map(super::answers::plain).collect())
            .unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        self.map.get(name).and_then(Value::as_f64)
    }

    pub fn unfit(&self, why: &str) -> MergeError {
        refuse(format!(
            "metric `{}` cannot be computed: {why}",
            self.metric
        ))
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "the shape that map_err wants"
    )]
    pub fn failed(&self, error: EvalError) -> MergeError {
        refuse(format!("metric `{}`: {error}", self.metric))
    }
}

/// Values at places.
pub(crate) fn at<T: Copy>(values: &[T], places: &[u32]) -> Vec<T> {
    places.iter().map(|&i| values[i as usize]).collect()
}

/// A statistic over columns; one that fails on a draw is not defined there. Fails where it fails on all examples.
pub(crate) fn whole<'a>(
    params: &Params<'_>,
    n: usize,
    statistic: impl Fn(&[u32]) -> crate::evaluate::Result<f64> + Sync + 'a,
) -> Result<Form<'a>> {
    let all: Vec<u32> = (0..u32::try_from(n).unwrap_or(u32::MAX)).collect();
    statistic(&all).map_err(|e| params.failed(e))?;
    Ok(Form::Whole(Box::new(move |places| {
        statistic(places).unwrap_or(f64::NAN)
    })))
}

/// A value per example.
pub(super) fn each(right: impl Iterator<Item = f64>) -> Result<Form<'static>> {
    Ok(Form::Each(right.collect()))
}

/// True and predicted classes.
fn classes(params: &Params<'_>, pairs: &Pairs<'_>) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut both = (Vec::new(), Vec::new());
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Class(t), Some(p)) = (truth, given.class) else {
            return Err(match truth {
                Truth::Class(_) => params.unfit(
                    "it needs a label per example, and a row has only a score outside 0 to 1",
                ),
                _ => params.unfit(&format!(
                    "tasks of type {} have no classes",
                    pairs.goal.kind
                )),
            });
        };
        both.0.push(*t);
        both.1.push(p);
    }
    Ok(both)
}

fn labels<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    if let Some(Truth::Set(_)) = pairs.truths.first() {
        return sets(params, pairs);
    }
    if let Some(Truth::Texts(_)) = pairs.truths.first() {
        return match params.metric {
            "accuracy" => text::exact(params, pairs),
            _ => Err(params.unfit(
                "a task of type generation has no classes; name them in a classification task",
            )),
        };
    }
    let (truth, predicted) = classes(params, pairs)?;
    let n = truth.len();
    if params.metric == "accuracy" {
        return each(
            truth
                .iter()
                .zip(&predicted)
                .map(|(t, p)| f64::from(u8::from(t == p))),
        );
    }
    let positive = [u32::try_from(pairs.goal.classes.len())
        .unwrap_or(0)
        .saturating_sub(1)];
    let binary = matches!(params.metric, "precision" | "recall" | "f1");
    if binary && pairs.goal.classes.len() != 2 {
        return Err(params
            .unfit(&format!(
                "it is of two classes, and the task has {}",
                pairs.goal.classes.len()
            ))
            .hint("f1_macro, f1_micro and f1_weighted average over classes"));
    }
    let metric = params.metric;
    whole(params, n, move |places| {
        let table = classification::table(&at(&truth, places), &at(&predicted, places))?;
        let options = PrfOptions::default();
        let average = |average| table.prf(None, average, &options);
        let one = || Ok::<_, EvalError>(table.prf_per_class(Some(&positive), &options)?[0]);
        Ok(match metric {
            "balanced_accuracy" => table.balanced_accuracy(),
            "balanced_accuracy_adjusted" => table.balanced_accuracy_adjusted(),
            "f1_macro" => average(Average::Macro)?.f,
            "f1_micro" => average(Average::Micro)?.f,
            "f1_weighted" => average(Average::Weighted)?.f,
            "precision_macro" => average(Average::Macro)?.precision,
            "recall_macro" => average(Average::Macro)?.recall,
            "precision" => one()?.precision,
            "recall" => one()?.recall,
            "f1" => one()?.f,
            "mcc" => table.mcc(),
            "cohen_kappa" => table.cohen_kappa(KappaWeights::None),
            "cohen_kappa_linear" => table.cohen_kappa(KappaWeights::Linear),
            "cohen_kappa_quadratic" => table.cohen_kappa(KappaWeights::Quadratic),
            _ => {
                return Err(EvalError::invalid(
                    "labels",
                    format!("{metric} is not computed here"),
                ));
            }
        })
    })
}

fn sets<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    // Hits, true labels and predicted labels of each example, by label.
    let labels = pairs.goal.classes.len();
    let mut rows: Vec<(&[u32], &[u32])> = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Set(t), Some(p)) = (truth, &given.set) else {
            return Err(params.unfit("it needs a set of labels per example"));
        };
        rows.push((t, p));
    }
    let shared = |t: &[u32], p: &[u32]| t.iter().filter(|l| p.contains(l)).count() as f64;
    let ratio = |a: f64, b: f64, empty: f64| if b == 0.0 { empty } else { a / b };
    let size = |s: &[u32]| s.len() as f64;
    let rows_of = rows.iter().copied();
    match params.metric {
        "subset_accuracy" | "accuracy" => each(rows_of.map(|(t, p)| f64::from(u8::from(t == p)))),
        "hamming_loss" => {
            each(rows_of.map(|(t, p)| (size(t) + size(p) - 2.0 * shared(t, p)) / labels as f64))
        }
        "hamming_score" => each(rows_of.map(|(t, p)| {
            let both = shared(t, p);
            ratio(both, size(t) + size(p) - both, 1.0)
        })),
        "f1_samples" => {
            each(rows_of.map(|(t, p)| ratio(2.0 * shared(t, p), size(t) + size(p), 0.0)))
        }
        "f1_micro" | "f1_macro" | "f1_weighted" | "precision_macro" | "recall_macro" => {
            use crate::evaluate::metric::prf::{ClassCounts, averaged};
            let metric = params.metric;
            whole(params, rows.len(), move |places| {
                let mut counts = vec![
                    ClassCounts {
                        hits: 0.0,
                        support: 0.0,
                        predicted: 0.0
                    };
                    labels
                ];
                for &i in places {
                    let (t, p) = rows[i as usize];
                    for &label in t {
                        counts[label as usize].support += 1.0;
                        counts[label as usize].hits += f64::from(u8::from(p.contains(&label)));
                    }
                    for &label in p {
                        counts[label as usize].predicted += 1.0;
                    }
                }
                let average = match metric {
                    "f1_micro" => Average::Micro,
                    "f1_weighted" => Average::Weighted,
                    _ => Average::Macro,
                };
                let prf = averaged(&counts, average, &PrfOptions::default())?;
                Ok(match metric {
                    "precision_macro" => prf.precision,
                    "recall_macro" => prf.recall,
                    _ => prf.f,
                })
            })
        }
        _ => Err(params
            .unfit("it is not of sets of labels")
            .hint("f1_micro, f1_macro, f1_samples, subset_accuracy, hamming_score")),
    }
}

/// Truth and score of the last of two classes.
fn scores<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let classes = pairs.goal.classes.len();
    if classes != 2 {
        let why = format!("it is of two classes, and the task has {classes}");
        return Err(params
            .unfit(&why)
            .hint("roc_auc_ovr and roc_auc_ovo are of several"));
    }
    let mut truth = Vec::new();
    let mut scores = Vec::new();
    for (t, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Class(t), Some(s)) = (t, given.number) else {
            return Err(params
                .unfit("it needs a `score` per example, higher for the last class")
                .hint(format!(
                    "a column `score`, or `score_{}`",
                    pairs.goal.class_name(1)
                )));
        };
        truth.push(*t == 1);
        scores.push(s);
    }
    let metric = params.metric;
    whole(params, truth.len(), move |places| {
        let (t, s) = (at(&truth, places), at(&scores, places));
        Ok(match metric {
            "roc_auc" => roc_auc(&t, &s)?,
            "average_precision" => Curve::new(&t, &s, None)?.average_precision(),
            _ => Curve::new(&t, &s, None)?.pr_auc_trapezoid(),
        })
    })
}
