//! Experts against their base.

use std::collections::BTreeSet;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::linalg::{Matrix, svd};

use super::spectrum::{LARGEST, Spectrum, problem};
use super::{Facts, Filter, IntruderRule, Planned, Reader, Source, Task};
use crate::adapt::max_cosines;
use crate::error::{MergeError, Result};
use crate::plan::Opened;
use crate::plan::names::{PrefixFix, is_head, prefix_fix};

struct Models<'a> {
    base: &'a Opened,
    experts: Vec<Opened>,
}

/// An expert whose names differ from the base's by one prefix, under the base's names.
fn renamed(base: &Opened, expert: &Opened, notes: &mut Vec<String>) -> Opened {
    let known: BTreeSet<&str> = base.tensors.keys().map(String::as_str).collect();
    let missing: Vec<&str> = expert
        .tensors
        .keys()
        .map(String::as_str)
        .filter(|n| !known.contains(n) && !is_head(n))
        .collect();
    if expert
        .tensors
        .keys()
        .any(|n| known.contains(n.as_str()) && !is_head(n))
    {
        return expert.clone();
    }
    let mut model = expert.model.clone();
    let name = &expert.model.name;
    match prefix_fix(&missing, &known) {
        None => return expert.clone(),
        Some(PrefixFix::Strip(prefix)) => {
            notes.push(format!(
                "`{name}`: names are read without the prefix `{prefix}`"
            ));
            model.strip_prefix = Some(prefix);
        }
        Some(PrefixFix::Add(prefix)) => {
            notes.push(format!(
                "`{name}`: names are read with the prefix `{prefix}`"
            ));
            model.add_prefix = Some(prefix);
        }
    }
    Opened::new(
        model,
        expert.path.clone(),
        expert.adapter.clone(),
        expert.weights.clone(),
    )
}

/// Finds the tensors that the base and all experts have.
pub(super) fn plan<'a>(
    base: &'a Opened,
    experts: &'a [Opened],
    filter: &Filter,
) -> Result<Planned<'a>, Vec<MergeError>> {
    let mut notes = Vec::new();
    let experts: Vec<Opened> = experts
        .iter()
        .map(|e| renamed(base, e, &mut notes))
        .collect();
    let (mut tasks, mut errors) = (Vec::new(), Vec::new());
    let mut left_out: Vec<&str> = Vec::new();
    for (name, entry) in base.tensors.iter().filter(|(n, _)| filter.takes(n)) {
        let entries: Vec<_> = experts.iter().filter_map(|e| e.get(name)).collect();
        let elements: usize = entry.shape.iter().product();
        if entries.len() < experts.len() {
            left_out.push(name);
            continue;
        }
        if !entry.dtype.is_float() || entries.iter().any(|e| !e.dtype.is_float()) || elements == 0 {
            continue;
        }
        let wrong = experts
            .iter()
            .zip(&entries)
            .find(|(_, e)| e.shape != entry.shape);
        if let Some((expert, found)) = wrong {
            errors.push(
                MergeError::plan(
                    "shape-mismatch",
                    format!(
                        "tensor `{name}` has shape {:?}, but {:?} in the base {}",
                        found.shape,
                        entry.shape,
                        base.file_of(name)
                    ),
                )
                .at(expert.file_of(name))
                .hint(format!(
                    "is this the base the expert was tuned from? If so, leave the tensor out: --exclude '^{}$'",
                    regex::escape(name)
                )),
            );
            continue;
        }
        tasks.push(Task {
            name: name.clone(),
            shape: entry.shape.clone(),
        });
    }
    if errors.len() > 3 && errors.len() > tasks.len() {
        // Another model altogether: one message says more than ten.
        let count = errors.len();
        let first = errors.swap_remove(0);
        return Err(vec![
            MergeError::plan(
                "shape-mismatch",
                format!(
                    "{count} of {} tensors have other shapes than in the base; {first}",
                    count + tasks.len()
                ),
            )
            .hint("give the --base the experts were tuned from"),
        ]);
    }
    if !errors.is_empty() {
        return Err(crate::plan::capped(errors));
    }
    if tasks.is_empty() {
        return Err(vec![nothing_common(base, &experts, filter)]);
    }
    if let Some(first) = left_out.first() {
        notes.push(format!(
            "{} of the base's tensors are not in every expert and are left out (first: `{first}`)",
            left_out.len()
        ));
    }
    for expert in &experts {
        let own: Vec<&str> = expert
            .tensors
            .keys()
            .filter(|n| filter.takes(n) && base.get(n).is_none())
            .map(String::as_str)
            .collect();
        if let Some(first) = own.first() {
            notes.push(format!(
                "`{}`: {} tensors are not in the base and are left out (first: `{first}`)",
                expert.model.name,
                own.len()
            ));
        }
        notes.extend(
            expert
                .warnings
                .iter()
                .map(|w| format!("`{}`: {w}", expert.model.name)),
        );
    }
    let facts = Facts {
        base: Some(base.model.reference.to_string()),
        experts: experts.iter().map(|e| e.model.name.clone()).collect(),
        notes,
    };
    Ok((tasks, Box::new(Models { base, experts }), facts))
}

