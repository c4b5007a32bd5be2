//! What tasks do to the representation that their heads share, in place of their parameters: GradDrop and Rep-MTL.
//!
//! The representation Z `[rows, width]` is what the heads see. GradDrop (Chen et al., NeurIPS 2020) lets back into the trunk,
//! column by column, either what goals with a positive sign say or what those with a negative one say. Rows of several
//! tasks stand side by side; a goal's gradient on rows of other tasks is 0, and its sign in a column is that of the sum over
//! its own rows.
//!
//! Rep-MTL (Wang et al., ICCV 2025; our definition) adds two regularisers on the saliencies `S_t = dL_t/dZ` of the goals of one
//! task, which see the same rows: the entropy of their shares, and the contrast of each goal's channel affinities to their
//! mean. A head of one layer has `S_t = (p - y) W / n` (`2 (f - y) W / n` of numbers), which is written out, so that the
//! gradient by Z and W is whole and needs no graph of second order.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::mixing::Mixing;
use super::pass::{Drawn, goals, seed_of, seen};
use super::recipe::{Method, Recipe, Train};
use super::run::Job;
use super::trainee::Trainee;
use crate::balance::within;
use crate::engine::{Gradients, Value, compose, slice, tensor};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::ops::{self, Activation};
use crate::tasks::{Feature, Head, HeadKind};

/// `[train.representation]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Representation {
    /// Signs of the goals' gradients, drawn column by column.
    Graddrop {
        /// Share of what is dropped that stays.
        #[serde(default)]
        leak: f64,
    },
    /// Regularisers on the goals' saliencies.
    RepMtl {
        /// Factor of the entropy of the goals' shares.
        #[serde(default = "usual")]
        tsr: f64,
        /// Factor of the contrast of channel affinities.
        #[serde(default = "usual")]
        csa: f64,
        /// Divides the affinities' products in the contrast.
        #[serde(default = "one")]
        tau: f64,
    },
}

fn usual() -> f64 {
    0.9
}

fn one() -> f64 {
    1.0
}

/// Whether the keys about the representation go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    match &t.representation {
        None => return Ok(()),
        Some(Representation::Graddrop { leak }) if !(0.0..=1.0).contains(leak) => {
            return bad("`train.representation.leak` must be in 0 to 1", "");
        }
        Some(Representation::RepMtl { tsr, csa, tau }) => {
            let numbers = [*tsr, *csa].iter().all(|x| x.is_finite() && *x >= 0.0);
            if !(numbers && tau.is_finite() && *tau > 0.0) {
                return bad(
                    "`train.representation`: `tsr` and `csa` must be at least 0, `tau` above 0",
                    "",
                );
            }
        }
        Some(Representation::Graddrop { .. }) => {}
    }
    let others = [
        ("[train.balance]", t.balance.is_some()),
        ("[train.language]", t.language.is_some()),
        ("[train.fuse]", t.fuse.is_some()),
        ("method = \"head\"", t.method == Method::Head),
        ("Sophia", t.optimiser.is_sophia()),
        ("train.mixing", t.mixing != Mixing::Batch),
    ];
    match others.iter().find(|(_, said)| *said) {
        Some((what, _)) => bad(
            &format!(
                "`[train.representation]` acts where heads of several goals meet in one pass; it does not go with {what}"
            ),
            "leave out one of them",
        ),
        None => Ok(()),
    }
}

