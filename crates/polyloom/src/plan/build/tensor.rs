//! One output tensor: who has it, and what happens if somebody lacks it.

use std::collections::BTreeSet;
use std::sync::Arc;

use polyloom_core::DType;
use polyloom_core::writer::OutTensor;

use super::{Builder, Wanted};
use crate::merge::method::{Missing, TensorJob};
use crate::plan::composition::Composition;
use crate::plan::{Group, Head, How, Input, Member, Output, names};
use crate::recipe::{Heads, MissingPolicy, Slice};

impl Builder {
    /// A model's tensor by name, or through the embedding its head is tied to.
    pub(super) fn lookup(&self, model: usize, name: &str) -> Option<Input> {
        let opened = &self.models[model];
        let found = if opened.get(name).is_some() {
            Some(name.to_owned())
        } else {
            names::tied_to(name, |n| opened.get(n).is_some())
        };
        found.map(|name| Input {
            model,
            by_token: false,
            name,
        })
    }

    pub(super) fn tensor(&mut self, wanted: &Wanted) {
        let spec = self.method.spec();
        if self.recipe.heads == Heads::Separate && self.is_separate_head(&wanted.name, wanted.slice)
        {
            return;
        }
        let base_model = self.base_of(wanted.slice);
        let base = base_model.and_then(|b| self.lookup(b, &wanted.base_name));
        let mut inputs: Vec<Option<Input>> = wanted
            .slice
            .sources
            .iter()
            .zip(&wanted.source_names)
            .map(|(s, name)| self.lookup(s.model, name))
            .collect();
        // A head that exists only through ties is not written.
        let own = |i: &Option<Input>, name: &str| i.as_ref().is_some_and(|i| i.name == name);
        if names::tied_to(&wanted.name, |_| true).is_some()
            && !own(&base, &wanted.base_name)
            && !inputs
                .iter()
                .zip(&wanted.source_names)
                .any(|(i, n)| own(i, n))
        {
            return;
        }
        let have = inputs.iter().flatten().count();
        let lacking = have < inputs.len() || (base_model.is_some() && base.is_none());
        let mut chosen: Vec<usize> = (0..inputs.len()).collect();
        if lacking {
            match self.recipe.missing {
                MissingPolicy::Intersection => return,
                MissingPolicy::Union => {
                    if base_model.is_some() && base.is_none() {
                        // Without a base there is no task vector: the lone weights are kept.
                        return self.lone(wanted, inputs.iter().flatten().next().cloned());
                    }
                    chosen.retain(|i| inputs[*i].is_some());
                    if chosen.is_empty() {
                        return self.lone(wanted, base);
                    }
                }
                MissingPolicy::Base if base.is_some() => {}
                _ if names::is_optional(&wanted.name) => {
                    let all: Vec<&Input> = base.iter().chain(inputs.iter().flatten()).collect();
                    match spec.missing {
                        Missing::CopyLone if all.len() == 1 => {
                            return self.lone(wanted, Some(all[0].clone()));
                        }
                        Missing::CopyBase | Missing::CopyBaseOrSkip
                            if base.is_some() && have == 0 =>
                        {
                            return self.lone(wanted, base);
                        }
                        Missing::CopyBaseOrSkip => return,
                        _ => return self.missing(wanted, base_model, base.as_ref(), &inputs),
                    }
                }
                _ => return self.missing(wanted, base_model, base.as_ref(), &inputs),
            }
        }
        inputs = chosen.iter().map(|i| inputs[*i].take()).collect();
        let base = base.filter(|_| base_model.is_some());
        self.merged(wanted, base, inputs, &chosen);
    }

    /// True for tensors that `heads = "separate"` keeps out of the trunk.
    fn is_separate_head(&self, name: &str, slice: &Slice) -> bool {
        names::is_head(name)
            || self.base_of(slice).is_some_and(|b| {
                self.lookup(b, name).is_none()
                    && name.ends_with(".weight") | name.ends_with(".bias")
                    && !name.contains("layer")
            })
    }

