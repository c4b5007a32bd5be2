//! What a result says of ids, clusters, right answers and tags.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::goal::Goal;
use super::truth::{Example, Truth};
use crate::evaluate::metric::tool_graph::ToolGraph;
use crate::tasks::spec::{TaskSpec, TaskType};

/// How many ids a message lists.
pub(super) const LISTED: usize = 5;

/// The first few, for a message.
pub(super) fn first(ids: &[String]) -> String {
    if ids.is_empty() {
        return "none".into();
    }
    let shown: Vec<&str> = ids.iter().take(LISTED).map(|i| &**i).collect();
    let dots = if ids.len() > LISTED { ", ..." } else { "" };
    format!("{}{dots}", shown.join(", "))
}

/// The first few and how many there are.
pub(super) fn listed(ids: &[String]) -> (Vec<String>, usize) {
    (ids.iter().take(LISTED).cloned().collect(), ids.len())
}

/// Numbers of the clusters; none without clusters.
pub(super) fn clusters<'e>(examples: impl Iterator<Item = &'e Example>) -> Option<Vec<u32>> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut out = Vec::new();
    for example in examples {
        let name = example.cluster.as_deref()?;
        let next = u32::try_from(seen.len()).ok()?;
        out.push(*seen.entry(name).or_insert(next));
    }
    Some(out)
}

/// Tools and links, as people read them.
pub(super) fn tools(graph: &ToolGraph) -> String {
    let nodes = graph.nodes.iter().cloned();
    let links = graph.links.iter().map(|(a, b)| format!("{a} -> {b}"));
    nodes.chain(links).collect::<Vec<_>>().join(", ")
}

/// What is right, as people read it.
pub(super) fn target(goal: &Goal, truth: &Truth) -> String {
    match truth {
        Truth::Class(c) => goal.class_name(*c),
        Truth::Set(set) => set
            .iter()
            .map(|c| goal.class_name(*c))
            .collect::<Vec<_>>()
            .join("|"),
        Truth::Number(x) => x.to_string(),
        Truth::Texts(list) => list.join("\n---\n"),
        Truth::Spans(spans) => {
            let words = spans
                .iter()
                .map(|s| format!("{} {}-{}", s.label, s.start, s.end));
            words.collect::<Vec<_>>().join(", ")
        }
        Truth::Tags(tags) => tags.join(" "),
        Truth::Time(t, seen) => format!("{t}{}", if *seen { "" } else { "+" }),
        Truth::Judged(list, _) => list
            .iter()
            .filter(|(_, g)| *g > 0)
            .take(10)
            .map(|(d, _)| &**d)
            .collect::<Vec<_>>()
            .join(" "),
        Truth::Choice(choices, gold) => choices[*gold].clone(),
        Truth::Size(words, bytes) => format!("{words} words, {bytes} bytes"),
        Truth::Map { values, .. } => format!("map of {} values", values.len()),
        Truth::Graph(graph) => tools(graph),
    }
}

/// Tags of a task, for boards.
pub(super) fn tags(spec: &TaskSpec, kind: TaskType) -> IndexMap<String, Vec<String>> {
    let of = [
        ("skill", &spec.tags.skills),
        ("domain", &spec.tags.domains),
        ("capability", &spec.tags.capability),
        ("tag", &spec.tags.tags),
        ("modality", &spec.modality.input),
        ("language", &spec.language),
    ];
    let mut tags: IndexMap<String, Vec<String>> = of
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| (name.to_owned(), list.clone()))
        .collect();
    tags.insert("type".into(), vec![kind.name().to_owned()]);
    tags
}