/// Refuses heads without a representation in common.
///
/// # Errors
/// One goal, heads that see different things, for Rep-MTL heads of several layers or no task of several goals.
pub(super) fn check_heads(recipe: &Recipe, tasks: &[Learned<'_>], heads: &[Head]) -> Result<()> {
    let Some(how) = &recipe.train.representation else {
        return Ok(());
    };
    let bad =
        |what: String, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint).into());
    if heads.len() < 2 {
        return bad(
            "`[train.representation]` is about goals that are learned together; there is one"
                .into(),
            "name a second task, or leave the table out",
        );
    }
    for head in heads {
        let alone = matches!(head.feature, Feature::Goal | Feature::Patches) || !head.has_layers();
        if alone || head.feature != heads[0].feature || head.inputs() != heads[0].inputs() {
            return bad(
                format!(
                    "`[train.representation]`: goal `{}` (feature `{}`) does not see what the others see",
                    head.task,
                    head.feature.word()
                ),
                "one train.head.feature for all tasks; goals of tables have towers of their own, which `[train.balance]` takes apart",
            );
        }
        if matches!(how, Representation::RepMtl { .. }) && head.layers.len() != 1 {
            return bad(
                format!(
                    "`rep_mtl`: the head of `{}` has {} layers",
                    head.task,
                    head.layers.len()
                ),
                "heads of one layer: train.head.start = \"random\"",
            );
        }
    }
    let several = tasks.iter().any(|t| t.heads.len() > 1);
    if matches!(how, Representation::RepMtl { .. }) && !several {
        return bad(
            "`rep_mtl` compares goals on the same rows; every task has one target".into(),
            "a task with several targets, or method = \"graddrop\"",
        );
    }
    Ok(())
}

/// One pass with GradDrop: gradients of heads and trunk, times `share`, are added to `gradients`.
#[allow(
    clippy::too_many_arguments,
    reason = "the state of the loop, taken apart"
)]
pub(super) fn graddrop(
    job: &Job<'_>,
    trainee: &Trainee,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
    sums: &mut [(f64, f64)],
    (leak, share): (f64, f64),
    gradients: &mut Gradients,
) -> Result<()> {
    trainee.with(Some(seed_of(job, drawn.before)), |source| {
        let seen = seen(job, source, tasks, heads, drawn)?;
        let first = |(k, mut seen): (usize, Vec<Value>)| (k, seen.swap_remove(0));
        let seen: Vec<(usize, Value)> = seen.into_iter().map(first).collect();
        // Every goal has a leaf of its own over the same numbers, which keeps its gradient.
        let leaves = |(k, z): &(usize, Value)| {
            let of = tasks[*k].heads.clone();
            (*k, of.map(|_| Value::leaf(z.data().clone())).collect())
        };
        let leaves: Vec<(usize, Vec<Value>)> = seen.iter().map(leaves).collect();
        let parts = goals(job, source, tasks, heads, drawn, &leaves)?;
        let total: f64 = parts.iter().map(|p| p.n).sum();
        let width = heads.first().map_or(0, Head::inputs);
        let mut representation = Vec::new();
        let mut starts = Vec::new();
        for (_, z) in &seen {
            starts.push(representation.len());
            representation.extend_from_slice(&slice(z.data())?);
        }
        let mut of_goals: Vec<Vec<f32>> = Vec::new();
        for ((part, (_, leaves)), start) in parts.iter().zip(&leaves).zip(&starts) {
            part.count(job, tasks, drawn, sums)?;
            for ((loss, of_goal), leaf) in part.losses.iter().zip(part.shares()).zip(leaves) {
                let (Some(loss), Some(of_goal)) = (loss, of_goal) else {
                    continue;
                };
                let factor = share * part.n / total * of_goal;
                ops::scale(loss, factor as f32)?.backward_into(gradients)?;
                let mut own = vec![0f32; representation.len()];
                if let Some(g) = gradients.get(leaf) {
                    let g = slice(g)?;
                    own[*start..start + g.len()].copy_from_slice(&g);
                }
                of_goals.push(own);
            }
        }
        let stream = Stream::new(job.recipe.seed, "graddrop", drawn.before);
        let uniform: Vec<f32> = (0..width as u64).map(|i| stream.uniform(i)).collect();
        let of_goals: Vec<&[f32]> = of_goals.iter().map(Vec::as_slice).collect();
        let (_, back) = within::graddrop(&representation, &of_goals, &uniform, leak);
        // A number whose gradient by Z is what goes back: one way through the trunk for all tasks.
        let mut whole: Option<Value> = None;
        for ((_, z), start) in seen.iter().zip(&starts) {
            let n = z.data().elem_count();
            let part = tensor(back[*start..start + n].to_vec(), z.dims())?;
            let part = ops::sum(&ops::mul(z, &Value::constant(part))?)?;
            whole = Some(match whole {
                Some(sum) => ops::add(&sum, &part)?,
                None => part,
            });
        }
        whole.map_or(Ok(()), |loss| loss.backward_into(gradients))
    })
}

