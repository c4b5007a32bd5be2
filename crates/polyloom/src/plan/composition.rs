//! Which kernels a plan runs: the method with its inner merge, pre-steps and post-steps, as data.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{MergeError, Result};
use crate::merge::compose::{self, PostKernel, StepSpec};
use crate::merge::method::{Job, Kernel, Method, Param, Scope, TensorJob, Values};
use crate::merge::params::complete;
use crate::merge::{self};
use crate::merge::{per_tensor, pre};
use crate::recipe::{Part, Recipe, Setting, Settings};
use crate::suggest;

/// A method, its inner merge and its steps, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    /// Registry name.
    pub method: &'static str,
    /// The `on` merge.
    pub on: Option<Inner>,
    /// Steps on every task vector.
    pub pre: Vec<Step>,
    /// Steps on the merged vector.
    pub post: Vec<Step>,
}

/// The merge whose multi-task vector a method works on.
#[derive(Debug, Clone, PartialEq)]
pub struct Inner {
    /// Registry name.
    pub method: &'static str,
    /// Once-per-merge values.
    pub shared: Values,
    /// Per-expert values.
    pub each: Vec<Values>,
    /// Its own pre-steps.
    pub pre: Vec<Step>,
}

/// A step with its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Step name.
    pub name: &'static str,
    /// Values.
    pub values: Values,
}

fn method(name: &str) -> Result<&'static dyn Method> {
    merge::find(name).ok_or_else(|| MergeError::Internal(format!("no method `{name}`")))
}

impl Composition {
    /// A conversion: one input, no arithmetic.
    pub fn plain_copy() -> Self {
        Self {
            method: "linear",
            on: None,
            pre: Vec::new(),
            post: Vec::new(),
        }
    }

    /// The composition of a recipe for `experts` inputs.
    ///
    /// # Errors
    /// Unknown steps or parameters, an `on` where the method takes none, deeper nesting.
    pub fn from_recipe(
        recipe: &Recipe,
        outer: &'static dyn Method,
        experts: usize,
    ) -> Result<Self> {
        let spec = outer.spec();
        let on = match (&recipe.on, spec.on) {
            (None, None) => None,
            (Some(on), None) => {
                return Err(MergeError::plan(
                    "no-inner",
                    format!(
                        "method `{}` takes no `on`; `{}` has no place in it",
                        spec.name, on.name
                    ),
                ));
            }
            (Some(on), Some(_)) => Some(Inner::resolve(on, experts)?),
            (None, Some(default)) => Some(Inner::resolve(
                &Part {
                    name: default.to_owned(),
                    settings: Settings::default(),
                    pre: Vec::new(),
                },
                experts,
            )?),
        };
        if let Some(step) = recipe.pre.first().or(recipe.post.first())
            && !spec.deltas
        {
            return Err(MergeError::plan(
                "no-task-vector",
                format!(
                    "step `{}` acts on task vectors; merge method `{}` merges weights",
                    step.name, spec.name
                ),
            )
            .hint("`task_arithmetic` and its relatives work on task vectors"));
        }
        Ok(Self {
            method: spec.name,
            on,
            pre: steps(&recipe.pre, true)?,
            post: steps(&recipe.post, false)?,
        })
    }

    /// Values of a plain copy's job.
    pub fn plain_values() -> (Values, Values) {
        let (mut shared, mut each) = (Values::default(), Values::default());
        shared.set("normalize", Value::Bool(false));
        each.set("weight", Value::from(1.0));
        (shared, each)
    }

    fn post_list(&self) -> Vec<(&str, &Values)> {
        self.post.iter().map(|s| (s.name, &s.values)).collect()
    }

    /// Whole model or tensor by tensor.
    pub fn scope(&self) -> Scope {
        let model = |name: &str| merge::find(name).is_some_and(|m| m.spec().scope == Scope::Model);
        let inner = self
            .on
            .as_ref()
            .is_some_and(|i| model(i.method) || pre::pre_scope(&list(&i.pre)) == Scope::Model);
        if model(self.method)
            || inner
            || compose::post_scope(&self.post_list()) == Scope::Model
            || pre::pre_scope(&list(&self.pre)) == Scope::Model
        {
            Scope::Model
        } else {
            Scope::Tensor
        }
    }

    /// Whether whole matrices are held at once: by a decomposition, or by ranks along rows.
    pub fn whole_tensors(&self) -> bool {
        let spectral = |name: &str| {
            matches!(
                name,
                "iso_c" | "iso_cts" | "tsv_m" | "wudi" | "regmean" | "knots"
            )
        };
        let steps = |steps: &[Step]| steps.iter().any(|s| pre::whole_tensors(s.name, &s.values));
        spectral(self.method)
            || steps(&self.pre)
            || self
                .on
                .as_ref()
                .is_some_and(|i| spectral(i.method) || steps(&i.pre))
    }

    /// Whether inputs arrive as task vectors.
    pub fn deltas(&self) -> bool {
        merge::find(self.method).is_some_and(|m| m.spec().deltas)
    }

