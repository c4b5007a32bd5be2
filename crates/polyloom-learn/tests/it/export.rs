//! Models of tables as ONNX files: what is in them, and what is refused. That onnxruntime answers as `predict` does is shown by
//! bench/onnx_check.py.

#[path = "export/read.rs"]
mod read;

use std::sync::Arc;

use polyloom::evaluate::board::score::examples::{Column, ColumnKind, Field};
use polyloom_learn::calibrate::Level;
use polyloom_learn::engine::tensor;
use polyloom_learn::export::{Parts, onnx};
use polyloom_learn::forest::tree::{Node, Test, Tree};
use polyloom_learn::forest::{self, Ensemble, Forest, Use};
use polyloom_learn::models::Plain;
use polyloom_learn::models::forest::{Config as ForestConfig, ForestModel, MODEL_TYPE};
use polyloom_learn::models::open::Trunk;
use polyloom_learn::table::{Fitting, Preparation, Scaling, Settings};
use polyloom_learn::tasks::Head;
use polyloom_learn::tasks::head::{Feature, HeadKind};
use read::Model;
use serde_json::json;

use super::architectures::properties::{configs, made};

/// The file of a model.
fn file(parts: &Parts<'_>) -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let made = onnx(parts).map_err(|e| e.to_string())?;
    made.save(&path, false, false).unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len(), made.size());
    Ok(bytes)
}

fn column(name: String, kind: ColumnKind) -> Column {
    Column { name, kind }
}

/// A preparation of some numbers, scaled in this way, and of words with so many codes each; of groups too.
fn prepared(numeric: usize, categories: &[usize], scaling: Scaling, group: bool) -> Preparation {
    let numbers = (0..numeric).map(|i| column(format!("n {i}"), ColumnKind::Number));
    let words = (0..categories.len()).map(|i| column(format!("w {i}"), ColumnKind::Word));
    let mut columns: Vec<Column> = numbers.chain(words).collect();
    let settings = Settings {
        rare: 2,
        scaling,
        ..Settings::default()
    };
    let mut fitting = Fitting::new(settings).unwrap();
    if group {
        columns.push(column("school".into(), ColumnKind::Word));
        fitting = fitting.by_group("school".into());
    }
    for row in 0..24usize {
        let fields: Vec<Field> = columns
            .iter()
            .enumerate()
            .map(|(i, c)| match c.name.split_once(' ') {
                Some(("n", _)) => Field::Number((row * 7 % 5 + i) as f64),
                Some((_, field)) => {
                    let words = categories[field.parse::<usize>().unwrap()] - 1;
                    match words {
                        0 => Field::Word(format!("rare {row}").into()),
                        n => Field::Word(format!("word {}", row % n).into()),
                    }
                }
                None => Field::Word(["north", "12"][row % 2].into()),
            })
            .collect();
        fitting.see(&columns, &fields).unwrap();
    }
    fitting.finish().unwrap()
}

/// Heads for goals of a width: a class, a number, a class of three.
fn heads(goals: &[String], width: usize) -> Vec<Head> {
    let kinds = [
        (HeadKind::Classification, &["no", "yes"][..]),
        (HeadKind::Regression, &[]),
        (HeadKind::Classification, &["low", "mid", "high"]),
    ];
    let one = |(goal, name): (usize, &String)| {
        let (kind, labels) = kinds[goal % 3];
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        let mut head = Head::zeros(name, Feature::Goal, kind, labels, width).unwrap();
        head.goal = goal;
        head
    };
    goals.iter().enumerate().map(one).collect()
}

