//! What a spec says about itself: names, ranges, references between its parts. Nothing is opened here.

mod prompts;

use std::collections::BTreeSet;

use self::prompts::{chains, prompts, templates};
use super::metrics;
use super::slice::Slice;
use super::spec::{
    GroupAs, GroupSpec, Metric, SourceKind, Split, Table, Target, TaskSpec, TaskType,
};
use super::synth::{self, Generator};
use crate::suggest;

/// A bad field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `prompts[0].choices`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

struct Found(Vec<Problem>);

impl Found {
    fn bad(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem {
            path: path.into(),
            message: message.into(),
            hint: None,
        });
    }

    fn hint(&mut self, text: impl Into<String>) {
        if let Some(last) = self.0.last_mut() {
            last.hint = Some(text.into());
        }
    }
}

/// The problems of a task, in the order of its fields.
#[must_use]
pub fn task(spec: &TaskSpec) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    id(&spec.id, &mut found);
    if spec.version.is_empty() {
        found.bad("version", "is empty");
    }
    if spec.kind.is_none() && spec.targets.is_empty() {
        found.bad("type", "is missing; only a file with `targets` has none");
        let all: Vec<&str> = TaskType::ALL.iter().map(|t| t.name()).collect();
        found.hint(format!("one of: {}", all.join(", ")));
    }
    if !(spec.weights.train.is_finite() && spec.weights.train > 0.0) {
        found.bad("weights.train", "must be a number above 0");
    }
    if !(spec.weights.eval.is_finite() && spec.weights.eval >= 0.0) {
        found.bad("weights.eval", "must be a number of at least 0");
    }
    source(spec, &mut found);
    splits(spec, &mut found);
    labels(spec, &mut found);
    prompts(spec, &mut found);
    chains(spec, &mut found);
    metric_list(&spec.metrics, "metrics", &mut found);
    scores(spec, &mut found);
    table(spec, &mut found);
    targets(spec, &mut found);
    templates(spec, &mut found);
    required_fields(spec, &mut found);
    found.0
}

/// The problems of a group.
#[must_use]
pub fn group(spec: &GroupSpec) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    id(&spec.id, &mut found);
    if spec.tasks.is_empty() {
        found.bad("tasks", "is empty");
    }
    for (i, aggregate) in spec.aggregate.iter().enumerate() {
        metric_name(
            &aggregate.metric,
            &format!("aggregate[{i}].metric"),
            &mut found,
        );
        if aggregate.how != "mean" {
            found.bad(format!("aggregate[{i}].how"), "must be \"mean\"");
        }
    }
    found.0
}

fn id(id: &str, found: &mut Found) {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._/-".contains(c);
    if id.is_empty() || !id.chars().all(fine) {
        found.bad(
            "id",
            format!("`{id}` is no id: use a-z, 0-9, `.`, `_`, `/` and `-`"),
        );
    }
}

fn source(spec: &TaskSpec, found: &mut Found) {
    let inline = spec.source.kind == SourceKind::Inline;
    if inline && spec.source.rows.is_empty() {
        found.bad("source.rows", "is empty, and the source is inline");
    }
    if !inline && !spec.source.rows.is_empty() {
        found.bad("source.rows", "is read only where `kind` is \"inline\"");
    }
    if spec.source.kind == SourceKind::Synth {
        if let Err(fault) = Generator::of(&spec.source) {
            found.bad(fault.path(), &*fault.message);
            if let Some(hint) = fault.hint {
                found.hint(hint);
            }
        }
    } else {
        for (key, given) in [
            ("generator", !spec.source.generator.is_empty()),
            ("seed", spec.source.seed.is_some()),
            ("count", spec.source.count.is_some()),
            ("options", !spec.source.options.is_empty()),
        ] {
            if given {
                found.bad(
                    format!("source.{key}"),
                    "is read only where `kind` is \"synth\"",
                );
            }
        }
    }
    for (file, hash) in &spec.source.sha256 {
        if hash.len() != 64 || !hash.chars().all(|c| c.is_ascii_hexdigit()) {
            found.bad(
                "source.sha256",
                format!("the hash of `{file}` is not 64 hexadecimal digits"),
            );
        }
    }
    if spec.source.size.is_some_and(|s| s.contains(&0)) {
        found.bad(
            "source.size",
            "holds a zero; it is [height, width, channels]",
        );
    }
}

/// The file of a split, or the part of a generator.
fn part<'s>(spec: &TaskSpec, name: &'s str, split: &'s Split) -> &'s str {
    let own = spec.source.kind == SourceKind::Synth && split.file.is_empty();
    if own { name } else { &split.file }
}

