//! Cross-validation of trainings over tables: who sees which row, and that a run that was stopped goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use polyloom::evaluate::board::folds::Folds;
use polyloom::tasks::Catalogue;
use polyloom_learn::Result;
use polyloom_learn::folds::plan::HELD;
use polyloom_learn::folds::{Plan, Told, cross};
use polyloom_learn::train::session::Options;
use polyloom_learn::train::{Given, Recipe};

const ROWS: usize = 60;

/// A row: a number, a word, a class, a number to learn, a group.
type Row = (f64, String, &'static str, f64, usize);

fn rows() -> Vec<Row> {
    let row = |i: usize| {
        let x = ((i * 37) % 41) as f64;
        let word = ["a", "b", "c"][i % 3].to_owned();
        let class = if i.is_multiple_of(10) {
            "rare"
        } else {
            "usual"
        };
        (x, word, class, 2.0 * x + (i % 3) as f64, i % 8)
    };
    (0..ROWS).map(row).collect()
}

/// The task of some rows: 42 to learn, 6 that stop, 12 held out. `more` stands in `[table]`, `targets` are named.
fn task(folder: &Path, rows: &[Row], targets: &[&str], more: &str) -> Vec<Given> {
    let line = |(x, word, class, y, group): &Row| format!("{x},{word},{class},{y},g{group}\n");
    let text: String = rows.iter().map(line).collect();
    std::fs::write(
        folder.join("t.csv"),
        format!("x,word,class,y,group\n{text}"),
    )
    .unwrap();
    let target = |name: &&str| match *name {
        "y" => {
            "[[targets]]\nname = \"y\"\ncolumn = \"y\"\ntype = \"regression\"\nmetrics = [{ name = \"rmse\", primary = true }]\n"
        }
        _ => {
            "[[targets]]\nname = \"class\"\ncolumn = \"class\"\ntype = \"classification\"\nlabels = [\"usual\", \"rare\"]\nmetrics = [{ name = \"accuracy\", primary = true }, { name = \"roc_auc\" }]\n"
        }
    };
    let targets: String = targets.iter().map(target).collect();
    let spec = format!(
        "schema = \"polyloom.task/1\"\nid = \"t\"\n[modality]\ninput = [\"table\"]\n[source]\nkind = \"csv\"\nroot = \".\"\n\
         [splits]\ntrain = {{ file = \"t.csv\", slice = \"[:70%]\", seed = 1 }}\nvalidation = {{ file = \"t.csv\", slice = \"[70%:80%]\", seed = 1 }}\n\
         test = {{ file = \"t.csv\", slice = \"[80%:]\", seed = 1 }}\n[table]\nnumeric = [\"x\"]\ncategorical = [\"word\"]\n{more}\n{targets}"
    );
    let file = folder.join("t.task.toml");
    std::fs::write(&file, spec).unwrap();
    let mut catalogue = Catalogue::default();
    let ids = catalogue.add_path(&file).unwrap();
    vec![Given {
        spec: catalogue.task(&ids[0]).unwrap().spec.clone(),
        folder: folder.to_owned(),
        hash: String::new(),
        parts: Default::default(),
    }]
}

fn recipe(model: &str, folds: &str) -> Recipe {
    let network = match model {
        "gbdt" => {
            "model_type = \"polyloom-forest\"\nrounds = 20\npatience = 5\ngrowth = { min_rows = 2 }"
        }
        _ => "model_type = \"polyloom-table\"\nhidden = [8]\ntower = [4]",
    };
    let steps = if model == "gbdt" {
        ""
    } else {
        "steps = 15\npatience = 3\n"
    };
    let text = format!(
        "version = 1\nseed = 3\n[train]\ntasks = [\"t\"]\n{folds}\n{steps}[train.new]\narchitecture = \"{model}\"\n{network}\n"
    );
    Recipe::read(&text, "test", &[]).unwrap()
}

fn run(recipe: &Recipe, given: &[Given], place: &Path) -> Folds {
    cross(recipe, given, place, Options::default(), &mut |_| true).unwrap()
}

/// Fold and prediction of every row of the first repeat.
fn answers(place: &Path) -> BTreeMap<usize, (usize, String)> {
    let text = std::fs::read_to_string(place.join("predictions.csv")).unwrap();
    let lines = text
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect::<Vec<_>>());
    let of = |f: Vec<&str>| (f[0].parse().unwrap(), (f[2].parse().unwrap(), f[3].into()));
    lines.filter(|f| f[1] == "1").map(of).collect()
}

