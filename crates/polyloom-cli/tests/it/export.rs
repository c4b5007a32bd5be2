//! `polyloom export`: a model of tables as a file of another program.

use super::tables::people;
use super::{done, failed, letters, polyloom, shown, text};

#[test]
fn a_model_of_tables_becomes_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let at = |name: &str| shown(&dir.path().join(name));
    let (task, file) = (at("people.task.toml"), at("sub/people.onnx"));
    let mut before = Vec::new();
    for (name, more) in [("mmoe", &["--steps", "5"][..]), ("gbdt", &[])] {
        let model = at(name);
        let train = [
            "train",
            &table,
            "--targets",
            "rich,hours",
            "--drop",
            "note",
            "--model",
            name,
            "-o",
            &model,
        ];
        done(&[&train[..], more].concat());
        let told = done(&["export", &model, "-o", &file, "--force"]);
        assert!(told.contains("3 inputs, 3 outputs of 2 heads"), "{told}");
        let bytes = std::fs::read(&file).unwrap();
        assert_ne!(bytes, before, "{name} is another model");
        before.clone_from(&bytes);
        // The same bytes for any number of threads; what is there is kept.
        done(&["-j", "1", "export", &model, "-o", &file, "--force"]);
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        let said = failed(&["export", &model, "-o", &file]);
        assert!(
            said.contains("exists already") && said.contains("--force"),
            "{said}"
        );
        // What was calibrated is a part of the file, and is said.
        done(&["calibrate", &model, "-t", &task, "--threshold", "rich=f1"]);
        let told = done(&["export", &model, "-o", &file, "--force"]);
        assert!(
            told.contains("calibrated by temperature") && told.contains("(f1)"),
            "{told}"
        );
        let calibrated = std::fs::read(&file).unwrap();
        assert_ne!(calibrated, bytes, "{name}: not calibrated");
        // What may be off is given where it is asked for: two ends of a number, a set of classes.
        let told = done(&[
            "export",
            &model,
            "-o",
            &file,
            "--force",
            "--interval",
            "80%",
        ]);
        assert!(told.contains("3 inputs, 6 outputs of 2 heads"), "{told}");
        assert_ne!(std::fs::read(&file).unwrap(), calibrated);
        let said = failed(&[
            "export",
            &model,
            "-o",
            &file,
            "--force",
            "--interval",
            "99.9%",
        ]);
        assert!(said.contains("too few for intervals of 99.9 %"), "{said}");
    }
    let out = polyloom(&["--json", "export", &at("mmoe"), "-o", &file, "--force"]);
    let last = text(&out.stdout).lines().last().map(str::to_owned);
    let event: serde_json::Value = serde_json::from_str(&last.unwrap()).unwrap();
    let ports = |key: &str| -> Vec<String> {
        let all = event[key].as_array().unwrap().iter();
        all.map(|p| {
            format!(
                "{} {}",
                p["name"].as_str().unwrap(),
                p["type"].as_str().unwrap()
            )
        })
        .collect()
    };
    let inputs = [
        "age double [N, 1]",
        "born double [N, 1]",
        "job string [N, 1]",
    ];
    assert_eq!(ports("inputs"), inputs);
    let outputs = [
        "prediction_rich string [N]",
        "probabilities_rich float [N, 2]",
        "prediction_hours float [N, 1]",
    ];
    assert_eq!(ports("outputs"), outputs);
}

#[test]
fn what_is_no_model_of_tables_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.onnx");
    let base = shown(&letters().join("base"));
    let said = failed(&["export", &base, "-o", &shown(&file)]);
    assert!(said.contains("base"), "{said}");
    let said = failed(&[
        "export",
        &shown(&dir.path().join("nothing")),
        "-o",
        &shown(&file),
    ]);
    assert!(said.contains("nothing"), "{said}");
    let said = failed(&["export", &base, "-o", &shown(&file), "--format", "pmml"]);
    assert!(said.contains("onnx"), "{said}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}
