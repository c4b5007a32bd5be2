//! Tables that are odd: what a user sees of numbers that are missing, thousands of words, hundreds of targets, one row, losses
//! that are no numbers.

use std::fmt::Write as _;
use std::path::Path;

use super::{polyloom, text};

/// `polyloom train` of a table in `dir`; what it says, and whether it went well.
fn train(dir: &Path, table: &str, body: &str, args: &[&str]) -> (bool, String) {
    let file = dir.join(format!("{table}.csv"));
    std::fs::write(&file, body).unwrap();
    let (file, out) = (file.display().to_string(), dir.join(table));
    let out = out.display().to_string();
    let whole = [&["train", &file, "-o", &out, "--force", "-j", "1"], args].concat();
    let done = polyloom(&whole);
    (done.status.success(), text(&done.stderr))
}

#[test]
fn missing_numbers_have_many_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut body = String::from("x,word,y,z\n");
    for i in 0..300u32 {
        let x = if i % 7 == 3 {
            "NA".into()
        } else {
            format!("{}", i % 40)
        };
        let word = ["NA", "b", "c"][i as usize % 3];
        let y = if i % 9 == 4 {
            "nan".into()
        } else {
            format!("{}.5", i % 40)
        };
        let z = if i % 11 == 5 {
            "N/A".into()
        } else {
            format!("{}", i % 2)
        };
        writeln!(body, "{x},{word},{y},{z}").unwrap();
    }
    let args = [
        "--targets",
        "y,z",
        "--model",
        "shared_bottom",
        "--steps",
        "30",
    ];
    let (fine, said) = train(dir.path(), "na", &body, &args);
    assert!(fine, "{said}");
    assert!(
        said.contains("x       numeric      all values are numbers  43"),
        "{said}"
    );
    assert!(
        said.contains("word    categorical  3 different values"),
        "{said}"
    );
    assert!(
        said.contains("target y: regression")
            && said.contains("target z: classification (roc_auc)"),
        "{said}"
    );
    // New rows may have them too.
    let new = dir.path().join("new.csv");
    std::fs::write(&new, "word,x\nb,NaN\nNA,3\n").unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let done = polyloom(&["predict", &at("na"), &at("new.csv"), "-o", &at("out.csv")]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(
        std::fs::read_to_string(at("out.csv"))
            .unwrap()
            .lines()
            .count(),
        3
    );
}

#[test]
fn thousands_of_words_and_hundreds_of_targets_are_learned() {
    let dir = tempfile::tempdir().unwrap();
    let mut body = String::from("city,y,z\n");
    for i in 0..28_500u32 {
        writeln!(body, "c{},{},{}", i % 9_500, i % 2, f64::from(i % 7) / 2.0).unwrap();
    }
    let few = ["--steps", "5", "--batch", "64", "--model", "mmoe"];
    let (fine, said) = train(
        dir.path(),
        "many",
        &body,
        &[&["--targets", "y,z"][..], &few].concat(),
    );
    assert!(fine, "{said}");
    assert!(
        said.contains("categorical  9500 different values"),
        "{said}"
    );

    let names: Vec<String> = (0..500).map(|t| format!("t{t}")).collect();
    let mut body = format!("a,b,{}\n", names.join(","));
    for i in 0..120u32 {
        let (a, b) = (f64::from(i % 13), f64::from(i % 17));
        let targets: Vec<String> = (0..500)
            .map(|t| format!("{}", a * f64::from(t) + b))
            .collect();
        writeln!(body, "{a},{b},{}", targets.join(",")).unwrap();
    }
    let targets = names.join(",");
    let (fine, said) = train(
        dir.path(),
        "wide",
        &body,
        &[&["--targets", &targets][..], &few].concat(),
    );
    assert!(fine, "{said}");
    assert!(said.contains("496 more"), "{said}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_with_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut body = String::from("x,y,z\n");
    for i in 0..200u32 {
        writeln!(
            body,
            "{},{},{}",
            i % 23,
            f64::from(i % 40) / 4.0,
            f64::from(i % 9)
        )
        .unwrap();
    }
    let args = [
        "--targets",
        "y,z",
        "--model",
        "mmoe",
        "--steps",
        "50",
        "--rate",
        "1e30",
        "--set",
        "train.clip=0",
    ];
    let (fine, said) = train(dir.path(), "wild", &body, &args);
    assert!(!fine);
    assert!(said.contains("step ") && said.contains("rate"), "{said}");
    assert!(!dir.path().join("wild").exists());
}

#[test]
fn what_cannot_be_learned_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--targets", "y", "--model", "mmoe", "--steps", "5"];
    let (fine, said) = train(dir.path(), "one", "x,y\n1,2.5\n", &args);
    assert!(!fine && said.contains("no column to learn from"), "{said}");
    let mut body = String::from("x,y\n");
    for i in 0..100u32 {
        let y = if i % 10 == 3 {
            "1e300".into()
        } else {
            format!("{}.5", i % 40)
        };
        writeln!(body, "{},{y}", i % 23).unwrap();
    }
    let (fine, said) = train(dir.path(), "huge", &body, &args);
    assert!(
        !fine && said.contains("1e300") && said.contains("logarithms"),
        "{said}"
    );
}
