//! `polyloom train TABLE` and what follows: a raw table with two targets, from nothing to predictions.

use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;

use super::{failed, polyloom, shown, text};

/// 600 people: `rich` follows from age and job, `hours` from age alone; every tenth age is missing, `note` is running text.
pub(super) fn people(folder: &Path) -> PathBuf {
    let mut out = String::from("person_id,age,born,job,note,rich,hours\n");
    for i in 0..600u32 {
        let (age, job) = (
            20 + (i * 37) % 45,
            ["cook", "clerk", "judge"][i as usize % 3],
        );
        let noise = (i * 7919) % 13;
        let rich = age + 20 * (i % 3) + noise > 62;
        let hours = 60.0 - f64::from(age) / 2.0 + f64::from(noise) / 13.0;
        let shown = if i % 10 == 0 {
            String::new()
        } else {
            age.to_string()
        };
        out += &format!(
            "p{i},{shown},{}-0{}-11,{job},this is the note {i} of this person,{},{hours:.2}\n",
            2020 - age,
            1 + i % 9,
            if rich { "yes" } else { "no" },
        );
    }
    let file = folder.join("people.csv");
    std::fs::write(&file, out).unwrap();
    file
}

#[test]
fn from_a_csv_to_predictions() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = shown(&dir.path().join("model"));
    let train = |more: &[&str]| {
        let mut args = vec![
            "train", &table, "--model", "mmoe", "-o", &out, "--epochs", "30",
        ];
        args.extend(["--set", "train.batch=32", "--set", "train.patience=0"]);
        args.extend(more);
        polyloom(&args)
    };
    let plan = train(&["--targets", "rich,hours", "--dry-run"]);
    assert!(plan.status.success(), "{}", text(&plan.stderr));
    assert!(!dir.path().join("people.task.toml").exists());
    // Another program's word for a key counts as said.
    let words = [
        "train",
        &table,
        "-o",
        &out,
        "--targets",
        "rich,hours",
        "--dry-run",
        "--set",
        "train.batch_size=48",
    ];
    let plan = polyloom(&words);
    assert!(
        text(&plan.stdout).contains("batch 48"),
        "{}",
        text(&plan.stdout)
    );
    let done = train(&["--targets", "rich,hours"]);
    let said = text(&done.stderr);
    assert!(done.status.success(), "{said}");
    // The spec lies beside the table now, and says what every column is.
    let spec = std::fs::read_to_string(dir.path().join("people.task.toml")).unwrap();
    assert!(spec.contains("categorical = [\"job\"]"), "{spec}");
    assert!(spec.contains("numeric = [\"age\", \"born\"]"), "{spec}");
    assert!(spec.contains("text = [\"note\"]"), "{spec}");
    let prepared = std::fs::read_to_string(Path::new(&out).join("table.json")).unwrap();
    assert!(prepared.contains("\"missing\": true"), "{prepared}");
    // What the spec beside the table says otherwise than flags do is said, not passed over.
    for (flags, want) in [
        (&["--targets", "rich"][..], "with the targets rich, hours"),
        (&["--group", "job"], "with the group none"),
        (&["--time", "born"], "with the time none"),
        (&["--drop", "age"], "with `age` among its features"),
    ] {
        let said = failed(&[&["train", &table, "-o", &out, "--force"][..], flags].concat());
        assert!(said.contains(want), "{said}");
    }
    // Held-out rows, by the board's own metrics.
    let results = shown(&dir.path().join("results.json"));
    let task = shown(&dir.path().join("people.task.toml"));
    let done = polyloom(&["eval", &out, "-t", &task, "-o", &results]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let value = |name: &str| results["tasks"][name]["value"].as_f64().unwrap();
    assert!(value("people/rich") > 0.9, "{results}");
    // Hours spread over 22; the mean alone would be 6.5 off.
    assert!(value("people/hours") < 3.0, "{results}");
    // New rows, without targets and in another order; an unknown job.
    let new = dir.path().join("new.jsonl");
    std::fs::write(
        &new,
        "{\"id\": \"a\", \"job\": \"judge\", \"age\": 64, \"born\": \"1956-01-11\", \"note\": \"a note\"}\n{\"id\": \"b\", \"job\": \"pilot\", \"age\": null, \"born\": \"1999-01-11\"}\n",
    )
    .unwrap();
    let file = shown(&dir.path().join("new.predictions.jsonl"));
    let done = polyloom(&["predict", &out, &shown(&new), "-o", &file]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = std::fs::read_to_string(&file).unwrap();
    for part in ["\"a\"", "\"b\"", "rich", "hours", "yes"] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    // A table without a column that every training row had.
    let lacking = dir.path().join("lacking.csv");
    std::fs::write(&lacking, "id,age,job\na,30,cook\n").unwrap();
    let said = failed(&[
        "predict",
        &out,
        &shown(&lacking),
        "-o",
        &shown(&dir.path().join("x.csv")),
    ]);
    assert!(said.contains("`born`"), "{said}");
    // A text is no row.
    let said = failed(&["run", &out, "hello"]);
    assert!(said.contains("model of tables"), "{said}");
}

#[test]
fn the_same_bytes_again() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let run = |name: &str| {
        let out = dir.path().join(name);
        let done = polyloom(&[
            "train",
            &table,
            "--targets",
            "rich,hours",
            "--model",
            "mmoe",
            "-o",
            &shown(&out),
            "--steps",
            "8",
        ]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        std::fs::read(out.join("model.safetensors")).unwrap()
    };
    assert!(run("one") == run("two"));
}

#[test]
fn every_architecture_trains_with_its_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let all = polyloom_learn::models::table::architectures().filter(|a| !a.reads_sessions());
    let all = all.map(|a| a.spec().name);
    for name in all.chain(polyloom_learn::models::forest::ARCHITECTURES) {
        // R-MTGB learns targets of one kind.
        let targets = if name == "r_mtgb" {
            "age,hours"
        } else {
            "rich,hours"
        };
        let spec = dir.path().join("people.task.toml");
        if name == "r_mtgb" {
            std::fs::remove_file(spec).unwrap();
        }
        let out = shown(&dir.path().join(name));
        let mut args = vec![
            "train",
            &table,
            "--targets",
            targets,
            "--model",
            name,
            "-o",
            &out,
        ];
        if name != "r_mtgb" && !name.starts_with("gbdt") {
            args.extend(["--steps", "3"]);
        }
        let done = polyloom(&args);
        assert!(done.status.success(), "{name}: {}", text(&done.stderr));
    }
}

