//! Tasks by id: spec files of folders, `task.json` folders, groups.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::read::{self, Document};
use super::spec::{GroupSpec, SourceKind, TaskSpec};
use super::{shipped, task_json};
use crate::error::{MergeError, Result};
use crate::suggest;

/// A task and where it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The task.
    pub spec: TaskSpec,
    /// Its file; `None` for a task that ships with Polyloom.
    pub file: Option<PathBuf>,
}

/// Tasks and groups by id.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    tasks: BTreeMap<String, Entry>,
    groups: BTreeMap<String, GroupSpec>,
}

/// Folders that `source.root` may be relative to, in the order they are tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots(pub Vec<PathBuf>);

impl Roots {
    /// The folder of a task: `source.root` as it is if absolute, else below the folder of its spec, else below the first
    /// root that has it.
    ///
    /// # Errors
    /// No such folder; the message lists what was tried.
    pub fn folder(&self, entry: &Entry) -> Result<PathBuf> {
        let root = Path::new(&entry.spec.source.root);
        if root.is_absolute() {
            return Ok(root.to_owned());
        }
        let source = &entry.spec.source;
        if source.kind == SourceKind::Synth || !source.rows.is_empty() {
            return Ok(PathBuf::new());
        }
        let beside = entry.file.as_deref().and_then(Path::parent);
        let candidates: Vec<PathBuf> = beside
            .map(Path::to_owned)
            .into_iter()
            .chain(self.0.iter().cloned())
            .map(|f| f.join(root))
            .collect();
        // A folder that has the first file wins over one that merely exists.
        let first = entry
            .spec
            .splits
            .named
            .values()
            .find(|s| !s.file.is_empty());
        let has_file = |f: &&PathBuf| first.is_some_and(|s| f.join(&s.file).exists());
        if let Some(found) = candidates.iter().find(has_file) {
            return Ok(found.clone());
        }
        if let Some(found) = candidates.iter().find(|f| f.is_dir()) {
            return Ok(found.clone());
        }
        let tried: Vec<String> = candidates.iter().map(|f| f.display().to_string()).collect();
        let what = format!(
            "the data folder `{}` of task `{}` is nowhere (tried {})",
            entry.spec.source.root,
            entry.spec.id,
            if tried.is_empty() {
                "no root".into()
            } else {
                tried.join(", ")
            }
        );
        Err(MergeError::plan("no-data", what)
            .hint("--data DIR or POLYLOOM_DATA names the folder that holds it"))
    }
}

impl Catalogue {
    /// The tasks that ship with Polyloom.
    ///
    /// # Errors
    /// A shipped spec that is wrong, which the tests exclude.
    pub fn shipped() -> Result<Self, Vec<MergeError>> {
        let mut catalogue = Self::default();
        for (name, text) in shipped::SPECS {
            let document = read::toml(text, name)?;
            catalogue.add(document, None).map_err(|e| vec![e])?;
        }
        Ok(catalogue)
    }