#[test]
fn every_row_is_held_out_once_in_a_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let given = task(dir.path(), &rows(), &["class", "y"], "");
    let recipe = recipe("gbdt", "folds = 5\nrepeats = 2");
    let plan = Plan::of(&recipe, &given).unwrap();
    assert_eq!((plan.rows(0), plan.drawn(0).by.as_str()), (ROWS, "classes"));
    assert!((plan.drawn(0).validation - 0.125).abs() < 1e-12);
    assert!((plan.drawn(0).ratio - 0.25).abs() < 1e-12);
    let mut draws = Vec::new();
    for repeat in 0..2 {
        let mut times = vec![0; ROWS];
        for fold in 0..5 {
            let made = plan.fold(repeat, fold).unwrap();
            made.held[0].iter().for_each(|row| times[*row] += 1);
            assert_eq!(made.rows[0], [42, 6, 12]);
            // One of every ten rows is rare, and more than one fold has it.
            let rare = made.held[0].iter().filter(|r| **r % 10 == 0).count();
            assert!((1..=2).contains(&rare), "{rare}");
            draws.push(made.held[0].clone());
        }
        assert_eq!(times, [1; ROWS]);
    }
    assert_ne!(draws[0], draws[5]);
    // The same folds for another model: they are of the seed and the rows.
    let other = self::recipe("mmoe", "folds = 5\nrepeats = 2");
    let other = Plan::of(&other, &given).unwrap();
    assert_eq!(other.drawn(0).draw, plan.drawn(0).draw);
    assert_ne!(other.key(), plan.key());
}

#[test]
fn groups_stay_whole_where_the_task_splits_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let by_group = "group = \"group\"\ngroup_as = \"split\"";
    let given = task(dir.path(), &rows(), &["y"], by_group);
    let recipe = recipe("gbdt", "folds = 4");
    let plan = Plan::of(&recipe, &given).unwrap();
    assert_eq!(plan.drawn(0).by, "groups");
    let of = |given: &Given, split: &str| {
        let mut groups = BTreeSet::new();
        given
            .loader()
            .rows(split, &mut |table| {
                groups.extend((0..table.rows()).map(|i| table.at(i, "group").to_string()));
                Ok(())
            })
            .unwrap();
        groups
    };
    for fold in 0..4 {
        let made = plan.fold(0, fold).unwrap();
        let sets = ["train", "validation", "held out"].map(|s| of(&made.tasks[0], s));
        assert_eq!(sets.iter().map(BTreeSet::len).sum::<usize>(), 8);
        assert!(sets.iter().all(|s| !s.is_empty()));
        assert!(sets[0].is_disjoint(&sets[1]) && sets[0].is_disjoint(&sets[2]));
    }
}

#[test]
fn a_model_knows_nothing_of_the_rows_that_it_answers() {
    for model in ["gbdt", "shared_bottom"] {
        let dir = tempfile::tempdir().unwrap();
        let recipe = recipe(model, "folds = 3");
        let at = |name: &str| dir.path().join(name);
        run(
            &recipe,
            &task(dir.path(), &rows(), &["y"], ""),
            &at("before"),
        );
        let before = answers(&at("before"));
        assert_eq!(before.len(), ROWS);
        // Other labels in the first fold: what is said of its rows is as before, what is said of the others is not.
        let mut other = rows();
        let first = |row: &usize| before[row].0 == 1;
        for row in (0..ROWS).filter(first) {
            other[row].3 = 1000.0 - 7.0 * row as f64;
        }
        run(
            &recipe,
            &task(dir.path(), &other, &["y"], ""),
            &at("labels"),
        );
        let labels = answers(&at("labels"));
        assert!(
            (0..ROWS).filter(first).all(|r| before[&r] == labels[&r]),
            "{model}"
        );
        assert!(
            (0..ROWS)
                .filter(|r| !first(r))
                .any(|r| before[&r] != labels[&r]),
            "{model}"
        );
        // Another number and an unknown word in one row of the fold: others of the fold are answered as before.
        let mut other = rows();
        let row = (0..ROWS).find(first).unwrap();
        (other[row].0, other[row].1) = (1e6, "new".into());
        run(
            &recipe,
            &task(dir.path(), &other, &["y"], ""),
            &at("features"),
        );
        let features = answers(&at("features"));
        let rest = (0..ROWS).filter(|r| first(r) && *r != row);
        assert!(
            rest.into_iter().all(|r| before[&r] == features[&r]),
            "{model}"
        );
    }
}

