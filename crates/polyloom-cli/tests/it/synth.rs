//! `polyloom tasks synth` as a user meets it.

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
        .env_remove("POLYLOOM_SEED")
        .env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

#[test]
fn a_printed_spec_is_a_task_without_files() {
    let dir = tempfile::tempdir().unwrap();
    for generator in ["shapes", "log", "multitab"] {
        // Enough impressions that somebody buys something in every split.
        let count = if generator == "log" { "12000" } else { "240" };
        let out = tasks(dir.path(), &["synth", generator, "--count", count]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let name = format!("{generator}.task.toml");
        let printed = text(&out.stdout).replace("id = \"synth/", "id = \"my/");
        assert!(printed.contains("(synthetic)") && printed.contains("kind = \"synth\""));
        std::fs::write(dir.path().join(&name), printed).unwrap();
        let out = tasks(dir.path(), &["check", &name]);
        assert!(out.status.success(), "{}", text(&out.stdout));
        let out = text(&out.stdout);
        assert!(out.contains(&format!("my/{generator}   train ")), "{out}");
    }
    let out = tasks(dir.path(), &["show", "shapes.task.toml"]);
    let out = text(&out.stdout);
    assert!(
        out.contains("data        generated: shapes, seed 7, 240 rows\n"),
        "{out}"
    );
    assert!(
        out.contains("train = 0..200, validation = 200..220, test = 220..240"),
        "{out}"
    );
}

#[test]
fn a_folder_is_a_task_and_says_that_it_is_synthetic() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "synth", "log", "--count", "800", "--bias", "0", "-o", "made",
    ];
    let out = tasks(dir.path(), &args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "made\n");
    assert_eq!(
        text(&out.stderr),
        "made/train.parquet   640 rows\nmade/validation.parquet   80 rows\nmade/test.parquet   80 rows\n\
         made/items.parquet   3000 rows\nmade/truth.parquet   800 rows\n\
         note: truth.parquet holds the true probabilities: for judges, never for learners\n"
    );
    let json = std::fs::read_to_string(dir.path().join("made/task.json")).unwrap();
    assert!(json.contains("\"synthetic\": true") && json.contains("\"bias\": 0.0"));
    let again = tasks(dir.path(), &args);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("made: exists already"));
    let out = tasks(dir.path(), &["check", "made"]);
    assert!(out.status.success(), "{}", text(&out.stdout));
}

#[test]
fn wrong_options_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (
            &["synth", "shapes", "--missing", "2"][..],
            "--missing: must be between 0 and 1",
        ),
        (
            &["synth", "log", "--items", "30"][..],
            "--items: must be a multiple of 20",
        ),
        (
            &["synth", "multitab", "--tasks", "40"][..],
            "--features: must be at least tasks",
        ),
        (
            &["synth", "shapes", "--seed", "70000"][..],
            "--seed: must be below 65536",
        ),
    ] {
        let out = tasks(dir.path(), args);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains(part), "{}", text(&out.stderr));
    }
    let spec = "schema = \"polyloom.task/1\"\nid = \"x\"\ntype = \"classification\"\n\
                source = { kind = \"synth\", generator = \"shapes\", options = { nois = 1 } }\n\
                splits = { train = {}, dev = {} }\nfields = { input = \"image\", target = \"label\" }\n";
    std::fs::write(dir.path().join("x.task.toml"), spec).unwrap();
    let out = tasks(dir.path(), &["check", "x.task.toml"]);
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stderr);
    assert!(
        said.contains("no such option") && said.contains("did you mean `noise`?"),
        "{said}"
    );
    assert!(said.contains("a generator has no split `dev`"), "{said}");
}

#[test]
fn a_corrupted_task_keeps_rows_and_id_and_takes_the_place_of_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let out = tasks(
        dir.path(),
        &["synth", "shapes", "--count", "60", "-o", "made"],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let corrupt = |to: &str, more: &[&str]| {
        let mut args = vec!["corrupt", "made", "--kind", "noise", "-o", to];
        args.extend(more);
        tasks(dir.path(), &args)
    };
    let out = corrupt("noisy", &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "noisy\n");
    let told = text(&out.stderr);
    assert!(told.contains("test   5 rows   noise"), "{told}");
    assert!(told.contains("train   50 rows   as it was"), "{told}");
    // The id of a folder with a task.json begins with the name of the folder above, which is made up here.
    let id = told.split_whitespace().find(|w| w.ends_with("/shapes"));
    let id = id.unwrap().to_owned();
    let place = |to: &str| dir.path().join(to).join(&id);
    let spec = std::fs::read_to_string(place("noisy").join("task.toml")).unwrap();
    assert!(spec.contains(&format!("id = \"{id}\"")), "{spec}");
    assert!(
        spec.contains("Images of test made worse: noise, severity 3, seed 0."),
        "{spec}"
    );
    let check = tasks(dir.path(), &["check", &format!("noisy/{id}/task.toml")]);
    assert!(check.status.success(), "{}", text(&check.stdout));
    let of = |to: &str| std::fs::read(place(to).join("test.parquet")).unwrap();
    // The same seed gives the same bytes, another one others; what is there stays.
    assert!(corrupt("again", &[]).status.success());
    assert_eq!(of("noisy"), of("again"));
    assert!(corrupt("other", &["--seed", "1"]).status.success());
    assert_ne!(of("noisy"), of("other"));
    let out = corrupt("noisy", &[]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert!(
        corrupt("noisy", &["--force", "--severity", "1"])
            .status
            .success()
    );
}

#[test]
fn what_cannot_be_corrupted_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("rows.csv"),
        "text,label\nhello there you,a\nand so it goes,b\n",
    )
    .unwrap();
    let new = tasks(
        dir.path(),
        &["new", "rows.csv", "--targets", "label", "--id", "rows"],
    );
    assert!(new.status.success(), "{}", text(&new.stderr));
    let cases: [(&[&str], &str); 3] = [
        (
            &["corrupt", "rows.task.toml", "--kind", "blur", "-o", "out"],
            "has no images",
        ),
        (
            &["corrupt", "vision/digit", "--kind", "blur", "-o", "out"],
            "did you mean `vision/digits`",
        ),
        (
            &[
                "corrupt",
                "synth/shapes",
                "--kind",
                "blur",
                "--split",
                "tset",
                "-o",
                "out",
            ],
            "has no split `tset`",
        ),
    ];
    for (args, why) in cases {
        let out = tasks(dir.path(), args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(text(&out.stderr).contains(why), "{}", text(&out.stderr));
        assert!(!dir.path().join("out").exists());
    }
}
