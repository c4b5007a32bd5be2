//! Hand-computed comparisons.

use super::*;
use indexmap::IndexMap;

fn predictions(values: &[(&str, f64)]) -> Predictions {
    let examples: IndexMap<String, Example> = values
        .iter()
        .map(|(id, value)| {
            (
                (*id).to_owned(),
                Example {
                    value: *value,
                    texts: None,
                    confidence: None,
                    second: None,
                    input: None,
                },
            )
        })
        .collect();
    Predictions {
        path: "p.csv".into(),
        binary: values.iter().all(|v| v.1 == 0.0 || v.1 == 1.0),
        tasks: [(String::new(), examples)].into(),
    }
}

fn options() -> Options {
    Options {
        alpha: 0.05,
        allow_partial: false,
    }
}

#[test]
fn eleven_against_two() {
    // 20 examples; the second mends 11 and breaks 2: exact McNemar p = 2 (C(13,0)+C(13,1)+C(13,2)) / 2^13.
    let ids: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    let value = |f: &dyn Fn(usize) -> bool| {
        let values: Vec<(&str, f64)> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (id.as_str(), f64::from(u8::from(f(i)))))
            .collect();
        predictions(&values)
    };
    let first = value(&|i| i >= 11);
    let second = value(&|i| !(11..13).contains(&i));
    let c = compare(&first, &second, options()).unwrap();
    let task = &c.tasks[0];
    assert_eq!((task.better.len(), task.worse.len(), task.n), (11, 2, 20));
    assert!((task.p - 2.0 * 92.0 / 8192.0).abs() < 1e-12, "{}", task.p);
    assert!((task.difference - 0.45).abs() < 1e-12);
    assert_eq!(task.verdict, Verdict::Better);
    // The other way round everything changes its sign.
    let back = &compare(&second, &first, options()).unwrap().tasks[0];
    assert_eq!(
        (back.difference, back.p, back.verdict),
        (-task.difference, task.p, Verdict::Worse)
    );
    assert_eq!(back.interval.low, -task.interval.high);
}

#[test]
fn scores_by_students_t() {
    // Differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3) with 2 degrees of freedom, p = 0.0741799.
    let first = predictions(&[("a", 0.5), ("b", 1.5), ("c", 2.5)]);
    let second = predictions(&[("c", 5.5), ("b", 3.5), ("a", 1.5)]);
    let task = &compare(&first, &second, options()).unwrap().tasks[0];
    assert!((task.p - 0.074_179_900_2).abs() < 1e-8, "{}", task.p);
    assert!((task.interval.low - (2.0 - 4.302_652_73 / 3f64.sqrt())).abs() < 1e-6);
    assert_eq!(task.verdict, Verdict::Open);
    assert_eq!(task.better[0].id, "c", "the largest gain first");
}

#[test]
fn examples_that_one_file_lacks() {
    let first = predictions(&[("a", 1.0), ("b", 0.0)]);
    let second = predictions(&[("b", 1.0), ("c", 0.0)]);
    assert_eq!(
        compare(&first, &second, options()).unwrap_err().code(),
        "examples-differ"
    );
    let partial = Options {
        allow_partial: true,
        ..options()
    };
    let c = compare(&first, &second, partial).unwrap();
    assert_eq!((c.tasks[0].n, c.left_out.len()), (1, 2));
    assert!(c.tasks[0].interval.low.is_nan());
    let none = predictions(&[("x", 1.0)]);
    assert_eq!(
        compare(&first, &none, partial).unwrap_err().code(),
        "examples-differ"
    );
}

fn labelled(rows: &[(&str, &str, &str)]) -> Predictions {
    let example = |prediction: &str, label: &str| Example {
        value: f64::from(u8::from(prediction == label)),
        texts: Some((prediction.to_owned(), label.to_owned())),
        confidence: None,
        second: None,
        input: None,
    };
    let rows = rows
        .iter()
        .map(|(id, p, l)| ((*id).to_owned(), example(p, l)));
    Predictions {
        path: "p.csv".into(),
        binary: true,
        tasks: [(String::new(), rows.collect())].into(),
    }
}

