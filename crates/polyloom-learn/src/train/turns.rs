//! Losses of goals on every state of a model that reads its modalities in turn (MultiModN).

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;

use super::learned::Learned;
use super::objective::loss_by;
use super::recipe::{Recipe, Train};
use super::rowwise::Form;
use crate::engine::Value;
use crate::error::Result;
use crate::models::Source;
use crate::models::open::{Model, Trunk};
use crate::models::table::turns::InTurn;
use crate::tasks::Head;

/// How the goals of a model learn from its states; `None` where it has one alone.
pub(super) fn of(model: &Model) -> Option<InTurn> {
    match &model.trunk {
        Trunk::Table(table) => table.in_turn(),
        _ => None,
    }
}

/// Whether a recipe goes with losses on every state.
///
/// # Errors
/// What does not.
pub(super) fn check(recipe: &Recipe, model: &Model) -> Result<()> {
    let Some(_) = of(model) else {
        return Ok(());
    };
    let t = &recipe.train;
    let groups = model.table.as_ref().and_then(|t| t.groups());
    let key = [
        ("train.chain", t.chain.is_some()),
        ("train.fuse", t.fuse.is_some()),
        ("train.representation", t.representation.is_some()),
        ("train.new.goals = \"groups\"", groups.is_some()),
    ];
    match key.iter().find(|(_, said)| *said) {
        None => Ok(()),
        Some((key, _)) => {
            let what = format!(
                "`{key}` does not go with an architecture whose goals learn from every state"
            );
            Err(MergeError::plan("bad-recipe", what)
                .hint("leave it out, or take another architecture than `multimodn`")
                .into())
        }
    }
}

/// The loss of each head of a task on some of its training rows, with how many of them have a label; `None` where none has.
/// `features` are those of training ([`InTurn`]).
///
/// # Errors
/// Shapes that do not fit together.
pub(super) fn losses(
    turn: InTurn,
    source: &dyn Source,
    task: &Learned<'_>,
    heads: &[Head],
    features: &Value,
    drawn: &[u32],
    (t, form): (&Train, Form),
) -> Result<Vec<Option<(Value, usize)>>> {
    let rows = &task.train;
    let states = (0..=turn.modalities).map(|state| {
        let seen = turn.features(features, state)?;
        Ok((seen, turn.there(features, state)?))
    });
    let states: Vec<(Value, Vec<bool>)> = states.collect::<Result<_>>()?;
    let one = |(place, head): (usize, &Head)| {
        let wanted = drawn
            .iter()
            .map(|&i| rows.wanted[place][i as usize].as_ref());
        let wanted: Vec<Option<&Wanted>> = wanted.collect();
        let counts = task.counts.train.get(place).and_then(Option::as_ref);
        let counts: Option<Vec<f32>> =
            counts.map(|all| drawn.iter().map(|&i| all[i as usize]).collect());
        let weight = |i: usize| counts.as_ref().map_or(1.0, |c| c[i]);
        // What the rows with a label count, of those that are there.
        let counted = |there: &dyn Fn(usize) -> bool| -> f32 {
            let known = (0..wanted.len()).filter(|&i| wanted[i].is_some() && there(i));
            known.map(weight).sum()
        };
        let all = counted(&|_| true);
        let n = wanted.iter().flatten().count();
        if n == 0 || all <= 0.0 {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(states.len());
        for (seen, there) in &states {
            let here: Vec<Option<&Wanted>> = wanted
                .iter()
                .zip(there)
                .map(|(wanted, there)| wanted.filter(|_| *there))
                .collect();
            if here.iter().all(Option::is_none) {
                continue;
            }
            let said = head.forward(source, seen)?;
            let smoothing = t.smoothing as f32;
            let loss = loss_by(head, &said, &here, counts.as_deref(), smoothing, form)?;
            if let Some((loss, _)) = loss {
                found.push((loss, counted(&|i| there[i]) / all));
            }
        }
        Ok(Some((turn.loss(&found, features)?, n)))
    };
    heads.iter().enumerate().map(one).collect()
}
