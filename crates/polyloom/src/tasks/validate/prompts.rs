//! Prompts, templates and rules that read answers.

use std::collections::BTreeSet;

use regex::Regex;

use super::Found;
use crate::tasks::spec::{Choices, Sampler, Step, TaskSpec, TaskType};

pub(super) fn prompts(spec: &TaskSpec, found: &mut Found) {
    let mut seen = BTreeSet::new();
    for (i, prompt) in spec.prompts.iter().enumerate() {
        if !seen.insert(&prompt.id) {
            found.bad(
                format!("prompts[{i}].id"),
                format!("`{}` stands twice", prompt.id),
            );
        }
        if prompt.template.is_empty() {
            found.bad(format!("prompts[{i}].template"), "is empty");
        }
        let none = match &prompt.choices {
            None => true,
            Some(Choices::List(list)) => list.is_empty(),
            Some(Choices::Template(text)) => text.is_empty(),
        };
        if none && spec.kind == Some(TaskType::MultipleChoice) {
            found.bad(
                format!("prompts[{i}].choices"),
                "is missing; a multiple-choice task needs its answers",
            );
        }
    }
    let prompted = matches!(
        spec.kind,
        Some(TaskType::MultipleChoice | TaskType::Generation)
    );
    if prompted && spec.prompts.is_empty() {
        found.bad(
            "prompts",
            "is missing; this type of task is asked by a prompt",
        );
    }
    if let Sampler::Fixed(fixed) = &spec.fewshot.sampler
        && fixed.fixed.len() < spec.fewshot.n as usize
    {
        found.bad("fewshot.sampler", "names fewer rows than `n`");
    }
    if spec.generation.repeats == 0 {
        found.bad("generation.repeats", "must be at least 1");
    }
    if !(spec.generation.temperature.is_finite() && spec.generation.temperature >= 0.0) {
        found.bad("generation.temperature", "must be a number of at least 0");
    }
}

pub(super) fn chains(spec: &TaskSpec, found: &mut Found) {
    for (i, chain) in spec.parse.iter().enumerate() {
        for (k, step) in chain.steps.iter().enumerate() {
            let path = format!("parse[{i}].steps[{k}]");
            let Step {
                regex,
                group,
                strip,
                lower,
            } = step;
            if usize::from(regex.is_some()) + usize::from(*strip) + usize::from(*lower) != 1 {
                found.bad(
                    path,
                    "must be exactly one of `regex`, `strip = true` and `lower = true`",
                );
            } else if let Some(Err(error)) = regex.as_deref().map(Regex::new) {
                found.bad(
                    format!("{path}.regex"),
                    format!("is no regular expression: {error}"),
                );
            } else if group.is_some() && regex.is_none() {
                found.bad(format!("{path}.group"), "belongs to `regex`");
            }
        }
    }
}

/// Templates among the fields, and names that filters mean.
pub(super) fn templates(spec: &TaskSpec, found: &mut Found) {
    let renderer = crate::tasks::prompt::Renderer::new();
    for (name, column) in spec.fields.given().filter(|(_, c)| c.contains("{{")) {
        if let Err(error) = renderer.check(column) {
            found.bad(format!("fields.{name}"), error.to_string());
        }
    }
    for (i, prompt) in spec.prompts.iter().enumerate() {
        let parts = [
            ("instruction", &prompt.instruction),
            ("template", &prompt.template),
            ("target", &prompt.target),
        ];
        for (name, template) in parts {
            if let Err(error) = renderer.check(template) {
                found.bad(format!("prompts[{i}].{name}"), error.to_string());
            }
        }
    }
}
