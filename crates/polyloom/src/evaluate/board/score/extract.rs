//! How an answer is read from a text: the rules of a task (`[[parse]]`) or one of the usual ones.

use regex::Regex;

use crate::error::{MergeError, Result};
use crate::tasks::spec::Parse;

/// A rule, ready to be used.
#[derive(Debug, Clone)]
pub struct Extract {
    name: String,
    chains: Vec<Vec<Step>>,
    /// What no chain finds: the text itself, or nothing.
    else_whole: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// A match (0 = first, -1 = last): its first group, or all of it.
    Regex(Regex, i32),
    Strip,
    Lower,
    /// The last line that is not empty.
    LastLine,
    /// What follows the last "answer is"; all of it where that does not stand.
    AfterAnswerIs,
    /// Without the full stop at the end.
    NoStop,
}

/// The rules that have a name.
pub const NAMED: &[(&str, &str)] = &[
    ("direct", "the whole text without white space around it"),
    ("last-line", "the last line that is not empty"),
    (
        "step-by-step",
        "what follows the last \"answer is\", without the full stop; the whole text where that does not stand (BIG-Bench Hard)",
    ),
];

impl Extract {
    /// A rule by name, or `regex:PATTERN` (the last match; its first group where there is one).
    ///
    /// # Errors
    /// An unknown name, a pattern that is none.
    pub fn named(text: &str) -> Result<Self> {
        let steps = match text {
            "direct" => vec![Step::Strip],
            "last-line" => vec![Step::LastLine, Step::Strip],
            "step-by-step" => vec![Step::AfterAnswerIs, Step::Strip, Step::NoStop, Step::Strip],
            _ => match text.strip_prefix("regex:") {
                Some(pattern) => vec![Step::Regex(compiled(pattern)?, -1), Step::Strip],
                None => {
                    let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
                    let what = format!("--extract: unknown rule `{text}`");
                    return Err(MergeError::plan("bad-flag", what)
                        .hint(format!("one of: {}, regex:PATTERN", names.join(", "))));
                }
            },
        };
        Ok(Self {
            name: text.to_owned(),
            chains: vec![steps],
            else_whole: false,
        })
    }

    /// The rules of a task, in order: the first whose result is not empty counts. `None` without rules.
    ///
    /// # Errors
    /// A pattern that is none; the checks of specs exclude it.
    pub fn of_task(rules: &[Parse]) -> Result<Option<Self>> {
        if rules.is_empty() {
            return Ok(None);
        }
        let chain = |rule: &Parse| -> Result<Vec<Step>> {
            let steps = rule.steps.iter().map(|s| {
                Ok(match &s.regex {
                    Some(pattern) => Step::Regex(compiled(pattern)?, s.group.unwrap_or(0)),
                    None if s.strip => Step::Strip,
                    None => Step::Lower,
                })
            });
            steps.collect()
        };
        let names: Vec<&str> = rules.iter().map(|r| &*r.name).collect();
        Ok(Some(Self {
            name: names.join(", "),
            chains: rules.iter().map(chain).collect::<Result<_>>()?,
            else_whole: false,
        }))
    }

    /// The whole text as it is: what is used where nothing else is said.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            name: "whole text".into(),
            chains: Vec::new(),
            else_whole: true,
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The answer in a text; empty where no rule finds one.
    #[must_use]
    pub fn read(&self, text: &str) -> String {
        for chain in &self.chains {
            let found = chain.iter().try_fold(text.to_owned(), |t, s| s.apply(t));
            if let Some(found) = found.filter(|f| !f.is_empty()) {
                return found;
            }
        }
        if self.else_whole {
            text.to_owned()
        } else {
            String::new()
        }
    }
}

fn compiled(pattern: &str) -> Result<Regex> {
    Regex::new(pattern)
        .map_err(|e| MergeError::plan("bad-regex", format!("`{pattern}` is no pattern: {e}")))
}

impl Step {
    fn apply(&self, text: String) -> Option<String> {
        Some(match self {
            Self::Strip => text.trim().to_owned(),
            Self::Lower => text.to_lowercase(),
            Self::LastLine => {
                let mut lines = text.lines().rev();
                lines.find(|l| !l.trim().is_empty())?.to_owned()
            }
            Self::AfterAnswerIs => match text.rfind("answer is") {
                Some(at) => text[at + "answer is".len()..]
                    .trim_start_matches(':')
                    .to_owned(),
                None => text,
            },
            Self::NoStop => text.strip_suffix('.').map_or(text.clone(), str::to_owned),
            Self::Regex(regex, which) => {
                let matches: Vec<_> = regex.captures_iter(&text).collect();
                let place = match usize::try_from(*which) {
                    Ok(place) => place,
                    Err(_) => matches.len().checked_sub(which.unsigned_abs() as usize)?,
                };
                let found = matches.get(place)?;
                found.get(1).or(found.get(0))?.as_str().to_owned()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rule: &str, text: &str) -> String {
        Extract::named(rule).unwrap().read(text)
    }

    #[test]
    fn recorded_answers() {
        let text = "not ( True ) is False.\nThe answer is wrong so far.\nSo the answer is False.";
        assert_eq!(read("step-by-step", text), "False");
        assert_eq!(read("step-by-step", " (B) "), "(B)");
        assert_eq!(read("direct", " (B)\n"), "(B)");
        assert_eq!(read("last-line", "a\nb\n\n"), "b");
        assert_eq!(read(r"regex:\(([A-Z])\)", "(A) or (C)?"), "C");
        assert_eq!(read("regex:[0-9]+", "none"), "");
        assert_eq!(Extract::named("stepwise").unwrap_err().code(), "bad-flag");
        assert_eq!(Extract::named("regex:(").unwrap_err().code(), "bad-regex");
    }

    #[test]
    fn rules_of_a_task_are_tried_in_order() {
        let rules: Vec<Parse> = serde_json::from_value(serde_json::json!([
            {"name": "strict", "steps": [{"regex": "answer is (.+?)\\.", "group": -1}, {"strip": true}, {"lower": true}]},
            {"name": "number", "steps": [{"regex": "[0-9]+"}]}
        ]))
        .unwrap();
        let extract = Extract::of_task(&rules).unwrap().unwrap();
        assert_eq!(extract.read("The answer is A. No, the answer is  B ."), "b");
        assert_eq!(extract.read("12 or 13"), "12");
        assert_eq!(extract.read("?"), "");
        assert!(Extract::of_task(&[]).unwrap().is_none());
    }
}
