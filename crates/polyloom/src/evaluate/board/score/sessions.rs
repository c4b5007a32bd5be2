//! Sessions of a log: the items that rows are about, and which rows of its session stand before each.
//!
//! A task asks for the items (`table.item`), or its single rows see what was before them (`table.history`): then an item is what
//! a row has in those columns.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::answers::plain;
use super::examples::Input;
use super::table::{Column, Field, Fields, columns, days};
use crate::error::{MergeError, Result};
use crate::tasks::data;
use crate::tasks::data::table::Cell;
use crate::tasks::load::Loader;
use crate::tasks::predicate::Predicate;
use crate::tasks::spec::{TaskSpec, TaskType};

/// A row of a session as later rows see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Number of its item.
    pub item: u32,
    /// Whether it is a row where the item is asked for (a click among impressions).
    pub taken: bool,
}

/// The rows of a file by session, and their items.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Columns that describe an item.
    pub columns: Arc<[Column]>,
    /// Names of the items, in the order of their first rows.
    pub items: Vec<String>,
    /// What each has in the columns.
    pub fields: Vec<Vec<Field>>,
    /// All rows, session after session, those of one in their order.
    pub steps: Vec<Step>,
    /// The sessions, in the order of their first rows: name, and which steps are its.
    pub sessions: Vec<(String, Range<usize>)>,
}

/// The columns that say what a log is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Whose session a row is of.
    pub session: String,
    /// What orders the rows of a session; empty for the order of the file.
    pub order: String,
    /// Which item a row is about; empty where the columns that describe an item say so.
    pub item: String,
    /// Predicate of the rows where the item is asked for (empty for all), or that are marked (empty for none).
    pub taken: String,
}

impl Named {
    /// Those of a task whose rows are of sessions; `None` of another.
    #[must_use]
    pub fn of(spec: &TaskSpec) -> Option<Self> {
        let table = spec.table.as_ref().filter(|t| !t.session.is_empty())?;
        let asks = spec.targets.iter().find(|t| t.kind == TaskType::Retrieval);
        let taken = match table.item.is_empty() {
            true => table.mark.clone(),
            false => asks.map_or_else(String::new, |t| t.sample.clone()),
        };
        Some(Self {
            session: table.session.clone(),
            order: table.order.clone(),
            item: table.item.clone(),
            taken,
        })
    }

    /// Whether items are asked for; else single rows see what was before them.
    #[must_use]
    pub fn asks_items(&self) -> bool {
        !self.item.is_empty()
    }
}

/// A row that was seen.
struct Row {
    session: u32,
    order: f64,
    step: Step,
}

/// Reads a log row by row.
pub struct Reader {
    named: Named,
    /// `None` where no row is.
    taken: Option<Predicate>,
    fields: Fields,
    columns: Arc<[Column]>,
    sessions: HashMap<String, u32>,
    names: Vec<String>,
    items: HashMap<String, u32>,
    described: Vec<(String, Vec<Field>)>,
    rows: Vec<Row>,
}

fn bad(what: String) -> MergeError {
    MergeError::plan("bad-session", what)
}