#[test]
fn tasks_of_the_catalogue_and_balancers() {
    let dir = tempfile::tempdir().unwrap();
    people(dir.path());
    let table = shown(&dir.path().join("people.csv"));
    let made = polyloom(&["tasks", "new", &table, "--targets", "rich,hours"]);
    assert!(made.status.success());
    let task = shown(&dir.path().join("people.task.toml"));
    let out = shown(&dir.path().join("model"));
    let done = polyloom(&[
        "train",
        "-t",
        &task,
        "--model",
        "shared_bottom",
        "--balancer",
        "cagrad",
        "-o",
        &out,
        "--steps",
        "12",
    ]);
    let said = text(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("cagrad over 12 steps"), "{said}");
}

/// Running statistics are in the folder as training left them, with and without a balancer, and what reads it uses them.
#[test]
fn batch_norms_keep_what_they_saw() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    for (model, more) in [
        ("mmoe", &[][..]),
        ("home", &["--balancer", "nash"]),
        ("ple", &["--set", "train.decay=0.5"]),
    ] {
        let out = shown(&dir.path().join(model));
        let mut args = vec!["train", &table, "--targets", "rich,hours", "--model", model];
        args.extend(["-o", &out, "--steps", "12", "--set", "train.new.norm=batch"]);
        args.extend(more);
        let done = polyloom(&args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let file = Checkpoint::open(&out).unwrap();
        let mut seen = 0;
        for (name, stored) in file.tensors() {
            let begun = match name.rsplit_once('.') {
                Some((_, "running_mean")) => 0.0,
                Some((_, "running_var")) => 1.0,
                _ => continue,
            };
            let values = file.read_all(stored).unwrap();
            assert!(values.iter().any(|x| *x != begun), "{model}: {name} stays");
            assert!(values.iter().all(|x| x.is_finite()), "{model}: {name}");
            seen += 1;
        }
        assert!(seen >= 8, "{model}: {seen}");
        let task = shown(&dir.path().join("people.task.toml"));
        let results = shown(&dir.path().join(format!("{model}.json")));
        let done = polyloom(&["eval", &out, "-t", &task, "-o", &results]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
}

#[test]
fn what_cannot_be_learned_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        shown(&file)
    };
    let out = shown(&dir.path().join("out"));
    let fails = |table: &str, more: &[&str]| {
        let mut args = vec!["train", table, "-o", &out, "--steps", "2"];
        args.extend(more);
        failed(&args)
    };
    let table = shown(&people(dir.path()));
    let said = fails(&table, &[]);
    assert!(said.contains("--targets A,B"), "{said}");
    let said = fails(&table, &["--targets", "rihc"]);
    assert!(said.contains("did you mean `rich`?"), "{said}");
    let said = fails(&table, &["--targets", "rich", "--model", "mmoo"]);
    assert!(said.contains("did you mean `mmoe`?"), "{said}");
    // The first of these wrote the spec; another target is not learned by it.
    let said = fails(&table, &["--targets", "hours"]);
    assert!(said.contains("is there already"), "{said}");
    let said = failed(&["train", "loom.toml", "--targets", "a", "-o", &out]);
    assert!(said.contains("none is named"), "{said}");
    let one = file("one.csv", "a,b\n1,2\n");
    let said = fails(&one, &["--targets", "b"]);
    assert!(!said.contains("panic"), "{said}");
    let mut constant = String::from("a,b\n");
    let mut single = String::from("a,b\n");
    for i in 0..50 {
        constant += &format!("{i},7.5\n");
        single += &format!("{i},yes\n");
    }
    let constant = file("constant.csv", &constant);
    let said = fails(&constant, &["--targets", "b"]);
    assert!(said.contains("nothing to learn from a constant"), "{said}");
    let single = file("single.csv", &single);
    let said = fails(&single, &["--targets", "b"]);
    assert!(said.contains("the class `yes`"), "{said}");
}

