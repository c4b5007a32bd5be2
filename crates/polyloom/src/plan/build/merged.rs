//! A merged tensor: shape, types and the values of every parameter.

use polyloom_core::DType;
use polyloom_core::writer::OutTensor;

use super::{Builder, Wanted, is_vocab};
use crate::error::MergeError;
use crate::merge::method::{Param, TensorJob};
use crate::plan::composition::Composition;
use crate::plan::settings::values;
use crate::plan::{How, Input, Output};
use crate::recipe::Settings;

impl Builder {
    pub(super) fn merged(
        &mut self,
        wanted: &Wanted,
        mut base: Option<Input>,
        mut inputs: Vec<Option<Input>>,
        chosen: &[usize],
    ) {
        let spec = self.method.spec();
        let entries: Vec<(Input, DType, Vec<usize>)> = base
            .iter()
            .chain(inputs.iter().flatten())
            .filter_map(|i| {
                self.models[i.model]
                    .get(&i.name)
                    .map(|e| (i.clone(), e.dtype, e.shape.clone()))
            })
            .collect();
        let Some((first, first_type, first_shape)) = entries.first().cloned() else {
            return;
        };
        let mut shape = first_shape.clone();
        let is_vocab = is_vocab(&wanted.name, &first_shape);
        if is_vocab && let Some(plan) = &self.vocabulary {
            shape[0] = plan.padded_size;
            for input in base.iter_mut().chain(inputs.iter_mut().flatten()) {
                input.by_token = true;
            }
        }
        for (input, dtype, found) in &entries {
            let fits = if is_vocab && (self.vocabulary.is_some() || self.truncated.is_some()) {
                found.len() == first_shape.len() && found.get(1..) == first_shape.get(1..)
            } else {
                *found == first_shape
            };
            if !fits {
                return self.wrong_shape(wanted, &first, &first_shape, input, found);
            }
            if dtype.is_float() != first_type.is_float() {
                let file = self.models[input.model].file_of(&input.name);
                self.fail(
                    MergeError::plan(
                        "type-mismatch",
                        format!(
                            "tensor `{}` is {dtype}, but {first_type} in {}",
                            wanted.name,
                            self.models[first.model].file_of(&first.name)
                        ),
                    )
                    .at(file),
                );
                return;
            }
        }
        if is_vocab
            && self.vocabulary.is_none()
            && let Some(rows) = self.truncated
        {
            shape[0] = rows;
        }
        let promoted = entries
            .iter()
            .map(|e| e.1)
            .reduce(promote)
            .unwrap_or(first_type);
        if !first_type.is_float() || first_shape.contains(&0) {
            let inputs = entries.into_iter().map(|e| e.0).collect();
            let tensor = OutTensor {
                name: wanted.name.clone(),
                dtype: first_type,
                shape,
            };
            self.outputs.push(Output {
                tensor,
                how: How::Equal(inputs),
            });
            return;
        }
        let dtype = self.out_dtype(promoted);
        let (slice, module) = (wanted.slice, wanted.module);
        let t = wanted.at.map_or(0.0, |(i, n)| {
            if n <= 1 {
                1.0
            } else {
                i as f64 / (n - 1) as f64
            }
        });
        let outer: [&Settings; 3] = [&slice.settings, &module.settings, &self.recipe.settings];
        let pick = |each: bool| -> Vec<Param> {
            spec.params
                .iter()
                .filter(|p| p.each == each)
                .copied()
                .collect()
        };
        let shared = match values(&pick(false), &outer, &wanted.name, t, &self.recipe, None) {
            Ok(values) => values,
            Err(error) => return self.fail_once(error),
        };
        let each_params = pick(true);
        let mut each = Vec::new();
        for &i in chosen {
            let source = &slice.sources[i];
            let scopes: [&Settings; 4] = [&source.settings, outer[0], outer[1], outer[2]];
            let name = self.models[source.model].model.name.clone();
            match values(
                &each_params,
                &scopes,
                &wanted.source_names[i],
                t,
                &self.recipe,
                Some(&name),
            ) {
                Ok(values) => each.push(values),
                Err(error) => return self.fail_once(error),
            }
        }
        if spec.name == "passthrough"
            && each.iter().all(|v| v.maybe("scale").is_none())
            && shared.maybe("scale").is_none()
            && dtype == promoted
            && let Some(Some(input)) = inputs.first()
            && !input.by_token
            && self.truncated.is_none()
            && self.is_stored(input)
        {
            let tensor = OutTensor {
                name: wanted.name.clone(),
                dtype,
                shape,
            };
            self.outputs.push(Output {
                tensor,
                how: How::Copy(input.clone()),
            });
            return;
        }
        if promoted == DType::F64 || self.recipe.dtype == Some(DType::F64) {
            self.note(
                true,
                format!("float64 is merged in f32: results have about 7 digits, though {dtype} is written"),
            );
        }
        let experts: Vec<usize> = chosen.iter().map(|i| slice.sources[*i].model).collect();
        let composition = match Composition::from_recipe(&self.recipe, self.method, experts.len()) {
            Ok(composition) => composition,
            Err(error) => return self.fail_once(error),
        };
        let tensor = OutTensor {
            name: wanted.name.clone(),
            dtype,
            shape: shape.clone(),
        };
        let job = TensorJob {
            name: wanted.name.clone(),
            shape,
            shared,
            each,
            layer: wanted.layer,
            before: 0,
        };
        let base_model = base.as_ref().map(|b| b.model);
        let group = self.group(experts, base_model, composition);
        self.push(group, tensor, job, base, inputs);
    }

    pub(super) fn out_dtype(&self, promoted: DType) -> DType {
        let natural = match promoted {
            DType::F8E4M3 | DType::F8E5M2 => DType::BF16,
            d if d.is_block() => DType::F16,
            d => d,
        };
        if promoted.is_float() {
            self.recipe
                .out_dtype
                .or(self.recipe.dtype)
                .unwrap_or(natural)
        } else {
            promoted
        }
    }
}

/// The type both can be stored in without loss of range.
fn promote(a: DType, b: DType) -> DType {
    use DType::{BF16, F16, F32, F64};
    let rank = |d: DType| match d {
        F64 => 4,
        F32 => 3,
        F16 | BF16 => 2,
        d if d.is_block() => 1,
        _ => 0,
    };
    match (a, b) {
        (a, b) if a == b => a,
        (F16, BF16) | (BF16, F16) => F32,
        _ if rank(a) >= rank(b) => a,
        _ => b,
    }
}