    fn lone(&mut self, wanted: &Wanted, input: Option<Input>) {
        if let Some(input) = input
            && let Some(entry) = self.models[input.model].get(&input.name)
        {
            let (dtype, shape) = (entry.dtype, entry.shape.clone());
            let out = self.out_dtype(dtype);
            if out == dtype && !dtype.is_block() && self.is_stored(&input) {
                let tensor = OutTensor {
                    name: wanted.name.clone(),
                    dtype,
                    shape,
                };
                self.outputs.push(Output {
                    tensor,
                    how: How::Copy(input),
                });
            } else {
                self.group_of_one(wanted, input, out, shape);
            }
        }
    }

    pub(super) fn is_stored(&self, input: &Input) -> bool {
        let opened = &self.models[input.model];
        opened
            .get(&input.name)
            .is_some_and(|e| opened.weights.is_stored(&e.stored))
    }

    /// A converted copy: a one-input average.
    fn group_of_one(&mut self, wanted: &Wanted, input: Input, dtype: DType, shape: Vec<usize>) {
        let model = input.model;
        let tensor = OutTensor {
            name: wanted.name.clone(),
            dtype,
            shape: shape.clone(),
        };
        let (shared, each) = Composition::plain_values();
        let job = TensorJob {
            name: wanted.name.clone(),
            shape,
            shared,
            each: vec![each],
            layer: wanted.layer,
            before: 0,
        };
        let composition = Composition::plain_copy();
        let group = self.group(vec![model], None, composition);
        self.push(group, tensor, job, None, vec![Some(input)]);
    }

    /// Finds or makes the group for these inputs.
    pub(super) fn group(
        &mut self,
        experts: Vec<usize>,
        base: Option<usize>,
        composition: Composition,
    ) -> usize {
        let found = self
            .groups
            .iter()
            .position(|g| g.experts == experts && g.base == base && g.composition == composition);
        found.unwrap_or_else(|| {
            self.groups.push(Group {
                experts,
                base,
                members: Vec::new(),
                composition,
                statistics: None,
            });
            self.groups.len() - 1
        })
    }

    pub(super) fn push(
        &mut self,
        group: usize,
        tensor: OutTensor,
        job: TensorJob,
        base: Option<Input>,
        inputs: Vec<Option<Input>>,
    ) {
        let member = self.groups[group].members.len();
        let output = self.outputs.len();
        self.outputs.push(Output {
            tensor,
            how: How::Merge(group, member),
        });
        self.groups[group].members.push(Member {
            output,
            job: Arc::new(job),
            base,
            inputs,
        });
    }

    /// Heads kept apart, one file per task.
    pub(super) fn heads(&mut self) -> Vec<Head> {
        if self.recipe.heads != Heads::Separate {
            return Vec::new();
        }
        let slice = self.recipe.modules[0].slices[0].clone();
        let mut heads = Vec::new();
        for source in &slice.sources {
            let opened = &self.models[source.model];
            let names: Vec<String> = opened
                .tensors
                .keys()
                .filter(|n| self.is_separate_head(n, &slice))
                .cloned()
                .collect();
            if names.is_empty() {
                continue;
            }
            let task = opened
                .model
                .task
                .clone()
                .unwrap_or_else(|| opened.model.name.clone());
            let modules: BTreeSet<&str> = names
                .iter()
                .filter_map(|n| n.rsplit_once('.').map(|(m, _)| m))
                .collect();
            // One layer is stored as weight and bias, more as 0.weight, 2.weight ... in file order.
            let tensors = names
                .iter()
                .map(|n| {
                    let (module, leaf) = n.rsplit_once('.').unwrap_or(("", n));
                    let file_name = if modules.len() == 1 {
                        leaf.to_owned()
                    } else {
                        let index = modules.iter().position(|m| *m == module).unwrap_or(0) * 2;
                        format!("{index}.{leaf}")
                    };
                    (file_name, n.clone())
                })
                .collect();
            heads.push(Head {
                task,
                model: source.model,
                tensors,
            });
        }
        heads
    }
}
