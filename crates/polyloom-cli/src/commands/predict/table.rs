//! Rows of a table: read on a thread of their own while those before are prepared and answered.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Fields;
use polyloom::evaluate::board::score::sessions::Reader as Log;
use polyloom::tasks::data::{self, Limits, Table};
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::models::table::Before;
use polyloom_learn::table::{Preparation, RowReader};
use polyloom_learn::tasks::rows::Shown;

use super::{Said, Speaker, kind, lacks, none};
use crate::args_predict::PredictArgs;
use crate::ui::Failure;

/// Batches of the file that wait for an answer at most.
const AHEAD: usize = 2;

/// What every head says of the rows of the file.
pub fn said(
    args: &PredictArgs,
    preparation: &Preparation,
    spec: Option<&TaskSpec>,
    speaker: &Speaker<'_>,
) -> Result<Said, Failure> {
    let kind = kind(args)?;
    let mut rows = Rows {
        args,
        preparation,
        spec,
        speaker,
        before: before(args, preparation)?,
        opened: None,
        said: Said::of(speaker.heads.len()),
    };
    let (give, take) = sync_channel(AHEAD);
    thread::scope(|scope| -> Result<(), Failure> {
        let reading = scope.spawn(move || {
            data::read(&args.file, kind, &Limits::default(), &mut |table| {
                // Nobody takes it: an error was met, which is told in place of this one.
                let stopped = |_| MergeError::plan("bad-input", "nothing reads on");
                give.send(table).map_err(stopped)
            })
        });
        // The loop owns the receiver: it is gone, and the reader stops, when the loop ends.
        for table in take {
            rows.take(&table)?;
        }
        match reading.join() {
            Ok(read) => Ok(read?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    if rows.said.ids.is_empty() {
        return Err(none(args));
    }
    Ok(rows.said)
}

/// What was before every row of the file in its session, where the model reads that: the file is read once more for it, since
/// rows of a session need not follow one another.
fn before(args: &PredictArgs, preparation: &Preparation) -> Result<Vec<Before>, Failure> {
    let Some(history) = preparation.history() else {
        return Ok(Vec::new());
    };
    let place = args.file.display().to_string();
    let mut log = Log::new(history.named.clone(), preparation.history_columns())?;
    data::read(&args.file, kind(args)?, &Limits::default(), &mut |table| {
        for row in 0..table.rows() {
            log.see(&table, row).map_err(|e| e.at(place.clone()))?;
        }
        Ok(())
    })?;
    let (log, steps) = log.finish();
    let past = Arc::new(preparation.past(&log));
    let one = |steps| Before {
        past: past.clone(),
        steps,
    };
    Ok(steps.into_iter().map(one).collect())
}

/// The rows so far.
struct Rows<'a> {
    args: &'a PredictArgs,
    preparation: &'a Preparation,
    spec: Option<&'a TaskSpec>,
    speaker: &'a Speaker<'a>,
    /// What was before each, where the model reads that.
    before: Vec<Before>,
    /// How rows are read, once the first batch has shown the columns.
    opened: Option<(Fields, RowReader<'a>)>,
    said: Said,
}

impl Rows<'_> {
    /// Answers the rows of a batch.
    fn take(&mut self, table: &Table) -> Result<(), Failure> {
        let place = self.args.file.display().to_string();
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        let there = |name: &str| names.contains(&name).then(|| name.to_owned());
        if let Some(id) = self.args.id.as_deref().filter(|id| !names.contains(id)) {
            return Err(lacks(self.args, id, &names).into());
        }
        if self.opened.is_none() {
            let mut columns = self.preparation.asked();
            columns.retain(|c| names.contains(&&*c.name));
            let bad = |e: polyloom_learn::Error| {
                MergeError::plan("bad-input", e.to_string()).at(place.clone())
            };
            let reader = self.preparation.reader(&columns).map_err(bad)?;
            self.opened = Fields::new(columns).map(|fields| (fields, reader));
        }
        let Some((fields, reader)) = &self.opened else {
            return Ok(());
        };
        let before = self.said.ids.len();
        let mut shown: Vec<Shown> = fields
            .blocks(table, |block| {
                let field = |place, row| block.field(place, row);
                let refused =
                    |e: polyloom_learn::Error| (0, MergeError::plan("bad-input", e.to_string()));
                let rows = reader.rows(block.rows(), field, refused)?;
                Ok(rows.into_iter().map(|r| Shown::Row(Box::new(r))).collect())
            })
            .map_err(|(row, e)| e.at(format!("{place}, row {}", before + row + 1)))?;
        for (shown, seen) in shown.iter_mut().zip(self.before.iter().skip(before)) {
            if let Shown::Row(row) = shown {
                row.before = Some(seen.clone());
            }
        }
        let id = self.args.id.clone();
        let id = id
            .or_else(|| self.spec.and_then(|s| there(&s.fields.id)))
            .or_else(|| there("id"));
        let id = id.as_deref().map(|name| table.column(name));
        let ids = (0..table.rows()).map(|row| match id {
            Some(column) => column.map_or_else(String::new, |c| c.cell(row).to_text()),
            None => (before + row).to_string(),
        });
        self.said.ids.extend(ids);
        let said = self.speaker.said(&|_| Ok(Cow::Borrowed(&shown)))?;
        for (all, mut new) in self.said.outputs.iter_mut().zip(said) {
            all.append(&mut new);
        }
        Ok(())
    }
}
