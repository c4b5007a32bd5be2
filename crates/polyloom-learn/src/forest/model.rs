//! A forest that was trained: what it answers, and what it looked at.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bins::Categories;
use super::boost::add;
use super::data::{Table, Values, wrong};
use super::dense::Dense;
use super::fit::Method;
use super::loss::softmax;
use super::tree::Tree;
use super::walk::Walk;
use crate::error::Result;

/// Rows that a thread answers at once.
const ROWS: usize = 256;

/// A column that trees ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its name in the training table.
    pub name: String,
    /// Bins of its categories, which tests are over; `None` of numbers.
    pub categories: Option<Categories>,
}

/// What a target is, and where its scores begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Classes; 0 of a number.
    pub classes: usize,
    /// What scores are before any tree, one for each column.
    pub start: Vec<f64>,
    /// What sums of trees are multiplied by: the standard deviation of labels that were standardised, else 1.
    pub scale: f64,
}

impl Output {
    /// Columns of scores: one for each class, or one number.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.classes.max(1)
    }
}

/// Where the sum of an ensemble goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// The first column of scores that it is added to.
    pub column: usize,
    /// What it is multiplied by.
    pub factor: f64,
    /// The first output of the trees that is added.
    pub output: usize,
    /// How many outputs are, side by side.
    pub width: usize,
}

/// Trees whose values are added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// Its name: that of a target or of a block.
    pub name: String,
    /// Outputs of each tree.
    pub width: usize,
    /// Trees, the learning rate in their leaves.
    pub trees: Vec<Tree>,
    /// Where the sums go.
    pub uses: Vec<Use>,
}

/// What R-MTGB found of the tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// The parameter of each task.
    pub theta: Vec<f64>,
    /// Its sigmoid: how much of the task's score comes from the second of the two ensembles.
    pub sigma: Vec<f64>,
}

impl Sides {
    /// The tasks on the side of 0.5 where fewer are; none where both sides have as many.
    #[must_use]
    pub fn outliers(&self) -> Vec<usize> {
        let above = |t: &usize| self.sigma[*t] > 0.5;
        let (high, low): (Vec<usize>, Vec<usize>) = (0..self.sigma.len()).partition(above);
        match high.len().cmp(&low.len()) {
            std::cmp::Ordering::Less => high,
            std::cmp::Ordering::Equal => Vec::new(),
            std::cmp::Ordering::Greater => low,
        }
    }
}

/// A trained forest.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    /// How it was trained.
    pub method: Method,
    /// Columns, in the order in which tables have them.
    pub features: Vec<Feature>,
    /// Targets; their columns of scores stand side by side.
    pub outputs: Vec<Output>,
    /// Trees.
    pub ensembles: Vec<Ensemble>,
    /// Tasks and outliers, of R-MTGB.
    pub sides: Option<Sides>,
}

impl Forest {
    /// Columns of scores.
    #[must_use]
    pub fn width(&self) -> usize {
        self.outputs.iter().map(Output::columns).sum()
    }

    /// The columns of a target.
    #[must_use]
    pub fn columns(&self, target: usize) -> Range<usize> {
        let before = self.outputs.iter().take(target).map(Output::columns).sum();
        before..before + self.outputs.get(target).map_or(0, Output::columns)
    }

    /// Whether a table has the columns that the forest was trained on, by number, name and kind.
    ///
    /// # Errors
    /// The first column that is another.
    pub fn fits(&self, table: &Table) -> Result<()> {
        fits(&self.features, table)
    }

    /// Scores of rows, row by row, [`Self::width`] for each: of a number the number itself, of classes logits.
    ///
    /// Cost: a path through every tree. The same for any number of threads.
    ///
    /// # Errors
    /// A table with other columns.
    pub fn scores(&self, table: &Table) -> Result<Vec<f64>> {
        self.scores_of(table, &|_| true)
    }

