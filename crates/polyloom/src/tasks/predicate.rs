//! Predicates of rows, as `targets[].sample` says them: `clicked == 1`, `age >= 18 and country != "de"`.

use serde_json::Value;

use super::data::Table;
use super::data::table::parse_number;

/// Comparisons that must all hold; none by default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predicate(Vec<Comparison>);

#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    column: String,
    how: How,
    with: String,
    /// Whether the literal stood in quotes: then it is compared as text.
    quoted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

const SIGNS: [(&str, How); 6] = [
    ("==", How::Equal),
    ("!=", How::Unequal),
    ("<=", How::AtMost),
    (">=", How::AtLeast),
    ("<", How::Less),
    (">", How::More),
];

impl Predicate {
    /// Reads a predicate: `column sign value`, several with ` and ` between; signs are `== != < <= > >=`, values are
    /// numbers, words, or text in quotes.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut out = Vec::new();
        for part in split_and(text) {
            let found = part.char_indices().find_map(|(at, _)| {
                let sign = SIGNS.iter().find(|(s, _)| part[at..].starts_with(s))?;
                Some((at, sign))
            });
            let Some((at, (sign, how))) = found else {
                return Err(format!("`{part}` has none of == != < <= > >="));
            };
            let column = part[..at].trim();
            let with = part[at + sign.len()..].trim();
            if column.is_empty() || with.is_empty() {
                return Err(format!(
                    "`{part}` needs a column before and a value behind `{sign}`"
                ));
            }
            let inner = ['"', '\'']
                .into_iter()
                .find_map(|q| with.strip_prefix(q)?.strip_suffix(q));
            out.push(Comparison {
                column: column.to_owned(),
                how: *how,
                with: inner.unwrap_or(with).to_owned(),
                quoted: inner.is_some(),
            });
        }
        Ok(Self(out))
    }

    /// The columns it looks at.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|c| &*c.column)
    }

    /// Whether it holds for a row. Numbers are compared as numbers, also where a text file spells them; everything else as
    /// text. A missing value fulfils nothing, not even `!=`.
    #[must_use]
    pub fn holds(&self, table: &Table, row: usize) -> bool {
        self.0.iter().all(|c| c.holds(&table.at(row, &c.column)))
    }
}

impl Comparison {
    fn holds(&self, value: &Value) -> bool {
        let text = match value {
            Value::Null => return false,
            Value::String(s) => s.clone(),
            Value::Bool(b) => u8::from(*b).to_string(),
            other => other.to_string(),
        };
        let with = match &*self.with {
            "true" | "True" if value.is_boolean() => "1",
            "false" | "False" if value.is_boolean() => "0",
            other => other,
        };
        let numbers = (!self.quoted)
            .then(|| Some((parse_number(&text)?, parse_number(with)?)))
            .flatten();
        let order = match numbers {
            Some((a, b)) => a.total_cmp(&b),
            None => text.as_str().cmp(with),
        };
        match self.how {
            How::Equal => order.is_eq(),
            How::Unequal => order.is_ne(),
            How::Less => order.is_lt(),
            How::AtMost => order.is_le(),
            How::More => order.is_gt(),
            How::AtLeast => order.is_ge(),
        }
    }
}

/// Cuts at ` and ` outside of quotes.
fn split_and(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if text[at..].starts_with(" and ") && at >= start => {
                out.push(text[start..at].trim());
                start = at + 5;
            }
            _ => {}
        }
    }
    out.push(text[start.min(text.len())..].trim());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::data::{Limits, json};
    use serde_json::json;

    fn holds(text: &str, row: &Value) -> bool {
        let mut out = false;
        let rows = std::iter::once(row.as_object().unwrap().clone());
        json::rows(rows, &Limits::default(), &mut |t| {
            out = Predicate::parse(text).unwrap().holds(&t, 0);
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn numbers_words_and_missing_values() {
        assert!(holds("clicked == 1", &json!({"clicked": 1})));
        assert!(holds("clicked == 1", &json!({"clicked": "1.0"})));
        assert!(holds("clicked == true", &json!({"clicked": true})));
        assert!(!holds("clicked == \"1\"", &json!({"clicked": "1.0"})));
        assert!(holds(
            "age >= 18 and land != 'a and b'",
            &json!({"age": "20", "land": "c"})
        ));
        assert!(!holds("age != 3", &json!({"other": 1})));
        assert!(holds("name < b", &json!({"name": "abc"})));
        for wrong in ["", "a", "a = 1", "== 1", "a ==", "a == 1 and "] {
            assert!(Predicate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
