//! Methods whose decisions stand in files: statistics beside experts, scores beside the recipe.

use std::path::Path;

use polyloom::plan::{self, reference::Places};
use polyloom::recipe;
use polyloom_core::DType;
use polyloom_core::writer::{OutTensor, safetensors_bytes};

use crate::support::{merge, model, read};

/// A tensor file with f32 tensors.
pub(crate) fn tensors(file: &Path, list: &[(&str, &[usize], &[f32])]) {
    tensors_of(file, list, &[]);
}

/// The same with header metadata.
fn tensors_of(file: &Path, list: &[(&str, &[usize], &[f32])], metadata: &[(&str, &str)]) {
    let metadata = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let list: Vec<_> = list
        .iter()
        .map(|(name, shape, values)| {
            let tensor = OutTensor {
                name: (*name).into(),
                dtype: DType::F32,
                shape: shape.to_vec(),
            };
            (
                tensor,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            )
        })
        .collect();
    std::fs::write(file, safetensors_bytes(&list, &metadata.collect())).unwrap();
}

/// Experts `a` (all 0) and `b` (all 4, names behind a prefix), statistics beside the recipe.
fn recipe_file(dir: &Path, method: &str, kind: &str, b: &[(&str, &[usize], &[f32])]) -> String {
    model(
        &dir.join("a"),
        &[("w", &[1, 2], vec![0.0; 2]), ("n", &[1], vec![0.0])],
    );
    model(
        &dir.join("b"),
        &[("m.w", &[1, 2], vec![4.0; 2]), ("m.n", &[1], vec![4.0])],
    );
    let diagonal: &[f32] = &[1.0, 0.0, 0.0, 3.0];
    let gram: (&str, &[usize], &[f32]) = ("w.gram", &[2, 2], diagonal);
    let fisher: [(&str, &[usize], &[f32]); 2] = [
        ("w.fisher", &[1, 2], &[1.0, 3.0]),
        ("n.fisher", &[1], &[1.0]),
    ];
    let own = if kind == "gram" {
        vec![gram]
    } else {
        fisher.to_vec()
    };
    tensors(&dir.join("a.stats"), &own);
    tensors(&dir.join("b.stats"), b);
    let (a, b) = (dir.join("a"), dir.join("b"));
    let text = format!(
        "version = 1\n[[expert]]\npath = '{}'\nstats = 'a.stats'\n[[expert]]\npath = '{}'\nstrip_prefix = 'm.'\nstats = 'b.stats'\n[merge]\nmethod = '{method}'\n",
        a.display(),
        b.display(),
    );
    std::fs::write(dir.join("loom.toml"), &text).unwrap();
    text
}

#[test]
fn statistics_lie_beside_the_recipe_and_go_by_stored_names() {
    let dir = tempfile::tempdir().unwrap();
    recipe_file(
        dir.path(),
        "regmean",
        "gram",
        &[("m.w.gram", &[2, 2], &[3.0, 0.0, 0.0, 1.0])],
    );
    let recipe = recipe::read(&dir.path().join("loom.toml"))
        .unwrap()
        .remove(0);
    let planned = plan::build(recipe.clone(), &Places::default()).unwrap();
    assert!(planned.notes.is_empty(), "{:?}", planned.notes);
    merge(recipe, &dir.path().join("out")).unwrap();
    let out = read(&dir.path().join("out"));
    // (0 * 1 + 4 * 3) / 4 and (0 * 3 + 4 * 1) / 4; the vector is averaged.
    assert_eq!(out["w"], [3.0, 1.0]);
    assert_eq!(out["n"], [2.0]);
    let text = std::fs::read_to_string(dir.path().join("out/polyloom.json")).unwrap();
    assert!(
        text.contains("a.stats") && text.contains("b.stats"),
        "{text}"
    );
}

