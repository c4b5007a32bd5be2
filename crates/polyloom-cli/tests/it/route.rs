//! `polyloom route` as a user meets it: routers over the quickstart's tasks, over saved systems, by skills and win rates.

use std::path::Path;

use serde_json::Value;

use super::run::picture;
use super::{polyloom, text};

fn spec(task: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data");
    let file = folder.join(task).join("task.toml").canonicalize().unwrap();
    file.display().to_string()
}

fn done(args: &[&str]) -> (String, String) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
    (text(&out.stdout), said)
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(expected), "{said}");
}

/// The events of a type.
fn events(shown: &str, kind: &str) -> Vec<Value> {
    let all = shown.lines().filter_map(|l| serde_json::from_str(l).ok());
    all.filter(|e: &Value| e["type"] == kind).collect()
}

/// The only file of records below a folder.
fn parquet(folder: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path());
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => parquet(&path),
        false => path
            .extension()
            .is_some_and(|e| e == "parquet")
            .then_some(path),
    })
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn put(&self, name: &str, content: &str) -> String {
        std::fs::write(self.0.path().join(name), content).unwrap();
        self.at(name)
    }

    /// A small perceptron that learned digits for a moment.
    fn base(&self) -> String {
        let recipe = format!(
            "version = 1\nseed = 3\n[train]\ntasks = [{:?}]\nlimit = 60\nbatch = 16\nsteps = 10\nvalidation_limit = 10\n\
             [train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = [24, 16]\n",
            spec("digits")
        );
        let recipe = self.put("base.toml", &recipe);
        done(&["train", &recipe, "-o", &self.at("base")]);
        self.at("base")
    }
}

#[test]
fn a_router_over_tasks_is_fitted_asked_and_changed() {
    let folder = Folder::new();
    let (base, router) = (folder.base(), folder.at("r.safetensors"));
    let (digits, signs, latin) = (spec("digits"), spec("sign_digits"), spec("omniglot_latin"));
    let tasks = format!("{digits},{signs}");
    let fit = |method: &str, more: &[&str]| {
        let ask = [
            &[
                "route", "fit", "--model", &base, "-t", &tasks, "--method", method, "-L", "80",
            ][..],
            &["-o", &router, "--force", "--json"],
            more,
        ]
        .concat();
        let (shown, _) = done(&ask);
        events(&shown, "done").pop().unwrap()
    };
    for method in ["centroid", "knn", "linear", "mlp", "pilots"] {
        let told = fit(method, &[]);
        assert_eq!(
            told["experts"],
            serde_json::json!(["digits", "sign_digits"])
        );
        assert_eq!(told["fitted"]["rows"], serde_json::json!([72, 72]));
        let before = std::fs::read(&router).unwrap();
        fit(method, &["-j", "1"]);
        assert!(
            std::fs::read(&router).unwrap() == before,
            "{method}: other bytes with one thread"
        );
        let catalogue = ["--catalogue", &*digits, "--catalogue", &*signs];
        let eval = [
            &["route", "eval", &router, "-L", "50", "--json"][..],
            &catalogue,
        ]
        .concat();
        let found = events(&done(&eval).0, "result").pop().unwrap();
        // Digits are white on black, signs are photographs: easy, but for two hidden layers after a few steps of training.
        let share = found["accuracy"].as_f64().unwrap();
        assert!(
            share > if method == "mlp" { 0.3 } else { 0.9 },
            "{method}: {share}"
        );
        assert_eq!(found["rows"], 100);
    }
    // Pilots take an expert and lose one.
    refused(
        &["route", "add", &router, "-t", &latin, "-o", &router],
        "exists already",
    );
    let more = folder.at("more.safetensors");
    let add = [
        "route", "add", &router, "-t", &latin, "-L", "60", "--k", "2", "-o", &more, "--json",
    ];
    let told = events(&done(&add).0, "done").pop().unwrap();
    assert_eq!(told["experts"].as_array().unwrap().len(), 3);
    let less = folder.at("less.safetensors");
    refused(
        &["route", "remove", &more, "greek", "-o", &less],
        "it has digits, sign_digits, omniglot_latin",
    );
    done(&["route", "remove", &more, "digits", "-o", &less]);
    let picture = picture(folder.0.path());
    let (shown, _) = done(&["route", "query", &less, &picture, &picture, "--top", "2"]);
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(shown.contains("omniglot_latin\t") && shown.contains("sign_digits\t"));
    let (shown, _) = done(&["route", "query", &less, &picture, "--json"]);
    let found = events(&shown, "route").pop().unwrap();
    let sum: f64 = found["weights"]
        .as_object()
        .unwrap()
        .values()
        .map(|w| w.as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-5 && found["expert"].is_string());
    // Nothing is near enough: the base.
    fit("centroid", &["--min-similarity", "2"]);
    assert_eq!(
        done(&["route", "query", &router, &picture]).0.trim(),
        "(base)\t-"
    );
    // Early layers, and what does not exist.
    assert!(
        fit("knn", &["--feature", "layer:1"])["fitted"]["held_out_accuracy"]
            .as_f64()
            .unwrap()
            > 0.9
    );
    let ask = ["route", "fit", "--model", &base, "-t", &tasks, "-o", &less];
    refused(
        &[&ask[..], &["--force", "--feature", "layer:9"]].concat(),
        "passes no layer 9",
    );
    refused(
        &[&ask[..], &["--force", "--feature", "words"]].concat(),
        "mean, cls, last, pooled, embedding, layer:K",
    );
    refused(&ask, "exists already");
    refused(
        &[&ask[..], &["--force", "--k", "3"]].concat(),
        "--k is the number",
    );
    refused(
        &[
            "route",
            "query",
            &folder.at("base/model.safetensors"),
            &picture,
        ],
        "is no router",
    );
    let plan = done(&[&ask[..], &["--force", "--dry-run"]].concat()).0;
    assert!(
        plan.starts_with("plan: centroid router over 2 experts"),
        "{plan}"
    );
}

