//! Whole comparisons of small files, with answers by hand.

use std::path::Path;

use polyloom_core::DType;
use polyloom_core::peft::{AdapterTensor, write_adapter};
use polyloom_core::rng::Stream;
use polyloom_core::writer::FolderOptions;
use serde_json::{Map, json};

use super::*;
use crate::plan::reference::Places;

/// A safetensors file of `f32` tensors.
fn model(dir: &Path, name: &str, tensors: &[(&str, &[usize], &[f32])]) -> String {
    let mut header = Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, values) in tensors {
        let from = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    let path = dir.join(format!("{name}.safetensors"));
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// A PEFT folder with one rank-1 module of scale 2.
fn adapter(dir: &Path, name: &str, module: &str, b: &[f32], a: &[f32]) -> String {
    let tensor = |suffix: &str, shape: [usize; 2], values: &[f32]| AdapterTensor {
        name: format!("base_model.model.{module}.{suffix}.weight"),
        dtype: DType::F32,
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": [module]});
    let target = dir.join(name);
    write_adapter(
        &target,
        config.as_object().unwrap(),
        &[
            tensor("lora_A", [1, a.len()], a),
            tensor("lora_B", [b.len(), 1], b),
        ],
        "",
        FolderOptions::default(),
    )
    .unwrap();
    target.display().to_string()
}

fn compare(
    base: Option<&str>,
    experts: &[String],
    options: &Options,
) -> Result<Report, Vec<MergeError>> {
    measure(&open(base, experts, &Places::default())?, options)
}

const W: &str = "encoder.layer.0.w";
const B: &str = "encoder.layer.1.b";

fn two_experts(dir: &Path) -> (String, Vec<String>) {
    let base = model(
        dir,
        "base",
        &[(W, &[2, 2], &[1.0; 4]), (B, &[2], &[0.0; 2])],
    );
    // Differences: (1, 0, 0, -1), (3, 0) and (-1, 0, 1, -1), (0, 4).
    let x = model(
        dir,
        "x",
        &[(W, &[2, 2], &[2.0, 1.0, 1.0, 0.0]), (B, &[2], &[3.0, 0.0])],
    );
    let y = model(
        dir,
        "y",
        &[(W, &[2, 2], &[0.0, 1.0, 2.0, 0.0]), (B, &[2], &[0.0, 4.0])],
    );
    (base, vec![x, y])
}

#[test]
fn two_experts_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let (base, experts) = two_experts(dir.path());
    let options = Options {
        top: 0.5,
        spectral: Some(true),
        ..Options::default()
    };
    let report = compare(Some(&base), &experts, &options).unwrap();
    let w = &report.tensors[0].numbers;
    assert_eq!(
        (w.dots.as_slice(), w.base_square),
        ([2.0, 0.0, 0.0, 3.0].as_slice(), Some(4.0))
    );
    assert_eq!(
        (w.changed.as_slice(), w.both[1], w.opposed[1], w.conflicts),
        ([2, 3].as_slice(), 2, 1, 1)
    );
    assert_eq!((w.conflict(), w.pair_conflict(0, 1)), (0.25, Some(0.5)));
    // Half of four entries: x keeps 0 and 3; y has three of one size and keeps the first two, 0 and 2.
    assert_eq!(
        (w.top.as_slice(), w.top_both[1], w.top_opposed[1]),
        ([2, 2].as_slice(), 1, 1)
    );
    assert_eq!(
        (w.overlap(0, 1), w.top_shared, w.top_conflicts),
        (Some(1.0 / 3.0), 1, 1)
    );
    let total = &report.total;
    assert_eq!((total.norm(0), total.norm(1)), (11f64.sqrt(), 19f64.sqrt()));
    assert_eq!(
        (total.relative(0), total.cosine(0, 1)),
        (Some(11f64.sqrt() / 2.0), 0.0)
    );
    assert_eq!(total.overlap(0, 1), Some(0.2));
    assert_eq!(total.changed_share(1), 4.0 / 6.0);
    // [[1, 0], [0, -1]] has singular values 1, 1; [[-1, 0], [1, -1]] has sqrt((3 +- sqrt 5) / 2), so its stable rank
    // is 3 / ((3 + sqrt 5) / 2).
    assert!((total.spectra[0].effective - 2.0).abs() < 1e-12);
    assert!((total.spectra[1].stable - 6.0 / (3.0 + 5f64.sqrt())).abs() < 1e-12);
    assert_eq!(total.spectra[0].matrices, 1);
    let layers: Vec<&str> = report.layers.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(layers, ["encoder.layer.0", "encoder.layer.1"]);
    assert_eq!(report.layers[0].numbers, *w);
    // The same numbers reach all three renderings.
    let (text, html) = (report.text(Detail::Tensor), report.html());
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    assert!(text.contains("encoder.layer.1\n  b ") && html.contains("x and y: overlap 0.200"));
    let events = report.events();
    assert_eq!(events[1]["overlap"][0][1], json!(1.0 / 3.0));
    let model = events.iter().find(|e| e["type"] == "model").unwrap();
    assert_eq!(model["sign_conflict"], json!(1.0 / 6.0));
}

#[test]
fn intruders_are_new_leading_directions() {
    let dir = tempfile::tempdir().unwrap();
    let base = model(dir.path(), "base", &[("w", &[2, 2], &[4.0, 0.0, 0.0, 3.0])]);
    // The leading left vector is close to (1, 1) / sqrt 2, whose cosine with the base's is about 0.71.
    let x = model(
        dir.path(),
        "x",
        &[("w", &[2, 2], &[104.0, 0.0, 100.0, 3.0])],
    );
    let y = model(dir.path(), "y", &[("w", &[2, 2], &[4.0, 0.0, 0.0, 3.5])]);
    let count = |epsilon| {
        let options = Options {
            spectral: Some(true),
            intruders: IntruderRule { k: 1, epsilon },
            ..Options::default()
        };
        let report = compare(Some(&base), &[x.clone(), y.clone()], &options).unwrap();
        report
            .total
            .spectra
            .iter()
            .map(|s| s.intruders.unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((count(0.8), count(0.5)), (vec![1, 0], vec![0, 0]));
}

#[test]
fn chunks_and_threads_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let values = |i: u64| -> Vec<f32> {
        let s = Stream::new(7, "t", i);
        // Coarse steps: many equal magnitudes at the cut.
        (0..150_000)
            .map(|k| (s.normal(k) * 4.0).round() / 64.0)
            .collect()
    };
    let shape: &[usize] = &[300, 500];
    let file = |name: &str, i| model(dir.path(), name, &[("w", shape, &values(i))]);
    let base = file("base", 0);
    let experts: Vec<String> = (1..4).map(|i| file(&format!("e{i}"), i)).collect();
    let run = |chunk: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let options = Options {
            chunk,
            ..Options::default()
        };
        pool.install(|| compare(Some(&base), &experts, &options).unwrap())
    };
    let first = run(0, 1);
    assert_eq!(first.total.top, [30_000; 3]);
    for (chunk, threads) in [(1, 1), (4096, 3), (8192, 2), (0, 4)] {
        let again = run(chunk, threads);
        assert_eq!(again.total, first.total, "{chunk} {threads}");
        assert_eq!(again.events(), first.events());
    }
}

#[test]
fn adapters_are_what_they_are_when_folded() {
    let dir = tempfile::tempdir().unwrap();
    let module = "layers.0.q";
    let x = adapter(
        dir.path(),
        "x",
        module,
        &[1.0, 0.0, 2.0],
        &[1.0, -1.0, 0.0, 3.0],
    );
    let y = adapter(
        dir.path(),
        "y",
        module,
        &[-1.0, 1.0, 1.0],
        &[2.0, 0.0, 1.0, 1.0],
    );
    let experts = [x, y];
    let alone = compare(None, &experts, &Options::default()).unwrap();
    // <B1 A1, B2 A2> = 2 * 2 * (b1 . b2) (a1 . a2) = 4 * 1 * 5; norms 2 |b| |a|.
    let n = &alone.total;
    assert_eq!(n.dots, [4.0 * 5.0 * 11.0, 20.0, 20.0, 4.0 * 3.0 * 6.0]);
    assert!((n.spectra[0].effective - 1.0).abs() < 1e-9);
    let weight = format!("{module}.weight");
    let base = model(dir.path(), "base", &[(&weight, &[3, 4], &[0.0; 12])]);
    let folded = compare(Some(&base), &experts, &Options::default()).unwrap();
    let f = &folded.total;
    assert_eq!(
        (&f.dots, &f.opposed, &f.conflicts),
        (&n.dots, &n.opposed, &n.conflicts)
    );
    assert_eq!(
        (&f.top_both, &f.changed, &f.top_conflicts),
        (&n.top_both, &n.changed, &n.top_conflicts)
    );
    assert_eq!(folded.experts, ["x", "y"]);
    assert!(
        alone
            .indicators
            .iter()
            .all(|i| i.code != "intruders" && i.code != "changed")
    );
}

fn only_error(result: Result<Report, Vec<MergeError>>) -> (String, Vec<String>) {
    let errors = result.expect_err("must be refused");
    assert_eq!(errors.len(), 1, "{errors:?}");
    (errors[0].to_string(), errors[0].hints())
}

#[test]
fn what_cannot_be_compared_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (base, experts) = two_experts(d);
    let options = Options::default();

    let odd = model(d, "odd", &[(W, &[4], &[1.0; 4]), (B, &[2], &[0.0; 2])]);
    let (text, hints) = only_error(compare(Some(&base), std::slice::from_ref(&odd), &options));
    assert!(
        text.contains("odd.safetensors") && text.contains(W) && text.contains("[4]"),
        "{text}"
    );
    assert!(
        hints[0].contains(r"--exclude '^encoder\.layer\.0\.w$'"),
        "{hints:?}"
    );
    let rest = Options {
        exclude: Some(r"^encoder\.layer\.0\.w$".into()),
        ..Options::default()
    };
    assert_eq!(
        compare(Some(&base), &[odd], &rest).unwrap().tensors.len(),
        1
    );

    let names = ["a", "b", "c", "d"];
    let four = |name: &str, shape: &[usize]| {
        let tensors: Vec<_> = names
            .iter()
            .map(|n| (*n, shape, &[1.0f32; 4][..]))
            .collect();
        model(d, name, &tensors)
    };
    let (square, line) = (four("square", &[2, 2]), four("line", &[4]));
    let (text, hints) = only_error(compare(Some(&square), &[line], &options));
    assert!(
        text.starts_with("4 of 4 tensors have other shapes"),
        "{text}"
    );
    assert!(
        text.contains("line.safetensors") && hints[0].contains("--base"),
        "{text}"
    );

    let other = model(d, "other", &[("conv", &[2], &[1.0; 2])]);
    let (text, _) = only_error(compare(Some(&base), &[other], &options));
    assert!(
        text.contains("other.safetensors") && text.contains("`conv`"),
        "{text}"
    );

    let nan = model(
        d,
        "nan",
        &[
            (W, &[2, 2], &[1.0, f32::NAN, 1.0, 1.0]),
            (B, &[2], &[0.0; 2]),
        ],
    );
    let (text, _) = only_error(compare(Some(&base), &[nan], &options));
    assert!(
        text.contains("nan.safetensors") && text.contains("NaN at element 1"),
        "{text}"
    );

    let (text, hints) = only_error(compare(None, &experts[..1], &options));
    assert!(
        text.contains("against its base") && hints[0].contains("--base"),
        "{text}"
    );

    let (text, _) = only_error(compare(Some(&base), std::slice::from_ref(&base), &options));
    assert!(text.contains("no expert"), "{text}");

    let bad = Options {
        top: 0.0,
        ..Options::default()
    };
    assert!(
        only_error(compare(Some(&base), &experts, &bad))
            .0
            .contains("(0, 1]")
    );

    let x = adapter(d, "ax", "layers.0.q", &[1.0, 2.0], &[1.0, 1.0]);
    let wide = adapter(d, "wide", "layers.0.q", &[1.0, 2.0], &[1.0, 1.0, 1.0]);
    let (text, _) = only_error(compare(None, &[x.clone(), wide], &options));
    assert!(
        text.contains("wide") && text.contains("layers.0.q") && text.contains("[2, 3]"),
        "{text}"
    );
    let far = adapter(d, "far", "blocks.0.k", &[1.0, 2.0], &[1.0, 1.0]);
    let (text, hints) = only_error(compare(None, &[x, far], &options));
    assert!(
        text.contains("blocks.0.k") && hints[0].contains("one base"),
        "{text}"
    );
}

