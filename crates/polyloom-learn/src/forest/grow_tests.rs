//! Splits and leaves computed by hand, and trees against a search without bins.

use polyloom_core::rng::Stream;

use super::super::bins::Cutting;
use super::super::data::{Column, Table, UNKNOWN, Values};
use super::super::dense::Dense;
use super::super::histogram::{Curvature, Lanes};
use super::*;

fn table(columns: Vec<Values>) -> Table {
    let column = |(i, values): (usize, Values)| Column {
        name: format!("x{i}"),
        values,
    };
    Table {
        rows: columns.first().map_or(0, Values::len),
        columns: columns.into_iter().enumerate().map(column).collect(),
        weights: None,
    }
}

fn numbers(x: &[f32]) -> Values {
    Values::Number(x.to_vec())
}

/// Gradients of rows, output by output.
fn means(g: &[&[f32]]) -> Statistics {
    let mut made = Statistics::new(g[0].len(), Lanes::new(g.len(), Curvature::Ones));
    let n = made.lanes.len;
    for (k, g) in g.iter().enumerate() {
        g.iter()
            .enumerate()
            .for_each(|(row, g)| made.values[row * n + k] = *g);
    }
    made
}

fn grow(table: &Table, statistics: &Statistics, growth: Growth) -> Tree {
    let bins = Bins::new(table, Cutting::Exact).unwrap();
    let mut grower = Grower::new(&bins, growth);
    let grown = grower.grow(statistics, None, 1.0);
    let dense = Dense::new(table, &bins.categories(), 0..table.rows);
    let mut all: Vec<u32> = grower.rows().to_vec();
    for (leaf, rows) in grown.leaves.iter().enumerate() {
        for row in &grower.rows()[rows.clone()] {
            assert_eq!(grown.tree.leaf(dense.row(*row as usize)), leaf);
        }
    }
    all.sort_unstable();
    assert!(all.iter().zip(0..).all(|(a, b)| *a == b));
    grown.tree
}

fn stump(x: Values, g: &[f32]) -> Tree {
    grow(&table(vec![x]), &means(&[g]), Growth::stump())
}

fn root(tree: &Tree) -> (u32, Test, bool, f32) {
    match tree.nodes[0] {
        Node::Split {
            column,
            test,
            missing_left,
            gain,
            ..
        } => (column, test, missing_left, gain),
        Node::Leaf(_) => panic!("no split"),
    }
}

#[test]
fn a_stump_by_hand() {
    let tree = stump(numbers(&[1.0, 2.0, 3.0, 4.0]), &[0.0, 0.0, 4.0, 4.0]);
    // 0^2/2 + 8^2/2 - 8^2/4.
    assert_eq!(root(&tree), (0, Test::AtMost(2.5), true, 16.0));
    assert_eq!(tree.values, [0.0, 4.0]);
    // 8 / (2 + 1), and 8^2/3 - 8^2/5.
    let growth = Growth {
        l2: 1.0,
        ..Growth::stump()
    };
    let x = table(vec![numbers(&[1.0, 2.0, 3.0, 4.0])]);
    let tree = grow(&x, &means(&[&[0.0, 0.0, 4.0, 4.0]]), growth);
    assert_eq!(tree.values, [0.0, 8.0 / 3.0]);
    assert!((root(&tree).3 - (64.0 / 3.0 - 64.0 / 5.0)).abs() < 1e-5);
}

#[test]
fn the_first_column_and_the_lowest_threshold_win_ties() {
    let x = numbers(&[1.0, 2.0, 3.0, 4.0]);
    let twice = table(vec![numbers(&[5.0; 4]), x.clone(), x]);
    let tree = grow(&twice, &means(&[&[1.0, 0.0, 0.0, 1.0]]), Growth::stump());
    assert_eq!(root(&tree).0, 1);
    assert_eq!(root(&tree).1, Test::AtMost(1.5));
}