#[test]
fn scores_are_those_of_the_rows_of_a_fold() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("folds");
    let found = run(
        &recipe("gbdt", "folds = 3"),
        &task(dir.path(), &rows(), &["y"], ""),
        &place,
    );
    let said = answers(&place);
    let mut all = Vec::new();
    for fold in 1..=3 {
        let of = said.iter().filter(|(_, (f, _))| *f == fold);
        let squares = of.map(|(row, (_, y))| (y.parse::<f64>().unwrap() - rows()[*row].3).powi(2));
        let squares: Vec<f64> = squares.collect();
        all.push((squares.iter().sum::<f64>() / squares.len() as f64).sqrt());
    }
    let [scores] = &found.scores[..] else {
        panic!("{found:?}");
    };
    for (found, by_hand) in scores.values[0].iter().zip(&all) {
        assert!(
            (found.unwrap() - by_hand).abs() < 1e-9,
            "{scores:?}: {all:?}"
        );
    }
    let mean = all.iter().sum::<f64>() / 3.0;
    assert!((scores.mean.unwrap() - mean).abs() < 1e-9);
    // t of two degrees of freedom at 0.975 is 4.302653; test rows are half of the training rows.
    let s2 = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0;
    let half = 4.302_652_729_911_275 * (s2 * (1.0 / 3.0 + 0.5)).sqrt();
    assert!((scores.interval.unwrap()[1] - mean - half).abs() < 1e-7);
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    for model in ["gbdt", "mmoe"] {
        let dir = tempfile::tempdir().unwrap();
        let given = task(dir.path(), &rows(), &["class", "y"], "");
        let recipe = recipe(model, "folds = 3\nrepeats = 2");
        let (whole, parts) = (dir.path().join("a/x"), dir.path().join("b/x"));
        run(&recipe, &given, &whole);
        let resume = Options {
            resume: true,
            ..Options::default()
        };
        // Stopped after the second fold, then in the middle of the fourth.
        let mut scored = 0;
        let stopped = cross(&recipe, &given, &parts, Options::default(), &mut |told| {
            scored += usize::from(matches!(told, Told::Scored(..)));
            scored < 2
        });
        assert!(stopped.is_err());
        let again = cross(&recipe, &given, &parts, Options::default(), &mut |_| true);
        assert!(again.unwrap_err().to_string().contains("was interrupted"));
        let (mut found, mut inside) = (0, 0);
        let stopped = cross(&recipe, &given, &parts, resume, &mut |told| {
            found += usize::from(matches!(told, Told::Scored(_, _, _, true)));
            inside += usize::from(matches!(told, Told::Inside(_)));
            inside < 25
        });
        assert!(stopped.is_err() && found == 2);
        let mut other = recipe.clone();
        other.train.limit = Some(30);
        let told = cross(&other, &given, &parts, resume, &mut |_| true).unwrap_err();
        assert!(told.to_string().contains("another recipe"), "{told}");
        cross(&recipe, &given, &parts, resume, &mut |_| true).unwrap();
        for file in ["folds.json", "predictions.csv"] {
            let read = |place: &Path| std::fs::read(place.join(file)).unwrap();
            assert!(read(&whole) == read(&parts), "{model} {file}");
        }
        assert!(!parts.join("work").exists());
        // What is done is read; another recipe does not replace it.
        let mut times = 0;
        cross(&recipe, &given, &parts, resume, &mut |_| {
            times += 1;
            true
        })
        .unwrap();
        assert_eq!(times, 0);
        let told = cross(&other, &given, &parts, resume, &mut |_| true).unwrap_err();
        assert!(told.to_string().contains("another recipe"), "{told}");
    }
}

