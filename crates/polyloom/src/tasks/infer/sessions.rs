//! Tables of sessions: what the user said, and the target that asks for items.

use super::Wishes;
use crate::error::{MergeError, Result};
use crate::tasks::predicate::Predicate;
use crate::tasks::spec::{GroupAs, Metric, Target, TaskType};

/// The target that asks for the item of a row of a session.
pub const NEXT: &str = "next";

/// Whether what is said of sessions goes together.
pub(super) fn check(wishes: &Wishes) -> Result<()> {
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-flag", what).hint(hint));
    let sees = wishes.item.is_some() || !wishes.history.is_empty();
    if wishes.session.is_some() != sees {
        return bad(
            "sessions need two columns: whose session a row is of, and which item it is about, or what earlier rows show it",
            "--session COLUMN, and --item COLUMN or --history A,B; --order COLUMN for the order of its rows",
        );
    }
    if wishes.item.is_some() && !wishes.history.is_empty() {
        return bad(
            "--item asks for the items of sessions, --history shows rows what was before them",
            "leave one out",
        );
    }
    let named = |one: &Option<String>| one.iter().any(|name| wishes.history.contains(name));
    let others = [
        &wishes.group,
        &wishes.time,
        &wishes.weight,
        &wishes.session,
        &wishes.order,
    ];
    if others.into_iter().any(named)
        || wishes
            .history
            .iter()
            .any(|h| wishes.targets.contains(h) || wishes.drop.contains(h))
    {
        return bad(
            "--history names a column that is named as something else too",
            "its columns are features; --mark says which earlier rows are clicks",
        );
    }
    if wishes.history.is_empty() && !wishes.mark.is_empty() {
        return bad(
            "--mark is of earlier rows, and --history names no column that a row sees of them",
            "--session COLUMN --history A,B",
        );
    }
    if let Err(why) = Predicate::parse(&wishes.mark)
        && !wishes.mark.is_empty()
    {
        return Err(
            MergeError::plan("bad-flag", format!("--mark: {why}")).hint("--mark \"clicked == 1\"")
        );
    }
    if wishes.session.is_none() && wishes.order.is_some() {
        return bad(
            "--order orders the rows of sessions, and no column of them is named",
            "--session COLUMN",
        );
    }
    if !wishes.inputs.is_empty() && wishes.session.is_some() {
        return bad("--session is of tables, --input of texts", "leave one out");
    }
    match Predicate::parse(&wishes.sample) {
        Err(why) if !wishes.sample.is_empty() => {
            Err(MergeError::plan("bad-flag", format!("--sample: {why}"))
                .hint("--sample \"clicked == 1\""))
        }
        _ => Ok(()),
    }
}

/// The target that asks for the item of a row.
pub(super) fn next(item: &str) -> Target {
    let at = |name: &str, primary| {
        let mut metric = Metric::named(name, primary);
        metric.params.insert("k".into(), 20.into());
        metric
    };
    Target {
        name: NEXT.to_owned(),
        column: item.to_owned(),
        kind: TaskType::Retrieval,
        labels: Vec::new(),
        metrics: vec![at("recall_at_k", true), at("mrr", false)],
        weight: 1.0,
        sample: String::new(),
    }
}

/// The group column and what it does: a session in two splits would tell one of the other, so it is the group where nothing else
/// is said.
pub(super) fn group(wishes: &Wishes) -> (String, GroupAs) {
    match (&wishes.group, &wishes.session, &wishes.time) {
        (None, Some(session), None) => (session.clone(), GroupAs::Split),
        (group, ..) => (group.clone().unwrap_or_default(), wishes.group_as),
    }
}
