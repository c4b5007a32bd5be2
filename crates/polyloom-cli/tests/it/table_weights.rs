//! Rows and classes that count more: `polyloom train --weight`, `--class-weight`, `targets[].weight`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{done, failed, shown};

/// 1,000 people of whom a tenth is rich: `x` says who, not surely. `times` is 0 for every third and 2 for the others, `hours`
/// a number.
fn people(folder: &Path, change: impl Fn(usize, &mut [String; 6])) -> PathBuf {
    let mut out = String::from("person,x,job,times,rich,hours\n");
    for i in 0..1000usize {
        let noise = ((i * 7919) % 101) as f64 / 101.0;
        let rich = i % 10 == 3;
        let x = noise + if rich { 0.45 } else { 0.0 };
        let mut row = [
            format!("p{i}"),
            format!("{x:.4}"),
            ["cook", "clerk", "judge"][i % 3].into(),
            if i % 3 == 0 { "0" } else { "2" }.into(),
            if rich { "yes" } else { "no" }.into(),
            format!("{:.3}", 40.0 * x),
        ];
        change(i, &mut row);
        writeln!(out, "{}", row.join(",")).unwrap();
    }
    let file = folder.join("people.csv");
    std::fs::write(&file, out).unwrap();
    file
}

struct Run {
    dir: tempfile::TempDir,
    table: String,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let table = shown(&people(dir.path(), |_, _| {}));
        Self { dir, table }
    }

    fn at(&self, name: &str) -> String {
        shown(&self.dir.path().join(name))
    }

    fn spec(&self) -> PathBuf {
        self.dir.path().join("people.task.toml")
    }

    fn words<'a>(&'a self, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let all = ["train", &self.table, "-o", out, "--force", "--seed", "1"];
        [&all[..], more].concat()
    }

    fn train(&self, out: &str, more: &[&str]) -> String {
        done(&self.words(out, more))
    }

    fn refused(&self, more: &[&str]) -> String {
        failed(&self.words(&self.at("no"), more))
    }

    /// Share of the rich that are found, and the mean of that and of the share of the others.
    fn recall(&self, model: &str) -> [f64; 2] {
        let file = self.dir.path().join("all.predictions.csv");
        done(&[
            "predict",
            model,
            &self.table,
            "-o",
            &shown(&file),
            "--force",
        ]);
        let all = std::fs::read_to_string(&file).unwrap();
        // Column two is what is said.
        let said = all
            .lines()
            .skip(1)
            .map(|l| l.split(',').nth(1) == Some("yes"));
        let said: Vec<bool> = said.collect();
        assert_eq!(said.len(), 1000);
        let found = |rich: bool| {
            let of = said
                .iter()
                .enumerate()
                .filter(|(i, _)| (i % 10 == 3) == rich);
            let right: Vec<bool> = of.map(|(_, said)| *said == rich).collect();
            right.iter().filter(|right| **right).count() as f64 / right.len() as f64
        };
        [found(true), (found(true) + found(false)) / 2.0]
    }
}

const ONE: &[&str] = &["--targets", "rich", "--drop", "person,times,hours"];

#[test]
fn a_rare_class_is_found_where_classes_count_alike() {
    let run = Run::new();
    for model in ["shared_bottom", "gbdt"] {
        let _ = std::fs::remove_file(run.spec());
        let mut how = vec!["--model", model];
        if model == "shared_bottom" {
            how.extend(["--epochs", "30"]);
        }
        let out = run.at(model);
        run.train(&out, &[&how[..], ONE].concat());
        let plain = run.recall(&out);
        let with = |weight: &str| {
            run.train(&out, &[&how[..], &["--class-weight", weight]].concat());
            run.recall(&out)
        };
        let balanced = with("balanced");
        assert!(
            balanced[0] > plain[0] + 0.2,
            "{model}: {plain:?} {balanced:?}"
        );
        assert!(
            balanced[1] > plain[1] + 0.1,
            "{model}: {plain:?} {balanced:?}"
        );
        // 900 and 100 rows: what balanced says, said by hand up to a factor, finds about as many.
        let by_hand = with("yes=5,no=0.5555555");
        assert!(
            (by_hand[1] - balanced[1]).abs() < 0.1,
            "{model}: {balanced:?} {by_hand:?}"
        );
        let of_target = with("rich=balanced");
        assert_eq!(of_target, balanced, "{model}");
    }
}

#[test]
fn class_weights_that_cannot_be_are_refused() {
    let run = Run::new();
    let columns = ["--targets", "rich,job,hours", "--drop", "person,times"];
    let no = |more: &[&str]| run.refused(&[&columns[..], more].concat());
    for (said, want) in [
        (
            "yes=2",
            "several targets have classes: people/rich, people/job",
        ),
        ("hours=balanced", "regression"),
        ("rihc=balanced", "did you mean `rich`"),
        ("much", "neither CLASS=NUMBER nor TARGET=balanced"),
        ("yes=-1", "above 0"),
        ("yes=1,yes=2", "twice"),
        ("yes=1,rich=balanced", "no number"),
    ] {
        let told = no(&["--class-weight", said]);
        assert!(told.contains(want), "{said}: {told}");
    }
    let told = no(&["--set", "train.class_weight={ rich = { yse = 2.0 } }"]);
    assert!(
        told.contains("no class `yse`") && told.contains("did you mean `yes`"),
        "{told}"
    );
    let told = no(&["--class-weight", "balanced", "--chain", "ordered"]);
    assert!(told.contains("`train.chain`"), "{told}");
    std::fs::remove_file(run.spec()).unwrap();
    let told = run.refused(&[
        "--targets",
        "hours",
        "--drop",
        "person",
        "--class-weight",
        "balanced",
    ]);
    assert!(told.contains("no target is one class of several"), "{told}");
}