#[test]
fn folds_of_time_learn_what_comes_before() {
    let dir = tempfile::tempdir().unwrap();
    let (all, order) = (rows(), "time = \"x\"");
    let given = task(dir.path(), &all, &["class", "y"], order);
    let recipe = recipe("gbdt", "folds = 3");
    let plan = Plan::of(&recipe, &given).unwrap();
    assert_eq!((plan.rows(0), plan.drawn(0).by.as_str()), (ROWS, "time"));
    let mut held = BTreeSet::new();
    let mut last = f64::NEG_INFINITY;
    for fold in 0..3 {
        let made = plan.fold(0, fold).unwrap();
        let of = |split: &str| {
            let loader = made.tasks[0].loader();
            let rows = loader.records(split).unwrap().into_iter();
            rows.map(|r| {
                let x = &r["x"];
                x.as_f64().or_else(|| x.as_str()?.parse().ok()).unwrap()
            })
            .collect::<Vec<_>>()
        };
        let ends = |x: &[f64]| {
            x.iter()
                .fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)))
        };
        let [learned, stops, out] = ["train", "validation", HELD].map(of);
        // What is learned lies before what stops training, that before what is held out; no time on both sides.
        assert!(ends(&learned).1 < ends(&stops).0 && ends(&stops).1 < ends(&out).0);
        assert!(ends(&out).0 > last);
        last = ends(&out).1;
        let [a, b, c] = made.rows[0];
        assert_eq!((a, b, c), (learned.len(), stops.len(), out.len()));
        held.extend(made.held[0].iter().copied());
    }
    assert!((30..=45).contains(&held.len()), "{}", held.len());
    // Answers to the rows that some fold holds out, by their number among all; results are scored over these.
    let place = dir.path().join("m.folds");
    let folds = run(&recipe, &given, &place);
    assert!(folds.scores.iter().all(|s| s.values[0].len() == 3));
    assert_eq!(answers(&place).into_keys().collect::<BTreeSet<_>>(), held);
    let results = std::fs::read_to_string(place.join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    let n = results["tasks"]["t/y"]["n"].as_u64().unwrap();
    assert_eq!(n, held.len() as u64);
}

#[test]
fn what_cannot_be_put_into_folds_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let told = |rows: &[Row], targets: &[&str], more: &str, folds: &str| {
        let given = task(dir.path(), rows, targets, more);
        let found: Result<()> = Plan::of(&recipe("gbdt", folds), &given).map(|_| ());
        found.unwrap_err().to_string()
    };
    let all = rows();
    let said = told(&all, &["class"], "", "folds = 7");
    assert!(
        said.contains("target `class`: class `rare` has 6 rows, for 7 folds"),
        "{said}"
    );
    let said = told(&all, &["y"], "", "folds = 61");
    assert!(
        said.contains("60 rows cannot be put into 61 folds"),
        "{said}"
    );
    let said = told(&all, &["y"], "time = \"x\"", "folds = 2\nrepeats = 2");
    assert!(
        said.contains("splits by time, whose folds are one draw"),
        "{said}"
    );
    let said = told(&all, &["y"], "time = \"word\"", "folds = 4");
    assert!(
        said.contains("60 rows of 3 times cannot be cut into 5 blocks"),
        "{said}"
    );
    let both = "time = \"x\"\ngroup = \"group\"\ngroup_as = \"split\"";
    let said = told(&all, &["y"], both, "folds = 2");
    assert!(
        said.contains("by groups (`group`) and by time (`x`)"),
        "{said}"
    );
    let by_group = "group = \"group\"\ngroup_as = \"split\"";
    let said = told(&all, &["y"], by_group, "folds = 9");
    assert!(
        said.contains("8 groups cannot be put into 9 folds"),
        "{said}"
    );
    let said = told(&all, &["y"], "", "folds = 3\nfold_splits = [\"dev\"]");
    assert!(said.contains("no split `dev`"), "{said}");
    let refused = |text: &str| {
        let text = format!("version = 1\n[train]\ntasks = [\"t\"]\n{text}");
        Recipe::read(&text, "x", &[]).unwrap_err().to_string()
    };
    let table = "[train.new]\nmodel_type = \"polyloom-table\"\narchitecture = \"mmoe\"\n";
    for (keys, what) in [
        ("folds = 1\n", "`train.folds` is 1"),
        ("folds = 3\nrepeats = 0\n", "`train.repeats` is 0"),
        ("repeats = 2\n", "`train.repeats` is about folds"),
        (
            "fold_splits = [\"train\"]\n",
            "`train.fold_splits` is about folds",
        ),
        ("folds = 3\neach = true\n", "`train.each`"),
        (
            "folds = 3\n[train.head]\nstart = \"heads\"\n",
            "`train.head.start` brings in",
        ),
        (
            "folds = 3\n[train.pseudo]\nteachers = [\"m\"]\n",
            "`train.pseudo` brings in",
        ),
    ] {
        let said = refused(&format!("{keys}{table}"));
        assert!(said.contains(what), "{said}");
    }
    let said = refused("folds = 3\n[train.new]\nmodel_type = \"vit\"\n");
    assert!(said.contains("new models of tables"), "{said}");
}
