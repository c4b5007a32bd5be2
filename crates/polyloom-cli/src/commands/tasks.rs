//! `polyloom tasks`

mod corrupt;
mod fewer;
mod foreign;
pub mod make;
mod pool;
mod skill_mix;
mod synth;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::catalogue::{Catalogue, Entry, Roots};
use polyloom::tasks::check::{self, Level, Report};
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use polyloom::tasks::sample::{self, Policy};
use polyloom::tasks::spec::{SourceKind, Split, TaskSpec, TaskType};
use polyloom::tasks::synth::Generator;
use serde_json::json;

use crate::args_tasks::{
    CheckArgs, ListArgs, Places, PolicyArg, SampleArgs, ShowArgs, TasksArgs, TasksVerb,
};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: TasksArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    match args.verb {
        TasksVerb::List(args) => list(&args, ui),
        TasksVerb::Show(args) => show(&args, ui),
        TasksVerb::Check(args) => check(&args, ui),
        TasksVerb::New(args) => make::new(&args, ui),
        TasksVerb::Split(args) => make::split(&args, ui),
        TasksVerb::Pool(args) => pool::run(&args, ui),
        TasksVerb::Corrupt(args) => corrupt::run(&args, ui),
        TasksVerb::SkillMix(args) => skill_mix::run(&args, ui),
        TasksVerb::Sample(args) => sample(&args, ui),
        TasksVerb::Synth(args) => synth::run(&args, ui),
        TasksVerb::Import(args) => foreign::import(&args, ui),
        TasksVerb::Export(args) => foreign::export(&args, ui),
        TasksVerb::Downsample(args) => fewer::downsample(&args, ui),
    }
}

/// The shipped tasks, those of `--catalogue`, and those that are named by a path. Gives the ids of what was named.
pub(super) fn catalogue(
    places: &Places,
    named: &[String],
) -> Result<(Catalogue, Vec<String>), Failure> {
    let mut catalogue = Catalogue::shipped()?;
    for path in &places.catalogue {
        catalogue.add_path(path)?;
    }
    let mut ids = Vec::new();
    for name in named {
        let known = catalogue.task(name).is_ok();
        let path = Path::new(name);
        if !known && path.exists() {
            ids.extend(catalogue.add_path(path)?);
        } else {
            ids.push(name.clone());
        }
    }
    Ok((catalogue, ids))
}

/// Folders that data may be in.
pub(super) fn roots(places: &Places) -> Roots {
    let given = places.data.iter().cloned();
    Roots(
        given
            .chain([PathBuf::from("."), PathBuf::from("../shared/data")])
            .collect(),
    )
}

fn list(args: &ListArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (catalogue, _) = catalogue(&args.places, &[])?;
    let kind = args.kind.as_deref().map(|word| {
        TaskType::from_word(word).ok_or_else(|| {
            let names: Vec<&str> = TaskType::ALL.iter().map(|t| t.name()).collect();
            let near = polyloom::suggest::nearest(word, &names, 1);
            let error = MergeError::plan("bad-flag", format!("--type: unknown type `{word}`"));
            match near.first() {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("one of: {}", names.join(", "))),
            }
        })
    });
    let kind = kind.transpose()?;
    let fits = |spec: &&TaskSpec| {
        let of_kind =
            |k: TaskType| spec.kind == Some(k) || spec.targets.iter().any(|t| t.kind == k);
        let tags = &spec.tags;
        let lists = [&tags.skills, &tags.domains, &tags.tags, &tags.capability];
        kind.is_none_or(of_kind)
            && args
                .tag
                .as_ref()
                .is_none_or(|t| lists.iter().any(|l| l.contains(t)))
    };
    let specs: Vec<&TaskSpec> = catalogue.tasks().map(|e| &e.spec).filter(fits).collect();
    let mut rows = vec![["task", "type", "metric", "tags"].map(String::from)];
    for spec in &specs {
        ui.event(&json!({
            "type": "task", "id": spec.id, "kind": spec.type_words(), "metric": metric(spec),
            "modality": spec.modality.input, "tags": spec.tags, "license": spec.license,
        }));
        let tags = spec
            .tags
            .skills
            .iter()
            .chain(&spec.tags.domains)
            .chain(&spec.tags.tags);
        let tags: Vec<&str> = tags.map(String::as_str).collect();
        rows.push([
            spec.id.clone(),
            spec.type_words(),
            metric(spec),
            tags.join(", "),
        ]);
    }
    ui.answer(&columns(&rows));
    let groups: Vec<&str> = catalogue.groups().map(|g| &*g.id).collect();
    for group in &groups {
        ui.event(&json!({"type": "group", "id": group, "tasks": catalogue.members(group)?}));
    }
    let mut end = format!("{} tasks", specs.len());
    if !groups.is_empty() {
        end += &format!("; groups: {}", groups.join(", "));
    }
    ui.say(&end);
    ui.event(&json!({"type": "done", "tasks": specs.len()}));
    Ok(ExitCode::SUCCESS)
}