#[test]
fn missing_values_learn_a_direction() {
    let x = numbers(&[1.0, 2.0, f32::NAN, f32::NAN]);
    let tree = stump(x.clone(), &[0.0, 4.0, 4.0, 4.0]);
    assert_eq!(root(&tree), (0, Test::AtMost(1.5), false, 12.0));
    let tree = stump(x.clone(), &[0.0, 4.0, 0.0, 0.0]);
    assert_eq!(root(&tree), (0, Test::AtMost(1.5), true, 12.0));
    // Whether there is a value may be all that matters.
    let tree = stump(x, &[1.0, 1.0, 5.0, 5.0]);
    assert_eq!(root(&tree), (0, Test::AtMost(f32::INFINITY), false, 16.0));
    assert_eq!(tree.values, [1.0, 5.0]);
    let tree = stump(numbers(&[7.0, f32::NAN]), &[1.0, 5.0]);
    assert_eq!(tree.leaves(), 2);
}

#[test]
fn categories_are_split_by_their_means() {
    let codes = vec![0, 1, 2, 0, 1, 2, UNKNOWN];
    let x = Values::Category {
        codes,
        cardinality: 4,
    };
    let tree = stump(x, &[1.0, 5.0, 1.0, 1.0, 5.0, 1.0, 5.0]);
    let (_, test, missing_left, _) = root(&tree);
    assert_eq!((test, missing_left), (Test::OneOf(0), false));
    assert_eq!(tree.sets, [[0b101, 0, 0, 0]]);
    assert_eq!(tree.values, [1.0, 5.0]);
    // Of 10,000 categories the rarest share a bin.
    let codes: Vec<u32> = (0..10_000).chain(0..200).collect();
    let g: Vec<f32> = codes.iter().map(|c| (*c < 200) as u8 as f32).collect();
    let x = Values::Category {
        codes,
        cardinality: 10_000,
    };
    let tree = stump(x, &g);
    assert_eq!(tree.values, [0.0, 1.0]);
}

#[test]
fn outputs_share_a_tree_and_have_their_own_hessians() {
    let x = table(vec![numbers(&[1.0, 2.0, 3.0, 4.0])]);
    let (a, b) = ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 8.0]);
    let tree = grow(&x, &means(&[&a, &b]), Growth::stump());
    // After the third row: (2^2/3 - 2^2/4) + (8^2 - 8^2/4), after the second: 4/2 + 64/2 less the same.
    assert_eq!(root(&tree).1, Test::AtMost(3.5));
    assert_eq!(tree.values, [2.0 / 3.0, 0.0, 0.0, 8.0]);
    let mut each = Statistics::new(4, Lanes::new(2, Curvature::Each));
    let n = each.lanes.len;
    assert_eq!(n, 8);
    for row in 0..4 {
        let lanes = &mut each.values[row * n..][..n];
        lanes[0] = a[row];
        lanes[1] = b[row];
        lanes[2] = 0.5;
        lanes[3] = if row == 3 { 2.0 } else { 0.0 };
    }
    let tree = grow(&x, &each, Growth::stump());
    // Output b has no curvature on the left: nothing is gained or said there.
    assert_eq!(tree.values, [2.0, 0.0, 0.0, 4.0]);
    assert_eq!(root(&tree).1, Test::AtMost(2.5));
}

#[test]
fn bounds_of_growth_hold() {
    let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let g: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32).collect();
    let (x, g) = (table(vec![numbers(&x)]), means(&[&g]));
    let tree = |growth| grow(&x, &g, growth);
    assert_eq!(tree(Growth::means(0)).leaves(), 64);
    assert!(tree(Growth::means(3)).leaves() <= 8);
    let few = Growth {
        max_leaves: 5,
        ..Growth::means(0)
    };
    assert_eq!(tree(few).leaves(), 5);
    let wide = Growth {
        min_rows: 10,
        ..Growth::means(0)
    };
    let bins = Bins::new(&x, Cutting::Exact).unwrap();
    let grown = Grower::new(&bins, wide).grow(&g, None, 1.0);
    assert!(grown.leaves.len() > 2 && grown.leaves.iter().all(|l| l.len() >= 10));
    let dear = Growth {
        min_gain: 1e9,
        ..Growth::means(0)
    };
    assert_eq!(tree(dear).leaves(), 1);
    assert!(
        Growth {
            max_leaves: 1,
            ..Growth::default()
        }
        .check()
        .is_err()
    );
    assert!(
        Growth {
            l2: f64::NAN,
            ..Growth::default()
        }
        .check()
        .is_err()
    );
}