#[test]
fn every_architecture_is_written_or_refused_by_name() {
    let mut refused = Vec::new();
    for config in configs() {
        let (model, weights) = made(&config);
        let c = model.config.clone();
        let scaling = [Scaling::Quantile, Scaling::Standard][c.tower.len() % 2];
        let preparation = prepared(c.numeric, &c.categories, scaling, false);
        assert_eq!(preparation.categories(), c.categories);
        let heads = heads(&c.goals, model.width());
        let declared: Vec<(String, Vec<i64>)> = model
            .tensors()
            .iter()
            .map(|t| (t.name.clone(), t.shape.iter().map(|d| *d as i64).collect()))
            .collect();
        let trunk = Trunk::Table(Box::new(model));
        let parts = Parts {
            interval: None,
            trunk: &trunk,
            weights: &weights,
            preparation: &preparation,
            heads: &heads,
        };
        let bytes = match file(&parts) {
            Ok(bytes) => bytes,
            Err(error) => {
                refused.push((c.architecture.clone(), error));
                continue;
            }
        };
        assert_eq!(bytes, file(&parts).unwrap(), "{config}: other bytes");
        let found = Model::of(&bytes);
        found.is_sound();
        assert_eq!(found.inputs.len(), c.numeric + c.categories.len());
        // Every weight is there as it is, once; running values of norms as what they are used for.
        for (name, shape) in declared {
            if polyloom_learn::models::is_statistic(&name) {
                continue;
            }
            let own = found.weights.get(&name);
            let own = own.unwrap_or_else(|| panic!("{config}: no `{name}`"));
            let wanted = polyloom_learn::models::Source::tensor(&weights, &name).unwrap();
            let wanted = wanted
                .data()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            assert_eq!(
                (&own.dims, own.floats()),
                (&shape, wanted),
                "{config}: {name}"
            );
        }
        let names: Vec<&str> = found.outputs.iter().map(|(n, _)| &**n).collect();
        let wanted = [
            "prediction_a",
            "probabilities_a",
            "prediction_x",
            "prediction_y",
            "probabilities_y",
        ];
        assert_eq!(names, wanted, "{config}");
    }
    let wanted = [("multitab", "row_col"), ("dtrn", "history")];
    assert_eq!(refused.len(), wanted.len(), "{refused:?}");
    for ((name, error), (wanted, why)) in refused.iter().zip(wanted) {
        assert_eq!(name, wanted);
        assert!(
            error.contains("cannot be written as ONNX") && error.contains(why),
            "{error}"
        );
    }
}

/// A small model, and what of it a user sees.
fn small(group: bool) -> (Trunk, Plain, Preparation, Vec<Head>) {
    let goals = if group {
        vec!["t/a @0", "t/a @1"]
    } else {
        vec!["t/a"]
    };
    let config = json!({
        "model_type": "polyloom-table", "architecture": "shared_bottom", "goals": goals, "numeric": 2, "categories": [3],
        "embed_dim": 4, "hidden": [3], "tower": [2],
    });
    let (model, weights) = made(&config);
    let preparation = prepared(2, &[3], Scaling::Quantile, group);
    let labels = vec!["no".to_owned(), "yes".to_owned()];
    let mut head = Head::zeros("t/a", Feature::Goal, HeadKind::Classification, labels, 2).unwrap();
    if group {
        let groups = preparation.groups().unwrap().values.clone();
        head.for_groups(groups).unwrap();
    }
    (
        Trunk::Table(Box::new(model)),
        weights,
        preparation,
        vec![head],
    )
}

#[test]
fn inputs_are_columns_and_outputs_are_answers() {
    let (trunk, weights, preparation, heads) = small(true);
    let parts = Parts {
        interval: None,
        trunk: &trunk,
        weights: &weights,
        preparation: &preparation,
        heads: &heads,
    };
    let found = Model::of(&file(&parts).unwrap());
    found.is_sound();
    let port = |name: &str, shape: &str| (name.to_owned(), shape.to_owned());
    let inputs = [
        port("n 0", "double [N, 1]"),
        port("n 1", "double [N, 1]"),
        port("w 0", "string [N, 1]"),
        port("school", "string [N, 1]"),
    ];
    assert_eq!(found.inputs, inputs);
    // A head alone has no target in its name, as in predictions.
    let outputs = [
        port("prediction", "string [N]"),
        port("probabilities", "float [N, 2]"),
    ];
    assert_eq!(found.outputs, outputs);
    assert_eq!(found.metadata["classes.probabilities"], "[\"no\",\"yes\"]");
    assert_eq!(found.version, 8);
    assert_eq!(
        found.operators,
        [(String::new(), 17), ("ai.onnx.ml".to_owned(), 3)]
    );
    // Words by frequency, an empty cell is none; groups by their place, whole numbers with `.0` too.
    let [word, group] = found.all("LabelEncoder")[..] else {
        panic!()
    };
    assert_eq!(
        word.attributes["keys_strings"].texts,
        ["word 0", "word 1", ""]
    );
    assert_eq!(word.attributes["values_int64s"].ints, [1, 2, 0]);
    assert_eq!(word.attributes["default_int64"].ints, [0]);
    let pairs: Vec<(&String, &i64)> = group.attributes["keys_strings"]
        .texts
        .iter()
        .zip(&group.attributes["values_int64s"].ints)
        .collect();
    let place = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| *p.1);
    let places = ["12", "12.0", "north", ""].map(place);
    assert_eq!(places, [Some(0), Some(0), Some(1), Some(-1)]);
    assert_eq!(group.attributes["default_int64"].ints, [-1]);
}

