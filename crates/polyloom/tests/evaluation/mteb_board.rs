//! The MTEB table of `../shared/data/results` on the board: what docs/results/mteb-board.md says. Skips visibly where the
//! data is absent. The expected numbers were computed from the same file with numpy and scipy (`rankdata`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use polyloom::evaluate::aggregate::comparisons::Comparisons;
use polyloom::evaluate::aggregate::downsample::Downsample;
use polyloom::evaluate::aggregate::kemeny::kemeny;
use polyloom::evaluate::aggregate::mean::{Missing, group_mean, task_mean};
use polyloom::evaluate::aggregate::pairwise::{Estimator, fit};
use polyloom::evaluate::aggregate::ranking::{Borda, Preferences, borda};
use polyloom::evaluate::aggregate::{Direction, ScoreMatrix, Standing, TaskColumn};
use polyloom::tasks::data::{Cell, Limits, read};
use polyloom::tasks::spec::SourceKind;

/// Models x tasks, both in the order of their names.
fn load(path: &Path) -> ScoreMatrix {
    let mut scores = BTreeMap::<(String, String), f64>::new();
    let mut types = BTreeMap::<String, String>::new();
    let mut models = BTreeSet::<String>::new();
    read(
        path,
        SourceKind::Parquet,
        &Limits::default(),
        &mut |table| {
            let column = |name: &str| table.column(name).unwrap();
            let text = |name: &str, row| match column(name).cell(row) {
                Cell::Text(text) => text.to_owned(),
                other => panic!("{name}: {other:?}"),
            };
            for row in 0..table.rows() {
                let (model, task) = (text("model", row), text("task", row));
                types.insert(task.clone(), text("type", row));
                models.insert(model.clone());
                if let Cell::Number(score) = column("score").cell(row) {
                    assert_eq!(scores.insert((model, task), score), None);
                }
            }
            Ok(())
        },
    )
    .unwrap();
    let cell = |model: &String, task: &String| {
        let score = scores.get(&(model.clone(), task.clone()));
        score.copied().unwrap_or(f64::NAN)
    };
    let cells = models
        .iter()
        .flat_map(|m| types.keys().map(move |t| cell(m, t)));
    let cells = cells.collect();
    let tasks = types.iter().map(|(task, group)| {
        let mut column = TaskColumn::new(task.clone());
        column.group = Some(group.clone());
        column
    });
    ScoreMatrix::new(models.iter().cloned().collect(), tasks.collect(), cells).unwrap()
}

/// The part without gaps that is left when the model or task with most gaps goes, again and again.
fn complete(m: &ScoreMatrix) -> ScoreMatrix {
    let mut systems: Vec<usize> = (0..m.systems().len()).collect();
    let mut tasks: Vec<usize> = (0..m.tasks().len()).collect();
    loop {
        let gap = |s: usize, t: usize| usize::from(m.score(s, t).is_none());
        let of_system = systems
            .iter()
            .map(|&s| tasks.iter().map(|&t| gap(s, t)).sum::<usize>());
        let of_task = tasks
            .iter()
            .map(|&t| systems.iter().map(|&s| gap(s, t)).sum::<usize>());
        let (system, by_system) = first_most(of_system);
        let (task, by_task) = first_most(of_task);
        if by_system == 0 {
            return m.select(&systems, &tasks).unwrap();
        }
        if by_system * systems.len() >= by_task * tasks.len() {
            systems.remove(system);
        } else {
            tasks.remove(task);
        }
    }
}

fn first_most(counts: impl Iterator<Item = usize>) -> (usize, usize) {
    counts
        .enumerate()
        .fold((0, 0), |best, now| if now.1 > best.1 { now } else { best })
}

fn best<'m>(m: &'m ScoreMatrix, standing: &Standing, count: usize) -> Vec<(&'m str, f64)> {
    let mut order: Vec<usize> = (0..m.systems().len()).collect();
    order.sort_by_key(|&s| (standing.rank[s].unwrap_or(usize::MAX), s));
    let line = |&s: &usize| (m.systems()[s].as_str(), standing.value[s]);
    order.iter().take(count).map(line).collect()
}

