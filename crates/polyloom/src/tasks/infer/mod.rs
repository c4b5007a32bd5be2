//! A spec for a stranger's table: column types, ids, targets, all shown, none silently decided.

mod images;
mod sessions;
mod texts;

use std::collections::BTreeSet;
use std::path::Path;

pub use self::images::images;
pub use self::sessions::NEXT;
use super::data::table::is_absent_number;
use super::data::{self, Cell, Limits, Table};
use super::spec::{
    GroupAs, Metric, Source, SourceKind, Split, Table as Columns, Target, TaskSpec, TaskType,
};
use crate::error::{MergeError, Result};
use crate::evaluate::board::score::examples::days;
use crate::suggest;

/// What the user said about the table.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Task id; from the file name if empty.
    pub id: String,
    /// Target columns.
    pub targets: Vec<String>,
    /// Group column.
    pub group: Option<String>,
    /// What the group does.
    pub group_as: GroupAs,
    /// Column that orders time-aware splits.
    pub time: Option<String>,
    /// Column of row weights.
    pub weight: Option<String>,
    /// Columns that are no features.
    pub drop: Vec<String>,
    /// Column that says whose session a row is of. With it and without [`Self::group`] and [`Self::time`], sessions stay in one
    /// split; with [`Self::item`] targets of words describe the item too.
    pub session: Option<String>,
    /// Column that orders the rows of a session.
    pub order: Option<String>,
    /// Column that says which item a row is about: one more target, [`NEXT`].
    pub item: Option<String>,
    /// Columns of which a row sees what earlier rows of its session have; categorical, whatever is in them.
    pub history: Vec<String>,
    /// Predicate of earlier rows that a model is told of as such; empty for none.
    pub mark: String,
    /// Predicate of the rows where targets exist, of all of them; empty for all rows.
    pub sample: String,
    /// The text column of a task of texts, or two of a task of pairs.
    pub inputs: Vec<String>,
    /// Seed of the splits.
    pub seed: u64,
}

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A number.
    Numeric,
    /// A few words.
    Categorical,
    /// Running text.
    Text,
    /// Different in every row.
    Id,
    /// The same in every row, or empty.
    Constant,
    /// Predicted.
    Target,
    /// Grouping column.
    Group,
    /// Orders the rows.
    Time,
    /// What rows count in a loss.
    Weight,
    /// Whose session a row is of.
    Session,
    /// Orders the rows of a session.
    Order,
    /// Which item a row is about.
    Item,
    /// Left out by the user.
    Dropped,
    /// Lists, objects or bytes.
    Other,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Categorical => "categorical",
            Self::Text => "text",
            Self::Id => "id",
            Self::Constant => "constant",
            Self::Target => "target",
            Self::Group => "group",
            Self::Time => "time",
            Self::Weight => "weight",
            Self::Session => "session",
            Self::Order => "order",
            Self::Item => "item",
            Self::Dropped => "dropped",
            Self::Other => "other",
        }
    }
}

/// One column as it was understood.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Inferred {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Why, in a few words.
    pub because: String,
    /// Missing values.
    pub missing: u64,
    /// Different values; counted up to [`DISTINCT`].
    pub distinct: usize,
}

/// Different values that are counted per column.
pub const DISTINCT: usize = 10_000;
/// A target of numbers with at most so many whole values is a class.
const CLASSES: usize = 20;
/// A text column with at most so many values (and fewer than half the rows) is categorical; one of single words also with more,
/// if some come again.
const WORDS: usize = 1_000;
/// Mean number of words from which text counts as running text.
const RUNNING: f64 = 4.0;

#[derive(Default)]
struct Seen {
    rows: u64,
    missing: u64,
    numbers: u64,
    whole: u64,
    nested: u64,
    dates: u64,
    words: u64,
    /// Texts that stand for a missing number, if the others are numbers.
    absent: u64,
    values: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, cell: Cell) {
        self.rows += 1;
        if cell.is_empty() {
            self.missing += 1;
            return;
        }
        if matches!(cell, Cell::Nested(_) | Cell::Bytes(_)) {
            self.nested += 1;
            return;
        }
        if let Some(x) = cell.to_number().filter(|_| !matches!(cell, Cell::Bool(_))) {
            self.numbers += 1;
            self.whole += u64::from(x.fract() == 0.0);
        }
        let text = cell.to_text();
        self.absent += u64::from(is_absent_number(&text));
        self.dates += u64::from(days(&text).is_some());
        self.words += text.split_whitespace().count() as u64;
        if self.values.len() < DISTINCT {
            self.values.insert(text);
        }
    }

    /// Where all others are numbers, or all are dates, `NA` and the like are no values.
    fn settle(&mut self) {
        let known = self.present() - self.absent;
        if known > 0 && (self.numbers == known || self.dates == known) {
            self.missing += self.absent;
            self.absent = 0;
            self.values.retain(|v| !is_absent_number(v));
        }
    }

    fn present(&self) -> u64 {
        self.rows - self.missing
    }

    fn numeric(&self) -> bool {
        self.present() > 0 && self.numbers == self.present()
    }

    fn dated(&self) -> bool {
        self.present() > 0 && self.dates == self.present()
    }
}