#[test]
fn a_common_prefix_is_seen_through() {
    let dir = tempfile::tempdir().unwrap();
    let base = model(dir.path(), "base", &[(W, &[2, 2], &[1.0; 4])]);
    let prefixed = format!("bert.{W}");
    let head: (&str, &[usize], &[f32]) = ("classifier.weight", &[1, 2], &[0.0; 2]);
    let x = model(dir.path(), "x", &[(&prefixed, &[2, 2], &[2.0; 4]), head]);
    let report = compare(Some(&base), &[x], &Options::default()).unwrap();
    assert_eq!(report.total.dots, [4.0]);
    assert!(
        report.notes[0].contains("without the prefix `bert.`"),
        "{:?}",
        report.notes
    );
    assert!(
        report.notes[1].contains("classifier.weight"),
        "{:?}",
        report.notes
    );
}

#[test]
fn an_expert_equal_to_its_base_divides_by_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (base, mut experts) = two_experts(dir.path());
    experts.push(model(
        dir.path(),
        "same",
        &[(W, &[2, 2], &[1.0; 4]), (B, &[2], &[0.0; 2])],
    ));
    let options = Options {
        spectral: Some(true),
        ..Options::default()
    };
    let report = compare(Some(&base), &experts, &options).unwrap();
    let n = &report.total;
    assert_eq!(
        (n.cosine(0, 2), n.overlap(0, 2), n.pair_conflict(0, 2)),
        (0.0, Some(0.0), None)
    );
    assert_eq!(n.spectra[2].effective, 0.0);
    let ratio = report
        .indicators
        .iter()
        .find(|i| i.code == "norm-ratio")
        .unwrap();
    assert!(
        ratio.reading.contains("same changes nothing"),
        "{}",
        ratio.reading
    );
    assert!(!report.text(Detail::Layer).contains("NaN") && !report.html().contains("NaN"));
}

