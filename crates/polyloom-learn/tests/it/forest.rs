//! The vectors of golden/joint that are of trees, and outlier tasks that are planted and found.

#![allow(clippy::print_stdout, reason = "tests say what they leave out")]

use polyloom::tasks::synth::multitab::{Multitab, Weights};
use polyloom_learn::forest::{
    Column, Forest, Labels, Method, Params, RMtgb, Table, Target, UNKNOWN, Values, fit,
};
use serde_json::Value as Json;

use super::balance::case::Case;
use super::balance::cases;

/// Rows of several tasks under each other.
struct Rows {
    table: Table,
    task: Vec<usize>,
    y: Vec<f64>,
}

fn column(name: String, values: Vec<f32>) -> Column {
    Column {
        name,
        values: Values::Number(values),
    }
}

impl Rows {
    fn of(case: &Case, split: &str) -> Self {
        let tensor = |name: &str| case.tensor("data", &format!("{name}_{split}"));
        let (shape, x) = tensor("x");
        let (rows, width) = (shape[0], shape[1]);
        let feature = |j: usize| (0..rows).map(|i| x[i * width + j] as f32).collect();
        Self {
            table: Table {
                rows,
                columns: (0..width)
                    .map(|j| column(format!("x{j}"), feature(j)))
                    .collect(),
                weights: None,
            },
            task: tensor("task").1.iter().map(|t| *t as usize).collect(),
            y: tensor("y").1,
        }
    }

    fn tasks(&self) -> usize {
        self.task.iter().max().unwrap() + 1
    }

    /// A target for each task, with labels on its own rows.
    fn targets(&self, classes: Option<u64>) -> Vec<Target> {
        let labels = |t: usize| {
            let rows = self.task.iter().zip(&self.y);
            match classes {
                None => {
                    let label = |(task, y): (&usize, &f64)| if *task == t { *y } else { f64::NAN };
                    Labels::Regression(rows.map(label).collect())
                }
                Some(n) => {
                    let label =
                        |(task, y): (&usize, &f64)| if *task == t { *y as u32 } else { UNKNOWN };
                    Labels::Classification {
                        classes: n as usize,
                        labels: rows.map(label).collect(),
                    }
                }
            }
        };
        (0..self.tasks())
            .map(|t| Target {
                name: format!("task{t}"),
                labels: labels(t),
                weights: None,
            })
            .collect()
    }

    /// Scores of each row in its own task.
    fn scores(&self, forest: &Forest) -> Vec<f64> {
        let (scores, width) = (forest.scores(&self.table).unwrap(), forest.width());
        let own = |(row, t): (&[f64], &usize)| row[forest.columns(*t)].to_vec();
        scores
            .chunks_exact(width)
            .zip(&self.task)
            .flat_map(own)
            .collect()
    }

    /// The same rows as one task.
    fn pooled(&self, with_task: bool) -> Self {
        let mut columns = self.table.columns.clone();
        if with_task {
            columns.extend((0..self.tasks()).map(|t| {
                let of = self.task.iter().map(|task| f32::from(u8::from(*task == t)));
                column(format!("task{t}"), of.collect())
            }));
        }
        Self {
            table: Table {
                columns,
                ..self.table.clone()
            },
            task: vec![0; self.task.len()],
            y: self.y.clone(),
        }
    }