/// Reads a table once and writes a spec for it: seeded splits of 80, 10 and 10 percent of the one file.
///
/// Rules: a column of numbers or of dates is numeric (`NA`, `NaN`, `null` and the like are missing there); text with few values is categorical, with many words or values running text; a column
/// whose name is `id` or ends in `_id`, or text, is an id where every row differs; a target of text, truth values or at most
/// 20 whole numbers is a class, any other number a regression. Ids and constants are no features. Memory: up to 10,000
/// values per column.
///
/// # Errors
/// A file that cannot be read, has no rows or lacks a named column (with the nearest name), a target that is empty.
pub fn infer(path: &Path, wishes: &Wishes, limits: &Limits) -> Result<(TaskSpec, Vec<Inferred>)> {
    let kind = data::kind_of(path).ok_or_else(|| {
        data::bad(path, "is no table that is known by its name")
            .hint("use .csv, .tsv, .jsonl, .json or .parquet")
    })?;
    let mut seen = indexmap::IndexMap::<String, Seen>::new();
    let mut rows = 0u64;
    data::read(path, kind, limits, &mut |table: Table| {
        for (name, column) in table.columns() {
            let seen = seen.entry(name.to_owned()).or_default();
            // A column that begins late was missing before.
            let late = rows - seen.rows;
            (seen.rows, seen.missing) = (rows, seen.missing + late);
            for row in 0..table.rows() {
                seen.add(column.cell(row));
            }
        }
        rows += table.rows() as u64;
        Ok(())
    })?;
    for seen in seen.values_mut() {
        seen.missing += rows - seen.rows;
        seen.rows = rows;
        seen.settle();
    }
    if rows == 0 {
        return Err(data::bad(path, "has no rows"));
    }
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    let named = wishes
        .targets
        .iter()
        .chain(&wishes.group)
        .chain(&wishes.time)
        .chain(&wishes.weight)
        .chain(&wishes.session)
        .chain(&wishes.order)
        .chain(&wishes.item)
        .chain(&wishes.history)
        .chain(&wishes.inputs)
        .chain(&wishes.drop);
    let mut absent = named.filter(|n| !seen.contains_key(*n));
    if let Some(name) = absent.next() {
        let error = data::bad(path, format!("has no column `{name}`"));
        return Err(match suggest::nearest(name, &names, 1).first() {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("columns: {}", names.join(", "))),
        });
    }
    let other = wishes
        .targets
        .iter()
        .chain(&wishes.group)
        .chain(&wishes.time);
    if let Some(name) = other
        .chain(&wishes.inputs)
        .find(|n| Some(*n) == wishes.weight.as_ref())
    {
        let what = format!("column `{name}` is named as the row weights and as something else");
        return Err(data::bad(path, what).hint("row weights are a column of their own"));
    }
    sessions::check(wishes)?;
    if wishes.targets.is_empty() && wishes.item.is_none() {
        return Err(MergeError::plan("no-target", "no target column is named")
            .hint(format!("--targets A,B; columns: {}", names.join(", "))));
    }
    let columns: Vec<Inferred> = seen.iter().map(|(n, s)| column(n, s, wishes)).collect();
    let mut spec = TaskSpec::new(id(path, wishes), Source::new(kind, ""));
    write(&mut spec, path, kind, wishes, &columns);
    for name in &wishes.targets {
        let Some(seen) = seen.get(name) else { continue };
        if seen.present() == 0 {
            return Err(data::bad(
                path,
                format!("target `{name}` is empty in every row"),
            ));
        }
        spec.targets.push(target(name, seen));
    }
    if let Some(item) = &wishes.item {
        spec.targets.insert(0, sessions::next(item));
    }
    for target in &mut spec.targets {
        target.sample.clone_from(&wishes.sample);
    }
    texts::texts(&mut spec, &columns, wishes);
    Ok((spec, columns))
}

fn id(path: &Path, wishes: &Wishes) -> String {
    if !wishes.id.is_empty() {
        return wishes.id.clone();
    }
    let stem = path
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or("table")
        .to_lowercase();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    stem.chars().map(plain).collect()
}

