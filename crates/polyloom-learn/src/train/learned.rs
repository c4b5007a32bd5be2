//! The tasks of a run: rows, heads and what they begin with.

mod goals;
mod maps;
mod start;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::evaluate::board::score::search::is_search;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::{TaskSpec, TaskType};

use super::Given;
use super::chain::Chain;
use super::fuse::classes::Soft;
use super::language::{self, Spoken};
use super::recipe::{Objective, Recipe};
use super::reconstruct;
use super::turns;
use super::weigh::{self, Counts};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::Model;
use crate::tasks::rows::usual_feature;
use crate::tasks::{Feature, Head, HeadKind, Reader, Rows, Search};

/// A task with its rows read.
pub struct Learned<'a> {
    /// The task.
    pub given: &'a Given,
    /// Rows that heads learn from.
    pub train: Rows,
    /// Rows that are looked at.
    pub validation: Option<Rows>,
    /// Its rows as language, in place of those above.
    pub language: Option<Spoken>,
    /// What its heads see.
    pub feature: Feature,
    /// Places of its heads, one per target.
    pub heads: std::ops::Range<usize>,
    /// What the rows that are looked at are searched in, of a retrieval task.
    pub search: Option<Search>,
    /// What its rows count in the losses of its targets.
    pub counts: Counts,
    /// How its targets hang together, where the recipe asks for it.
    pub chain: Option<Chain>,
    /// What other models say of the training rows, by head; nothing where none is asked.
    pub soft: Vec<Option<Soft>>,
}

impl Learned<'_> {
    /// The task's loader.
    #[must_use]
    pub fn loader(&self) -> Loader<'_> {
        self.given.loader()
    }

    /// Rows that are learned from.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.language {
            Some(spoken) => spoken.train.len(),
            None => self.train.len(),
        }
    }

    /// Whether there are rows to look at.
    #[must_use]
    pub fn is_looked_at(&self) -> bool {
        match &self.language {
            Some(spoken) => spoken.validation.is_some(),
            None => self.validation.is_some() || self.search.is_some(),
        }
    }
}

/// A task without a row to learn from.
pub(super) fn no_rows(id: &str, split: &str) -> Error {
    let what = format!("task `{id}` has no rows in split `{split}`");
    MergeError::plan("empty-task", what)
        .hint("`polyloom tasks show TASK` shows its splits; train.split chooses one")
        .into()
}

/// Whether a task has rows to look at.
///
/// # Errors
/// A split that is not there though `train.patience` needs one.
pub(super) fn is_looked_at(recipe: &Recipe, spec: &TaskSpec) -> Result<bool> {
    let t = &recipe.train;
    let there = spec.splits.named.contains_key(&t.validation);
    let looked = there && !t.validation.is_empty();
    if !looked && t.patience > 0 {
        let what = format!(
            "task `{}` has no split `{}`, and `train.patience` needs one",
            spec.id, t.validation
        );
        return Err(MergeError::plan("no-split", what)
            .hint("train.validation names the split that is looked at")
            .into());
    }
    Ok(looked)
}

/// Reads the tasks of a run and makes their heads; `source` has the base's weights.
///
/// # Errors
/// Tasks without rows or with one class alone, numbers that are all alike, splits that are not there, and what reading
/// reports.
pub fn learned<'a>(
    recipe: &Recipe,
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    given: &'a [Given],
) -> Result<(Vec<Learned<'a>>, Vec<Head>)> {
    let t = &recipe.train;
    weigh::check_tasks(t, given)?;
    turns::check(recipe, model)?;
    if let Some(language) = &t.language {
        return Ok((
            language::learned(recipe, language, model, given)?,
            Vec::new(),
        ));
    }
    if t.rebuilds() {
        return Ok((
            reconstruct::learned(recipe, model, reader, given)?,
            Vec::new(),
        ));
    }
    let (mut tasks, mut heads) = (Vec::new(), Vec::new());
    for given in given {
        let spec = &given.spec;
        let id = &spec.id;
        let vectors = by_vectors(spec, t.objective, model)?;
        let search = is_search(spec);
        let pair = !spec.fields.input2.is_empty();
        let dense = maps::are_asked(spec)?;
        maps::check(t, spec, model, dense)?;
        maps::check_experts(t, model)?;
        let feature = match (vectors, dense) {
            (true, _) => Feature::Embeddings,
            (_, true) => Feature::Patches,
            _ => t.head.feature.unwrap_or_else(|| usual_feature(model, pair)),
        };
        let loader = given.loader();
        let read = |split, limit| Rows::read_weighed(spec, &loader, split, reader, feature, limit);
        let train = match search {
            true => Rows::pairs(spec, &loader, &t.split, reader, t.limit, recipe.seed)?,
            false => read(&t.split, t.limit)?.counted(spec)?,
        };
        if train.is_empty() {
            return Err(no_rows(id, &t.split));
        }
        goals::grouped(id, &train, model)?;
        let looked_at = is_looked_at(recipe, spec)?;
        let limit = t.validation_limit;
        let looked = match looked_at && search {
            true => Some(Search::read(spec, &loader, &t.validation, reader, limit)?),
            false => None,
        };
        let validation = match looked_at && !search {
            true => Some(read(&t.validation, limit)?).filter(|r| !r.is_empty()),
            false => None,
        };
        let start = heads.len();
        for (place, asked) in train.asked.iter().enumerate() {
            let name = match &*asked.target {
                "" => id.clone(),
                target => format!("{id}/{target}"),
            };
            let mut head = match vectors {
                true => Head::embedding(&name),
                false if HeadKind::of(asked) == HeadKind::Items => Head::items(&name),
                false => blank(&name, place, &train, feature, model)?,
            };
            if feature == Feature::Goal || model.goals().is_some() {
                goals::place(&mut head, id, &asked.target, model)?;
            }
            head.task_hash = Some(given.hash.clone());
            heads.push(head);
        }
        let chain = t.chain.map(|c| Chain::of(c, spec, &heads[start..], &train));
        let chain = chain.transpose()?;
        tasks.push(Learned {
            given,
            train,
            validation,
            language: None,
            feature,
            heads: start..heads.len(),
            search: looked,
            counts: Counts::default(),
            chain,
            soft: Vec::new(),
        });
    }
    weigh::counts(t, &mut tasks, &heads)?;
    for task in &tasks {
        start::begin(
            recipe,
            model,
            source,
            reader,
            task,
            &mut heads[task.heads.clone()],
        )?;
    }
    Ok((tasks, heads))
}

