//! Problems of tensors, told once per cause.

use std::collections::{BTreeMap, BTreeSet};

use super::{Builder, Wanted, is_vocab};
use crate::error::MergeError;
use crate::plan::Input;
use crate::plan::names::{self, PrefixFix};

impl Builder {
    /// One message for a problem that every tensor repeats.
    pub(super) fn fail_once(&mut self, error: MergeError) {
        let key = |e: &MergeError| {
            let text = e.to_string();
            text.split(" (model").next().unwrap_or(&text).to_owned()
        };
        if !self
            .errors
            .iter()
            .any(|e| e.code() == error.code() && key(e) == key(&error))
        {
            self.errors.push(error);
        }
    }

    pub(super) fn wrong_shape(
        &mut self,
        wanted: &Wanted,
        first: &Input,
        want: &[usize],
        input: &Input,
        found: &[usize],
    ) {
        let what = self.recipe.base.map_or("the first input", |b| {
            if b == first.model {
                "base"
            } else {
                "the first input"
            }
        });
        let mut error = MergeError::plan(
            "shape-mismatch",
            format!(
                "tensor `{}` has shape {found:?}, {what} has {want:?}",
                input.name
            ),
        )
        .at(self.models[input.model].file_of(&input.name));
        if is_vocab(&wanted.name, want) {
            error = error
                .hint("the vocabularies differ: merge rows by token with a tokenizer rule (`tokenizer_source: union` or `base`)")
                .hint("or cut to the smallest vocabulary, unchecked, with --unsafe-truncate-embeddings");
        } else if names::is_head(&wanted.name) {
            error = error.hint("heads differ per task; keep them out of the merge with `[merge] heads = \"separate\"` (--heads separate)");
        } else {
            error = error
                .hint("only models of one architecture and size can be merged tensor by tensor");
        }
        self.fail(error);
    }

    pub(super) fn missing(
        &mut self,
        wanted: &Wanted,
        base_model: Option<usize>,
        base: Option<&Input>,
        inputs: &[Option<Input>],
    ) {
        let lacking: Vec<usize> = base_model
            .filter(|_| base.is_none())
            .into_iter()
            .chain(
                wanted
                    .slice
                    .sources
                    .iter()
                    .zip(inputs)
                    .filter(|(_, i)| i.is_none())
                    .map(|(s, _)| s.model),
            )
            .collect();
        // Reported by model in `report_surplus`, so that a wrong prefix is one message and not two hundred.
        for model in lacking {
            self.errors.push(MergeError::Plan {
                code: "missing-tensor",
                place: Some(self.models[model].path.display().to_string()),
                message: wanted.name.clone(),
                hints: vec![model.to_string()],
            });
        }
    }

    /// Joins the missing-tensor marks of [`Self::missing`] into one error per model.
    pub(super) fn report_surplus(&mut self) {
        let (marks, mut errors): (Vec<_>, Vec<_>) = std::mem::take(&mut self.errors)
            .into_iter()
            .partition(|e| e.code() == "missing-tensor");
        let mut by_model: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for mark in marks {
            if let MergeError::Plan { message, hints, .. } = mark
                && let Some(model) = hints.first().and_then(|h| h.parse().ok())
            {
                by_model.entry(model).or_default().push(message);
            }
        }
        let base = self.recipe.base;
        let reference = base.unwrap_or_else(|| self.template());
        let lacking_here: BTreeSet<String> = by_model
            .get(&reference)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for (model, names) in &by_model {
            let opened = &self.models[*model];
            let what = if base == Some(*model) {
                "the base"
            } else {
                "this model"
            };
            if *model == reference {
                // Tensors the reference lacks are better told from the side of the model that has them.
                let mut owners: Vec<usize> =
                    (0..self.models.len()).filter(|m| m != model).collect();
                owners.retain(|m| names.iter().any(|n| self.models[*m].get(n).is_some()));
                for owner in owners {
                    let has: Vec<&str> = names
                        .iter()
                        .map(String::as_str)
                        .filter(|n| self.models[owner].get(n).is_some())
                        .collect();
                    let known: BTreeSet<&str> = self.models[*model]
                        .tensors
                        .keys()
                        .map(String::as_str)
                        .collect();
                    let kind = if base.is_some() {
                        "base"
                    } else {
                        "the first model"
                    };
                    let fix = names::prefix_fix(&has, &known);
                    let other = match &fix {
                        Some(PrefixFix::Strip(p)) => {
                            has[0].strip_prefix(p.as_str()).map(str::to_owned)
                        }
                        Some(PrefixFix::Add(p)) => Some(format!("{p}{}", has[0])),
                        None => None,
                    };
                    let other = other.map_or_else(String::new, |n| format!("; {kind} has {n}"));
                    let mut error = MergeError::plan(
                        "no-counterpart",
                        format!(
                            "{} tensor{} no counterpart in {kind} {}\n  first: {}{other}",
                            has.len(),
                            if has.len() == 1 { " has" } else { "s have" },
                            self.models[*model].path.display(),
                            has[0],
                        ),
                    )
                    .at(self.models[owner].file_of(has[0]));
                    error = match fix {
                        Some(PrefixFix::Strip(p)) => error.hint(format!("names differ by the prefix `{p}`; add `strip_prefix = \"{p}\"` to this [[expert]]")),
                        Some(PrefixFix::Add(p)) => error.hint(format!("names differ by the prefix `{p}`; add `add_prefix = \"{p}\"` to this [[expert]]")),
                        None if has.iter().all(|n| names::is_head(n)) => {
                            error.hint("heads differ per task; keep them out of the merge with `[merge] heads = \"separate\"` (--heads separate)")
                        }
                        None => error.hint("--intersection leaves such tensors out, --union keeps them"),
                    };
                    errors.push(error);
                }
            } else {
                let rest: Vec<&String> = names
                    .iter()
                    .filter(|n| {
                        !lacking_here.contains(*n) && self.models[reference].get(n).is_some()
                    })
                    .collect();
                // With a wrong prefix both directions fail; the message above names the fix.
                let renamed = by_model.contains_key(&reference)
                    && rest.len() > self.models[reference].tensors.len() / 2;
                if let Some(first) = rest.first().filter(|_| !renamed) {
                    errors.push(
                        MergeError::plan(
                            "missing-tensor",
                            format!("{what} lacks {} tensor{} that {} has; first: {first}", rest.len(), if rest.len() == 1 { "" } else { "s" }, self.models[reference].path.display()),
                        )
                        .at(opened.path.display().to_string())
                        .hint("`missing = \"base\"` counts them as unchanged, --intersection leaves them out, --union merges what is there"),
                    );
                }
            }
        }
        self.errors = errors;
    }
}
