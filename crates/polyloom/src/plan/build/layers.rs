//! Which tensors the output has: names, layers and stacks of slices.

use std::collections::BTreeSet;

use super::{Builder, Wanted};
use crate::error::MergeError;
use crate::plan::names;
use crate::recipe::{Module, Slice};

impl Builder {
    /// Plans all tensors; returns the source layer of each output layer if slices changed the depth.
    pub(super) fn tensors(&mut self) -> Option<Vec<usize>> {
        let modules = std::mem::take(&mut self.recipe.modules);
        let mut stacked = None;
        for module in &modules {
            let whole = module.slices.len() == 1 && self.covers_all(&module.slices[0], module);
            if whole {
                self.whole_slice(&module.slices[0], module);
            } else {
                stacked = self.slices(module).or(stacked);
            }
        }
        self.recipe.modules = modules;
        self.report_surplus();
        stacked
    }

    /// True if every source, and the base, takes all layers of its model.
    fn covers_all(&self, slice: &Slice, module: &Module) -> bool {
        self.ranges(slice)
            .into_iter()
            .all(|(model, layers)| match layers {
                None => true,
                Some((a, b)) => {
                    a == 0 && self.block_list(model, module).is_some_and(|l| l.count == b)
                }
            })
    }

    /// Models of a slice with their ranges of layers: the sources, then the base.
    fn ranges(&self, slice: &Slice) -> Vec<(usize, Option<(usize, usize)>)> {
        let base = self.base_of(slice).map(|b| (b, slice.base_layers));
        let sources = slice.sources.iter().map(|s| (s.model, s.layers));
        sources.chain(base).collect()
    }

    /// The block list of a model inside a module.
    fn block_list(&self, model: usize, module: &Module) -> Option<names::BlockList> {
        let blocks = &self.models[model].blocks;
        match &module.name {
            None => blocks.main().cloned(),
            Some(name) => blocks
                .lists()
                .iter()
                .find(|l| l.prefix.split('.').any(|p| p == name))
                .cloned(),
        }
    }

    fn in_module(name: &str, module: &Module) -> bool {
        module
            .name
            .as_ref()
            .is_none_or(|m| name.split('.').any(|p| p == m))
    }

    /// Names that a slice is about: the base's (or the first input's) first, then what only others have.
    fn whole_slice(&mut self, slice: &Slice, module: &Module) {
        let base = self.base_of(slice);
        let mut order: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for model in base
            .into_iter()
            .chain(slice.sources.iter().map(|s| s.model))
        {
            for name in self.models[model].tensors.keys() {
                if Self::in_module(name, module) && seen.insert(name.clone()) {
                    order.push(name.clone());
                }
            }
        }
        let reference = base
            .or_else(|| slice.sources.first().map(|s| s.model))
            .unwrap_or(0);
        for name in order {
            let layer = self.models[reference]
                .blocks
                .of(&name)
                .map(|(list, i)| (i, list.count));
            self.tensor(&Wanted {
                base_name: name.clone(),
                source_names: vec![name.clone(); slice.sources.len()],
                name,
                at: layer,
                layer,
                slice,
                module,
            });
        }
    }