fn splits(spec: &TaskSpec, found: &mut Found) {
    if spec.splits.named.is_empty() {
        found.bad("splits", "names no split");
    }
    let generated = spec.source.kind == SourceKind::Synth;
    let needs_file = !matches!(
        spec.source.kind,
        SourceKind::Inline | SourceKind::ImageFolder | SourceKind::Synth
    );
    let mut parsed: Vec<(&str, &Split, Slice)> = Vec::new();
    for (name, split) in &spec.splits.named {
        let path = format!("splits.{name}");
        if needs_file && split.file.is_empty() {
            found.bad(format!("{path}.file"), "is missing");
        }
        let part = part(spec, name, split);
        if generated && !synth::SPLITS.contains(&part) {
            found.bad(
                format!("{path}.file"),
                format!("a generator has no split `{part}`"),
            );
            found.hint(format!("one of: {}", synth::SPLITS.join(", ")));
        }
        match Slice::parse(&split.slice) {
            Ok(slice) => parsed.push((name, split, slice)),
            Err(why) => found.bad(format!("{path}.slice"), why),
        }
    }
    for (i, (name, split, slice)) in parsed.iter().enumerate() {
        for (other, before, cut) in &parsed[..i] {
            if spec.may_share(name, other) {
                continue;
            }
            let same = part(spec, other, before) == part(spec, name, split);
            if same && slice.overlaps(cut) {
                found.bad(
                    format!("splits.{name}"),
                    format!("has rows that split `{other}` has too"),
                );
                found.hint(
                    "give the two slices of the file that do not meet, such as [:90%] and [90%:]",
                );
            } else if same && before.seed != split.seed {
                found.bad(
                    format!("splits.{name}.seed"),
                    format!("is not that of split `{other}`: slices of two shuffles share rows"),
                );
            }
        }
    }
    if let Some(name) = &spec.splits.fewshot
        && !spec.splits.named.contains_key(name)
    {
        found.bad("splits.fewshot", format!("there is no split `{name}`"));
        let names: Vec<&str> = spec.splits.named.keys().map(String::as_str).collect();
        found.hint(format!("splits present: {}", names.join(", ")));
    }
}

fn labels(spec: &TaskSpec, found: &mut Found) {
    let mut seen = BTreeSet::new();
    for name in &spec.labels.names {
        if !seen.insert(name) {
            found.bad("labels.names", format!("`{name}` stands twice"));
        }
    }
    let classes = spec.labels.names.len();
    for (raw, class) in &spec.labels.map {
        if classes > 0 && *class as usize >= classes {
            found.bad(
                "labels.map",
                format!("maps `{raw}` to class {class}, but there are {classes} names"),
            );
        }
    }
}

fn metric_name(name: &str, path: &str, found: &mut Found) {
    if metrics::find(name).is_none() {
        found.bad(path, format!("unknown metric `{name}`"));
        let near = suggest::nearest(name, &metrics::names(), 3);
        if !near.is_empty() {
            found.hint(format!("did you mean {}?", near.join(", ")));
        }
    }
}

fn metric_list(list: &[Metric], path: &str, found: &mut Found) {
    for (i, metric) in list.iter().enumerate() {
        metric_name(&metric.name, &format!("{path}[{i}].name"), found);
        if !["mean", "median", "sum"].contains(&&*metric.aggregate) {
            found.bad(
                format!("{path}[{i}].aggregate"),
                "must be mean, median or sum",
            );
        }
    }
    if list.iter().filter(|m| m.primary).count() > 1 {
        found.bad(path, "more than one metric is primary");
    }
}

fn scores(spec: &TaskSpec, found: &mut Found) {
    let all = [
        ("score.chance", spec.score.chance),
        ("score.maximum", spec.score.maximum),
        ("score.human", spec.score.human),
        ("expert.score", spec.expert.score),
    ];
    for (path, value) in all {
        if value.is_some_and(|v| !v.is_finite()) {
            found.bad(path, "is not finite");
        }
    }
    if let (Some(chance), Some(maximum)) = (spec.score.chance, spec.score.maximum)
        && chance == maximum
    {
        found.bad(
            "score.maximum",
            "equals `chance`: nothing could be normalised",
        );
    }
}

fn table(spec: &TaskSpec, found: &mut Found) {
    let Some(table) = &spec.table else { return };
    for column in &table.categorical {
        if table.numeric.contains(column) {
            found.bad("table.numeric", format!("`{column}` is categorical too"));
        }
    }
    for column in &table.text {
        for (other, word) in [
            (&table.numeric, "numeric"),
            (&table.categorical, "categorical"),
        ] {
            if other.contains(column) {
                found.bad("table.text", format!("`{column}` is {word} too"));
            }
        }
    }
    let targets = spec.targets.iter().map(|t| &t.column);
    for column in targets
        .chain([&spec.fields.target])
        .filter(|c| !c.is_empty())
    {
        for (list, key) in [(&table.features, "features"), (&table.text, "text")] {
            if list.contains(column) {
                found.bad(format!("table.{key}"), format!("`{column}` is the target"));
            }
        }
        if table.weight == *column && !column.is_empty() {
            found.bad("table.weight", format!("`{column}` is the target"));
        }
    }
    sessions(spec, table, found);
}

