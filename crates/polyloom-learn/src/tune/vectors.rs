//! Task vectors that stay where they lie: experts are read a chunk at a time, for merged weights and for the gradients of
//! their coefficients.

use std::collections::HashMap;

use polyloom::MergeError;
use polyloom::plan::weights::Opened as Stored;
use polyloom_core::checkpoint::Scratch;
use polyloom_core::nn::elementwise::inner;
use polyloom_core::rng::Stream;
use rayon::prelude::*;

use super::recipe::Per;
use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::Source;

/// Elements that a thread works on at once.
const CHUNK: usize = 1 << 16;

/// Where an expert's tensors are.
pub enum Expert {
    /// In files.
    Stored(Box<Stored>),
    /// In memory.
    Held(String, HashMap<String, Tensor>),
}

impl Expert {
    fn name(&self) -> String {
        match self {
            Self::Stored(opened) => opened.path.display().to_string(),
            Self::Held(name, _) => name.clone(),
        }
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Stored(opened) => opened.get(name).map(|e| e.shape.clone()),
            Self::Held(_, tensors) => tensors.get(name).map(|t| t.dims().to_vec()),
        }
    }

    fn read(&self, name: &str, start: usize, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        match self {
            Self::Stored(opened) => {
                opened.read(name, start, out, scratch)?;
            }
            Self::Held(_, tensors) => {
                let missing = || Error::Missing {
                    name: name.to_owned(),
                };
                let values = slice(tensors.get(name).ok_or_else(missing)?)?;
                out.copy_from_slice(&values[start..start + out.len()]);
            }
        }
        Ok(())
    }
}

struct Place {
    name: String,
    base: Tensor,
    /// Where it begins among all numbers, one tensor after the other.
    at: usize,
}

#[derive(Clone, Copy)]
struct Chunk {
    place: usize,
    start: usize,
    len: usize,
}

/// What a thread holds: the task vectors of a chunk, a row per expert.
#[derive(Default)]
struct Work {
    rows: Vec<Vec<f32>>,
    scratch: Scratch,
}

/// What of the task vectors counts.
struct Selection {
    /// The smallest magnitude of each expert that stays.
    cuts: Vec<f32>,
    /// The sign of most elements: -1, 0 or 1.
    majority: f32,
}

impl Selection {
    fn trim(&self, rows: &mut [Vec<f32>]) {
        for (row, cut) in rows.iter_mut().zip(&self.cuts) {
            row.iter_mut()
                .filter(|x| x.abs() < *cut)
                .for_each(|x| *x = 0.0);
        }
    }

    fn agree(&self, rows: &mut [Vec<f32>]) {
        for i in 0..rows.first().map_or(0, Vec::len) {
            let elected = match sign(rows.iter().map(|r| r[i]).sum()) {
                0.0 => self.majority,
                sign => sign,
            };
            // A sign that stays 0 selects negative entries, as in the released code.
            let fits = |x: f32| if elected > 0.0 { x > 0.0 } else { x < 0.0 };
            rows.iter_mut()
                .filter(|r| !fits(r[i]))
                .for_each(|r| r[i] = 0.0);
        }
    }
}

fn sign(x: f32) -> f32 {
    match x {
        x if x > 0.0 => 1.0,
        x if x < 0.0 => -1.0,
        _ => 0.0,
    }
}

/// What experts changed in a base.
pub struct Vectors {
    experts: Vec<Expert>,
    places: Vec<Place>,
    chunks: Vec<Chunk>,
    per: Per,
    groups: usize,
    seed: u64,
    selection: Option<Selection>,
    factors: Option<Vec<f32>>,
}

impl Vectors {
    /// Of the tensors `names` of a base, in this order. With `groups` above 1 the numbers of a tensor fall into that many
    /// groups at random (aTLAS x K).
    ///
    /// # Errors
    /// A tensor that the base or an expert lacks, or that an expert has in another shape.
    pub fn new(
        base: &dyn Source,
        names: &[String],
        experts: Vec<Expert>,
        (per, groups): (Per, usize),
        seed: u64,
    ) -> Result<Self> {
        let (mut places, mut chunks, mut at) = (Vec::new(), Vec::new(), 0);
        for name in names {
            let tensor = base.tensor(name)?.data().clone();
            for expert in &experts {
                let problem = match expert.shape(name) {
                    None => "does not hold it".to_owned(),
                    Some(shape) if shape != tensor.dims() => {
                        format!("holds it as {shape:?}, the base as {:?}", tensor.dims())
                    }
                    Some(_) => continue,
                };
                let error = MergeError::plan(
                    "experts-differ",
                    format!("tensor `{name}`: the expert {problem}"),
                );
                let hint = "experts must be tuned from this base; `strip_prefix` of an expert renames its tensors";
                return Err(error.at(expert.name()).hint(hint).into());
            }
            let n = tensor.elem_count();
            chunks.extend((0..n).step_by(CHUNK).map(|start| Chunk {
                place: places.len(),
                start,
                len: CHUNK.min(n - start),
            }));
            places.push(Place {
                name: name.clone(),
                base: tensor.contiguous().map_err(|source| Error::Tensor {
                    op: "task vector",
                    source,
                })?,
                at,
            });
            at += n;
        }
        Ok(Self {
            experts,
            places,
            chunks,
            per,
            groups,
            seed,
            selection: None,
            factors: None,
        })
    }

