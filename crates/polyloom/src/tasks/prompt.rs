//! Prompts: templates (the part of Jinja that public task files use), contexts with examples, continuations.
//!
//! Rendering follows Jinja2 with `StrictUndefined` and a kept trailing newline: a field that a row lacks is an error,
//! and values are spelled as in Python (`None`, `True`, `['a', 'b']`). Source: evaluation specification, 1.2 ("Context
//! assembly"); lm-evaluation-harness `fewshot_context`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use super::python;
use super::spec::{Choices, Prompt};
use crate::error::{MergeError, Result};

/// Fields of a row by name.
pub type Record = Map<String, Value>;

/// Steps that one rendering may take; a template cannot run for ever.
const FUEL: u64 = 50_000_000;

/// Renders templates.
pub struct Renderer(Environment<'static>);

impl Default for Renderer {
    fn default() -> Self {
        Self::new()
    }
}

impl Renderer {
    /// A renderer.
    #[must_use]
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.unwrap_or_default());
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            out.write_str(&python::str(value)).map_err(Error::from)
        });
        environment
            .set_unknown_method_callback(|_, value, name, args| python::method(value, name, args));
        environment.add_filter("string", |v: &Jinja| python::str(v));
        environment.add_filter("capitalize", |v: &Jinja| {
            python::method(v, "capitalize", &[])
        });
        environment.add_filter("regex_replace", regex_replace);
        environment.add_filter("percent", |format: &str, args: Rest<Jinja>| {
            python::percent(format, &args)
        });
        environment.add_filter("join", |items: &Jinja, by: Option<&str>| {
            let items: Vec<String> = items.try_iter()?.map(|v| python::str(&v)).collect();
            Ok::<_, Error>(items.join(by.unwrap_or("")))
        });
        Self(environment)
    }

    /// Renders a template over the fields of a row.
    ///
    /// # Errors
    /// A template that is none, a field that the row lacks, a wrong operation, more than 50 million steps.
    pub fn render(&self, template: &str, fields: &Record) -> Result<String> {
        let text = python::rewrite_percent(template);
        let context = Jinja::from(Serde(fields));
        self.0
            .render_str(&text, context)
            .map_err(|e| failed(template, &e))
    }

    /// Whether a template can be read at all; nothing is rendered.
    ///
    /// # Errors
    /// A template that is none, or that uses a filter or test that is not there.
    pub fn check(&self, template: &str) -> Result<()> {
        let text = python::rewrite_percent(template);
        match self.0.template_from_str(&text) {
            Ok(_) => Ok(()),
            Err(e) => Err(failed(template, &e)),
        }
    }

    /// Renders a template that is one expression as a value, so that a list stays a list. Other templates give text.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn value(&self, template: &str, fields: &Record) -> Result<Value> {
        let trimmed = template.trim();
        let inner = trimmed
            .strip_prefix("{{")
            .and_then(|t| t.strip_suffix("}}"));
        match inner.filter(|i| !i.contains("{{") && !i.contains("{%") && !i.contains("}}")) {
            Some(_) => {
                let rewritten = python::rewrite_percent(trimmed);
                let expression = &rewritten[2..rewritten.len() - 2];
                let compiled = self
                    .0
                    .compile_expression(expression.trim_matches(['-', ' ']));
                let value = compiled
                    .and_then(|e| e.eval(Jinja::from(Serde(fields))))
                    .map_err(|e| failed(template, &e))?;
                if value.is_undefined() {
                    return Err(failed(template, &Error::from(ErrorKind::UndefinedError)));
                }
                serde_json::to_value(&value)
                    .map_err(|e| MergeError::plan("bad-template", format!("{template:?}: {e}")))
            }
            None => self.render(template, fields).map(Value::from),
        }
    }

    /// The choices of a row.
    ///
    /// # Errors
    /// As [`Self::render`], and a template that gives no list.
    pub fn choices(&self, choices: &Choices, fields: &Record) -> Result<Vec<String>> {
        match choices {
            Choices::List(list) => list.iter().map(|c| self.render(c, fields)).collect(),
            Choices::Template(template) => match self.value(template, fields)? {
                Value::Array(list) => Ok(list.iter().map(plain).collect()),
                other => {
                    let what = format!("choices {template:?} give {other}, which is no list");
                    Err(MergeError::plan("bad-template", what))
                }
            },
        }
    }

    /// What is asked for a row and what the answer is.
    ///
    /// # Errors
    /// As [`Self::render`], and a target that is an index outside the choices or no choice: such a row is invalid, not a
    /// wrong answer.
    pub fn question(&self, prompt: &Prompt, fields: &Record) -> Result<Question> {
        let mut text = self.render(&prompt.template, fields)?;
        let choices = match &prompt.choices {
            Some(choices) => self.choices(choices, fields)?,
            None => Vec::new(),
        };
        match &*prompt.choice_format {
            "" => {}
            "letters" => {
                let line = |(i, c): (usize, &String)| format!("\n{}. {c}", letter(i));
                text += &choices.iter().enumerate().map(line).collect::<String>();
            }
            "bullets" => {
                text += &choices
                    .iter()
                    .map(|c| format!("\n- {c}"))
                    .collect::<String>();
            }
            template => {
                let mut fields = fields.clone();
                fields.insert("choices".into(), choices.clone().into());
                text += &self.render(template, &fields)?;
            }
        }
        let mut question = Question {
            text,
            choices,
            gold: None,
            targets: Vec::new(),
        };
        if prompt.target.is_empty() {
            return Ok(question);
        }
        let target = self.value(&prompt.target, fields)?;
        if question.choices.is_empty() {
            question.targets = match &target {
                Value::Array(list) => list.iter().map(plain).collect(),
                one => vec![plain(one)],
            };
            return Ok(question);
        }
        let text = plain(&target);
        let n = question.choices.len();
        let by_text = question.choices.iter().position(|c| *c == text);
        let index = match target.as_u64().or_else(|| text.trim().parse().ok()) {
            Some(i) if target.is_number() || by_text.is_none() => usize::try_from(i).ok(),
            _ => by_text,
        };
        let index = index.filter(|i| *i < n).ok_or_else(|| {
            let what = format!("the target `{text}` is none of the {n} choices");
            MergeError::plan("bad-target", what)
        })?;
        question.targets = vec![question.choices[index].clone()];
        question.gold = Some(index);
        Ok(question)
    }

    /// The context of a row: instruction, examples with their answers, the row's text.
    ///
    /// # Errors
    /// As [`Self::question`], and an example without a target.
    pub fn context(&self, prompt: &Prompt, shots: &[Record], fields: &Record) -> Result<String> {
        let mut out = self.render(&prompt.instruction, fields)?;
        for shot in shots {
            let question = self.question(prompt, shot)?;
            let answer = question.targets.first().ok_or_else(|| {
                MergeError::plan(
                    "bad-target",
                    "an example has no target: `prompts.target` is empty",
                )
            })?;
            out += &question.text;
            out += &prompt.target_delimiter;
            out += answer;
            out += &prompt.fewshot_delimiter;
        }
        Ok(out + &self.question(prompt, fields)?.text)
    }
}