#[test]
fn elected_signs_are_named_between_agreement_and_chance() {
    let dir = tempfile::tempdir().unwrap();
    let base = model(dir.path(), "base", &[(W, &[20], &[0.0; 20])]);
    let ones = model(dir.path(), "ones", &[(W, &[20], &[1.0; 20])]);
    // So many of 20 entries have the other sign.
    for (opposed, speaks, names_ties) in [
        (1, Speaks::For, false),
        (3, Speaks::Nothing, false),
        (6, Speaks::For, true),
        (8, Speaks::Nothing, false),
        (10, Speaks::Nothing, false),
    ] {
        let values: Vec<f32> = (0..20)
            .map(|i| if i < opposed { -1.0 } else { 1.0 })
            .collect();
        let other = model(dir.path(), "other", &[(W, &[20], &values)]);
        let options = Options {
            top: 1.0,
            ..Options::default()
        };
        let report = compare(Some(&base), &[ones.clone(), other], &options).unwrap();
        let found = report
            .indicators
            .iter()
            .find(|i| i.code == "sign-conflict")
            .unwrap();
        assert_eq!(found.value, f64::from(opposed) / 20.0);
        assert_eq!(found.speaks, speaks, "{opposed}");
        assert_eq!(
            found.reading.contains("elect signs (`ties`"),
            names_ties,
            "{opposed}"
        );
    }
}

#[test]
fn many_experts_fit_the_terminal_and_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let base = model(dir.path(), "base", &[(W, &[4, 5], &[0.0; 20])]);
    let experts: Vec<String> = (0..17)
        .map(|i| {
            let s = Stream::new(3, "many", i);
            let values: Vec<f32> = (0..20).map(|k| s.normal(k)).collect();
            let name = format!("an-expert-with-a-rather-long-name-<{i}>");
            model(dir.path(), &name, &[(W, &[4, 5], &values)])
        })
        .collect();
    for n in [9, 12, 17] {
        let report = compare(Some(&base), &experts[..n], &Options::default()).unwrap();
        let text = report.text(Detail::Tensor);
        let wide = text.lines().find(|l| l.chars().count() > 80);
        assert_eq!(wide, None);
        assert_eq!(text.contains("closest and farthest pairs"), n > 15);
        // Every pair stands in the page, by name, and no name is markup.
        let html = report.html();
        assert!(html.contains("&lt;0&gt; and an-expert") && !html.contains("<0>"));
        assert_eq!(html.matches(": cosine ").count(), n * n + 1);
    }
}