/// Whether a task is learned by the vectors of its texts.
///
/// # Errors
/// A task that has nothing to do with vectors where they are asked for; a model that gives none.
pub(crate) fn by_vectors(spec: &TaskSpec, objective: Objective, model: &Model) -> Result<bool> {
    let one = spec.targets.is_empty();
    let similar = one && spec.kind == Some(TaskType::Sts);
    let found = is_search(spec) || (similar && objective == Objective::Contrastive);
    let bad = |what: String| MergeError::plan("bad-task", what);
    if objective == Objective::Contrastive && !found {
        let kind = spec.kind.map_or_else(String::new, |k| k.to_string());
        let what = format!(
            "task `{}` (type `{kind}`) is not learned by vectors of texts, which a contrastive loss asks for",
            spec.id
        );
        return Err(bad(what)
            .hint("tasks of type retrieval, and of type sts without `targets`, are")
            .into());
    }
    if found && !model.embeds() {
        let what = format!("task `{}` is learned by vectors of texts", spec.id);
        return Err(bad(what)
            .at(model.folder.display().to_string())
            .hint("encoders of texts have them (with experts: of a shared gate), and decoders with a modules.json (sentence-transformers)")
            .into());
    }
    Ok(found)
}

/// A head of zeros for what is asked.
fn blank(name: &str, place: usize, rows: &Rows, feature: Feature, model: &Model) -> Result<Head> {
    let asked = &rows.asked[place];
    let kind = HeadKind::of(asked);
    let known: Vec<&Wanted> = rows.wanted[place].iter().flatten().collect();
    let refuse = |what: String, hint: &str| {
        Err(
            MergeError::plan("bad-task", format!("task `{name}`: {what}"))
                .hint(hint)
                .into(),
        )
    };
    if known.is_empty() {
        return refuse(
            "no training row (of a weight above 0) says what is right".into(),
            "`polyloom tasks check` shows why",
        );
    }
    if let HeadKind::Dense(pixels) = kind {
        return maps::blank(name, pixels, asked, &known, model);
    }
    let feature = match feature {
        // Beside maps of the same pictures.
        Feature::Patches => Feature::Cls,
        other => other,
    };
    let mut head = Head::zeros(name, feature, kind, asked.classes.clone(), model.width())?;
    match kind {
        HeadKind::Classification => {
            if let Wanted::Class(first) = known[0]
                && known.iter().all(|w| **w == Wanted::Class(*first))
            {
                let class = asked
                    .classes
                    .get(*first as usize)
                    .map_or("", String::as_str);
                return refuse(
                    format!("all {} training rows have the class `{class}`", known.len()),
                    "a classifier needs rows of at least two classes; look at train.limit and train.split",
                );
            }
        }
        HeadKind::Multilabel if asked.classes.is_empty() => {
            return refuse(
                "no training row has a label".into(),
                "`polyloom tasks check` shows why",
            );
        }
        HeadKind::Multilabel => {}
        HeadKind::Regression => {
            // Numbers with what their rows count.
            let numbers = || {
                let wanted = rows.wanted[place].iter().enumerate();
                wanted.filter_map(|(row, w)| {
                    let weight = rows.weights.as_ref().map_or(1.0, |w| f64::from(w[row]));
                    match w.as_ref()? {
                        Wanted::Number(x) => Some((*x, weight)),
                        _ => Some((f64::NAN, weight)),
                    }
                })
            };
            let n: f64 = numbers().map(|(_, w)| w).sum();
            let largest = numbers().fold(0f64, |most, (x, _)| most.max(x.abs()));
            if largest > f64::from(f32::MAX) {
                return refuse(
                    format!("the largest number of the training rows is {largest:e}"),
                    "32 bits hold numbers up to 3e38: drop such rows, or take logarithms",
                );
            }
            let mean = numbers().map(|(x, w)| w * x).sum::<f64>() / n;
            let squares = numbers().map(|(x, w)| w * (x - mean).powi(2));
            let deviation = (squares.sum::<f64>() / n).sqrt();
            if !(deviation > 0.0 && deviation.is_finite()) {
                return refuse(
                    format!("all {} training rows have the number {mean}", known.len()),
                    "there is nothing to learn from a constant",
                );
            }
            head.scale = [mean, deviation];
        }
        HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {}
    }
    Ok(head)
}
