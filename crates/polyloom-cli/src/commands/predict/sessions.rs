//! Sessions: the rows of a file, and what comes next in each.

use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Input;
use polyloom::evaluate::board::score::sessions::Reader as Log;
use polyloom::tasks::data::{self, Limits};
use polyloom_learn::table::Preparation;
use polyloom_learn::tasks::Reader;
use polyloom_learn::tasks::head::Feature;
use polyloom_learn::tasks::rows::Shown;

use super::kind;
use crate::args_predict::PredictArgs;
use crate::ui::Failure;

/// The sessions of a file, by name, each after all of its rows.
pub fn shown(
    args: &PredictArgs,
    preparation: &Preparation,
    reader: &Reader,
) -> Result<(Vec<String>, Vec<Shown>), Failure> {
    let place = args.file.display().to_string();
    let bad = |e: MergeError| e.at(place.clone());
    if args.id.is_some() {
        let what = "--id names rows, and a model of sessions answers session by session";
        return Err(MergeError::plan("bad-flag", what)
            .hint("leave it out: answers are called as their sessions")
            .into());
    }
    let Some(sessions) = preparation.sessions() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let mut log = Log::new(sessions.named.clone(), preparation.asked())?;
    let mut rows = 0usize;
    data::read(&args.file, kind(args)?, &Limits::default(), &mut |table| {
        for row in 0..table.rows() {
            log.see(&table, row).map_err(&bad)?;
        }
        rows += table.rows();
        Ok(())
    })?;
    if rows == 0 {
        return Err(super::none(args));
    }
    let log = Arc::new(log.finish().0);
    let visit = |(_, steps): &(String, std::ops::Range<usize>)| Input::Visit {
        log: log.clone(),
        before: steps.clone(),
    };
    let inputs: Vec<Input> = log.sessions.iter().map(visit).collect();
    let names = log.sessions.iter().map(|(name, _)| name.clone()).collect();
    let shown = reader.show(&inputs, Feature::Goal)?;
    Ok((names, shown))
}
