//! The examples of a task as a model meets them: inputs, and what is right.

use std::ops::Range;
use std::sync::Arc;

use super::answers::plain;
use super::goal::{Goal, goals};
pub use super::maps::{Pixels, hex};
use super::sessions::{Log, Named, Reader};
use super::table::Weights;
pub use super::table::{Column, ColumnKind, Field, Fields, MAX_ROW_WEIGHT, columns, days};
use super::truth::{self, Truth};
use crate::error::{MergeError, Result};
use crate::tasks::data::Table;
use crate::tasks::data::table::Cell;
use crate::tasks::load::Loader;
use crate::tasks::spec::{TaskSpec, TaskType};

/// What a model is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A text, or a pair of texts.
    Text(String, Option<String>),
    /// Raw pixels: rows, channels last.
    Image {
        /// `height x width x channels` bytes.
        pixels: Vec<u8>,
        /// Height, width, channels.
        size: [usize; 3],
    },
    /// A row of a table.
    Row {
        /// Its columns, the same for all rows of a split.
        columns: Arc<[Column]>,
        /// What it has in them.
        fields: Vec<Field>,
        /// What was before it in its session, where the task shows it (`table.history`).
        before: Option<Before>,
    },
    /// A row of a session: what stands before it there.
    Visit {
        /// The rows of the split, the same for all of them.
        log: Arc<Log>,
        /// Which steps of it stand before the row.
        before: Range<usize>,
    },
}

/// What was before a row in its session.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// The rows of the split, the same for all of them.
    pub log: Arc<Log>,
    /// Which steps of it stand before the row.
    pub steps: Range<usize>,
}

/// What it should answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A class.
    Class(u32),
    /// Classes, ascending.
    Set(Vec<u32>),
    /// A number.
    Number(f64),
    /// One of the documents that are relevant for a query, with the numbers of all that are, ascending.
    Relevant {
        /// Number of the document.
        document: u32,
        /// Numbers of all relevant ones.
        all: Arc<Vec<u32>>,
    },
    /// A value per pixel, row by row, in its own unit: classes, depths, three parts of a normal, edges. A depth that is not
    /// finite or not above 0 and a normal without a length were not measured.
    Map {
        /// The values.
        values: Arc<[f32]>,
        /// Pixels that the first mask of the task's metrics keeps; all where none has one.
        mask: Option<Arc<[bool]>>,
    },
}

/// One thing that is asked of every example.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Name of the target; empty for a task without targets.
    pub target: String,
    /// What is asked for.
    pub kind: TaskType,
    /// Names of the classes; where the task names none, those of the rows that were read, sorted.
    pub classes: Vec<String>,
    /// Whether the classes come from the rows.
    pub discovered: bool,
    /// What the pixels of its maps are, where it asks for a map and has a metric of maps.
    pub pixels: Option<Pixels>,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its id, as records have it.
    pub id: String,
    /// What a model is given.
    pub input: Input,
    /// What is right, for each thing that is asked; none where the row does not say.
    pub wanted: Vec<Option<Wanted>>,
    /// What it counts in a loss, from 0 to [`MAX_ROW_WEIGHT`]; 1 where weights are not read ([`read_weighed`]).
    pub weight: f32,
}

/// The rows of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// What is asked.
    pub asked: Vec<Asked>,
    /// Rows in the order of the file.
    pub rows: Vec<Example>,
}

/// What models of this crate are trained for: a label, several, a number, or a value per pixel.
#[must_use]
pub fn is_learned(kind: TaskType) -> bool {
    matches!(
        kind,
        TaskType::Classification
            | TaskType::PairClassification
            | TaskType::Multilabel
            | TaskType::Regression
            | TaskType::Sts
            | TaskType::Dense
    )
}

/// Whether row `i` of `n` is one of those that a limit takes: spread evenly, so that files ordered by class lose none.
#[must_use]
pub fn is_taken(i: usize, n: usize, limit: Option<usize>) -> bool {
    let most = limit.unwrap_or(n).min(n);
    (i + 1) * most / n.max(1) != i * most / n.max(1)
}

/// What a task asks for, before any row is read: classes that the task does not name are none here.
///
/// # Errors
/// A task without a type.
pub fn asked(spec: &TaskSpec) -> Result<Vec<Asked>> {
    Ok(goals(spec)?.into_iter().map(Asked::from).collect())
}

impl From<Goal> for Asked {
    fn from(goal: Goal) -> Self {
        let maps = goal.metrics.iter().find_map(|m| Pixels::of(&m.name));
        Self {
            pixels: maps.filter(|_| goal.kind == TaskType::Dense),
            target: goal.name,
            kind: goal.kind,
            classes: goal.classes,
            discovered: goal.discovered,
        }
    }
}

