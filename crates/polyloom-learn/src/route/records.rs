//! What saved systems scored on single examples: the records that `polyloom eval` writes.

use std::path::Path;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::predictions::{Columns, Example, Predictions};
use polyloom_core::checkpoint::read_json;

use crate::error::Result;

/// Scores of a system, larger is better: by task, then by the example's id.
pub type Scores = IndexMap<String, IndexMap<String, f64>>;

/// Reads a `results.json` with the records that it names, or a file of records, of predictions, or of a column `score`.
///
/// # Errors
/// Files that cannot be read, results without records.
pub fn read(path: &Path) -> Result<Scores> {
    each(path, &|example| Some(example.value))
}

/// What is right for every example of such a file, by task and id, where it says so.
///
/// # Errors
/// As [`read`].
pub fn targets(path: &Path) -> Result<IndexMap<String, IndexMap<String, String>>> {
    each(path, &|example| Some(example.texts?.1))
}

/// Something of every example, by task and id.
fn each<T>(
    path: &Path,
    of: &dyn Fn(Example) -> Option<T>,
) -> Result<IndexMap<String, IndexMap<String, T>>> {
    let mut found: IndexMap<String, IndexMap<String, T>> = IndexMap::new();
    let mut take = |file: &Path, only: Option<&str>| -> Result<()> {
        let read = Predictions::read(file, &Columns::default()).or_else(|error| {
            // A table of ids and scores has no predictions; what is wrong with another one is said of its predictions.
            let scores = Columns {
                score: Some("score".to_owned()),
                ..Columns::default()
            };
            Predictions::read(file, &scores).map_err(|_| error)
        })?;
        for (task, examples) in read.tasks {
            let task = only.map_or(task, str::to_owned);
            let kept = examples
                .into_iter()
                .filter_map(|(id, e)| Some((id, of(e)?)));
            found.entry(task).or_default().extend(kept);
        }
        Ok(())
    };
    if path
        .extension()
        .is_none_or(|e| !e.eq_ignore_ascii_case("json"))
    {
        take(path, None)?;
        return Ok(found);
    }
    let said = read_json(path)?;
    let tasks = said["tasks"].as_object();
    for (task, entry) in tasks.into_iter().flatten() {
        if let Some(samples) = entry["samples"].as_str() {
            let file = path.parent().unwrap_or(Path::new(".")).join(samples);
            take(&file, Some(task))?;
        }
    }
    if found.is_empty() {
        let place = path.display().to_string();
        let error = MergeError::plan("no-records", "names no records of single examples");
        return Err(error
            .at(place)
            .hint("`polyloom eval MODEL -t TASK -o DIR` writes them")
            .into());
    }
    Ok(found)
}