/// A row as it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its text, choices shown where the prompt says so.
    pub text: String,
    /// Choices.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub gold: Option<usize>,
    /// Accepted answers.
    pub targets: Vec<String>,
}

impl Question {
    /// The continuations that are scored: the delimiter belongs to them, not to the context.
    #[must_use]
    pub fn continuations(&self, delimiter: &str) -> Vec<String> {
        self.choices
            .iter()
            .map(|c| format!("{delimiter}{c}"))
            .collect()
    }
}

/// Whether a template has this word outside of plain text: inside `{{ }}` or `{% %}`.
#[must_use]
pub fn mentions(template: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = template;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        rest = &rest[at + 2..];
        let end = rest.find("}}").into_iter().chain(rest.find("%}")).min();
        let inside = &rest[..end.unwrap_or(rest.len())];
        if inside.split(|c| !part(c)).any(|w| w == word) {
            return true;
        }
    }
    false
}

/// Moves white space at the end of a context to the front of its continuations: tokenizers merge a leading space with
/// the word after it.
#[must_use]
pub fn settle(context: &str, continuations: &[String]) -> (String, Vec<String>) {
    let kept = context.trim_end();
    let moved = &context[kept.len()..];
    let continuations = continuations
        .iter()
        .map(|c| format!("{moved}{c}"))
        .collect();
    (kept.to_owned(), continuations)
}

/// `A`, ..., `Z`, `AA`, ...
fn letter(i: usize) -> String {
    let last = char::from(b'A' + u8::try_from(i % 26).unwrap_or(0));
    if i < 26 {
        last.into()
    } else {
        letter(i / 26 - 1) + &last.to_string()
    }
}

/// Text as it is, everything else in Python's spelling.
fn plain(value: &Value) -> String {
    python::str(&Jinja::from(Serde(value)))
}