    /// Root mean square errors of the tasks.
    fn errors(&self, scores: &[f64]) -> Vec<f64> {
        let of = |t: usize| {
            let rows = self.task.iter().zip(scores.iter().zip(&self.y));
            let squares: Vec<f64> = rows
                .filter(|(task, _)| **task == t)
                .map(|(_, (s, y))| (s - y).powi(2))
                .collect();
            mean(&squares).sqrt()
        };
        (0..self.tasks()).map(of).collect()
    }
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn train(table: &Table, targets: &[Target], method: RMtgb) -> Forest {
    let params = Params {
        method: Method::RMtgb(method),
        seed: 0,
    };
    fit(table, targets, None, &params, &mut |_| true).unwrap()
}

/// The method of a case, in our words.
fn method(case: &Case) -> RMtgb {
    let mut params = case.told["canonical"]["params"].clone();
    params["standardise"] = Json::Bool(false);
    params["theta"] = case.tensor("data", "theta0").1.into();
    serde_json::from_value(params).unwrap()
}

fn numbers(told: &Json) -> Vec<f64> {
    let all = told.as_array().unwrap().iter();
    all.map(|x| x.as_f64().unwrap()).collect()
}

fn solve(case: &Case) {
    let (train_rows, test_rows) = (Rows::of(case, "train"), Rows::of(case, "test"));
    let classes = case.param("classes").as_u64();
    let targets = train_rows.targets(classes);
    let forest = train(&train_rows.table, &targets, method(case));
    let data = |name: &str| case.tensor("data", name).1;
    let sides = forest.sides.as_ref().unwrap();
    case.near("theta", &sides.theta, &data("theta"));
    case.near("sigma", &sides.sigma, &case.numbers("sigma"));
    let planted: Vec<f64> = case.numbers("outlier_tasks");
    let found: Vec<f64> = sides.outliers().iter().map(|t| *t as f64).collect();
    assert_eq!(found, planted, "{}", case.name());
    let scores = test_rows.scores(&forest);
    if classes.is_some() {
        case.near("raw_test", &scores, &data("raw_test"));
        let correct = |t: usize| {
            let rows = test_rows.task.iter().zip(scores.chunks_exact(2));
            let rows = rows.zip(&test_rows.y).filter(|((task, _), _)| **task == t);
            let hits: Vec<f64> = rows
                .map(|((_, s), y)| f64::from(u8::from((s[1] > s[0]) == (*y > 0.5))))
                .collect();
            mean(&hits)
        };
        let found: Vec<f64> = (0..test_rows.tasks()).map(correct).collect();
        case.near("accuracy", &found, &case.numbers("accuracy_per_task"));
        return;
    }
    case.near("pred_test", &scores, &data("pred_test"));
    case.near(
        "pred_train",
        &train_rows.scores(&forest),
        &data("pred_train"),
    );
    let told = case.param("rmse_per_task");
    let ours = test_rows.errors(&scores);
    case.near("rmse", &ours, &numbers(&told["rmtgb"]));
    // The baselines of the paper are its blocks alone.
    let blocks = method(case);
    let all = blocks.shared_steps + blocks.outlier_steps + blocks.task_steps;
    let alone = |shared_steps: usize, task_steps: usize| RMtgb {
        shared_steps,
        outlier_steps: 0,
        task_steps,
        theta: None,
        ..blocks.clone()
    };
    let pooled = |with_task: bool| {
        let (train_rows, test) = (train_rows.pooled(with_task), test_rows.pooled(with_task));
        let forest = train(&train_rows.table, &train_rows.targets(None), alone(all, 0));
        test_rows.errors(&test.scores(&forest))
    };
    let single = train(&train_rows.table, &targets, alone(0, all));
    let single = test_rows.errors(&test_rows.scores(&single));
    let (plain, told_task) = (pooled(false), pooled(true));
    case.near("single", &single, &numbers(&told["single"]));
    case.near("pooled", &plain, &numbers(&told["pooled"]));
    case.near(
        "pooled_onehot",
        &told_task,
        &numbers(&told["pooled_onehot"]),
    );
    let means = [&ours, &single, &told_task, &plain].map(|e| mean(e));
    println!(
        "{}: rmse {means:?} (r_mtgb, single, pooled with the task, pooled)",
        case.name()
    );
    assert!(means.is_sorted(), "{means:?}");
}

#[test]
fn golden_joint_forests() {
    let mut ran = 0;
    for (family, case) in cases() {
        if family == "gbdt" {
            assert_eq!(case.told["method"], "r_mtgb");
            solve(&case);
            ran += 1;
        }
    }
    println!("{ran} cases of r_mtgb");
    assert_eq!(ran, 2);
}

/// Rows of the generator, every row with a label for each task.
fn multitab(options: &Multitab) -> (Table, Vec<Target>) {
    let weights = Weights::new(options.clone());
    let rows: Vec<_> = (0..options.count).map(|r| weights.row(r)).collect();
    let feature = |j: usize| rows.iter().map(|r| r.x[j] as f32).collect();
    let target = |t: usize| Target {
        name: format!("y{t}"),
        labels: Labels::Regression(rows.iter().map(|r| r.y[t]).collect()),
        weights: None,
    };
    let table = Table {
        rows: rows.len(),
        columns: (0..options.features)
            .map(|j| column(format!("x{j}"), feature(j)))
            .collect(),
        weights: None,
    };
    (table, (0..options.tasks).map(target).collect())
}

#[test]
fn planted_outlier_tasks_are_found() {
    for seed in 0..3 {
        let options = Multitab {
            seed,
            count: 400,
            tasks: 6,
            features: 10,
            correlation: 0.95,
            degrees: vec![1],
            outliers: 1,
            ..Multitab::default()
        };
        let (table, targets) = multitab(&options);
        let forest = train(&table, &targets, RMtgb::default());
        let sides = forest.sides.unwrap();
        println!("seed {seed}: sigma {:?}", sides.sigma);
        assert_eq!(sides.outliers(), [5], "seed {seed}: {:?}", sides.sigma);
    }
}
