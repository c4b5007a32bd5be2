//! What a network computes, seen by running it: the graph of values that a pass leaves for the way back is the network.
//!
//! So no architecture is written down a second time. The network runs over two batches, of [`FEW`] and of [`MORE`] rows, with
//! other codes in each: a length that differs is a multiple of the rows, numbers that differ are codes of words, and whatever
//! else differs would depend on the rows in a way that a graph for any number of rows cannot say, and is refused.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::refused;
use crate::engine::{Meaning, Op, Value, slice, tensor};
use crate::error::{In, Result};
use crate::models::Source;
use crate::models::table::{TableBatch, TableModel};

/// Rows of the two batches.
pub(super) const FEW: usize = 2;
pub(super) const MORE: usize = 3;

/// A length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// The same for any number of rows.
    Fixed(usize),
    /// So many times the rows.
    Rows(usize),
}

impl Length {
    /// Of what it is for both batches.
    pub fn of(few: usize, more: usize) -> Option<Self> {
        match few {
            _ if few == more => Some(Self::Fixed(few)),
            _ if few.is_multiple_of(FEW) && few / FEW * MORE == more => Some(Self::Rows(few / FEW)),
            _ => None,
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum From {
    /// The numbers of the rows.
    Numbers,
    /// A tensor of the model, by its name; without one a constant of the architecture, which may repeat by row.
    Tensor(String),
    /// An operation.
    Made,
}

/// A value of the network, of both batches.
pub(super) struct Step {
    /// Of the few rows.
    pub value: Value,
    /// Of the more rows.
    pub other: Value,
    /// Where it comes from.
    pub from: From,
    /// What it was made of: numbers of earlier steps.
    pub inputs: Vec<usize>,
    /// Its lengths.
    pub dims: Vec<Length>,
}

impl Step {
    /// What made it.
    ///
    /// # Errors
    /// An operation that is not written down, one that does something else with other rows.
    pub fn meaning(&self) -> Result<(Meaning<'_>, Meaning<'_>)> {
        let [Some((few, _)), Some((more, _))] = [self.value.origin(), self.other.origin()] else {
            return Err(odd("a value without an origin").into());
        };
        match (few.meaning(), more.meaning()) {
            (Some(few), Some(more)) => Ok((few, more)),
            _ => Err(odd(format!("the operation `{}`", few.name())).into()),
        }
    }
}

/// Something that cannot be written.
pub(super) fn odd(what: impl std::fmt::Display) -> polyloom::MergeError {
    refused(format!(
        "its network has {what}, which has no form in ONNX here"
    ))
}

/// All values that the features of the goals are made of, earlier ones first.
pub(super) struct Trace {
    pub steps: Vec<Step>,
    /// The step of each goal's feature.
    pub goals: Vec<usize>,
    /// Codes that fields of words have in the one batch and in the other, by their rows in the table of all.
    pub codes: [Vec<u32>; 2],
}

/// Weights as leaves, so that a graph is kept.
struct Named<'a> {
    source: &'a dyn Source,
    found: RefCell<HashMap<String, Value>>,
}

impl Source for Named<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        if let Some(found) = self.found.borrow().get(name) {
            return Ok(Some(found.clone()));
        }
        let found = self.source.find(name)?;
        let leaf = found.map(|value| Value::leaf(value.data().clone()));
        if let Some(leaf) = &leaf {
            self.found
                .borrow_mut()
                .insert(name.to_owned(), leaf.clone());
        }
        Ok(leaf)
    }
}

/// Runs a network over both batches.
///
/// # Errors
/// Tensors that are absent or of another shape; what does not hold for any number of rows.
pub(super) fn trace(model: &TableModel, weights: &dyn Source) -> Result<Trace> {
    let mut names: HashMap<u64, From> = HashMap::new();
    let mut pass = |rows, code: fn(usize) -> usize| -> Result<Vec<Value>> {
        // Leaves of its own for each pass: they are numbered as they are asked for, in the same order in both.
        let named = Named {
            source: weights,
            found: RefCell::default(),
        };
        let (batch, numbers) = batch(model, rows, code)?;
        names.insert(numbers, From::Numbers);
        let outputs = model.forward(&named, &batch, 0..model.config.goals.len())?;
        let found = named.found.into_inner().into_iter();
        names.extend(found.map(|(name, value)| (value.id(), From::Tensor(name))));
        Ok(outputs)
    };
    let outputs = [pass(FEW, |_| 0)?, pass(MORE, |codes| codes - 1)?];
    let all = outputs.each_ref().map(|values| reached(values));
    if all[0].len() != all[1].len() {
        return Err(odd("parts that come and go with the number of rows").into());
    }
    let places = all.each_ref().map(|values| {
        let ids = values.iter().enumerate();
        ids.map(|(i, v)| (v.id(), i))
            .collect::<HashMap<u64, usize>>()
    });
    let [few, more] = &all;
    let pairs = few.iter().zip(more);
    let steps = pairs.map(|(few, more)| step([few, more], &names, &places));
    let steps = steps.collect::<Result<Vec<Step>>>()?;
    let goals = outputs[0]
        .iter()
        .filter_map(|v| places[0].get(&v.id()).copied());
    let table = model.first_rows();
    let last = table.iter().zip(&model.config.categories);
    Ok(Trace {
        goals: goals.collect(),
        codes: [
            table.to_vec(),
            last.map(|(first, codes)| first + *codes as u32 - 1)
                .collect(),
        ],
        steps,
    })
}

