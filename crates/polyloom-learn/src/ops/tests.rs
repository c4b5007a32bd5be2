//! Every operation three ways: the kernel, candle's operations, differences.

use std::cell::Cell;

use polyloom_core::rng::Stream;

use super::*;
use crate::engine::{Device, Gradients, slice, tensor};

thread_local! {
    /// Operations of this thread leave the kernels aside.
    pub(super) static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

fn noise(n: usize, key: u64) -> Vec<f32> {
    let s = Stream::new(key, "operations", 0);
    (0..n as u64).map(|i| s.normal(i)).collect()
}

/// Where operations of candle run: a GPU, where this build has the feature and the machine the device; else the processor.
fn device() -> Device {
    if cfg!(feature = "cuda") {
        Device::cuda_if_available(0).unwrap()
    } else if cfg!(feature = "metal") {
        Device::new_metal(0).unwrap_or(Device::Cpu)
    } else {
        Device::Cpu
    }
}

/// The tensor where operations of this thread run.
fn here(t: Tensor) -> Tensor {
    match COMPOSED.get() {
        true => t.to_device(&device()).unwrap(),
        false => t,
    }
}

fn leaf(values: &[f32], shape: &[usize]) -> Value {
    Value::leaf(here(tensor(values.to_vec(), shape).unwrap()))
}

fn numbers(t: &Tensor) -> Vec<f32> {
    let t = t.to_device(&Device::Cpu).unwrap();
    slice(&t.contiguous().unwrap()).unwrap().to_vec()
}

/// Holds values and gradients of `f` against candle's and against differences. The loss is the sum of the output times
/// fixed random numbers.
fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Value]) -> Result<Value>) {
    let start: Vec<Vec<f32>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| noise(s.iter().product(), i as u64 + 1))
        .collect();
    let run = |at: &[Vec<f32>]| {
        let inputs: Vec<Value> = at.iter().zip(shapes).map(|(v, s)| leaf(v, s)).collect();
        let out = f(&inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        let weights = noise(out.data().elem_count(), 99);
        let data = numbers(out.data());
        let loss: f64 = data
            .iter()
            .zip(&weights)
            .map(|(o, w)| f64::from(*o) * f64::from(*w))
            .sum();
        let mut gradients = Gradients::default();
        let weights = here(tensor(weights, out.dims()).unwrap());
        out.backward_from(weights, &mut gradients).unwrap();
        let found: Vec<Vec<f32>> = inputs
            .iter()
            .map(|v| {
                numbers(
                    gradients
                        .get(v)
                        .unwrap_or_else(|| panic!("{name}: no gradient")),
                )
            })
            .collect();
        (data, loss, found)
    };
    let (data, _, found) = run(&start);
    COMPOSED.set(true);
    let (other, _, composed) = run(&start);
    COMPOSED.set(false);
    let near = |a: &[f32], b: &[f32], what: &str| {
        assert_eq!(a.len(), b.len(), "{name}: {what}");
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!(
                (a - b).abs() <= 2e-5 * (1.0 + b.abs()),
                "{name}, {what} {i}: {a} and {b}"
            );
        }
    };
    near(&data, &other, "output");
    for (part, (a, b)) in found.iter().zip(&composed).enumerate() {
        near(a, b, &format!("gradient of input {part}, element"));
        for i in 0..a.len() {
            let moved = |d: f32| {
                let mut at = start.clone();
                at[part][i] += d;
                run(&at).1
            };
            let numeric = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            assert!(
                (f64::from(a[i]) - numeric).abs() < 5e-3 * (1.0 + numeric.abs()),
                "{name}, input {part}, {i}: {} and {numeric}",
                a[i]
            );
        }
    }
}

