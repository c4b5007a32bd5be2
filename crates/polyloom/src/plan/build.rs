//! From a recipe to a plan.

mod layers;
mod merged;
mod open;
mod problems;
mod tensor;
mod whole;

use std::sync::Arc;

use super::reference::Places;
use super::weights::Opened;
use super::{Group, How, Note, Output, Plan};
use crate::error::MergeError;
use crate::merge::method::{Base, Method};
use crate::recipe::{Module, Recipe, Slice};
use crate::vocab;

pub use open::open_model;

/// Opens every model of a recipe and plans the merge.
///
/// # Errors
/// All independent problems, at most ten, the rest as a count.
pub fn build(recipe: Recipe, places: &Places) -> Result<Plan, Vec<MergeError>> {
    let method = crate::merge::find(&recipe.method).ok_or_else(|| {
        vec![MergeError::plan(
            "unknown-method",
            format!("unknown merge method `{}`", recipe.method),
        )]
    })?;
    let models = open::open_models(&recipe, places)?;
    let odd: Vec<Note> = models
        .iter()
        .flat_map(|m| {
            m.warnings.iter().map(|w| Note {
                warning: true,
                text: w.clone(),
            })
        })
        .collect();
    let mut builder = Builder {
        method,
        truncated: None,
        vocabulary: None,
        outputs: Vec::new(),
        groups: Vec::new(),
        notes: recipe
            .notes
            .iter()
            .map(|(warning, text)| Note {
                warning: *warning,
                text: text.clone(),
            })
            .collect(),
        errors: Vec::new(),
        models,
        recipe,
    };
    builder.notes.extend(odd);
    builder.architectures();
    builder.vocabulary();
    let stacked = builder.tensors();
    let heads = builder.heads();
    if builder.outputs.is_empty() && builder.errors.is_empty() {
        builder.errors.push(MergeError::plan(
            "empty",
            "the inputs have no tensors in common",
        ));
    }
    if !builder.errors.is_empty() {
        return Err(capped(builder.errors));
    }
    builder.renumber();
    let mut plan = Plan {
        method,
        template: builder.template(),
        stacked,
        heads,
        recipe: builder.recipe,
        models: builder.models,
        outputs: builder.outputs,
        groups: builder.groups,
        vocabulary: builder.vocabulary,
        truncated: builder.truncated,
        notes: builder.notes,
    };
    check_groups(&mut plan)?;
    Ok(plan)
}

/// Opens statistics and lets every group's method look at its job.
fn check_groups(plan: &mut Plan) -> Result<(), Vec<MergeError>> {
    let mut errors = Vec::new();
    for g in 0..plan.groups.len() {
        let group = &plan.groups[g];
        match super::statistics::open(&plan.recipe, &plan.models, group) {
            Ok(statistics) => plan.groups[g].statistics = statistics,
            Err(error) => {
                errors.push(error);
                continue;
            }
        }
        match super::statistics::doubts(&plan.recipe, &plan.models, &plan.groups[g]) {
            // Several groups may have the same experts.
            Ok(doubts) => {
                for text in doubts {
                    let note = Note {
                        warning: true,
                        text,
                    };
                    if !plan.notes.contains(&note) {
                        plan.notes.push(note);
                    }
                }
            }
            Err(error) => errors.push(error),
        }
        let group = &plan.groups[g];
        let Some(method) = crate::merge::find(group.composition.method) else {
            continue;
        };
        match method.check(&plan.job(group)) {
            Ok(notes) => plan.notes.extend(notes.into_iter().map(|text| Note {
                warning: false,
                text,
            })),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(capped(errors))
    }
}

pub(crate) fn capped(mut errors: Vec<MergeError>) -> Vec<MergeError> {
    let all = errors.len();
    if all > 10 {
        errors.truncate(10);
        errors.push(MergeError::plan(
            "more",
            format!("and {} more problems", all - 10),
        ));
    }
    errors
}

struct Builder {
    recipe: Recipe,
    method: &'static dyn Method,
    models: Vec<Opened>,
    vocabulary: Option<vocab::VocabPlan>,
    truncated: Option<usize>,
    outputs: Vec<Output>,
    groups: Vec<Group>,
    notes: Vec<Note>,
    errors: Vec<MergeError>,
}

/// One output tensor being planned.
struct Wanted<'a> {
    /// Name in the output.
    name: String,
    /// Name in the base.
    base_name: String,
    /// Name in each source.
    source_names: Vec<String>,
    /// Layer inside the slice, and the slice's length.
    at: Option<(usize, usize)>,
    /// Layer and length in the output's block list.
    layer: Option<(usize, usize)>,
    slice: &'a Slice,
    module: &'a Module,
}

impl Builder {
    fn fail(&mut self, error: MergeError) {
        self.errors.push(error);
    }

    fn note(&mut self, warning: bool, text: impl Into<String>) {
        let note = Note {
            warning,
            text: text.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The base of a slice as a task-vector base, or nothing for methods that ignore bases.
    fn base_of(&self, slice: &Slice) -> Option<usize> {
        match self.method.spec().base {
            Base::Ignored => None,
            Base::Required | Base::Optional => slice.base.or(self.recipe.base),
        }
    }

    fn template(&self) -> usize {
        self.recipe.base.unwrap_or_else(|| {
            self.recipe.modules[0].slices[0]
                .sources
                .first()
                .map_or(0, |s| s.model)
        })
    }

    /// Sorts each group's tensors by name in byte order and numbers their elements (whole-model order).
    fn renumber(&mut self) {
        for g in 0..self.groups.len() {
            let group = &mut self.groups[g];
            group
                .members
                .sort_by(|a, b| a.job.name.as_bytes().cmp(b.job.name.as_bytes()));
            let mut before = 0u64;
            for (i, member) in group.members.iter_mut().enumerate() {
                let job = Arc::make_mut(&mut member.job);
                job.before = before;
                before += job.elements() as u64;
                self.outputs[member.output].how = How::Merge(g, i);
            }
        }
    }
}

/// True for embeddings and heads, whatever their number of rows.
fn is_vocab(name: &str, shape: &[usize]) -> bool {
    shape
        .first()
        .is_some_and(|rows| vocab::is_vocab_tensor(name, shape, *rows))
}
