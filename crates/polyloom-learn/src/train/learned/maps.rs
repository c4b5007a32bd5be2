//! Heads of maps, and what they begin with; what goes with experts.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Asked, Pixels, Wanted};
use polyloom::tasks::spec::TaskSpec;

use crate::error::Result;
use crate::models::open::Model;
use crate::tasks::head::maps::sides;
use crate::tasks::{Feature, Head};
use crate::train::pixels::{class_of, measured};
use crate::train::recipe::{Start, Train};

/// Whether a task asks for maps, beside whatever else.
pub(super) fn are_asked(spec: &TaskSpec) -> Result<bool> {
    Ok(examples::asked(spec)?.iter().any(|a| a.pixels.is_some()))
}

/// Refuses what does not go together with maps.
///
/// # Errors
/// Pictures that are turned while their maps are not, another feature than all tokens; all tokens for a task without maps.
pub(super) fn check(t: &Train, spec: &TaskSpec, model: &Model, dense: bool) -> Result<()> {
    let bad = |what: String, hint: &str| {
        let what = format!("{what} (task `{}`)", spec.id);
        Err(MergeError::plan("bad-recipe", what).hint(hint).into())
    };
    match (dense, t.head.feature) {
        (true, None | Some(Feature::Patches)) => {}
        (true, Some(other)) => {
            let word = other.word();
            return bad(
                format!("`train.head.feature = \"{word}\"`: maps are learned from patches"),
                "leave it out",
            );
        }
        (false, Some(Feature::Patches)) => {
            return bad(
                "`train.head.feature = \"patches\"` is for tasks that ask for maps".into(),
                "leave it out",
            );
        }
        (false, _) => return Ok(()),
    }
    if t.augment > 0.0 {
        return bad(
            "`train.augment` turns and shifts pictures, and their maps would stay".into(),
            "augment = 0",
        );
    }
    sides(model, &spec.id).map(drop)
}

/// Refuses what does not go together with experts.
///
/// # Errors
/// What takes apart a pass whose loss has more than those of the goals; where experts are chosen by goal, what looks at features
/// without a goal.
pub(super) fn check_experts(t: &Train, model: &Model) -> Result<()> {
    let (experts, by_goal) = (model.experts(), model.goals().is_some());
    if experts.is_none() && !by_goal {
        return Ok(());
    }
    let probe = t.head.start == Start::Probe && by_goal;
    // Which experts a goal has of its own is seen where all goals pass at once; balanced, each passes on its own.
    let informed = experts.is_some_and(|e| e.config.mutual_information > 0.0);
    let others = [
        (
            "[train.balance] with `moe.mutual_information`",
            t.balance.is_some() && informed,
        ),
        ("[train.representation]", t.representation.is_some()),
        ("Sophia", t.optimiser.is_sophia()),
        ("train.head.start = \"probe\"", probe),
    ];
    match others.iter().find(|(_, said)| *said) {
        None => Ok(()),
        Some((what, _)) => {
            let what = format!("{what} does not go with experts");
            let error = MergeError::plan("bad-recipe", what);
            Err(error.hint("leave out one of them").into())
        }
    }
}

/// A head of maps: of depths with mean and deviation of the training rows' pixels, of edges with the weight of an edge pixel,
/// the square root of "no edge" over "edge" among them. Counted as 1 edges are hardly ever said, counted as often as the rest
/// (the ratio itself, Xie and Tu 2015) nearly everywhere; the root lies between.
///
/// # Errors
/// Maps of another size than the model's pictures, classes that are none, nothing to learn.
pub(super) fn blank(
    name: &str,
    pixels: Pixels,
    asked: &Asked,
    known: &[&Wanted],
    model: &Model,
) -> Result<Head> {
    let refuse = |what: String, hint: &str| {
        Err(
            MergeError::plan("bad-task", format!("task `{name}`: {what}"))
                .hint(hint)
                .into(),
        )
    };
    let [patch, side] = sides(model, name)?;
    let mut labels = asked.classes.clone();
    // Classes that nobody named count from 0.
    let most = |values: &[f32]| values.iter().filter_map(|x| class_of(*x, 255).ok()?).max();
    if pixels == Pixels::Classes && labels.is_empty() {
        let largest = known.iter().filter_map(|w| most(map(w).0)).max();
        labels = (0..=largest.unwrap_or(0)).map(|c| c.to_string()).collect();
    }
    let mut head = Head::dense(name, pixels, labels, model.width(), patch)?;
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for wanted in known {
        let (values, mask) = map(wanted);
        let size = side * side * pixels.values();
        if values.len() != size {
            return refuse(
                format!(
                    "a map has {} values, and pictures of {side} x {side} have {size}",
                    values.len()
                ),
                "maps have the size that the model sees: image_size in [train.new]",
            );
        }
        for (i, pixel) in values.chunks_exact(pixels.values()).enumerate() {
            let seen = mask.is_none_or(|m| m.get(i) == Some(&true));
            if !seen || !measured(pixels, pixel) {
                continue;
            }
            let x = match pixels {
                Pixels::Classes => match class_of(pixel[0], head.labels.len()) {
                    Ok(Some(class)) => f64::from(class),
                    Ok(None) => continue,
                    Err(what) => return refuse(what, "`polyloom tasks check` shows why"),
                },
                Pixels::Depth => f64::from(pixel[0]),
                Pixels::Normals => 0.0,
                Pixels::Edges => f64::from(u8::from(pixel[0] > 0.5)),
            };
            (n, sum, squares) = (n + 1.0, sum + x, squares + x * x);
        }
    }
    let mean = sum / n;
    let varies = squares / n - mean * mean;
    if n == 0.0 || (pixels != Pixels::Normals && varies.is_nan()) {
        return refuse(
            "no pixel of a training row says what is right".into(),
            "look at the maps and the mask of its metrics",
        );
    }
    if pixels != Pixels::Normals && varies <= 0.0 {
        return refuse(
            format!("all pixels of the training rows say {mean}"),
            "there is nothing to learn from a constant",
        );
    }
    match pixels {
        Pixels::Depth => head.scale = [mean, varies.sqrt()],
        Pixels::Edges => head.positive = ((1.0 - mean) / mean).sqrt(),
        Pixels::Classes | Pixels::Normals => {}
    }
    Ok(head)
}

/// Values and mask of a map.
fn map(wanted: &Wanted) -> (&[f32], Option<&[bool]>) {
    match wanted {
        Wanted::Map { values, mask } => (values, mask.as_deref()),
        _ => (&[], None),
    }
}