#[test]
fn linear_layers() {
    check("linear", &[&[2, 3, 4], &[5, 4], &[5]], |v| {
        linear(&v[0], &v[1], Some(&v[2]))
    });
    check("linear without bias", &[&[3, 4], &[2, 4]], |v| {
        linear(&v[0], &v[1], None)
    });
    check("product", &[&[3, 4], &[4, 2]], |v| product(&v[0], &v[1]));
    // A weight that is no leaf, used twice: base + B A.
    check("low rank", &[&[2, 4], &[5, 4], &[5, 2], &[2, 4]], |v| {
        let w = add(&v[1], &scale(&product(&v[2], &v[3])?, 0.5)?)?;
        add(&linear(&v[0], &w, None)?, &linear(&v[0], &w, None)?)
    });
}

#[test]
fn mixtures() {
    let parts = [8, 9].map(|key| tensor(noise(6, key), (2, 3)).unwrap());
    let all = [Some(&parts[0]), None, Some(&parts[1])];
    // The same row twice, and another one.
    check("mixture", &[&[2, 3], &[2, 3]], |v| {
        let two = mul(
            &mixture(&v[0], &all, &v[1], 1)?,
            &mixture(&v[0], &all, &v[1], 1)?,
        )?;
        add(&two, &mixture(&v[0], &all, &v[1], 0)?)
    });
    let c = leaf(&[2.0, 9.0, -1.0], &[1, 3]);
    let out = numbers(
        mixture(&leaf(&[1.0; 6], &[2, 3]), &all, &c, 0)
            .unwrap()
            .data(),
    );
    let (a, b) = (numbers(&parts[0]), numbers(&parts[1]));
    assert!((0..6).all(|i| (out[i] - (1.0 + 2.0 * a[i] - b[i])).abs() < 1e-6));
    let said = |r: Result<Value>| r.unwrap_err().to_string();
    assert!(said(mixture(&c, &all, &c, 1)).contains("row 1 for 3 parts"));
    assert!(said(mixture(&c, &all, &c, 0)).contains("a part of [2, 3] on a base of [1, 3]"));
}

#[test]
fn activations() {
    for kind in ["gelu", "gelu_new", "quick_gelu", "silu", "tanh", "sigmoid"]
        .map(|n| Activation::named(n).unwrap())
    {
        check(&format!("{kind:?}"), &[&[3, 5]], |v| activate(&v[0], kind));
        check(&format!("{kind:?} as gate"), &[&[2, 3], &[2, 3]], |v| {
            gated(&v[0], &v[1], kind)
        });
    }
}

#[test]
fn norms() {
    check("layer norm", &[&[2, 3, 6], &[6], &[6]], |v| {
        norm(&v[0], &v[1], Some(&v[2]), Norm::layer(1e-5))
    });
    check("rms norm", &[&[3, 6], &[6]], |v| {
        norm(&v[0], &v[1], None, Norm::rms(1e-6))
    });
    check("rms norm of 1 + w", &[&[3, 6], &[6]], |v| {
        norm(
            &v[0],
            &v[1],
            None,
            Norm {
                offset: 1.0,
                ..Norm::rms(1e-6)
            },
        )
    });
}

#[test]
fn batch_norms() {
    check("batch norm", &[&[5, 3], &[3], &[3]], |v| {
        Ok(batch_norm(&v[0], &v[1], &v[2], None, 1e-5)?.0)
    });
    let running = Moments {
        mean: vec![0.5, -1.0, 0.0],
        variance: vec![1.0, 4.0, 0.25],
    };
    check(
        "batch norm of running values",
        &[&[4, 3], &[3], &[3]],
        |v| {
            let (y, told) = batch_norm(&v[0], &v[1], &v[2], Some(running.clone()), 1e-5)?;
            assert!(told.is_none());
            Ok(y)
        },
    );
    let (x, one) = (leaf(&[1.0, 3.0, 5.0, 9.0], &[2, 2]), leaf(&[1.0; 2], &[2]));
    let told = batch_norm(&x, &one, &one, None, 0.0).unwrap().1.unwrap();
    assert_eq!((told.mean, told.variance), (vec![3.0, 6.0], vec![4.0, 9.0]));
    let row = leaf(&[1.0, 3.0], &[1, 2]);
    let said = batch_norm(&row, &one, &one, None, 0.0).unwrap_err();
    assert!(said.to_string().contains("one row has no variance"));
}

