//! One pass over the rows of a split.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::{Level, SplitSummary, State, Tally, digest, empty};
use crate::error::Result;
use crate::tasks::data::Table;
use crate::tasks::load::Loader;
use crate::tasks::spec::TaskType;

impl State<'_> {
    /// Reads a split; the map has the hash of every input with the hash of its target.
    pub(super) fn split(
        &mut self,
        name: &str,
        loader: &Loader,
    ) -> Result<(SplitSummary, HashMap<u64, u64>)> {
        let spec = self.spec;
        let target = match spec.kind {
            Some(TaskType::Span) => spec.fields.spans.clone(),
            _ => spec.fields.target.clone(),
        };
        let counts = spec.kind.is_some_and(TaskType::has_classes);
        let mut summary = SplitSummary {
            name: name.to_owned(),
            rows: 0,
            labels: BTreeMap::new(),
            duplicates: 0,
            empty: 0,
        };
        let mut tally = Tally::default();
        let mut hashes: HashMap<u64, u64> = HashMap::new();
        loader.rows(name, &mut |table| {
            self.shape(&table);
            let inputs: Vec<&String> = self.inputs.iter().filter(|c| table.has(c)).collect();
            for row in 0..table.rows() {
                summary.rows += 1;
                let values: Vec<Value> = inputs.iter().map(|c| table.at(row, c)).collect();
                if !values.is_empty() && values.iter().all(empty) {
                    summary.empty += 1;
                }
                let answer = table.at(row, &target);
                if !target.is_empty() && empty(&answer) {
                    tally.no_target += 1;
                } else if counts {
                    self.count(&answer, &mut summary, &mut tally);
                } else if spec.kind == Some(TaskType::Span) {
                    tally.spans_outside += self.spans(&table, row, &answer);
                }
                let input = digest(&Value::Array(values));
                let answer = digest(&answer);
                if inputs.is_empty() {
                    continue;
                }
                if let Some(before) = hashes.insert(input, answer) {
                    summary.duplicates += 1;
                    tally.conflicts += u64::from(before != answer && !target.is_empty());
                }
            }
            self.features(&table);
            Ok(())
        })?;
        self.report(name, &summary, &tally);
        Ok((summary, hashes))
    }

    /// Columns of the first batch: types, and fields that are not there.
    fn shape(&mut self, table: &Table) {
        if !self.columns.is_empty() {
            return;
        }
        let types = table.types();
        self.columns = types
            .iter()
            .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
            .collect();
        if self.inputs.is_empty() && self.spec.table.is_some() {
            let table = self.spec.table.clone().unwrap_or_default();
            let out: BTreeSet<&str> = self
                .spec
                .targets
                .iter()
                .map(|t| &*t.column)
                .chain(table.drop.iter().map(String::as_str))
                .chain([&*table.group, &*table.weight, &*table.time])
                .chain([&*table.session, &*table.order, &*table.item])
                .chain([&*self.spec.fields.id, &*self.spec.fields.target])
                .collect();
            let names = types.iter().map(|(n, _)| *n).filter(|n| !out.contains(n));
            self.inputs = names.map(str::to_owned).collect();
        }
        let spec = self.spec;
        let fields = spec.fields.given().map(|(n, c)| (format!("fields.{n}"), c));
        let targets = spec.targets.iter().enumerate();
        let targets = targets.map(|(i, t)| (format!("targets[{i}].column"), &*t.column));
        let lists = spec.table.iter().flat_map(|t| {
            let named = [
                ("features", &t.features),
                ("categorical", &t.categorical),
                ("numeric", &t.numeric),
                ("text", &t.text),
                ("drop", &t.drop),
                ("history", &t.history),
            ];
            let single = [
                ("group", &t.group),
                ("weight", &t.weight),
                ("time", &t.time),
                ("session", &t.session),
                ("order", &t.order),
                ("item", &t.item),
            ];
            let lists = named
                .into_iter()
                .flat_map(|(n, l)| l.iter().map(move |c| (n, c)));
            lists
                .chain(single)
                .map(|(n, c)| (format!("table.{n}"), c.as_str()))
        });
        let all: Vec<(String, String)> = fields
            .chain(targets)
            .chain(lists)
            .filter(|(_, c)| !c.is_empty() && !c.contains("{{") && !table.has(c))
            .map(|(p, c)| (p, c.to_owned()))
            .collect();
        for (path, column) in all {
            let names: Vec<&str> = types.iter().map(|(n, _)| *n).collect();
            let near = crate::suggest::nearest(&column, &names, 1);
            let near = near
                .first()
                .map(|n| format!("; did you mean `{n}`?"))
                .unwrap_or_default();
            let text = format!("the data has no column `{column}`{near}");
            self.find(Level::Failure, "no-column", &path, text);
        }
    }

    /// Counts the labels of a row.
    fn count(&self, answer: &Value, summary: &mut SplitSummary, tally: &mut Tally) {
        let names = &self.spec.labels.names;
        let one = [answer.clone()];
        let labels = match answer {
            Value::Array(list) => &list[..],
            _ => &one[..],
        };
        for label in labels {
            let class = self.class(label);
            let known = match class {
                Some(class) => names.is_empty() || class < names.len(),
                None => names.is_empty(),
            };
            let shown = match class {
                Some(class) if !names.is_empty() => names.get(class).cloned(),
                _ => None,
            };
            let shown = shown.unwrap_or_else(|| match label {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            });
            if !known {
                tally.unknown += 1;
                tally.first_unknown.get_or_insert_with(|| shown.clone());
            }
            *summary.labels.entry(shown).or_default() += 1;
        }
    }

    /// The class of a raw label: through the map, by name, or as a number.
    fn class(&self, label: &Value) -> Option<usize> {
        let labels = &self.spec.labels;
        let text = match label {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        if let Some(class) = labels.map.get(&text) {
            return Some(*class as usize);
        }
        if let Some(class) = labels.names.iter().position(|n| *n == text) {
            return Some(class);
        }
        text.parse().ok()
    }

    /// Spans of a row that do not lie in its input.
    fn spans(&self, table: &Table, row: usize, answer: &Value) -> u64 {
        let input = table.at(row, &self.spec.fields.input);
        let text = input.as_str().unwrap_or_default();
        let length = text.chars().count() as u64;
        match answer {
            Value::Array(list) => list
                .iter()
                .filter(|span| {
                    let (start, end) = (span["start"].as_u64(), span["end"].as_u64());
                    !matches!((start, end), (Some(s), Some(e)) if s <= e && e <= length)
                })
                .count() as u64,
            Value::Object(slots) => slots
                .values()
                .filter(|v| v.as_str().is_some_and(|v| !text.contains(v)))
                .count() as u64,
            _ => 0,
        }
    }
}
