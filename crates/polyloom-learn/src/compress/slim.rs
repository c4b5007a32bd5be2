//! One width of a model that was learned at several, as a model of its own.
//!
//! A budget is a share of the multiplications of a picture through the whole trunk and all heads. What is chosen within it
//! (Efficient Controllable Multi-Task Architectures, ICCV 2023): for every width of the trunk, heads take what it leaves, those
//! first that are preferred; of these the one that is best on the rows: by the board's metric of every goal, or by its loss,
//! as a share of what the whole model has, weighed by the preferences.

mod rows;

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom_core::writer::{FolderOptions, OutputFolder};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::models::open::{Model, Trunk};
use crate::models::slim::{Slim, Slimmed};
use crate::models::vit;
use crate::models::{Plain, Source};
use crate::tasks::family::heads;
use crate::tasks::grow::SLIM;
use crate::tasks::{Head, HeadKind, Opened};
use crate::train::{Given, slim, write};

/// What is taken out.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The model.
    pub model: String,
    /// How wide it is to be.
    pub asked: Asked,
    /// What forms are judged by.
    pub by: By,
    /// Split whose rows tell.
    pub split: String,
    /// Rows of a task at most.
    pub limit: Option<usize>,
}

/// What forms within a budget are judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The metric that counts of every goal.
    #[default]
    Scores,
    /// Losses: one unit for all goals, and a poor judge of what is learned by heart.
    Losses,
}

/// How wide the model is to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// Parts of the widths of the trunk and of all heads.
    Widths(f64, f64),
    /// At most a share of the multiplications, with what goals count: by name, or what stands behind its last `/`; 1 for others.
    Budget(f64, Vec<(String, f64)>),
}

/// A width that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// Part of the trunk's width.
    pub width: f64,
    /// Parts of the widths of the heads, in their order.
    pub heads: Vec<f64>,
    /// Share of the multiplications.
    pub cost: f64,
    /// How much better than the whole model goals are, as a share of what it has: `(score - whole) / |whole|`, the other way
    /// round where less is better; none where no rows were looked at.
    pub gains: Vec<f64>,
    /// Their mean by the preferences.
    pub mean: f64,
}

/// A model that was taken out.
#[derive(Debug)]
pub struct Taken {
    /// The folder.
    pub folder: PathBuf,
    /// Names of the goals.
    pub goals: Vec<String>,
    /// What was looked at, and which of it was taken.
    pub tried: Vec<Tried>,
    /// Its place.
    pub taken: usize,
    /// Parameters of the trunk before and after.
    pub parameters: (usize, usize),
}

/// Takes a width out of a model trained with `[train.slim]` and writes it.
///
/// # Errors
/// A model of one width, a width that it did not learn, a budget below its narrowest form, tasks without rows, scores that are
/// not defined, an output that is there.
pub fn take(
    settings: &Settings,
    given: &[Given],
    out: &Path,
    options: FolderOptions,
) -> Result<Taken> {
    if out.exists() && !options.force {
        return Err(Error::file(out, "exists already")
            .hint("choose another name or pass --force to replace it"));
    }
    let mut opened = Opened::open(&settings.model)?;
    let learned = Learned::of(&opened, &settings.model)?;
    let heads = heads(&opened.model.folder)?;
    let whole = Form::whole(&opened.model, &heads)?;
    let (tried, taken) = match &settings.asked {
        Asked::Widths(width, of_heads) => {
            learned.knows(*width, *of_heads, &heads, &settings.model)?;
            let form = whole.at(*width, vec![*of_heads; heads.len()])?;
            (vec![form], 0)
        }
        Asked::Budget(budget, preferences) => {
            let preferences = preferred(preferences, &heads, &settings.model)?;
            let mut forms = learned.within(&whole, *budget, &preferences)?;
            if forms.is_empty() {
                let least = whole.at(learned.widths[0], vec![learned.heads[0]; heads.len()])?;
                let what = format!(
                    "a budget of {:.1} % is below the narrowest form, {:.1} %",
                    100.0 * budget,
                    100.0 * least.cost
                );
                return Err(MergeError::plan("small-budget", what)
                    .at(settings.model.clone())
                    .hint("a larger --budget, or train with narrower train.slim.widths")
                    .into());
            }
            rows::judge(
                settings,
                given,
                &opened,
                &heads,
                &preferences,
                &whole,
                &mut forms,
            )?;
            // Of equals the narrowest.
            let order = |a: &usize, b: &usize| forms[*b].mean.total_cmp(&forms[*a].mean);
            let best = (0..forms.len()).min_by(order).unwrap_or(0);
            (forms, best)
        }
    };
    let before = count(&opened);
    let slim = formed(&opened.model, &heads, &tried[taken])?;
    let narrow = narrowed(&opened, &heads, &slim)?;
    let own: Vec<Head> = heads
        .iter()
        .map(|h| h.with(&narrow))
        .collect::<Result<_>>()?;
    for (name, _, shape) in &mut opened.stored {
        *shape = narrow.tensor(name)?.dims().to_vec();
    }
    describe(&mut opened.config, &slim.vit.config);
    let folder = OutputFolder::create(out, options)?;
    write::model(&folder, &opened, &narrow, None)?;
    for head in &own {
        folder.write_file(Head::path(Path::new("heads"), &head.task), &head.bytes()?)?;
    }
    let provenance = json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "slim",
        "model": write::whole_path(&settings.model),
        "settings": settings,
        "taken": tried[taken],
        "tasks": write::listed(&own),
    });
    let text =
        serde_json::to_string_pretty(&provenance).map_err(|e| Error::file(out, e.to_string()))?;
    folder.write_file("polyloom.json", format!("{text}\n").as_bytes())?;
    Ok(Taken {
        folder: folder.commit()?,
        goals: heads.iter().map(|h| h.task.clone()).collect(),
        tried,
        taken,
        parameters: (before, count(&opened)),
    })
}

