//! YAML text to values, within limits: no alias bombs, no key twice, every error at its line.

use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::error::{MergeError, Result};

/// Reads the documents of a text (JSON is YAML, too). `place` names it in messages.
///
/// # Errors
/// Text that is not YAML, a key that stands twice, or aliases and nesting beyond what a recipe needs.
pub fn documents(text: &str, place: &str) -> Result<Vec<Value>> {
    read(text, place)
}

/// As [`documents`], into any type.
///
/// # Errors
/// As [`documents`], and what the type does not take.
pub fn read<T: serde::de::DeserializeOwned>(text: &str, place: &str) -> Result<Vec<T>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 250_000,
            max_total_scalar_bytes: 16 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|e| told(text, place, &e))
}

/// `file:line:column: is not valid YAML: what`, with the line and a caret.
fn told(text: &str, place: &str, error: &serde_saphyr::Error) -> MergeError {
    let error = error.without_snippet();
    let what = UserMessageFormatter.format_message(error);
    let Some(location) = error.location() else {
        return MergeError::plan("bad-yaml", format!("is not valid YAML: {what}")).at(place);
    };
    let (line, column) = (location.line(), location.column().max(1));
    let source = usize::try_from(line)
        .ok()
        .and_then(|n| text.lines().nth(n.checked_sub(1)?))
        .unwrap_or_default();
    // A line of a hostile file may be as long as the file.
    let excerpt = if source.is_empty() || source.chars().count() > 200 {
        String::new()
    } else {
        let gutter = " ".repeat(line.to_string().len());
        let before = " ".repeat(column as usize - 1);
        format!("\n   {line} | {source}\n   {gutter} | {before}^")
    };
    MergeError::plan("bad-yaml", format!("is not valid YAML: {what}{excerpt}"))
        .at(format!("{place}:{line}:{column}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        documents(text, "x.yml").unwrap_err().to_string()
    }

    #[test]
    fn a_key_twice_shows_its_line() {
        assert_eq!(
            refused("a: 1\nb:\n  c: 1\n  c: 2\n"),
            "x.yml:4:3: is not valid YAML: duplicate mapping key: c not allowed here\n   4 |   c: 2\n     |   ^"
        );
        assert!(refused("{\"a\": 1,\n \"a\": 2}").starts_with("x.yml:2:2: "));
    }

    #[test]
    fn aliases_work_and_bombs_do_not() {
        let fine = documents("a: &x {density: 0.2}\nb: *x\n", "x.yml").unwrap();
        assert_eq!(fine[0]["b"]["density"], 0.2);
        // Each line ten times the one before: 10^9 at the end.
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let inner = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{inner}]\n");
        }
        assert!(refused(&bomb).contains("is not valid YAML"));
        // One long text, often.
        let long = "x".repeat(1 << 20);
        let many: String = (0..800).map(|i| format!("  - &b{i} 1\n")).collect();
        let uses = "  - *long\n".repeat(5000);
        let bomb = format!("a: &long {long}\nb:\n{many}{uses}");
        assert!(refused(&bomb).contains("is not valid YAML"));
    }

    #[test]
    fn depth_has_a_limit() {
        for open in ["[", "{a: ", "- "] {
            assert!(
                refused(&open.repeat(100_000)).contains("is not valid YAML"),
                "{open}"
            );
        }
    }
}
