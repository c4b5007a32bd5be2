//! One trunk that is learned at several widths at once (Yu et al., ICLR 2019; Efficient Controllable Multi-Task Architectures,
//! ICCV 2023): `polyloom compress slim` takes out the one that a budget allows.
//!
//! A step learns the whole model, its narrowest form, and one whose widths are drawn: of the trunk one for all, of every head
//! its own. The loss is the sum of theirs and `distil` times the mean over the narrow ones of `|P_r z_r - z|^2`, z the whole
//! trunk's feature, which stays, `P_r` a matrix that is learned and dropped in the end. The mean is over channels, tokens and
//! rows: a scale that does not go with the width (the paper says none).

use polyloom::MergeError;
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::part::Part;
use super::pass::{Drawn, goals, joined, seen};
use super::recipe::{Method, Recipe, Train};
use super::run::Job;
use crate::engine::{Tensor, Value, tensor};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::{Model, Trunk};
use crate::models::slim::{Slim, Slimmed};
use crate::ops;
use crate::tasks::Head;

/// `[train.slim]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlimRecipe {
    /// Parts of the trunk's width, above 0 and up to 1.
    pub widths: Vec<f64>,
    /// Parts of the width between the layers of heads.
    pub heads: Vec<f64>,
    /// Factor of the distance to the whole trunk's features.
    pub distil: f64,
}

impl Default for SlimRecipe {
    fn default() -> Self {
        Self {
            widths: vec![0.25, 0.5, 0.75, 1.0],
            heads: vec![1.0],
            distil: 1.0,
        }
    }
}

impl SlimRecipe {
    /// Widths below the whole one, from the narrowest on.
    fn narrow(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.widths.iter().copied().filter(|w| *w < 1.0).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }
}

/// Whether the keys about widths go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let Some(slim) = &t.slim else { return Ok(()) };
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    let part = |w: &f64| *w > 0.0 && *w <= 1.0;
    if !slim.widths.iter().chain(&slim.heads).all(part) || slim.narrow().is_empty() {
        return bad(
            "`train.slim`: `widths` and `heads` are parts above 0 and up to 1, one of `widths` below 1",
            "widths = [0.25, 0.5, 0.75, 1.0]",
        );
    }
    if slim.heads.is_empty() || !(slim.distil.is_finite() && slim.distil >= 0.0) {
        return bad(
            "`train.slim`: `heads` has no width, or `distil` is below 0",
            "heads = [1.0] leaves heads as they are",
        );
    }
    if slim.heads.iter().any(|w| *w < 1.0) && t.head.hidden.is_none() {
        return bad(
            "`train.slim.heads`: heads of one layer have no width of their own",
            "[train.head] hidden = 64 puts a layer in between",
        );
    }
    let others = [
        ("[train.balance]", t.balance.is_some()),
        ("[train.representation]", t.representation.is_some()),
        ("[train.language]", t.language.is_some()),
        ("[train.fuse]", t.fuse.is_some()),
        ("[train.add]", t.add.is_some()),
        ("another method than \"full\"", t.method != Method::Full),
        ("Sophia", t.optimiser.is_sophia()),
    ];
    match others.iter().find(|(_, said)| *said) {
        Some((what, _)) => bad(
            &format!(
                "`[train.slim]` learns several widths in one pass; it does not go with {what}"
            ),
            "leave out one of them",
        ),
        None => Ok(()),
    }
}

/// A width of a pass.
struct Rung {
    slim: Slim,
    model: Model,
    /// Its matrix.
    matrix: String,
}

/// The trunk at a part of its width.
///
/// # Errors
/// Any but a plain vision transformer.
pub fn of(model: &Model, ratio: f64) -> Result<Slim> {
    let Trunk::Vit(vit) = &model.trunk else {
        return Err(no_widths());
    };
    Slim::of(vit, ratio)
}

fn no_widths() -> Error {
    let what = "`[train.slim]` is for vision transformers (model_type = \"vit\")";
    MergeError::plan("bad-recipe", what)
        .hint("leave it out")
        .into()
}

/// Cuts a head by the width of a trunk and a part of its own.
///
/// # Errors
/// As [`Slim::cut`].
pub fn cut(slim: &mut Slim, head: &Head, ratio: f64) -> Result<()> {
    let layers = head.layers.iter().enumerate().map(|(i, (w, _))| {
        let inputs = w.dims().get(1).copied().unwrap_or(0);
        (head.layer(i), [w.dims()[0], inputs])
    });
    slim.cut(&layers.collect::<Vec<_>>(), ratio)
}