/// What Rep-MTL adds to the loss of a task with several goals on its drawn rows, which is the mean over its goals: so are the
/// regularisers. None of a task with one.
///
/// # Errors
/// Shapes that do not fit.
pub(super) fn regulariser(
    t: &Train,
    source: &dyn Source,
    task: &Learned<'_>,
    heads: &[Head],
    z: &Value,
    rows: &[u32],
) -> Result<Option<Value>> {
    let Some(Representation::RepMtl { tsr, csa, tau }) = &t.representation else {
        return Ok(None);
    };
    if heads.len() < 2 {
        return Ok(None);
    }
    let mut saliencies = Vec::new();
    for (place, head) in heads.iter().enumerate() {
        let wanted = rows
            .iter()
            .map(|i| task.train.wanted[place][*i as usize].as_ref());
        let wanted: Vec<Option<&Wanted>> = wanted.collect();
        saliencies.push(saliency(head, source, z, &wanted, t.smoothing as f32)?);
    }
    let (a, b) = (shares(&saliencies)?, affinities(&saliencies, *tau)?);
    let share = 1.0 / heads.len() as f64;
    let both = ops::add(
        &ops::scale(&a, (share * tsr) as f32)?,
        &ops::scale(&b, (share * csa) as f32)?,
    )?;
    Ok(Some(both))
}

/// `dL/dZ` of the mean loss of a head of one layer over the rows that say what is right, as a value that goes back; 0 on other rows.
fn saliency(
    head: &Head,
    source: &dyn Source,
    z: &Value,
    wanted: &[Option<&Wanted>],
    smoothing: f32,
) -> Result<Value> {
    let said = head.forward(source, z)?;
    let (n, width) = (wanted.len(), head.outputs());
    let known = wanted.iter().flatten().count().max(1) as f32;
    let (mut right, mut mask) = (vec![0f32; n * width], vec![0f32; n * width]);
    for (i, wanted) in wanted.iter().enumerate() {
        let Some(wanted) = wanted else { continue };
        let at = i * width..(i + 1) * width;
        let (right, factor) = (&mut right[at.clone()], &mut mask[at]);
        match wanted {
            Wanted::Class(c) => {
                right.fill(smoothing / width as f32);
                if let Some(r) = right.get_mut(*c as usize) {
                    *r += 1.0 - smoothing;
                }
                factor.fill(1.0 / known);
            }
            Wanted::Set(set) => {
                for c in set {
                    if let Some(r) = right.get_mut(*c as usize) {
                        *r = 1.0;
                    }
                }
                factor.fill(1.0 / (known * width as f32));
            }
            Wanted::Number(x) => {
                let [mean, deviation] = head.scale;
                right.fill(((x - mean) / deviation) as f32);
                factor.fill(2.0 / known);
            }
            Wanted::Relevant { .. } | Wanted::Map { .. } => {
                return Err(Error::shape("saliency", "an answer of vectors or maps"));
            }
        }
    }
    let p = match head.kind {
        HeadKind::Classification => ops::softmax(&said)?,
        HeadKind::Multilabel => ops::activate(&said, Activation::Sigmoid)?,
        HeadKind::Regression | HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => said,
    };
    let constant = |v| Ok::<_, Error>(Value::constant(tensor(v, (n, width))?));
    let off = ops::mul(&ops::sub(&p, &constant(right)?)?, &constant(mask)?)?;
    let weight = source.tensor(&format!("{}.weight", head.layer(0)))?;
    ops::product(&off, &weight)
}

