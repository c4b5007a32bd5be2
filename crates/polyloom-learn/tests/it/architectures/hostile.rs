//! Configurations, rows and weights that a stranger may send: an error that names something, never a panic.

use polyloom_learn::engine::{Value, tensor};
use polyloom_learn::models::Plain;
use polyloom_learn::models::table::{Config, Declared, MODEL_TYPE, TableBatch, TableModel, find};
use serde_json::{Value as Json, json};

use super::properties::{configs, made, rows};

fn refused(change: &dyn Fn(&mut Config)) -> String {
    let mut config = Config {
        goals: vec!["a".into(), "b".into()],
        numeric: 3,
        categories: vec![5],
        ..Config::default()
    };
    change(&mut config);
    TableModel::new(config).unwrap_err().to_string()
}

#[test]
fn configurations_that_lie() {
    let said = refused(&|c| c.architecture = "mmoee".into());
    assert!(
        said.contains("did you mean `mmoe`?") && said.contains("shared_bottom"),
        "{said}"
    );
    assert!(refused(&|c| c.goals.clear()).contains("0 goals"));
    assert!(refused(&|c| c.goals[1] = "a".into()).contains("`a` is empty or comes twice"));
    assert!(refused(&|c| c.hidden = vec![4, 0]).contains("hidden"));
    assert!(refused(&|c| c.tower = vec![1 << 40]).contains("tower"));
    assert!(refused(&|c| c.embed_dim = 0).contains("embed_dim 0"));
    assert!(refused(&|c| c.categories = vec![0]).contains("none of 0 codes"));
    assert!(refused(&|c| c.categories = vec![usize::MAX, usize::MAX]).contains("below 2^32"));
    assert!(refused(&|c| c.categories = vec![1 << 31; 2]).contains("below 2^32"));
    let said = refused(&|c| {
        c.categories = vec![1 << 30];
        c.embed_dim = 1 << 16;
    });
    assert!(said.contains("fill every memory"), "{said}");
    assert!(refused(&|c| (c.numeric, c.categories) = (0, vec![])).contains("no feature"));
    assert!(refused(&|c| c.dropout = 1.0).contains("dropout 1"));
    assert!(refused(&|c| c.dropout = f32::NAN).contains("dropout NaN"));
    assert!(refused(&|c| c.activation = "softsign".into()).contains("softsign"));
    assert!(refused(&|c| c.model_type = "vit".into()).contains("polyloom-table"));
    let option = |key: &str, value: Json| {
        let key = key.to_owned();
        refused(&move |c| {
            c.architecture = "mmoe".into();
            c.options.insert(key.clone(), value.clone());
        })
    };
    let said = refused(&|c| {
        c.architecture = "multitab".into();
        c.tower = vec![64];
        (c.numeric, c.embed_dim) = (1 << 16, 1024);
        c.options.insert("heads".into(), json!(1024));
    });
    assert!(said.contains("mask fills every memory"), "{said}");
    let said = refused(&|c| {
        c.architecture = "multitab".into();
        c.hidden = vec![8];
    });
    assert!(
        said.contains("`hidden` means nothing to architecture `multitab`"),
        "{said}"
    );
    assert!(option("expert", json!(4)).contains("unknown key `expert`"));
    assert!(option("experts", json!(0)).contains("from 1 to 1024"));
    assert!(option("experts", json!("many")).contains("whole number"));
    let said = refused(&|c| {
        c.architecture = "mmoe".into();
        c.hidden.clear();
    });
    assert!(said.contains("hidden is empty"), "{said}");
}

#[test]
fn rows_and_weights_that_lie() {
    let config = json!({
        "architecture": "mmoe", "goals": ["a", "b"], "numeric": 2, "categories": [3, 4], "embed_dim": 2,
        "hidden": [5, 4], "tower": [3], "experts": 3,
    });
    let mut typed = config.clone();
    typed["model_type"] = json!(MODEL_TYPE);
    let (model, weights) = made(&typed);
    let batch = rows(&model, 4);
    let said = |batch: &TableBatch, goals| {
        let found = model.forward(&weights, batch, goals);
        found.unwrap_err().to_string()
    };
    assert!(said(&batch, 0..3).contains("goals 0..3 of 2"));
    assert!(said(&batch, 1..1).contains("goals 1..1 of 2"));
    let mut other = batch.clone();
    other.codes[3] = 4;
    assert!(said(&other, 0..2).contains("row 1: code 4 in categorical field 1, which has 4 codes"));
    let mut other = batch.clone();
    other.codes.pop();
    assert!(said(&other, 0..2).contains("4 rows with numbers [4, 2] and 7 codes"));
    let none = TableBatch {
        before: Vec::new(),
        rows: 0,
        numbers: Value::constant(tensor(vec![], (0, 2)).unwrap()),
        codes: vec![],
    };
    assert!(said(&none, 0..2).contains("0 rows"));
    // A tensor of another shape, or none.
    for t in model.tensors().iter() {
        let mut shape = t.shape.clone();
        shape[0] += 1;
        let count = shape.iter().product();
        let wrong = tensor(vec![0.1; count], shape).unwrap();
        let broken = weights.with([(t.name.clone(), wrong)]);
        assert!(
            model.forward(&broken, &batch, 0..2).is_err(),
            "{} of another shape",
            t.name
        );
        let without = weights.iter().filter(|(n, _)| *n != t.name);
        let without = Plain::new(without.map(|(n, t)| (n.to_owned(), t.clone())));
        let found = model.forward(&without, &batch, 0..2);
        let biased = t.name.ends_with(".bias") && !t.name.starts_with("experts.layers.1");
        assert!(found.is_err() || biased, "{} may not be absent", t.name);
    }
}

/// Every key of every architecture says every kind of wrong thing: refused with a message, or a model that runs.
#[test]
fn every_key_may_lie() {
    let lies = [
        json!(0),
        json!(1),
        json!(7),
        json!(-1),
        json!(65_536),
        json!(1_000_003),
        json!(u64::MAX),
        json!(1e300),
        json!("many"),
        json!(null),
        json!([]),
        json!([3]),
        json!([0, 5]),
        json!([1u64 << 40]),
        json!(["a", "b", "a"]),
        json!({}),
        json!(true),
    ];
    let (mut refused, mut ran) = (0, 0);
    for config in configs() {
        let name = config["architecture"].as_str().unwrap();
        let options = find(name).unwrap().spec().params.iter().map(|p| p.name);
        let keys: Vec<&str> = config
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .chain(options)
            .collect();
        for key in keys {
            for lie in &lies {
                let mut config = config.clone();
                config[key] = lie.clone();
                let model = serde_json::from_value::<Config>(config.clone())
                    .map_err(|e| e.to_string())
                    .and_then(|c| TableModel::new(c).map_err(|e| e.to_string()));
                let Ok(model) = model else {
                    refused += 1;
                    continue;
                };
                let elements = |t: &Declared| t.shape.iter().product::<usize>();
                if model.tensors().iter().map(elements).sum::<usize>() < 20_000 {
                    let batch = rows(&model, 2);
                    let (_, weights) = made(&config);
                    let goals = 0..model.config.goals.len();
                    model.forward(&weights, &batch, goals).unwrap();
                    ran += 1;
                }
            }
        }
    }
    assert!(refused > 500 && ran > 100, "{refused} refused, {ran} ran");
}
