//! How tasks make steps, and optimisers that look at curvature: `[train] mixing`, `moments`, `sampling = "mpts"`, Sophia.

use std::path::Path;

use serde_json::Value;

use super::balance::{killed, lines, read, trained, two_tasks};
use super::{polyloom, text};

/// Rules with what they need: lines of `[train]`, tables.
const RULES: [(&str, &str, &str); 12] = [
    ("sophia_g", "optimiser = \"sophia_g\"\naccumulate = 2", ""),
    (
        "sophia_h",
        "optimiser = \"sophia_h\"",
        "[train.sophia]\nevery = 7\ngamma = 1.0",
    ),
    ("alternate", "mixing = \"alternate\"", ""),
    (
        "alternate, moments of every task",
        "mixing = \"alternate\"\nmoments = \"per_task\"\nsampling = \"uniform\"",
        "",
    ),
    ("unmixed", "mixing = \"unmixed\"", ""),
    (
        "unmixed, shared moments",
        "mixing = \"unmixed\"\nmoments = \"shared\"\naccumulate = 2",
        "",
    ),
    (
        "mpts",
        "mixing = \"alternate\"\nsampling = \"mpts\"",
        "[train.mpts]\nrandom = 0.1\nrate = 1e-3",
    ),
    ("case4", "loss = \"case4\"\naccumulate = 2", ""),
    ("focal_sample", "loss = \"focal_sample\"", ""),
    ("focal_task", "loss = \"focal_task\"\nfocal_gamma = 1.0", ""),
    (
        "rows by their losses",
        "loss = \"case3\"",
        "[train.reweight]\nwarmup = 0.1",
    ),
    (
        "graddrop",
        "accumulate = 2",
        "[train.representation]\nmethod = \"graddrop\"\nleak = 0.2",
    ),
];

fn json(folder: &Path) -> Value {
    serde_json::from_slice(&read(folder, "polyloom.json")).unwrap()
}

#[test]
fn every_rule_learns_and_a_killed_run_goes_on_to_the_same_bytes() {
    for (what, more, tables) in RULES {
        let dir = tempfile::tempdir().unwrap();
        let more =
            format!("steps = 160\nevaluate_every = 10\nsave_every = 10\nkeep = \"last\"\n{more}");
        let recipe = two_tasks(dir.path(), &more, tables);
        let (whole, cut) = killed(dir.path(), &recipe, what);
        let steps = lines(&whole, "step");
        assert_eq!(steps.len(), 160, "{what}");
        let losses: Vec<f64> = steps.iter().map(|l| l["loss"].as_f64().unwrap()).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(
            mean(&losses[130..]) < 0.8 * mean(&losses[..10]),
            "{what}: {losses:?}"
        );
        let same = |a: &Value, b: &Value| {
            assert_eq!((&a["step"], &a["loss"]), (&b["step"], &b["loss"]), "{what}");
        };
        let again = lines(&cut, "step");
        steps.iter().zip(&again).for_each(|(a, b)| same(a, b));
        assert_eq!(json(&whole)["epochs"], json(&cut)["epochs"], "{what}");
    }
}

