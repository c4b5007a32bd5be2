//! What prepares the rows of a model of tables.

use std::path::Path;

use crate::error::{Error, Result};
use crate::table::{Preparation, TABLE};

/// What prepares rows, of a folder; it has to make the rows that the model takes.
pub(super) fn prepared(
    folder: &Path,
    (numbers, categories): (usize, &[usize]),
    goals: usize,
) -> Result<Box<Preparation>> {
    let read = Preparation::read(folder)?;
    let groups = read.groups().map_or(1, |g| g.values.len());
    if !goals.is_multiple_of(groups) {
        return Err(Error::file(
            &folder.join(TABLE),
            format!("has {groups} groups; config.json has {goals} goals, as many for each"),
        ));
    }
    let (numeric, codes) = (read.numeric(), read.categories());
    if numeric == numbers && codes == categories {
        return Ok(Box::new(read));
    }
    Err(Error::file(
        &folder.join(TABLE),
        format!(
            "makes {numeric} numbers and codes of {codes:?}; config.json has {numbers} and {categories:?}"
        ),
    ))
}