fn count(opened: &Opened) -> usize {
    let sizes = opened.stored.iter();
    sizes
        .map(|(.., shape)| shape.iter().product::<usize>())
        .sum()
}

fn describe(config: &mut serde_json::Value, narrow: &vit::Config) {
    if let Some(config) = config.as_object_mut() {
        config.remove(SLIM);
        config.insert("hidden_size".into(), json!(narrow.hidden_size));
        config.insert(
            "num_attention_heads".into(),
            json!(narrow.num_attention_heads),
        );
        config.insert("intermediate_size".into(), json!(narrow.intermediate_size));
    }
}

/// Trunk and heads at the widths of a form.
fn formed(model: &Model, heads: &[Head], form: &Tried) -> Result<Slim> {
    let mut slim = slim::of(model, form.width)?;
    for (head, ratio) in heads.iter().zip(&form.heads) {
        slim::cut(&mut slim, head, *ratio)?;
    }
    Ok(slim)
}

/// Weights and heads at the widths of a form.
fn narrowed(opened: &Opened, heads: &[Head], slim: &Slim) -> Result<Plain> {
    let whole = opened
        .model
        .weights
        .with(heads.iter().flat_map(Head::tensors));
    let narrow = Slimmed::over(&whole, slim);
    let names = opened.stored.iter().map(|(name, ..)| name.clone());
    let names = names.chain(heads.iter().flat_map(Head::tensors).map(|(name, _)| name));
    let one = |name: String| {
        let tensor = narrow.tensor(&name)?.data().contiguous();
        Ok((name, crate::error::In::during(tensor, "slim")?))
    };
    let all: Vec<_> = names.map(one).collect::<Result<_>>()?;
    Ok(whole.with(all))
}

/// Which widths a model has learned, from the narrowest on.
struct Learned {
    widths: Vec<f64>,
    heads: Vec<f64>,
}

impl Learned {
    fn of(opened: &Opened, model: &str) -> Result<Self> {
        let list = |key: &str| {
            let said = opened.config[SLIM][key].as_array().into_iter().flatten();
            let mut all: Vec<f64> = said.filter_map(serde_json::Value::as_f64).collect();
            all.retain(|w| *w > 0.0 && *w <= 1.0);
            all.push(1.0);
            all.sort_by(f64::total_cmp);
            all.dedup();
            all
        };
        match opened.config[SLIM].is_object() {
            true => Ok(Self {
                widths: list("widths"),
                heads: list("heads"),
            }),
            false => Err(MergeError::plan("one-width", "has learned one width alone")
                .at(model.to_owned())
                .hint("[train.slim] learns several: docs/reference/training.md")
                .into()),
        }
    }

    /// Refuses widths that were not learned.
    fn knows(&self, width: f64, of_heads: f64, heads: &[Head], model: &str) -> Result<()> {
        let several = heads.iter().any(|h| h.layers.len() > 1);
        let unknown = match (self.widths.contains(&width), self.heads.contains(&of_heads)) {
            (false, _) => Some(("trunk", width, &self.widths)),
            (true, false) => Some(("heads", of_heads, &self.heads)),
            (true, true) if of_heads < 1.0 && !several => Some(("heads", of_heads, &self.heads)),
            (true, true) => None,
        };
        match unknown {
            None => Ok(()),
            Some((what, asked, known)) => {
                let known: Vec<String> = known.iter().map(f64::to_string).collect();
                let what = format!("has not learned {what} of {asked} of their width");
                Err(MergeError::plan("other-width", what)
                    .at(model.to_owned())
                    .hint(format!("it learned {}", known.join(", ")))
                    .into())
            }
        }
    }

