//! The checks of the method's page, and what a user relies on.

use serde_json::json;

use super::log::{Log, World};
use super::multitab::{Answer, Multitab, Weights};
use super::shapes::{CLASSES, Classes, SIDE, Shapes};
use super::*;
use crate::tasks::data::{Column, Table};
use crate::tasks::spec::SourceKind;

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg())
        })
    })
}

#[test]
fn scenes_have_the_bytes_of_the_reference() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    let shapes = Shapes::default();
    let scene = shapes.scene(0);
    assert_eq!((scene.objects, scene.label), (5, 4));
    let found = [
        &scene.image,
        &scene.segmentation,
        &scene.depth,
        &scene.normals,
        &scene.edges,
    ]
    .map(|b| crc32(b));
    let expected: [u32; 5] = [
        0xd877_0d2a,
        0xa373_da46,
        0x1ea8_4f2a,
        0x01d4_cb1b,
        0x053a_5b8c,
    ];
    assert_eq!(
        found.map(|c| format!("{c:08x}")),
        expected.map(|c| format!("{c:08x}"))
    );
    let scene = shapes.scene(1);
    assert_eq!((scene.objects, scene.label), (4, 3));
    assert_eq!(crc32(&scene.image), 0x7c48_df4a);
    assert_eq!(crc32(&scene.segmentation), 0x238a_d615);
}

/// The trivial answers of the page, here on 1,000 scenes.
#[test]
fn trivial_answers_score_what_the_reference_says() {
    let shapes = Shapes::default();
    let mut classes = [0u64; 6];
    let mut labels = [0u64; 5];
    let mut depths: Vec<u16> = Vec::new();
    let (mut edges, mut pixels) = (0u64, 0u64);
    let mut normals: Vec<([f64; 3], bool)> = Vec::new();
    for i in 11_000..12_000 {
        let scene = shapes.scene(i);
        labels[usize::from(scene.label)] += 1;
        for class in &scene.segmentation {
            classes[usize::from(*class)] += 1;
        }
        depths.extend(
            scene
                .depth
                .chunks(2)
                .map(|b| u16::from_le_bytes([b[0], b[1]])),
        );
        edges += scene.edges.iter().map(|e| u64::from(*e)).sum::<u64>();
        pixels += (SIDE * SIDE) as u64;
        let unit = |n: &[u8]| {
            let n: [f64; 3] = std::array::from_fn(|k| f64::from(n[k].cast_signed()));
            let length = n.iter().map(|x| x * x).sum::<f64>().sqrt();
            n.map(|x| x / length)
        };
        let seen = scene.segmentation.iter().map(|c| *c > 0);
        normals.extend(scene.normals.chunks(3).map(unit).zip(seen));
    }
    let background = classes[0] as f64 / pixels as f64;
    assert!((background - 0.64).abs() < 0.01, "{background}");
    // All background: the intersection over union of class 0 is its share, of the others 0.
    assert!((background / CLASSES.len() as f64 - 0.11).abs() < 0.005);
    depths.sort_unstable();
    let median = f64::from(depths[depths.len() / 2]);
    let error = depths
        .iter()
        .map(|d| (f64::from(*d) - median).abs())
        .sum::<f64>();
    let error = error / depths.len() as f64 / 1000.0;
    assert!((error - 3.04).abs() < 0.05, "{error}");
    let share = edges as f64 / pixels as f64;
    assert!((share - 0.075).abs() < 0.003, "{share}");
    let f1 = 2.0 * share / (share + 1.0);
    assert!((f1 - 0.13).abs() < 0.01, "{f1}");
    let most = *labels.iter().max().unwrap() as f64 / 1000.0;
    assert!((most - 0.26).abs() < 0.03, "{most}");
    let mut mean = [0.0; 3];
    for (n, _) in &normals {
        (0..3).for_each(|k| mean[k] += n[k]);
    }
    let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    let angle = |n: &[f64; 3]| {
        let cos: f64 = n.iter().zip(&mean).map(|(a, b)| a * b / length).sum();
        cos.clamp(-1.0, 1.0).acos().to_degrees()
    };
    let all = normals.iter().map(|(n, _)| angle(n)).sum::<f64>() / normals.len() as f64;
    let bodies: Vec<f64> = normals
        .iter()
        .filter(|n| n.1)
        .map(|n| angle(&n.0))
        .collect();
    let on = bodies.iter().sum::<f64>() / bodies.len() as f64;
    assert!((all - 8.8).abs() < 0.3, "{all}");
    assert!((on - 20.5).abs() < 0.5, "{on}");
    let (low, high) = (depths[0], depths[depths.len() - 1]);
    assert!(low >= 4000 && high <= 22_500, "{low} {high}");
}

