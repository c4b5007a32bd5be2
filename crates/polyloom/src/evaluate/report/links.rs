//! What a number goes back to: the hash of its task and the record of its answers.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use crate::evaluate::board::results::Results;

/// Letters of a hash that are shown beside a number; the whole hash stands with the task.
const HASH: usize = 16;

/// Where numbers go back to, seen from a page.
pub struct Links<'a> {
    results: &'a Results,
    /// Folder of the page; without it records are named, not linked.
    folder: Option<PathBuf>,
}

impl<'a> Links<'a> {
    /// From a page in a folder.
    pub fn from(results: &'a Results, folder: Option<&Path>) -> Self {
        Self {
            results,
            folder: folder.map(|f| {
                whole(if f.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    f
                })
            }),
        }
    }

    /// The record of a cell as a relative link; empty where there is none, or no way to it.
    pub fn record(&self, system: usize, task: usize) -> String {
        let cell = self.results.cell(system, task);
        let record = cell.and_then(|c| c.record.as_deref());
        self.to(record).unwrap_or_default()
    }

    /// A file as a relative link.
    pub fn to(&self, file: Option<&Path>) -> Option<String> {
        relative(&whole(file?), self.folder.as_deref()?)
    }

    /// Hash and record of a cell, to end a title with.
    pub fn about(&self, system: usize, task: usize) -> String {
        let mut out = String::new();
        if let Some(hash) = self.results.tasks.get(task).and_then(|t| t.hash.as_deref()) {
            let _ = write!(out, "; task {}", short(hash));
        }
        let cell = self.results.cell(system, task);
        if let Some(record) = cell.and_then(|c| c.record.as_deref()) {
            let _ = write!(out, "; record {}", record.display());
        }
        out
    }
}

/// The first letters of a hash.
pub fn short(hash: &str) -> String {
    hash.chars().take(HASH).collect()
}

/// From the root, without links and dots where the file is there.
fn whole(path: &Path) -> PathBuf {
    let found = path.canonicalize().or_else(|_| std::path::absolute(path));
    found.unwrap_or_else(|_| path.to_path_buf())
}

/// The way from a folder to a file, both from the root, as a link; `None` from one drive to another.
fn relative(file: &Path, folder: &Path) -> Option<String> {
    let (to, from): (Vec<_>, Vec<_>) = (file.components().collect(), folder.components().collect());
    let shared = to.iter().zip(&from).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return None;
    }
    let mut parts = vec!["..".to_owned(); from.len() - shared];
    for part in &to[shared..] {
        let Component::Normal(name) = part else {
            return None;
        };
        parts.push(encoded(&name.to_string_lossy()));
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// A name as a link holds it: nothing in it can be read as a scheme, a host or a query.
fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte as char);
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_files() {
        let way = |file: &str, folder: &str| relative(Path::new(file), Path::new(folder));
        assert_eq!(way("/a/b/c.parquet", "/a/b").as_deref(), Some("c.parquet"));
        assert_eq!(
            way("/a/x/c.parquet", "/a/b/d").as_deref(),
            Some("../../x/c.parquet")
        );
        let evil = way("/a/javascript:alert(1)/\"><b>?#%.parquet", "/a").unwrap();
        assert_eq!(
            evil,
            "javascript%3Aalert%281%29/%22%3E%3Cb%3E%3F%23%25.parquet"
        );
        assert_eq!(
            way("/a/ä b.parquet", "/a").as_deref(),
            Some("%C3%A4%20b.parquet")
        );
    }
}
