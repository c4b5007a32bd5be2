//! Imported tasks as files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Imported;
use crate::error::{MergeError, Result};
use crate::tasks::spec::SourceKind;

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Id of the task or group.
    pub id: String,
    /// Its spec.
    pub file: PathBuf,
    /// Rows written beside it; `None` where it reads the files of its origin.
    pub rows: Option<usize>,
}

/// Writes every task as `<id>.toml`, rows that stood inside the foreign file as `<id>.jsonl` beside it, groups as
/// `<id>.toml`. Files are written under another name and renamed.
///
/// # Errors
/// A file that exists already (unless `force`), an unwritable folder.
pub fn write(imported: &Imported, folder: &Path, force: bool) -> Result<Vec<Written>> {
    let mut out = Vec::new();
    for made in &imported.tasks {
        let mut spec = made.spec.clone();
        let file = folder.join(format!("{}.toml", spec.id));
        let mut rows = None;
        if spec.source.kind == SourceKind::Inline {
            let data = folder.join(format!("{}.jsonl", spec.id));
            let name = data
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            let mut text = String::new();
            for row in std::mem::take(&mut spec.source.rows) {
                text += &Value::Object(row).to_string();
                text.push('\n');
                *rows.get_or_insert(0) += 1;
            }
            spec.source.kind = SourceKind::Jsonl;
            for split in spec.splits.named.values_mut() {
                name.clone_into(&mut split.file);
            }
            put(&data, &text, force)?;
        } else {
            let origin = super::parent(&made.origin);
            let full = std::path::absolute(origin).unwrap_or_else(|_| origin.to_owned());
            spec.source.root = full.display().to_string();
        }
        let text = toml::to_string(&spec)
            .map_err(|e| MergeError::plan("bad-import", format!("the spec as TOML: {e}")))?;
        put(&file, &text, force)?;
        out.push(Written {
            id: spec.id,
            file,
            rows,
        });
    }
    for (group, _) in &imported.groups {
        let file = folder.join(format!("{}.toml", group.id));
        let text = toml::to_string(group)
            .map_err(|e| MergeError::plan("bad-import", format!("the group as TOML: {e}")))?;
        put(&file, &text, force)?;
        out.push(Written {
            id: group.id.clone(),
            file,
            rows: None,
        });
    }
    Ok(out)
}

fn put(file: &Path, text: &str, force: bool) -> Result<()> {
    if file.exists() && !force {
        return Err(MergeError::plan("output-exists", "exists already")
            .at(file.display().to_string())
            .hint("--force replaces it"));
    }
    let io = |e| polyloom_core::Error::io(file, "write", e);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, file))
        .map_err(io)?;
    Ok(())
}
