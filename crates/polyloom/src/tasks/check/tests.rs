use super::*;
use crate::tasks::catalogue::{Catalogue, Roots};
use crate::tasks::data::Limits;

const SPEC: &str = r#"
schema = "polyloom.task/1"
id = "toy"
type = "classification"
[source]
kind = "csv"
[splits]
train = { file = "train.csv" }
test = { file = "test.csv" }
[fields]
input = "text"
target = "label"
[labels]
names = ["no", "yes"]
[[metrics]]
name = "accuracy"
"#;

fn run(spec: &str, files: &[(&str, &str)]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("toy.task.toml");
    std::fs::write(&path, spec).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut catalogue = Catalogue::default();
    catalogue.add_path(&path).unwrap();
    let entry = catalogue.task("toy").unwrap();
    let folder = Roots::default().folder(entry).unwrap();
    let loader = Loader::new(&entry.spec, folder, Limits::default());
    check(&entry.spec, &loader).unwrap()
}

fn codes(report: &Report) -> Vec<(&str, &str)> {
    report.findings.iter().map(|f| (f.code, &*f.at)).collect()
}

#[test]
fn leaks_duplicates_conflicts_and_unknown_labels_are_counted() {
    let report = run(
        SPEC,
        &[
            ("train.csv", "text,label\na,no\nb,yes\na,yes\n ,no\nc,1\n"),
            ("test.csv", "text,label\na,no\nd,maybe\ne,\n"),
        ],
    );
    assert_eq!(
        codes(&report),
        [
            ("unknown-label", "splits.test"),
            ("empty-input", "splits.train"),
            ("conflict", "splits.train"),
            ("no-target", "splits.test"),
            ("leak", "splits.test"),
            ("unseen-label", "splits.test"),
            ("duplicate", "splits.train"),
        ]
    );
    assert_eq!(report.worst(), Some(Level::Failure));
    let train = &report.splits[0];
    assert_eq!(
        (train.rows, train.labels["yes"], train.labels["no"]),
        (5, 3, 2)
    );
    assert!(report.hash.is_some());
}

#[test]
fn missing_files_and_columns_are_failures() {
    let report = run(SPEC, &[("train.csv", "txt,label\na,no\nb,yes\n")]);
    assert_eq!(
        codes(&report),
        [("missing-file", "test.csv"), ("no-column", "fields.input")]
    );
    assert!(report.findings[1].text.ends_with("did you mean `txt`?"));
    assert_eq!(report.hash, None);
}

#[test]
fn a_clean_task_has_no_findings_and_slices_do_not_leak() {
    let rows: String = (0..40)
        .map(|i| format!("t{i},{}\n", ["no", "yes"][i % 2]))
        .collect();
    let text = format!("text,label\n{rows}");
    let spec = SPEC
        .replace(
            "train = { file = \"train.csv\" }",
            "train = { file = \"all.csv\", slice = \"[:75%]\", seed = 1 }",
        )
        .replace(
            "test = { file = \"test.csv\" }",
            "test = { file = \"all.csv\", slice = \"[75%:]\", seed = 1 }",
        );
    let report = run(&spec, &[("all.csv", &text)]);
    assert_eq!(codes(&report), []);
    let rows: Vec<u64> = report.splits.iter().map(|s| s.rows).collect();
    assert_eq!(rows, [30, 10]);
}

#[test]
fn ids_and_constants_among_features_are_named() {
    let spec = "schema = \"polyloom.task/1\"\nid = \"toy\"\n[source]\nkind = \"csv\"\n[splits]\ntrain = { file = \"a.csv\" }\n[table]\n[[targets]]\nname = \"y\"\ncolumn = \"y\"\ntype = \"regression\"\n";
    let rows: String = (0..30)
        .map(|i| format!("k{i},1,{},{}\n", i % 5, i * 2))
        .collect();
    let report = run(spec, &[("a.csv", &format!("key,one,x,y\n{rows}"))]);
    assert_eq!(
        codes(&report),
        [
            ("id-column", "table.features"),
            ("constant", "table.features")
        ]
    );
    assert_eq!(report.worst(), Some(Level::Warning));
}
