//! Forests over small tables: what they answer, and what they refuse.

use polyloom_core::rng::Stream;

use super::*;
use crate::error::Error;

mod weights;

fn numbers(name: &str, values: Vec<f32>) -> Column {
    Column {
        name: name.into(),
        values: Values::Number(values),
    }
}

fn table(columns: Vec<Column>) -> Table {
    Table {
        rows: columns.first().map_or(0, |c| c.values.len()),
        columns,
        weights: None,
    }
}

fn line(x: &[f32]) -> Table {
    table(vec![numbers("x", x.to_vec())])
}

fn target(name: &str, labels: Labels) -> Target {
    Target {
        name: name.into(),
        labels,
        weights: None,
    }
}

fn regression(y: &[f64]) -> Target {
    target("y", Labels::Regression(y.to_vec()))
}

fn classes(classes: usize, labels: &[u32]) -> Target {
    let labels = labels.to_vec();
    target("c", Labels::Classification { classes, labels })
}

fn params(method: Method) -> Params {
    Params { method, seed: 5 }
}

fn train(data: &Table, targets: &[Target], method: Method) -> Result<Forest, Error> {
    fit(data, targets, None, &params(method), &mut |_| true)
}

fn near(found: &[f64], expected: &[f64]) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
    let same = found.len() == expected.len() && found.iter().zip(expected).all(close);
    assert!(same, "{found:?}, expected {expected:?}");
}

/// Trees that may end with one row.
fn fine(rounds: usize, lr: f64, l2: f64) -> Boost {
    Boost {
        rounds,
        lr,
        growth: Growth {
            l2,
            min_rows: 1,
            ..Growth::default()
        },
        ..Boost::default()
    }
}

/// Rows with three targets of different kinds that depend on the first two columns; every eleventh label is missing.
fn mixed(n: usize) -> (Table, Vec<Target>) {
    let stream = Stream::new(1, "mixed", 0);
    let draw = |j: usize| -> Vec<f32> {
        let at = j * n;
        (0..n).map(|i| stream.normal((at + i) as u64)).collect()
    };
    let (mut a, b, c) = (draw(0), draw(1), draw(2));
    let kind: Vec<u32> = (0..n as u32).map(|i| i % 5).collect();
    let y = |i: usize| f64::from(a[i] + 2.0 * f32::from(kind[i] == 3));
    let hidden = |i: usize, k: usize| i % 11 == k;
    let number = |i: usize| if hidden(i, 0) { f64::NAN } else { 100.0 * y(i) };
    let binary = |i: usize| {
        if hidden(i, 1) {
            UNKNOWN
        } else {
            u32::from(y(i) > 0.5)
        }
    };
    let three = |i: usize| match (hidden(i, 2), b[i]) {
        (true, _) => UNKNOWN,
        (_, b) => u32::from(b > -0.5) + u32::from(b > 0.5),
    };
    let of = |classes: usize, label: &dyn Fn(usize) -> u32| Labels::Classification {
        classes,
        labels: (0..n).map(label).collect(),
    };
    let targets = vec![
        target("number", Labels::Regression((0..n).map(number).collect())),
        target("binary", of(2, &binary)),
        target("three", of(3, &three)),
    ];
    (0..n).step_by(7).for_each(|i| a[i] = f32::NAN);
    let kinds = Column {
        name: "kind".into(),
        values: Values::Category {
            codes: kind,
            cardinality: 5,
        },
    };
    let columns = vec![numbers("a", a), numbers("b", b), numbers("c", c), kinds];
    (table(columns), targets)
}

/// Every method with rows drawn, on tasks that it takes.
pub(super) fn examples() -> Vec<(Table, Vec<Target>, Method)> {
    let (data, targets) = mixed(300);
    let boost = Boost {
        rounds: 20,
        subsample: 0.7,
        ..Boost::default()
    };
    let groups = RMtgb {
        shared_steps: 5,
        outlier_steps: 5,
        task_steps: 3,
        subsample: 0.7,
        ..RMtgb::default()
    };
    let alike = |t: &Target| vec![t.clone(), t.clone()];
    let of = |targets: Vec<Target>, method: Method| (data.clone(), targets, method);
    vec![
        of(alike(&targets[0]), Method::RMtgb(groups.clone())),
        of(alike(&targets[2]), Method::RMtgb(groups)),
        of(targets.clone(), Method::GbdtShared(boost)),
        of(targets, Method::Gbdt(boost)),
    ]
}