    /// Adds what a path holds: a spec file, a folder with a `task.json`, or all spec files below a folder. A task of the
    /// same id as a shipped one takes its place.
    ///
    /// # Errors
    /// A spec that is wrong, an id that two files have, a path that holds no task.
    pub fn add_path(&mut self, path: &Path) -> Result<Vec<String>, Vec<MergeError>> {
        let mut files = Vec::new();
        if path.is_dir() && !path.join("task.json").is_file() {
            spec_files(path, 0, &mut files).map_err(|e| vec![e])?;
            files.sort();
            if files.is_empty() {
                let error = MergeError::plan("no-task", "holds no task.json and no *.toml spec");
                return Err(vec![error.at(path.display().to_string())]);
            }
        } else {
            files.push(path.to_owned());
        }
        let mut ids = Vec::new();
        let mut errors = Vec::new();
        for file in files {
            let read = if is_task_json(&file) {
                task_json::read(&file)
                    .map(|s| Document::Task(Box::new(s)))
                    .map_err(|e| vec![e])
            } else {
                read::file(&file)
            };
            match read {
                Ok(document) => {
                    ids.push(document.id().to_owned());
                    if let Err(error) = self.add(document, Some(&file)) {
                        errors.push(error);
                    }
                }
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() {
            Ok(ids)
        } else {
            Err(errors)
        }
    }

    fn add(&mut self, document: Document, file: Option<&Path>) -> Result<()> {
        let id = document.id().to_owned();
        let file = file.map(|f| {
            if f.is_dir() {
                f.join("task.json")
            } else {
                f.to_owned()
            }
        });
        let taken = match self.tasks.get(&id) {
            Some(entry) => entry.file.is_some() || file.is_none(),
            None => self.groups.contains_key(&id),
        };
        if taken {
            let before = self.tasks.get(&id).and_then(|e| e.file.as_ref());
            let before = before.map_or("a shipped one".into(), |f| f.display().to_string());
            let error =
                MergeError::plan("same-id", format!("the id `{id}` is that of {before} too"));
            return Err(match file {
                Some(file) => error.at(file.display().to_string()),
                None => error,
            });
        }
        match document {
            Document::Task(spec) => {
                self.tasks.insert(id, Entry { spec: *spec, file });
            }
            Document::Group(group) => {
                self.groups.insert(id, group);
            }
        }
        Ok(())
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Entry> {
        self.tasks.values()
    }

    /// All groups, by id.
    pub fn groups(&self) -> impl Iterator<Item = &GroupSpec> {
        self.groups.values()
    }

    /// A task by id, or by the last part of an id that only one task has.
    ///
    /// # Errors
    /// No such task; the message has the nearest ids.
    pub fn task(&self, id: &str) -> Result<&Entry> {
        if let Some(entry) = self.tasks.get(id) {
            return Ok(entry);
        }
        let last = |full: &str| full.rsplit('/').next() == Some(id);
        let mut named = self.tasks.iter().filter(|(full, _)| last(full));
        if let (Some((_, entry)), None) = (named.next(), named.next()) {
            return Ok(entry);
        }
        let ids: Vec<&str> = self.tasks.keys().map(String::as_str).collect();
        let mut near = suggest::nearest(id, &ids, 3);
        if near.is_empty() {
            let parts: Vec<&str> = ids.iter().filter_map(|i| i.rsplit('/').next()).collect();
            near = suggest::nearest(id, &parts, 3);
        }
        let error = MergeError::plan("unknown-task", format!("unknown task `{id}`"));
        Err(if near.is_empty() {
            error.hint("`polyloom tasks list` shows all; a path of a spec file works too")
        } else {
            error.hint(format!("did you mean `{}`?", near.join("`, `")))
        })
    }

    /// The ids of the tasks of a group, nested groups and `*` patterns followed, each once, in the order of the list.
    ///
    /// # Errors
    /// An entry that matches nothing, or groups that hold each other.
    pub fn members(&self, group: &str) -> Result<Vec<String>> {
        let mut out = Vec::new();
        self.collect(group, &mut Vec::new(), &mut out)?;
        let mut seen = BTreeSet::new();
        out.retain(|id| seen.insert(id.clone()));
        Ok(out)
    }

    fn collect(&self, id: &str, above: &mut Vec<String>, out: &mut Vec<String>) -> Result<()> {
        let Some(group) = self.groups.get(id) else {
            return Err(MergeError::plan(
                "unknown-group",
                format!("unknown group `{id}`"),
            ));
        };
        if above.iter().any(|g| g == id) {
            let circle = format!("{} > {id}", above.join(" > "));
            return Err(MergeError::plan(
                "group-cycle",
                format!("groups hold each other: {circle}"),
            ));
        }
        above.push(id.to_owned());
        for pattern in &group.tasks {
            let tasks: Vec<&String> = self.tasks.keys().filter(|t| glob(pattern, t)).collect();
            let own = |g: &&String| *g != id || *pattern == id;
            let groups: Vec<&String> = self
                .groups
                .keys()
                .filter(|g| glob(pattern, g))
                .filter(own)
                .collect();
            if tasks.is_empty() && groups.is_empty() {
                let what = format!("group `{id}`: `{pattern}` is no task and no group");
                return Err(MergeError::plan("unknown-task", what));
            }
            out.extend(tasks.into_iter().cloned());
            for inner in groups {
                self.collect(inner, above, out)?;
            }
        }
        above.pop();
        Ok(())
    }
}

fn is_task_json(path: &Path) -> bool {
    path.is_dir() || path.file_name().is_some_and(|n| n == "task.json")
}

/// The deepest nesting that is searched for specs.
const DEPTH: usize = 8;

/// Spec files and `task.json` files below a folder.
fn spec_files(folder: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<()> {
    let io = |e| polyloom_core::Error::io(folder, "read", e);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if depth < DEPTH && !name.starts_with('.') {
                spec_files(&path, depth + 1, out)?;
            }
        } else if name == "task.json" || name.ends_with(".toml") {
            out.push(path);
        }
    }
    Ok(())
}

/// `*` stands for any run of characters.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_runs() {
        assert!(glob("a*", "abc") && glob("*", "") && glob("a*c*e", "abcde") && glob("ab", "ab"));
        assert!(!glob("a*", "ba") && !glob("ab", "abc") && !glob("a*b*a", "aba a x"));
        assert!(!glob("aa*aa", "aaa"));
    }

    #[test]
    fn groups_nest_and_circles_are_found() {
        let mut catalogue = Catalogue::default();
        let task = |id: &str| {
            format!(
                "schema = \"polyloom.task/1\"\nid = \"{id}\"\ntype = \"generation\"\nprompts = [{{ template = \"x\" }}]\nsource = {{ kind = \"csv\" }}\nsplits = {{ test = {{ file = \"a.csv\" }} }}\n"
            )
        };
        let group = |id: &str, tasks: &str| {
            format!("schema = \"polyloom.group/1\"\nid = \"{id}\"\ntasks = {tasks}\n")
        };
        for text in [
            task("t/a"),
            task("t/b"),
            group("g1", "[\"t/*\"]"),
            group("g2", "[\"g1\", \"t/a\"]"),
            group("c1", "[\"c2\"]"),
            group("c2", "[\"c1\"]"),
            group("lost", "[\"x/*\"]"),
        ] {
            catalogue
                .add(read::toml(&text, "x").unwrap(), None)
                .unwrap();
        }
        assert_eq!(catalogue.members("g2").unwrap(), ["t/a", "t/b"]);
        let told = |g: &str| catalogue.members(g).unwrap_err().to_string();
        assert_eq!(told("c1"), "groups hold each other: c1 > c2 > c1");
        assert_eq!(told("lost"), "group `lost`: `x/*` is no task and no group");
        assert_eq!(catalogue.task("a").unwrap().spec.id, "t/a");
        assert!(catalogue.task("t/c").unwrap_err().hints()[0].contains("t/a"));
    }
}
