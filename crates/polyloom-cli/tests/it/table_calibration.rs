//! `polyloom calibrate`: what is fitted on validation rows of a table, and what predict, eval and inspect make of it.

use std::path::{Path, PathBuf};

use polyloom::tasks::data::write::{Kind, Writer};
use polyloom::tasks::data::{self, Column, Limits};
use serde_json::Value;

use super::{column, done, failed, polyloom, shown, table_groups, tables, text};

/// A folder with the table of people, its spec, and a model of it.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(model: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let table = shown(&tables::people(dir.path()));
        let out = shown(&dir.path().join("model"));
        let mut args = vec!["train", &table, "--targets", "rich,hours,job"];
        args.extend(["--model", model, "-o", &out]);
        args.extend(more);
        done(&args);
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        shown(&self.at(name))
    }

    fn calibrate(&self, more: &[&str]) -> String {
        let (model, task) = (self.path("model"), self.path("people.task.toml"));
        done(&[&["calibrate", &model, "-t", &task][..], more].concat())
    }

    fn refused(&self, more: &[&str]) -> String {
        let (model, task) = (self.path("model"), self.path("people.task.toml"));
        failed(&[&["calibrate", &model, "-t", &task][..], more].concat())
    }

    fn file(&self) -> Value {
        let text = std::fs::read(self.at("model/calibration.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Predictions of a file of rows, and what is said of them.
    fn predict(&self, rows: &str, out: &str, more: &[&str]) -> (PathBuf, String) {
        let (model, rows, file) = (self.path("model"), self.path(rows), self.path(out));
        let args = ["predict", &model, &rows, "-o", &file, "--force"];
        let said = done(&[&args[..], more].concat());
        (PathBuf::from(file), said)
    }

    /// Results of the test rows by metric, and what is said of them.
    fn eval(&self) -> (Value, String) {
        let (model, task) = (self.path("model"), self.path("people.task.toml"));
        let file = self.path("results.json");
        let args = ["eval", &model, "-t", &task, "-o", &file];
        let said = done(&args);
        let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        (all["tasks"].clone(), said)
    }
}

/// Few steps, so that probabilities are not what they say.
const NETWORK: [&str; 6] = [
    "--epochs",
    "20",
    "--set",
    "train.batch=32",
    "--set",
    "train.patience=0",
];

/// The same rows as another file.
fn as_parquet(csv: &Path, out: &Path) {
    let kind = data::kind_of(csv).unwrap();
    let mut writer = None;
    data::read(csv, kind, &Limits::default(), &mut |table| {
        let of = |(name, column): (&str, &Column)| {
            let kind = match column {
                Column::Number(_) => Kind::Number,
                _ => Kind::Text,
            };
            (name.to_owned(), kind)
        };
        if writer.is_none() {
            writer = Some(Writer::create(out, table.columns().map(of).collect())?);
        }
        writer.as_mut().map_or(Ok(()), |w| w.write(&table))
    })
    .unwrap();
    writer.unwrap().finish().unwrap();
}

#[test]
fn temperature_is_fitted_on_validation_rows_and_used_by_all() {
    for (model, more) in [("mmoe", &NETWORK[..]), ("gbdt", &[])] {
        let case = Case::new(model, more);
        let (plain, said) = case.predict("people.csv", "plain.csv", &[]);
        assert!(!said.contains("calibrat"), "{said}");
        let roc = |t: &Value| t["people/rich"]["value"].as_f64();
        let (before, said) = case.eval();
        assert!(!said.contains("calibrat"), "{said}");
        let dry = case.calibrate(&["--dry-run"]);
        assert!(dry.contains("would write") && !case.at("model/calibration.json").exists());
        let said = case.calibrate(&["-j", "1"]);
        assert!(
            said.contains("people/rich: ") && said.contains("rows of validation: log loss"),
            "{said}"
        );
        let file = case.file();
        let head = &file["heads"]["people/rich"];
        let temperature = head["map"]["temperature"].as_f64().unwrap();
        assert!(temperature > 0.0, "{head}");
        let loss = |when: &str| head[when]["log_loss"].as_f64().unwrap();
        assert!(loss("after") <= loss("before"), "{head}");
        // Three classes have a temperature too, a number has errors alone.
        assert!(
            file["heads"]["people/job"]["map"]["temperature"].is_number(),
            "{file}"
        );
        let hours = &file["heads"]["people/hours"];
        assert!(
            hours["map"].is_null() && hours["errors"]["rows"].as_u64() > Some(40),
            "{hours}"
        );
        // The same bytes on two threads, and not over what is there.
        let first = std::fs::read(case.at("model/calibration.json")).unwrap();
        assert!(case.refused(&[]).contains("--force fits all of it anew"));
        case.calibrate(&["-j", "2", "--force"]);
        assert!(first == std::fs::read(case.at("model/calibration.json")).unwrap());
        // What follows says so; order and numbers stay, probabilities move.
        let (after, said) = case.eval();
        assert!(
            said.contains("people/rich: probabilities calibrated by temperature"),
            "{said}"
        );
        assert_eq!(roc(&before), roc(&after));
        let (calibrated, said) = case.predict("people.csv", "calibrated.csv", &[]);
        assert!(
            said.contains("people/rich: probabilities calibrated by temperature"),
            "{said}"
        );
        let same = |name: &str| column(&plain, name) == column(&calibrated, name);
        assert!(
            same("prediction_hours") && !same("score_rich_yes"),
            "{model}"
        );
        let seen = polyloom(&["inspect", &case.path("model")]);
        assert!(
            text(&seen.stdout).contains("people/rich: probabilities calibrated"),
            "{}",
            text(&seen.stdout)
        );
    }
}

#[test]
fn isotonic_curves_and_what_cannot_be_calibrated() {
    let case = Case::new("mmoe", &NETWORK);
    let said = case.refused(&["--method", "isotonic"]);
    assert!(
        said.contains("`people/job` has 3 classes; an isotonic curve is of two"),
        "{said}"
    );
    let said = case.calibrate(&["--method", "isotonic", "--targets", "rich"]);
    assert!(said.contains("few for an isotonic curve"), "{said}");
    let file = case.file();
    let of = &file["heads"]["people/rich"];
    assert!(
        of["map"]["curve"]["scores"].as_array().unwrap().len() > 1,
        "{of}"
    );
    assert!(
        of["after"]["log_loss"].as_f64() <= of["before"]["log_loss"].as_f64(),
        "{of}"
    );
    assert_eq!(file["heads"].as_object().unwrap().len(), 1);
    for (args, want) in [
        (&["--targets", "rihc"][..], "has no target `rihc`"),
        (
            &["--threshold", "job=f1"],
            "`people/job` has 3 classes; the cut `f1` is one between two",
        ),
        (
            &["--threshold", "hours=f1"],
            "`people/hours` answers with a number",
        ),
        (&["--threshold", "f9"], "`f9` is no rule"),
        (&["--method", "platt"], "platt"),
    ] {
        let said = case.refused(&[&["--force"][..], args].concat());
        assert!(said.contains(want), "{said}");
    }
    // A damaged file is named by whoever reads it.
    let damaged = case.path("model/calibration.json");
    let whole = std::fs::read_to_string(&damaged).unwrap();
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    for args in [
        &[
            "predict",
            &case.path("model"),
            &case.path("people.csv"),
            "-o",
            "x.csv",
        ][..],
        &["inspect", &case.path("model")],
        &[
            "eval",
            &case.path("model"),
            "-t",
            &case.path("people.task.toml"),
        ],
    ] {
        let said = failed(args);
        assert!(
            said.contains("calibration.json") && said.contains("remove the file"),
            "{said}"
        );
    }
    // A spec with few validation rows, or with rows of one class.
    std::fs::remove_file(&damaged).unwrap();
    let table = std::fs::read_to_string(case.at("people.csv")).unwrap();
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    let yes: Vec<&str> = lines.clone().filter(|l| l.contains(",yes,")).collect();
    let few: Vec<&str> = lines.take(12).collect();
    let spec = std::fs::read_to_string(case.at("people.task.toml")).unwrap();
    let of_table = "[splits.validation]\nfile = \"people.csv\"\nslice = \"[80%:90%]\"\nseed = 0\n";
    assert!(spec.contains(of_table), "{spec}");
    let held = spec.replace(of_table, "[splits.validation]\nfile = \"held.csv\"\n");
    std::fs::write(case.at("held.task.toml"), held).unwrap();
    for (rows, want) in [
        (few, "has 12 labelled rows in split `validation`"),
        (yes, "has one class alone"),
    ] {
        std::fs::write(
            case.at("held.csv"),
            format!("{head}\n{}\n", rows.join("\n")),
        )
        .unwrap();
        let said = failed(&[
            "calibrate",
            &case.path("model"),
            "-t",
            &case.path("held.task.toml"),
            "--targets",
            "rich",
        ]);
        assert!(said.contains(want), "{said}");
    }
}

#[test]
fn cuts_answer_in_predict_and_eval() {
    let case = Case::new("gbdt", &[]);
    case.calibrate(&["--method", "none"]);
    let (half, _) = case.eval();
    let (plain, _) = case.predict("people.csv", "plain.csv", &[]);
    let said = case.calibrate(&["--method", "none", "--threshold", "rich=0.9", "--force"]);
    assert!(
        said.contains("people/rich: `yes` from 0.9000 on (0.9)"),
        "{said}"
    );
    let (cut, said) = case.predict("people.csv", "cut.csv", &[]);
    assert!(
        said.contains("`yes` answered from 0.9000 on (0.9), fitted on"),
        "{said}"
    );
    let scores = column(&cut, "score_rich_yes");
    assert_eq!(scores, column(&plain, "score_rich_yes"));
    let all = std::fs::read_to_string(&cut).unwrap();
    for (line, (_, p)) in all.lines().skip(1).zip(&scores) {
        let want = if *p >= 0.9 { "yes" } else { "no" };
        assert_eq!(line.split(',').nth(1), Some(want), "{line}");
    }
    let (after, said) = case.eval();
    assert!(said.contains("`yes` answered from 0.9000 on"), "{said}");
    let value = |t: &Value, name: &str| t["people/rich"]["metrics"][name]["value"].as_f64();
    let both = |name: &str| (value(&after, name).unwrap(), value(&half, name).unwrap());
    let (now, before) = both("accuracy");
    assert!(now < before, "{now} {before}");
    assert_eq!(after["people/rich"]["value"], half["people/rich"]["value"]);
    // Three classes have no cut, which is said.
    let said = case.calibrate(&["--threshold", "youden", "--force"]);
    assert!(said.contains("people/job: 3 classes, so no cut"), "{said}");
    let of = case.file()["heads"]["people/rich"]["threshold"].clone();
    assert!(of["value"].as_f64() >= of["at_half"].as_f64(), "{of}");
}

#[test]
fn intervals_stand_beside_answers() {
    let case = Case::new("shared_bottom", &NETWORK);
    let said = failed(&[
        "predict",
        &case.path("model"),
        &case.path("people.csv"),
        "--interval",
        "90%",
    ]);
    assert!(
        said.contains("has no intervals yet") && said.contains("polyloom calibrate"),
        "{said}"
    );
    assert!(!case.at("people.predictions.csv").exists());
    let said = case.calibrate(&[]);
    assert!(
        said.contains("people/hours") && said.contains("intervals of 90 % are ±"),
        "{said}"
    );
    let (file, _) = case.predict("people.csv", "out.csv", &["--interval", "90%", "-j", "1"]);
    let first = std::fs::read_to_string(&file).unwrap();
    let head = first.lines().next().unwrap();
    assert!(
        head.ends_with("rich.set,hours.low,hours.high,job.set"),
        "{head}"
    );
    let (lines, _) = case.predict("people.csv", "lines.jsonl", &["--interval", "90%"]);
    let lines = std::fs::read_to_string(lines).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let number = |name: &str| {
        lines
            .iter()
            .map(|l| l[name].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let (low, high) = (number("hours.low"), number("hours.high"));
    assert!(lines.iter().all(|l| l["rich.set"].is_array()));
    let end = |l: &Value| format!(",{},{},", l["hours.low"], l["hours.high"]);
    assert!(
        lines
            .iter()
            .zip(first.lines().skip(1))
            .all(|(l, row)| row.contains(&end(l)))
    );
    let sorted = case.file()["heads"]["people/hours"]["errors"]["sorted"].clone();
    let sorted: Vec<f64> = serde_json::from_value(sorted).unwrap();
    let rank = ((sorted.len() as f64 + 1.0) * 0.9 - 1e-9).ceil() as usize;
    let said = column(&file, "prediction_hours");
    for ((low, high), (_, x)) in low.iter().zip(&high).zip(said) {
        assert!((high - low - 2.0 * sorted[rank - 1]).abs() < 1e-9 && *low <= x && x <= *high);
    }
    // Any number of threads, and any format of rows.
    let (again, _) = case.predict("people.csv", "again.csv", &["--interval", "0.9", "-j", "2"]);
    assert_eq!(first, std::fs::read_to_string(again).unwrap());
    as_parquet(&case.at("people.csv"), &case.at("people.parquet"));
    let (other, _) = case.predict("people.parquet", "other.csv", &["--interval", "90%"]);
    assert_eq!(first, std::fs::read_to_string(other).unwrap());
    // The test rows are held about as often as that, and eval says how often.
    let (_, said) = case.eval();
    assert!(
        said.contains("people/hours: intervals of 90 % (±"),
        "{said}"
    );
    assert!(
        said.contains("people/rich: sets of classes of 90 % hold"),
        "{said}"
    );
    let (model, rows) = (case.path("model"), case.path("people.csv"));
    let said = failed(&[
        "predict",
        &model,
        &rows,
        "--interval",
        "99.9%",
        "-o",
        &case.path("x.csv"),
    ]);
    assert!(
        said.contains("too few for intervals of 99.9 %") && said.contains("they allow at most 98"),
        "{said}"
    );
    let said = failed(&["predict", &model, &rows, "--interval", "100%"]);
    assert!(said.contains("no level between 0 and 1"), "{said}");
}

#[test]
fn groups_share_what_is_fitted_for_their_target() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&table_groups::pupils(dir.path()));
    let at = |name: &str| shown(&dir.path().join(name));
    let (model, task) = (at("model"), at("pupils.task.toml"));
    let mut args = vec![
        "train",
        &table,
        "--targets",
        "passed,score",
        "--group",
        "school",
    ];
    args.extend([
        "--goals",
        "groups",
        "--model",
        "shared_bottom",
        "-o",
        &model,
        "--epochs",
        "10",
    ]);
    done(&args);
    let said = done(&[
        "calibrate",
        &model,
        "-t",
        &task,
        "--threshold",
        "balanced_accuracy",
    ]);
    assert!(said.contains("pupils/passed: `yes` from"), "{said}");
    // A group that training did not have is answered by the mean of calibrated answers.
    let new = at("new.csv");
    std::fs::write(&new, "id,school,hours\na,north,1\nb,elsewhere,1\n").unwrap();
    let file = at("new.predictions.csv");
    done(&["predict", &model, &new, "-o", &file, "--interval", "80%"]);
    let read = std::fs::read_to_string(&file).unwrap();
    assert!(
        read.lines().count() == 3 && read.contains("score.low"),
        "{read}"
    );
}

#[test]
fn what_is_no_model_of_tables_is_refused() {
    let said = failed(&["calibrate", &shown(&super::letters().join("base"))]);
    assert!(!said.contains("panic"), "{said}");
}