/// Rows with the code that each field has, and the number by which their numbers are known.
fn batch(
    model: &TableModel,
    rows: usize,
    code: impl Fn(usize) -> usize,
) -> Result<(TableBatch, u64)> {
    let c = &model.config;
    let numbers = Value::leaf(tensor(vec![0.0; rows * c.numeric], (rows, c.numeric))?);
    let id = numbers.id();
    let codes: Vec<u32> = c
        .categories
        .iter()
        .map(|codes| code(*codes) as u32)
        .collect();
    let batch = TableBatch {
        rows,
        numbers,
        codes: codes.repeat(rows),
        before: Vec::new(),
    };
    Ok((batch, id))
}

/// All values that some are made of, and these, in the order in which they were made.
fn reached(values: &[Value]) -> Vec<Value> {
    let mut open = values.to_vec();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    while let Some(value) = open.pop() {
        if seen.insert(value.id()) {
            let inputs = value.origin().map(|(_, inputs)| inputs);
            open.extend(inputs.into_iter().flatten().cloned());
            found.push(value);
        }
    }
    found.sort_by_key(Value::id);
    found
}

/// A value of both passes.
fn step(
    [few, more]: [&Value; 2],
    names: &HashMap<u64, From>,
    places: &[HashMap<u64, usize>; 2],
) -> Result<Step> {
    let apart = || odd("parts that come and go with the number of rows");
    let made = |v: &Value| v.origin().map(|(op, _)| Op::name(op));
    let name = |v: &Value| names.get(&v.id());
    if made(few) != made(more) || name(few) != name(more) {
        return Err(apart().into());
    }
    let inputs = |v: &Value, places: &HashMap<u64, usize>| -> Vec<usize> {
        let inputs = v.origin().map(|(_, inputs)| inputs).into_iter().flatten();
        inputs
            .filter_map(|v| places.get(&v.id()).copied())
            .collect()
    };
    let own = inputs(few, &places[0]);
    if own != inputs(more, &places[1]) || few.dims().len() != more.dims().len() {
        return Err(apart().into());
    }
    let dims = few.dims().iter().zip(more.dims());
    let dims: Option<Vec<Length>> = dims.map(|(a, b)| Length::of(*a, *b)).collect();
    let dims = dims.ok_or_else(|| odd("lengths that are no multiple of the rows"))?;
    Ok(Step {
        from: match (made(few), name(few)) {
            (Some(_), _) => From::Made,
            (None, Some(name)) => name.clone(),
            (None, None) => From::Tensor(String::new()),
        },
        value: few.clone(),
        other: more.clone(),
        inputs: own,
        dims,
    })
}

impl Step {
    /// A constant as it is for one row, or as it is for any number of rows.
    ///
    /// # Errors
    /// Numbers that are others in other rows.
    pub fn constant(&self) -> Result<crate::engine::Tensor> {
        let (few, more) = (self.value.data(), self.other.data());
        let flat = |t: &crate::engine::Tensor| -> Result<Vec<f32>> {
            Ok(slice(&t.contiguous().during("export")?)?.to_vec())
        };
        let (a, b) = (flat(few)?, flat(more)?);
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let Some(Length::Rows(each)) = self.dims.first() else {
            return match a.len() == b.len() && same(&a, &b) {
                true => Ok(few.clone()),
                false => Err(odd("a constant that depends on the rows").into()),
            };
        };
        let one = &a[..a.len() / FEW];
        let repeats =
            |all: &[f32]| one.is_empty() || all.chunks(one.len()).all(|part| same(part, one));
        if !repeats(&a)
            || !repeats(&b)
            || self.dims[1..].iter().any(|d| matches!(d, Length::Rows(_)))
        {
            return Err(odd("a constant that depends on the rows").into());
        }
        let mut dims = few.dims().to_vec();
        dims[0] = *each;
        tensor(one.to_vec(), dims)
    }
}