impl Reader {
    /// Of a log whose items are described by these columns.
    ///
    /// # Errors
    /// No columns, a predicate that is none.
    pub fn new(named: Named, columns: Vec<Column>) -> Result<Self> {
        let taken = match (&*named.taken, named.asks_items()) {
            ("", true) => Ok(Some(Predicate::default())),
            ("", false) => Ok(None),
            (text, _) => Predicate::parse(text).map(Some),
        };
        let taken = taken.map_err(|why| bad(format!("`{}`: {why}", named.taken)))?;
        let none = || {
            bad("no column describes an item".into()).hint(
                "`table.categorical`, `table.numeric` and `table.text` name those that do; the item's own name may be one",
            )
        };
        let own = columns.clone().into();
        Ok(Self {
            fields: Fields::new(columns).ok_or_else(none)?,
            columns: own,
            named,
            taken,
            sessions: HashMap::new(),
            names: Vec::new(),
            items: HashMap::new(),
            described: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Of a task; `None` of one that is not of sessions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(spec: &TaskSpec) -> Result<Option<Self>> {
        let Some(named) = Named::of(spec) else {
            return Ok(None);
        };
        let mut all = columns(spec);
        if !named.asks_items() {
            let table = spec.table.iter();
            let history: Vec<&String> = table.flat_map(|t| &t.history).collect();
            all = history
                .into_iter()
                .filter_map(|name| all.iter().find(|c| c.name == *name).cloned())
                .collect();
        }
        Self::new(named, all).map(Some)
    }

    /// Takes a row of a batch; gives the number of its item.
    ///
    /// # Errors
    /// A column that is not there, a row without session, item or order, an item that another row describes otherwise.
    pub fn see(&mut self, table: &data::Table, row: usize) -> Result<u32> {
        let place = self.rows.len();
        let at = |e: MergeError| e.at(format!("row {place} of the log"));
        let mut read = self.taken.iter().flat_map(Predicate::columns);
        if let Some(column) = read.find(|c| table.column(c).is_none()) {
            let what = match self.named.asks_items() {
                true => "says which rows are asked for",
                false => "says which earlier rows are marked",
            };
            let what = format!("has no column `{column}`, which {what}");
            return Err(at(MergeError::plan("bad-table", what)));
        }
        let session = named(table, row, &self.named.session).map_err(at)?;
        let order = match &*self.named.order {
            "" => 0.0,
            column => moment(table, row, column).map_err(at)?,
        };
        let Input::Row { fields, .. } = self.fields.input(table, row).map_err(at)? else {
            return Err(bad("is no row of a table".into()));
        };
        let name = match self.named.asks_items() {
            true => named(table, row, &self.named.item).map_err(at)?,
            false => described(&fields),
        };
        let item = match self.items.get(&name) {
            Some(item) => {
                let known = &self.described[*item as usize].1;
                let other = known.iter().zip(&fields).position(|(a, b)| a != b);
                if let Some(column) = other {
                    let column = &self.columns[column].name;
                    let what = format!(
                        "item `{name}` has another `{column}` than in an earlier row: columns of features describe items, and are the same in all rows of one"
                    );
                    let hint =
                        format!("--drop {column}, or leave it out of the lists of `[table]`");
                    return Err(at(bad(what).hint(hint)));
                }
                *item
            }
            None => {
                let item = u32::try_from(self.described.len())
                    .map_err(|_| bad("more than 2^32 items".into()))?;
                self.described.push((name.clone(), fields));
                self.items.insert(name, item);
                item
            }
        };
        let next = self.names.len() as u32;
        let names = &mut self.names;
        let session = *self.sessions.entry(session).or_insert_with_key(|name| {
            names.push(name.clone());
            next
        });
        let taken = self.taken.as_ref().is_some_and(|t| t.holds(table, row));
        self.rows.push(Row {
            session,
            order,
            step: Step { item, taken },
        });
        Ok(item)
    }

    /// The log, and for every row, in the order they were seen, which steps stand before it in its session.
    #[must_use]
    pub fn finish(self) -> (Log, Vec<Range<usize>>) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        // Stable: of equal ones the file's order.
        order.sort_by(|a, b| {
            let (a, b) = (&self.rows[*a], &self.rows[*b]);
            a.session.cmp(&b.session).then(a.order.total_cmp(&b.order))
        });
        let mut before = vec![0..0; order.len()];
        let mut sessions: Vec<(String, Range<usize>)> =
            self.names.into_iter().map(|name| (name, 0..0)).collect();
        let mut steps = Vec::with_capacity(order.len());
        for (at, row) in order.into_iter().enumerate() {
            let Row { session, step, .. } = &self.rows[row];
            let own = &mut sessions[*session as usize].1;
            if own.start == own.end {
                *own = at..at;
            }
            before[row] = own.start..at;
            own.end = at + 1;
            steps.push(*step);
        }
        let (items, fields) = self.described.into_iter().unzip();
        let log = Log {
            columns: self.columns,
            items,
            fields,
            steps,
            sessions,
        };
        (log, before)
    }
}

/// A name for what a row has in the columns that describe an item: another one for anything else.
fn described(fields: &[Field]) -> String {
    let one = |field: &Field| match field {
        Field::Word(word) => format!("{} {word};", word.len()),
        Field::Number(x) => format!("{x};"),
        Field::Missing => ";".to_owned(),
    };
    fields.iter().map(one).collect()
}

/// The name in a column, which has to be there.
fn named(table: &data::Table, row: usize, column: &str) -> Result<String> {
    let Some(values) = table.column(column) else {
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        let error = MergeError::plan("bad-table", format!("has no column `{column}`"));
        return Err(error.hint(format!("its columns: {}", names.join(", "))));
    };
    match values.cell(row) {
        cell if cell.is_empty() => Err(bad(format!("has nothing in column `{column}`"))
            .hint("every row of a log has a session, an item and its place; remove such rows")),
        Cell::Text(text) => Ok(text.to_owned()),
        _ => Ok(plain(&table.at(row, column))),
    }
}

/// The number or date in a column.
fn moment(table: &data::Table, row: usize, column: &str) -> Result<f64> {
    let text = named(table, row, column)?;
    let cell = table.column(column).and_then(|c| c.cell(row).to_number());
    let found = cell.or_else(|| days(&text)).filter(|x| x.is_finite());
    found.ok_or_else(|| {
        bad(format!("column `{column}` holds `{text}`, which is no number and no date"))
            .hint("`table.order` (--order) names a column of numbers or dates; without it the order of the file counts")
    })
}

/// Splits that are learned from or scored: no session may be in two of them, since one would tell of the other.
///
/// # Errors
/// A session that is, with its splits; what reading reports.
pub fn apart(spec: &TaskSpec, loader: &Loader<'_>) -> Result<()> {
    let Some(named_by) = Named::of(spec) else {
        return Ok(());
    };
    let mut seen: HashMap<String, &str> = HashMap::new();
    for split in spec.splits.named.keys() {
        loader.rows(split, &mut |table| {
            for row in 0..table.rows() {
                let session = named(&table, row, &named_by.session)?;
                let first = *seen.entry(session.clone()).or_insert(split);
                if first != split {
                    let what = format!(
                        "task `{}`: session `{session}` has rows in the splits `{first}` and `{split}`",
                        spec.id
                    );
                    return Err(bad(what).hint(format!(
                        "table.group = \"{}\" with group_as = \"split\" keeps the rows of a session together",
                        named_by.session
                    )));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::board::score::table::ColumnKind;

    fn text(values: &[&str]) -> data::Column {
        data::Column::Text(values.iter().map(|v| Some(*v)).collect())
    }

    fn reader() -> Reader {
        let named = Named {
            session: "s".into(),
            order: "t".into(),
            item: "i".into(),
            taken: "click == 1".into(),
        };
        let column = Column {
            name: "kind".into(),
            kind: ColumnKind::Word,
        };
        Reader::new(named, vec![column]).unwrap()
    }

    fn table(s: &[&str], t: &[&str], i: &[&str], click: &[&str], kind: &[&str]) -> data::Table {
        let columns = [
            ("s", s),
            ("t", t),
            ("i", i),
            ("click", click),
            ("kind", kind),
        ];
        data::Table::of(columns.map(|(name, values)| (name, text(values))))
    }

    #[test]
    fn rows_see_what_stands_before_them_in_their_session() {
        let mut reader = reader();
        // Session x out of order and between the rows of y; two rows of y at one time.
        let table = table(
            &["y", "x", "y", "x", "y"],
            &["2", "9", "2", "1", "1"],
            &["a", "b", "c", "a", "b"],
            &["0", "1", "1", "0", "0"],
            &["u", "v", "u", "u", "v"],
        );
        let items: Vec<u32> = (0..5).map(|row| reader.see(&table, row).unwrap()).collect();
        assert_eq!(items, [0, 1, 2, 0, 1]);
        let (log, before) = reader.finish();
        assert_eq!(log.items, ["a", "b", "c"]);
        let step = |item, taken| Step { item, taken };
        // y: b at 1, a at 2, c at 2; x: a at 1, b at 9.
        let steps = [(1, false), (0, false), (2, true), (0, false), (1, true)];
        assert_eq!(log.steps, steps.map(|(i, t)| step(i, t)));
        assert_eq!(before, [0..1, 3..4, 0..2, 3..3, 0..0]);
        assert_eq!(
            log.sessions,
            [("y".to_owned(), 0..3), ("x".to_owned(), 3..5)]
        );
        assert_eq!(log.fields[1], log.fields[1]);
    }

    #[test]
    fn what_rows_have_is_an_item_where_none_is_named() {
        let word = |name: &str| Column {
            name: name.into(),
            kind: ColumnKind::Word,
        };
        let reader = |taken: &str| {
            let named = Named {
                session: "s".into(),
                order: "t".into(),
                item: String::new(),
                taken: taken.into(),
            };
            Reader::new(named, vec![word("i"), word("kind")]).unwrap()
        };
        let table = table(
            &["x", "x", "x", "y"],
            &["1", "2", "3", "1"],
            &["a", "a", "ab", "a"],
            &["0", "1", "1", "1"],
            &["bc", "", "c", "bc"],
        );
        let seen = |mut reader: Reader| {
            let items: Vec<u32> = (0..4).map(|row| reader.see(&table, row).unwrap()).collect();
            (items, reader.finish())
        };
        let (items, (log, before)) = seen(reader("click == 1"));
        assert_eq!(items, [0, 1, 2, 0]);
        assert_eq!(before, [0..0, 0..1, 0..2, 3..3]);
        let marked: Vec<bool> = log.steps.iter().map(|s| s.taken).collect();
        assert_eq!(marked, [false, true, true, true]);
        assert_eq!(log.fields[1][1], Field::Missing);
        // Without a predicate no row is marked.
        assert!(seen(reader("")).1.0.steps.iter().all(|s| !s.taken));
    }

    #[test]
    fn rows_that_are_no_log_are_refused() {
        let cells = [["x"], ["1"], ["a"], ["1"], ["u"]];
        let said = |at: usize, value: &'static str| {
            let mut cells = cells;
            cells[at] = [value];
            let [s, t, i, click, kind] = &cells;
            let error = reader().see(&table(s, t, i, click, kind), 0).unwrap_err();
            error.to_string()
        };
        assert!(
            said(0, " ").contains("nothing in column `s`"),
            "{}",
            said(0, " ")
        );
        assert!(said(2, "").contains("nothing in column `i`"));
        assert!(said(1, "soon").contains("no number and no date"));
        let mut reader = reader();
        let two = table(
            &["x", "x"],
            &["1", "2"],
            &["a", "a"],
            &["1", "0"],
            &["u", "v"],
        );
        reader.see(&two, 0).unwrap();
        let error = reader.see(&two, 1).unwrap_err().to_string();
        assert!(error.contains("another `kind`"), "{error}");
        let lacks = data::Table::of([("s", text(&["x"]))]);
        assert!(self::reader().see(&lacks, 0).is_err());
    }
}
