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
    if wishes.session.is_some() != wishes.item.is_some() {
        return bad(
            "sessions need two columns: whose session a row is of, and which item it is about",
            "--session COLUMN --item COLUMN, and --order COLUMN for the order of its rows",
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