#[test]
fn colours_can_give_the_class_away() {
    let shapes = Shapes {
        classes: Classes::Colour,
        noise: 0.0,
        ..Shapes::default()
    };
    // Without noise, the ratio of the channels is the class's, whatever the light.
    let mut ratio = [None; 6];
    for i in 0..20 {
        let scene = shapes.scene(i);
        for (class, pixel) in scene.segmentation.iter().zip(scene.image.chunks(3)) {
            if pixel.iter().all(|v| (100..255).contains(v)) {
                let found = f64::from(pixel[0]) / f64::from(pixel[1]);
                let known = *ratio[usize::from(*class)].get_or_insert(found);
                assert!((found - known).abs() < 0.03, "{class}: {found} {known}");
            }
        }
    }
    assert_eq!(
        shapes.scene(3).segmentation,
        Shapes::default().scene(3).segmentation
    );
}

/// The chance that a positive scores above a negative, ties half.
fn auc(mut scored: Vec<(f64, bool)>) -> f64 {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank, mut positive) = (0.0, 0.0);
    for (i, (_, y)) in scored.iter().enumerate() {
        if *y {
            rank += i as f64 + 1.0;
            positive += 1.0;
        }
    }
    let negative = scored.len() as f64 - positive;
    (rank - positive * (positive + 1.0) / 2.0) / (positive * negative)
}

#[test]
fn the_log_has_the_rates_and_planted_scores_of_the_reference() {
    use rayon::prelude::*;
    let world = World::new(Log::default());
    let log: Vec<_> = (0..300_000u64)
        .into_par_iter()
        .map(|r| world.impression(r))
        .collect();
    let first = [(54, 14, 672), (54, 14, 1975), (54, 14, 154)];
    for (r, ((user, want, item), p)) in first
        .into_iter()
        .zip([0.103_960, 0.026_283, 0.259_495])
        .enumerate()
    {
        let i = &log[r];
        assert_eq!((i.user, i.want, i.item), (user, want, item));
        assert!((i.p[0] - p).abs() < 1e-6, "{r}: {}", i.p[0]);
    }
    let count = |n: usize, step: usize| {
        let seen = log[..n].iter().filter(|i| i.observed()[step]).count();
        i64::try_from(seen).unwrap()
    };
    for (n, step, expected) in [
        (1000, 0, 87),
        (10_000, 1, 322),
        (300_000, 0, 24_324),
        (300_000, 1, 9138),
        (300_000, 2, 4109),
    ] {
        let found = count(n, step);
        assert!((found - expected).abs() <= 2, "{n} {step}: {found}");
    }
    let mean = |clicked: bool| {
        let of = log.iter().filter(|i| !clicked || i.observed()[0]);
        let p: Vec<f64> = of.map(|i| i.p[1]).collect();
        p.iter().sum::<f64>() / p.len() as f64
    };
    assert!((mean(true) - 0.380).abs() < 0.001 && (mean(false) - 0.258).abs() < 0.001);
    let test = &log[270_000..];
    let cold = |i: &&super::log::Impression| world.items[i.item as usize].cold;
    assert!((test.iter().filter(cold).count() as f64 / 30_000.0 - 0.16).abs() < 0.01);
    assert_eq!(log[..240_000].iter().filter(cold).count(), 0);
    type Of = fn(&super::log::Impression) -> Option<(f64, bool)>;
    let scores: [(f64, Of); 7] = [
        (0.801, |i| Some((i.p[0], i.observed()[0]))),
        (0.823, |i| {
            i.observed()[0].then(|| (i.p[1], i.observed()[1]))
        }),
        (0.822, |i| {
            i.observed()[1].then(|| (i.p[2], i.observed()[2]))
        }),
        (0.884, |i| Some((i.p[0] * i.p[1], i.observed()[1]))),
        (0.928, |i| Some((i.p[0] * i.p[1] * i.p[2], i.observed()[2]))),
        (0.785, |i| Some((i.p[1], i.potential[1]))),
        (0.792, |i| Some((i.p[2], i.potential[2]))),
    ];
    for (k, (expected, of)) in scores.into_iter().enumerate() {
        let found = auc(test.iter().filter_map(of).collect());
        assert!((found - expected).abs() < 0.001, "{k}: {found} {expected}");
    }
}

