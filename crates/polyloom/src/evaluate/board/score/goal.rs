//! What a task asks for: its classes, its metrics, which rows it is about.

use std::collections::HashMap;

use indexmap::IndexSet;
use serde_json::Value;

use super::answers::plain;
use super::truth::{Example, Truth};
use crate::error::{MergeError, Result};
use crate::tasks::load::sample_of;
use crate::tasks::predicate::Predicate;
use crate::tasks::spec::{Metric, TaskSpec, TaskType};

/// One thing that is asked for: the task, or one of its targets.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// Name of the target; empty without targets.
    pub name: String,
    pub kind: TaskType,
    pub column: String,
    pub metrics: Vec<Metric>,
    /// Classes; discovered and sorted where the spec names none.
    pub classes: Vec<String>,
    /// Raw labels of other names, and numbers where the data has numbers.
    pub also: HashMap<String, u32>,
    /// Whether the classes come from the data.
    pub discovered: bool,
    open: Option<IndexSet<String>>,
    pub(super) sample: Option<Predicate>,
}

impl Goal {
    /// The class of a label as it stands in data or predictions.
    pub fn class(&self, label: &Value) -> Option<u32> {
        let text = plain(label);
        let text = text.trim();
        let place = |p: usize| u32::try_from(p).ok();
        if let Some(class) = self.also.get(text) {
            return Some(*class);
        }
        if let Some(p) = self.classes.iter().position(|n| n == text) {
            return place(p);
        }
        // 1.0 for 1, as tables with missing values have it.
        let whole = text.strip_suffix(".0").and_then(|t| self.also.get(t));
        if let Some(class) = whole {
            return Some(*class);
        }
        let lower = text.to_lowercase();
        let mut same = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, n)| n.to_lowercase() == lower);
        match (same.next(), same.next()) {
            (Some((p, _)), None) => place(p),
            _ => None,
        }
    }

    /// The name of a class.
    pub fn class_name(&self, class: u32) -> String {
        self.classes
            .get(class as usize)
            .cloned()
            .unwrap_or_else(|| class.to_string())
    }

    pub(super) fn truth_class(&mut self, label: &Value, at: &dyn Fn() -> String) -> Result<u32> {
        if let Some(open) = &mut self.open {
            return Ok(u32::try_from(open.insert_full(plain(label)).0).unwrap_or(u32::MAX));
        }
        self.class(label).ok_or_else(|| {
            MergeError::plan(
                "bad-label",
                format!("the label `{}` is no class of the task", plain(label)),
            )
            .at(at())
            .hint("`polyloom tasks check` lists such rows; labels.ignore leaves them out")
        })
    }
}

pub(super) fn goals(spec: &TaskSpec) -> Result<Vec<Goal>> {
    let goal = |name: &str,
                kind,
                column: &str,
                metrics: &[Metric],
                labels: &[String],
                sample: Option<Predicate>| {
        let with_classes = matches!(
            kind,
            TaskType::Classification
                | TaskType::PairClassification
                | TaskType::Multilabel
                | TaskType::Clustering
        );
        let mut also = HashMap::new();
        for i in 0..u32::try_from(labels.len()).unwrap_or(0) {
            if !labels.contains(&i.to_string()) {
                also.insert(i.to_string(), i);
            }
        }
        also.extend(
            spec.labels
                .map
                .iter()
                .map(|(raw, class)| (raw.clone(), *class)),
        );
        let open = with_classes && labels.is_empty() && spec.labels.map.is_empty();
        Goal {
            name: name.to_owned(),
            kind,
            column: column.to_owned(),
            metrics: metrics.to_vec(),
            classes: labels.to_vec(),
            also,
            discovered: open,
            open: open.then(IndexSet::new),
            sample,
        }
    };
    if spec.targets.is_empty() {
        let kind = spec.kind.ok_or_else(|| {
            MergeError::plan("no-type", format!("task `{}` has no type", spec.id))
        })?;
        let f = &spec.fields;
        let column = match kind {
            TaskType::Dense => &f.map,
            _ => &f.target,
        };
        return Ok(vec![goal(
            "",
            kind,
            column,
            &spec.metrics,
            &spec.labels.names,
            None,
        )]);
    }
    let of = |t: &crate::tasks::spec::Target| {
        Ok(goal(
            &t.name,
            t.kind,
            &t.column,
            &t.metrics,
            &t.labels,
            sample_of(t)?,
        ))
    };
    spec.targets.iter().map(of).collect()
}

/// Sorts classes that were discovered (numbers by value) and renames those of the examples.
pub(super) fn close(goal: &mut Goal, place: usize, examples: &mut [Example]) {
    let Some(open) = goal.open.take() else { return };
    let mut order: Vec<(usize, &String)> = open.iter().enumerate().collect();
    let value = |t: &String| t.parse::<f64>().ok();
    if open.iter().all(|t| value(t).is_some()) {
        order.sort_by(|a, b| {
            value(a.1)
                .unwrap_or(0.0)
                .total_cmp(&value(b.1).unwrap_or(0.0))
        });
    } else {
        order.sort_by_key(|(_, name)| name.as_str());
    }
    let mut new = vec![0u32; order.len()];
    for (now, (before, _)) in (0u32..).zip(&order) {
        new[*before] = now;
    }
    goal.classes = order.into_iter().map(|(_, name)| name.clone()).collect();
    // A class that is the number 1 is found under 1.0 too.
    goal.also = (0u32..)
        .zip(&goal.classes)
        .map(|(i, name)| (name.clone(), i))
        .collect();
    for example in examples {
        match &mut example.truths[place] {
            Some(Truth::Class(c)) => *c = new[*c as usize],
            Some(Truth::Set(set)) => {
                set.iter_mut().for_each(|c| *c = new[*c as usize]);
                set.sort_unstable();
            }
            _ => {}
        }
    }
}
