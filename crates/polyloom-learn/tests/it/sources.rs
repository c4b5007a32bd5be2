//! Gradients through sources, in whole models: low-rank parts and merged weights.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use polyloom_core::rng::Stream;
use polyloom_learn::engine::{Gradients, Parameters, Tensor, Value, slice, tensor};
use polyloom_learn::models::lora::{Lora, LowRank, row_lengths};
use polyloom_learn::models::merged::{Merged, Rows, TaskVector, task_vector};
use polyloom_learn::models::{Plain, Source, Trained};
use polyloom_learn::{Result, ops};

use super::case::{Case, folder, values};
use super::differences::agree;

const MODELS: [&str; 3] = ["bert", "vit", "qwen2"];

fn noise(name: &str, shape: &[usize], size: f32) -> Tensor {
    let stream = Stream::new(11, name, 0);
    let n = shape.iter().product::<usize>() as u64;
    let values = (0..n).map(|i| size * stream.normal(i)).collect();
    tensor(values, shape).unwrap()
}

/// Writes down which linear layers a model asks for.
struct Asked<'a>(&'a Plain, RefCell<BTreeSet<String>>);

impl Source for Asked<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.0.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        self.1.borrow_mut().insert(name.to_owned());
        self.0.linear(name, x)
    }
}

fn modules(case: &Case, base: &Plain) -> BTreeSet<String> {
    let asked = Asked(base, RefCell::default());
    case.model().output(case, &asked).unwrap();
    asked.1.into_inner()
}

/// Low-rank parts for every linear layer of a model, their second factor not 0 as it is before training.
fn parts(base: &Plain, modules: &BTreeSet<String>, rank: usize, dora: bool) -> Parameters {
    let mut all = Vec::new();
    for name in modules {
        let weight = base.tensor(&format!("{name}.weight")).unwrap();
        let (out, input) = (weight.dims()[0], weight.dims()[1]);
        let mut add = |part: &str, shape: &[usize], size: f32| {
            let name = format!("{name}.{part}");
            let numbers = noise(&name, shape, size);
            all.push((name, numbers));
        };
        add("lora_A", &[rank, input], 0.2);
        add("lora_B", &[out, rank], 0.2);
        if dora {
            let near = noise(name, &[out], 0.2);
            let near = values(&near).iter().map(|x| 1.0 + x).collect();
            all.push((format!("{name}.magnitude"), tensor(near, out).unwrap()));
        }
    }
    Parameters::new(all).unwrap()
}

fn low_ranks(
    parameters: &Parameters,
    modules: &BTreeSet<String>,
    scale: f32,
) -> HashMap<String, LowRank> {
    let of = |module: &String| {
        let get = |part: &str| parameters.get(&format!("{module}.{part}"));
        let part = LowRank {
            a: get("lora_A").unwrap().value.clone(),
            b: get("lora_B").unwrap().value.clone(),
            scale,
            magnitude: get("magnitude").map(|p| p.value.clone()),
        };
        (module.clone(), part)
    };
    modules.iter().map(of).collect()
}

/// DoRA as its section 4.3 has it: the lengths of the rows are numbers that do not move.
struct Held<'a> {
    base: &'a Plain,
    modules: HashMap<String, LowRank>,
    lengths: HashMap<String, Tensor>,
}

impl Source for Held<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.base.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let part = &self.modules[name];
        let whole = ops::add(
            &self.base.tensor(&format!("{name}.weight"))?,
            &ops::scale(&ops::product(&part.b, &part.a)?, part.scale)?,
        )?;
        let lengths = Value::constant(self.lengths[name].clone());
        let magnitude = part.magnitude.as_ref().unwrap();
        let y = ops::times_row(
            &ops::linear(x, &whole, None)?,
            &ops::div(magnitude, &lengths)?,
        )?;
        match self.find(&format!("{name}.bias"))? {
            Some(bias) => ops::plus_row(&y, &bias),
            None => Ok(y),
        }
    }
}

/// No parameter here may be without a gradient.
fn never(_: &str) -> bool {
    false
}