#[test]
fn without_bias_both_candidates_are_shown_alike() {
    let clicks = |bias: f64| {
        let world = World::new(Log {
            bias,
            count: 40_000,
            ..Log::default()
        });
        (0..40_000)
            .filter(|r| world.impression(*r).observed()[0])
            .count()
    };
    // What is preferred is shown more often, and clicked more often.
    assert!(clicks(0.0) + 200 < clicks(1.0) && clicks(1.0) + 200 < clicks(5.0));
}

/// R2 on the last 2,000 rows of ridge regression on the first 16,000.
fn ridge(weights: &Weights, task: usize) -> f64 {
    let d = weights.options.features;
    let rows: Vec<_> = (0..20_000).map(|r| weights.row(r)).collect();
    let mut a = vec![vec![0.0; d + 1]; d];
    for row in &rows[..16_000] {
        for (i, line) in a.iter_mut().enumerate() {
            for (j, x) in row.x.iter().enumerate() {
                line[j] += row.x[i] * x;
            }
            line[d] += row.x[i] * row.y[task];
        }
    }
    (0..d).for_each(|i| a[i][i] += 1.0);
    for i in 0..d {
        for k in i + 1..d {
            let factor = a[k][i] / a[i][i];
            let (above, below) = a.split_at_mut(k);
            for (x, y) in below[0][i..=d].iter_mut().zip(&above[i][i..=d]) {
                *x -= factor * y;
            }
        }
    }
    let mut w = vec![0.0; d];
    for i in (0..d).rev() {
        let known: f64 = (i + 1..d).map(|j| a[i][j] * w[j]).sum();
        w[i] = (a[i][d] - known) / a[i][i];
    }
    let test = &rows[18_000..];
    let mean = test.iter().map(|r| r.y[task]).sum::<f64>() / 2000.0;
    let total: f64 = test.iter().map(|r| (r.y[task] - mean).powi(2)).sum();
    let fit = |x: &[f64]| x.iter().zip(&w).map(|(a, b)| a * b).sum::<f64>();
    let left: f64 = test.iter().map(|r| (r.y[task] - fit(&r.x)).powi(2)).sum();
    1.0 - left / total
}

#[test]
fn tables_are_those_of_the_reference() {
    let weights = Weights::new(Multitab::default());
    let dot = |a: usize, b: usize| -> f64 {
        weights.w[a]
            .iter()
            .zip(&weights.w[b])
            .map(|(x, y)| x * y)
            .sum()
    };
    for a in 0..8 {
        for b in 0..8 {
            let expected = if a == b { 1.0 } else { 0.5 };
            assert!((dot(a, b) - expected).abs() < 1e-12, "{a} {b}");
        }
    }
    let row = weights.row(0);
    let close = |found: &[f64], expected: [f64; 3]| {
        let pairs = found.iter().zip(expected);
        pairs.for_each(|(f, e)| assert!((f - e).abs() < 1e-8, "{f} {e}"));
    };
    close(&row.x, [-0.002_578_12, -0.699_524_61, 1.335_869_62]);
    close(&row.y, [-1.621_519_41, -1.139_123_28, -0.327_873_67]);
    for (task, expected) in [(0, 0.80), (1, 0.23), (2, 0.53)] {
        let found = ridge(&weights, task);
        assert!((found - expected).abs() < 0.03, "{task}: {found}");
    }
}

