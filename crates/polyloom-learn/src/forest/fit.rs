//! From rows and parameters to a forest.

use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::bins::{Bins, Categories, Cutting};
use super::boost::{Begin, Boost, Job, Rows};
use super::data::{Column, Sample, Table, Target, wrong};
use super::loss::{Loss, Start};
use super::model::{Ensemble, Feature, Forest, Output, Use, fits};
use super::r_mtgb::{self, RMtgb};
use crate::error::Result;

/// How a forest is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Method {
    /// A boosted model for each target. Of more than two classes, a tree has an output for each; scikit-learn and LightGBM
    /// grow a tree for each.
    Gbdt(Boost),
    /// Trees that all targets share; every target has its own values in the leaves.
    GbdtShared(Boost),
    /// Trees for all tasks, for two groups of tasks, and for each (Emami et al. 2025).
    RMtgb(RMtgb),
}

impl Default for Method {
    fn default() -> Self {
        Self::Gbdt(Boost::default())
    }
}

/// Parameters of a training.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The method, with its own.
    pub method: Method,
    /// Seed of whatever is drawn.
    pub seed: u64,
}

/// What is told after every tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// What is being grown: a target, all targets, or a block of R-MTGB.
    pub part: &'a str,
    /// Trees of it so far, from 1.
    pub round: usize,
    /// Most trees of it.
    pub rounds: usize,
    /// Loss on the training rows before this tree: the mean over rows of the sum over targets (of R-MTGB over labels).
    pub loss: f64,
    /// Loss on the held-out rows after it: the sum over targets of their means.
    pub held: Option<f64>,
}

/// Hears of every tree; `false` ends the training.
pub type Watch<'a> = dyn FnMut(&Progress<'_>) -> bool + 'a;

/// Trains a forest.
///
/// `held` are rows that decide when to stop (`patience`); their loss is told in any case. Targets whose labels do not
/// differ get no trees: the answer is that label. Numbers are learned less their mean and divided by their standard
/// deviation (`r_mtgb`: if `standardise` says so), so `min_gain` and losses have no unit. The result is the same for any number of threads.
///
/// # Errors
/// Data or parameters that are out of range or do not fit together; [`crate::Error::Ended`] if `watch` says so.
pub fn fit(
    data: &Table,
    targets: &[Target],
    held: Option<Sample<'_>>,
    params: &Params,
    watch: &mut Watch<'_>,
) -> Result<Forest> {
    let sample = Sample {
        table: data,
        targets,
    };
    sample.check()?;
    if targets.is_empty() {
        return Err(wrong("there is nothing to learn: no targets"));
    }
    if data.rows == 0 {
        return Err(wrong("there is nothing to learn from: no rows"));
    }
    let cutting = match &params.method {
        Method::Gbdt(boost) | Method::GbdtShared(boost) => {
            boost.check()?;
            if boost.patience > 0 && held.is_none() {
                return Err(wrong("`patience` needs held-out rows"));
            }
            Cutting::Quantiles(boost.bins)
        }
        Method::RMtgb(method) => {
            method.check(targets)?;
            if held.is_some() {
                return Err(wrong(
                    "`r_mtgb` takes no held-out rows: the numbers of its steps are fixed",
                ));
            }
            method.cutting()
        }
    };
    let bins = Bins::new(data, cutting)?;
    let feature = |(column, categories): (&Column, Option<&Categories>)| Feature {
        name: column.name.clone(),
        categories: categories.cloned(),
    };
    let columns = data.columns.iter().zip(bins.categories());
    let features: Vec<Feature> = columns.map(feature).collect();
    if let Some(held) = &held {
        held.check()?;
        fits(&features, held.table)?;
        let kinds = |targets: &[Target]| targets.iter().map(Target::classes).collect::<Vec<_>>();
        if kinds(held.targets) != kinds(targets) {
            return Err(wrong(
                "held-out rows have other targets than the training rows",
            ));
        }
    }
    let mut forest = Forest {
        method: params.method.clone(),
        features,
        outputs: Vec::new(),
        ensembles: Vec::new(),
        sides: None,
    };
    let data = Data {
        sample,
        held,
        bins: &bins,
        seed: params.seed,
    };
    match &params.method {
        Method::Gbdt(boost) => {
            let starts = data.starts(&mut forest);
            for (t, target) in targets.iter().enumerate() {
                data.boost(&[t], &starts, boost, &target.name, (&mut forest, watch))?;
            }
        }
        Method::GbdtShared(boost) => {
            let starts = data.starts(&mut forest);
            let all: Vec<usize> = (0..targets.len()).collect();
            data.boost(&all, &starts, boost, "all targets", (&mut forest, watch))?;
        }
        Method::RMtgb(method) => {
            r_mtgb::fit(&sample, &bins, method, params.seed, &mut forest, watch)?;
        }
    }
    Ok(forest)
}