fn nothing_common(base: &Opened, experts: &[Opened], filter: &Filter) -> MergeError {
    let filtered = filter.include.is_some() || filter.exclude.is_some();
    let odd = experts
        .iter()
        .find(|e| e.tensors.keys().all(|n| base.get(n).is_none()));
    let Some(odd) = odd else {
        let error = MergeError::plan(
            "nothing-in-common",
            "no tensor of floating-point numbers is in the base and in all experts",
        );
        return if filtered {
            error.hint("--include and --exclude leave nothing; they match anywhere in a name")
        } else {
            error.hint("compare fewer experts at a time; `inspect` lists what a model holds")
        };
    };
    let first = |o: &Opened| o.tensors.keys().next().cloned().unwrap_or_default();
    MergeError::plan(
        "nothing-in-common",
        format!(
            "no tensor has the name of one of the base's; first: `{}`, the base {} has `{}`",
            first(odd),
            base.path.display(),
            first(base)
        ),
    )
    .at(odd.path.display().to_string())
    .hint(
        "is this the base the expert was tuned from? Rename the tensors, or give the right --base",
    )
}

impl Source for Models<'_> {
    fn open<'a>(&'a self, task: &'a Task) -> Result<Box<dyn Reader + 'a>> {
        Ok(Box::new(OneTensor { models: self, task }))
    }

    fn whole_spectra(&self) -> bool {
        true
    }

    /// Effective ranks are of the differences; intruders compare the tuned matrix with the base's.
    fn spectra(&self, task: &Task, rule: IntruderRule) -> Result<Vec<Spectrum>> {
        let Some((rows, cols)) = task.matrix().filter(|_| task.elements() <= LARGEST) else {
            return Ok(Vec::new());
        };
        let mut scratch = Scratch::default();
        let mut whole = |model: &Opened| -> Result<Matrix> {
            let mut values = vec![0.0f32; rows * cols];
            model.read(&task.name, 0, &mut values, &mut scratch)?;
            Ok(Matrix::from_f32(rows, cols, &values))
        };
        let base = whole(self.base)?;
        let before =
            svd(&base).map_err(|p| problem(&self.base.file_of(&task.name), &task.name, &p))?;
        self.experts
            .iter()
            .map(|expert| {
                let bad = |p: String| problem(&expert.file_of(&task.name), &task.name, &p);
                let tuned = whole(expert)?;
                let mut delta = tuned.clone();
                delta.add(-1.0, &base);
                let values = svd(&delta).map_err(bad)?.s;
                let after = svd(&tuned).map_err(bad)?;
                let intruders = max_cosines(&before, &after, rule.k)
                    .iter()
                    .filter(|c| **c < rule.epsilon)
                    .count();
                Ok(Spectrum::new(&values, rows.min(cols), Some(intruders)))
            })
            .collect()
    }
}

struct OneTensor<'a> {
    models: &'a Models<'a>,
    task: &'a Task,
}

impl OneTensor<'_> {
    fn finite(&self, model: &Opened, start: usize, values: &[f32]) -> Result<()> {
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(MergeError::plan(
                "nonfinite",
                format!(
                    "tensor `{}` holds {} at element {}",
                    self.task.name,
                    if values[at].is_nan() { "NaN" } else { "infinity" },
                    start + at
                ),
            )
            .at(model.file_of(&self.task.name))
            .hint(format!(
                "the file is damaged or its training diverged; to compare the rest: --exclude '^{}$'",
                regex::escape(&self.task.name)
            ))),
        }
    }
}

impl Reader for OneTensor<'_> {
    fn has_base(&self) -> bool {
        true
    }

    fn read(
        &self,
        start: usize,
        base: &mut Vec<f32>,
        deltas: &mut [Vec<f32>],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let name = &self.task.name;
        self.models.base.read(name, start, base, scratch)?;
        self.finite(self.models.base, start, base)?;
        for (expert, delta) in self.models.experts.iter().zip(deltas) {
            expert.read(name, start, delta, scratch)?;
            self.finite(expert, start, delta)?;
            for (d, b) in delta.iter_mut().zip(&*base) {
                *d -= *b;
            }
        }
        Ok(())
    }
}