    /// Experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts.len()
    }

    /// Rows of coefficients.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self.per {
            Per::Task => 1,
            Per::Tensor => self.places.len() * self.groups,
        }
    }

    /// Names of the tensors that rows are for, in their order; empty where one row is for all.
    #[must_use]
    pub fn tensors(&self) -> Vec<&str> {
        match self.per {
            Per::Task => Vec::new(),
            Per::Tensor => self.places.iter().map(|p| &*p.name).collect(),
        }
    }

    /// Lengths of the tensors, in their order.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.places.iter().map(|p| p.base.elem_count()).collect()
    }

    /// The base's numbers, tensor after tensor.
    ///
    /// # Errors
    /// Never in practice: tensors in memory.
    pub fn base(&self) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for place in &self.places {
            all.extend_from_slice(&slice(&place.base)?);
        }
        Ok(all)
    }

    /// The same with every number of the task vectors times a factor (a mask), tensor after tensor.
    ///
    /// # Panics
    /// If there are not as many factors as numbers.
    #[must_use]
    pub fn masked(mut self, factors: Vec<f32>) -> Self {
        assert_eq!(
            factors.len(),
            self.lengths().iter().sum::<usize>(),
            "factors"
        );
        self.factors = Some(factors);
        self
    }

    /// The first row of a tensor's coefficients.
    fn row(&self, place: usize) -> usize {
        match self.per {
            Per::Task => 0,
            Per::Tensor => place * self.groups,
        }
    }

    /// The same with task vectors of which only what TIES selects counts (AdaMerging++): the largest magnitudes, `density`
    /// of each vector, and of these the entries of the sign that the sum of all vectors has (where that is 0, of the sign
    /// that most elements have), as `merge`'s `ties_reference` selects them.
    ///
    /// Cost: three readings of the experts, and once the numbers of one expert in memory.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn selected(mut self, density: f64) -> Result<Self> {
        let d = self.chunks.iter().map(|c| c.len).sum::<usize>();
        let rank = d - (d as f64 * density) as usize;
        let mut cuts = Vec::with_capacity(self.experts());
        for expert in 0..self.experts() {
            if rank == 0 {
                cuts.push(0.0);
                continue;
            }
            let mut all: Vec<f32> = Vec::with_capacity(d);
            let mut work = Work::default();
            for chunk in &self.chunks {
                let own = std::slice::from_ref(&self.experts[expert]);
                self.read(*chunk, own, &mut work)?;
                all.extend(work.rows[0].iter().map(|x| x.abs()));
            }
            cuts.push(*all.select_nth_unstable_by(rank - 1, f32::total_cmp).1);
        }
        let mut selection = Selection {
            cuts,
            majority: 0.0,
        };
        let signs: Result<Vec<i64>> = self
            .chunks
            .par_iter()
            .map_init(Work::default, |work, chunk| {
                self.read(*chunk, &self.experts, work)?;
                selection.trim(&mut work.rows);
                let n = chunk.len;
                Ok((0..n)
                    .map(|i| sign(work.rows.iter().map(|r| r[i]).sum()) as i64)
                    .sum())
            })
            .collect();
        selection.majority = signs?.iter().sum::<i64>().signum() as f32;
        self.selection = Some(selection);
        Ok(self)
    }

    /// What each expert changed in a tensor, all of it (by its place among the names).
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn differences(&self, place: usize) -> Result<Vec<Tensor>> {
        let place = &self.places[place];
        let base = slice(&place.base)?;
        let one = |expert: &Expert| {
            let mut values = vec![0f32; base.len()];
            expert.read(&place.name, 0, &mut values, &mut Scratch::default())?;
            values.iter_mut().zip(&*base).for_each(|(x, b)| *x -= b);
            tensor(values, place.base.dims())
        };
        self.experts.iter().map(one).collect()
    }

    /// What experts changed in a chunk, into `work`.
    fn read(&self, chunk: Chunk, experts: &[Expert], work: &mut Work) -> Result<()> {
        let place = &self.places[chunk.place];
        let base = slice(&place.base)?;
        let base = &base[chunk.start..chunk.start + chunk.len];
        work.rows.resize(experts.len(), Vec::new());
        for (expert, row) in experts.iter().zip(&mut work.rows) {
            row.resize(chunk.len, 0.0);
            expert.read(&place.name, chunk.start, row, &mut work.scratch)?;
            row.iter_mut().zip(base).for_each(|(x, b)| *x -= b);
        }
        Ok(())
    }

    /// The task vectors of a chunk as they count, into `work`.
    fn vectors(&self, chunk: Chunk, work: &mut Work) -> Result<()> {
        self.read(chunk, &self.experts, work)?;
        if let Some(selection) = &self.selection {
            selection.trim(&mut work.rows);
            selection.agree(&mut work.rows);
        }
        if let Some(factors) = &self.factors {
            let at = self.places[chunk.place].at + chunk.start;
            let factors = &factors[at..at + chunk.len];
            for row in &mut work.rows {
                row.iter_mut().zip(factors).for_each(|(x, f)| *x *= f);
            }
        }
        Ok(())
    }

    /// Writes the merged weights `base + sum_t c[row, t] (expert_t - base)`, tensor after tensor.
    ///
    /// # Errors
    /// Files that cannot be read any more.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn merge(&self, coefficients: &[f32], out: &mut [f32]) -> Result<()> {
        let width = self.experts();
        assert_eq!(coefficients.len(), self.rows() * width, "coefficients");
        let (mut rest, mut parts) = (out, Vec::with_capacity(self.chunks.len()));
        for chunk in &self.chunks {
            let (part, more) = rest.split_at_mut(chunk.len);
            parts.push((*chunk, part));
            rest = more;
        }
        assert!(rest.is_empty(), "length of the merged weights");
        parts
            .into_par_iter()
            .try_for_each_init(Work::default, |work, (chunk, out)| {
                self.vectors(chunk, work)?;
                let base = slice(&self.places[chunk.place].base)?;
                out.copy_from_slice(&base[chunk.start..chunk.start + chunk.len]);
                let groups = self.group(chunk);
                let first = self.row(chunk.place);
                for (e, row) in work.rows.iter().enumerate() {
                    let of = |group: usize| coefficients[(first + group) * width + e];
                    match &groups {
                        None => {
                            let c = of(0);
                            out.iter_mut().zip(row).for_each(|(o, x)| *o += c * x);
                        }
                        Some(groups) => {
                            let c: Vec<f32> = (0..self.groups).map(of).collect();
                            for ((o, x), g) in out.iter_mut().zip(row).zip(groups) {
                                *o += c[*g as usize] * x;
                            }
                        }
                    }
                }
                Ok(())
            })
    }

    /// Gradients of the coefficients from those of the merged weights: inner products with the task vectors, summed in the
    /// order of the chunks.
    ///
    /// # Errors
    /// Files that cannot be read any more.
    pub fn gradients(&self, of_weights: &[f32]) -> Result<Vec<f32>> {
        let width = self.experts();
        let of_chunk = |work: &mut Work, chunk: &Chunk| -> Result<Vec<f64>> {
            self.vectors(*chunk, work)?;
            let at = self.places[chunk.place].at + chunk.start;
            let g = &of_weights[at..at + chunk.len];
            let groups = self.group(*chunk);
            let mut found = vec![0f64; self.groups * width];
            for (e, row) in work.rows.iter().enumerate() {
                match &groups {
                    None => found[e] = inner(g, row),
                    Some(groups) => {
                        for ((g, x), group) in g.iter().zip(row).zip(groups) {
                            found[*group as usize * width + e] += f64::from(g * x);
                        }
                    }
                }
            }
            Ok(found)
        };
        let parts: Result<Vec<Vec<f64>>> = self
            .chunks
            .par_iter()
            .map_init(Work::default, of_chunk)
            .collect();
        let mut total = vec![0f64; self.rows() * width];
        for (chunk, part) in self.chunks.iter().zip(parts?) {
            let of_row = total[self.row(chunk.place) * width..].iter_mut();
            of_row.zip(part).for_each(|(to, x)| *to += x);
        }
        Ok(total.into_iter().map(|x| x as f32).collect())
    }

    /// The group of every number of a chunk; `None` for one group.
    fn group(&self, chunk: Chunk) -> Option<Vec<u32>> {
        if self.groups == 1 {
            return None;
        }
        let stream = Stream::new(self.seed, &self.places[chunk.place].name, 0);
        let of = |i: usize| (stream.bits((chunk.start + i) as u64) % self.groups as u64) as u32;
        Some((0..chunk.len).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tensor;
    use crate::models::Plain;

    fn held(values: &[(&str, Vec<f32>)]) -> HashMap<String, Tensor> {
        let one =
            |(n, v): &(&str, Vec<f32>)| ((*n).to_owned(), tensor(v.clone(), v.len()).unwrap());
        values.iter().map(one).collect()
    }

    fn two(per: Per, groups: usize) -> Vectors {
        let base = Plain::new(held(&[("a", vec![1.0, 2.0]), ("b", vec![0.5; 3])]));
        let experts = [
            held(&[("a", vec![2.0, 2.0]), ("b", vec![0.5, 1.5, 0.5])]),
            held(&[("a", vec![1.0, 0.0]), ("b", vec![3.5, 0.5, 0.5])]),
        ];
        let experts = experts.map(|e| Expert::Held("e".into(), e)).into();
        let names = ["a".to_owned(), "b".to_owned()];
        Vectors::new(&base, &names, experts, (per, groups), 7).unwrap()
    }

    #[test]
    fn merged_weights_and_gradients_by_hand() {
        let v = two(Per::Tensor, 1);
        assert_eq!((v.rows(), v.tensors()), (2, vec!["a", "b"]));
        let mut out = [0.0; 5];
        v.merge(&[0.5, 1.0, 2.0, -1.0], &mut out).unwrap();
        assert_eq!(out, [1.5, 0.0, -2.5, 2.5, 0.5]);
        let g = v.gradients(&[1.0, 10.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(g, [1.0, -20.0, 3.0, 6.0]);
        let v = two(Per::Task, 1);
        v.merge(&[0.5, 1.0], &mut out).unwrap();
        assert_eq!(out, [1.5, 0.0, 3.5, 1.0, 0.5]);
        assert_eq!(
            v.gradients(&[1.0, 10.0, 2.0, 3.0, 4.0]).unwrap(),
            [4.0, -14.0]
        );
    }

    #[test]
    fn groups_split_a_tensor_and_equal_coefficients_are_one() {
        let (v, one) = (two(Per::Tensor, 3), two(Per::Tensor, 1));
        assert_eq!(v.rows(), 6);
        let (mut out, mut same) = ([0.0; 5], [0.0; 5]);
        let c = |row: &[f32]| row.repeat(3);
        v.merge(&[c(&[0.5, 1.0]), c(&[2.0, -1.0])].concat(), &mut out)
            .unwrap();
        one.merge(&[0.5, 1.0, 2.0, -1.0], &mut same).unwrap();
        assert_eq!(out, same);
        let g = v.gradients(&[1.0, 10.0, 2.0, 3.0, 4.0]).unwrap();
        let sum = |from: usize, e: usize| (0..3).map(|k| g[from + 2 * k + e]).sum::<f32>();
        assert_eq!(
            [sum(0, 0), sum(0, 1), sum(6, 0), sum(6, 1)],
            [1.0, -20.0, 3.0, 6.0]
        );
    }

    #[test]
    fn an_expert_of_another_base_is_refused() {
        let base = Plain::new(held(&[("a", vec![1.0, 2.0])]));
        let wrong = Expert::Held("experts/x".into(), held(&[("a", vec![1.0])]));
        let found = Vectors::new(&base, &["a".to_owned()], vec![wrong], (Per::Task, 1), 0);
        let said = found.err().unwrap().to_string();
        assert!(
            said.contains("experts/x") && said.contains("as [1], the base as [2]"),
            "{said}"
        );
    }

    #[test]
    fn what_ties_selects_by_hand() {
        // The numbers of the test of `ties_reference`: the third smallest magnitude is the cut.
        let zeros = Plain::new(held(&[("a", vec![0.0; 5])]));
        let experts = [
            held(&[("a", vec![5.0, -4.0, 1.0, 2.0, 3.0])]),
            held(&[("a", vec![1.0, 4.0, -6.0, 0.5, 3.0])]),
        ];
        let experts = experts.map(|e| Expert::Held("e".into(), e)).into();
        let v = Vectors::new(&zeros, &["a".to_owned()], experts, (Per::Task, 1), 0).unwrap();
        let v = v.selected(0.4).unwrap();
        // Kept: 5 -4 . . 3 and . 4 -6 . 3; sums 5 0 -6 0 6, the majority is +.
        let mut out = [0.0; 5];
        v.merge(&[1.0, 0.0], &mut out).unwrap();
        assert_eq!(out, [5.0, 0.0, 0.0, 0.0, 3.0]);
        v.merge(&[0.0, 1.0], &mut out).unwrap();
        assert_eq!(out, [0.0, 4.0, -6.0, 0.0, 3.0]);
        assert_eq!(
            v.gradients(&[1.0, 1.0, 1.0, 1.0, 10.0]).unwrap(),
            [35.0, 28.0]
        );
    }
}
