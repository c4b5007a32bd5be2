//! A table with 95 % of its cells missing: which way of counting finds the true order? What docs/results/sparse-board.md
//! says.

use crate::evaluate::aggregate::comparisons::Comparisons;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::{Direction, ScoreMatrix, TaskColumn};
use crate::evaluate::board::counting::Aggregate;
use crate::evaluate::board::ranking::rank;
use crate::evaluate::metric::correlation::{KendallVariant, kendall};
use crate::evaluate::statistics::draw::{Draw, Seed};
use crate::evaluate::statistics::mean::t_interval;
use crate::evaluate::statistics::special::normal_quantile;

const SYSTEMS: usize = 60;
const TASKS: usize = 400;

fn normal(draw: &mut Draw) -> f64 {
    normal_quantile(draw.unit() + 0.5 / (1u64 << 53) as f64)
}

/// True abilities, and a table in which every task has a scale, a direction, a difficulty and a noise of its own. A cell
/// is kept with a chance of 5 %; stronger systems tend to be measured on harder tasks, as on real boards.
fn world(seed: u64) -> (Vec<f64>, ScoreMatrix) {
    let mut draw = Seed::of("sparse board", &seed.to_string()).draw(0);
    let ability: Vec<f64> = (0..SYSTEMS).map(|_| normal(&mut draw)).collect();
    let mut cells = vec![f64::NAN; SYSTEMS * TASKS];
    let mut tasks = Vec::new();
    for t in 0..TASKS {
        let (hard, noise) = (normal(&mut draw), 0.5 + draw.unit());
        let kind = draw.index(3);
        let direction = if kind == 2 {
            Direction::Lower
        } else {
            Direction::Higher
        };
        tasks.push(TaskColumn::new(format!("t{t}")).with_direction(Some(direction)));
        for (s, a) in ability.iter().enumerate() {
            let x = a - hard + noise * normal(&mut draw);
            let keep = 0.1 / (1.0 + (-2.0 * a * hard).exp());
            if draw.unit() < keep {
                cells[s * TASKS + t] = match kind {
                    0 => 1.0 / (1.0 + (-x).exp()),
                    1 => 50.0 + 10.0 * x,
                    _ => (2.0 - 0.4 * x).exp(),
                };
            }
        }
    }
    let systems = (0..SYSTEMS).map(|s| format!("s{s}")).collect();
    (ability, ScoreMatrix::new(systems, tasks, cells).unwrap())
}

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the numbers of docs/results/sparse-board.md"
)]
fn strengths_find_the_order_in_five_per_cent() {
    let by = [
        Aggregate::BradleyTerry,
        Aggregate::PlackettLuce,
        Aggregate::WinRate,
        Aggregate::MeanRank,
        Aggregate::BordaAll,
        Aggregate::Mean,
    ];
    let mut taus = vec![Vec::new(); by.len()];
    let (mut filled, mut apart) = (0, 0);
    for seed in 0..20 {
        let (ability, matrix) = world(seed);
        filled += (0..SYSTEMS)
            .map(|s| matrix.row(s).iter().filter(|x| !x.is_nan()).count())
            .sum::<usize>();
        for (by, taus) in by.iter().zip(&mut taus) {
            let found = rank(*by, &matrix, Missing::Skip, &[])
                .unwrap()
                .standing
                .value;
            let found: Vec<f64> = found.iter().map(|x| by.good().oriented(*x)).collect();
            taus.push(kendall(&found, &ability, KendallVariant::B).unwrap().r);
        }
        apart += usize::from(Comparisons::pooled(&matrix).components().len() > 1);
    }
    let share = filled as f64 / (20 * SYSTEMS * TASKS) as f64;
    assert!((share - 0.05).abs() < 0.002, "{share}");
    let mut means = Vec::new();
    for (by, taus) in by.iter().zip(&taus) {
        let interval = t_interval(taus, 0.95).unwrap();
        let mean = taus.iter().sum::<f64>() / taus.len() as f64;
        println!(
            "{by}: tau {mean:.3}, 95 % interval {:.3} to {:.3}",
            interval.low, interval.high
        );
        means.push(mean);
    }
    println!("worlds whose comparisons fall apart: {apart}");
    assert!(apart <= 2, "{apart}");
    // The strengths read who beat whom and are not misled by who was measured where; the others are.
    assert!(means[0] > 0.7 && means[1] > 0.7, "{means:?}");
    assert!(means[2..].iter().all(|m| *m < means[0] - 0.02), "{means:?}");
}