fn settings(metric: Metric) -> Settings {
    Settings {
        metric,
        ..options().into()
    }
}

#[test]
fn metrics_of_the_whole_set_are_bootstrapped() {
    // 40 examples of two classes, 30 against 10; the second system finds 8 of the rare class, the first 2.
    let ids: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    let label = |i: usize| if i < 30 { "a" } else { "b" };
    let system = |found: usize| {
        let rows: Vec<(&str, &str, &str)> = (0..40)
            .map(|i| (&*ids[i], if i < 40 - found { "a" } else { "b" }, label(i)))
            .collect();
        labelled(&rows)
    };
    let (first, second) = (system(2), system(8));
    let found = compare_with(
        &first,
        &second,
        &Slices::default(),
        &settings(Metric::MacroF1),
    );
    let task = &found.unwrap().tasks[0];
    // F1 of a: 60/68 and 60/62; of b: 4/12 and 16/18.
    assert!((task.first.mean - 0.5 * (60.0 / 68.0 + 4.0 / 12.0)).abs() < 1e-12);
    assert!((task.second.mean - 0.5 * (60.0 / 62.0 + 16.0 / 18.0)).abs() < 1e-12);
    assert!((task.difference - (task.second.mean - task.first.mean)).abs() < 1e-15);
    assert_eq!(
        (task.test, task.bounds),
        (Test::Bootstrap, Bounds::Percentile)
    );
    assert!(task.interval.low > 0.0 && task.interval.contains(task.difference));
    assert!(task.p < 0.01 && task.verdict == Verdict::Better && task.detectable > 0.0);
    let bca = Settings {
        bounds: Bounds::Bca,
        ..settings(Metric::MacroF1)
    };
    let other = &compare_with(&first, &second, &Slices::default(), &bca)
        .unwrap()
        .tasks[0];
    assert!(other.bounds == Bounds::Bca && other.interval != task.interval);
    assert!((other.interval.low - task.interval.low).abs() < 0.1);
    for (metric, expected) in [
        (Metric::BalancedAccuracy, 0.5 * (1.0 + 0.8)),
        (Metric::WeightedF1, 0.75 * 60.0 / 62.0 + 0.25 * 16.0 / 18.0),
    ] {
        let t = compare_with(&first, &second, &Slices::default(), &settings(metric)).unwrap();
        assert!(
            (t.tasks[0].second.mean - expected).abs() < 1e-12,
            "{metric:?}"
        );
    }
    let wrong = Settings {
        test: Choice::Wilcoxon,
        ..settings(Metric::Mcc)
    };
    let error = compare_with(&first, &second, &Slices::default(), &wrong).unwrap_err();
    assert_eq!(error.code(), "bad-test");
}