fn metric(spec: &TaskSpec) -> String {
    let of_target = || {
        spec.targets
            .iter()
            .find_map(|t| polyloom::tasks::spec::primary(&t.metrics))
    };
    let metric = spec.primary_metric().or_else(of_target);
    metric.map_or_else(|| "-".into(), |m| m.name.clone())
}

/// Rows with aligned columns, two spaces apart.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(c, w)| format!("{c:<w$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn show(args: &ShowArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (catalogue, ids) = catalogue(&args.places, std::slice::from_ref(&args.task))?;
    for id in &ids {
        if let Some(group) = catalogue.groups().find(|g| g.id == *id) {
            let members = catalogue.members(id)?;
            ui.event(
                &json!({"type": "group", "id": id, "tasks": members, "aggregate": group.aggregate}),
            );
            ui.answer(&format!(
                "{id}   group of {} tasks\n  {}",
                members.len(),
                members.join("\n  ")
            ));
            continue;
        }
        let entry = catalogue.task(id)?;
        let spec = &entry.spec;
        ui.event(&json!({"type": "task", "id": spec.id, "spec": spec}));
        if let Some(row) = args.example {
            foreign::example(entry, &roots(&args.places), row, ui)?;
        } else if args.toml {
            ui.answer(&toml(spec)?);
        } else {
            ui.answer(&told(entry, &roots(&args.places)));
        }
    }
    ui.event(&json!({"type": "done"}));
    Ok(ExitCode::SUCCESS)
}

fn toml(spec: &TaskSpec) -> Result<String, Failure> {
    toml::to_string(spec).map_err(|e| Failure::Other(anyhow::anyhow!("the spec as TOML: {e}")))
}

/// A task as people read it.
fn told(entry: &Entry, roots: &Roots) -> String {
    let spec = &entry.spec;
    let mut text = format!(
        "{}   {}, version {}",
        spec.id,
        spec.type_words(),
        spec.version
    );
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("\n  {name:<11} {value}");
        }
    };
    line("title", spec.title.clone());
    line("about", spec.description.clone());
    let generator = (spec.source.kind == SourceKind::Synth)
        .then(|| Generator::of(&spec.source))
        .and_then(Result::ok);
    let folder = match (&generator, roots.folder(entry)) {
        (Some(g), _) => format!(
            "generated: {}, seed {}, {} rows",
            g.name(),
            g.seed(),
            g.count()
        ),
        (None, Ok(folder)) => folder.display().to_string(),
        (None, Err(_)) => format!("{} (not found)", spec.source.root),
    };
    line("data", folder);
    let split = |(name, s): (&String, &Split)| {
        let part = if s.file.is_empty() { name } else { &s.file };
        match generator.as_ref().and_then(|g| g.split(part)) {
            Some(rows) => format!("{name} = {}..{}{}", rows.start, rows.end, s.slice),
            None => format!("{name} = {}{}", s.file, s.slice),
        }
    };
    let splits: Vec<String> = spec.splits.named.iter().map(split).collect();
    line("splits", splits.join(", "));
    let fields: Vec<String> = spec
        .fields
        .given()
        .map(|(n, c)| format!("{n} = {c}"))
        .collect();
    line("fields", fields.join(", "));
    let names = &spec.labels.names;
    if !names.is_empty() {
        let most = 8;
        let first: Vec<&str> = names.iter().take(most).map(String::as_str).collect();
        let rest = if names.len() > most { ", ..." } else { "" };
        line(
            "labels",
            format!("{} ({}{rest})", names.len(), first.join(", ")),
        );
    }
    if let Some(table) = &spec.table {
        line("numeric", table.numeric.join(", "));
        line("categorical", table.categorical.join(", "));
        line("text", table.text.join(", "));
        if !table.group.is_empty() {
            let word = serde_json::to_value(table.group_as).unwrap_or_default();
            line(
                "group",
                format!("{} as {}", table.group, word.as_str().unwrap_or_default()),
            );
        }
    }
    for target in &spec.targets {
        let metrics: Vec<&str> = target.metrics.iter().map(|m| &*m.name).collect();
        line(
            "target",
            format!("{}: {} ({})", target.name, target.kind, metrics.join(", ")),
        );
    }
    let metrics: Vec<String> = spec
        .metrics
        .iter()
        .map(|m| {
            let known = polyloom::tasks::metrics::find(&m.name);
            let sign = if known.is_some_and(|k| k.higher_is_better) {
                "higher"
            } else {
                "lower"
            };
            format!("{} ({sign} is better)", m.name)
        })
        .collect();
    line("metrics", metrics.join(", "));
    for prompt in &spec.prompts {
        line("prompt", format!("{}: {:?}", prompt.id, prompt.template));
    }
    let tags = spec
        .tags
        .skills
        .iter()
        .chain(&spec.tags.domains)
        .chain(&spec.tags.tags);
    line(
        "tags",
        tags.map(String::as_str).collect::<Vec<_>>().join(", "),
    );
    line("licence", spec.license.clone());
    line("origin", spec.homepage.clone());
    line("citation", spec.citation.clone());
    text
}

