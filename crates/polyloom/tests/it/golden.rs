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

/// Every vector of golden/merging that is stated in registry words (`canonical`).
#[test]
fn golden_canonical_cases() {
    use polyloom::recipe::{self, Part, Setting, Settings};
    const LATER: [&str; 5] = ["adamerging", "atlas", "smile", "twin", "wemoe"];
    let folder = support::golden("merging");
    let manifest = polyloom_core::checkpoint::read_json(&folder.join("manifest.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut ran, mut waiting, mut failed) = (0, Vec::new(), Vec::new());
    let part = |name: &str, params: &Value, skip: &str| {
        let mut settings = Settings::default();
        for (key, value) in params
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| *k != skip)
        {
            settings.insert(
                key.clone(),
                (Setting::Value(value.clone()), recipe::Origin::default()),
            );
        }
        Part {
            name: name.to_owned(),
            settings,
            pre: Vec::new(),
        }
    };
    for case in manifest["cases"].as_array().unwrap() {
        let (canonical, name) = (&case["canonical"], case["name"].as_str().unwrap());
        let (Some(method), Some(expected)) =
            (canonical["method"].as_str(), case["expected"].as_str())
        else {
            continue;
        };
        let adapters = ["combine", "extract"].contains(&method);
        if canonical.get("from").is_some() || adapters || !case["set"].is_string() {
            continue;
        }
        if merge::find(method).is_none() || LATER.contains(&method) {
            waiting.push(name);
            continue;
        }
        let set = folder.join("models").join(case["set"].as_str().unwrap());
        let path = |n: &str| set.join(n).display().to_string();
        let experts: Vec<String> = case["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| path(n.as_str().unwrap()))
            .collect();
        // A base that a method ignores would be one more input.
        let ignored = merge::find(method).unwrap().spec().base == merge::method::Base::Ignored;
        let base = (!ignored).then(|| path("base"));
        let mut recipe = recipe::from_models(method, base.as_deref(), &experts).unwrap();
        recipe.settings = part("", &canonical["params"], "").settings;
        recipe.post = canonical["post"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|s| part(s["step"].as_str().unwrap(), s, "step"))
            .collect();
        if let Some(on) = canonical.get("on") {
            recipe.on = Some(part(on["method"].as_str().unwrap(), &on["params"], ""));
        }
        for (key, values) in canonical["each"].as_object().into_iter().flatten() {
            for (source, value) in recipe.modules[0].slices[0]
                .sources
                .iter_mut()
                .zip(values.as_array().unwrap())
            {
                source.settings.insert(
                    key.clone(),
                    (Setting::Value(value.clone()), recipe::Origin::default()),
                );
            }
        }
        if let Some(extra) = case["extra_inputs"].as_str() {
            let extra = Checkpoint::open(folder.join(extra)).unwrap();
            for source in &mut recipe.modules[0].slices[0].sources {
                let model = &recipe.models[source.model];
                let expert = Checkpoint::open(&model.reference.path).unwrap();
                let file = dir
                    .path()
                    .join(format!("{name}-{}.safetensors", model.name));
                statistics(&extra, &model.name, &expert, &file);
                let value = Setting::Value(file.display().to_string().into());
                let origin = recipe::Origin::default();
                source.settings.insert("stats".into(), (value, origin));
            }
        }
        // Cases that hold masks or other parts per task have no single model to compare.
        let want = Checkpoint::open(folder.join(expected)).unwrap();
        let per_task_names = want
            .tensors()
            .keys()
            .any(|n| n.split('.').nth(1).is_some_and(|p| p.starts_with("ft_")));
        let all = |e: Vec<polyloom::MergeError>| {
            e.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        let out = dir.path().join(name);
        // A post-step `lines` alone is the method `lines` on the same merge.
        if let ([step], None) = (&recipe.post[..], &recipe.on)
            && step.name == "lines"
        {
            let mut as_method = recipe.clone();
            as_method.method = "lines".to_owned();
            as_method.settings = step.settings.clone();
            as_method.post.clear();
            as_method.on = Some(part(method, &canonical["params"], ""));
            let out = dir.path().join(format!("{name}-method"));
            let result = support::merge(as_method, &out).map_err(all).and_then(|_| {
                let expected = folder.join(expected);
                let partial = case["partial"] == true;
                compare(name, &out, &expected, &case["tolerance"], None, partial)
            });
            match result {
                Ok(()) => ran += 1,
                Err(message) => failed.push(format!("as a method: {message}")),
            }
        }
        let result = if !per_task_names {
            support::merge(recipe, &out).map_err(all).and_then(|_| {
                compare(
                    name,
                    &out,
                    &folder.join(expected),
                    &case["tolerance"],
                    None,
                    case["partial"] == true,
                )
            })
        } else {
            per_task(name, &recipe, &want, &case["tolerance"], dir.path())
        };
        match result {
            Ok(()) => ran += 1,
            Err(message) => failed.push(message),
        }
    }
    println!("golden merging, canonical cases: {ran} ran; not yet built: {waiting:?}");
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(ran > 0);
}

/// Writes the statistics file of one task from a case's inputs: `fisher.<task>.<tensor>` holds the values of one
/// tensor, `gram.<task>.<part>` those of every module whose name ends in `.<part>`.
fn statistics(extra: &Checkpoint, task: &str, expert: &Checkpoint, file: &Path) {
    let mut list = Vec::new();
    for weight in expert.tensors().keys() {
        let part = weight.rsplit('.').nth(1).unwrap_or("");
        let gram = (format!("gram.{task}.{part}"), "gram");
        let fisher = (format!("fisher.{task}.{weight}"), "fisher");
        let ends_in_weight = weight.ends_with(".weight");
        for (name, kind) in [Some(gram).filter(|_| ends_in_weight), Some(fisher)]
            .into_iter()
            .flatten()
        {
            let Some(stored) = extra.get(&name) else {
                continue;
            };
            let tensor = polyloom_core::writer::OutTensor {
                name: format!("{weight}.{kind}"),
                dtype: polyloom_core::DType::F32,
                shape: stored.shape.clone(),
            };
            let values = extra.read_all(stored).unwrap();
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            list.push((tensor, bytes));
        }
    }
    assert!(!list.is_empty());
    let bytes = polyloom_core::writer::safetensors_bytes(&list, &Default::default());
    std::fs::write(file, bytes).unwrap();
}

/// Cases with one result per task: masks as 0 and 1 (`mask.<task>.<tensor>`), or restored models.
fn per_task(
    name: &str,
    recipe: &polyloom::recipe::Recipe,
    want: &Checkpoint,
    tolerance: &Value,
    dir: &Path,
) -> Result<(), String> {
    let mut outliers = 0;
    let mut compared = 0;
    let experts: Vec<String> = recipe.modules[0].slices[0]
        .sources
        .iter()
        .map(|s| recipe.models[s.model].name.clone())
        .collect();
    let base = Checkpoint::open(&recipe.models[recipe.base.unwrap()].reference.path)
        .map_err(|e| e.to_string())?;
    for task in &experts {
        let mut recipe = recipe.clone();
        recipe
            .set("merge.shared.task", task)
            .map_err(|e| e.to_string())?;
        let out = dir.join(format!("{name}-{task}"));
        support::merge(recipe, &out).map_err(|e| e[0].to_string())?;
        let got = Checkpoint::open(&out).map_err(|e| e.to_string())?;
        for tensor in want.tensors().values() {
            let Some(rest) = tensor.name.split_once('.').and_then(|(kind, rest)| {
                rest.strip_prefix(&format!("{task}."))
                    .map(|r| (kind, r))
                    .or_else(|| (kind == task).then_some(("model", rest)))
            }) else {
                continue;
            };
            let (kind, of) = rest;
            let (Some(mine), Some(w0)) = (got.get(of), base.get(of)) else {
                continue;
            };
            let (a, b, w0) = (
                got.read_all(mine).unwrap(),
                want.read_all(tensor).unwrap(),
                base.read_all(w0).unwrap(),
            );
            for ((x, y), w0) in a.iter().zip(&b).zip(&w0) {
                compared += 1;
                let ok = if kind == "mask" {
                    // A restored model differs from the base only where the mask is set.
                    *y != 0.0 || x == w0
                } else {
                    (x - y).abs() <= 1e-6 + 1e-5 * y.abs()
                };
                outliers += usize::from(!ok);
            }
        }
    }
    let allowed = tolerance["max_outliers"].as_u64().unwrap_or(0) as usize;
    if compared == 0 {
        return Err(format!(
            "{name}: nothing to compare among {:?}",
            want.tensors().keys().take(3).collect::<Vec<_>>()
        ));
    }
    if outliers > allowed {
        Err(format!(
            "{name}: {outliers} of {compared} elements differ, {allowed} allowed"
        ))
    } else {
        Ok(())
    }
}