/// Ends and sets of answers: what `calibration.json` says as operators behind the head.
#[test]
fn intervals_are_outputs_where_they_are_asked_for() {
    let (trunk, weights, preparation, mut heads) = small(false);
    let written = |heads: &[Head], interval| {
        file(&Parts {
            interval,
            trunk: &trunk,
            weights: &weights,
            preparation: &preparation,
            heads,
        })
    };
    let level = Some(Level::parse("75%").unwrap());
    let said = written(&heads, level).unwrap_err();
    assert!(said.contains("`t/a` has no intervals yet"), "{said}");
    let of = json!({
        "rows": 4, "classes": ["no", "yes"], "errors": {"rows": 4, "sorted": [0.1, 0.2, 0.3, 0.4]},
    });
    heads[0].calibration = Some(Arc::new(serde_json::from_value(of).unwrap()));
    let found = Model::of(&written(&heads, level).unwrap());
    found.is_sound();
    let last = found.outputs.last().unwrap();
    assert_eq!(
        *last,
        ("prediction.set".to_owned(), "int64 [N, 2]".to_owned())
    );
    // The fourth of four errors: ceil(5 . 0.75).
    let cut = |node: &&&read::Node| {
        let most = found.weights.get(&node.inputs[1]);
        most.filter(|t| t.element == 11).map(read::Tensor::doubles) == Some(vec![0.4])
    };
    assert_eq!(found.all("LessOrEqual").iter().filter(cut).count(), 1);
    let said = written(&heads, Some(Level::USUAL)).unwrap_err();
    assert!(said.contains("too few for intervals of 90 %"), "{said}");
    let mut many = heads.clone();
    many[0].kind = HeadKind::Multilabel;
    let said = written(&many, level).unwrap_err();
    assert!(said.contains("which have no interval"), "{said}");
}