#[test]
fn a_step_is_of_one_task_and_epochs_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let recipe = two_tasks(dir.path(), "steps = 30\nmixing = \"alternate\"", "");
    let plan = polyloom(&[
        "train",
        &recipe,
        "-o",
        &out.display().to_string(),
        "--dry-run",
    ]);
    assert!(
        text(&plan.stdout).contains("together, one a step: "),
        "{}",
        text(&plan.stdout)
    );
    let said = trained(&recipe, &out, &["-v"]);
    // Shares of 60 and 60 rows; 30 steps of 12 rows.
    assert!(
        said.contains("expected epochs: digits 3.00, fashion_mnist_900 3.00"),
        "{said}"
    );
    let expected = lines(&out, "expected");
    assert_eq!(expected.len(), 1);
    assert_eq!(expected[0]["epochs"]["digits"], 3.0);
    let mut counts = [0.0; 2];
    for line in lines(&out, "step") {
        let of = line["losses"].as_object().unwrap();
        assert_eq!(of.len(), 1, "{line}");
        counts[usize::from(of.contains_key("fashion_mnist_900"))] += 1.0;
    }
    let epochs = &json(&out)["epochs"];
    assert_eq!(epochs["digits"], 12.0 * counts[0] / 60.0);
    assert_eq!(epochs["fashion_mnist_900"], 12.0 * counts[1] / 60.0);
    assert!(said.contains("epochs: digits "), "{said}");
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    let good = two_tasks(dir.path(), "", "");
    let refused = |set: &[&str], expected: &str| {
        let mut args = vec!["train", &good, "-o", &out];
        args.extend(set.iter().flat_map(|s| ["--set", s]));
        let done = polyloom(&args);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    refused(&["train.mixing=mixed"], "unknown variant `mixed`");
    refused(&["train.moments=shared"], "steps of one task");
    refused(&["train.loss=case5"], "unknown variant `case5`");
    refused(
        &["train.representation.method=rep_mtl"],
        "every task has one target",
    );
    refused(
        &["train.balance.method=graddrop"],
        "[train.representation] method",
    );
    let unknown = "train.stage=[{tasks=[\"a\"],steps=3}]";
    refused(&[unknown], "`a` is none of the run's tasks");
    let one = "train.stage=[{tasks=[\"digits\"],steps=3}]";
    refused(&["train.steps=2", one], "does not go with `steps`");
    refused(&["train.optimiser=sophia"], "unknown variant `sophia`");
    refused(&["train.sophia.every=3"], "is about `optimiser");
    let mpts = "train.sampling=mpts";
    refused(&[mpts, "train.mpts.select=3"], "there are 2 tasks");
    refused(&[mpts, "train.mpts.selct=1"], "unknown field `selct`");
    refused(&[mpts, "train.tasks=[]"], "names no task");
    let digits = super::balance::data("digits/task.toml");
    let one = format!("train.tasks=[{digits:?}]");
    refused(&[mpts, &one], "chooses among tasks; there is one");
}

/// Two stages and the heads alone: which tasks learn when, the log, and a run that goes on to the same bytes.
#[test]
fn stages_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let tables = "[[train.stage]]\ntasks = [\"digits\"]\nsteps = 60\n\
                  [[train.stage]]\nagain = 0.1\nsteps = 60\nrate = 5e-3\n\
                  [[train.stage]]\nheads = true\nepochs = 4";
    let more = "evaluate_every = 10\nsave_every = 10";
    let recipe = two_tasks(dir.path(), more, tables);
    let (whole, cut) = killed(dir.path(), &recipe, "stages");
    // 120 rows are 10 passes; four times.
    let steps = lines(&whole, "step");
    assert_eq!(steps.len(), 160);
    for line in &steps {
        let of = line["losses"].as_object().unwrap();
        let first = line["step"].as_u64().unwrap() <= 60;
        assert!(
            !first || (of.len() == 1 && of.contains_key("digits")),
            "{line}"
        );
    }
    // 6 of 60 rows again: 55 of 60 rows of a pass are those of the other task.
    let second = &steps[60..120];
    let has = |line: &&Value| line["losses"]["digits"].is_number();
    assert!((20..59).contains(&second.iter().filter(has).count()));
    let told = |folder: &Path| -> Vec<(Value, Value, Value)> {
        let all = lines(folder, "stage");
        let of = |l: Value| (l["step"].clone(), l["stage"].clone(), l["heads"].clone());
        all.into_iter().map(of).collect()
    };
    let wanted = [(1, 1, false), (61, 2, false), (121, 3, true)];
    let wanted = wanted.map(|(a, b, c)| (a.into(), b.into(), c.into()));
    assert_eq!(told(&whole), wanted);
    assert_eq!(told(&cut), wanted);
    assert_eq!(json(&whole)["epochs"], json(&cut)["epochs"]);
    // The last stage starts its schedule anew, and what it gives is one of its own evaluations.
    assert_eq!(steps[120]["rate"], 0.0);
    assert!(json(&whole)["steps"]["given"].as_u64().unwrap() > 120);
    // Heads alone: the trunk is that of the second stage.
    let short = tables.split("[[train.stage]]\nheads").next().unwrap();
    let two = two_tasks(dir.path(), &format!("{more}\nkeep = \"last\""), short);
    let out = dir.path().join("two");
    trained(&two, &out, &["-j", "1"]);
    assert_eq!(
        read(&out, "model.safetensors"),
        read(&whole, "model.safetensors")
    );
    assert_ne!(
        read(&out, "heads/digits.safetensors"),
        read(&whole, "heads/digits.safetensors")
    );
}