#[test]
fn mteb_board() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/results");
    let path = data.join("mteb_scores.parquet");
    if !path.is_file() {
        println!("skipped: {} is absent", path.display());
        return;
    }
    let all = load(&path);
    assert_eq!((all.systems().len(), all.tasks().len()), (160, 338));
    let points = borda(&all, Borda::AllSystems);
    let sum: f64 = points.value.iter().sum();
    let weighted = points.value.iter().zip(1u32..);
    let weighted: f64 = weighted.map(|(p, i)| p * f64::from(i)).sum();
    assert_eq!((sum, weighted), (4_041_581.0, 315_410_722.0));
    let top = best(&all, &points, 6);
    assert_eq!(top[0], ("codefuse-ai/F2LLM-v2-14B", 50_476.0));
    assert_eq!(
        top[5],
        ("intfloat/multilingual-e5-large-instruct", 44_166.5)
    );

    // Strengths from pairs do not punish for gaps.
    let pairs = Comparisons::of_matrix(&all);
    let theta = fit(&pairs, Estimator::Ridge, 0.0).unwrap().theta;
    let strengths = Standing::new(theta, points.missing.clone(), Some(Direction::Higher));
    let second = best(&all, &strengths, 2)[1].0;
    assert_eq!(second, "Qwen/Qwen3-Embedding-8B");
    let at = all.systems().iter().position(|s| s == second).unwrap();
    println!(
        "{second}: Borda rank {:?}, strength rank 2",
        points.rank[at]
    );
    assert_eq!(points.missing[at], 82);

    let full = complete(&all);
    assert_eq!((full.systems().len(), full.tasks().len()), (103, 205));
    let mean = task_mean(&full, Missing::Strict);
    let by_type = group_mean(&full, Missing::Strict).unwrap();
    let points = borda(&full, Borda::AllSystems);
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b, "{a} against {b}");
    close(mean.value.iter().sum(), 42.757_184_199_850_39);
    let weighted = by_type
        .value
        .iter()
        .zip(1u32..)
        .map(|(x, i)| x * f64::from(i));
    close(weighted.sum(), 1_956.814_286_300_386_4);
    let top: Vec<f64> = best(&full, &points, 8).iter().map(|t| t.1).collect();
    let expected = [
        20212.0, 20121.5, 19792.5, 19328.0, 18671.0, 18530.0, 18363.5, 18143.5,
    ];
    assert_eq!(top, expected);
    let moved = (0..103).map(|s| points.rank[s].unwrap().abs_diff(mean.rank[s].unwrap()));
    println!(
        "largest move between mean and Borda: {} places",
        moved.max().unwrap()
    );

    let preferences = Preferences::of_matrix(&full);
    let winner = preferences.condorcet_winner().unwrap();
    assert_eq!(full.systems()[winner], "codefuse-ai/F2LLM-v2-14B");
    let order = kemeny(&preferences, 1);
    assert_eq!(order.orders[0][0], winner);
    println!(
        "Kemeny: {} disagreements, at most {} from the best",
        order.disagreements,
        order.gap()
    );
    assert!(order.gap() <= 0.001 * order.disagreements);
    let mut first: Vec<usize> = (0..103).collect();
    first.sort_by_key(|&s| points.rank[s]);
    let tasks: Vec<usize> = (0..205).collect();
    let part = full.select(&first[..20], &tasks).unwrap();
    let exact = kemeny(&Preferences::of_matrix(&part), 2);
    assert_eq!((exact.disagreements, exact.unique()), (9660.0, Some(true)));

    let small = Downsample::default().run(&full).unwrap();
    println!(
        "{} tasks stay, Borda agreement {:.4}",
        small.kept.len(),
        small.borda_agreement
    );
    assert!(small.kept.len() < 125 && small.borda_agreement > 0.97);
    let rules = Downsample {
        size: 20,
        least: None,
        ..Downsample::default()
    };
    let twenty = rules.run(&full).unwrap().borda_agreement;
    println!("20 tasks by force: Borda agreement {twenty:.2}");
    assert!(twenty < 0.9);
}