#[test]
fn medians_and_the_other_tests() {
    let rows = |shift: f64| -> Vec<(String, f64)> {
        (0..31)
            .map(|i| {
                (
                    i.to_string(),
                    f64::from(i % 7) + shift * f64::from(1 + i % 3),
                )
            })
            .collect()
    };
    let file = |rows: &[(String, f64)]| {
        let rows: Vec<(&str, f64)> = rows.iter().map(|(i, v)| (&**i, *v)).collect();
        predictions(&rows)
    };
    let (first, second) = (file(&rows(0.0)), file(&rows(0.5)));
    let judged = |settings: &Settings| {
        let found = compare_with(&first, &second, &Slices::default(), settings);
        found.map(|c| c.tasks.into_iter().next().unwrap())
    };
    let task = judged(&settings(Metric::Median)).unwrap();
    assert_eq!((task.first.mean, task.test), (3.0, Test::Bootstrap));
    assert!(task.interval.low >= 0.0 && task.interval.high <= 2.0);
    for (test, expected) in [
        (Choice::Wilcoxon, Test::Wilcoxon),
        (Choice::Sign, Test::Sign),
        (Choice::Permutation, Test::Permutation),
        (Choice::Bootstrap, Test::Bootstrap),
        (Choice::PairedT, Test::PairedT),
    ] {
        let settings = Settings {
            test,
            ..settings(Metric::Mean)
        };
        let task = judged(&settings).unwrap();
        assert!(
            task.test == expected && task.p < 0.003,
            "{test:?}: {}",
            task.p
        );
        assert_eq!(task.verdict, Verdict::Better);
    }
    let mcnemar = Settings {
        test: Choice::McNemar,
        ..settings(Metric::Mean)
    };
    assert_eq!(judged(&mcnemar).unwrap_err().code(), "bad-test");
    // Where less is better, the same difference is a loss.
    let lower = Settings {
        lower_is_better: true,
        ..settings(Metric::Mean)
    };
    let task = judged(&lower).unwrap();
    assert!(task.difference > 0.0 && task.verdict == Verdict::Worse);
    assert_eq!((task.worse.len(), task.better.len()), (31, 0));
}

#[test]
fn gates_by_task_and_by_flips() {
    use super::gate::{Gate, Reason};
    let ids: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    let file = |right: usize| {
        let rows: Vec<(&str, f64)> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (&**id, f64::from(u8::from(i < right))))
            .collect();
        predictions(&rows)
    };
    let found = compare(&file(36), &file(24), options()).unwrap();
    let reasons = |gate: &Gate| -> Vec<Reason> {
        gate.faults(&found)
            .unwrap()
            .iter()
            .map(|f| f.reason)
            .collect()
    };
    assert_eq!(reasons(&Gate::default()), []);
    let gate = |allowance: f64| Gate {
        allowance: Some(allowance),
        ..Gate::default()
    };
    assert_eq!(reasons(&gate(0.1)), [Reason::Worse(0.1)]);
    assert_eq!(reasons(&gate(0.4)), []);
    let mut own = gate(0.1);
    own.tasks.insert(String::new(), 0.35);
    assert_eq!(reasons(&own), []);
    let flips = Gate {
        flips: Some(0.2),
        ..Gate::default()
    };
    assert_eq!(reasons(&flips), [Reason::Flips(0.2)]);
    own.tasks.insert("x".into(), 0.35);
    assert_eq!(own.faults(&found).unwrap_err().code(), "no-task");
}

#[test]
fn several_systems_by_hand() {
    use super::many::{Blocks, many};
    let ids: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let file = |f: &dyn Fn(usize) -> f64| {
        let rows: Vec<(&str, f64)> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (&**id, f(i)))
            .collect();
        predictions(&rows)
    };
    let a = file(&|i| (i % 10) as f64 + 0.1 * (i % 3) as f64);
    let b = file(&|i| (i % 10) as f64 + 0.1 * ((i + 1) % 3) as f64);
    let c = file(&|i| (i % 10) as f64 + 2.0);
    let all = [a, b, c];
    let found = many(&all, None, &settings(Metric::Mean)).unwrap();
    assert_eq!(
        (found.blocks, found.n, found.pairs.len()),
        (Blocks::Examples, 60, 3)
    );
    assert_eq!(
        found.ranks.iter().map(|r| r.rank).collect::<Vec<_>>()[2],
        1.0
    );
    assert!(found.ranks[2].best > 0.999 && found.friedman.f_p < 1e-6);
    // The first two are not told apart, the third is.
    assert_eq!(found.groups.groups, [(1, 2)]);
    assert_eq!(found.groups.order[0], 2);
    assert!(found.pairs[0].p_holm > 0.05 && found.pairs[1].p_holm < 1e-6);
    assert!((found.pairs[1].difference - 1.9).abs() < 1e-9);
    let lower = Settings {
        lower_is_better: true,
        ..settings(Metric::Mean)
    };
    let turned = many(&all, Some(Blocks::Examples), &lower).unwrap();
    assert_eq!(turned.ranks[2].rank, 3.0);
    let fewer = [all[0].clone(), predictions(&[("0", 1.0), ("x", 1.0)])];
    assert_eq!(
        many(&fewer, None, &settings(Metric::Mean))
            .unwrap_err()
            .code(),
        "examples-differ"
    );
    let error = many(&all, Some(Blocks::Examples), &settings(Metric::Mcc)).unwrap_err();
    assert_eq!(error.code(), "bad-metric");
}

