//! Trials of trainings over tables: points without a recipe file, and points that are scored by folds.

use std::path::Path;

use polyloom::MergeError;
use polyloom_learn::models::forest::ARCHITECTURES;
use polyloom_learn::train::Recipe;
use serde_json::json;

use crate::args_tune::TuneArgs;
use crate::commands::train::table::{self, Named};
use crate::ui::{Failure, Ui};

/// Keys and what they are set to.
type Set = Vec<(String, String)>;

/// A training from the defaults of tables, as `polyloom train TABLE --model NAME` has them.
pub(super) struct New {
    model: Option<String>,
    /// Tasks that are learned and scored: ids, or the spec beside the table.
    pub tasks: Vec<String>,
}

impl New {
    /// The table or the model that was named; `None` where a recipe or experts are.
    ///
    /// # Errors
    /// A table without targets or with another spec beside it, nothing that varies, `--model` beside a recipe, flags of
    /// merges.
    pub fn asked(args: &TuneArgs, ui: &Ui) -> Result<Option<Self>, Failure> {
        let bad = |what: String, hint: &str| {
            let error = MergeError::plan("bad-flag", what).hint(hint);
            Err(error.into())
        };
        let named = Named {
            file: match &args.inputs[..] {
                [one] => Some(Path::new(one)),
                _ => None,
            },
            tasks: &args.tasks,
            columns: &args.columns,
            seed: args.seed,
            dry_run: args.dry_run,
        };
        let table = table::given(&named)?;
        if table.is_none() && args.model.is_none() {
            return Ok(None);
        }
        if let (None, Some(input)) = (table, args.inputs.first()) {
            return bad(
                format!(
                    "--model makes a new model for a table or for tasks, and {input} is neither"
                ),
                "of a recipe: --set train.new.architecture=NAME",
            );
        }
        if args.trials.over.is_empty() {
            return bad(
                "trials of a training over a table, and nothing varies".into(),
                "--over train.new.lr=log:0.02..0.3 (trees), --over train.rate=log:3e-4..1e-2 (networks); `polyloom train` trains without trials",
            );
        }
        let odd = [
            ("--base", args.base.is_some()),
            ("--heads", args.heads.is_some()),
            ("--method", args.method.is_some()),
            ("--per", args.per.is_some()),
            ("--steps", args.steps.is_some()),
            ("--batch", args.batch.is_some()),
            ("--rate", args.rate.is_some()),
            ("--max-length", args.max_length.is_some()),
        ];
        if let Some((flag, _)) = odd.iter().find(|(_, given)| *given) {
            return bad(
                format!("{flag} is about merged models, and these are new models of tables"),
                "--set train.KEY=VALUE sets a key of the training",
            );
        }
        let tasks = match table {
            Some(table) => vec![table::spec(table, &named, ui)?.display().to_string()],
            None if args.tasks.is_empty() => {
                return bad(
                    "--model names a new model of tables, and no table is named".into(),
                    "polyloom tune people.csv --targets income --model gbdt --over KEY=VALUES, or -t tabular/oes10",
                );
            }
            None => args.tasks.clone(),
        };
        Ok(Some(Self {
            model: args.model.clone(),
            tasks,
        }))
    }

    /// The recipe of a point: defaults of its architecture, what was set, sizes that follow from the number of training rows
    /// where it is known.
    ///
    /// # Errors
    /// Keys and values that cannot be.
    pub fn recipe(
        &self,
        set: &[(String, String)],
        rows: Option<usize>,
    ) -> Result<Recipe, MergeError> {
        let last = |key: &str| {
            let found = set.iter().rev().find(|(k, _)| k == key);
            found.map(|(_, value)| value.trim_matches('"').to_owned())
        };
        let model = last("train.new.architecture").or_else(|| self.model.clone());
        let by_group = last("train.new.goals").is_some_and(|g| g == "groups");
        let text = table::recipe(model.as_deref(), by_group);
        let quoted = |text: &String| toml::Value::from(text.as_str());
        let tasks = self.tasks.iter().map(quoted).collect();
        let mut all = vec![(
            "train.tasks".to_owned(),
            toml::Value::Array(tasks).to_string(),
        )];
        if let Some(model) = &model {
            all.push((
                "train.new.architecture".to_owned(),
                quoted(model).to_string(),
            ));
        }
        all.extend(
            set.iter()
                .filter(|(k, _)| k != "train.new.architecture")
                .cloned(),
        );
        let mut recipe = Recipe::read(&text, "defaults of tables", &all)?;
        let trees = model.is_some_and(|m| ARCHITECTURES.contains(&&*m));
        if let Some(rows) = rows.filter(|_| !trees) {
            table::sized(&mut recipe, &all, rows);
        }
        Ok(recipe)
    }

    /// What results depend on beside what was set.
    pub fn identity(&self) -> String {
        json!([self.model, table::recipe(self.model.as_deref(), false)]).to_string()
    }
}

/// Folds that were asked for with flags.
pub(super) fn folds(args: &TuneArgs) -> Set {
    let given = [
        ("train.folds", args.trials.folds),
        ("train.repeats", args.trials.repeats),
    ];
    let said = given
        .into_iter()
        .filter_map(|(key, n)| Some((key.to_owned(), n?.to_string())));
    said.collect()
}

/// The recipe of a trial that folds score: test rows have no part in a choice.
///
/// # Errors
/// Test rows that were asked for; tasks that are scored and not learned.
pub(super) fn folded(recipe: &mut Recipe, scored: &[String]) -> Result<(), MergeError> {
    let t = &mut recipe.train;
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    if t.fold_splits.iter().any(|s| s == "test") {
        return bad(
            "`train.fold_splits` has the test rows, which would choose the point",
            "fold_splits = [\"train\", \"validation\"], as where nothing is said",
        );
    }
    if *scored != t.tasks {
        return bad(
            "folds score the tasks that are learned, and others are named to be scored",
            "leave out --task and tune.tasks",
        );
    }
    if t.fold_splits.is_empty() {
        t.fold_splits = vec![t.split.clone()];
        if !t.validation.is_empty() {
            t.fold_splits.push(t.validation.clone());
        }
    }
    Ok(())
}