#[test]
fn what_has_no_form_is_refused_with_its_name() {
    let (trunk, weights, preparation, heads) = small(false);
    let parts = |trunk, heads| Parts {
        interval: None,
        trunk,
        weights: &weights,
        preparation: &preparation,
        heads,
    };
    assert!(file(&parts(&trunk, &heads)).is_ok());
    let mut other = heads.clone();
    other[0].feature = Feature::Cls;
    let said = file(&parts(&trunk, &other)).unwrap_err();
    assert!(said.contains("head `t/a` answers by `cls`"), "{said}");
    let mut other = heads.clone();
    other[0].goal = 7;
    let said = file(&parts(&trunk, &other)).unwrap_err();
    assert!(
        said.contains("head `t/a` is of a goal, groups or a width that the model does not have"),
        "{said}"
    );
    let mut other = heads.clone();
    other[0]
        .for_groups(vec!["north".into(), "south".into()])
        .unwrap();
    assert!(
        file(&parts(&trunk, &other))
            .unwrap_err()
            .contains("groups or a width")
    );
    let narrow = prepared(1, &[3], Scaling::Quantile, false);
    let said = file(&Parts {
        preparation: &narrow,
        ..parts(&trunk, &heads)
    });
    assert!(said.unwrap_err().contains("prepared for another model"));
    // A model of pictures.
    let config = json!({"model_type": "polyloom-mlp", "image_size": 2, "num_channels": 1, "hidden_sizes": [2]});
    let mlp =
        polyloom_learn::models::mlp::Mlp::new(serde_json::from_value(config).unwrap()).unwrap();
    let said = file(&parts(&Trunk::Mlp(mlp), &heads)).unwrap_err();
    assert!(said.contains("no model of tables"), "{said}");
    // A column of the name of an output, one without a name, and one of running text.
    use ColumnKind::{Number, Text, Word};
    for (name, kind, want) in [
        (
            "prediction",
            Word,
            "`prediction` is the name of a column and of an output",
        ),
        ("", Word, "has no name"),
        ("note", Text, "`note` is running text"),
    ] {
        let settings = Settings {
            rare: 1,
            ..Settings::default()
        };
        let mut fitting = Fitting::new(settings).unwrap();
        let columns = [("x", Number), ("y", Number), (name, kind)];
        let columns = columns.map(|(n, kind)| column(n.into(), kind));
        for i in 0..4 {
            let fields = [
                Field::Number(f64::from(i)),
                Field::Number(0.5),
                Field::Word(["a", "b"][i as usize % 2].into()),
            ];
            fitting.see(&columns, &fields).unwrap();
        }
        let preparation = fitting.finish().unwrap();
        let said = file(&Parts {
            interval: None,
            trunk: &trunk,
            weights: &weights,
            preparation: &preparation,
            heads: &heads,
        });
        let said = said.unwrap_err();
        assert!(said.contains(want), "{said}");
    }
}

