//! Targets that happen one after the other: the loss over the entire space and the calibrator, by hand.

use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::engine::{Value, slice, tensor};
use polyloom_learn::ops;
use polyloom_learn::tasks::{Feature, Head, HeadKind, Rows};
use polyloom_learn::train::chain::{Chain, ChainLoss, ChainRecipe};

/// Chains of any length: values by hand, gradients by differences, scores that no number holds the probability of.
#[test]
fn products_of_any_length() {
    let leaf = |values: &[f32]| Value::leaf(tensor(values.to_vec(), (values.len(), 1)).unwrap());
    let loss = |scores: &[&Value], labels: &[f32]| {
        let loss = ops::chained_cross_entropy(scores, labels).unwrap();
        (loss.number().unwrap(), loss)
    };
    let zero = leaf(&[0.0]);
    for (n, y, by_hand) in [
        (1, 0.0, 2f32.ln()),
        (3, 1.0, 8f32.ln()),
        (3, 0.0, (8f32 / 7.0).ln()),
    ] {
        assert!((loss(&vec![&zero; n], &[y]).0 - by_hand).abs() < 1e-6);
    }
    let (far, other) = (leaf(&[900.0]), leaf(&[800.0]));
    let back = leaf(&[-900.0]);
    assert!((loss(&[&far, &other, &far], &[0.0]).0 - 800.0).abs() < 1e-3);
    assert!((loss(&[&far, &back], &[1.0]).0 - 900.0).abs() < 1e-3);
    let (value, whole) = loss(&[&far, &back], &[0.0]);
    assert!(value.abs() < 1e-6);
    for x in [&far, &back] {
        let found = whole.backward().unwrap();
        let found = slice(found.get(x).unwrap()).unwrap()[0];
        assert!(found.abs() < 1e-6, "{found}");
    }
    let values = [[0.3f32, -1.2, 2.0], [1.1, 0.4, -0.7], [-0.2, 0.9, 0.1]];
    let labels = [1.0, 0.0, 0.0];
    let of = |values: &[[f32; 3]; 3]| {
        let scores = values.map(|v| leaf(&v));
        let (value, loss) = loss(&scores.iter().collect::<Vec<_>>(), &labels);
        (value, loss, scores)
    };
    let (_, whole, scores) = of(&values);
    let gradients = whole.backward().unwrap();
    for (i, score) in scores.iter().enumerate() {
        let found = slice(gradients.get(score).unwrap()).unwrap().to_vec();
        for (j, found) in found.iter().enumerate() {
            let moved = |by: f32| {
                let mut other = values;
                other[i][j] += by;
                of(&other).0
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((found - slope).abs() < 1e-4, "{i} {j}: {found} {slope}");
        }
    }
    assert!(ops::chained_cross_entropy(&[], &[1.0]).is_err());
    assert!(ops::chained_cross_entropy(&[&zero, &scores[0]], &[1.0]).is_err());
}

fn spec(samples: [&str; 3]) -> TaskSpec {
    let targets: String = ["click", "cart", "buy"]
        .iter()
        .zip(samples)
        .map(|(name, sample)| {
            format!("[[targets]]\nname = \"{name}\"\ncolumn = \"{name}\"\ntype = \"classification\"\nsample = \"{sample}\"\n")
        })
        .collect();
    toml::from_str(&format!(
        "schema = \"polyloom.task/1\"\nid = \"log\"\n[source]\nkind = \"csv\"\n[table]\nnumeric = [\"x\"]\n{targets}"
    ))
    .unwrap()
}

fn heads() -> Vec<Head> {
    let labels = || vec!["0".to_owned(), "1".to_owned()];
    let head = |name: &str| {
        Head::zeros(name, Feature::Goal, HeadKind::Classification, labels(), 1).unwrap()
    };
    ["log/click", "log/cart", "log/buy"].map(head).to_vec()
}

/// Columns of 0, 1, and 2 for a row without a label.
fn rows(columns: [[u32; 4]; 3]) -> Rows {
    let class = |c: u32| (c < 2).then_some(Wanted::Class(c));
    Rows {
        ids: (0..4).map(|i| i.to_string()).collect(),
        wanted: columns.map(|c| c.map(class).to_vec()).to_vec(),
        ..Rows::default()
    }
}

const STEPS: [[u32; 4]; 3] = [[0, 1, 1, 1], [2, 0, 1, 1], [2, 2, 0, 2]];

fn recipe(loss: ChainLoss) -> ChainRecipe {
    ChainRecipe { loss, weight: 0.6 }
}

#[test]
fn the_entire_space_by_hand() {
    let spec = spec(["", "click == 1", "cart == 1"]);
    let rows = rows(STEPS);
    let chain = Chain::of(recipe(ChainLoss::EntireSpace), &spec, &heads(), &rows).unwrap();
    // Odds of 1 and 3 to 1; the first class has a score too, which is taken off.
    let three = 3f32.ln();
    let said: Vec<Value> = [[1.0, 1.0 + three], [0.5, 0.5], [0.0, three]]
        .map(|row| Value::constant(tensor(row.repeat(4), (4, 2)).unwrap()))
        .to_vec();
    let wanted = |at: usize, row: usize| rows.wanted[at][row].clone();
    let loss = |place: usize| chain.loss(place, &said, &wanted, 4).unwrap();
    assert!(!chain.is_product(0) && chain.is_product(1) && chain.is_product(2));
    // 3/4 * 1/2 = 3/8 of a cart, in rows of which two have one.
    let (value, n) = loss(1).unwrap();
    let by_hand = ((8f32 / 5.0).ln() + (8f32 / 3.0).ln()) / 2.0;
    assert!((value.number().unwrap() - by_hand).abs() < 1e-6 && n == 4);
    // 9/32 of a purchase: none in the first three rows, and the last does not say.
    let (value, n) = loss(2).unwrap();
    assert!((value.number().unwrap() - (32f32 / 23.0).ln()).abs() < 1e-6 && n == 3);
    assert!(chain.more(1, &said).unwrap().is_none());
}

#[test]
fn the_calibrator_by_hand() {
    let spec = spec([""; 3]);
    let all = rows([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]);
    let chain = Chain::of(recipe(ChainLoss::Ordered), &spec, &heads(), &all).unwrap();
    let said: Vec<Value> = [[0.0, 0.0], [0.0, 3f32.ln()], [0.0, 0.0]]
        .map(|row| Value::constant(tensor(row.repeat(4), (4, 2)).unwrap()))
        .to_vec();
    let more = |place: usize| {
        chain
            .more(place, &said)
            .unwrap()
            .map(|v| v.number().unwrap())
    };
    // 3/4 after 1/2, then 1/2 after 3/4.
    assert_eq!(more(0), None);
    assert!((more(1).unwrap() - 0.6 * 0.25).abs() < 1e-6);
    assert_eq!(more(2), Some(0.0));
    assert!(!chain.is_product(1));
}

#[test]
fn what_is_no_chain() {
    let refused = |loss, samples, columns| {
        let made = Chain::of(recipe(loss), &spec(samples), &heads(), &rows(columns));
        made.unwrap_err().to_string()
    };
    let whole = ChainLoss::EntireSpace;
    assert!(refused(whole, [""; 3], STEPS).contains("no targets in a chain"));
    // A sample about something else than a target.
    assert!(refused(whole, ["", "x > 1", ""], STEPS).contains("no targets in a chain"));
    let round = ["buy == 1", "click == 1", "cart == 1"];
    assert!(refused(whole, round, STEPS).contains("wait for each other"));
    let odd = [[0, 1, 1, 1], [1, 0, 1, 1], [2, 2, 0, 2]];
    let linked = ["", "click == 1", "cart == 1"];
    assert!(refused(whole, linked, odd).contains("row `0`"));
    assert!(refused(ChainLoss::Ordered, linked, STEPS).contains("has an answer for every row"));
    let spec = spec(linked);
    let mut heads = heads();
    heads[0].kind = HeadKind::Regression;
    let made = Chain::of(recipe(whole), &spec, &heads, &rows(STEPS));
    assert!(made.unwrap_err().to_string().contains("not of two classes"));
}
