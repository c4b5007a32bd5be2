//! Tasks put to a model that answers in text: prompts of the rows, and answers read into predictions.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::answers::{Answers, Columns};
use super::choice;
use super::examples::is_taken;
use super::goal::Goal;
use super::truth::{self, Truth};
use crate::error::{MergeError, Result};
use crate::tasks::fewshot::Shots;
use crate::tasks::load::Loader;
use crate::tasks::prompt::{Record, Renderer, settle};
use crate::tasks::spec::{Fewshot, Generation, Prompt, TaskSpec, TaskType};

/// How a model takes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A message that it replies to: what may be answered is said at the end.
    Chat,
    /// A text that it goes on with.
    Completion,
}

/// What is asked, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Split.
    pub split: String,
    /// At most so many rows, spread over the split.
    pub limit: Option<usize>,
    /// How the prompt is taken.
    pub style: Style,
    /// Id of the prompt among those of the task, in place of the first.
    pub prompt: Option<String>,
    /// Examples in the context, in place of the task's number.
    pub fewshot: Option<u32>,
    /// Tokens of an answer, in place of the task's number.
    pub max_tokens: Option<u32>,
    /// Answers are read by the rules of the task or of the caller, as they are.
    pub raw: bool,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Example.
    pub id: String,
    /// Number of the attempt, from 0.
    pub attempt: u32,
    /// What the model is shown.
    pub prompt: String,
    /// Answers to choose from; none where the answer is free.
    pub choices: Vec<String>,
    /// What stands between the prompt and an answer that goes on with it: white space at the prompt's end belongs to the
    /// answer, because tokenizers join it with the word after it.
    pub lead: String,
    /// The right answer, in the words of the choices where there are some; none where the row does not say.
    pub answer: Option<String>,
}

/// The prompts of a task.
#[derive(Debug, Clone)]
pub struct Asking {
    /// In the order of the split; attempts of a row stand together.
    pub questions: Vec<Question>,
    /// How answers are generated.
    pub generation: Generation,
    goal: Goal,
    letters: bool,
    raw: bool,
}

/// The prompts of a split.
///
/// # Errors
/// A task of pictures, of several targets or of a kind that is not asked in text; a task of free answers without a
/// prompt; templates and examples that fail.
pub fn questions(spec: &TaskSpec, loader: &Loader<'_>, settings: &Settings) -> Result<Asking> {
    let bad = |what: &str| {
        let error = MergeError::plan("not-asked", format!("task `{}` {what}", spec.id));
        error.hint("an endpoint is asked classification, pairs, regression, similarity, multiple choice and generation of texts")
    };
    let kind = spec.kind.filter(|_| spec.targets.is_empty());
    let Some(kind) = kind else {
        return Err(bad("has several targets"));
    };
    let asked = [
        TaskType::Classification,
        TaskType::PairClassification,
        TaskType::Regression,
        TaskType::Sts,
        TaskType::MultipleChoice,
        TaskType::Generation,
    ];
    if !asked.contains(&kind) {
        return Err(bad(&format!("asks for {kind}")));
    }
    if spec.modality.input.iter().any(|m| m == "image") {
        return Err(bad("shows pictures"));
    }
    let free = matches!(kind, TaskType::MultipleChoice | TaskType::Generation);
    let plain = Prompt {
        template: match &*spec.fields.input2 {
            "" => "{{input}}".into(),
            _ => "First: {{input}}\nSecond: {{input2}}".into(),
        },
        target: "{{target}}".into(),
        ..Prompt::default()
    };
    let prompt = match named(spec, settings.prompt.as_deref(), free)?.or(spec.prompts.first()) {
        Some(prompt) => prompt,
        None if free => return Err(bad("has no prompt").hint("add `[[prompts]]` to its spec")),
        None => &plain,
    };
    let mut records: Vec<Record> = Vec::new();
    let read = truth::read_with(spec, loader, &settings.split, &mut |table, row, truths| {
        let asked = truths.iter().any(Option::is_some);
        if asked {
            records.push(loader.record(table, row));
        }
        Ok(asked)
    })?;
    let goal = read.goals.into_iter().next();
    let goal = goal.ok_or_else(|| bad("asks for nothing"))?;
    let rules = Fewshot {
        n: settings.fewshot.unwrap_or(spec.fewshot.n),
        ..spec.fewshot.clone()
    };
    let pool = match rules.n {
        0 => Vec::new(),
        _ => loader.records(spec.splits.fewshot.as_ref().unwrap_or(&settings.split))?,
    };
    let shots = Shots::new(&rules, &pool)?;
    let generation = generation(spec, kind, settings);
    let letters = prompt.choice_format == "letters";
    let renderer = Renderer::new();
    let n = records.len();
    let mut questions = Vec::new();
    for (i, (example, record)) in read.examples.iter().zip(&records).enumerate() {
        if !is_taken(i, n, settings.limit) {
            continue;
        }
        let at = |e: MergeError| {
            e.at(format!(
                "task `{}`, split `{}`, example `{}`",
                spec.id, settings.split, example.id
            ))
        };
        let near: Vec<Record> = shots.of(record).into_iter().cloned().collect();
        let mut text = renderer.context(prompt, &near, record).map_err(at)?;
        let rendered = renderer.question(prompt, record).map_err(at)?;
        let mut choices = rendered.choices;
        if choices.is_empty() && kind != TaskType::Generation {
            choices.clone_from(&goal.classes);
        }
        let answer = match example.truths.first() {
            Some(Some(Truth::Class(class))) => {
                let name = goal.class_name(*class);
                let is_right = |place: &usize| class_of(&goal, &choices, *place) == name;
                let right = (0..choices.len()).find(is_right);
                right.map(|place| choices[place].clone())
            }
            _ => rendered.targets.into_iter().next(),
        };
        let mut lead = String::new();
        match settings.style {
            Style::Completion => {
                let (kept, mut moved) =
                    settle(&text, std::slice::from_ref(&prompt.target_delimiter));
                (text, lead) = (kept, moved.remove(0));
            }
            Style::Chat => text += &request(kind, prompt, &choices),
        }
        for attempt in 0..generation.repeats.max(1) {
            questions.push(Question {
                id: example.id.clone(),
                attempt,
                prompt: text.clone(),
                choices: choices.clone(),
                lead: lead.clone(),
                answer: answer.clone(),
            });
        }
    }
    if questions.is_empty() {
        let what = format!(
            "task `{}` has no rows in split `{}`",
            spec.id, settings.split
        );
        return Err(MergeError::plan("empty", what));
    }
    Ok(Asking {
        questions,
        generation,
        goal,
        letters,
        raw: settings.raw,
    })
}

