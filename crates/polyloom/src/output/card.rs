//! The model card (`README.md`).

use std::fmt::Write as _;

/// What the card says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CardInfo {
    /// Title: the output folder's name.
    pub title: String,
    /// Hub names (`org/name`) of the inputs, for the front matter.
    pub hub_models: Vec<String>,
    /// `transformers`, `peft`, ...
    pub library: String,
    /// Tag beside `polyloom`; `merge` where it is empty.
    pub tag: String,
    /// One sentence on what the run did, such as "A merge of three models".
    pub summary: String,
    /// Method, and its paper if it has one.
    pub method: String,
    /// Title or address of the paper.
    pub reference: Option<String>,
    /// The base, as the user named it.
    pub base: Option<String>,
    /// Other inputs, as the user named them.
    pub models: Vec<String>,
    /// Parameters: model or `all`, name, value.
    pub parameters: Vec<(String, String, String)>,
    /// Language (`toml`, `yaml`) and text of the recipe.
    pub recipe: Option<(String, String)>,
    /// Program and library versions.
    pub versions: Vec<(String, String)>,
}

/// Renders the card. The same data gives the same text.
pub fn render(info: &CardInfo) -> String {
    let mut out = String::from("---\n");
    if !info.hub_models.is_empty() {
        out.push_str("base_model:\n");
        for model in &info.hub_models {
            let _ = writeln!(out, "- {}", quoted(model));
        }
    }
    let library = if info.library.is_empty() {
        "transformers"
    } else {
        &info.library
    };
    let _ = writeln!(out, "library_name: {}", quoted(library));
    let tag = if info.tag.is_empty() {
        "merge"
    } else {
        &info.tag
    };
    let _ = write!(out, "tags:\n- {tag}\n- polyloom\n---\n");
    let _ = writeln!(out, "# {}\n\n{}", one_line(&info.title), info.summary);
    let _ = write!(out, "\n## Method\n\n`{}`", info.method);
    if let Some(reference) = &info.reference {
        let _ = write!(out, " ({reference})");
    }
    out.push('\n');
    out.push_str("\n## Models\n\n");
    if let Some(base) = &info.base {
        let _ = writeln!(out, "- base: `{}`", one_line(base));
    }
    for model in &info.models {
        let _ = writeln!(out, "- `{}`", one_line(model));
    }
    if !info.parameters.is_empty() {
        out.push_str("\n## Parameters\n\n| model | parameter | value |\n|---|---|---|\n");
        for (model, name, value) in &info.parameters {
            let _ = writeln!(
                out,
                "| {} | {} | {} |",
                cell(model),
                cell(name),
                cell(value)
            );
        }
    }
    if let Some((language, text)) = &info.recipe {
        // A fence longer than any run of backticks inside.
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat((longest + 1).max(3));
        let _ = writeln!(
            out,
            "\n## Recipe\n\n{fence}{language}\n{}\n{fence}",
            text.trim_end()
        );
    }
    if !info.versions.is_empty() {
        let list: Vec<String> = info
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let _ = writeln!(out, "\nMade with {}.", list.join(", "));
    }
    out
}

/// A YAML double-quoted string (JSON strings are).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_in_full() {
        let info = CardInfo {
            title: "soup".into(),
            hub_models: vec!["org/a".into()],
            summary: "A merge of two models.".into(),
            method: "linear".into(),
            reference: Some("arXiv 2203.05482".into()),
            base: Some("org/a".into()),
            models: vec!["./b".into()],
            parameters: vec![("all".into(), "weight".into(), "[0, 1|2]".into())],
            recipe: Some(("yaml".into(), "x: |\n  ```\n  y\n".into())),
            versions: vec![("polyloom".into(), "0.1.0".into())],
            ..CardInfo::default()
        };
        let want = "---\nbase_model:\n- \"org/a\"\nlibrary_name: \"transformers\"\ntags:\n- merge\n- polyloom\n---\n\
            # soup\n\nA merge of two models.\n\n## Method\n\n`linear` (arXiv 2203.05482)\n\n## Models\n\n\
            - base: `org/a`\n- `./b`\n\n## Parameters\n\n| model | parameter | value |\n|---|---|---|\n\
            | all | weight | [0, 1\\|2] |\n\n## Recipe\n\n````yaml\nx: |\n  ```\n  y\n````\n\nMade with polyloom 0.1.0.\n";
        assert_eq!(render(&info), want);
    }
}
