//! Running text among the columns of a table.

use std::path::Path;

use super::{failed, polyloom, shown, text};

/// 800 offers: whether they sell hangs on one word of a text, and a little on the price.
fn offers(folder: &Path) -> String {
    let mut out = String::from("price,note,sold\n");
    for i in 0..800u32 {
        let (good, price) = (i.wrapping_mul(2_654_435_761) >> 31 == 0, 10 + (i * 37) % 50);
        let word = if good { "Spotless" } else { "damaged" };
        let odd = i % 20 == 0;
        let note = match i % 3 {
            0 => format!("a chair, {word}; number {i}"),
            1 => format!("{word} old table of my aunt's, {i} years"),
            _ => format!("lamp {i} from the attic is {word}"),
        };
        let note = if i % 40 == 7 { String::new() } else { note };
        let sold = if good != odd { "yes" } else { "no" };
        out += &format!("{price},\"{note}\",{sold}\n");
    }
    let file = folder.join("offers.csv");
    std::fs::write(&file, out).unwrap();
    shown(&file)
}

/// The area under the ROC curve on the test rows.
fn area(dir: &Path, model: &str, more: &[&str]) -> f64 {
    let (table, out) = (offers(dir), shown(&dir.join(model)));
    let train = ["train", &table, "--model", model, "-o", &out, "--force"];
    let done = polyloom(&[&train[..], &["--targets", "sold"], more].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (task, results) = (
        shown(&dir.join("offers.task.toml")),
        shown(&dir.join("r.json")),
    );
    let done = polyloom(&["eval", &out, "-t", &task, "-o", &results, "--force"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let first = results["tasks"].as_object().unwrap().values().next();
    first.unwrap()["value"].as_f64().unwrap()
}

#[test]
fn words_of_a_text_tell_networks_and_trees() {
    let dir = tempfile::tempdir().unwrap();
    // Rows with the other answer (a twentieth) and without text (a fortieth) stay unknown.
    for model in ["shared_bottom", "gbdt"] {
        assert!(area(dir.path(), model, &[]) > 0.85, "{model}");
    }
    let spec = std::fs::read_to_string(dir.path().join("offers.task.toml")).unwrap();
    assert!(spec.contains("text = [\"note\"]"), "{spec}");
    let out = shown(&dir.path().join("gbdt"));
    let task = shown(&dir.path().join("offers.task.toml"));
    let done = polyloom(&["diag", "importance", &out, "-t", &task, "--json"]);
    let said = text(&done.stdout);
    assert!(done.status.success() && said.contains("\"note\""), "{said}");
    // New rows: a text that is missing, one of another script.
    let new = dir.path().join("new.csv");
    std::fs::write(
        &new,
        "price,note\n20,spotless sofa\n20,DAMAGED sofa\n20,\n20,東京の椅子\n",
    )
    .unwrap();
    let file = shown(&dir.path().join("new.predictions.csv"));
    let done = polyloom(&["predict", &out, &shown(&new), "-o", &file]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = std::fs::read_to_string(&file).unwrap();
    let said: Vec<&str> = lines
        .lines()
        .skip(1)
        .map(|l| l.split(',').nth(1).unwrap())
        .collect();
    assert_eq!((said.len(), &said[..2]), (4, &["yes", "no"][..]), "{lines}");
    // The column has to be there, though a cell may be empty.
    std::fs::write(&new, "price\n20\n").unwrap();
    let said = failed(&["predict", &out, &shown(&new), "-o", &file, "--force"]);
    assert!(said.contains("reads a column `note`"), "{said}");
    // What cannot be hashed to nothing.
    let table = offers(dir.path());
    let no = ["train", &table, "--model", "gbdt", "-o", &out, "--force"];
    let said = failed(&[&no[..], &["--set", "train.new.prepare.text=0"]].concat());
    assert!(said.contains("`text` 1 to 65536"), "{said}");
}

#[test]
fn a_text_can_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let area = area(dir.path(), "gbdt", &["--drop", "note"]);
    assert!((0.3..0.7).contains(&area), "{area}");
    let prepared = std::fs::read_to_string(dir.path().join("gbdt/table.json")).unwrap();
    assert!(!prepared.contains("note"), "{prepared}");
}
