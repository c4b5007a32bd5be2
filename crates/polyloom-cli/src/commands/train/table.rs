//! `polyloom train TABLE`: a spec beside the table, and what models of tables begin with.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::tasks::catalogue::Catalogue;
use polyloom::tasks::data;
use polyloom::tasks::spec::{GroupAs, Target, TaskSpec, TaskType};
use polyloom_learn::models::forest::ARCHITECTURES;
use polyloom_learn::models::table::{Common, find};
use polyloom_learn::train::Recipe;
use polyloom_learn::train::recipe::Train;

use super::super::tasks::make;
use crate::args_tasks::{Columns, NewArgs};
use crate::ui::{Failure, Ui};

/// The recipe of tables, where no file says another: what flags and `--set` change.
///
/// With a goal for each group, `ple` has one level: below its last level every row would go through the experts of every
/// group.
pub fn recipe(model: Option<&str>, by_group: bool) -> String {
    match model {
        Some("r_mtgb") => FOREST.replace(STOPPING, ""),
        Some(model) if ARCHITECTURES.contains(&model) => FOREST.to_owned(),
        model => {
            let levels = match (model, by_group) {
                (Some("ple"), true) => "levels = 1\n",
                _ => "",
            };
            RECIPE.to_owned() + &network(model.unwrap_or("shared_bottom")) + levels
        }
    }
}

/// Sizes of a network, those that its architecture reads.
fn network(architecture: &str) -> String {
    let hidden = match architecture {
        // Its memory has one width.
        "task_expert" => "[64, 64]",
        _ => "[128, 64]",
    };
    let sizes = [
        (Common::Hidden, hidden),
        (Common::Tower, "[32]"),
        (Common::Dropout, "0.1"),
    ];
    let found = find(architecture);
    // An architecture that there is not is refused where the model is made, with the names of those that there are.
    let reads = |key: &Common| found.as_ref().is_ok_and(|a| a.spec().uses.contains(key));
    let mut lines = format!("architecture = \"{architecture}\"\n");
    for (key, value) in sizes.iter().filter(|(key, _)| reads(key)) {
        lines += &format!("{} = {value}\n", key.word());
    }
    lines
}

/// Rows of a pass and epochs by the number of training rows, where nothing is said of either: a 64th of the rows (16 to
/// 512, a power of two), and 3,000 steps (40 to 200 epochs, or fewer where validation rows stop the run).
pub fn sized(recipe: &mut Recipe, said: &[(String, String)], rows: usize) {
    // A key may be said by another program's word for it: what is not as it was is said too.
    let usual = Train::default();
    let is_said = |key: &str| said.iter().any(|(k, _)| k == key);
    let t = &mut recipe.train;
    if !is_said("train.batch") && t.batch == usual.batch {
        t.batch = (rows / 64).max(1).next_power_of_two().clamp(16, 512);
    }
    if t.epochs.is_none() && t.steps.is_none() {
        let epochs = 3000.0 * t.batch as f64 / rows.max(1) as f64;
        t.epochs = Some(epochs.ceil().clamp(40.0, 200.0));
    }
}

/// Trees beside networks: as many as validation rows ask for.
const FOREST: &str = r#"
version = 1
[train]
[train.new]
model_type = "polyloom-forest"
rounds = 1000
lr = 0.05
patience = 30
"#;

const STOPPING: &str = "rounds = 1000\nlr = 0.05\npatience = 30\n";

const RECIPE: &str = r#"
version = 1
[train]
rate = 2e-3
decay = 1e-3
schedule = "cosine"
warmup = 0.05
patience = 10
[train.new]
model_type = "polyloom-table"
"#;

/// What was typed of a table.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// The file in the place of a recipe.
    pub file: Option<&'a Path>,
    /// Tasks.
    pub tasks: &'a [String],
    /// What its columns are.
    pub columns: &'a Columns,
    /// Seed of its splits.
    pub seed: Option<u64>,
    /// Nothing is to be left behind.
    pub dry_run: bool,
}

/// The table, where one is named in place of a recipe.
///
/// # Errors
/// Columns without a table, a table without targets.
pub fn given<'a>(args: &Named<'a>) -> Result<Option<&'a Path>, Failure> {
    let file = args.file;
    let table = file.filter(|f| data::kind_of(f).is_some());
    let said = args.columns;
    let columns = !said.targets.is_empty()
        || said.group.is_some()
        || said.time.is_some()
        || said.weight.is_some()
        || said.session.is_some()
        || said.sample.is_some()
        || !said.drop.is_empty();
    let bad = |what: String, hint: &str| {
        let error = MergeError::plan("bad-flag", what).hint(hint);
        Err(error.into())
    };
    match (table, file) {
        (None, _) if columns => bad(
            "--targets, --group, --time, --weight, --session, --sample and --drop say what the columns of a table are, and none is named".into(),
            "polyloom train people.csv --targets income,never_married -o people",
        ),
        (Some(table), _) if !args.tasks.is_empty() => bad(
            format!("{} is a table, which makes a task of its own", table.display()),
            "leave out --task, or write a spec for the table first: polyloom tasks new",
        ),
        (Some(table), _) if said.targets.is_empty() && said.item.is_none() && !make::spec_file(table).exists() => bad(
            format!("what is to be learned of {}?", table.display()),
            "--targets A,B names the columns to predict",
        ),
        _ => Ok(table),
    }
}

