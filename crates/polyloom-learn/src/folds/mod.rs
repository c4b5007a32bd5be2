//! Repeated k-fold cross-validation of a training over tables: [`plan`] puts rows into folds, [`mod@run`] trains a model for
//! each and scores it on the rows that it did not see. What the scores say is [`polyloom::evaluate::board::folds`].

pub mod plan;
mod record;
pub mod run;

use std::path::{Path, PathBuf};

use polyloom::MergeError;

use crate::models::{forest, table};
use crate::train::recipe::{Start, Train};

pub use plan::Plan;
pub use run::{Told, cross};

/// Folder of the scores of a training that writes `out`.
#[must_use]
pub fn folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".folds");
    out.with_file_name(name)
}

/// Whether a training can be cross-validated, as far as its recipe tells.
///
/// # Errors
/// Fewer than two folds, no repeat, keys of folds without folds; anything but a new model of tables, and what would bring in
/// rows that a fold holds out: other models' answers, heads that are there.
pub(crate) fn check(t: &Train) -> Result<(), MergeError> {
    let bad = |what: String, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    let Some(folds) = t.folds else {
        let said = match (t.repeats, t.fold_splits.is_empty()) {
            (Some(_), _) => "repeats",
            (None, false) => "fold_splits",
            (None, true) => return Ok(()),
        };
        return bad(
            format!("`train.{said}` is about folds, and `train.folds` is not set"),
            "--folds 5, or `folds = 5` in [train]",
        );
    };
    if folds < 2 {
        return bad(
            format!("`train.folds` is {folds}; rows are put into two folds at least"),
            "5 and 10 are usual",
        );
    }
    if t.repeats == Some(0) {
        return bad(
            "`train.repeats` is 0; folds are drawn once at least".into(),
            "leave it out, or --repeats 3",
        );
    }
    let kind = t.new.as_ref().and_then(|n| n.get("model_type"));
    let kind = kind.and_then(toml::Value::as_str).unwrap_or_default();
    if kind != table::MODEL_TYPE && kind != forest::MODEL_TYPE {
        return bad(
            "`train.folds` is for new models of tables".into(),
            "polyloom train people.csv --targets income --model gbdt --folds 5 -o people",
        );
    }
    let seen = [
        ("train.fuse", t.fuse.is_some()),
        ("train.pseudo", t.pseudo.is_some()),
        ("train.head.start", matches!(t.head.start, Start::From(_))),
    ];
    if let Some((key, _)) = seen.iter().find(|(_, said)| *said) {
        return bad(
            format!(
                "`{key}` brings in models that may have learned the rows that a fold holds out"
            ),
            "leave it out, or train without folds",
        );
    }
    if t.each {
        return bad(
            "`train.each` makes a model for each task; folds are those of one model".into(),
            "train the tasks one by one",
        );
    }
    Ok(())
}