#[test]
fn saved_systems_are_chosen_by_predicted_loss() {
    let folder = Folder::new();
    let (base, digits) = (folder.base(), spec("digits"));
    // Two systems that are right on one half of the rows each, by the digit: four and below, five and above.
    let answers = polyloom(&[
        "eval",
        &base,
        "-t",
        &digits,
        "--split",
        "validation",
        "-o",
        &folder.at("e/results.json"),
    ]);
    assert!(answers.status.success(), "{}", text(&answers.stderr));
    let columns = polyloom::evaluate::board::predictions::Columns::default();
    let file = parquet(folder.0.path()).unwrap();
    let records =
        polyloom::evaluate::board::predictions::Predictions::read(&file, &columns).unwrap();
    let (task, rows) = records.tasks.first().unwrap();
    let mut tables = [
        String::from("task,id,score\n"),
        String::from("task,id,score\n"),
    ];
    for (id, example) in rows {
        let low = ["zero", "one", "two", "three", "four"];
        let high = !low.contains(&&*example.texts.as_ref().unwrap().1);
        for (i, table) in tables.iter_mut().enumerate() {
            let right = high == (i == 1);
            table.push_str(&format!("{task},{id},{}\n", u8::from(right)));
        }
    }
    let [low, high] = tables;
    let results = format!(
        "low={},high={}",
        folder.put("low.csv", &low),
        folder.put("high.csv", &high)
    );
    let router = folder.at("r.safetensors");
    let ask = [
        "route",
        "fit",
        "--model",
        &base,
        "-t",
        &digits,
        "--split",
        "validation",
        "--results",
        &results,
        "-o",
        &router,
        "--force",
        "--method",
    ];
    let (_, said) = done(&[&ask[..], &["pilots", "--k", "4"]].concat());
    assert!(said.contains("best single system"), "{said}");
    let fit = [&ask[..], &["predicted_loss", "--cost", "bytes=100,40"]].concat();
    done(&fit);
    let eval = [
        "route",
        "eval",
        &router,
        "--split",
        "validation",
        "--results",
        &results,
        "--catalogue",
        &digits,
        "--json",
    ];
    let found = events(&done(&eval).0, "result").pop().unwrap();
    let best = found["systems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["score"].as_f64().unwrap());
    assert!(
        found["chosen"].as_f64().unwrap() > best.fold(0.0, f64::max) + 0.1,
        "{found}"
    );
    assert_eq!(found["best"], 1.0);
    let front = events(
        &done(&[&eval[..], &["--sweep", "bytes"]].concat()).0,
        "front",
    )
    .pop()
    .unwrap();
    assert!(front["places"].as_array().unwrap().len() > 1, "{front}");
    // At a budget that only the cheap one keeps to, it is always chosen.
    done(&[&fit[..], &["--budget", "bytes=40"]].concat());
    let found = events(&done(&eval).0, "result").pop().unwrap();
    assert_eq!(found["systems"][1]["share"], 1.0);
    refused(
        &[&fit[..], &["--budget", "bytes=39"]].concat(),
        "no choice keeps to 39",
    );
    refused(
        &[&fit[..], &["--most", "seconds=1"]].concat(),
        "there is no cost `seconds`",
    );
    refused(&[&ask[..], &["mlp"]].concat(), "does not learn from scores");
    refused(&["route", "eval", &router], "whose scores are needed");
}

#[test]
fn skills_and_win_rates() {
    let folder = Folder::new();
    let a = folder.put("a.csv", "id,score\n1,1\n2,1\n3,0\n4,0\n");
    let b = folder.put("b.csv", "id,score\n1,0\n2,0\n3,1\n4,1\n");
    let skills = folder.put(
        "skills.csv",
        "id,skill\n1,sums\n2,sums; words\n3,words\n4,words\n",
    );
    let profiles = folder.at("profiles.json");
    let (a_named, b_named) = (format!("a={a}"), format!("b={b}"));
    let profile = ["route", "profile", &a_named, &b_named, "-o", &profiles];
    refused(&profile, "none of the answers has a skill");
    done(&[&profile[..], &["--skills", &skills]].concat());
    refused(
        &[&profile[..], &["--skills", &skills]].concat(),
        "exists already",
    );
    let written: Value =
        serde_json::from_str(&std::fs::read_to_string(&profiles).unwrap()).unwrap();
    assert_eq!(
        written["models"]["a"],
        serde_json::json!({"sums": 2, "words": -1})
    );
    assert_eq!(
        written["models"]["b"],
        serde_json::json!({"sums": -2, "words": 1})
    );
    let (shown, said) = done(&["route", "recruit", &profiles, "sums", "words", "dance"]);
    assert!(
        shown.starts_with("sums\ta a a\nwords\tb b b\ndance\t"),
        "{shown}"
    );
    assert!(said.contains("no system has the skill dance"), "{said}");
    refused(&["route", "recruit", &skills, "sums"], "skills.csv");
    let rates = folder.put("rates.csv", "id,win_rate\n1,0.1\n2,0.2\n3,0.9\n4,0.8\n");
    let (shown, _) = done(&[
        "route",
        "threshold",
        &rates,
        "--share",
        "0.5",
        "--strong",
        &b,
        "--weak",
        &a,
    ]);
    assert!(
        shown.contains("0.500000") && shown.contains("weak 0.5000, strong 0.5000"),
        "{shown}"
    );
    let (shown, _) = done(&["route", "threshold", &rates, "--json"]);
    let found = events(&shown, "result").pop().unwrap();
    assert_eq!(found["thresholds"][1]["threshold"], 0.5);
    assert_eq!(found["thresholds"][1]["calls"], 0.5);
    refused(&["route", "threshold", &rates, "--column", "x"], "x");
    refused(
        &["route", "threshold", &rates, "--share", "2"],
        "must be in 0 to 1",
    );
}