    /// For every width of the trunk that leaves room the widest heads, those first that are preferred.
    fn within(&self, whole: &Form, budget: f64, preferences: &[f64]) -> Result<Vec<Tried>> {
        let mut order: Vec<usize> = (0..preferences.len()).collect();
        order.sort_by(|a, b| preferences[*b].total_cmp(&preferences[*a]));
        let mut found = Vec::new();
        for width in &self.widths {
            let mut form = whole.at(*width, vec![self.heads[0]; preferences.len()])?;
            if form.cost > budget {
                continue;
            }
            for goal in &order {
                for ratio in self.heads.iter().rev() {
                    let mut wider = form.heads.clone();
                    wider[*goal] = *ratio;
                    let wider = whole.at(*width, wider)?;
                    if wider.cost <= budget {
                        form = wider;
                        break;
                    }
                }
            }
            found.push(form);
        }
        Ok(found)
    }
}

/// What goals count, in the order of the heads.
fn preferred(said: &[(String, f64)], heads: &[Head], model: &str) -> Result<Vec<f64>> {
    let mut all = vec![1.0; heads.len()];
    for (name, value) in said {
        let is = |h: &Head| h.task == *name || h.task.rsplit('/').next() == Some(name);
        let places: Vec<usize> = (0..heads.len()).filter(|i| is(&heads[*i])).collect();
        let &[place] = &places[..] else {
            let known: Vec<&str> = heads.iter().map(|h| &*h.task).collect();
            let what = format!("has no goal `{name}`, or several that end so");
            return Err(MergeError::plan("no-goal", what)
                .at(model.to_owned())
                .hint(format!("its goals: {}", known.join(", ")))
                .into());
        };
        all[place] = *value;
    }
    match all.iter().all(|p| p.is_finite() && *p >= 0.0) && all.iter().sum::<f64>() > 0.0 {
        true => Ok(all),
        false => Err(MergeError::plan(
            "arguments",
            "what goals count is 0 or more, and not 0 for all",
        )
        .hint("--prefer depth=2")
        .into()),
    }
}

/// Multiplications of a picture.
struct Form<'a> {
    vit: &'a vit::Vit,
    heads: &'a [Head],
}

impl<'a> Form<'a> {
    fn whole(model: &'a Model, heads: &'a [Head]) -> Result<Self> {
        match &model.trunk {
            Trunk::Vit(vit) => Ok(Self { vit, heads }),
            _ => Err(Error::file(&model.folder, "is no vision transformer")),
        }
    }

    fn at(&self, width: f64, heads: Vec<f64>) -> Result<Tried> {
        let ones = vec![1.0; heads.len()];
        let cost = self.multiplications(width, &heads)? / self.multiplications(1.0, &ones)?;
        Ok(Tried {
            width,
            heads,
            cost,
            gains: Vec::new(),
            mean: f64::NAN,
        })
    }

    fn multiplications(&self, width: f64, heads: &[f64]) -> Result<f64> {
        let narrow = Slim::of(self.vit, width)?;
        let c = &narrow.vit.config;
        let patches = ((c.image_size / c.patch_size) as f64).powi(2);
        let (n, w, inner) = (
            1.0 + patches,
            c.hidden_size as f64,
            c.intermediate_size as f64,
        );
        let colours = (c.num_channels * c.patch_size * c.patch_size) as f64;
        let layer = n * (4.0 * w * w + 2.0 * w * inner) + 2.0 * n * n * w;
        let mut sum = patches * colours * w + c.num_hidden_layers as f64 * layer;
        for (head, ratio) in self.heads.iter().zip(heads) {
            let tokens = match head.kind {
                HeadKind::Dense(_) => patches,
                _ => 1.0,
            };
            let mut inputs = w;
            for (place, (weight, _)) in head.layers.iter().enumerate() {
                let all = weight.dims().first().copied().unwrap_or(0);
                let outputs = match place + 1 == head.layers.len() {
                    true => all,
                    false => crate::models::slim::channels(all, *ratio)?,
                } as f64;
                sum += tokens * inputs * outputs;
                inputs = outputs;
            }
        }
        Ok(sum)
    }
}