/// How answers are generated: a short one where a label is wanted, else as the task says.
/// The prompt of this id.
fn named<'s>(spec: &'s TaskSpec, id: Option<&str>, free: bool) -> Result<Option<&'s Prompt>> {
    let Some(id) = id else {
        return Ok(None);
    };
    let bad = |what: String| MergeError::plan("no-prompt", format!("task `{}` {what}", spec.id));
    let place = spec.prompts.iter().position(|p| p.id == id);
    match place {
        // What is right follows from the first prompt's choices or target.
        Some(place) if free && place > 0 => Err(bad(format!(
            "is scored by its first prompt; `{id}` cannot take its place"
        ))
        .hint("only the wording of classification, regression and similarity tasks varies")),
        Some(place) => Ok(spec.prompts.get(place)),
        None => {
            let names: Vec<&str> = spec.prompts.iter().map(|p| &*p.id).collect();
            let known = match names.is_empty() {
                true => "it has no prompt".to_owned(),
                false => format!("its prompts: {}", names.join(", ")),
            };
            Err(bad(format!("has no prompt `{id}`")).hint(known))
        }
    }
}

fn generation(spec: &TaskSpec, kind: TaskType, settings: &Settings) -> Generation {
    let mut generation = match kind {
        TaskType::Generation => spec.generation.clone(),
        _ => Generation {
            max_tokens: match settings.style {
                Style::Chat => 64,
                Style::Completion => 16,
            },
            stop: match settings.style {
                Style::Chat => Vec::new(),
                Style::Completion => vec!["\n".into()],
            },
            ..Generation::default()
        },
    };
    // Answers that are reasoned about first are as long as the task says.
    if !spec.parse.is_empty() {
        generation.max_tokens = spec.generation.max_tokens;
        generation.stop.clone_from(&spec.generation.stop);
    }
    if let Some(n) = settings.max_tokens {
        generation.max_tokens = n;
    }
    generation
}

/// What a message says at its end about the form of the answer.
fn request(kind: TaskType, prompt: &Prompt, choices: &[String]) -> String {
    match kind {
        TaskType::Generation => String::new(),
        TaskType::Regression | TaskType::Sts => "\n\nAnswer with a number and nothing else.".into(),
        _ if prompt.choice_format == "letters" => {
            "\n\nAnswer with a letter and nothing else.".into()
        }
        _ if prompt.choice_format.is_empty() => format!(
            "\n\nAnswer with one of these and nothing else: {}",
            choices.join(", ")
        ),
        _ => "\n\nAnswer with one of the choices and nothing else.".into(),
    }
}