    /// Layer stacking and per-range recipes.
    fn slices(&mut self, module: &Module) -> Option<Vec<usize>> {
        let mut total = 0;
        let mut sources_of_layers = Vec::new();
        for slice in &module.slices {
            let mut count = None;
            for (model, layers) in self.ranges(slice) {
                let list = self.block_list(model, module);
                let model = &self.models[model];
                let Some(list) = list else {
                    let message = format!(
                        "model `{}` has no list of layers to take a range from",
                        model.model.name
                    );
                    self.fail(MergeError::plan("no-layers", message));
                    return None;
                };
                let (a, b) = layers.unwrap_or((0, list.count));
                if a >= b || b > list.count {
                    let message = format!(
                        "layer_range [{a}, {b}) is not inside the {} layers of `{}`",
                        list.count, model.model.name
                    );
                    self.fail(MergeError::plan("bad-layer-range", message));
                    return None;
                }
                if *count.get_or_insert(b - a) != b - a {
                    self.fail(MergeError::plan(
                        "bad-layer-range",
                        format!(
                            "the sources of one slice span different numbers of layers ({} and {})",
                            count.unwrap_or(0),
                            b - a
                        ),
                    ));
                    return None;
                }
                if sources_of_layers.len() == total {
                    sources_of_layers.extend(a..b);
                }
            }
            total += count.unwrap_or(0);
        }
        let first = module.slices.first()?;
        let last = module.slices.last()?;
        let reference = self.ranges(first).first()?.0;
        let prefix = self.block_list(reference, module)?.prefix;
        let outside = |this: &Self, slice: &Slice, before: bool| -> Vec<String> {
            let mut seen = BTreeSet::new();
            slice
                .sources
                .iter()
                .map(|s| s.model)
                .chain(this.base_of(slice))
                .flat_map(|m| this.models[m].tensors.keys())
                .filter(|n| {
                    Self::in_module(n, module)
                        && !n
                            .strip_prefix(prefix.as_str())
                            .is_some_and(|r| r.starts_with('.'))
                        && names::before_layers(n) == before
                        && seen.insert((*n).clone())
                })
                .cloned()
                .collect()
        };
        for name in outside(self, first, true) {
            self.plain(name, first, module);
        }
        let mut out_layer = 0;
        for slice in &module.slices {
            let ranges: Vec<(usize, (usize, usize))> = self
                .ranges(slice)
                .into_iter()
                .map(|(model, layers)| {
                    let all = || (0, self.block_list(model, module).map_or(0, |l| l.count));
                    (model, layers.unwrap_or_else(all))
                })
                .collect();
            let count = ranges.first().map_or(0, |(_, (a, b))| b - a);
            for offset in 0..count {
                let mut suffixes: Vec<String> = Vec::new();
                for (model, (a, _)) in &ranges {
                    let here = format!(
                        "{}.{}.",
                        self.block_list(*model, module)
                            .map_or_else(String::new, |l| l.prefix),
                        a + offset
                    );
                    for name in self.models[*model].tensors.keys() {
                        if let Some(rest) = name.strip_prefix(&here)
                            && !suffixes.iter().any(|s| s == rest)
                        {
                            suffixes.push(rest.to_owned());
                        }
                    }
                }
                for suffix in suffixes {
                    let name_in = |this: &Self, model: usize, layer: usize| {
                        let prefix = this
                            .block_list(model, module)
                            .map_or_else(|| prefix.clone(), |l| l.prefix);
                        format!("{prefix}.{layer}.{suffix}")
                    };
                    let source_names = slice
                        .sources
                        .iter()
                        .zip(&ranges)
                        .map(|(s, (_, (a, _)))| name_in(self, s.model, a + offset))
                        .collect();
                    let base_name = self.base_of(slice).map_or_else(String::new, |b| {
                        name_in(self, b, slice.base_layers.map_or(0, |r| r.0) + offset)
                    });
                    self.tensor(&Wanted {
                        name: format!("{prefix}.{}.{suffix}", out_layer + offset),
                        base_name,
                        source_names,
                        at: Some((offset, count)),
                        layer: Some((out_layer + offset, total)),
                        slice,
                        module,
                    });
                }
            }
            out_layer += count;
        }
        for name in outside(self, last, false) {
            self.plain(name, last, module);
        }
        Some(sources_of_layers)
    }

    fn plain(&mut self, name: String, slice: &Slice, module: &Module) {
        self.tensor(&Wanted {
            base_name: name.clone(),
            source_names: vec![name.clone(); slice.sources.len()],
            name,
            at: None,
            layer: None,
            slice,
            module,
        });
    }
}