    /// The same where some of the targets alone matter: trees that add to none of them are not asked, and what stands in
    /// the columns of the others means nothing.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn scores_of(
        &self,
        table: &Table,
        matters: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<f64>> {
        self.fits(table)?;
        let columns: Vec<bool> = (0..self.outputs.len())
            .flat_map(|t| vec![matters(t); self.outputs[t].columns()])
            .collect();
        let asked = |ensemble: &&Ensemble| {
            let mut uses = ensemble.uses.iter();
            uses.any(|u| columns[u.column..][..u.width].contains(&true))
        };
        let ensembles: Vec<&Ensemble> = self.ensembles.iter().filter(asked).collect();
        let width = self.width();
        let features = self.features.iter();
        let categories: Vec<Option<&Categories>> =
            features.map(|f| f.categories.as_ref()).collect();
        let walk = |tree| Walk::for_rows(tree, table.rows);
        let walks = ensembles.iter();
        let walks = walks.map(|e| e.trees.iter().map(walk).collect());
        let walks: Vec<Vec<Walk<'_>>> = walks.collect();
        let mut scores = vec![0f64; table.rows * width];
        scores
            .par_chunks_mut(ROWS * width.max(1))
            .enumerate()
            .for_each(|(block, scores)| {
                let first = block * ROWS;
                let rows = scores.len() / width;
                let rows = Dense::new(table, &categories, first..first + rows);
                for (ensemble, walks) in ensembles.iter().zip(&walks) {
                    ensemble.add(walks, &rows, scores, width);
                }
                for row in scores.chunks_exact_mut(width) {
                    let mut at = 0;
                    for output in &self.outputs {
                        for start in &output.start {
                            row[at] = start + output.scale * row[at];
                            at += 1;
                        }
                    }
                }
            });
        Ok(scores)
    }

    /// As [`Self::scores`], with probabilities in place of logits.
    ///
    /// # Errors
    /// A table with other columns.
    pub fn predict(&self, table: &Table) -> Result<Vec<f64>> {
        let mut scores = self.scores(table)?;
        let width = self.width();
        for (t, output) in self.outputs.iter().enumerate() {
            if output.classes > 0 {
                let columns = self.columns(t);
                for row in scores.chunks_exact_mut(width) {
                    softmax(&mut row[columns.clone()]);
                }
            }
        }
        Ok(scores)
    }

    /// By how much the splits of each column lowered the training loss, over all trees: sums of gains, where numbers count
    /// in standard deviations.
    #[must_use]
    pub fn importance(&self) -> Vec<f64> {
        let mut gains = vec![0f64; self.features.len()];
        for ensemble in &self.ensembles {
            ensemble.trees.iter().for_each(|t| t.add_gains(&mut gains));
        }
        gains
    }
}

pub(super) fn fits(features: &[Feature], table: &Table) -> Result<()> {
    table.check()?;
    if table.columns.len() != features.len() {
        return Err(wrong(format!(
            "the table has {} columns, the forest was trained on {}",
            table.columns.len(),
            features.len()
        )));
    }
    for (i, (column, feature)) in table.columns.iter().zip(features).enumerate() {
        let numbers = matches!(column.values, Values::Number(_));
        if numbers == feature.categories.is_some() || column.name != feature.name {
            let kind = match feature.categories {
                None => "numbers",
                Some(_) => "categories",
            };
            return Err(wrong(format!(
                "column {i} is `{}`; the forest was trained on `{}`, {kind}",
                column.name, feature.name
            )));
        }
    }
    Ok(())
}

impl Ensemble {
    /// Adds what the trees say of rows.
    fn add(&self, walks: &[Walk<'_>], dense: &Dense, scores: &mut [f64], width: usize) {
        let rows = scores.len() / width.max(1);
        let mut sums = vec![0f64; rows * self.width];
        for (tree, walk) in self.trees.iter().zip(walks) {
            add(tree, walk, dense, 0, &mut sums, self.width);
        }
        for (row, sums) in scores
            .chunks_exact_mut(width)
            .zip(sums.chunks_exact(self.width))
        {
            for to in &self.uses {
                let row = row[to.column..][..to.width].iter_mut();
                row.zip(&sums[to.output..])
                    .for_each(|(s, x)| *s += to.factor * x);
            }
        }
    }
}