/// Groups replaced by their members.
pub(super) fn expanded(catalogue: &Catalogue, ids: &[String]) -> Result<Vec<String>, MergeError> {
    let mut tasks: Vec<String> = Vec::new();
    for id in ids {
        if catalogue.groups().any(|g| g.id == *id) {
            tasks.extend(catalogue.members(id)?);
        } else {
            tasks.push(catalogue.task(id)?.spec.id.clone());
        }
    }
    Ok(tasks)
}

fn sample(args: &SampleArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (catalogue, ids) = catalogue(&args.places, &args.tasks)?;
    let tasks = expanded(&catalogue, &ids)?;
    let (mut rows, mut weights) = (Vec::new(), Vec::new());
    for id in &tasks {
        let entry = catalogue.task(id)?;
        let folder = roots(&args.places).folder(entry)?;
        let loader = Loader::new(&entry.spec, folder, Limits::default());
        let mut n = 0;
        loader.rows(&args.split, &mut |table| {
            n += table.rows() as u64;
            Ok(())
        })?;
        rows.push(n);
        weights.push(entry.spec.weights.train);
    }
    let policy = match args.policy {
        PolicyArg::Uniform => Policy::Uniform,
        PolicyArg::Proportional => Policy::Proportional,
        PolicyArg::Temperature => Policy::Temperature(args.temperature),
        PolicyArg::SquareRoot => Policy::SquareRoot,
    };
    let shares = sample::shares(&rows, &weights, args.limit, policy)?;
    let mut counts = vec![0u64; tasks.len()];
    for task in sample::draws(&shares, args.seed, args.draws.unwrap_or(0)) {
        counts[task] += 1;
    }
    let mut lines = vec![["task", "rows", "share", ""].map(String::from)];
    if args.draws.is_some() {
        lines[0][3] = "drawn".into();
    }
    for (i, id) in tasks.iter().enumerate() {
        let mut event = json!({"type": "share", "task": id, "rows": rows[i], "share": shares[i]});
        let mut drawn = String::new();
        if args.draws.is_some() {
            event["drawn"] = json!(counts[i]);
            drawn = counts[i].to_string();
        }
        ui.event(&event);
        lines.push([
            id.clone(),
            rows[i].to_string(),
            format!("{:.4}", shares[i]),
            drawn,
        ]);
    }
    ui.answer(&columns(&lines));
    ui.event(&json!({"type": "done"}));
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (catalogue, ids) = catalogue(&args.places, &args.tasks)?;
    let mut tasks = expanded(&catalogue, &ids)?;
    if args.tasks.is_empty() {
        tasks = catalogue.tasks().map(|e| e.spec.id.clone()).collect();
    }
    let fails = if args.strict {
        Level::Warning
    } else {
        Level::Failure
    };
    let mut failed = 0;
    for id in &tasks {
        let entry = catalogue.task(id)?;
        let folder = roots(&args.places).folder(entry)?;
        let loader = Loader::new(&entry.spec, folder, Limits::default());
        let mut report = check::check(&entry.spec, &loader)?;
        if !args.against.is_empty() {
            fewer::against(entry, &loader, args, &mut report)?;
        }
        let fine = report.worst().is_none_or(|w| w < fails);
        failed += usize::from(!fine);
        let mut event = json!({"type": "result", "ok": fine});
        if let (Some(event), Ok(serde_json::Value::Object(all))) =
            (event.as_object_mut(), serde_json::to_value(&report))
        {
            event.extend(all);
        }
        ui.event(&event);
        ui.answer(&findings(&report));
    }
    ui.event(&json!({"type": "done", "tasks": tasks.len(), "failed": failed}));
    if tasks.len() > 1 {
        ui.say(&format!("{} tasks, {failed} failed", tasks.len()));
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// A report as people read it.
fn findings(report: &Report) -> String {
    let splits: Vec<String> = report
        .splits
        .iter()
        .map(|s| format!("{} {}", s.name, s.rows))
        .collect();
    let mut text = format!("ok    {}   {} rows", report.task, splits.join(", "));
    if let Some(worst) = report.worst().filter(|w| *w > Level::Note) {
        let word = if worst == Level::Failure {
            "fail "
        } else {
            "warn "
        };
        text.replace_range(..5, word);
    }
    for finding in &report.findings {
        let word = match finding.level {
            Level::Failure => "fail",
            Level::Warning => "warn",
            Level::Note => "note",
        };
        text += &format!(
            "\n  {word}  {}: {} ({})",
            finding.at, finding.text, finding.code
        );
    }
    text
}