#[test]
fn regmean_averages_with_a_note_and_fisher_refuses() {
    let dir = tempfile::tempdir().unwrap();
    recipe_file(
        dir.path(),
        "regmean",
        "gram",
        &[("m.other.gram", &[1], &[1.0])],
    );
    let file = dir.path().join("loom.toml");
    let recipe = recipe::read(&file).unwrap().remove(0);
    let planned = plan::build(recipe.clone(), &Places::default()).unwrap();
    assert!(
        planned.notes[0].text.contains("1 of 1 matrices"),
        "{:?}",
        planned.notes
    );
    merge(recipe, &dir.path().join("out")).unwrap();
    assert_eq!(read(&dir.path().join("out"))["w"], [2.0, 2.0]);

    let b: [(&str, &[usize], &[f32]); 1] = [("m.w.fisher", &[1, 2], &[3.0, 1.0])];
    recipe_file(dir.path(), "fisher", "fisher", &b);
    let recipe = recipe::read(&file).unwrap().remove(0);
    let target = dir.path().join("refused");
    let errors = merge(recipe, &target).unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.contains("b.stats: ") && text.contains("`n.fisher`"),
        "{text}"
    );
    assert!(!errors[0].hints().is_empty() && !target.exists());
}

#[test]
fn statistics_of_another_model_or_other_data_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let gram: [(&str, &[usize], &[f32]); 1] = [("m.w.gram", &[2, 2], &[3.0, 0.0, 0.0, 1.0])];
    recipe_file(dir.path(), "regmean", "gram", &gram);
    let planned = || {
        let recipe = recipe::read(&dir.path().join("loom.toml"))
            .unwrap()
            .remove(0);
        plan::build(recipe, &Places::default()).unwrap()
    };
    let prints: Vec<String> = planned()
        .models
        .iter()
        .map(|m| plan::statistics::fingerprint(m).unwrap())
        .collect();
    assert_ne!(prints[0], prints[1]);
    let notes = |model: &str, hash: &str| {
        let said = [("model", model), ("task", "t"), ("task_hash", hash)];
        tensors_of(&dir.path().join("b.stats"), &gram, &said);
        planned().notes
    };
    assert!(notes(&prints[1], "old").is_empty());
    let other = notes(&prints[0], "old");
    assert!(
        other.len() == 1
            && other[0].warning
            && other[0].text.contains("other weights than those of `b`"),
        "{other:?}"
    );
    // What another program calls a model says nothing.
    assert!(notes("mine", "old").is_empty());
    std::fs::write(
        dir.path().join("b/polyloom.json"),
        r#"{"tasks": [{"id": "other", "task_hash": "x"}, {"id": "t", "task_hash": "new"}]}"#,
    )
    .unwrap();
    let other = notes(&prints[1], "old");
    assert!(
        other.len() == 1 && other[0].warning && other[0].text.contains("task `t` was old"),
        "{other:?}"
    );
    assert!(planned().check_strict().is_err());
    assert!(notes(&prints[1], "new").is_empty());
}

#[test]
fn fisher_without_any_file_says_how_to_give_one() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        model(&dir.path().join(name), &[("w", &[1], vec![1.0])]);
    }
    let names = ["a", "b"].map(|n| dir.path().join(n).display().to_string());
    let recipe = recipe::from_models("fisher", None, &names).unwrap();
    let errors = merge(recipe, &dir.path().join("out")).unwrap_err();
    assert!(errors[0].hints()[0].contains("--each stats="), "{errors:?}");
}

#[test]
fn a_greedy_soup_follows_its_score_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [("a", 1.0), ("b", 3.0), ("c", 100.0)] {
        model(&dir.path().join(name), &[("w", &[1], vec![value])]);
    }
    let names = ["a", "b", "c"].map(|n| dir.path().join(n).display().to_string());
    let scores = dir.path().join("scores.csv");
    let run = |text: &str, out: &str| {
        std::fs::write(&scores, text).unwrap();
        let mut recipe = recipe::from_models("greedy_soup", None, &names).unwrap();
        recipe
            .set("merge.shared.scores", scores.to_str().unwrap())
            .unwrap();
        merge(recipe, &dir.path().join(out))
    };
    run("a,3\nb,2\nc,1\na+b,3\na+b+c,1\n", "out").unwrap();
    assert_eq!(read(&dir.path().join("out"))["w"], [2.0]);
    let errors = run("a,3\nb,2\nc,1\na+b,3\n", "missing").unwrap_err();
    assert!(errors[0].hints()[0].contains("`a+b+c,SCORE`"), "{errors:?}");
    assert!(!dir.path().join("missing").exists());
}