fn column(name: &str, seen: &Seen, wishes: &Wishes) -> Inferred {
    let named_by = |list: &[String]| list.iter().any(|n| n == name);
    let is = |one: &Option<String>| one.as_deref() == Some(name);
    let distinct = seen.values.len();
    let all_differ = distinct as u64 == seen.rows && seen.rows > 1 && distinct < DISTINCT;
    let many = distinct >= DISTINCT;
    let lower = name.to_lowercase();
    let named = lower == "id" || lower.ends_with("_id");
    let mean_words = seen.words as f64 / seen.present().max(1) as f64;
    let (role, because) = if named_by(&wishes.targets) {
        (Role::Target, "named".to_owned())
    } else if is(&wishes.group) {
        (Role::Group, "named".into())
    } else if is(&wishes.time) {
        (Role::Time, "named".into())
    } else if is(&wishes.weight) {
        (Role::Weight, "named".into())
    } else if is(&wishes.session) {
        (Role::Session, "named".into())
    } else if is(&wishes.order) {
        (Role::Order, "named".into())
    } else if is(&wishes.item) {
        (Role::Item, "named".into())
    } else if named_by(&wishes.inputs) {
        (Role::Text, "named".into())
    } else if named_by(&wishes.drop) {
        (Role::Dropped, "named".into())
    } else if seen.nested > 0 {
        (Role::Other, "lists, objects or bytes".into())
    } else if named_by(&wishes.history) {
        (Role::Categorical, "named".into())
    } else if distinct <= 1 {
        (
            Role::Constant,
            if distinct == 0 { "empty" } else { "one value" }.into(),
        )
    } else if seen.numeric() {
        if named && (all_differ || many) {
            (Role::Id, "its name, and every row differs".into())
        } else {
            (Role::Numeric, "all values are numbers".into())
        }
    } else if seen.dated() {
        (Role::Numeric, "all values are dates".into())
    } else if mean_words >= RUNNING {
        (Role::Text, format!("{mean_words:.1} words on average"))
    } else if all_differ || (named && many) {
        (Role::Id, "every row differs".into())
    } else if distinct <= WORDS && (distinct as u64) * 2 <= seen.rows.max(4)
        || mean_words <= 1.0 && !many && (distinct as u64) * 10 <= seen.rows * 9
    {
        (Role::Categorical, format!("{distinct} different values"))
    } else {
        (Role::Text, format!("{distinct} different values"))
    };
    Inferred {
        name: name.to_owned(),
        role,
        because,
        missing: seen.missing,
        distinct,
    }
}

fn target(name: &str, seen: &Seen) -> Target {
    let classes = seen.values.len();
    let class = !seen.numeric() || (seen.whole == seen.numbers && classes <= CLASSES);
    let lower = name.to_lowercase();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let mut target = Target {
        name: lower.chars().map(plain).collect(),
        column: name.to_owned(),
        kind: TaskType::Regression,
        labels: Vec::new(),
        metrics: vec![Metric::named("rmse", true), Metric::named("r2", false)],
        weight: 1.0,
        sample: String::new(),
    };
    if class {
        target.kind = TaskType::Classification;
        let first = if classes == 2 { "roc_auc" } else { "macro_f1" };
        target.metrics = vec![Metric::named(first, true), Metric::named("accuracy", false)];
        // Numbers 0..n are classes already; everything else needs names.
        let counted = (0..classes).all(|i| seen.values.contains(&i.to_string()));
        if !counted && classes <= WORDS {
            target.labels = seen.values.iter().cloned().collect();
        }
    }
    target
}

fn write(
    spec: &mut TaskSpec,
    path: &Path,
    kind: SourceKind,
    wishes: &Wishes,
    columns: &[Inferred],
) {
    let file = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    spec.source.kind = kind;
    for (name, slice) in [
        ("train", "[:80%]"),
        ("validation", "[80%:90%]"),
        ("test", "[90%:]"),
    ] {
        let split = Split {
            file: file.to_owned(),
            slice: slice.into(),
            seed: wishes.time.is_none().then_some(wishes.seed),
        };
        spec.splits.named.insert(name.into(), split);
    }
    let of = |roles: &[Role]| -> Vec<String> {
        let fits = columns.iter().filter(|c| roles.contains(&c.role));
        fits.map(|c| c.name.clone()).collect()
    };
    let ids = of(&[Role::Id]);
    spec.fields.id = ids.first().cloned().unwrap_or_default();
    spec.modality.input = vec!["table".into()];
    spec.modality.output = "table".into();
    let (mut words, targets) = (of(&[Role::Categorical]), of(&[Role::Target]));
    // What is asked of the item of a row describes it too: a row does not see its own item.
    words.extend(targets.into_iter().filter(|_| wishes.item.is_some()));
    let (group, group_as) = sessions::group(wishes);
    spec.table = Some(Columns {
        features: Vec::new(),
        categorical: words,
        numeric: of(&[Role::Numeric]),
        text: of(&[Role::Text]),
        drop: ids
            .into_iter()
            .skip(1)
            .chain(of(&[Role::Constant, Role::Dropped, Role::Other]))
            .collect(),
        group,
        group_as,
        weight: wishes.weight.clone().unwrap_or_default(),
        time: wishes.time.clone().unwrap_or_default(),
        session: wishes.session.clone().unwrap_or_default(),
        order: wishes.order.clone().unwrap_or_default(),
        item: wishes.item.clone().unwrap_or_default(),
        history: wishes.history.clone(),
        mark: wishes.mark.clone(),
    });
}

#[cfg(test)]
mod tests;
