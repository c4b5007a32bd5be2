//! Reads spec files: TOML (with places and near misses), JSON and YAML with the same keys.

mod shape;

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::shape::Kind::{Each, List, Table};
use self::shape::{GROUP, Shape, TASK};
use super::spec::{GROUP_SCHEMA, GroupSpec, TASK_SCHEMA, TaskSpec};
use super::validate::{self, Problem};
use crate::error::MergeError;
use crate::suggest;

/// What a spec file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// A task.
    Task(Box<TaskSpec>),
    /// A group of tasks.
    Group(GroupSpec),
}

impl Document {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Task(task) => &task.id,
            Self::Group(group) => &group.id,
        }
    }
}

/// The problems shown of one file.
const MOST: usize = 10;

/// Reads a spec file, its language by its name (`.toml`, `.json`, `.yaml`, `.yml`).
///
/// # Errors
/// Every problem found, at most ten, each with its place and the path of the bad field.
pub fn file(path: &Path) -> Result<Document, Vec<MergeError>> {
    let bytes =
        std::fs::read(path).map_err(|e| vec![polyloom_core::Error::io(path, "read", e).into()])?;
    let place = path.display().to_string();
    let text = String::from_utf8(bytes)
        .map_err(|_| vec![MergeError::plan("bad-task", "is not UTF-8 text").at(place.clone())])?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => untyped(&place, || {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        }),
        Some("yaml" | "yml") => untyped(&place, || {
            serde_saphyr::from_str(&text).map_err(|e| e.to_string())
        }),
        _ => toml(&text, &place),
    }
}

/// Reads a spec from TOML text; `place` names it in messages.
///
/// # Errors
/// As [`file()`].
pub fn toml(text: &str, place: &str) -> Result<Document, Vec<MergeError>> {
    let document = DeTable::parse(text).map_err(|e| {
        let at = e
            .span()
            .map_or(place.to_owned(), |s| position(text, place, s.start));
        vec![MergeError::plan("bad-toml", format!("is not valid TOML: {}", e.message())).at(at)]
    })?;
    let top = document.get_ref();
    let mut reader = Reader {
        text,
        place,
        errors: Vec::new(),
    };
    let Some(group) = reader.schema(top) else {
        return Err(reader.errors);
    };
    reader.keys(top, if group { GROUP } else { TASK }, "");
    if !reader.errors.is_empty() {
        return Err(reader.errors);
    }
    let (document, problems) = if group {
        let spec: GroupSpec = reader.typed()?;
        let problems = validate::group(&spec);
        (Document::Group(spec), problems)
    } else {
        let spec: TaskSpec = reader.typed()?;
        let problems = validate::task(&spec);
        (Document::Task(Box::new(spec)), problems)
    };
    for problem in problems {
        let span = locate(top, &problem.path);
        let at = span.map_or(place.to_owned(), |byte| position(text, place, byte));
        reader.push(told(problem).at(at));
    }
    if reader.errors.is_empty() {
        Ok(document)
    } else {
        Err(reader.errors)
    }
}

fn told(problem: Problem) -> MergeError {
    let text = format!("`{}`: {}", problem.path, problem.message);
    let error = MergeError::plan("bad-task", text);
    match problem.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A spec as a JSON value: the key check of serde, then ours.
fn untyped(
    place: &str,
    parse: impl Fn() -> Result<serde_json::Value, String>,
) -> Result<Document, Vec<MergeError>> {
    let bad = |what: String| vec![MergeError::plan("bad-task", what).at(place)];
    let value = parse().map_err(bad)?;
    let (document, problems) = match value.get("schema").and_then(|s| s.as_str()) {
        Some(GROUP_SCHEMA) => {
            let spec: GroupSpec = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
            let problems = validate::group(&spec);
            (Document::Group(spec), problems)
        }
        Some(TASK_SCHEMA) => {
            let spec: TaskSpec = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
            let problems = validate::task(&spec);
            (Document::Task(Box::new(spec)), problems)
        }
        _ => return Err(bad(NO_SCHEMA.into())),
    };
    if problems.is_empty() {
        return Ok(document);
    }
    let errors = problems.into_iter().take(MOST).map(|p| told(p).at(place));
    Err(errors.collect())
}

const NO_SCHEMA: &str =
    "is no task: `schema` must be \"polyloom.task/1\" (or \"polyloom.group/1\" for a group)";

/// `file:line:column` of a byte.
fn position(text: &str, place: &str, byte: usize) -> String {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{place}:{line}:{column}")
}

/// The byte where a path such as `prompts[0].choices` stands, or the deepest part of it that the file has.
fn locate(top: &DeTable, path: &str) -> Option<usize> {
    let mut table = top;
    let mut found = None;
    for part in path.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some((key, value)) = table.get_key_value(name) else {
            break;
        };
        found = Some(key.span().start);
        let value = match (value.get_ref(), index) {
            (DeValue::Array(items), Some(i)) => match items.get(i) {
                Some(item) => {
                    // An entry of `[[name]]` has the span of its header, an entry of a list its own.
                    found = Some(item.span().start);
                    item.get_ref()
                }
                None => break,
            },
            (value, _) => value,
        };
        match value {
            DeValue::Table(next) => table = next,
            _ => break,
        }
    }
    found
}