/// Where a dry run has a spec while it reads it.
pub fn draft() -> PathBuf {
    std::env::temp_dir().join(format!("polyloom-{}.task.toml", std::process::id()))
}

/// The spec of a table: the one beside it, else written there.
///
/// # Errors
/// A spec that is there and has other targets, what writing one reports.
pub fn spec(table: &Path, args: &Named<'_>, ui: &Ui) -> Result<PathBuf, Failure> {
    let file = make::spec_file(table);
    let said = args.columns;
    if !file.exists() {
        let new = NewArgs {
            table: table.to_owned(),
            input: Vec::new(),
            columns: said.clone(),
            id: None,
            seed: args.seed.unwrap_or(0),
            output: None,
            force: args.dry_run,
            dry_run: false,
        };
        if args.dry_run {
            // Nothing is left behind: the spec is read from here, then removed.
            let draft = draft();
            make::write(&new, &draft, ui)?;
            ui.note(&format!("would write {}", file.display()));
            return Ok(draft);
        }
        make::write(&new, &file, ui)?;
        ui.note(&format!(
            "wrote {}: what the columns are, and which rows are held out",
            file.display()
        ));
        return Ok(file);
    }
    let mut catalogue = Catalogue::default();
    let ids = catalogue.add_path(&file)?;
    let specs = ids.iter().filter_map(|id| catalogue.task(id).ok());
    if let Some(differs) = specs.map(|t| differs(said, &t.spec)).find_map(|d| d) {
        return Err(MergeError::plan("spec-differs", format!("is there already, {differs}"))
            .at(file.display().to_string())
            .hint("remove it to have it written anew, or edit it; what is not said is taken as it is there")
            .into());
    }
    ui.note(&format!(
        "columns and splits are those of {}",
        file.display()
    ));
    Ok(file)
}

/// What a spec says otherwise than the flags do.
fn differs(said: &Columns, spec: &TaskSpec) -> Option<String> {
    let asks_item = |t: &&Target| t.kind == TaskType::Retrieval;
    let targets = spec.targets.iter().filter(|t| !asks_item(t));
    let targets: Vec<&str> = targets.map(|t| &*t.column).collect();
    let same =
        said.targets.len() == targets.len() && said.targets.iter().all(|t| targets.contains(&&**t));
    if !same && !said.targets.is_empty() {
        return Some(format!("with the targets {}", targets.join(", ")));
    }
    let table = spec.table.clone().unwrap_or_default();
    let or = |name: &str| match name {
        "" => "none".to_owned(),
        name => format!("`{name}`"),
    };
    if let Some(group) = &said.group
        && (*group != table.group || GroupAs::from(said.group_as) != table.group_as)
    {
        let how = if *group == table.group {
            ", as another kind"
        } else {
            ""
        };
        return Some(format!("with the group {}{how}", or(&table.group)));
    }
    if said.time.as_ref().is_some_and(|t| *t != table.time) {
        return Some(format!("with the time {}", or(&table.time)));
    }
    if said.weight.as_ref().is_some_and(|w| *w != table.weight) {
        return Some(format!("with the row weights {}", or(&table.weight)));
    }
    for (said, there, what) in [
        (&said.session, &table.session, "sessions of"),
        (&said.order, &table.order, "order"),
        (&said.item, &table.item, "items of"),
    ] {
        if said.as_ref().is_some_and(|s| s != there) {
            return Some(format!("with the {what} {}", or(there)));
        }
    }
    if !said.history.is_empty() && said.history != table.history {
        return Some(format!(
            "with the history {}",
            or(&table.history.join(", "))
        ));
    }
    if said.mark.as_ref().is_some_and(|m| *m != table.mark) {
        return Some(format!("with the mark {}", or(&table.mark)));
    }
    if let Some(sample) = &said.sample
        && let Some(other) = spec.targets.iter().find(|t| t.sample != *sample)
    {
        return Some(format!(
            "with the sample {} of `{}`",
            or(&other.sample),
            other.name
        ));
    }
    let lists = [&table.numeric, &table.categorical, &table.text];
    let feature = |d: &&String| lists.iter().any(|list| list.contains(d));
    let dropped = said.drop.iter().find(feature)?;
    Some(format!("with `{dropped}` among its features"))
}

/// `balanced`, `yes=3,no=1` or `rich=balanced`, as the recipe has it.
///
/// # Errors
/// Something else.
pub fn class_weight(said: &str) -> Result<String, Failure> {
    if said == "balanced" {
        return Ok(toml::Value::from(said).to_string());
    }
    let mut table = toml::Table::new();
    for part in said.split(',') {
        let value = part.rsplit_once('=').and_then(|(name, value)| {
            let value = value.trim();
            Some((
                name.trim().to_owned(),
                match value.parse::<f64>() {
                    Ok(x) => x.into(),
                    Err(_) if value == "balanced" => value.into(),
                    Err(_) => return None,
                },
            ))
        });
        let Some((name, value)) = value else {
            let what =
                format!("--class-weight: `{part}` is neither CLASS=NUMBER nor TARGET=balanced");
            return Err(MergeError::plan("bad-flag", what)
                .hint("balanced, numbers by class (yes=3,no=1), or of several targets rich=balanced,job=balanced")
                .into());
        };
        if table.insert(name.clone(), value).is_some() {
            let what = format!("--class-weight names `{name}` twice");
            return Err(MergeError::plan("bad-flag", what).into());
        }
    }
    Ok(toml::Value::Table(table).to_string())
}