impl Asking {
    /// Whether every answer is one of given choices, so that their likelihoods decide; not where rules read it from a text.
    #[must_use]
    pub fn has_choices(&self) -> bool {
        let kinds = [
            TaskType::Classification,
            TaskType::PairClassification,
            TaskType::MultipleChoice,
        ];
        !self.raw && kinds.contains(&self.goal.kind)
    }

    /// Logarithms of the probabilities of the choices, with their numbers of tokens, as predictions; one list a question.
    #[must_use]
    pub fn likelihoods(&self, path: &Path, hash: &str, found: &[Vec<(f64, usize)>]) -> Answers {
        let named = |question: &Question, values: Vec<Value>| match self.goal.kind {
            TaskType::MultipleChoice => Value::from(values),
            _ => {
                let classes = (0..values.len()).map(|i| self.class_of(question, i));
                Value::Object(classes.zip(values).collect())
            }
        };
        let rows = self.questions.iter().zip(found).map(|(question, list)| {
            let mut row = Map::new();
            row.insert("id".into(), question.id.clone().into());
            let scores = list.iter().map(|(x, _)| json!(x)).collect();
            let tokens = list.iter().map(|(_, n)| json!(n)).collect();
            row.insert("loglik".into(), named(question, scores));
            row.insert("tokens".into(), named(question, tokens));
            row
        });
        Self::predictions(path, hash, rows.collect(), &["id", "loglik", "tokens"])
    }

    fn predictions(
        path: &Path,
        hash: &str,
        rows: Vec<Map<String, Value>>,
        columns: &[&str],
    ) -> Answers {
        Answers {
            path: path.to_owned(),
            hash: hash.to_owned(),
            rows,
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            task: None,
            chosen: Columns {
                id: Some("id".into()),
                ..Columns::default()
            },
        }
    }

    fn class_of(&self, question: &Question, place: usize) -> String {
        class_of(&self.goal, &question.choices, place)
    }

    /// Answers as predictions, and how many could not be read and have none. `path` and `hash` say who answered.
    #[must_use]
    pub fn answers(&self, path: &Path, hash: &str, said: &[String]) -> (Answers, usize) {
        let (mut rows, mut unread) = (Vec::new(), 0);
        let repeats = self.generation.repeats.max(1) as usize;
        let column = if repeats > 1 { "outputs" } else { "output" };
        let of = self.questions.chunks(repeats).zip(said.chunks(repeats));
        for (questions, texts) in of {
            let read: Option<Vec<String>> = questions
                .iter()
                .zip(texts)
                .map(|(q, t)| self.read(q, t))
                .collect();
            let Some(mut read) = read else {
                unread += 1;
                continue;
            };
            let mut row = Map::new();
            row.insert("id".into(), questions[0].id.clone().into());
            let value = match repeats {
                1 => Value::from(read.remove(0)),
                _ => json!(read),
            };
            row.insert(column.into(), value);
            rows.push(row);
        }
        let answers = Self::predictions(path, hash, rows, &["id", column]);
        (answers, unread)
    }

    /// The answer in a text: a class, a choice, a number; the text itself where none is found (it is wrong then), nothing
    /// where a number is wanted.
    fn read(&self, question: &Question, text: &str) -> Option<String> {
        // What was thought before the answer is none.
        let text = text.rsplit("</think>").next().unwrap_or(text).trim();
        if self.raw {
            return Some(text.to_owned());
        }
        let kind = self.goal.kind;
        match kind {
            TaskType::Generation => Some(text.to_owned()),
            TaskType::Regression | TaskType::Sts => choice::number(text),
            _ => {
                let choices = &question.choices;
                let Some(place) = choice::find(text, choices, self.letters) else {
                    return Some(text.to_owned());
                };
                let own = &choices[place];
                if kind == TaskType::MultipleChoice {
                    return Some(own.clone());
                }
                Some(self.class_of(question, place))
            }
        }
    }
}

/// The class that a choice stands for: choices may be other words for the classes, in their order.
fn class_of(goal: &Goal, choices: &[String], place: usize) -> String {
    let own = &choices[place];
    match goal.class(&Value::from(own.as_str())) {
        Some(class) => goal.class_name(class),
        None if choices.len() == goal.classes.len() => goal.classes[place].clone(),
        None => own.clone(),
    }
}