#[test]
fn one_step_by_hand() {
    let x = line(&[0.0, 0.0, 1.0, 1.0]);
    let y = [regression(&[0.0, 0.0, 10.0, 10.0])];
    // The mean is 5, residuals are 5 off it; half a step.
    let forest = train(&x, &y, Method::Gbdt(fine(1, 0.5, 0.0))).unwrap();
    near(&forest.scores(&x).unwrap(), &[2.5, 2.5, 7.5, 7.5]);
    // -10 / (2 + 3) of each leaf.
    let forest = train(&x, &y, Method::Gbdt(fine(1, 0.5, 3.0))).unwrap();
    near(&forest.scores(&x).unwrap(), &[4.0, 4.0, 6.0, 6.0]);
    // Gradients of +-1/2, curvature 1/4: leaves of +-2.
    let c = [classes(2, &[0, 0, 1, 1])];
    let forest = train(&x, &c, Method::Gbdt(fine(1, 0.5, 0.0))).unwrap();
    near(
        &forest.scores(&x).unwrap(),
        &[0.0, -1.0, 0.0, -1.0, 0.0, 1.0, 0.0, 1.0],
    );
    let told = forest.predict(&x).unwrap();
    assert!((told[7] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
    // A column that says nothing gains nothing.
    let both = table(vec![numbers("a", vec![1.0; 4]), x.columns[0].clone()]);
    let forest = train(&both, &y, Method::Gbdt(fine(3, 0.5, 0.0))).unwrap();
    let gains = forest.importance();
    // In standard deviations: 2^2/2 + 2^2/2, then a quarter of it, then a quarter of that.
    near(&gains, &[0.0, 4.0 + 1.0 + 0.25]);
}

#[test]
fn targets_of_any_kind_are_learned_alone_and_together() {
    let (data, targets) = mixed(1500);
    let boost = Boost {
        rounds: 60,
        ..Boost::default()
    };
    for method in [Method::Gbdt(boost), Method::GbdtShared(boost)] {
        let forest = train(&data, &targets, method).unwrap();
        assert_eq!((forest.width(), forest.columns(2)), (6, 3..6));
        let told = forest.predict(&data).unwrap();
        let (mut off, mut seen) = (0.0, 0.0);
        let mut hits = [(0.0, 0.0); 2];
        for (row, told) in told.chunks_exact(6).enumerate() {
            if let Some(y) = targets[0].label(row).filter(|_| row % 7 > 0) {
                off += (told[0] - y).powi(2);
                seen += 1.0;
            }
            for (t, hits) in hits.iter_mut().enumerate() {
                let p = &told[forest.columns(t + 1)];
                assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                if let Some(y) = targets[t + 1].label(row).filter(|_| row % 7 > 0) {
                    let best = (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b]));
                    hits.0 += f64::from(u8::from(best == Some(y as usize)));
                    hits.1 += 1.0;
                }
            }
        }
        // The number has a standard deviation of about 130.
        assert!((off / seen).sqrt() < 25.0, "{}", (off / seen).sqrt());
        assert!(hits.iter().all(|h| h.0 / h.1 > 0.95), "{hits:?}");
        let gains = forest.importance();
        assert!(
            gains[2] < 0.2 * gains[0] && gains[2] < 0.2 * gains[1],
            "{gains:?}"
        );
    }
}

#[test]
fn threads_do_not_change_a_forest() {
    for (data, targets, method) in examples() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new();
            let pool = pool.num_threads(threads).build().unwrap();
            pool.install(|| {
                let forest = train(&data, &targets, method.clone()).unwrap();
                let scores = forest.scores(&data).unwrap();
                (forest, scores)
            })
        };
        let one = run(1);
        assert!(one.0.ensembles.iter().any(|e| e.trees[0].leaves() > 2));
        assert_eq!(one, run(2));
        assert_eq!(one, run(3));
    }
}

#[test]
fn targets_that_do_not_vary_are_answered_without_trees() {
    let x = line(&[1.0, 2.0, 3.0]);
    let targets = [
        regression(&[0.1, 0.1, 0.1]),
        regression(&[f64::NAN; 3]),
        classes(3, &[1, 1, UNKNOWN]),
        classes(1, &[0, 0, 0]),
    ];
    for method in [
        Method::Gbdt(Boost::default()),
        Method::GbdtShared(Boost::default()),
    ] {
        let forest = train(&x, &targets, method).unwrap();
        assert!(forest.ensembles.is_empty());
        let told = forest.predict(&x).unwrap();
        assert_eq!(told[..2], [0.1, 0.0]);
        assert!(told[3] > 0.6 && told[5] == 1.0, "{told:?}");
    }
    // One row, and R-MTGB with a task without labels.
    let one = line(&[1.0]);
    for method in [
        Method::Gbdt(Boost::default()),
        Method::RMtgb(RMtgb::default()),
    ] {
        let forest = train(&one, &[regression(&[3.0])], method).unwrap();
        assert_eq!(forest.scores(&line(&[f32::NAN, 7.0])).unwrap(), [3.0, 3.0]);
    }
    let two = [regression(&[1.0, 2.0, 3.0]), regression(&[f64::NAN; 3])];
    let forest = train(&x, &two, Method::RMtgb(RMtgb::default())).unwrap();
    assert!(forest.scores(&x).unwrap().iter().all(|s| s.is_finite()));
}