/// A goal of two classes and a number, over two numbers and a column of words, with what trees do at their edges: a leaf alone, a
/// threshold without end, sets of words, an ensemble that two goals share.
#[test]
fn trees_keep_thresholds_and_leaves_as_they_are() {
    let split = |column, test, missing_left, left| Node::Split {
        column,
        test,
        missing_left,
        left,
        right: left + 1,
        gain: 1.0,
    };
    let tree = Tree {
        nodes: vec![
            split(0, Test::AtMost(0.1), false, 1),
            split(2, Test::OneOf(0), true, 3),
            Node::Leaf(0),
            Node::Leaf(1),
            Node::Leaf(2),
        ],
        values: vec![0.1, 1.0, 0.2, 2.0, 0.3, 3.0],
        sets: vec![[0b10, 0, 0, 0]],
    };
    let endless = Tree {
        nodes: vec![
            split(1, Test::AtMost(f32::INFINITY), false, 1),
            Node::Leaf(0),
            Node::Leaf(1),
        ],
        values: vec![5.0, 6.0],
        sets: Vec::new(),
    };
    let alone = Tree {
        nodes: vec![Node::Leaf(0)],
        values: vec![0.25],
        sets: Vec::new(),
    };
    let to = |column, factor, output, width| Use {
        column,
        factor,
        output,
        width,
    };
    let feature = |name: &str, categories| forest::Feature {
        name: name.into(),
        categories,
    };
    let bins = forest::bins::Categories {
        bin_of: vec![forest::bins::UNSEEN, 1, 0],
        bins: 2,
    };
    let output = |name: &str, classes, start: &[f64], scale| forest::Output {
        name: name.into(),
        classes,
        start: start.to_vec(),
        scale,
    };
    let config = ForestConfig {
        model_type: MODEL_TYPE.into(),
        architecture: "gbdt".into(),
        goals: vec!["t/a".into(), "t/b".into()],
        width: 2,
        numbers: vec!["n 0".into(), "n 1".into()],
        words: vec!["w 0".into()],
        categories: vec![3],
        options: serde_json::Map::new(),
    };
    let method = ForestModel::new(config.clone(), None).unwrap().method;
    let all = Forest {
        method,
        features: vec![
            feature("n 0", None),
            feature("n 1", None),
            feature("w 0", Some(bins)),
        ],
        outputs: vec![
            output("t/a", 2, &[-0.5, 0.5], 1.0),
            output("t/b", 0, &[10.0], 4.0),
        ],
        ensembles: vec![
            Ensemble {
                name: "both".into(),
                width: 2,
                trees: vec![tree],
                uses: vec![to(0, 1.0, 0, 2), to(2, 0.5, 1, 1)],
            },
            Ensemble {
                name: "b".into(),
                width: 1,
                trees: vec![endless, alone],
                uses: vec![to(2, 1.0, 0, 1)],
            },
        ],
        sides: None,
    };
    let trunk = Trunk::Forest(Box::new(ForestModel::new(config, Some(all)).unwrap()));
    let preparation = prepared(2, &[3], Scaling::Standard, false);
    let mut heads = heads(&["t/a".to_owned(), "t/b".to_owned()], 2);
    heads[0].layers = vec![(
        tensor(vec![1.0, 0.0, 0.0, 1.0], (2, 2)).unwrap(),
        tensor(vec![0.0; 2], 2).unwrap(),
    )];
    let found = Model::of(
        &file(&Parts {
            interval: None,
            trunk: &trunk,
            weights: &Plain::default(),
            preparation: &preparation,
            heads: &heads,
        })
        .unwrap(),
    );
    found.is_sound();
    let [node] = found.all("TreeEnsembleRegressor")[..] else {
        panic!()
    };
    let ints = |name: &str| node.attributes[name].ints.clone();
    let doubles = |name: &str| node.attributes[name].doubles.clone();
    assert_eq!(ints("n_targets"), [4]);
    // The leaf alone adds to the start of its goal, times the scale; the last place of the number's slot is not used.
    assert_eq!(doubles("base_values_as_tensor"), [-0.5, 0.5, 11.0, 0.0]);
    // What words are asked is a column behind the numbers, at most 0.5 in the set.
    assert_eq!(ints("nodes_featureids"), [0, 2, 0, 0, 0, 1, 0, 0]);
    let thresholds = doubles("nodes_values_as_tensor");
    assert_eq!(thresholds[..2], [f64::from(0.1f32), 0.5]);
    assert_eq!(thresholds[5], f64::INFINITY);
    assert_eq!(
        ints("nodes_missing_value_tracks_true"),
        [0, 1, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(ints("nodes_truenodeids")[..2], [1, 3]);
    assert_eq!(ints("nodes_falsenodeids")[..2], [2, 4]);
    // Leaves: both classes, and the second output times 0.5 and 4 for the number.
    assert_eq!(ints("target_ids"), [0, 1, 2, 0, 1, 2, 0, 1, 2, 2, 2]);
    let value = f64::from(0.1f32);
    assert_eq!(doubles("target_weights_as_tensor")[..3], [value, 1.0, 2.0]);
    assert_eq!(doubles("target_weights_as_tensor")[9..], [20.0, 24.0]);
    // Codes to bins, unseen ones to the last; in the set (bin 1) is 0, outside 1, unseen not a number.
    let tables: Vec<&read::Tensor> = found
        .weights
        .values()
        .filter(|t| t.element == 11 && t.dims == [3, 1])
        .collect();
    let [table] = tables[..] else { panic!() };
    let table = table.doubles();
    assert!(
        table[0] == 1.0 && table[1] == 0.0 && table[2].is_nan(),
        "{table:?}"
    );
}

#[test]
fn goals_of_one_name_get_their_whole_names() {
    let config = json!({
        "model_type": "polyloom-table", "architecture": "mmoe", "goals": ["u/a", "v/a"], "numeric": 1, "categories": [],
        "embed_dim": 4, "hidden": [3], "tower": [], "experts": 2,
    });
    let (model, weights) = made(&config);
    let preparation = prepared(1, &[], Scaling::Quantile, false);
    let heads = heads(&model.config.goals, model.width());
    let trunk = Trunk::Table(Box::new(model));
    let parts = Parts {
        interval: None,
        trunk: &trunk,
        weights: &weights,
        preparation: &preparation,
        heads: &heads,
    };
    let found = Model::of(&file(&parts).unwrap());
    found.is_sound();
    let names: Vec<&str> = found.outputs.iter().map(|(n, _)| &**n).collect();
    assert_eq!(
        names,
        ["prediction_u/a", "probabilities_u/a", "prediction_v/a"]
    );
}
