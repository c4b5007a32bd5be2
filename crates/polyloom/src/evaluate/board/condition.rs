//! `skill=maths`: which part of the results a board is made of.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::{MergeError, Result};
use crate::tasks::catalogue::glob;

use super::results::{Results, System, Task};

/// `key=value`, `key=value,value` (any of them), `key!=value` (none of them). A value may hold `*` for any characters.
///
/// Keys are the tags of the tasks and, of every table, `task`, `metric`, `group` and `system`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The tag.
    pub key: String,
    /// The values, any of which will do.
    pub values: Vec<String>,
    /// Takes what does not match.
    pub negated: bool,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no condition; write KEY=VALUE, such as skill=maths");
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        let (key, negated) = match key.strip_suffix('!') {
            Some(key) => (key, true),
            None => (key, false),
        };
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Self {
            key: key.trim().to_owned(),
            values,
            negated,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "!" } else { "" };
        write!(f, "{}{not}={}", self.key, self.values.join(","))
    }
}

impl Condition {
    fn any<'a>(&self, mut of: impl Iterator<Item = &'a str>) -> bool {
        of.any(|text| self.values.iter().any(|pattern| glob(pattern, text))) != self.negated
    }

    /// Whether the condition takes a single value of its key.
    pub fn takes(&self, value: &str) -> bool {
        self.any(std::iter::once(value.trim()))
    }

    /// Whether the condition takes a task; conditions on systems take all.
    pub fn takes_task(&self, task: &Task) -> bool {
        match self.key.as_str() {
            "system" => true,
            "task" => self.any(std::iter::once(task.column.name.as_str())),
            "metric" => self.any(std::iter::once(task.metric.as_str())),
            "group" => {
                let tags = task.tags.get("group").into_iter().flatten();
                self.any(tags.chain(&task.column.group).map(String::as_str))
            }
            key => self.any(task.tags.get(key).into_iter().flatten().map(String::as_str)),
        }
    }

    /// Whether the condition takes a system; conditions on tasks take all.
    pub fn takes_system(&self, system: &System) -> bool {
        self.key != "system" || self.any(std::iter::once(system.name.as_str()))
    }

    /// Refuses a key that no task has.
    pub(super) fn known(&self, results: &Results) -> Result<()> {
        let always = ["task", "metric", "group", "system"];
        let tags = results.tasks.iter().flat_map(|t| t.tags.keys());
        let there: BTreeSet<&str> = tags.map(String::as_str).chain(always).collect();
        if there.contains(self.key.as_str()) {
            return Ok(());
        }
        let names: Vec<&str> = there.into_iter().collect();
        Err(
            MergeError::plan("unknown-tag", format!("no task has the tag `{}`", self.key))
                .hint(format!("there are: {}", names.join(", "))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_written() {
        let c: Condition = "skill!=maths, code".parse().unwrap();
        assert!(c.negated);
        assert_eq!(c.to_string(), "skill!=maths,code");
        for wrong in ["skill", "=x", "skill=", "skill=a,,b"] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, answer) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*e*c", "abcde", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(glob(pattern, text), answer, "{pattern} {text}");
        }
    }
}