struct Data<'a> {
    sample: Sample<'a>,
    held: Option<Sample<'a>>,
    bins: &'a Bins,
    seed: u64,
}

impl<'a> Data<'a> {
    /// Where every target begins, noted in the forest. Numbers are standardised: gains in different units cannot be added,
    /// neither in trees that targets share nor in importances.
    fn starts(&self, forest: &mut Forest) -> Vec<Start> {
        let starts: Vec<Start> = self
            .sample
            .targets
            .iter()
            .map(|t| Start::of(&self.sample, t))
            .collect();
        for (target, start) in self.sample.targets.iter().zip(&starts) {
            forest.outputs.push(Output {
                name: target.name.clone(),
                classes: target.classes(),
                start: match Loss::of(target) {
                    Loss::Logistic => vec![0.0, start.scores[0]],
                    _ => start.scores.clone(),
                },
                scale: start.scale,
            });
        }
        starts
    }

    /// Adds an ensemble for some of the targets; those whose labels do not differ are left out.
    fn boost(
        &self,
        which: &[usize],
        starts: &[Start],
        boost: &Boost,
        name: &str,
        to: (&mut Forest, &mut Watch<'_>),
    ) -> Result<()> {
        let (forest, watch) = to;
        let which: Vec<usize> = which
            .iter()
            .copied()
            .filter(|t| starts[*t].varies)
            .collect();
        if which.is_empty() {
            return Ok(());
        }
        let begin = |t: &usize| match self.sample.targets[*t].classes() {
            0 => Begin {
                scores: vec![0.0],
                mean: starts[*t].scores[0],
                scale: starts[*t].scale,
            },
            _ => Begin {
                scores: starts[*t].scores.clone(),
                mean: 0.0,
                scale: 1.0,
            },
        };
        let begin: Vec<Begin> = which.iter().map(begin).collect();
        let rows = |sample: &Sample<'a>| Rows {
            table: sample.table,
            parts: Rows::parts(sample, &which, &begin),
        };
        let job = Job {
            name,
            bins: self.bins,
            rows: rows(&self.sample),
            held: self.held.as_ref().map(rows),
            stream: Stream::new(self.seed, "forest.rows", which[0] as u64),
        };
        let trees = job.run(boost, watch)?;
        let column = |t: usize| {
            let first = forest.columns(t).start;
            // Of two classes the score belongs to the second.
            first + usize::from(forest.outputs[t].classes == 2)
        };
        let parts = &job.rows.parts;
        let width: usize = parts.iter().map(|p| p.loss.width()).sum();
        let ensemble = Ensemble {
            name: name.to_owned(),
            width,
            trees,
            uses: which
                .iter()
                .zip(parts)
                .map(|(t, part)| Use {
                    column: column(*t),
                    factor: 1.0,
                    output: part.at,
                    width: part.loss.width(),
                })
                .collect(),
        };
        forest.ensembles.push(ensemble);
        Ok(())
    }
}