#[test]
fn low_rank_parts_in_whole_models() {
    for name in MODELS {
        let case = Case::open(&folder().join(name));
        let base = Plain::new(case.tensors());
        let modules = modules(&case, &base);
        assert!(modules.len() >= 12, "{name}: {modules:?}");
        let rank = 4;
        // alpha 6: LoRA divides it by the rank, rsLoRA by its root.
        for scale in [6.0 / rank as f32, 6.0 / (rank as f32).sqrt()] {
            let parameters = parts(&base, &modules, rank, false);
            let loss = || {
                let source = Lora {
                    base: &base,
                    modules: low_ranks(&parameters, &modules, scale),
                    dropout: 0.0,
                };
                case.model().smooth(&case, &source)
            };
            agree(
                &format!("{name}, scale {scale}"),
                &parameters,
                &loss,
                &loss,
                &never,
            );
        }
    }
}

#[test]
fn dora_in_whole_models() {
    for name in MODELS {
        let case = Case::open(&folder().join(name));
        let base = Plain::new(case.tensors());
        let modules = modules(&case, &base);
        let parameters = parts(&base, &modules, 3, true);
        let ranks = || low_ranks(&parameters, &modules, 0.7);
        let lengths = ranks()
            .iter()
            .map(|(module, part)| {
                let weight = base.tensor(&format!("{module}.weight")).unwrap();
                (module.clone(), row_lengths(weight.data(), part).unwrap())
            })
            .collect();
        let held = RefCell::new(Held {
            base: &base,
            modules: ranks(),
            lengths,
        });
        let loss = || {
            let source = Lora {
                base: &base,
                modules: ranks(),
                dropout: 0.0,
            };
            case.model().smooth(&case, &source)
        };
        let moved = || case.model().smooth(&case, &*held.borrow());
        agree(&format!("{name}, DoRA"), &parameters, &loss, &moved, &never);
    }
}

/// Three tasks: all tensors changed, all of them, and half of them.
fn vectors(case: &Case) -> Vec<TaskVector> {
    let change = |task: usize| -> TaskVector {
        let tensors = case.tensors();
        let some = tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| task < 2 || i % 2 == 0);
        some.map(|(_, (name, t))| (name.clone(), noise(&format!("{task}{name}"), t.dims(), 0.1)))
            .collect()
    };
    (0..3).map(change).collect()
}

#[test]
fn coefficients_of_merged_weights() {
    for name in MODELS {
        let case = Case::open(&folder().join(name));
        let base = Plain::new(case.tensors());
        let vectors = vectors(&case);
        for rows in [Rows::One, Rows::each(&vectors)] {
            let count = rows.count();
            assert_eq!(
                count,
                if rows == Rows::One {
                    1
                } else {
                    case.tensors().len()
                }
            );
            let start = (0..3 * count)
                .map(|i| 0.3 + 0.1 * (i as f32).sin())
                .collect();
            let start = tensor(start, (count, 3)).unwrap();
            let parameters = Parameters::new([("coefficients".to_owned(), start)]).unwrap();
            let coefficients = &parameters.get("coefficients").unwrap().value;
            let loss = || {
                let source = Merged::new(&base, &vectors, &rows, coefficients.clone()).unwrap();
                case.model().smooth(&case, &source)
            };
            agree(
                &format!("{name}, {count} rows"),
                &parameters,
                &loss,
                &loss,
                &never,
            );
            // Every one of them: the gradient of the merged weight, times the vector.
            let mut gradients = Gradients::default();
            loss().backward_into(&mut gradients).unwrap();
            let found = values(gradients.get(coefficients).unwrap());
            let mut expected = vec![0f64; found.len()];
            let merged = Merged::new(&base, &vectors, &rows, coefficients.clone()).unwrap();
            let whole = case.tensors().into_iter().map(|(name, _)| {
                let t = merged.tensor(&name).unwrap().data().clone();
                (name, t)
            });
            let whole = Parameters::new(whole).unwrap();
            let nothing = Plain::default();
            let trained = Trained {
                parameters: &whole,
                frozen: &nothing,
                seed: None,
            };
            let mut gradients = Gradients::default();
            let loss = case.model().smooth(&case, &trained);
            loss.backward_into(&mut gradients).unwrap();
            for p in whole.iter() {
                let row = match &rows {
                    Rows::One => 0,
                    Rows::Each(rows) => rows[&p.name],
                };
                let g = values(gradients.get(&p.value).unwrap());
                for (task, vector) in vectors.iter().enumerate() {
                    if let Some(v) = vector.get(&p.name) {
                        let v = slice(v).unwrap();
                        let product = g.iter().zip(v.iter()).map(|(a, b)| f64::from(a * b));
                        expected[3 * row + task] += product.sum::<f64>();
                    }
                }
            }
            let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
            for (a, b) in found.iter().zip(&expected) {
                assert!(
                    (f64::from(*a) - b).abs() <= 1e-4 * largest,
                    "{name}: {a} and {b}"
                );
            }
        }
    }
}