fn regex_replace(text: &str, pattern: &str, by: &str) -> Result<String, Error> {
    let wrong = |e: regex::Error| Error::new(ErrorKind::InvalidOperation, e.to_string());
    let pattern = regex::Regex::new(pattern).map_err(wrong)?;
    // Python writes groups as \1, the engine as ${1}.
    let mut replacement = String::new();
    let mut chars = by
        .replace('$', "$$")
        .chars()
        .collect::<Vec<_>>()
        .into_iter()
        .peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('\\', Some(d)) if d.is_ascii_digit() => {
                replacement += &format!("${{{d}}}");
                chars.next();
            }
            _ => replacement.push(c),
        }
    }
    Ok(pattern.replace_all(text, replacement).into_owned())
}

fn failed(template: &str, error: &Error) -> MergeError {
    let short: String = template.chars().take(60).collect();
    let detail = error.detail().unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::UndefinedError => format!("uses a field that the row lacks {detail}"),
        kind => format!("{kind}: {detail}"),
    };
    MergeError::plan(
        "bad-template",
        format!("template {short:?} {}", what.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields() -> Record {
        json!({"q": "Is it?", "options": ["no", "yes"], "label": 1, "none": null})
            .as_object()
            .cloned()
            .unwrap()
    }

    fn prompt() -> Prompt {
        Prompt {
            template: "{{q}}".into(),
            choices: Some(Choices::Template("{{options}}".into())),
            target: "{{label}}".into(),
            instruction: "Answer.\n".into(),
            ..Prompt::default()
        }
    }

    #[test]
    fn contexts_end_with_the_text_and_continuations_begin_with_the_delimiter() {
        let renderer = Renderer::new();
        let question = renderer.question(&prompt(), &fields()).unwrap();
        assert_eq!(
            (question.gold, question.targets.clone()),
            (Some(1), vec!["yes".to_owned()])
        );
        assert_eq!(question.continuations(" "), [" no", " yes"]);
        let context = renderer.context(&prompt(), &[fields()], &fields()).unwrap();
        assert_eq!(context, "Answer.\nIs it? yes\n\nIs it?");
        let moved = settle("A: ", &["x".into()]);
        assert_eq!(moved, ("A:".into(), vec![" x".into()]));
    }

    #[test]
    fn choices_are_shown_as_asked() {
        let renderer = Renderer::new();
        let shown = |format: &str| {
            let prompt = Prompt {
                choice_format: format.into(),
                ..prompt()
            };
            renderer.question(&prompt, &fields()).unwrap().text
        };
        assert_eq!(shown("letters"), "Is it?\nA. no\nB. yes");
        assert_eq!(shown("bullets"), "Is it?\n- no\n- yes");
        assert_eq!(shown(" ({{choices|join('/')}})"), "Is it? (no/yes)");
        assert_eq!([letter(0), letter(25), letter(26)], ["A", "Z", "AA"]);
    }

    #[test]
    fn a_target_outside_the_choices_is_an_error() {
        let renderer = Renderer::new();
        for bad in [json!(2), json!(-1), json!("maybe"), json!(null)] {
            let mut row = fields();
            row.insert("label".into(), bad);
            assert!(renderer.question(&prompt(), &row).is_err());
        }
    }

    #[test]
    fn python_formats() {
        assert_eq!(
            python::rewrite_percent("{{ '%s' % a.b[0] }}%{{ 5 % 3 }}"),
            "{{ '%s'|percent(a.b[0]) }}%{{ 5 % 3 }}"
        );
        let renderer = Renderer::new();
        let told = |t: &str| renderer.render(t, &fields()).unwrap();
        assert_eq!(told("{{ '%.2f|%d|%%' % (0.125, 3) }}"), "0.12|3|%");
        assert_eq!(
            told("{{ [none, true, 'it\\'s'] }}"),
            "[None, True, \"it's\"]"
        );
        assert_eq!(told("{{ q|regex_replace('(I)s', '\\\\1') }}"), "I it?");
        assert!(renderer.render("{{ q.nope() }}", &fields()).is_err());
        assert!(
            renderer
                .render("{% for i in range(100000000) %}x{% endfor %}", &fields())
                .is_err()
        );
    }

    #[test]
    fn float_spelling() {
        for (x, text) in [
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (-2.0, "-2.0"),
            (123456789.0, "123456789.0"),
        ] {
            assert_eq!(python::float(x), text);
        }
    }
}