#[test]
fn gates_and_experts() {
    check("softmax", &[&[3, 5]], |v| softmax(&v[0]));
    check("blend", &[&[4, 3], &[4, 4], &[4, 2]], |v| {
        blend(&v[0], &[&v[1], &v[2]])
    });
    // The same experts twice: gradients add up.
    check("two blends", &[&[4, 2], &[4, 2], &[4, 6]], |v| {
        add(
            &blend(&softmax(&v[0])?, &[&v[2]])?,
            &blend(&v[1], &[&v[2]])?,
        )
    });
    check("grouped linear", &[&[3, 6], &[4, 3], &[4]], |v| {
        grouped_linear(&v[0], &v[1], Some(&v[2]), 2)
    });
    check("grouped linear without bias", &[&[3, 4], &[6, 2]], |v| {
        grouped_linear(&v[0], &v[1], None, 2)
    });
    check("scatter", &[&[4, 3], &[4, 1]], |v| {
        scatter(&v[0], &v[1], &[2, 0, 2, 1], 4)
    });
    let said = |r: Result<Value>| r.unwrap_err().to_string();
    let one = leaf(&[0.0; 2], &[2, 1]);
    assert!(said(scatter(&one, &one, &[0, 3], 3)).contains("for 3 rows"));
    let x = leaf(&[0.0; 6], &[2, 3]);
    assert!(said(blend(&x, &[&leaf(&[0.0; 4], &[2, 2])])).contains("weights [2, 3]"));
    let b = leaf(&[0.0; 4], &[4]);
    assert!(said(grouped_linear(&x, &x, Some(&b), 2)).contains("in 2 groups"));
}

#[test]
fn functions_of_gates() {
    check("smooth step", &[&[3, 5]], |v| smooth_step(&v[0], 2.5));
    let ends = leaf(&[-1.0, -0.5, 0.0, 0.25, 0.5, 9.0], &[6]);
    let found = numbers(smooth_step(&ends, 1.0).unwrap().data());
    assert_eq!(found, [0.0, 0.0, 0.5, 0.84375, 1.0, 1.0]);
    check("entropies", &[&[2, 3]], |v| {
        entropies(&activate(&v[0], Activation::Sigmoid)?, 1e-6)
    });
    check("reciprocal", &[&[2, 3]], |v| {
        reciprocal(&activate(&v[0], Activation::Sigmoid)?, 0.1)
    });
    let labels = [0.0, 1.0, 0.0, 1.0];
    check("chained cross-entropy", &[&[4, 1], &[4, 1]], |v| {
        chained_cross_entropy(&[&v[0], &v[1]], &labels)
    });
    check("chain of three", &[&[4, 1], &[4, 1], &[4, 1]], |v| {
        chained_cross_entropy(&[&v[0], &v[1], &v[2]], &labels)
    });
    // One alone is the usual cross-entropy; three scores of 0 give an eighth.
    let zero = leaf(&[0.0], &[1]);
    let of = |n: usize, y: f32| {
        let loss = chained_cross_entropy(&vec![&zero; n], &[y]).unwrap();
        loss.number().unwrap()
    };
    assert!((of(1, 0.0) - 2f32.ln()).abs() < 1e-6);
    assert!((of(3, 1.0) - 8f32.ln()).abs() < 1e-6);
    assert!((of(3, 0.0) - (8f32 / 7.0).ln()).abs() < 1e-6);
    // 1/4 of two scores of 0; and scores that no number holds the probability of.
    let loss = |a: f32, b: f32, y: f32| {
        let (a, b) = (leaf(&[a], &[1]), leaf(&[b], &[1]));
        let loss = chained_cross_entropy(&[&a, &b], &[y]).unwrap();
        loss.number().unwrap()
    };
    assert!((loss(0.0, 0.0, 1.0) - 4f32.ln()).abs() < 1e-6);
    assert!((loss(0.0, 0.0, 0.0) - (4f32 / 3.0).ln()).abs() < 1e-6);
    assert!((loss(900.0, 800.0, 0.0) - 800.0).abs() < 1e-3);
    assert!((loss(-900.0, 800.0, 1.0) - 900.0).abs() < 1e-3);
    assert!(loss(-900.0, 800.0, 0.0).abs() < 1e-6);
    let x = leaf(&[0.0; 2], &[2]);
    let said = |r: Result<Value>| r.unwrap_err().to_string();
    assert!(said(chained_cross_entropy(&[&x, &x], &[1.0])).contains("with 1 labels"));
    assert!(said(smooth_step(&x, 0.0)).contains("a width of 0"));
}

