//! `polyloom tasks` as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

use super::text;

fn tasks(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyloom"));
    command
        .current_dir(folder)
        .arg("tasks")
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .env_remove("POLYLOOM_DATA")
        .env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

/// A table of 60 people with two targets.
fn people() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let row = |i: usize| {
        let job = ["cook", "clerk", "judge"][i % 3];
        let city = ["Ulm", "Bonn"][i % 2];
        let high = ["no", "yes"][usize::from(i.is_multiple_of(4))];
        format!("p{i},{},{job},{city},{high},{}.5\n", 20 + i % 40, i % 9)
    };
    let rows: String = (0..60).map(row).collect();
    let text = format!("person_id,age,job,city,income,hours\n{rows}");
    std::fs::write(dir.path().join("people.csv"), text).unwrap();
    dir
}

#[test]
fn shipped_tasks_are_listed_and_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let out = tasks(dir.path(), &["list", "--tag", "sentiment"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "task       type            metric    tags\n\
         text/mpqa  classification  accuracy  sentiment, news, sentiment\n\
         text/sst2  classification  accuracy  sentiment, films, sentiment\n\
         text/sst5  classification  accuracy  sentiment, films, sentiment\n"
    );
    let out = tasks(dir.path(), &["list", "--type", "retreival"]);
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "error: --type: unknown type `retreival`\nhint: did you mean `retrieval`?\n"
    );
    let out = tasks(dir.path(), &["show", "text/sst3"]);
    assert!(
        text(&out.stderr)
            .starts_with("error: unknown task `text/sst3`\nhint: did you mean `text/sst2`")
    );
}

#[test]
fn a_table_becomes_a_task_that_passes_its_check() {
    let dir = people();
    let out = tasks(
        dir.path(),
        &["new", "people.csv", "--targets", "income,hours"],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "people.task.toml\n");
    assert_eq!(
        text(&out.stderr),
        "column     role         because                 missing\n\
         person_id  id           every row differs\n\
         age        numeric      all values are numbers\n\
         job        categorical  3 different values\n\
         city       categorical  2 different values\n\
         income     target       named\n\
         hours      target       named\n\
         target income: classification (roc_auc)\n\
         target hours: regression (rmse)\n"
    );
    let again = tasks(dir.path(), &["new", "people.csv", "--targets", "income"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("people.task.toml: exists already\nhint: --force"));
    let out = tasks(dir.path(), &["check", "people.task.toml"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "ok    people   train 48, validation 6, test 6 rows\n"
    );
    let out = tasks(dir.path(), &["new", "people.csv", "--targets", "incme"]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn a_failed_check_ends_with_1_and_a_broken_spec_with_2() {
    let dir = people();
    let spec = "schema = \"polyloom.task/1\"\nid = \"p\"\ntype = \"regression\"\n[source]\nkind = \"csv\"\n\
                [splits]\ntest = { file = \"people.csv\" }\n[fields]\ninput = \"jobs\"\ntarget = \"hours\"\n";
    std::fs::write(dir.path().join("p.toml"), spec).unwrap();
    let out = tasks(dir.path(), &["check", "p.toml"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "fail  p   test 60 rows\n  fail  fields.input: the data has no column `jobs`; did you mean `job`? (no-column)\n"
    );
    std::fs::write(
        dir.path().join("p.toml"),
        spec.replace("[fields]", "[feilds]"),
    )
    .unwrap();
    let out = tasks(dir.path(), &["check", "p.toml"]);
    assert_eq!(out.status.code(), Some(2));
    let told = text(&out.stderr);
    assert!(told.starts_with("error: p.toml:8:2: unknown key `feilds`\n   8 | [feilds]\n     |  ^^^^^^ expected one of: schema"), "{told}");
    assert!(told.ends_with("hint: did you mean `fields`?\n"), "{told}");
}

#[test]
fn tables_are_split_and_tasks_are_sampled() {
    let dir = people();
    let out = tasks(
        dir.path(),
        &[
            "split",
            "people.csv",
            "--group",
            "city",
            "--parts",
            "a=0.5,b=0.5",
            "-o",
            "out",
        ],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let read = |n: &str| std::fs::read_to_string(dir.path().join("out").join(n)).unwrap();
    assert_eq!(
        (read("a.csv").lines().count(), read("b.csv").lines().count()),
        (31, 31)
    );
    assert!(read("a.csv").contains("Ulm") != read("a.csv").contains("Bonn"));
    let out = tasks(
        dir.path(),
        &["split", "people.csv", "--parts", "a=0.5,b=0.6", "-o", "new"],
    );
    assert_eq!(out.status.code(), Some(2));
    tasks(dir.path(), &["new", "people.csv", "--targets", "income"]);
    let out = tasks(
        dir.path(),
        &["sample", "people.task.toml", "--draws", "5", "--json"],
    );
    let first = text(&out.stdout);
    let event: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&event["rows"], &event["share"], &event["drawn"]),
        (&48.into(), &1.0.into(), &5.into())
    );
}
