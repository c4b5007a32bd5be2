//! One trunk learned at several widths, and what is taken out of it.

use serde_json::Value;

use super::dense::{VIT, given, weights};
use super::goals::values;
use super::{done, failed, shown};

const SLIM: &str =
    "[train.head]\nhidden = 16\n[train.slim]\nwidths = [0.5, 1.0]\nheads = [0.25, 1.0]";

/// The results of a model's tasks.
fn scored(model: &str, spec: &str, file: &str) -> Vec<(String, Value, Value)> {
    done(&["eval", model, "-t", spec, "--force", "-o", file]);
    let read: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    values(&read)
}

#[test]
fn widths_are_learned_and_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| shown(&dir.path().join(name));
    let more = format!("steps = 6\nevaluate_every = 3\nsave_every = 3\n{SLIM}");
    let (recipe, spec) = given(dir.path(), &more, VIT);
    for (name, threads) in [("one", "1"), ("three", "3")] {
        done(&["train", &recipe, "--threads", threads, "-o", &at(name)]);
    }
    assert!(weights(&dir.path().join("one")) == weights(&dir.path().join("three")));
    let read = |name: &str| -> Value {
        let file = dir.path().join(name).join("config.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    };
    assert_eq!(read("one")["polyloom_slim"]["widths"][0], 0.5);
    // Matrices that lift narrow features are not part of the model.
    let listing = done(&["inspect", &at("one")]);
    assert!(!listing.contains("slim.0"), "{listing}");

    let told = done(&[
        "compress",
        "slim",
        &at("one"),
        "--width",
        "50%",
        "-o",
        &at("half"),
    ]);
    assert!(told.contains("> width 0.5: "), "{told}");
    let narrow = read("half");
    assert_eq!(
        [
            &narrow["hidden_size"],
            &narrow["num_attention_heads"],
            &narrow["intermediate_size"]
        ],
        [&Value::from(8), &Value::from(1), &Value::from(16)]
    );
    assert!(narrow["polyloom_slim"].is_null());
    let whole = scored(&at("one"), &spec, &at("one.json"));
    assert!(!whole.is_empty() && scored(&at("half"), &spec, &at("half.json")) != whole);
    // The whole width is the model itself.
    done(&[
        "compress",
        "slim",
        &at("one"),
        "--width",
        "1",
        "-o",
        &at("same"),
    ]);
    assert_eq!(scored(&at("same"), &spec, &at("same.json")), whole);

    let budget = |share: &str, prefer: &[&str], out: &str| {
        let mut args = vec![
            "compress", "slim", "ONE", "--budget", share, "-t", "SPEC", "--force", "-o", out,
            "--by", "losses",
        ];
        let (one, out) = (at("one"), at(out));
        (args[2], args[6], args[9]) = (&one, &spec, &out);
        args.extend(prefer.iter().flat_map(|p| ["--prefer", p]));
        done(&args);
        let file = std::fs::read(std::path::Path::new(&out).join("polyloom.json")).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["taken"].clone()
    };
    let all = budget("100%", &[], "all");
    assert_eq!(
        (&all["heads"][0], all["gains"].as_array().unwrap().len()),
        (&Value::from(1.0), 5)
    );
    // Room for one wide head: that of the goal that is preferred.
    for (goal, place) in [("depth", 1), ("edges", 3)] {
        let taken = budget("36%", &[&format!("{goal}=5")], "small");
        assert!(taken["cost"].as_f64().unwrap() <= 0.36, "{taken}");
        assert_eq!(taken["heads"][place], 1.0, "{taken}");
    }
    // By scores: the model learned for six steps, so that not every goal has one above 0; those that have none are left out.
    let mut args = vec![
        "compress", "slim", "ONE", "--budget", "100%", "-t", "SPEC", "-o", "SCORED",
    ];
    let (one, out) = (at("one"), at("scored"));
    (args[2], args[6], args[8]) = (&one, &spec, &out);
    args.extend(["--prefer", "edges=0", "--prefer", "label=0"]);
    let told = done(&args);
    assert!(
        told.contains("scores +0.0 % beside the whole model's"),
        "{told}"
    );
    let made = std::fs::read(std::path::Path::new(&out).join("polyloom.json")).unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!(made["settings"]["by"], "scores");
    for (args, said) in [
        (vec!["--width", "0.3"], "has not learned trunk of 0.3"),
        (
            vec!["--width", "0.5", "--head-width", "0.7"],
            "has not learned heads of 0.7",
        ),
        (
            vec!["--budget", "1%", "-t", &spec],
            "is below the narrowest form",
        ),
        (
            vec!["--budget", "90%", "-t", &spec, "--prefer", "colour=2"],
            "has no goal `colour`",
        ),
        (
            vec!["--budget", "90%", "-t", &spec, "--prefer", "depth=-1"],
            "what goals count is 0 or more",
        ),
        (vec!["--width", "0.5", "--by", "losses"], "--budget"),
    ] {
        let (one, out) = (at("one"), at("no"));
        let told = failed(&[&["compress", "slim", &one, "-o", &out], &args[..]].concat());
        assert!(told.contains(said), "{told}");
    }
    let half = at("half");
    let told = failed(&["compress", "slim", &half, "--width", "1", "-o", &at("no")]);
    assert!(told.contains("has learned one width alone"), "{told}");
}

#[test]
fn odd_recipes() {
    let dir = tempfile::tempdir().unwrap();
    let out = shown(&dir.path().join("out"));
    let mlp = "model_type = \"polyloom-mlp\"\nhidden_sizes = [8]\nhidden_act = \"relu\"";
    let memories = format!("{VIT}\n[train.new.task_expert]");
    for (more, model, said) in [
        (
            "[train.slim]\nwidths = [1.0]",
            VIT,
            "one of `widths` below 1",
        ),
        (
            "[train.slim]\nheads = [0.5, 1.0]",
            VIT,
            "heads of one layer have no width",
        ),
        (
            "[train.slim]\n[train.balance]\nmethod = \"nash\"",
            VIT,
            "does not go with [train.balance]",
        ),
        ("[train.slim]\nwidth = [0.5]", VIT, "unknown field `width`"),
        ("[train.slim]", &memories, "has one width"),
        ("[train.slim]", mlp, "has no patches"),
        (
            "[train.head]\nhidden = 0",
            VIT,
            "`train.head.hidden` is the width of a layer",
        ),
    ] {
        let (recipe, _) = given(dir.path(), &format!("steps = 2\n{more}"), model);
        let told = failed(&["train", &recipe, "-o", &out]);
        assert!(told.contains(said), "{told}");
    }
}