/// Session, order and item go together, and so does the target that asks for the item.
fn sessions(spec: &TaskSpec, table: &Table, found: &mut Found) {
    let (session, item) = (!table.session.is_empty(), !table.item.is_empty());
    let history = !table.history.is_empty();
    if session && !item && !history {
        found.bad("table.item", "is missing; `table.session` is there");
        found.hint("table.item = \"COLUMN\": which item a row of a session is about; or table.history = [\"COLUMN\"]: what its earlier rows show a row");
    }
    if item && history {
        found.bad("table.history", "does not go with `table.item`");
        found.hint("items of sessions are asked for (`item`), or rows see what was before them (`history`)");
    }
    for column in &table.history {
        if !table.categorical.contains(column) {
            let what = format!("`{column}` is not in `table.categorical`");
            found.bad("table.history", what);
        }
    }
    if let Err(why) = super::predicate::Predicate::parse(&table.mark)
        && !table.mark.is_empty()
    {
        found.bad("table.mark", why);
        found.hint("such as mark = \"clicked == 1\"");
    }
    if !table.mark.is_empty() && !history {
        found.bad(
            "table.mark",
            "is of earlier rows; `table.history` is missing",
        );
    }
    let there = [
        (item, "item"),
        (history, "history"),
        (!table.order.is_empty(), "order"),
    ];
    for (there, key) in there {
        if there && !session {
            found.bad(
                format!("table.{key}"),
                "is of sessions; `table.session` is missing",
            );
        }
    }
    let asks = |t: &&Target| t.kind == TaskType::Retrieval;
    let asking: Vec<&Target> = spec.targets.iter().filter(asks).collect();
    match &asking[..] {
        [] if item => {
            found.bad("targets", "none asks for the item of a row");
            found.hint(format!(
                "a target of type retrieval, column = \"{}\"",
                table.item
            ));
        }
        [one] if item && one.column != table.item => {
            let what = format!("`{}` is not `table.item`", one.column);
            found.bad(format!("targets.{}.column", one.name), what);
        }
        [_, _, ..] => found.bad("targets", "several are of type retrieval"),
        [one] if !item => {
            let what =
                "retrieval among targets asks for the items of sessions; `table.item` is missing";
            found.bad(format!("targets.{}.type", one.name), what);
        }
        _ => {}
    }
    if session && table.group_as == GroupAs::Task && !table.group.is_empty() {
        found.bad("table.group_as", "`task` does not go with sessions");
        found.hint("group_as = \"split\" keeps the rows of a session together");
    }
}

fn targets(spec: &TaskSpec, found: &mut Found) {
    let mut seen = BTreeSet::new();
    for (i, target) in spec.targets.iter().enumerate() {
        if !target.sample.is_empty()
            && let Err(why) = super::predicate::Predicate::parse(&target.sample)
        {
            found.bad(format!("targets[{i}].sample"), why);
            found.hint("such as sample = \"clicked == 1\"");
        }
        if !seen.insert(&target.name) {
            found.bad(
                format!("targets[{i}].name"),
                format!("`{}` stands twice", target.name),
            );
        }
        if target.name.contains('/') || target.name.is_empty() {
            found.bad(format!("targets[{i}].name"), "must be a name without `/`");
        }
        if !(target.weight.is_finite() && target.weight > 0.0) {
            found.bad(format!("targets[{i}].weight"), "must be a number above 0");
        }
        metric_list(&target.metrics, &format!("targets[{i}].metrics"), found);
    }
    if !spec.targets.is_empty() {
        for (path, given) in [
            ("type", spec.kind.is_some()),
            ("fields.target", !spec.fields.target.is_empty()),
            ("labels", !spec.labels.names.is_empty()),
            ("metrics", !spec.metrics.is_empty()),
        ] {
            if given {
                found.bad(path, "is given, but each of `targets` has its own");
            }
        }
    }
}

/// Fields that a type cannot do without.
fn required_fields(spec: &TaskSpec, found: &mut Found) {
    let f = &spec.fields;
    let mut need = |name: &str, value: &str| {
        if value.is_empty() {
            found.bad(
                format!("fields.{name}"),
                "is missing; this type of task needs it",
            );
        }
    };
    match spec.kind {
        Some(TaskType::PairClassification | TaskType::Sts) => {
            need("input", &f.input);
            need("input2", &f.input2);
            need("target", &f.target);
        }
        Some(TaskType::Span) => {
            need("input", &f.input);
            need("spans", &f.spans);
        }
        Some(TaskType::Retrieval) => need("query", &f.query),
        Some(TaskType::Reranking) => {
            need("query", &f.query);
            if spec.qrels.is_none() {
                need("document", &f.document);
                need("target", &f.target);
            }
        }
        Some(TaskType::Survival) => {
            need("time", &f.time);
            need("event", &f.event);
        }
        Some(
            TaskType::Classification
            | TaskType::Multilabel
            | TaskType::Regression
            | TaskType::TokenClassification,
        ) => need("target", &f.target),
        Some(TaskType::Dense) => need("map", &f.map),
        _ => {}
    }
    if spec.kind == Some(TaskType::Retrieval) && spec.qrels.is_none() {
        found.bad(
            "qrels",
            "is missing; a file of judgements or { same = \"label\" }",
        );
    }
}
