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

/// 90 offers whose words stand once each: what is sold is an animal.
fn animals(folder: &Path) -> String {
    let animals = "dog cat horse cow sheep goat rabbit hamster parrot canary goose duck hen pony donkey mule pig calf lamb puppy kitten foal mouse rat ferret turtle snake lizard frog toad salmon trout carp eagle falcon owl pigeon crow swan turkey camel llama deer fox wolf";
    let things = "chair table lamp sofa shelf desk bed cupboard mirror carpet curtain pillow blanket drawer stool bench wardrobe vase clock candle kettle pan pot plate fork spoon knife cup glass bowl bucket broom ladder hammer drill screwdriver spanner saw nail screw brick tile door window fence";
    let rows = animals.split(' ').map(|w| (w, "yes"));
    let rows = rows.zip(things.split(' ').map(|w| (w, "no")));
    let mut out = String::from("price,note,alive\n");
    for (i, (word, alive)) in rows.flat_map(|(a, b)| [a, b]).enumerate() {
        let note = match i % 3 {
            0 => format!("We sell our beloved {word}, collect it soon"),
            1 => format!("An old {word}: who takes it?"),
            _ => format!("My neighbour wants to give away a {word} today"),
        };
        out += &format!("{},\"{note}\",{alive}\n", 10 + (i * 37) % 50);
    }
    let file = folder.join("animals.csv");
    std::fs::write(&file, out).unwrap();
    shown(&file)
}

#[test]
fn an_encoder_knows_words_that_training_did_not_have() {
    let encoder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/all-MiniLM-L6-v2");
    if !encoder.exists() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| shown(&dir.path().join(name));
    let (table, encoder) = (animals(dir.path()), shown(&encoder));
    let train = |out: &str, more: &[&str]| {
        let args = [
            "train",
            &table,
            "--targets",
            "alive",
            "--model",
            "shared_bottom",
            "-o",
            out,
        ];
        let done = polyloom(
            &[
                &args[..],
                &["--steps", "60", "--rate", "5e-3", "--seed", "1"],
                more,
            ]
            .concat(),
        );
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    let area = |model: &str| {
        let results = at("r.json");
        let task = at("animals.task.toml");
        let done = polyloom(&["eval", model, "-t", &task, "-o", &results, "--force"]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let read = std::fs::read(&results).unwrap();
        let results: serde_json::Value = serde_json::from_slice(&read).unwrap();
        let first = results["tasks"].as_object().unwrap().values().next();
        first.unwrap()["value"].as_f64().unwrap()
    };
    train(&at("a"), &["--embed", &encoder, "-j", "1"]);
    assert!(area(&at("a")) > 0.9, "{}", area(&at("a")));
    train(&at("b"), &["--embed", &encoder, "-j", "3"]);
    let weights = |name: &str| std::fs::read(dir.path().join(name).join("model.safetensors"));
    assert!(weights("a").unwrap() == weights("b").unwrap());
    let prepared = std::fs::read_to_string(dir.path().join("a/table.json")).unwrap();
    let prepared: serde_json::Value = serde_json::from_str(&prepared).unwrap();
    assert_eq!(prepared["encoder"]["width"], 384);
    assert_eq!(prepared["columns"][1]["kind"], "vector");

    let new = at("new.csv");
    std::fs::write(
        &new,
        "price,note\n20,A young elephant\n20,\"Carpet, red\"\n20,\n",
    )
    .unwrap();
    let out = at("new.predictions.csv");
    let done = polyloom(&["predict", &at("a"), &new, "-o", &out]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = std::fs::read_to_string(&out).unwrap();
    let said: Vec<&str> = said
        .lines()
        .skip(1)
        .map(|l| l.split(',').nth(1).unwrap())
        .collect();
    assert_eq!((said.len(), &said[..2]), (3, &["yes", "no"][..]));

    let said = failed(&["export", &at("a"), "-o", &at("a.onnx")]);
    assert!(said.contains("column `note` is running text"), "{said}");
    let no = [
        "train",
        &table,
        "--targets",
        "alive",
        "--model",
        "gbdt",
        "-o",
        &at("no"),
    ];
    let said = failed(&[&no[..], &["--drop", "note", "--embed", &encoder, "--force"]].concat());
    assert!(
        said.contains("animals.task.toml") || said.contains("no column is running text"),
        "{said}"
    );
    let said = failed(&[&no[..], &["--embed", &at("nowhere")]].concat());
    assert!(said.contains("nowhere"), "{said}");
    // The encoder is gone.
    let place = dir.path().join("a/table.json");
    let moved = std::fs::read_to_string(&place).unwrap();
    let moved = moved.replace("all-MiniLM-L6-v2", "all-MiniLM-L7");
    std::fs::write(&place, moved).unwrap();
    let said = failed(&["predict", &at("a"), &new, "-o", &out, "--force"]);
    assert!(
        said.contains("all-MiniLM-L7`, which is not there"),
        "{said}"
    );
}