#[test]
fn scores_alone_are_compared_as_if_unpaired() {
    use super::unpaired::unpaired;
    use crate::evaluate::aggregate::matrix::TaskColumn;
    use crate::evaluate::board::results::{Cell, Results, System, Task};
    let cell = |value: f64, stderr: Option<f64>| {
        Some(Cell {
            stderr,
            ..Cell::new(value)
        })
    };
    let results = Results {
        systems: vec![System::new("a"), System::new("b")],
        tasks: vec![
            Task::new(TaskColumn::new("t"), "accuracy"),
            Task::new(TaskColumn::new("u"), "accuracy"),
            Task::new(TaskColumn::new("v"), "accuracy"),
        ],
        cells: vec![
            cell(0.8, Some(0.03)),
            cell(0.5, None),
            None,
            cell(0.9, Some(0.04)),
            cell(0.6, None),
            cell(0.1, None),
        ],
    };
    let found = unpaired(&results, 0, 1, 0.05).unwrap();
    assert_eq!(found.len(), 2);
    // z = 0.1 / 0.05 = 2: p = 0.0455.
    assert!((found[0].error - 0.05).abs() < 1e-15 && (found[0].p - 0.045_500_26).abs() < 1e-7);
    assert!((found[0].interval.low - (0.1 - 1.959_964 * 0.05)).abs() < 1e-6);
    assert!(found[1].p.is_nan() && found[1].p_holm.is_nan());
    assert_eq!(found[0].p_holm, found[0].p);
}

#[test]
fn the_mean_over_tasks_by_hand() {
    // Differences 1, 2, 3 (variance of the mean 1/3, 2 degrees) and 0, 0, 0, 4 (1, 3 degrees).
    let of = |rows: [&[f64]; 2]| {
        let mut both = predictions(&[]);
        both.tasks.clear();
        for (task, row) in ["a", "b"].iter().zip(rows) {
            let ids: Vec<String> = (0..row.len()).map(|i| i.to_string()).collect();
            let values: Vec<(&str, f64)> = ids
                .iter()
                .map(String::as_str)
                .zip(row.iter().copied())
                .collect();
            let examples = predictions(&values).tasks.swap_remove("").unwrap();
            both.tasks.insert((*task).to_owned(), examples);
        }
        both.binary = false;
        both
    };
    let first = of([&[0.5, 1.5, 2.5], &[1.0; 4]]);
    let second = of([&[1.5, 3.5, 5.5], &[1.0, 1.0, 1.0, 5.0]]);
    let all = compare(&first, &second, options())
        .unwrap()
        .overall
        .unwrap();
    assert_eq!(
        (all.tasks, all.means, all.difference),
        (2, [1.25, 2.75], 1.5)
    );
    assert!((all.error - (4f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
    // (4/3)^2 / (1/9 / 2 + 1 / 3) degrees of freedom.
    let half = t_quantile(0.975, 32.0 / 7.0) * all.error;
    assert!(
        (all.interval.high - 1.5 - half).abs() < 1e-9,
        "{:?}",
        all.interval
    );
    let one = compare(
        &predictions(&[("a", 1.0)]),
        &predictions(&[("a", 0.0)]),
        options(),
    );
    assert!(one.unwrap().overall.is_none());
}