/// Reads a split of a task of texts, images or tables.
///
/// # Errors
/// A task that asks for something else, a split that is not there, rows without input, images of an unknown size, and
/// what the readers report.
pub fn read(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Examples> {
    read_by(spec, loader, split, None, None)
}

/// The same of at most `limit` rows, those that [`is_taken`] says of all that say something, with their weights if `weighed`. Of
/// pictures the others are never held: the split is read twice, once to count them. Classes that the task does not name are those
/// of the whole split.
///
/// # Errors
/// As [`read`] and [`read_weighed`].
pub fn read_limited(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    split: &str,
    limit: Option<usize>,
    weighed: bool,
) -> Result<Examples> {
    let weights = match weighed {
        true => Weights::of(spec, loader, split),
        false => None,
    };
    // Discovered classes need every row.
    let apart = spec.modality.input.iter().any(|m| m == "image")
        && !goals(spec)?.iter().any(|goal| goal.discovered);
    let part = match limit {
        Some(limit) if apart => {
            let mut all = 0;
            truth::read_with(spec, loader, split, &mut |_, _, truths| {
                all += usize::from(truths.iter().any(Option::is_some));
                Ok(false)
            })?;
            Some((limit, all))
        }
        _ => None,
    };
    let mut found = read_by(spec, loader, split, weights, part)?;
    if part.is_none() {
        let (mut at, all) = (0, found.rows.len());
        found.rows.retain(|_| {
            at += 1;
            is_taken(at - 1, all, limit)
        });
    }
    Ok(found)
}

/// The same with what every row counts in a loss: its number in the column `table.weight`, 1 where the task names none.
///
/// # Errors
/// As [`read`]; a row whose weight is no number from 0 to [`MAX_ROW_WEIGHT`].
pub fn read_weighed(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Examples> {
    read_by(spec, loader, split, Weights::of(spec, loader, split), None)
}

/// The rows of a split; of `part`, a limit and how many rows say something, those that are taken alone.
fn read_by(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    split: &str,
    mut weights: Option<Weights>,
    part: Option<(usize, usize)>,
) -> Result<Examples> {
    let bad = |what: String| {
        MergeError::plan("no-model-task", format!("task `{}` {what}", spec.id))
            .hint("classification, pair classification, multilabel, regression and similarity of texts, images or tables, and maps of images; predictions of other programs are scored with `polyloom eval --predictions`")
    };
    let kinds: Vec<TaskType> = match spec.kind {
        Some(kind) if spec.targets.is_empty() => vec![kind],
        _ => spec.targets.iter().map(|t| t.kind).collect(),
    };
    let mut sessions = Reader::of(spec)?;
    let asks_items = Named::of(spec).is_some_and(|n| n.asks_items());
    let of_items = |k: &TaskType| *k == TaskType::Retrieval && asks_items;
    if let Some(other) = kinds.iter().find(|k| !is_learned(**k) && !of_items(k)) {
        return Err(bad(format!("asks for {other}")));
    }
    let f = &spec.fields;
    let mut fields = match f.input.is_empty() {
        true => Fields::new(columns(spec)),
        false => None,
    };
    if f.input.is_empty() && fields.is_none() {
        if spec.table.is_some() {
            let what = format!(
                "task `{}` has no column to learn from: ids and constants are no features",
                spec.id
            );
            return Err(MergeError::plan("no-model-task", what).hint(
                "`table.numeric`, `table.categorical` and `table.text` of the spec name the features; a column of one value tells nothing",
            ));
        }
        return Err(bad(
            "names no column of inputs (`fields.input`), and no columns of a table (`table.numeric`, `table.categorical`, `table.text`)".into(),
        ));
    }
    let image = spec.modality.input.iter().any(|m| m == "image");
    let mut inputs = Vec::new();
    // Number of the row and of its item, of the rows of sessions.
    let (mut visits, mut rows_seen) = (Vec::new(), 0usize);
    // Rows that say something.
    let mut said = 0;
    let questions = truth::read_with(spec, loader, split, &mut |table, row, truths| {
        if let Some(weights) = &mut weights {
            weights.next();
        }
        // Rows that say nothing are seen by later ones.
        let item = sessions.as_mut().map(|s| s.see(table, row)).transpose()?;
        rows_seen += 1;
        if truths.iter().all(Option::is_none) {
            return Ok(false);
        }
        said += 1;
        if part.is_some_and(|(limit, all)| !is_taken(said - 1, all, Some(limit))) {
            return Ok(false);
        }
        if let Some(item) = item {
            visits.push((rows_seen - 1, item));
        }
        let weight = match &weights {
            Some(weights) => weights.weight(table, row)?,
            None => 1.0,
        };
        let input = match (&mut fields, image) {
            // What stands before it is known when all rows are.
            (Some(_), _) if asks_items => Input::Text(String::new(), None),
            (Some(fields), _) => fields.input(table, row)?,
            (None, true) => pixels(spec, table, row)?,
            (None, false) => {
                let text = |column: &str| plain(&table.at(row, column));
                let second = (!f.input2.is_empty()).then(|| text(&f.input2));
                Input::Text(text(&f.input), second)
            }
        };
        inputs.push((input, weight));
        Ok(true)
    })?;
    if let Some(sessions) = sessions {
        let (log, before) = sessions.finish();
        let log = Arc::new(log);
        for ((input, _), (row, _)) in inputs.iter_mut().zip(&visits) {
            let (log, steps) = (log.clone(), before[*row].clone());
            match input {
                Input::Row { before, .. } => *before = Some(Before { log, steps }),
                _ => *input = Input::Visit { log, before: steps },
            }
        }
    }
    let asked = questions.goals.into_iter().map(Asked::from).collect();
    let rows = questions.examples.into_iter().zip(inputs).enumerate();
    let rows = rows.map(|(at, (example, (input, weight)))| {
        let wanted = |truth: Option<Truth>| {
            Some(match truth? {
                Truth::Class(class) => Wanted::Class(class),
                Truth::Set(set) => Wanted::Set(set),
                Truth::Number(x) => Wanted::Number(x),
                Truth::Map { values, masks } => Wanted::Map {
                    values: values.into(),
                    mask: masks.into_iter().next().map(|(_, mask)| mask.into()),
                },
                Truth::Judged(..) => {
                    let document = visits.get(at)?.1;
                    let all = Arc::new(vec![document]);
                    Wanted::Relevant { document, all }
                }
                _ => return None,
            })
        };
        Example {
            id: example.id,
            input,
            wanted: example.truths.into_iter().map(wanted).collect(),
            weight,
        }
    });
    Ok(Examples {
        asked,
        rows: rows.collect(),
    })
}

/// The texts of the rows of a split, whatever the task asks of them: the input, then the second one of a pair. Rows with
/// empty texts alone are left out.
///
/// # Errors
/// A task of pictures or without a column of inputs, and what the reader of the file reports.
pub fn texts(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Vec<String>> {
    let f = &spec.fields;
    let image = spec.modality.input.iter().any(|m| m == "image");
    if f.input.is_empty() || image {
        let why = match image {
            true => "shows pictures",
            false => "names no column of inputs (`fields.input`)",
        };
        let what = format!("task `{}` {why}", spec.id);
        return Err(MergeError::plan("no-model-task", what).hint(
            "language is learned from the columns `fields.input` and `fields.input2` of texts",
        ));
    }
    let columns = [&f.input, &f.input2].into_iter().filter(|c| !c.is_empty());
    let columns: Vec<&String> = columns.collect();
    let mut found = Vec::new();
    loader.rows(split, &mut |table| {
        for row in 0..table.rows() {
            for column in &columns {
                let value = table.at(row, column);
                let text = if value.is_null() {
                    String::new()
                } else {
                    plain(&value)
                };
                if !text.trim().is_empty() {
                    found.push(text);
                }
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// The image of a row: raw pixels of the size that the task, or the row, says.
pub(crate) fn pixels(spec: &TaskSpec, table: &Table, row: usize) -> Result<Input> {
    let found = pixels_in(table, row, &spec.fields.input, spec.source.size);
    found.map_err(|e| e.at(format!("task `{}`", spec.id)))
}

/// The image in a column of a row: raw pixels of the size that its columns `height`, `width` and `channels` say, or of `size`.
///
/// # Errors
/// A cell that holds something else, no size, bytes of another one.
pub fn pixels_in(table: &Table, row: usize, column: &str, size: Option<[u32; 3]>) -> Result<Input> {
    let bad = |what: &str| MergeError::plan("bad-image", format!("column `{column}` {what}"));
    let cell = table.column(column).map_or(Cell::Null, |c| c.cell(row));
    let Cell::Bytes(bytes) = cell else {
        return Err(bad("holds no raw pixels"));
    };
    let own = |name: &str| table.at(row, name).as_u64().map(|n| n as usize);
    let size = match (size, own("height"), own("width"), own("channels")) {
        (_, Some(h), Some(w), Some(c)) => [h, w, c],
        (Some(size), ..) => size.map(|n| n as usize),
        _ => {
            return Err(bad("holds images of a size that nothing says")
                .hint("source.size = [height, width, channels]"));
        }
    };
    let all = size.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
    if all != Some(bytes.len()) || bytes.is_empty() {
        return Err(bad(&format!(
            "has {} bytes for {} x {} x {}",
            bytes.len(),
            size[0],
            size[1],
            size[2]
        )));
    }
    Ok(Input::Image {
        pixels: bytes.to_vec(),
        size,
    })
}