#[test]
fn merged_weights_by_hand() {
    let on = |v: &[f32]| tensor(v.to_vec(), v.len()).unwrap();
    let base = Plain::new([
        ("a".to_owned(), on(&[1.0, 2.0])),
        ("b".to_owned(), on(&[3.0])),
    ]);
    let tuned = [on(&[2.0, 2.0]), on(&[9.0]), on(&[5.0])];
    let one = task_vector(&base, [("a", &tuned[0]), ("head", &tuned[1])]).unwrap();
    let two = task_vector(&base, [("b", &tuned[2])]).unwrap();
    assert!(!one.contains_key("head") && task_vector(&base, [("b", &tuned[0])]).is_err());
    let vectors = [one, two];
    let numbers = |rows: &Rows, c: &[f32], name: &str| {
        let c = Value::constant(tensor(c.to_vec(), (c.len() / 2, 2)).unwrap());
        let merged = Merged::new(&base, &vectors, rows, c).unwrap();
        values(merged.tensor(name).unwrap().data())
    };
    assert_eq!(numbers(&Rows::One, &[0.5, 2.0], "a"), [1.5, 2.0]);
    assert_eq!(numbers(&Rows::One, &[0.5, 2.0], "b"), [7.0]);
    let each = Rows::each(&vectors);
    assert_eq!(numbers(&each, &[0.5, 9.0, 9.0, -1.0], "b"), [1.0]);
    // Without a row a tensor is the base's.
    let some = Rows::Each(HashMap::from([("a".to_owned(), 0)]));
    assert_eq!(numbers(&some, &[1.0, 1.0], "b"), [3.0]);
    let c = Value::constant(tensor(vec![0.0; 2], (2, 1)).unwrap());
    let said = Merged::new(&base, &vectors, &Rows::One, c)
        .err()
        .unwrap()
        .to_string();
    assert!(
        said.contains("coefficients of [2, 1], not [1, 2]"),
        "{said}"
    );
}

/// Sources stack: adapters over merged weights, both in training.
#[test]
fn low_rank_parts_over_merged_weights() {
    let case = Case::open(&folder().join("bert"));
    let base = Plain::new(case.tensors());
    let modules = modules(&case, &base);
    let vectors = vectors(&case);
    let factors = parts(&base, &modules, 2, false);
    let mut all_of = vec![(
        "coefficients".to_owned(),
        tensor(vec![0.2; 3], (1, 3)).unwrap(),
    )];
    all_of.extend(
        factors
            .iter()
            .map(|p| (p.name.clone(), p.value.data().clone())),
    );
    let parameters = Parameters::new(all_of).unwrap();
    let loss = || {
        let coefficients = parameters.get("coefficients").unwrap().value.clone();
        let merged = Merged::new(&base, &vectors, &Rows::One, coefficients).unwrap();
        let source = Lora {
            base: &merged,
            modules: low_ranks(&parameters, &modules, 1.0),
            dropout: 0.0,
        };
        case.model().smooth(&case, &source)
    };
    agree("bert, both", &parameters, &loss, &loss, &never);
}