#[test]
fn arithmetics() {
    check("sum", &[&[2, 3], &[2, 3]], |v| add(&v[0], &v[1]));
    check("difference", &[&[2, 3], &[2, 3]], |v| sub(&v[0], &v[1]));
    check("product", &[&[2, 3], &[2, 3]], |v| mul(&v[0], &v[1]));
    check("row sum", &[&[2, 2, 3], &[3]], |v| plus_row(&v[0], &v[1]));
    check("row product", &[&[2, 2, 3], &[3]], |v| {
        times_row(&v[0], &v[1])
    });
    check("quotient", &[&[2, 3]], |v| {
        let two = Value::constant(here(tensor(vec![2.0; 6], (2, 3))?));
        div(&v[0], &two)
    });
    check("square", &[&[2, 3]], |v| mul(&v[0], &v[0]));
    check("mean", &[&[2, 3]], |v| mean(&v[0]));
    check("dropout", &[&[4, 30]], |v| dropout(&v[0], 0.4, 7));
    check("one value three times", &[&[2, 3]], |v| {
        add(&add(&v[0], &v[0])?, &v[0])
    });
}

#[test]
fn attentions() {
    let (q, k): (&[usize], &[usize]) = (&[2, 3, 8], &[2, 4, 8]);
    check("attention", &[q, k, k], |v| {
        attention(&v[0], &v[1], &v[2], Attend::full(4), Mask::default())
    });
    let hidden = tensor(
        vec![0.0, 0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0],
        (2, 4),
    )
    .unwrap();
    check("masked, capped", &[q, k, k], |v| {
        let rule = Attend {
            cap: 2.0,
            scale: Some(0.7),
            ..Attend::full(2)
        };
        attention(
            &v[0],
            &v[1],
            &v[2],
            rule,
            Mask {
                keys: Some(&hidden),
                bias: None,
            },
        )
    });
    check("grouped, causal", &[q, &[2, 4, 4], &[2, 4, 4]], |v| {
        attention(
            &v[0],
            &v[1],
            &v[2],
            Attend {
                window: 2,
                ..Attend::causal(4, 2)
            },
            Mask::default(),
        )
    });
    check("with a bias", &[q, k, k, &[2, 3, 4]], |v| {
        attention(
            &v[0],
            &v[1],
            &v[2],
            Attend::full(2),
            Mask {
                keys: None,
                bias: Some(&v[3]),
            },
        )
    });
}

