//! Every vector of golden/merging that is a mergekit file, run as a user would run it.

use std::path::Path;

use polyloom::merge;
use polyloom::recipe::mergekit;
use polyloom_core::Checkpoint;
use serde_json::Value;

use crate::support;

/// Compares a folder with an expected file; `rows` maps expected vocabulary rows to ours.
fn compare(
    name: &str,
    out: &Path,
    expected: &Path,
    tolerance: &Value,
    rows: Option<&[usize]>,
    partial: bool,
) -> Result<(), String> {
    let got = Checkpoint::open(out).map_err(|e| e.to_string())?;
    let want = Checkpoint::open(expected).map_err(|e| e.to_string())?;
    let number = |key: &str| tolerance.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let (relative, absolute, allowed) = (
        number("rtol"),
        number("atol"),
        number("max_outliers") as usize,
    );
    let mut outliers = 0;
    let mut worst = String::new();
    for tensor in want.tensors().values() {
        let mine = got
            .get(&tensor.name)
            .ok_or_else(|| format!("{name}: output lacks `{}`", tensor.name))?;
        if mine.shape != tensor.shape {
            return Err(format!(
                "{name}: `{}` has shape {:?}, expected {:?}",
                tensor.name, mine.shape, tensor.shape
            ));
        }
        let (a, b) = (
            got.read_all(mine).map_err(|e| e.to_string())?,
            want.read_all(tensor).map_err(|e| e.to_string())?,
        );
        let width = tensor.row_len();
        let by_token = rows.filter(|r| {
            tensor.shape.first() == Some(&r.len())
                && (tensor.name.contains("embed_tokens") || tensor.name.contains("lm_head"))
        });
        for (i, y) in b.iter().enumerate() {
            let at = by_token.map_or(i, |r| r[i / width] * width + i % width);
            let (x, y) = (f64::from(a[at]), f64::from(*y));
            if (x - y).abs() > absolute + relative * y.abs() || x.is_nan() != y.is_nan() {
                outliers += 1;
                worst = format!("`{}`[{i}]: {x} against {y}", tensor.name);
            }
        }
    }
    // The subset in the repository keeps some tensors of large files.
    if partial {
        return if outliers > allowed {
            Err(format!(
                "{name}: {outliers} elements outside the tolerance, such as {worst}"
            ))
        } else {
            Ok(())
        };
    }
    let surplus: Vec<_> = got
        .tensors()
        .keys()
        .filter(|n| want.get(n).is_none())
        .collect();
    if !surplus.is_empty() {
        return Err(format!("{name}: surplus tensors {surplus:?}"));
    }
    if outliers > allowed {
        return Err(format!(
            "{name}: {outliers} elements outside the tolerance ({allowed} allowed), such as {worst}"
        ));
    }
    Ok(())
}

fn check_config(name: &str, out: &Path, expected: &Value) -> Result<(), String> {
    let config = polyloom_core::checkpoint::read_json(&out.join("config.json"))
        .map_err(|e| e.to_string())?;
    for (key, want) in expected
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, _)| *k != "output_vocab")
    {
        let found = if key == "dtype" {
            config.get("dtype").or_else(|| config.get("torch_dtype"))
        } else {
            config.get(key)
        };
        if found != Some(want) {
            return Err(format!(
                "{name}: config.json has {key} = {found:?}, expected {want}"
            ));
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
        let Some(config) = case.get("config") else {
            continue;
        };
        let name = case["name"].as_str().unwrap();
        let method = config["merge_method"].as_str().unwrap();
        if merge::find(method).is_none() {
            waiting.push(name);
            continue;
        }
        let text = config
            .to_string()
            .replace("@@", &format!("{}/", models.display()));
        let out = dir.path().join(name);
        let result = (|| -> Result<(), String> {
            let all = |e: Vec<polyloom::MergeError>| {
                e.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ")
            };
            let mut recipes = match mergekit::parse(&text, None) {
                Ok(recipes) => recipes,
                Err(_) if case.get("error").is_some_and(|e| !e.is_null()) => return Ok(()),
                Err(e) => return Err(all(e)),
            };
            let mut recipe = recipes.remove(0);
            recipe.truncate_embeddings =
                case["options"]["unsafe_truncate_embeddings"].as_bool() == Some(true);
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
            if name == "bf16_ta_bf16_math" {
                return every_step_in_bf16(
                    &models,
                    &out,
                    &folder.join(case["expected"].as_str().unwrap()),
                    &case["tolerance"],
                );
            }
            let rows = case
                .get("expected_config")
                .and_then(|e| token_rows(&out, e));
            compare(
                name,
                &out,
                &folder.join(case["expected"].as_str().unwrap()),
                &case["tolerance"],
                rows.as_deref(),
                case["partial"] == true,
            )
        })();
        match result {
            Ok(()) => ran += 1,
            Err(message) => failed.push(format!("{name}: {message}")),
        }
    }
    println!("golden merging, mergekit files: {ran} ran; not yet built: {waiting:?}");
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(ran > 0);
}

/// `bf16_ta_bf16_math`: the peer rounds every intermediate to bf16, we round once (methods section 9.1, DESIGN principle
/// 4). Where base and merged vector cancel, its tolerance, relative to the result, cannot hold for a more exact answer.
/// So this shows both halves: the peer's steps, rounded one by one, give its file; and ours is the exact result in f64,
/// rounded once.
fn every_step_in_bf16(
    models: &Path,
    out: &Path,
    expected: &Path,
    tolerance: &Value,
) -> Result<(), String> {
    let open = |p: &Path| Checkpoint::open(p).map_err(|e| e.to_string());
    let set = models.join("llama32_bf16");
    let (base, ours, want) = (open(&set.join("base"))?, open(out)?, open(expected)?);
    let experts = ["ft_a", "ft_b", "ft_c"].map(|n| open(&set.join(n)).unwrap());
    let round = |x: f32| {
        let mut v = [x];
        polyloom_core::dtype::round_through(&mut v, polyloom_core::DType::BF16);
        v[0]
    };
    let (relative, absolute) = (
        tolerance["rtol"].as_f64().unwrap(),
        tolerance["atol"].as_f64().unwrap(),
    );
    let weight = round(0.4);
    for tensor in want.tensors().values() {
        let read = |c: &Checkpoint| c.read_all(c.get(&tensor.name).unwrap()).unwrap();
        let (w0, got, peer) = (read(&base), read(&ours), read(&want));
        let inputs = experts.each_ref().map(read);
        for i in 0..w0.len() {
            let deltas = inputs.each_ref().map(|w| round(w[i] - w0[i]));
            let sum = round(deltas.iter().map(|d| round(d * weight)).sum());
            let emulated = f64::from(round(w0[i] + sum));
            let peer = f64::from(peer[i]);
            if (emulated - peer).abs() > absolute + relative * peer.abs() {
                return Err(format!(
                    "`{}`[{i}]: the peer's steps give {emulated}, its file {peer}",
                    tensor.name
                ));
            }
            let exact: f64 = f64::from(w0[i])
                + inputs
                    .iter()
                    .map(|w| 0.4 * (f64::from(w[i]) - f64::from(w0[i])))
                    .sum::<f64>();
            // Half a unit of bf16, and f32's own rounding of the operands.
            let allowed = exact.abs() / 256.0 + 3e-7 * f64::from(w0[i].abs());
            if (f64::from(got[i]) - exact).abs() > allowed {
                return Err(format!(
                    "`{}`[{i}]: {} is not {exact} rounded once",
                    tensor.name, got[i]
                ));
            }
        }
    }
    Ok(())
}