#[test]
fn missing_values_and_unknown_categories_go_the_missing_way() {
    let codes = vec![0, 0, 1, 1, UNKNOWN, UNKNOWN];
    let x = |codes: Vec<u32>| {
        table(vec![Column {
            name: "k".into(),
            values: Values::Category {
                codes,
                cardinality: 9,
            },
        }])
    };
    let y = [regression(&[0.0, 0.0, 6.0, 6.0, 6.0, 6.0])];
    let mut boost = fine(1, 1.0, 0.0);
    boost.growth.category_smoothing = 0.0;
    let forest = train(&x(codes), &y, Method::Gbdt(boost)).unwrap();
    let told = forest.scores(&x(vec![0, 1, 5, 8, 77, UNKNOWN])).unwrap();
    near(&told, &[0.0, 6.0, 6.0, 6.0, 6.0, 6.0]);
    // Numbers: where training had none missing, they go with the larger side.
    let forest = train(
        &line(&[1.0, 2.0, 2.0]),
        &[regression(&[0.0, 3.0, 3.0])],
        Method::Gbdt(fine(1, 1.0, 0.0)),
    )
    .unwrap();
    near(
        &forest.scores(&line(&[f32::NAN, -9.0])).unwrap(),
        &[3.0, 0.0],
    );
}

#[test]
fn training_ends_when_held_out_rows_say_so() {
    let (data, targets) = mixed(400);
    // Labels of noise: the first trees are the best, if any.
    let stream = Stream::new(2, "noise", 0);
    let noise = |_: &Table| {
        let y = (0..400).map(|i| f64::from(stream.normal(i)));
        vec![regression(&y.collect::<Vec<_>>())]
    };
    let boost = Boost {
        rounds: 100,
        patience: 5,
        ..Boost::default()
    };
    let noisy = noise(&data);
    let held_labels = [regression(&[0.0; 400])];
    let held = |targets| Sample {
        table: &data,
        targets,
    };
    let mut heard = Vec::new();
    let forest = fit(
        &data,
        &noisy,
        Some(held(&held_labels[..])),
        &params(Method::Gbdt(boost)),
        &mut |p| {
            heard.push(p.held.unwrap());
            true
        },
    )
    .unwrap();
    let kept = forest.ensembles[0].trees.len();
    assert_eq!(heard.len(), kept + 5);
    let best = heard.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(heard[kept.max(1) - 1], best);
    // Training rows as held-out rows: it goes on to the end.
    let forest = fit(
        &data,
        &targets,
        Some(held(&targets[..])),
        &params(Method::GbdtShared(boost)),
        &mut |_| true,
    )
    .unwrap();
    assert_eq!(forest.ensembles[0].trees.len(), 100);
    assert!(train(&data, &targets, Method::Gbdt(boost)).is_err());
    let mut count = 0;
    let stopped = fit(&data, &targets, None, &Params::default(), &mut |_| {
        count += 1;
        count < 3
    });
    assert!(matches!(stopped, Err(Error::Ended)) && count == 3);
}

#[test]
fn units_of_targets_do_not_matter() {
    let (data, targets) = mixed(200);
    let y: Vec<f64> = (0..200)
        .map(|i| targets[0].label(i).unwrap_or(0.0))
        .collect();
    let other: Vec<f64> = (0..200).map(|i| (i % 13) as f64).collect();
    let moved: Vec<f64> = y.iter().map(|y| 1e4 * y - 7.0).collect();
    for method in [
        Method::GbdtShared(Boost::default()),
        Method::RMtgb(RMtgb::default()),
    ] {
        let run = |y: &[f64]| {
            let forest = train(&data, &[regression(y), regression(&other)], method.clone());
            forest.unwrap().scores(&data).unwrap()
        };
        let (here, there) = (run(&y), run(&moved));
        for (a, b) in here.chunks(2).zip(there.chunks(2)) {
            assert!((1e4 * a[0] - 7.0 - b[0]).abs() < 1e-2 * 1e4, "{a:?} {b:?}");
            assert!((a[1] - b[1]).abs() < 1e-2, "{a:?} {b:?}");
        }
    }
}

