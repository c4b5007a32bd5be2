//! Targets in a chain: `polyloom train --chain`.

use std::path::{Path, PathBuf};

use super::{done, failed, shown};

/// 1,200 impressions: a click depends on `a`, a purchase once clicked on `b`; one without a click cannot be seen.
fn log(folder: &Path) -> PathBuf {
    let mut out = String::from("row,a,b,click,buy\n");
    for i in 0..1200u64 {
        let draw = |k: u64| {
            let x = (i * 8 + k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (x ^ (x >> 29)) % 1000
        };
        let (a, b) = (draw(1) as f64 / 500.0 - 1.0, draw(3) as f64 / 500.0 - 1.0);
        let click = a + (draw(5) as f64 / 1000.0 - 0.5) > 0.3;
        let buy = click && b + (draw(7) as f64 / 1000.0 - 0.5) > 0.0;
        out += &format!("{i},{a:.3},{b:.3},{},{}\n", u8::from(click), u8::from(buy));
    }
    let file = folder.join("log.csv");
    std::fs::write(&file, out).unwrap();
    file
}

fn score(model: &str, task: &str, name: &str, out: &Path) -> f64 {
    done(&["eval", model, "-t", task, "-o", &shown(out), "--force"]);
    let read = std::fs::read(out).unwrap();
    let all: serde_json::Value = serde_json::from_slice(&read).unwrap();
    all["tasks"][name]["value"]
        .as_f64()
        .unwrap_or_else(|| panic!("{all}"))
}

/// Numbers of a column of a CSV.
fn column(file: &Path, name: &str) -> Vec<f64> {
    super::column(file, name).into_iter().map(|c| c.1).collect()
}

#[test]
fn a_purchase_is_learned_over_all_impressions() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&log(dir.path()));
    let (spec, out) = (
        dir.path().join("log.task.toml"),
        shown(&dir.path().join("model")),
    );
    let train = |more: &[&str]| {
        let mut args = vec!["train", &table, "-o", &out, "--force", "--epochs", "30"];
        args.extend(["--set", "train.batch=64", "--set", "train.patience=0"]);
        args.extend(more);
        args.iter()
            .map(|a| (*a).to_owned())
            .collect::<Vec<String>>()
    };
    let run = |args: Vec<String>| done(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let no = |args: Vec<String>| failed(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let columns = ["--targets", "click,buy", "--drop", "row"];
    let said = no(train(
        &[&columns[..], &["--chain", "entire-space"]].concat(),
    ));
    assert!(said.contains("no targets in a chain"), "{said}");
    // AITM's: a target of every row, 0 where nothing was clicked.
    run(train(&["--chain", "ordered", "--model", "aitm"]));
    let results = dir.path().join("results.json");
    assert!(score(&out, &shown(&spec), "log/buy", &results) > 0.8);
    // ESMM: a purchase is a thing of clicked rows.
    let text = std::fs::read_to_string(&spec).unwrap();
    let text = text.replace(
        "column = \"buy\"\n",
        "column = \"buy\"\nsample = \"click == 1\"\n",
    );
    assert!(text.contains("click == 1"), "{text}");
    std::fs::write(&spec, &text).unwrap();
    assert!(no(train(&["--chain", "ordered"])).contains("leave out `sample`"));
    assert!(
        no(train(&["--chain", "entire-space", "--balancer", "nash"])).contains("train.balance")
    );
    assert!(no(train(&["--chain", "entire-space", "--model", "gbdt"])).contains("train.epochs"));
    run(train(&["--chain", "entire-space"]));
    assert!(score(&out, &shown(&spec), "log/buy", &results) > 0.85);
    // The answer is of every row: the probability of a purchase once clicked, whatever the click's.
    let new = dir.path().join("new.csv");
    std::fs::write(&new, "id,a,b\nx,-0.8,0.9\ny,0.9,0.9\nz,0.9,-0.9\n").unwrap();
    let file = dir.path().join("new.predictions.csv");
    done(&[
        "predict",
        &out,
        &shown(&new),
        "-o",
        &shown(&file),
        "--force",
    ]);
    let (click, buy) = (column(&file, "score_click_1"), column(&file, "score_buy_1"));
    assert!(click[0] < 0.2 && click[1] > 0.8, "{click:?}");
    assert!(buy[1] > 0.8 && buy[2] < 0.2 && buy[0] > buy[2], "{buy:?}");
}