#[test]
fn a_row_of_weight_nothing_is_not_there() {
    for how in [
        &["--model", "gbdt", "--set", "train.new.rounds=20"][..],
        &["--model", "shared_bottom", "--epochs", "3"],
    ] {
        let run = Run::new();
        let columns = ["--targets", "rich,hours", "--drop", "person"];
        let told = run.train(
            &run.at("a"),
            &[how, &columns, &["--weight", "times"]].concat(),
        );
        assert!(told.contains("times   weight       named"), "{told}");
        let spec = std::fs::read_to_string(run.spec()).unwrap();
        assert!(spec.contains("weight = \"times\""), "{spec}");
        // Rows that count nothing may say anything, where nothing looks at validation rows.
        let fixed = ["--set", "train.keep=last", "--set", "train.patience=0"];
        let fixed: &[&str] = match how[1] {
            "gbdt" => &["--set", "train.new.patience=0"],
            _ => &fixed,
        };
        let model = |out: &str| {
            let out = run.at(out);
            run.train(&out, &[how, fixed].concat());
            std::fs::read(Path::new(&out).join("model.safetensors")).unwrap()
        };
        let before = model("b");
        people(run.dir.path(), |i, row| {
            if i % 3 == 0 {
                row[5] = "777".into();
                row[1] = "55.5".into();
                row[2] = "spy".into();
            }
        });
        assert!(
            model("c") == before,
            "{how:?}: rows of weight 0 were learned from"
        );
        people(run.dir.path(), |i, row| {
            if i % 3 == 1 {
                row[5] = "1".into();
            }
        });
        assert!(model("d") != before, "{how:?}");
        people(run.dir.path(), |_, _| {});
        assert!(model("e") == before);
    }
}

#[test]
fn weights_of_rows_that_cannot_be_are_refused() {
    let run = Run::new();
    let columns = ["--targets", "rich", "--drop", "hours"];
    let no = |more: &[&str]| run.refused(&[&columns[..], more].concat());
    assert!(no(&["--weight", "tims"]).contains("did you mean `times`"));
    assert!(no(&["--weight", "rich"]).contains("and as something else"));
    let out = run.at("model");
    run.train(
        &out,
        &[&columns[..], &["--weight", "times", "--model", "gbdt"]].concat(),
    );
    // The spec beside the table says which column it is.
    assert!(
        run.refused(&["--weight", "x"])
            .contains("with the row weights `times`")
    );
    for (text, want) in [
        ("-2", "holds `-2` in row `p"),
        ("much", "holds `much` in row `p"),
        ("", "holds nothing in row `p"),
        ("inf", "holds `inf` in row `p"),
        ("nan", "holds `nan` in row `p"),
        ("1e13", "holds `1e13` in row `p"),
    ] {
        people(run.dir.path(), |i, row| {
            if i % 50 == 7 {
                row[3] = text.into();
            }
        });
        let told = run.refused(&["--model", "gbdt"]);
        assert!(
            told.contains("people.csv: column `times` (row weights)"),
            "{told}"
        );
        assert!(told.contains(want), "{told}");
    }
    people(run.dir.path(), |_, row| row[3] = "0".into());
    let told = run.refused(&["--model", "gbdt"]);
    assert!(
        told.contains("training rows weigh 0 in column `times`"),
        "{told}"
    );
    // Of the only class that counts there is nothing to learn.
    people(run.dir.path(), |_, row| {
        if row[4] == "yes" {
            row[3] = "0".into();
        }
    });
    assert!(
        run.refused(&["--model", "gbdt"])
            .contains("have the class `no`")
    );
    // Scores count rows alike, and need no weights.
    let task = shown(&run.spec());
    people(run.dir.path(), |_, row| row[3] = "none".into());
    done(&["eval", &out, "-t", &task, "-o", &run.at("r.json")]);
    people(run.dir.path(), |_, _| {});
    let told = run.refused(&[
        "--model",
        "shared_bottom",
        "--set",
        "train.optimiser=sophia_g",
    ]);
    assert!(told.contains("counts rows alike"), "{told}");
}

#[test]
fn a_target_counts_what_its_spec_says() {
    let run = Run::new();
    let columns = ["--targets", "rich,hours", "--drop", "person,times"];
    let how = [
        "--steps",
        "30",
        "--set",
        "train.validation=",
        "--set",
        "train.patience=0",
    ];
    let model = |out: &str, more: &[&str]| {
        let out = run.at(out);
        run.train(&out, &[&how[..], more].concat());
        std::fs::read(Path::new(&out).join("model.safetensors")).unwrap()
    };
    let plain = model("a", &columns);
    let spec = std::fs::read_to_string(run.spec()).unwrap();
    let with = |weights: [&str; 2]| {
        let column = |name: &str| format!("column = \"{name}\"\n");
        let mut text = spec.clone();
        for (name, weight) in ["rich", "hours"].iter().zip(weights) {
            assert!(text.contains(&column(name)), "{text}");
            text = text.replace(
                &column(name),
                &format!("{}weight = {weight}\n", column(name)),
            );
        }
        std::fs::write(run.spec(), text).unwrap();
    };
    with(["7.0", "7.0"]);
    assert!(model("b", &[]) == plain);
    with(["7.0", "1.0"]);
    assert!(model("c", &[]) != plain);
    let told = run.refused(&["--balancer", "nash"]);
    assert!(told.contains("`targets[].weight`"), "{told}");
    for model in ["gbdt_shared", "gbdt"] {
        run.train(
            &run.at(model),
            &["--model", model, "--set", "train.new.rounds=5"],
        );
    }
}