/// The entropy of the goals' shares of the saliency, mean over rows and columns.
fn shares(saliencies: &[Value]) -> Result<Value> {
    let all: Vec<&Value> = saliencies.iter().collect();
    compose("shares of saliency", &all, |t| {
        let mut sum = (t[0].abs()? + 1e-8)?;
        for s in &t[1..] {
            sum = (sum + s.abs()?)?;
        }
        let mut entropy = t[0].zeros_like()?;
        for s in t {
            let p = s.abs()?.div(&sum)?;
            entropy = (entropy - p.mul(&(&p + 1e-8)?.log()?)?)?;
        }
        entropy.mean_all()
    })
}

/// The contrast of channel affinities. A goal's affinity in a row is `s s^T` at length 1, so products of affinities are squares
/// of products of unit vectors, and no matrix of channels is made.
fn affinities(saliencies: &[Value], tau: f64) -> Result<Value> {
    let all: Vec<&Value> = saliencies.iter().collect();
    let stacked = ops::concat(&all, 0)?;
    let goals = saliencies.len();
    let n = stacked.dims()[0] / goals.max(1);
    let mut own = vec![0f32; n * n];
    (0..n).for_each(|b| own[b * n + b] = 1.0);
    let own = tensor(own, (1, n, n))?;
    compose("channel affinities", &[&stacked], move |t| {
        let length = (t[0].sqr()?.sum_keepdim(1)? + 1e-24)?.sqrt()?;
        let unit = t[0].broadcast_div(&length)?;
        let squares = unit.matmul(&unit.t()?.contiguous()?)?.sqr()?;
        // Of goal t in row b with the mean affinity of row b': [t, b, b'].
        let near = squares.reshape((goals, n, goals, n))?.mean(2)?;
        let lengths = near.broadcast_mul(&own)?.sum(1)?.mean(0)?;
        let lengths = (lengths + 1e-24)?.sqrt()?.reshape((1, 1, n))?;
        let near = (near.broadcast_div(&lengths)? / tau)?;
        let all = near.exp()?.sum(2)?.log()?;
        let same = near.broadcast_mul(&own)?.sum(2)?;
        (all - same)?.mean_all()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Plain;
    use crate::train::objective::loss;

    fn noise(n: usize, key: u64) -> Vec<f32> {
        let s = Stream::new(key, "representation", 0);
        (0..n as u64).map(|i| s.normal(i)).collect()
    }

    #[test]
    fn values_are_those_of_the_definition() {
        let (goals, rows, width) = (3, 4, 5);
        let all: Vec<Vec<f32>> = (0..goals).map(|g| noise(rows * width, g)).collect();
        let values: Vec<Value> = all
            .iter()
            .map(|v| Value::leaf(tensor(v.clone(), (rows, width)).unwrap()))
            .collect();
        let slices: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        // Shares by row and column; affinities of columns.
        let wanted = within::rep_mtl(&slices, rows, 1, 1.0).tsr as f32;
        let found = shares(&values).unwrap();
        assert!((found.number().unwrap() - wanted).abs() < 1e-5);
        for tau in [1.0, 0.3] {
            let wanted = within::rep_mtl(&slices, rows, width, tau).csa as f32;
            let found = affinities(&values, tau).unwrap();
            assert!((found.number().unwrap() - wanted).abs() < 1e-5, "{tau}");
            let gradients = found.backward().unwrap();
            let g = slice(gradients.get(&values[1]).unwrap()).unwrap().to_vec();
            for i in [0, 7, 19] {
                let at = |e: f32| {
                    let mut moved = all.clone();
                    moved[1][i] += e;
                    let moved: Vec<&[f32]> = moved.iter().map(Vec::as_slice).collect();
                    within::rep_mtl(&moved, rows, width, tau).csa
                };
                let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((slope - f64::from(g[i])).abs() < 1e-3, "{slope} {}", g[i]);
            }
        }
    }

    /// What is written out is what goes back through the loss.
    #[test]
    fn saliencies_are_gradients_of_the_loss() {
        let (n, width) = (4, 3);
        for (kind, labels, wanted) in [
            (
                HeadKind::Classification,
                2,
                [Wanted::Class(0), Wanted::Class(1)],
            ),
            (
                HeadKind::Multilabel,
                2,
                [Wanted::Set(vec![1]), Wanted::Set(vec![0, 1])],
            ),
            (
                HeadKind::Regression,
                0,
                [Wanted::Number(1.0), Wanted::Number(-3.0)],
            ),
        ] {
            let labels = (0..labels).map(|i| format!("{i}")).collect();
            let mut head = Head::zeros("t", Feature::Cls, kind, labels, width).unwrap();
            head.scale = [0.5, 2.0];
            let outputs = head.outputs();
            head.layers[0].0 = tensor(noise(outputs * width, 9), (outputs, width)).unwrap();
            let source = Plain::new(head.tensors());
            let z = Value::leaf(tensor(noise(n * width, 5), (n, width)).unwrap());
            let wanted = [Some(&wanted[0]), None, Some(&wanted[1]), Some(&wanted[0])];
            let said = head.forward(&source, &z).unwrap();
            let (value, _) = loss(&head, &said, &wanted, 0.1).unwrap().unwrap();
            let gradients = value.backward().unwrap();
            let by_graph = slice(gradients.get(&z).unwrap()).unwrap().to_vec();
            let written = saliency(&head, &source, &z, &wanted, 0.1).unwrap();
            let written = slice(written.data()).unwrap().to_vec();
            for (a, b) in written.iter().zip(&by_graph) {
                assert!((a - b).abs() < 1e-6, "{kind:?}: {written:?} {by_graph:?}");
            }
        }
    }

    #[test]
    fn keys_that_do_not_go_together_are_refused() {
        let read = |more: &str| {
            let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{more}");
            Recipe::read(&text, "f", &[])
        };
        let told = |more: &str| read(more).unwrap_err().to_string();
        let drop = "[train.representation]\nmethod = \"graddrop\"\n";
        assert!(told(&format!("{drop}leak = 2.0\n")).contains("in 0 to 1"));
        assert!(told(&format!("{drop}tau = 2.0\n")).contains("tau"));
        assert!(told(&format!("method = \"head\"\n{drop}")).contains("does not go with"));
        assert!(told(&format!("mixing = \"unmixed\"\n{drop}")).contains("train.mixing"));
        let mtl = "[train.representation]\nmethod = \"rep_mtl\"\n";
        assert!(told(&format!("{mtl}tau = 0.0\n")).contains("`tau` above 0"));
        assert_eq!(
            read(mtl).unwrap().train.representation,
            Some(Representation::RepMtl {
                tsr: 0.9,
                csa: 0.9,
                tau: 1.0
            })
        );
        let head =
            |feature| Head::zeros("t", feature, HeadKind::Regression, Vec::new(), 4).unwrap();
        let recipe = read(drop).unwrap();
        let said = check_heads(&recipe, &[], &[head(Feature::Cls)]).unwrap_err();
        assert!(said.to_string().contains("there is one"));
        let two = [head(Feature::Cls), head(Feature::Mean)];
        let said = check_heads(&recipe, &[], &two).unwrap_err();
        assert!(
            said.to_string()
                .contains("does not see what the others see")
        );
        let same = [head(Feature::Cls), head(Feature::Cls)];
        assert!(check_heads(&recipe, &[], &same).is_ok());
        let said = check_heads(&read(mtl).unwrap(), &[], &same).unwrap_err();
        assert!(said.to_string().contains("same rows"));
    }
}
