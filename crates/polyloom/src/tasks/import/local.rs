//! Where the files of a named data set are.

use std::path::{Path, PathBuf};

use crate::tasks::data;

/// Where the files of a data set may be.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// The folder of the foreign file; files in specs are relative to it.
    pub folder: &'a Path,
    /// More folders.
    pub data: &'a [PathBuf],
}

impl Local<'_> {
    /// The file (or pattern of files) of a split of a data set: `<split>.<ending>` or `<split>-*.<ending>`, in the data
    /// set's folder or its `data/`. Relative to `self.folder` where it is below it.
    #[must_use]
    pub fn split(&self, set: &str, split: &str) -> Option<String> {
        let roots = std::iter::once(self.folder).chain(self.data.iter().map(PathBuf::as_path));
        for (i, root) in roots.enumerate() {
            for inside in [root.join(set), root.join(set).join("data")] {
                if let Some(name) = split_file(&inside, split) {
                    let full = inside.join(name);
                    let short = if i == 0 {
                        full.strip_prefix(root).ok()
                    } else {
                        None
                    };
                    let full = short.map_or_else(
                        || std::path::absolute(&full).unwrap_or_else(|_| full.clone()),
                        Path::to_owned,
                    );
                    return Some(full.display().to_string());
                }
            }
        }
        None
    }
}

/// The name (or pattern) of a split's file in a folder.
pub(super) fn split_file(folder: &Path, split: &str) -> Option<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| data::kind_of(Path::new(n)).is_some())
        .collect();
    names.sort();
    let exact = names
        .iter()
        .find(|n| n.split_once('.').is_some_and(|(s, _)| s == split));
    if let Some(name) = exact {
        return Some(name.clone());
    }
    let prefix = format!("{split}-");
    let part = names.iter().find(|n| n.starts_with(&prefix))?;
    let extension = Path::new(part).extension()?.to_str()?;
    Some(format!("{split}-*.{extension}"))
}
