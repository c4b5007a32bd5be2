//! Losses of tokens, goals that share what they see, labels of teachers: on sentences.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::balance::{lines, trained};
use super::language::{animals, json, recipe};
use super::{polyloom, text};

fn losses(folder: &Path) -> Vec<f64> {
    let all = lines(folder, "step");
    all.iter().map(|l| l["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_decoder_learns_by_every_loss() {
    let dir = tempfile::tempdir().unwrap();
    let task = animals(dir.path());
    for (i, more) in [
        "loss = \"case2\"",
        "loss = \"case4\"",
        "loss = \"focal_sample\"",
        "loss = \"focal_task\"",
        "optimiser = \"sophia_g\"",
        "optimiser = \"sophia_h\"\n[train.sophia]\nevery = 5",
        "[train.reweight]\nrule = \"quadratic\"",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("r{i}");
        let more = format!("steps = 80\nkeep = \"last\"\n{more}\n[train.language]\npack = false");
        let recipe = recipe(dir.path(), &name, &task, 24, &more);
        let out = dir.path().join(&name);
        trained(&recipe, &out, &[]);
        let found = losses(&out);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(
            mean(&found[60..]) < 0.6 * mean(&found[..5]),
            "{more}: {found:?}"
        );
    }
}

/// Sentences that are warm or cold and loud or quiet; with `lacking`, all but every fourth row does not say how loud.
fn sentences(dir: &Path, lacking: bool) -> String {
    for (split, count) in [("train", 96), ("validation", 24)] {
        let mut rows = "id,text,warm,loud\n".to_owned();
        for i in 0..count {
            let (warm, loud) = (i % 2, i / 2 % 2);
            let said = match lacking && split == "train" && i % 4 != i / 24 {
                true => "",
                false => ["quiet", "loud"][loud],
            };
            let (place, noise) = (["ice", "sun"][warm], ["leaf", "drum"][loud]);
            let kind = ["cold", "warm"][warm];
            writeln!(rows, "{split}{i},the {noise} lies on {place},{kind},{said}").unwrap();
        }
        std::fs::write(dir.join(format!("{split}.csv")), rows).unwrap();
    }
    let target = |name: &str, classes: &str| {
        format!(
            "[[targets]]\nname = \"{name}\"\ncolumn = \"{name}\"\ntype = \"classification\"\n\
             labels = {classes}\nmetrics = [{{ name = \"accuracy\", primary = true }}]\n"
        )
    };
    let spec = format!(
        "schema = \"polyloom.task/1\"\nid = \"sentences\"\n[source]\nkind = \"csv\"\nroot = \".\"\n\
         [splits]\ntrain = {{ file = \"train.csv\" }}\nvalidation = {{ file = \"validation.csv\" }}\n\
         [fields]\nid = \"id\"\ninput = \"text\"\n{}{}",
        target("warm", "[\"cold\", \"warm\"]"),
        target("loud", "[\"quiet\", \"loud\"]"),
    );
    let file = dir.join("sentences.task.toml");
    std::fs::write(&file, spec).unwrap();
    file.display().to_string()
}

#[test]
fn goals_that_see_the_same_rows_share_a_representation() {
    let dir = tempfile::tempdir().unwrap();
    let task = sentences(dir.path(), false);
    for method in ["rep_mtl", "graddrop"] {
        let more = format!("steps = 60\n[train.representation]\nmethod = \"{method}\"");
        let recipe = recipe(dir.path(), method, &task, 24, &more);
        let out = dir.path().join(method);
        trained(&recipe, &out, &[]);
        let found = losses(&out);
        assert!(
            found[55..].iter().sum::<f64>() < 0.5 * found[..5].iter().sum::<f64>(),
            "{found:?}"
        );
    }
}

#[test]
fn rows_without_a_label_get_that_of_a_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let task = sentences(dir.path(), true);
    let plain = recipe(dir.path(), "plain", &task, 24, "steps = 80");
    trained(&plain, &at("teacher"), &[]);
    let more = |confidence: f64| {
        format!(
            "steps = 40\n[train.pseudo]\nteachers = [{:?}]\nconfidence = {confidence}",
            at("teacher").display().to_string()
        )
    };
    let student = recipe(dir.path(), "student", &task, 24, &more(0.6));
    let said = trained(&student, &at("student"), &["-j", "1"]);
    let told = "sentences/loud: ";
    assert!(
        said.contains(told) && said.contains(" of 72 rows without a label got one"),
        "{said}"
    );
    let count = |said: &str| -> usize {
        let from = said.find(told).unwrap() + told.len();
        said[from..].split(' ').next().unwrap().parse().unwrap()
    };
    assert!(count(&said) > 36, "{said}");
    let score = |folder: &str| -> f64 {
        let told = json(&at(folder).display().to_string(), "polyloom.json");
        told["scores"]["tasks"]["sentences/loud"]["value"]
            .as_f64()
            .unwrap()
    };
    assert!(score("student") > 0.9, "{}", score("student"));
    // A teacher that is asked for certainty says less.
    let sure = recipe(dir.path(), "sure", &task, 24, &more(1.0));
    let said = trained(&sure, &at("sure"), &[]);
    assert!(count(&said) < 72, "{said}");
    // All rows have their labels: nothing to do.
    let whole = tempfile::tempdir().unwrap();
    let task = sentences(whole.path(), false);
    let none = recipe(whole.path(), "none", &task, 24, &more(0.6));
    let out = whole.path().join("out").display().to_string();
    let done = polyloom(&["train", &none, "-o", &out]);
    assert!(
        text(&done.stderr).contains("all rows have theirs"),
        "{}",
        text(&done.stderr)
    );
    let events = polyloom(&[
        "train",
        &student,
        "-o",
        &at("again").display().to_string(),
        "--json",
    ]);
    let event = text(&events.stdout)
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .find(|e| e["type"] == "pseudo")
        .unwrap();
    assert_eq!(event["heads"]["sentences/loud"]["lacked"], 72);
}
