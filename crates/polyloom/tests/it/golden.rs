//! Every vector of golden/merging that is a mergekit file, run as a user would run it.

use std::path::Path;

use polyloom::merge;
use polyloom::recipe::mergekit;
use polyloom_core::Checkpoint;
use serde_json::Value;

use crate::support;

/// Compares a folder with an expected file; `rows` maps expected vocabulary rows to ours.
fn compare(name: &str, out: &Path, expected: &Path, tolerance: &Value, rows: Option<&[usize]>) -> Result<(), String> {
    let got = Checkpoint::open(out).map_err(|e| e.to_string())?;
    let want = Checkpoint::open(expected).map_err(|e| e.to_string())?;
    let number = |key: &str| tolerance.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let (relative, absolute, allowed) = (number("rtol"), number("atol"), number("max_outliers") as usize);
    let mut outliers = 0;
    let mut worst = String::new();
    for tensor in want.tensors().values() {
        let mine = got.get(&tensor.name).ok_or_else(|| format!("{name}: output lacks `{}`", tensor.name))?;
        if mine.shape != tensor.shape {
            return Err(format!("{name}: `{}` has shape {:?}, expected {:?}", tensor.name, mine.shape, tensor.shape));
        }
        let (a, b) = (got.read_all(mine).map_err(|e| e.to_string())?, want.read_all(tensor).map_err(|e| e.to_string())?);
        let width = tensor.row_len();
        let by_token = rows.filter(|r| tensor.shape.first() == Some(&r.len()) && (tensor.name.contains("embed_tokens") || tensor.name.contains("lm_head")));
        for (i, y) in b.iter().enumerate() {
            let at = by_token.map_or(i, |r| r[i / width] * width + i % width);
            let (x, y) = (f64::from(a[at]), f64::from(*y));
            if (x - y).abs() > absolute + relative * y.abs() || x.is_nan() != y.is_nan() {
                outliers += 1;
                worst = format!("`{}`[{i}]: {x} against {y}", tensor.name);
            }
        }
    }
    let surplus: Vec<_> = got.tensors().keys().filter(|n| want.get(n).is_none()).collect();
    if !surplus.is_empty() {
        return Err(format!("{name}: surplus tensors {surplus:?}"));
    }
    if outliers > allowed {
        return Err(format!("{name}: {outliers} elements outside the tolerance ({allowed} allowed), such as {worst}"));
    }
    Ok(())
}

fn check_config(name: &str, out: &Path, expected: &Value) -> Result<(), String> {
    let config = polyloom_core::checkpoint::read_json(&out.join("config.json")).map_err(|e| e.to_string())?;
    for (key, want) in expected.as_object().into_iter().flatten().filter(|(k, _)| *k != "output_vocab") {
        let found = if key == "dtype" { config.get("dtype").or_else(|| config.get("torch_dtype")) } else { config.get(key) };
        if found != Some(want) {
            return Err(format!("{name}: config.json has {key} = {found:?}, expected {want}"));
        }
    }
    Ok(())
}

/// Our row of each expected row, by token.
fn token_rows(out: &Path, expected: &Value) -> Option<Vec<usize>> {
    let vocabulary = expected.get("output_vocab")?.as_object()?;
    let padded = expected.get("vocab_size")?.as_u64()? as usize;
    let ours = polyloom::vocab::Vocab::read(out).ok()??;
    let mut rows: Vec<usize> = (0..padded).collect();
    for (token, row) in vocabulary {
        rows[row.as_u64()? as usize] = ours.id(token)?;
    }
    Some(rows)
}

#[test]
fn golden_mergekit_files() {
    let folder = support::golden("merging");
    let manifest = polyloom_core::checkpoint::read_json(&folder.join("manifest.json")).unwrap();
    let models = std::fs::canonicalize(folder.join("models")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut ran, mut waiting, mut failed) = (0, Vec::new(), Vec::new());
    for case in manifest["cases"].as_array().unwrap() {
        let Some(config) = case.get("config") else { continue };
        let name = case["name"].as_str().unwrap();
        let method = config["merge_method"].as_str().unwrap();
        if merge::find(method).is_none() {
            waiting.push(name);
            continue;
        }
        let text = config.to_string().replace("@@", &format!("{}/", models.display()));
        let out = dir.path().join(name);
        let result = (|| -> Result<(), String> {
            let all = |e: Vec<polyloom::MergeError>| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let mut recipes = match mergekit::parse(&text, None) {
                Ok(recipes) => recipes,
                Err(_) if case.get("error").is_some_and(|e| !e.is_null()) => return Ok(()),
                Err(e) => return Err(all(e)),
            };
            let mut recipe = recipes.remove(0);
            recipe.truncate_embeddings = case["options"]["unsafe_truncate_embeddings"].as_bool() == Some(true);
            let result = support::merge(recipe, &out);
            if case.get("error").is_some_and(|e| !e.is_null()) {
                return match result {
                    Err(_) if !out.exists() => Ok(()),
                    _ => Err(format!("{name}: should have been refused")),
                };
            }
            result.map_err(all)?;
            if let Some(expected) = case.get("expected_config").filter(|e| !e.is_null()) {
                check_config(name, &out, expected)?;
            }
            let rows = case.get("expected_config").and_then(|e| token_rows(&out, e));
            compare(name, &out, &folder.join(case["expected"].as_str().unwrap()), &case["tolerance"], rows.as_deref())
        })();
        match result {
            Ok(()) => ran += 1,
            Err(message) => failed.push(format!("{name}: {message}")),
        }
    }
    println!("golden merging, mergekit files: {ran} ran; not yet built: {waiting:?}");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(ran > 0);
}