#[test]
fn tasks_on_the_same_rows_are_tasks_under_each_other() {
    let (data, targets) = mixed(150);
    let Values::Number(c) = &data.columns[2].values else {
        panic!("no numbers")
    };
    let first: Vec<f64> = c.iter().map(|c| f64::from(*c).sin()).collect();
    let second: Vec<f64> = (0..150)
        .map(|i| targets[0].label(i).unwrap_or(0.0))
        .collect();
    let x = table(data.columns[..3].to_vec());
    let twice = |column: &Column| match &column.values {
        Values::Number(x) => numbers(&column.name, [&x[..], x].concat()),
        Values::Category { .. } => panic!("no numbers"),
    };
    let under = table(x.columns.iter().map(twice).collect());
    let none = vec![f64::NAN; 150];
    let stacked = [
        regression(&[&first[..], &none].concat()),
        regression(&[&none[..], &second].concat()),
    ];
    let method = Method::RMtgb(RMtgb::default());
    let a = train(
        &x,
        &[regression(&first), regression(&second)],
        method.clone(),
    )
    .unwrap();
    let b = train(&under, &stacked, method).unwrap();
    let (one, two) = (a.scores(&x).unwrap(), b.scores(&x).unwrap());
    for (a, b) in one.iter().zip(&two) {
        assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} {b}");
    }
}

#[test]
fn data_and_parameters_that_do_not_fit_are_refused() {
    let x = line(&[1.0, 2.0]);
    let y = regression(&[1.0, 2.0]);
    let refused = |data: &Table, targets: &[Target], method: Method, says: &str| {
        let told = train(data, targets, method).unwrap_err().to_string();
        assert!(told.contains(says), "{told}");
    };
    let plain = || Method::Gbdt(Boost::default());
    let one = std::slice::from_ref(&y);
    refused(&x, &[], plain(), "no targets");
    refused(&Table::default(), &[regression(&[])], plain(), "no rows");
    refused(&x, &[regression(&[1.0])], plain(), "1 labels for 2 rows");
    refused(&x, &[regression(&[f64::INFINITY, 1.0])], plain(), "inf;");
    refused(&x, &[regression(&[1e101, 1.0])], plain(), "at most 1e100");
    let raw = RMtgb {
        standardise: false,
        ..RMtgb::default()
    };
    let large = [regression(&[1e20, 1.0])];
    refused(&x, &large, Method::RMtgb(raw), "`standardise`");
    refused(&x, &[classes(2, &[0, 2])], plain(), "of class 2");
    refused(&x, &[classes(0, &[0, 0])], plain(), "0 classes");
    let mut bad = x.clone();
    bad.weights = Some(vec![1.0, -1.0]);
    refused(&bad, one, plain(), "weight");
    bad.weights = Some(vec![1.0]);
    refused(&bad, one, plain(), "1 weights");
    bad = x.clone();
    bad.rows = 3;
    refused(&bad, one, plain(), "column `x`");
    let with = |change: &dyn Fn(&mut Boost)| {
        let mut boost = Boost::default();
        change(&mut boost);
        Method::GbdtShared(boost)
    };
    refused(&x, one, with(&|b| b.lr = 0.0), "`lr`");
    refused(&x, one, with(&|b| b.subsample = f64::NAN), "`subsample`");
    refused(&x, one, with(&|b| b.bins = 1), "bins");
    refused(&x, one, with(&|b| b.growth.l2 = -1.0), "`l2`");
    let groups = |theta: &[f64]| {
        Method::RMtgb(RMtgb {
            theta: Some(theta.to_vec()),
            ..RMtgb::default()
        })
    };
    refused(&x, one, groups(&[0.0, 0.0]), "`theta`");
    let mixed = [y.clone(), classes(2, &[0, 1])];
    refused(&x, &mixed, Method::RMtgb(RMtgb::default()), "one kind");
    let forest = train(&x, one, plain()).unwrap();
    let other = table(vec![numbers("z", vec![1.0])]);
    assert!(
        forest
            .scores(&other)
            .unwrap_err()
            .to_string()
            .contains("`x`")
    );
    assert!(forest.scores(&Table::default()).is_err());
    assert!(
        forest
            .scores(&table(vec![numbers("x", vec![]), numbers("y", vec![])]))
            .is_err()
    );
}
