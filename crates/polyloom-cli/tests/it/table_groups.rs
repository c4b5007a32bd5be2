//! Groups of rows with goals of their own: `polyloom train TABLE --goals groups`.

use std::path::{Path, PathBuf};

use super::{column, done, failed, shown};

const SCHOOLS: [&str; 4] = ["north", "south", "east", "west"];

/// 480 pupils of four schools; what hours of work do for a score is another thing in each.
pub(super) fn pupils(folder: &Path) -> PathBuf {
    let mut out = String::from("pupil,school,hours,passed,score\n");
    for i in 0..480usize {
        let school = (i * 5 + i / 7) % 4;
        let hours = ((i * 37) % 41) as f64 / 4.0 - 5.0;
        let noise = ((i * 7919) % 13) as f64 / 13.0 - 0.5;
        let slope = [3.0, -3.0, 1.0, 0.0][school];
        let score = 50.0 + slope * hours + noise;
        let passed = if score > 50.0 { "yes" } else { "no" };
        out += &format!("p{i},{},{hours},{passed},{score:.3}\n", SCHOOLS[school]);
    }
    let file = folder.join("pupils.csv");
    std::fs::write(&file, out).unwrap();
    file
}

/// Scores of the test rows by task.
fn scores(model: &str, task: &str, out: &Path) -> serde_json::Value {
    let file = shown(out);
    done(&["eval", model, "-t", task, "-o", &file, "--force"]);
    serde_json::from_slice::<serde_json::Value>(&std::fs::read(out).unwrap()).unwrap()["tasks"]
        .clone()
}

#[test]
fn every_group_learns_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&pupils(dir.path()));
    let task = shown(&dir.path().join("pupils.task.toml"));
    let no_group = failed(&[
        "train",
        &table,
        "--targets",
        "score",
        "--goals",
        "groups",
        "-o",
        &shown(&dir.path().join("x")),
    ]);
    assert!(no_group.contains("--group COLUMN"), "{no_group}");
    std::fs::remove_file(&task).unwrap();
    let mut columns = vec![
        "--targets",
        "passed,score",
        "--group",
        "school",
        "--drop",
        "pupil",
    ];
    for model in [
        "mmoe",
        "shared_bottom",
        "single_task",
        "ple",
        "gbdt",
        "r_mtgb",
    ] {
        let out = shown(&dir.path().join(model));
        let mut args = vec![
            "train", &table, "--goals", "groups", "--model", model, "-o", &out,
        ];
        // One kind of target is what R-MTGB takes.
        if model == "r_mtgb" {
            std::fs::remove_file(&task).unwrap();
            columns[1] = "score";
            columns[5] = "pupil,passed";
        }
        args.extend(&columns);
        if !model.contains("gb") {
            args.extend([
                "--epochs",
                "40",
                "--set",
                "train.patience=0",
                "--set",
                "train.batch=32",
            ]);
        }
        done(&args);
        let config = std::fs::read_to_string(Path::new(&out).join("config.json")).unwrap();
        assert!(config.contains("pupils/north/score"), "{config}");
        let found = scores(&out, &task, &dir.path().join(format!("{model}.json")));
        for school in SCHOOLS {
            let rmse = found[format!("pupils/{school}/score")]["value"]
                .as_f64()
                .unwrap();
            // The numbers spread over 9 in the first two; one line for all is no better than that.
            assert!(rmse < 3.0, "{model}, {school}: {found}");
        }
        // A pupil of each school, one of an unknown one, and one without any.
        let new = dir.path().join("new.csv");
        let mut rows = String::from("id,school,hours\n");
        for school in SCHOOLS.iter().chain(&["atlantis", ""]) {
            rows += &format!("{school}-,{school},4\n");
        }
        std::fs::write(&new, rows).unwrap();
        let file = dir.path().join("new.predictions.csv");
        done(&[
            "predict",
            &out,
            &shown(&new),
            "-o",
            &shown(&file),
            "--force",
        ]);
        let name = match model {
            "r_mtgb" => "prediction",
            _ => "prediction_score",
        };
        let said = column(&file, name);
        let mean = said[..4].iter().map(|s| s.1).sum::<f64>() / 4.0;
        assert!(said[0].1 > said[1].1 + 10.0, "{model}: {said:?}");
        for unknown in &said[4..] {
            assert!((unknown.1 - mean).abs() < 1e-3, "{model}: {said:?}");
        }
        std::fs::write(&new, "id,hours\na,4\n").unwrap();
        let lacking = failed(&[
            "predict",
            &out,
            &shown(&new),
            "-o",
            &shown(&file),
            "--force",
        ]);
        assert!(lacking.contains("a goal for each `school`"), "{lacking}");
    }
}

#[test]
fn twins_have_goals_for_groups_too() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&pupils(dir.path()));
    let out = dir.path().join("model");
    done(&[
        "train",
        &table,
        "--targets",
        "score",
        "--group",
        "school",
        "--drop",
        "pupil",
        "--goals",
        "groups",
        "--model",
        "mmoe",
        "--epochs",
        "5",
        "--twins",
        "-o",
        &shown(&out),
    ]);
    for twin in ["single_task", "gbdt"] {
        let config = dir
            .path()
            .join("model.twins")
            .join(twin)
            .join("config.json");
        let config = std::fs::read_to_string(config).unwrap();
        assert!(config.contains("pupils/west"), "{twin}: {config}");
    }
}

#[test]
fn what_groups_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&pupils(dir.path()));
    let out = shown(&dir.path().join("model"));
    let train = |more: &[&str]| {
        let mut args = vec![
            "train",
            &table,
            "--targets",
            "score",
            "--group",
            "school",
            "--drop",
            "pupil",
            "-o",
            &out,
        ];
        args.extend(more);
        failed(&args)
    };
    let said = train(&["--set", "train.new.goals=[\"a\"]"]);
    assert!(said.contains("follow from the tasks"), "{said}");
    let said = train(&["--goals", "groups", "--balancer", "nash"]);
    assert!(said.contains("there is one"), "{said}");
    // A row without a group belongs to no goal.
    let mut rows = std::fs::read_to_string(&table)
        .unwrap()
        .replace(",north,", ",,");
    rows.push('\n');
    std::fs::write(&table, rows).unwrap();
    let said = train(&["--goals", "groups"]);
    assert!(said.contains("has nothing in `school`"), "{said}");
}