struct Reader<'t> {
    text: &'t str,
    place: &'t str,
    errors: Vec<MergeError>,
}

impl Reader<'_> {
    fn push(&mut self, error: MergeError) {
        if self.errors.len() < MOST {
            self.errors.push(error);
        }
    }

    /// Whether the file is a group; `None` if it is neither.
    fn schema(&mut self, top: &DeTable) -> Option<bool> {
        let given = top.get_key_value("schema");
        let word = given.and_then(|(_, v)| match v.get_ref() {
            DeValue::String(s) => Some(s.to_string()),
            _ => None,
        });
        match word.as_deref() {
            Some(TASK_SCHEMA) => Some(false),
            Some(GROUP_SCHEMA) => Some(true),
            _ => {
                let at = given.map_or(self.place.to_owned(), |(key, _)| {
                    position(self.text, self.place, key.span().start)
                });
                self.push(MergeError::plan("bad-task", NO_SCHEMA).at(at));
                None
            }
        }
    }

    /// Reports unknown keys, all the way down.
    fn keys(&mut self, table: &DeTable, shape: Shape, inside: &str) {
        for (key, value) in table {
            let Some((_, kind)) = shape.iter().find(|(n, _)| *n == key.get_ref()) else {
                self.unknown(key, inside, shape);
                continue;
            };
            let name = key.get_ref();
            match (kind, value.get_ref()) {
                (Table(shape), DeValue::Table(inner)) => self.keys(inner, shape, name),
                (List(shape), DeValue::Array(items)) => {
                    for item in items {
                        if let DeValue::Table(inner) = item.get_ref() {
                            self.keys(inner, shape, name);
                        }
                    }
                }
                (Each(shape), DeValue::Table(inner)) => {
                    for (_, item) in inner {
                        if let DeValue::Table(inner) = item.get_ref() {
                            self.keys(inner, shape, name);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn unknown(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, inside: &str, shape: Shape) {
        let names: Vec<&str> = shape.iter().map(|(n, _)| *n).collect();
        let (name, start) = (key.get_ref(), key.span().start);
        let at = position(self.text, self.place, start);
        let before = &self.text[..self.text.floor_char_boundary(start)];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        let gutter = " ".repeat(line.to_string().len());
        let caret = "^".repeat(name.chars().count().max(1));
        let within = if inside.is_empty() {
            String::new()
        } else {
            format!(" in `{inside}`")
        };
        let text = format!(
            "unknown key `{name}`{within}\n   {line} | {source}\n   {gutter} | {}{caret} expected one of: {}",
            " ".repeat(column),
            names.join(", ")
        );
        let mut error = MergeError::plan("unknown-key", text).at(at);
        if let Some(near) = suggest::nearest(name, &names, 1).first() {
            error = error.hint(format!("did you mean `{near}`?"));
        }
        self.push(error);
    }

    fn typed<T: serde::de::DeserializeOwned>(&self) -> Result<T, Vec<MergeError>> {
        toml::from_str(self.text).map_err(|e| {
            let at = e.span().map_or(self.place.to_owned(), |s| {
                position(self.text, self.place, s.start)
            });
            vec![MergeError::plan("bad-task", e.message()).at(at)]
        })
    }
}

#[cfg(test)]
mod tests;