#[test]
fn shapes() {
    check("reshape", &[&[2, 6]], |v| reshape(&v[0], &[3, 4]));
    check("narrow", &[&[2, 5, 3]], |v| narrow(&v[0], 1, 1, 2));
    check("two parts", &[&[2, 5]], |v| {
        add(&narrow(&v[0], 1, 0, 3)?, &narrow(&v[0], 1, 2, 3)?)
    });
    check("concat", &[&[2, 3], &[2, 1]], |v| {
        concat(&[&v[0], &v[1], &v[0]], 1)
    });
    // A part as a whole, and places that cut through parts.
    for (start, length) in [(3, 1), (4, 3), (1, 4)] {
        check("narrow of concat", &[&[2, 3], &[2, 1]], |v| {
            let all = concat(&[&v[0], &v[1], &v[0]], 1)?;
            concat(&[&narrow(&all, 1, start, length)?, &v[0], &v[1]], 1)
        });
    }
    check("rows", &[&[4, 3]], |v| rows(&v[0], &[2, 0, 2]));
    check("embedding", &[&[4, 3]], |v| {
        embedding(&v[0], &[3, 0, 0, 1], &[2, 2])
    });
}

#[test]
fn the_rest() {
    let angles = |halves| Angles {
        cos: noise(6, 5).iter().map(|x| x.cos()).collect(),
        sin: noise(6, 5).iter().map(|x| x.sin()).collect(),
        halves,
    };
    check("rotary", &[&[2, 3, 10]], |v| {
        rotate(&v[0], 2, &angles(true))
    });
    check("rotary of neighbours", &[&[2, 3, 8]], |v| {
        rotate(&v[0], 2, &angles(false))
    });
    check("cross-entropy", &[&[4, 5]], |v| {
        cross_entropy(&v[0], &[1, IGNORED, 4, 0], 0.0)
    });
    check("smoothed cross-entropy", &[&[2, 5]], |v| {
        cross_entropy(&v[0], &[1, 4], 0.1)
    });
    check("weighed cross-entropy", &[&[3, 5]], |v| {
        weighed_cross_entropy(&v[0], &[1, 4, 0], 0.1, |losses| {
            let squares = losses.iter().map(|l| f64::from(l * l)).sum();
            (squares, losses.iter().map(|l| 2.0 * l).collect())
        })
    });
    check("entropy", &[&[3, 5]], |v| entropy(&v[0]));
    check("marginal entropy", &[&[3, 5]], |v| marginal_entropy(&v[0]));
    check("soft cross-entropy", &[&[2, 3]], |v| {
        soft_cross_entropy(&v[0], &[0.2, 0.5, 0.3, 0.0, 1.0, 0.0])
    });
    check("mean of squares", &[&[4, 5], &[4, 5]], |v| {
        mean_squares(&v[0], &v[1])
    });
    let weights = tensor(vec![0.5, 0.5, 0.0, 1.0, 0.0, 0.0], (2, 3)).unwrap();
    check("pooling", &[&[2, 3, 4]], |v| pool(&v[0], &weights));
    check("unit length", &[&[3, 4]], |v| unit_length(&v[0]));
    check("convolution", &[&[2, 2, 5, 4], &[3, 2, 3, 2], &[3]], |v| {
        convolution(&v[0], &v[1], Some(&v[2]), 2, 1)
    });
}

#[test]
fn wrong_shapes_are_named() {
    let v = leaf(&[0.0; 6], &[2, 3]);
    let said = |r: Result<Value>| r.unwrap_err().to_string();
    assert!(
        said(linear(&v, &leaf(&[0.0; 8], &[2, 4]), None)).contains("input [2, 3], weight [2, 4]")
    );
    assert!(said(embedding(&v, &[2], &[1])).contains("row 2 of a table of 2"));
    assert!(said(cross_entropy(&v, &[0, 3], 0.0)).contains("label 3 of 3 classes"));
    assert!(said(add(&v, &leaf(&[0.0; 6], &[3, 2]))).contains("[2, 3] and [3, 2]"));
    assert!(
        said(attention(&v, &v, &v, Attend::full(2), Mask::default())).contains("queries [2, 3]")
    );
    assert!(said(dropout(&v, 1.0, 0)).contains("a rate of 1"));
}