#[test]
fn nothing_to_split_is_a_leaf() {
    let tree = stump(numbers(&[3.0]), &[2.0]);
    assert_eq!(tree.values, [2.0]);
    assert_eq!(stump(numbers(&[3.0; 9]), &[2.0; 9]).leaves(), 1);
    assert_eq!(stump(numbers(&[1.0, 2.0, 3.0]), &[0.1; 3]).leaves(), 1);
    assert_eq!(stump(numbers(&[f32::NAN; 2]), &[1.0, 2.0]).leaves(), 1);
    let none = Table {
        rows: 3,
        ..Table::default()
    };
    assert_eq!(
        grow(&none, &means(&[&[1.0, 2.0, 3.0]]), Growth::stump()).values,
        [2.0]
    );
}

/// A tree by trying every split of every node.
fn search(x: &[Vec<f32>], g: &[f32], rows: &[usize], depth: usize) -> Vec<(Vec<usize>, f64)> {
    let sum = |rows: &[usize]| rows.iter().map(|r| f64::from(g[*r])).sum::<f64>();
    let score = |rows: &[usize]| sum(rows).powi(2) / rows.len() as f64;
    let mut best: Option<(f64, Vec<usize>, Vec<usize>)> = None;
    for x in x {
        let mut values: Vec<f32> = rows.iter().map(|r| x[*r]).collect();
        values.sort_by(f32::total_cmp);
        for v in values {
            let (l, r): (Vec<usize>, Vec<usize>) = rows.iter().partition(|r| x[**r] <= v);
            if l.is_empty() || r.is_empty() {
                continue;
            }
            let gain = score(&l) + score(&r) - score(rows);
            if gain > 1e-9 && best.as_ref().is_none_or(|b| gain > b.0 + 1e-9) {
                best = Some((gain, l, r));
            }
        }
    }
    match best.filter(|_| depth > 0) {
        None => vec![(rows.to_vec(), sum(rows) / rows.len() as f64)],
        Some((_, l, r)) => {
            let mut both = search(x, g, &l, depth - 1);
            both.extend(search(x, g, &r, depth - 1));
            both
        }
    }
}

#[test]
fn trees_are_those_of_a_search_without_bins() {
    for seed in 0..12 {
        let stream = Stream::new(seed, "trees", 0);
        let (n, d) = (80 + seed as usize, 3);
        let draw = |i: usize| stream.normal(i as u64);
        let x: Vec<Vec<f32>> = (0..d)
            .map(|j| {
                let of = |i: usize| (draw(j * n + i) * 8.0).round() / 4.0;
                (0..n).map(of).collect()
            })
            .collect();
        let g: Vec<f32> = (0..n).map(|i| x[1][i] + draw(d * n + i)).collect();
        let expected = search(&x, &g, &(0..n).collect::<Vec<_>>(), 4);
        let t = table(x.iter().map(|x| numbers(x)).collect());
        let tree = grow(&t, &means(&[&g]), Growth::means(4));
        assert_eq!(tree.leaves(), expected.len(), "{seed}");
        let dense = Dense::new(&t, &[None; 3], 0..n);
        for (rows, mean) in expected {
            for row in rows {
                let leaf = tree.leaf(dense.row(row));
                assert!((f64::from(tree.values[leaf]) - mean).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_tree() {
    let (n, d) = (40_000usize, 5usize);
    let stream = Stream::new(3, "threads", 0);
    let draw = |i: usize| stream.normal(i as u64);
    let column = |j: usize| {
        let of = |i: usize| match (j, i % 11) {
            (2, 0) => f32::NAN,
            _ => draw(j * n + i),
        };
        numbers(&(0..n).map(of).collect::<Vec<_>>())
    };
    let mut columns: Vec<Values> = (0..d).map(column).collect();
    columns.push(Values::Category {
        codes: (0..n as u32).map(|i| i * i % 97).collect(),
        cardinality: 97,
    });
    let t = table(columns);
    let g: Vec<f32> = (0..n)
        .map(|i| draw(i) * draw(n + i) + (i * i % 97) as f32 * 0.01)
        .collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let bins = Bins::new(&t, Cutting::Quantiles(255)).unwrap();
            let some: Vec<u32> = (0..n as u32).filter(|r| r % 3 > 0).collect();
            Grower::new(&bins, Growth::default()).grow(&means(&[&g]), Some(&some), 0.1)
        })
    };
    let one = run(1);
    assert_eq!(one.leaves.len(), 31);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}