#[test]
fn trees_under_the_same_commands() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    for model in ["gbdt", "gbdt_shared"] {
        let out = shown(&dir.path().join(model));
        let done = polyloom(&[
            "train",
            &table,
            "--targets",
            "rich,hours",
            "--model",
            model,
            "-o",
            &out,
        ]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let task = shown(&dir.path().join("people.task.toml"));
        let results = shown(&dir.path().join(format!("{model}.json")));
        let done = polyloom(&["eval", &out, "-t", &task, "-o", &results]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let results: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
        let value = |name: &str| results["tasks"][name]["value"].as_f64().unwrap();
        assert!(
            value("people/rich") > 0.9 && value("people/hours") < 3.0,
            "{results}"
        );
        let file = shown(&dir.path().join(format!("{model}.predictions.csv")));
        let done = polyloom(&["predict", &out, &table, "-o", &file]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 601);
        let done = polyloom(&["inspect", &out]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    // A damaged file of trees.
    let trees = dir.path().join("gbdt/model.safetensors");
    let bytes = std::fs::read(&trees).unwrap();
    std::fs::write(&trees, &bytes[..bytes.len() / 2]).unwrap();
    let said = failed(&[
        "predict",
        &shown(&dir.path().join("gbdt")),
        &table,
        "-o",
        &shown(&dir.path().join("y.csv")),
    ]);
    assert!(said.contains("model.safetensors"), "{said}");
    let out = shown(&dir.path().join("balanced"));
    let said = failed(&[
        "train",
        &table,
        "--model",
        "gbdt",
        "--balancer",
        "nash",
        "-o",
        &out,
    ]);
    assert!(said.contains("trees have none"), "{said}");
    let said = failed(&[
        "train", &table, "--model", "gbdt", "--epochs", "5", "-o", &out,
    ]);
    assert!(said.contains("`train.epochs`"), "{said}");
}

#[test]
fn twins_say_whether_it_pays() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = dir.path().join("model");
    let run = |more: &[&str]| {
        let out = shown(&out);
        let mut args = vec![
            "train",
            &table,
            "--targets",
            "rich,hours",
            "--twins",
            "-o",
            &out,
        ];
        args.extend(["--model", "mmoe", "--steps", "60"]);
        args.extend(more);
        polyloom(&args)
    };
    let done = run(&[]);
    let (said, answer) = (text(&done.stderr), text(&done.stdout));
    assert!(done.status.success(), "{said}");
    let place = dir.path().join("model.twins");
    for name in [
        "single_task.json",
        "gbdt.json",
        "mmoe.json",
        "report.html",
        "gbdt/table.json",
    ] {
        assert!(place.join(name).exists(), "{name}");
    }
    for part in ["mmoe less single_task", "mmoe less gbdt"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Areas and errors are compared over the same rows, by the bootstrap.
    assert!(
        answer.contains("people/rich") && answer.contains("people/hours"),
        "{answer}"
    );
    assert!(!said.contains("compared by its scores"), "{said}");
    let done = run(&[]);
    assert!(text(&done.stderr).contains("exists already"));
    let said = failed(&[
        "train",
        &table,
        "--model",
        "mmoe",
        "--twins",
        "--each",
        "-o",
        &shown(&dir.path().join("e")),
    ]);
    assert!(said.contains("leave out --each"), "{said}");
    let recipe = dir.path().join("loom.toml");
    std::fs::write(
        &recipe,
        "version = 1\n[train]\ntasks = [\"people.task.toml\"]\n[train.new]\nmodel_type = \"vit\"\n",
    )
    .unwrap();
    let said = failed(&[
        "train",
        &shown(&recipe),
        "-t",
        &shown(&dir.path().join("people.task.toml")),
        "--twins",
        "-o",
        "x",
    ]);
    assert!(said.contains("new model of tables"), "{said}");
}
