//! Modalities of a table: `polyloom train --model multimodn` and what follows.

use std::path::{Path, PathBuf};

use super::{column, done, failed, shown};

/// 600 patients: `ill` follows from urea, sodium and the ward; every third has no blood values, every seventh no ward.
fn patients(folder: &Path) -> PathBuf {
    let mut out = String::from("age,urea,sodium,ward,ill,days\n");
    for i in 0..600u32 {
        let (urea, sodium, age) = (i * 37 % 50, i * 53 % 41, 20 + i * 7 % 60);
        let ward = ["north", "south", "east"][i as usize % 5 % 3];
        let ill = urea > 25 || (ward == "east" && sodium > 20);
        let blood = match i % 3 {
            0 => ",".to_owned(),
            _ => format!("{urea},{sodium}"),
        };
        let ward = if i % 7 == 0 { "" } else { ward };
        let days = f64::from(urea) / 10.0 + f64::from(age) / 20.0;
        out += &format!(
            "{age},{blood},{ward},{},{days:.2}\n",
            if ill { "yes" } else { "no" }
        );
    }
    let file = folder.join("patients.csv");
    std::fs::write(&file, out).unwrap();
    file
}

const NAMED: &str = r#"train.new.modalities={blood=["urea","sodium"],rest=["age","ward"]}"#;

fn train<'a>(table: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "train",
        table,
        "--targets",
        "ill,days",
        "-o",
        out,
        "--force",
    ];
    args.extend(["--model", "multimodn", "--set", "train.batch=32"]);
    args.extend(more);
    args
}

#[test]
fn rows_skip_the_modality_that_they_lack() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&patients(dir.path()));
    let out = dir.path().join("model");
    let model = shown(&out);
    let more = [
        "--set",
        NAMED,
        "--epochs",
        "12",
        "--set",
        "train.patience=0",
    ];
    done(&train(&table, &model, &more));
    let read = std::fs::read(out.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&read).unwrap();
    // Numbers: age, urea, sodium; marks of age, urea, sodium, ward.
    let wanted = serde_json::json!([
        {"name": "blood", "numbers": [1, 2], "fields": [], "marks": [4, 5]},
        {"name": "rest", "numbers": [0], "fields": [0], "marks": [3, 6]},
    ]);
    assert_eq!(config["modalities"], wanted);
    // Without the columns of a modality a row is one in which they are empty, and a row without anything has an answer too.
    let answers = |name: &str, rows: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, rows).unwrap();
        let said = dir.path().join(format!("{name}.said.csv"));
        done(&[
            "predict",
            &model,
            &shown(&file),
            "-o",
            &shown(&said),
            "--force",
        ]);
        column(&said, "score_ill_yes")
            .into_iter()
            .map(|c| c.1)
            .collect::<Vec<f64>>()
    };
    let whole = answers(
        "whole.csv",
        "age,urea,sodium,ward\n30,,,north\n30,44,9,north\n,,,\n",
    );
    let part = answers("part.csv", "ward,age\nnorth,30\n");
    assert!((whole[0] - part[0]).abs() < 1e-6, "{whole:?} {part:?}");
    assert!(whole[1] > 0.8 && whole[1] > whole[0], "{whole:?}");
    assert!(whole[2].is_finite() && whole.len() == 3);
    // The same rows are a file in another format, and a graph.
    done(&["export", &model, "-o", &shown(&dir.path().join("m.onnx"))]);
    done(&[
        "diag",
        "importance",
        &model,
        "-t",
        &shown(&dir.path().join("patients.task.toml")),
    ]);
}

/// Without names, columns that the same training rows lack are a modality; any number of threads gives the same bytes.
#[test]
fn modalities_are_found_and_bytes_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&patients(dir.path()));
    let run = |threads: &str| {
        let out = dir.path().join(format!("on-{threads}"));
        let folder = shown(&out);
        done(&train(
            &table,
            &folder,
            &["--steps", "6", "--threads", threads],
        ));
        let file = |name: &str| std::fs::read(out.join(name)).unwrap();
        (file("model.safetensors"), file("config.json"))
    };
    let (one, config) = run("1");
    assert!(one == run("2").0);
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let names = config["modalities"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["age", "urea", "ward"]);
}

#[test]
fn what_does_not_go_with_modalities_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&patients(dir.path()));
    let out = shown(&dir.path().join("model"));
    let said = |more: &[&str]| failed(&train(&table, &out, more));
    let named = |text: &str| said(&["--set", &format!("train.new.modalities={text}")]);
    let found = named(r#"{a=["age","uria"]}"#);
    assert!(
        found.contains("`uria`") && found.contains("did you mean `urea`?"),
        "{found}"
    );
    assert!(named(r#"{a=["age","urea"]}"#).contains("of none are: sodium, ward"));
    assert!(named("{}").contains("names none"));
    assert!(named(r#"["age"]"#).contains("columns by modality"));
    let found = said(&["--chain", "ordered"]);
    assert!(found.contains("`train.chain` does not go with"), "{found}");
    let other = failed(&[
        "train",
        &table,
        "--targets",
        "ill,days",
        "-o",
        &out,
        "--model",
        "mmoe",
        "--set",
        NAMED,
    ]);
    assert!(
        other.contains("`modalities` means nothing to architecture `mmoe`"),
        "{other}"
    );
    let trees = failed(&[
        "train",
        &table,
        "--targets",
        "ill,days",
        "-o",
        &out,
        "--model",
        "gbdt",
        "--set",
        NAMED,
    ]);
    assert!(trees.contains("modalities"), "{trees}");
}
