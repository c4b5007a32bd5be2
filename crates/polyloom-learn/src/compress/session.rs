//! A run from recipe to bundle: thresholds searched, grafts learned, methods compared at several sizes.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::compress::{Accounting, Deltas, Extra, task_id};
use polyloom::plan::Plan;
use polyloom::plan::execute::Report;
use polyloom_core::writer::{FolderOptions, OutputFolder};
use serde_json::json;

use super::front::{Candidate, choose, mark, plot, table};
use super::graft::Pass;
use super::grafting::Grafts;
use super::judge::{Judge, Kept, Score, kept};
use super::make::{Factors, Maker, bits};
use super::recipe::{Compress, Method};
use crate::engine::tensor;
use crate::error::{Error, Result};
use crate::image::PREPROCESSOR;
use crate::tasks::Head;
use crate::train::Given;
use crate::tune::recipe::Expert;

/// What happens.
pub enum Told<'t> {
    /// Rows are read, the experts are scored.
    Begun {
        /// Tasks with their rows.
        rows: Vec<(String, usize)>,
        /// What the experts score.
        experts: &'t [Score],
    },
    /// A threshold of TALL was tried on all tasks.
    Threshold(f64, &'t [Score]),
    /// A pass of a task's graft.
    Graft(&'t str, &'t Pass),
    /// A bundle was made and looked at.
    Candidate(&'t Candidate),
}

/// Hears what happens; false stops the run.
pub type Watch<'w> = &'w mut dyn FnMut(&Told<'_>) -> bool;

/// A bundle that is there.
pub struct Done {
    /// The folder.
    pub report: Report,
    /// Its storage.
    pub accounting: Accounting,
    /// Thresholds that were chosen, by task.
    pub lambdas: Option<Vec<(String, f64)>>,
    /// Grafts.
    pub grafts: Option<Grafts>,
    /// Share of the experts' scores on the rows that decide, where there are any.
    pub kept: Option<Kept>,
    /// What was compared, and the place of what was chosen.
    pub front: Option<(Vec<Candidate>, usize)>,
}

pub(super) struct Shop<'a, 'w> {
    pub(super) maker: &'a Maker<'a>,
    pub(super) plan: &'a Plan,
    pub(super) deltas: Deltas<'a>,
    /// Ids of the experts' tasks.
    pub(super) names: Vec<String>,
    pub(super) looks: Option<Looks>,
    pub(super) given: &'a [Given],
    pub(super) trials: Trials,
    pub(super) watch: Watch<'w>,
}

/// What is looked at, and what experts and base score.
pub(super) struct Looks {
    pub(super) judge: Judge,
    pub(super) experts: Vec<Score>,
}

/// A folder beside the output that goes when the run ends.
pub(super) struct Trials {
    root: PathBuf,
    next: usize,
}

impl Trials {
    fn beside(target: &Path) -> Self {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let root = format!(".{name}.trials-{}", std::process::id());
        Self {
            root: target.with_file_name(root),
            next: 0,
        }
    }

    pub(super) fn folder(&mut self) -> Result<PathBuf> {
        let at = &self.root;
        std::fs::create_dir_all(at).map_err(|e| polyloom_core::Error::io(at, "create", e))?;
        self.next += 1;
        Ok(self.root.join(self.next.to_string()))
    }
}

impl Drop for Trials {
    fn drop(&mut self) {
        // What cannot be removed stays; there is nobody left to tell.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Makes a bundle by one method.
///
/// # Errors
/// What a plan, tasks, models and files report; low-rank deltas without a budget.
pub fn compress(
    maker: &Maker<'_>,
    method: Method,
    given: &[Given],
    target: &Path,
    watch: Watch<'_>,
) -> Result<Done> {
    let s = maker.settings;
    let search = method == Method::Tall && !s.grid().is_empty();
    let plan = maker.plan(Method::Bits, &[])?;
    let needed = needs_rows(s, Some(method));
    let mut shop = Shop::open(maker, &plan, given, needed, target, watch)?;
    let extras = shop.extras()?;
    let mut lambdas = None;
    let mut grafts = None;
    let (report, accounting) = if method.is_masks() {
        let found = match search {
            true => Some(shop.thresholds()?),
            false => None,
        };
        let done = maker.masks(method, found.as_deref(), target, &extras)?;
        lambdas = found.map(|f| shop.names.iter().cloned().zip(f).collect());
        done
    } else {
        let (parts, about) = match method {
            Method::Lowrank => {
                let budget = budget(s.budget.as_deref())?.ok_or_else(|| {
                    MergeError::plan("no-budget", "low-rank deltas need a budget").hint(
                        "--budget 2MB, or --keep 99% for the smallest that keeps so much of the scores",
                    )
                })?;
                let factors = Factors::new(&shop.deltas, s.axis, s.floor, maker.store()?)?;
                let about = vec![
                    ("budget", budget.to_string()),
                    ("weighted", factors.weighted.to_string()),
                ];
                (factors.parts(&shop.deltas, budget)?, about)
            }
            Method::Graft => {
                let parts = shop.grafts(s.density)?;
                grafts = Some(parts.clone());
                let about = vec![
                    ("density", s.density.to_string()),
                    ("learned", s.learned.to_string()),
                ];
                (parts, about)
            }
            _ => (
                bits(&shop.deltas, s.scale)?,
                vec![("scale", format!("{:?}", s.scale).to_lowercase())],
            ),
        };
        maker.deltas(method, &about, &parts, target, &extras)?
    };
    let scores = shop.scores(&report.output)?;
    let grafts = match grafts {
        Some(parts) => Some(shop.told(&parts, scores.as_deref())?),
        None => None,
    };
    Ok(Done {
        kept: scores.map(|s| shop.kept(&s)),
        report,
        accounting,
        lambdas,
        grafts,
        front: None,
    })
}

/// Whether a method looks at rows: to search or learn, or because heads are named, which then go into the bundle.
#[must_use]
pub fn needs_rows(settings: &Compress, method: Option<Method>) -> bool {
    let search = method == Some(Method::Tall) && !settings.grid().is_empty();
    search || (method == Some(Method::Graft) && settings.learned) || settings.heads.is_some()
}

/// Compares methods at several sizes and writes what is asked for: with `keep` the smallest bundle that keeps such a share
/// of the experts' scores, else the best; within `budget`.
///
/// # Errors
/// As [`compress`]; nothing that does what is asked (the message holds the table).
pub fn compare(
    maker: &Maker<'_>,
    given: &[Given],
    target: &Path,
    watch: Watch<'_>,
) -> Result<Done> {
    let s = maker.settings;
    if target.exists() && !maker.writing.force {
        return Err(Error::file(target, "exists already")
            .hint("choose another name or pass --force to replace it"));
    }
    let plan = maker.plan(Method::Bits, &[])?;
    let most = budget(s.budget.as_deref())?;
    let mut shop = Shop::open(maker, &plan, given, true, target, watch)?;
    let mut all = Vec::new();
    for method in s.tried() {
        shop.candidates(method, most, &mut all)?;
    }
    mark(&mut all);
    let Some(chosen) = choose(&all, most, s.keep, s.sure) else {
        let asked = match (s.keep, most) {
            (Some(k), Some(_)) => format!(
                "{:.1} % of the experts' scores within the budget",
                100.0 * k
            ),
            (Some(k), None) => format!("{:.1} % of the experts' scores", 100.0 * k),
            _ => "the budget".into(),
        };
        let asked = match s.sure {
            true => format!("{asked} by the lower end of its interval"),
            false => asked,
        };
        let what = format!(
            "nothing that was tried keeps {asked}:\n{}",
            table(&all, None)
        );
        return Err(MergeError::plan("no-bundle", what)
            .hint("a larger --budget, a lower --keep, or other compress.methods")
            .into());
    };
    let tasks: Vec<&str> = shop.names.iter().map(String::as_str).collect();
    let record = json!({
        "schema": "polyloom.front/1",
        "split": s.split,
        "tasks": tasks,
        "rows": shop.looks.as_ref().map(|l| l.judge.rows()),
        "experts": shop.looks.as_ref().map(|l| l.experts.iter().map(|e| e.value).collect::<Vec<_>>()),
        "budget": most,
        "keep": s.keep,
        "sure": s.sure,
        "candidates": all,
        "chosen": chosen,
    });
    let text =
        serde_json::to_string_pretty(&record).map_err(|e| Error::file(target, e.to_string()))?;
    let mut extras = shop.extras()?;
    extras.push(("front.json".into(), format!("{text}\n").into_bytes()));
    extras.push((
        "front.svg".into(),
        plot(&all, Some(chosen), s.keep).into_bytes(),
    ));
    let output = copied(&all[chosen].folder, target, maker, &extras)?;
    let one = &all[chosen];
    Ok(Done {
        report: Report {
            output,
            tensors: shop.deltas.tensors().len(),
            bytes: one.bytes,
            files: Vec::new(),
            synced: !maker.writing.no_sync,
            overflow: Vec::new(),
            notes: Vec::new(),
        },
        accounting: one.accounting,
        lambdas: None,
        grafts: None,
        kept: Some(one.kept.clone()),
        front: Some((all, chosen)),
    })
}

/// Bytes of a budget.
fn budget(text: Option<&str>) -> Result<Option<u64>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let upper = text.trim().to_ascii_uppercase();
    let units = [
        ("KIB", 1024.0),
        ("MIB", 1_048_576.0),
        ("GIB", 1_073_741_824.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("B", 1.0),
        ("", 1.0),
    ];
    let found = units
        .iter()
        .find_map(|(unit, by)| Some(upper.strip_suffix(unit)?.trim().parse::<f64>().ok()? * by));
    match found.filter(|b| *b >= 1.0 && b.is_finite()) {
        Some(bytes) => Ok(Some(bytes as u64)),
        None => {
            let what = format!("`{text}` is no number of bytes");
            Err(MergeError::plan("bad-budget", what)
                .hint("such as 2MB or 500KB")
                .into())
        }
    }
}

/// The bundle of a trial at its place, with files beside it.
fn copied(from: &Path, target: &Path, maker: &Maker<'_>, extras: &[Extra]) -> Result<PathBuf> {
    let folder = OutputFolder::create(
        target,
        FolderOptions {
            force: maker.writing.force,
            no_sync: maker.writing.no_sync,
            ..FolderOptions::default()
        },
    )?;
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let here = from.join(&at);
        let io = |e| polyloom_core::Error::io(&here, "read", e);
        for entry in std::fs::read_dir(&here).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = at.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(name);
            } else {
                folder.copy_file(&entry.path(), &name)?;
            }
        }
    }
    for (name, bytes) in extras {
        folder.write_file(name, bytes)?;
    }
    Ok(folder.commit()?)
}

impl<'a, 'w> Shop<'a, 'w> {
    fn open(
        maker: &'a Maker<'a>,
        plan: &'a Plan,
        given: &'a [Given],
        needed: bool,
        target: &Path,
        watch: Watch<'w>,
    ) -> Result<Self> {
        let experts = plan.groups.first().map_or(&[][..], |g| &g.experts);
        let names = experts.iter().map(|e| task_id(&plan.models[*e].model));
        let names = names.collect();
        let mut shop = Self {
            maker,
            plan,
            deltas: Deltas::new(plan)?,
            names,
            looks: None,
            given,
            trials: Trials::beside(target),
            watch,
        };
        if needed {
            shop.look()?;
        }
        Ok(shop)
    }

    pub(super) fn tell(&mut self, told: &Told<'_>) -> Result<()> {
        match (self.watch)(told) {
            true => Ok(()),
            false => Err(polyloom_core::Error::Interrupted.into()),
        }
    }

    pub(super) fn places(&self) -> (String, Vec<Expert>) {
        let path = |model: usize| {
            let m = &self.plan.models[model];
            match &m.adapter {
                Some(adapter) => format!("{}+{}", m.path.display(), adapter.display()),
                None => m.path.display().to_string(),
            }
        };
        let experts = self.plan.groups.first().map_or(&[][..], |g| &g.experts);
        let one = |e: &usize| {
            let mut expert = Expert::default();
            expert.path = path(*e);
            expert.task.clone_from(&self.plan.models[*e].model.task);
            expert
        };
        let base = path(self.plan.recipe.base.unwrap_or(0));
        (base, experts.iter().map(one).collect())
    }

    /// Reads the rows and scores the experts.
    fn look(&mut self) -> Result<()> {
        let problem = if self.given.len() != self.names.len() {
            Some("every expert needs a `task`")
        } else if self.deltas.base_model().model.strip_prefix.is_some()
            || self.deltas.base_model().model.add_prefix.is_some()
        {
            Some("the base's names must be its own (no `strip_prefix`, `add_prefix`)")
        } else {
            None
        };
        if let Some(problem) = problem {
            let what = format!("{problem} for models to be looked at");
            return Err(MergeError::plan("no-task", what).hint("[[expert]] task = \"...\"; without rows: compress.lambdas = [] keeps the thresholds of the recipe").into());
        }
        let (base, experts) = self.places();
        let mut judge = Judge::open(self.maker.settings, &base, &experts, self.given)?;
        let mut scores = Vec::new();
        for expert in 0..self.names.len() {
            scores.push(judge.score(expert, self.tensors(expert)?)?);
        }
        let rows = self.names.iter().cloned().zip(judge.rows()).collect();
        self.tell(&Told::Begun {
            rows,
            experts: &scores,
        })?;
        self.looks = Some(Looks {
            judge,
            experts: scores,
        });
        Ok(())
    }

    /// An expert's tensors.
    fn tensors(&self, expert: usize) -> Result<Vec<(String, crate::engine::Tensor)>> {
        let all = self.deltas.tensors();
        let one = |(t, out): (usize, &&polyloom_core::writer::OutTensor)| {
            let values = tensor(self.deltas.expert(expert, t)?, out.shape.clone())?;
            Ok((out.name.clone(), values))
        };
        all.iter().enumerate().map(one).collect()
    }

    pub(super) fn scores(&mut self, folder: &Path) -> Result<Option<Vec<Score>>> {
        let names = self.names.clone();
        self.looks
            .as_mut()
            .map(|l| l.judge.bundle(folder, &names))
            .transpose()
    }

    pub(super) fn kept(&self, scores: &[Score]) -> Kept {
        let experts = self.looks.as_ref().map_or(&[][..], |l| &l.experts);
        kept(scores, experts, self.maker.settings.seed)
    }

    /// Heads and the preparation of pictures, where the recipe names them: a restored model is then whole.
    fn extras(&self) -> Result<Vec<Extra>> {
        let s = self.maker.settings;
        let mut found = Vec::new();
        if let (Some(looks), Some(_)) = (&self.looks, &s.heads) {
            for (task, name) in self.names.iter().enumerate() {
                for head in looks.judge.heads(task) {
                    // A bundle's task may go by a shorter name than the head's.
                    let rest = head
                        .task
                        .strip_prefix(&*self.given[task].spec.id)
                        .unwrap_or("");
                    let file = Head::path(Path::new("heads"), &format!("{name}{rest}"));
                    found.push((file.display().to_string(), head.bytes()?));
                }
            }
        }
        if let Some(file) = &s.preprocessor {
            let bytes =
                std::fs::read(file).map_err(|e| polyloom_core::Error::io(file, "read", e))?;
            found.push((PREPROCESSOR.into(), bytes));
        }
        Ok(found)
    }

    /// The threshold of every task that scores best, the smaller of equals by score and loss.
    pub(super) fn thresholds(&mut self) -> Result<Vec<f64>> {
        let n = self.names.len();
        let mut best: Vec<Option<(f64, Score)>> = vec![None; n];
        for lambda in self.maker.settings.grid() {
            let folder = self.trials.folder()?;
            self.maker
                .masks(Method::Tall, Some(&vec![lambda; n]), &folder, &[])?;
            let scores = self.scores(&folder)?.unwrap_or_default();
            std::fs::remove_dir_all(&folder)
                .map_err(|e| polyloom_core::Error::io(&folder, "remove", e))?;
            self.tell(&Told::Threshold(lambda, &scores))?;
            for (best, score) in best.iter_mut().zip(scores) {
                if best.as_ref().is_none_or(|(_, b)| score.beats(b)) {
                    *best = Some((lambda, score));
                }
            }
        }
        Ok(best.into_iter().map(|b| b.map_or(0.4, |b| b.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_bytes() {
        assert_eq!(budget(None).unwrap(), None);
        let of = |t: &str| budget(Some(t)).unwrap().unwrap();
        assert_eq!(
            (of("2MB"), of("1.5 kib"), of("300")),
            (2_000_000, 1536, 300)
        );
        assert!(budget(Some("much")).is_err() && budget(Some("-1MB")).is_err());
    }
}