    /// Makes the kernel.
    ///
    /// # Errors
    /// The method refuses the job.
    pub fn build(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let mut job = job.clone();
        if let Some(inner) = &self.on {
            let inner = inner.clone();
            job.inner_maker = Some(Arc::new(move |outer: &Job| inner.build(outer)));
        }
        let kernel = per_tensor::kernel(method(self.method)?, &job)?;
        let inner =
            |i: &Inner| draws(i.method) || i.pre.iter().any(|s| pre::draws(s.name, &s.values));
        let drawing = draws(self.method) || self.on.as_ref().is_some_and(inner);
        let kernel = pre::wrap(kernel, &list(&self.pre), &job, drawing)?;
        PostKernel::wrap(kernel, &self.post_list(), &job)
    }
}

/// True for methods that draw from the seed.
fn draws(method: &str) -> bool {
    matches!(
        method,
        "dare_linear" | "dare_ties" | "della" | "della_linear"
    )
}

fn list(steps: &[Step]) -> Vec<(&str, &Values)> {
    steps.iter().map(|s| (s.name, &s.values)).collect()
}

impl Inner {
    fn resolve(part: &Part, experts: usize) -> Result<Self> {
        let method = merge::find(&part.name).ok_or_else(|| {
            MergeError::plan(
                "unknown-method",
                format!("`on` names the unknown method `{}`", part.name),
            )
        })?;
        let spec = method.spec();
        if spec.on.is_some() {
            return Err(MergeError::plan(
                "nesting",
                format!(
                    "`on` cannot be `{}`, which works on another merge itself",
                    spec.name
                ),
            ));
        }
        if !spec.deltas {
            return Err(MergeError::plan(
                "no-task-vector",
                format!(
                    "`on` cannot be `{}`: it yields weights, not a task vector",
                    spec.name
                ),
            ));
        }
        let given = plain(&part.settings)?;
        let (shared_params, each_params): (Vec<Param>, Vec<Param>) =
            spec.params.iter().partition(|p| !p.each);
        if let Some(unknown) = given
            .keys()
            .find(|k| !spec.params.iter().any(|p| p.name == *k))
        {
            return Err(merge::params::unknown_name(unknown, spec.params));
        }
        let pick = |params: &[Param], expert: Option<usize>| -> Result<Map<String, Value>> {
            let mut out = Map::new();
            for param in params {
                let Some(value) = given.get(param.name) else {
                    continue;
                };
                // A per-expert word holds for every expert, or is a list in expert order.
                let value = match (value, expert) {
                    (Value::Array(items), Some(i)) => {
                        if items.len() != experts {
                            return Err(MergeError::plan(
                                "list-length",
                                format!(
                                    "`{}` in `on` lists {} values for {experts} experts",
                                    param.name,
                                    items.len()
                                ),
                            ));
                        }
                        items[i].clone()
                    }
                    (value, _) => value.clone(),
                };
                out.insert(param.name.to_owned(), value);
            }
            Ok(out)
        };
        let shared = complete(&shared_params, &pick(&shared_params, None)?, false)?;
        let each = (0..experts)
            .map(|i| complete(&each_params, &pick(&each_params, Some(i))?, false))
            .collect::<Result<_>>()?;
        Ok(Self {
            method: spec.name,
            shared,
            each,
            pre: steps(&part.pre, true)?,
        })
    }

    fn build(&self, outer: &Job) -> Result<Box<dyn Kernel>> {
        let tensors = outer
            .tensors
            .iter()
            .map(|t| {
                Arc::new(TensorJob {
                    shared: self.shared.clone(),
                    each: self.each.clone(),
                    ..(**t).clone()
                })
            })
            .collect();
        let job = Job {
            tensors,
            inner_maker: None,
            ..outer.clone()
        };
        let kernel = per_tensor::kernel(method(self.method)?, &job)?;
        pre::wrap(kernel, &list(&self.pre), &job, draws(self.method))
    }
}

/// Settings that must be plain values.
fn plain(settings: &Settings) -> Result<Map<String, Value>> {
    settings
        .iter()
        .map(|(name, (setting, origin))| match setting {
            Setting::Value(value) => Ok((name.clone(), value.clone())),
            Setting::Gradient(items) => Ok((name.clone(), Value::Array(items.clone()))),
            Setting::Filters(_) => Err(MergeError::plan(
                "not-per-tensor",
                format!("`{name}` takes one value here, not a list of filters"),
            )
            .at(origin.text.clone())),
        })
        .collect()
}

fn steps(parts: &[Part], pre: bool) -> Result<Vec<Step>> {
    parts
        .iter()
        .map(|part| {
            let spec: &StepSpec = compose::step(&part.name, pre).ok_or_else(|| {
                let names: Vec<&str> = compose::STEPS
                    .iter()
                    .filter(|s| s.pre == pre)
                    .map(|s| s.name)
                    .collect();
                let which = if pre { "pre" } else { "post" };
                let error = MergeError::plan(
                    "unknown-step",
                    format!(
                        "unknown {which}-step `{}`; expected one of: {}",
                        part.name,
                        names.join(", ")
                    ),
                );
                match suggest::nearest(&part.name, &names, 1).first() {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error,
                }
            })?;
            let values = complete(spec.params, &plain(&part.settings)?, false)?;
            pre::check(spec.name, &values)?;
            Ok(Step {
                name: spec.name,
                values,
            })
        })
        .collect()
}
