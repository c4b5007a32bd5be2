//! Solutions of differential equations as a user meets them: generated fields learned by an operator network.

use std::path::Path;

use serde_json::Value;

use super::dense::weights;
use super::{done, failed, polyloom, shown, text};

const NET: &str =
    "model_type = \"polyloom-deeponet\"\nimage_size = 24\nhidden_size = 32\nnum_hidden_layers = 2";

/// A spec of few fields, and a recipe of a network with more lines of `[train]`.
fn given(folder: &Path, more: &str, model: &str) -> (String, String) {
    let spec = folder.join("fields.task.toml");
    let args = ["tasks", "synth", "fields", "--count", "240"];
    std::fs::write(&spec, polyloom(&args).stdout).unwrap();
    let text = format!(
        "version = 1\nseed = 3\n[train]\ntasks = [\"fields.task.toml\"]\nbatch = 20\nrate = 3e-3\n{more}\n[train.new]\n{model}\n"
    );
    let file = folder.join("loom.toml");
    std::fs::write(&file, text).unwrap();
    (shown(&file), shown(&spec))
}

fn scores(model: &Path, spec: &str, file: &Path) -> Value {
    let file = shown(file);
    done(&["eval", &shown(model), "-t", spec, "-o", &file, "--force"]);
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

#[test]
fn two_equations_are_learned_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let more = "steps = 150\nevaluate_every = 50\nsave_every = 50";
    let (recipe, spec) = given(dir.path(), more, NET);
    for (name, threads) in [("one", "1"), ("three", "3")] {
        done(&["train", &recipe, "-o", &shown(&at(name)), "-j", threads]);
    }
    assert!(weights(&at("one")) == weights(&at("three")));
    let results = scores(&at("one"), &spec, &at("r.json"));
    for target in ["poisson", "screened"] {
        let task = &results["tasks"][format!("synth/fields/{target}")];
        assert_eq!(
            (&task["metric"], &task["n"]),
            (&"rel_l2".into(), &20.into())
        );
        // An answer of 0 has 1, the mean some 0.6 to 0.8.
        assert!(task["value"].as_f64().unwrap() < 0.6, "{task}");
    }
    // Triangles were not learned; they can be asked about.
    let unseen = std::fs::read_to_string(&spec).unwrap();
    let unseen = unseen.replace(
        "count = 240",
        "count = 240\noptions = { geometry = \"triangle\" }",
    );
    std::fs::write(at("unseen.task.toml"), unseen).unwrap();
    let far = scores(&at("one"), &shown(&at("unseen.task.toml")), &at("u.json"));
    let value = |r: &Value| {
        r["tasks"]["synth/fields/poisson"]["value"]
            .as_f64()
            .unwrap()
    };
    assert!(value(&far) != value(&results) && value(&far).is_finite());
    let listing = text(&polyloom(&["--json", "inspect", &shown(&at("one"))]).stdout);
    assert!(listing.contains("[\"geometry.layers\",2]"), "{listing}");
    let out = shown(&at("no"));
    for (model, said) in [
        (NET.replace("= 24", "= 48"), "48"),
        (format!("{NET}\nnum_channels = 3"), "num_channels 3"),
        (
            NET.replace("hidden_size = 32", "hidden_size = 0"),
            "hidden_size 0",
        ),
        (NET.replace("layers = 2", "layers = 0"), "0 layers"),
        (format!("{NET}\nhidden_act = \"wave\""), "activation `wave`"),
    ] {
        let (recipe, _) = given(dir.path(), "steps = 1", &model);
        let told = failed(&["train", &recipe, "-o", &out]);
        assert!(told.contains(said), "{said}: {told}");
    }
}
