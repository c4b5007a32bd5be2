//! One group of a task measured: values, intervals, records.

use std::collections::HashMap;

use super::answers::{number, plain, sha256};
use super::given::Given;
use super::join::Task;
use super::measure::{Pairs, measure};
use super::shown::{clusters, tags, target};
use super::truth::Truth;
use super::value::{About, Aggregate, finish};
use super::{Measured, Record, Scored};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::registry::Metric as Known;
use crate::tasks::data::Table;
use crate::tasks::spec::Metric;

impl Task<'_> {
    /// The result of one group of the task, or of all of it.
    pub(super) fn group(
        &self,
        group: Option<&str>,
        places: &[usize],
        given: &[Option<Given>],
        metrics: &[(Metric, &'static Known)],
        training_mean: Option<f64>,
    ) -> Result<Scored> {
        let goal = self.goal();
        let examples = &self.questions.examples;
        let id = self.id(group);
        let hash = match id == self.spec.id {
            true => self.hash.to_owned(),
            false => sha256(&format!("{}\n{id}", self.hash)),
        };
        let truths: Vec<&Truth> = places
            .iter()
            .filter_map(|i| examples[*i].truths[self.place].as_ref())
            .collect();
        let said: Vec<&Given> = places.iter().filter_map(|i| given[*i].as_ref()).collect();
        let pairs = Pairs {
            goal,
            truths,
            given: said,
            training_mean,
        };
        let clusters = clusters(places.iter().map(|i| &examples[*i]));
        let n = pairs.truths.len();
        let mut measured = Vec::new();
        let mut values = None;
        for (i, (metric, known)) in metrics.iter().enumerate() {
            let about = About {
                metric: known,
                aggregate: match &*metric.aggregate {
                    "median" => Aggregate::Median,
                    "sum" => Aggregate::Sum,
                    _ => Aggregate::Mean,
                },
                hash: &hash,
                clusters: clusters.as_deref(),
                options: self.options,
                chance: self.chance(known, &pairs, i == 0),
            };
            let found = measure(&metric.name, &metric.params, &pairs)
                .and_then(|form| finish(form, n, &about));
            match found {
                Ok((one, each)) => {
                    if i == 0 {
                        values = each;
                    }
                    measured.push(one);
                }
                Err(error) if i == 0 => {
                    return Err(error.at(format!("{}: task `{id}`", self.answers.path.display())));
                }
                Err(error) => measured.push(not_measured(known, &error)),
            }
        }
        let records = places
            .iter()
            .zip(&pairs.given)
            .zip(&pairs.truths)
            .enumerate();
        let records = records.map(|(i, ((place, given), truth))| Record {
            task: id.clone(),
            id: examples[*place].id.clone(),
            hash: sha256(&format!("{hash}\n{}", examples[*place].hash))[..32].to_owned(),
            prediction: given.shown.clone(),
            target: target(goal, truth),
            value: values.as_ref().map(|v| v[i]).filter(|v| !v.is_nan()),
            score: given.number,
            probabilities: given.probabilities(),
        });
        Ok(Scored {
            task: id.clone(),
            hash: Some(hash.clone()),
            split: Some(self.options.split.clone()),
            records: records.collect(),
            metrics: measured,
            // The reference is of the task as a whole.
            expert: self
                .spec
                .expert
                .score
                .filter(|_| self.options.metrics.is_empty() && id == self.spec.id),
            tags: tags(self.spec, goal.kind),
            missing: (Vec::new(), 0),
            extra: (Vec::new(), 0),
            notes: Vec::new(),
        })
    }

    fn chance(&self, known: &Known, pairs: &Pairs<'_>, primary: bool) -> Option<f64> {
        let given = self
            .spec
            .score
            .chance
            .filter(|_| primary && self.options.metrics.is_empty());
        let classes = match pairs.truths.first() {
            Some(Truth::Choice(choices, _)) => choices.len(),
            _ => pairs.goal.classes.len(),
        };
        let last = u32::try_from(classes).unwrap_or(0).wrapping_sub(1);
        let positive = pairs
            .truths
            .iter()
            .filter(|t| ***t == Truth::Class(last))
            .count();
        let share = positive as f64 / pairs.truths.len() as f64;
        given.or_else(|| known.chance_for((classes > 0).then_some(classes), Some(share)))
    }

    /// Mean of the target over the training rows, over all and by group, where a metric needs it.
    pub(super) fn training_means(
        &self,
        metrics: &[(Metric, &Known)],
    ) -> Result<Option<HashMap<Option<String>, f64>>> {
        if !metrics.iter().any(|(_, m)| m.name == "rmse_ratio")
            || !self.spec.splits.named.contains_key("train")
        {
            return Ok(None);
        }
        let mut all: HashMap<Option<String>, crate::evaluate::sum::Sum> = HashMap::new();
        let target = self
            .spec
            .targets
            .iter()
            .find(|t| t.name == self.goal().name);
        let mut add = |table: Table| {
            for row in 0..table.rows() {
                let Some(x) = number(&table.at(row, &self.goal().column), false) else {
                    continue;
                };
                all.entry(None).or_default().add(x);
                if let Some(group) = self.spec.task_group() {
                    all.entry(Some(plain(&table.at(row, group))))
                        .or_default()
                        .add(x);
                }
            }
            Ok(())
        };
        match target {
            Some(target) => self.loader.rows_of("train", target, &mut add)?,
            None => self.loader.rows("train", &mut add)?,
        }
        Ok(Some(
            all.into_iter()
                .map(|(group, sum)| (group, sum.mean()))
                .collect(),
        ))
    }
}

fn not_measured(known: &Known, error: &MergeError) -> Measured {
    Measured {
        name: known.name.to_owned(),
        higher_is_better: known.higher_is_better(),
        value: f64::NAN,
        stderr: f64::NAN,
        interval: None,
        method: "none",
        n: 0,
        reason: Some(error.to_string()),
        chance: None,
    }
}
