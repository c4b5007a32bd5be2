//! Parts of splits put together: what a fold learns from, and what it is asked.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Loader;
use crate::error::Result;
use crate::tasks::data::Visit;
use crate::tasks::spec::{SourceKind, Split};

/// Rows of several splits, read as one split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// The splits. Those that are slices of one file are read in the file's order, others one after the other.
    pub of: Arc<[String]>,
    /// Whether each of their rows is taken (rows that `filter` drops have no number); `None`: all are.
    pub keep: Option<Arc<[bool]>>,
}

/// Parts by name.
pub type Parts = BTreeMap<String, Part>;

/// Splits of one file: the name and what the first of them says, and which rows of the file they take together.
type Together<'s> = (&'s str, &'s Split, Option<Vec<bool>>);

impl Loader<'_> {
    /// Reads the rows of a part.
    pub(super) fn part(&self, part: &Part, visit: Visit) -> Result<()> {
        let (mut at, mut seen) = (0, HashSet::new());
        for (name, split, file) in self.together(&part.of)? {
            self.kept((name, split), file.as_deref(), &mut seen, &mut |table| {
                let start = at;
                at += table.rows();
                match &part.keep {
                    None => visit(table),
                    Some(keep) => visit(table.filtered(|i| keep.get(start + i) == Some(&true))),
                }
            })?;
        }
        Ok(())
    }

    /// Splits by their files.
    fn together<'p>(&'p self, names: &'p [String]) -> Result<Vec<Together<'p>>> {
        let mut files: Vec<Together<'p>> = Vec::new();
        for name in names {
            let split = self.split(name)?;
            let keep = self.selection(name, split)?;
            // Of these a split without a file is known by its name.
            let by_name = matches!(
                self.spec.source.kind,
                SourceKind::ImageFolder | SourceKind::Synth
            );
            let same = |s: &Split| s.file == split.file && !(by_name && s.file.is_empty());
            let Some((_, _, held)) = files.iter_mut().find(|(_, s, _)| same(s)) else {
                files.push((name, split, keep));
                continue;
            };
            *held = match (held.take(), keep) {
                (Some(held), Some(keep)) => {
                    Some(held.iter().zip(keep).map(|(a, b)| *a || b).collect())
                }
                _ => None,
            };
        }
        Ok(files)
    }
}