#[test]
fn outlier_tasks_are_orthogonal_to_all_others() {
    let options = Multitab {
        outliers: 2,
        correlation: 0.9,
        ..Multitab::default()
    };
    let w = Weights::new(options).w;
    for a in 0..8 {
        for b in 0..a {
            let cos: f64 = w[a].iter().zip(&w[b]).map(|(x, y)| x * y).sum();
            let expected = if a >= 6 { 0.0 } else { 0.9 };
            assert!((cos - expected).abs() < 1e-12, "{a} {b} {cos}");
        }
    }
}

fn source(generator: &str, options: Value) -> Source {
    let mut source = Source::new(SourceKind::Synth, "");
    source.generator = generator.into();
    if let Value::Object(options) = options {
        source.options = options;
    }
    source
}

#[test]
fn sources_are_read_and_their_faults_named() {
    let found = Generator::of(&source(
        "multitab",
        json!({"degrees": [2], "kind": "mixed"}),
    ));
    let Ok(Generator::Multitab(options)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(
        (options.degrees.clone(), options.kind),
        (vec![2], Answer::Mixed)
    );
    let generator = Generator::Multitab(options);
    assert_eq!(Generator::of(&generator.source()), Ok(generator.clone()));
    assert_eq!(generator.source().options.len(), 2);
    for (name, options, path, part) in [
        (
            "shape",
            json!({}),
            "source.generator",
            "unknown generator `shape`",
        ),
        (
            "shapes",
            json!({"nois": 1}),
            "source.options.nois",
            "no such option",
        ),
        (
            "shapes",
            json!({"noise": "x"}),
            "source.options.noise",
            "invalid type",
        ),
        (
            "shapes",
            json!({"missing": 2.0}),
            "source.options.missing",
            "between 0 and 1",
        ),
        (
            "shapes",
            json!({"seed": 2}),
            "source.seed",
            "stands in `source`",
        ),
        (
            "log",
            json!({"items": 30}),
            "source.options.items",
            "multiple of 20",
        ),
        (
            "multitab",
            json!({"tasks": 40}),
            "source.options.features",
            "at least tasks",
        ),
        (
            "multitab",
            json!({"correlation": -0.2}),
            "source.options.correlation",
            "above -0.1429",
        ),
    ] {
        let fault = Generator::of(&source(name, options)).unwrap_err();
        assert_eq!(fault.path(), path);
        assert!(fault.message.contains(part), "{}", fault.message);
    }
    let near = Generator::of(&source("shape", json!({}))).unwrap_err();
    assert_eq!(near.hint.as_deref(), Some("did you mean `shapes`?"));
}

#[test]
fn the_shipped_specs_are_those_of_the_generators() {
    let shipped = crate::tasks::Catalogue::shipped().unwrap();
    for name in NAMES {
        let spec = &shipped.task(&format!("synth/{name}")).unwrap().spec;
        let generator = Generator::of(&source(name, json!({}))).unwrap();
        let mut made = generator.spec();
        made.source.revision.clone_from(&spec.source.revision);
        assert_eq!(*spec, made, "{name}");
    }
}

#[test]
fn splits_are_the_shares_of_the_reference() {
    let splits = |name: &str, count: u64| {
        let mut source = source(name, json!({}));
        source.count = Some(count);
        let generator = Generator::of(&source).unwrap();
        SPLITS.map(|s| generator.split(s).unwrap())
    };
    assert_eq!(
        splits("shapes", 12_000),
        [0..10_000, 10_000..11_000, 11_000..12_000]
    );
    assert_eq!(
        splits("log", 300_000),
        [0..240_000, 240_000..270_000, 270_000..300_000]
    );
    assert_eq!(splits("log", 1003), [0..800, 800..896, 896..1003]);
    assert_eq!(splits("multitab", 500), [0..400, 400..450, 450..500]);
}

fn missing(table: &Table, column: &str) -> usize {
    let Some(column) = table.column(column) else {
        panic!("no column {column}");
    };
    let cells = (0..table.rows()).map(|i| column.cell(i));
    cells
        .filter(|c| *c == crate::tasks::data::Cell::Null)
        .count()
}

#[test]
fn targets_are_withheld_in_training_only() {
    let options = json!({"missing": 0.4});
    let generator = Generator::of(&source("shapes", options.clone())).unwrap();
    let rows = Rows::new(generator);
    let (train, test) = (
        rows.table(Part::Rows, 0..200),
        rows.table(Part::Rows, 11_000..11_100),
    );
    for target in shapes::TARGETS {
        let share = missing(&train, target) as f64 / 200.0;
        assert!((share - 0.4).abs() < 0.12, "{target}: {share}");
        assert_eq!(missing(&test, target), 0);
    }
    assert_eq!(missing(&train, "image"), 0);
    let rows = Rows::new(Generator::of(&source("multitab", options)).unwrap());
    let table = rows.table(Part::Rows, 0..1000);
    assert!((missing(&table, "y3") as f64 / 1000.0 - 0.4).abs() < 0.06);
    assert_eq!(missing(&rows.table(Part::Rows, 16_000..20_000), "y3"), 0);
}

#[test]
fn rows_do_not_depend_on_threads_or_batches() {
    for (name, n) in [
        ("shapes", 40u64),
        ("log", 500),
        ("multitab", 500),
        ("fields", 40),
    ] {
        let rows = Rows::new(Generator::of(&source(name, json!({}))).unwrap());
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let whole = one.install(|| rows.table(Part::Rows, 0..n));
        let three = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap();
        assert_eq!(three.install(|| rows.table(Part::Rows, 0..n)), whole);
        let tail = rows.table(Part::Rows, n / 3..n);
        assert_eq!(whole.filtered(|i| i as u64 >= n / 3), tail);
    }
}

#[test]
fn a_spec_reads_the_rows_that_a_folder_holds() {
    use crate::tasks::data::Limits;
    use crate::tasks::load::Loader;
    use crate::tasks::{Roots, task_json};
    let dir = tempfile::tempdir().unwrap();
    for (name, count, options) in [
        ("shapes", 48u64, json!({"missing": 0.5})),
        ("log", 400, json!({})),
        ("fields", 60, json!({"geometry": "triangle"})),
        ("multitab", 300, json!({"kind": "mixed", "features": 9})),
    ] {
        let mut source = source(name, options);
        source.count = Some(count);
        let generator = Generator::of(&source).unwrap();
        let folder = dir.path().join(name);
        let (_, written) = write(&generator, &folder, false, &mut |_| Ok(())).unwrap();
        assert_eq!(written.len(), if name == "log" { 5 } else { 3 });
        let text = std::fs::read_to_string(folder.join("task.json")).unwrap();
        assert!(text.contains("\"synthetic\": true") && text.contains("Synthetic: "));
        let stored = task_json::read(&folder).unwrap();
        let spec = generator.spec();
        assert!(crate::tasks::validate::task(&spec).is_empty());
        assert_eq!(stored.task_ids(&[]).len(), spec.task_ids(&[]).len());
        assert_eq!(stored.source.size, spec.source.size);
        for (a, b) in stored.targets.iter().zip(&spec.targets) {
            assert_eq!(a, b);
        }
        let entry = crate::tasks::catalogue::Entry {
            spec: spec.clone(),
            file: None,
        };
        let nowhere = Roots::default().folder(&entry).unwrap();
        let read = |spec: &crate::tasks::TaskSpec, folder: &std::path::Path, split: &str| {
            let loader = Loader::new(spec, folder.to_owned(), Limits::default());
            let mut all = Vec::new();
            loader
                .rows(split, &mut |t| {
                    all.push(t);
                    Ok(())
                })
                .unwrap();
            assert_eq!(all.len(), 1);
            all.remove(0)
        };
        for split in SPLITS {
            let (a, b) = (read(&spec, &nowhere, split), read(&stored, &folder, split));
            assert_eq!(a, b, "{name} {split}");
            assert!(a.rows() > 0);
        }
        if name == "log" {
            assert!(stored.targets[1].sample == "click == 1");
            assert!(matches!(
                read(&stored, &folder, "test").column("user"),
                Some(Column::Text(_))
            ));
        }
        assert!(write(&generator, &folder, false, &mut |_| Ok(())).is_err());
        let bytes = std::fs::read(folder.join("train.parquet")).unwrap();
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let again = one.install(|| write(&generator, &folder, true, &mut |_| Ok(())));
        assert!(again.is_ok());
        assert_eq!(std::fs::read(folder.join("train.parquet")).unwrap(), bytes);
    }
}