fn rung(job: &Job<'_>, heads: &[Head], place: usize, width: f64, of_heads: &[f64]) -> Result<Rung> {
    let mut slim = of(job.model, width)?;
    for (head, ratio) in heads.iter().zip(of_heads) {
        cut(&mut slim, head, *ratio)?;
    }
    let model = Model {
        trunk: Trunk::Vit(slim.vit.clone()),
        folder: job.model.folder.clone(),
        weights: crate::models::Plain::default(),
        sentence: job.model.sentence.clone(),
        classes: Vec::new(),
        kind: job.model.kind,
        tokenizer: None,
        table: None,
        added: Vec::new(),
    };
    let matrix = format!("slim.{place}.weight");
    Ok(Rung {
        slim,
        model,
        matrix,
    })
}

/// The matrices `P_r` of the narrow widths, `[width, narrow width]`, by name: ones on the diagonal.
///
/// # Errors
/// Any but a plain vision transformer.
pub(super) fn matrices(recipe: &Recipe, model: &Model) -> Result<Vec<(String, Tensor)>> {
    let Some(how) = &recipe.train.slim else {
        return Ok(Vec::new());
    };
    let one = |(place, ratio): (usize, f64)| {
        let (rows, columns) = (model.width(), of(model, ratio)?.vit.config.hidden_size);
        let mut values = vec![0f32; rows * columns];
        (0..columns).for_each(|i| values[i * columns + i] = 1.0);
        let name = format!("slim.{place}.weight");
        Ok((name, tensor(values, (rows, columns))?))
    };
    how.narrow().into_iter().enumerate().map(one).collect()
}

/// What narrower widths add to the loss of a pass, of what the whole trunk says of its rows; `None` where nothing is learned
/// at several widths.
pub(super) fn narrower(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
    whole: &[(usize, Vec<Value>)],
) -> Result<Option<Value>> {
    let Some(how) = &job.recipe.train.slim else {
        return Ok(None);
    };
    let narrow = how.narrow();
    let stream = Stream::new(job.recipe.seed, "slim", drawn.before);
    let pick = |i: usize, n: usize| (stream.bits(i as u64) % n.max(1) as u64) as usize;
    let least = how.heads.iter().copied().fold(1.0, f64::min);
    let mut rungs = vec![rung(job, heads, 0, narrow[0], &vec![least; heads.len()])?];
    let drawn_heads: Vec<f64> = (0..heads.len())
        .map(|i| how.heads[pick(i + 1, how.heads.len())])
        .collect();
    let place = pick(0, narrow.len());
    rungs.push(rung(job, heads, place, narrow[place], &drawn_heads)?);
    let share = how.distil / rungs.len() as f64;
    let mut sum: Option<Value> = None;
    let mut more = |value: Value| {
        sum = Some(match sum.take() {
            Some(before) => ops::add(&before, &value)?,
            None => value,
        });
        Ok::<_, Error>(())
    };
    for rung in &rungs {
        let own = Slimmed::over(source, &rung.slim);
        let job = Job {
            model: &rung.model,
            ..*job
        };
        let seen = seen(&job, &own, tasks, heads, drawn)?;
        let parts: Vec<Part> = goals(&job, &own, tasks, heads, drawn, &seen)?;
        if let Some(loss) = joined(&parts)? {
            more(loss)?;
        }
        if share > 0.0 {
            let matrix = source.tensor(&rung.matrix)?;
            let rows: usize = seen.iter().map(|(_, z)| z[0].dims()[0]).sum();
            for ((_, z), (_, target)) in seen.iter().zip(whole) {
                let n = z[0].dims()[0] as f64 / rows.max(1) as f64;
                more(ops::scale(
                    &apart(&z[0], &matrix, &target[0])?,
                    (share * n) as f32,
                )?)?;
            }
        }
    }
    Ok(sum)
}

/// The mean of `(P z - target)^2`; the target stays.
fn apart(z: &Value, matrix: &Value, target: &Value) -> Result<Value> {
    let lifted = ops::linear(z, matrix, None)?;
    let off = ops::sub(&lifted, &Value::constant(target.data().clone()))?;
    let count = off.data().elem_count().max(1) as f32;
    ops::scale(&ops::sum(&ops::mul(&off, &off)?)?, 1.0 / count)
}
