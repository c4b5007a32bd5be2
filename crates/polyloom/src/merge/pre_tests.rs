use std::sync::Arc;

use polyloom_core::rng::Stream;
use serde_json::{Map, Value};

use crate::merge::method::{Job, Kernel, Param, TensorJob};
use crate::merge::params::complete;
use crate::merge::run::{Collect, Group, Memory, Options, run};
use crate::plan::Composition;
use crate::recipe::{Recipe, Setting, toml};

/// Values as `[tensor][element]`.
type Tensors = Vec<Vec<f32>>;

/// A recipe with `experts` experts and this `[merge]` table.
fn recipe(merge: &str, experts: usize) -> Recipe {
    let mut text = "[base]\npath = \"w0\"\n".to_owned();
    for i in 0..experts {
        text += &format!("[[expert]]\npath = \"w{}\"\n", i + 1);
    }
    text += "[merge]\n";
    text += merge;
    toml::parse(&text, None).unwrap_or_else(|e| panic!("{e:?}\n{text}"))
}

fn composed(merge: &str, experts: usize) -> crate::error::Result<Composition> {
    let recipe = recipe(merge, experts);
    let method = crate::merge::find(&recipe.method).unwrap();
    Composition::from_recipe(&recipe, method, experts)
}

/// The merged vectors of task vectors against a zero base.
fn merged_in(
    merge: &str,
    shapes: &[&[usize]],
    inputs: &[Tensors],
    seed: u64,
    chunk: usize,
) -> Tensors {
    let recipe = recipe(merge, inputs.len());
    let composition = composed(merge, inputs.len()).unwrap();
    let spec = crate::merge::find(composition.method).unwrap().spec();
    let values = |each: bool| {
        let params: Vec<Param> = spec
            .params
            .iter()
            .filter(|p| p.each == each)
            .copied()
            .collect();
        let given: Map<String, Value> = recipe
            .settings
            .iter()
            .filter(|(k, _)| params.iter().any(|p| p.name == *k))
            .map(|(k, (s, _))| (k.clone(), Setting::into(s.clone())))
            .collect();
        complete(&params, &given, false).unwrap()
    };
    let tensors: Vec<Arc<TensorJob>> = shapes
        .iter()
        .enumerate()
        .map(|(t, shape)| {
            Arc::new(TensorJob {
                name: format!("t{t}"),
                shape: shape.to_vec(),
                shared: values(false),
                each: vec![values(true); inputs.len()],
                layer: None,
                before: 0,
            })
        })
        .collect();
    let job = Job {
        experts: (0..inputs.len()).map(|i| i.to_string()).collect(),
        has_base: true,
        seed,
        statistics: None,
        inner_maker: None,
        tensors,
    };
    let zeros: Tensors = job
        .tensors
        .iter()
        .map(|t| vec![0.0; t.elements()])
        .collect();
    let feed = Memory {
        base: zeros.iter().map(Vec::as_slice).collect(),
        inputs: inputs
            .iter()
            .map(|i| i.iter().map(Vec::as_slice).collect())
            .collect(),
    };
    let make = |job: &Job| -> crate::error::Result<Box<dyn Kernel>> { composition.build(job) };
    let group = Group {
        job: &job,
        deltas: true,
        scope: composition.scope(),
        make: &make,
    };
    let sink = Collect::new(&job.tensors);
    let options = Options {
        chunk,
        ..Options::default()
    };
    run(&group, None, &feed, &sink, &options).unwrap();
    sink.into_values()
}

/// One tensor `[n]`.
fn merged(merge: &str, inputs: &[&[f32]]) -> Vec<f32> {
    let all: Vec<Tensors> = inputs.iter().map(|x| vec![x.to_vec()]).collect();
    merged_in(merge, &[&[inputs[0].len()]], &all, 0, 0).remove(0)
}

/// Values without equal magnitudes, `[expert][tensor][element]`.
fn random(shapes: &[&[usize]], experts: usize) -> Vec<Tensors> {
    (0..experts as u64)
        .map(|e| {
            shapes
                .iter()
                .enumerate()
                .map(|(t, shape)| {
                    let s = Stream::new(5, "data", e * 100 + t as u64);
                    let n: usize = shape.iter().product();
                    (0..n as u64).map(|i| s.normal(i)).collect()
                })
                .collect()
        })
        .collect()
}

const TRIM: &str = "[[merge.pre]]\nstep = \"sparsify\"\nscope = \"model\"\n";
const ELECT: &str = "[[merge.pre]]\nstep = \"elect_sign\"\n";

#[test]
fn elected_signs_by_hand() {
    // Sums 3, -1, 0, -1: more negative than positive ones, so the undecided third entry is negative.
    let got = merged(
        &format!("method = \"task_arithmetic\"\n{ELECT}"),
        &[&[1.0, -2.0, 3.0, 0.0], &[2.0, 1.0, -3.0, -1.0]],
    );
    assert_eq!(got, [3.0, -2.0, -3.0, -1.0]);
}

#[test]
fn trimmed_and_elected_by_hand() {
    // The example of `ties_reference`, which keeps one entry more than its density says.
    let got = merged(
        &format!("method = \"task_arithmetic\"\n{TRIM}density = 0.6\n{ELECT}"),
        &[&[5.0, -4.0, 3.0, 1.0, 0.5], &[1.0, 4.0, -6.0, 2.0, 3.0]],
    );
    assert_eq!(got, [5.0, 4.0, -6.0, 0.0, 3.0]);
}

#[test]
fn steps_are_those_of_ties_reference() {
    let shapes: &[&[usize]] = &[&[7, 11], &[3], &[120]];
    let inputs = random(shapes, 3);
    // d = 200: the reference keeps int(0.2 d) + 1 = 41 entries of each task vector.
    let steps = format!("method = \"task_arithmetic\"\n{TRIM}density = 0.2075\n{ELECT}");
    let reference = "method = \"ties_reference\"\n[merge.shared]\ndensity = 0.2\nreduce = \"sum\"\nlambda = 1.0\n";
    let run = |text: &str| merged_in(text, shapes, &inputs, 0, 0);
    let (got, want) = (run(&steps), run(reference));
    assert_eq!(got, want);
    assert!(got.iter().flatten().filter(|x| **x != 0.0).count() >= 41);
    let inside = "method = \"magnitude_mask\"\non = { method = \"task_arithmetic\", pre = [\
        {step = \"sparsify\", density = 0.2075, scope = \"model\"}, {step = \"elect_sign\"}] }\n\
        [merge.shared]\ndensity = 1.0\ntask = \"0\"\n";
    assert_eq!(run(inside), want, "inside `on`");
}

#[test]
fn random_dropping_is_dare() {
    let shapes: &[&[usize]] = &[&[37, 613], &[8195]];
    let inputs = random(shapes, 2);
    let step = |density: f64, method: &str| {
        format!(
            "method = \"{method}\"\n[[merge.pre]]\nstep = \"sparsify\"\nrule = \"bernoulli\"\n\
             density = {density}\nrescale = \"inverse\"\n"
        )
    };
    let dare = "method = \"dare_linear\"\n[merge.shared]\nrescale = \"inverse\"\n[merge.each]\ndensity = 0.3\n";
    let run = |text: &str| merged_in(text, shapes, &inputs, 9, 0);
    assert_eq!(run(&step(0.3, "task_arithmetic")), run(dare));
    // Two draws in a row are two draws: a quarter survives, not a half.
    let twice = format!("{}[merge.each]\ndensity = 0.5\n", step(0.5, "dare_linear"));
    let one = [inputs[0].clone()];
    let got = merged_in(&twice, shapes, &one, 9, 0);
    let kept = got.iter().flatten().filter(|x| **x != 0.0).count() as f64;
    let share = kept / got.iter().flatten().count() as f64;
    assert!((share - 0.25).abs() < 0.01, "{share}");
}

#[test]
fn outliers_and_the_norm_by_hand() {
    // n = 10: the two largest go, then the three smallest; 55 / (4 + 5 + 6 + 7 + 8).
    let values: Vec<f32> = (1..=10).map(|i| i as f32).collect();
    let got = merged(
        "method = \"task_arithmetic\"\n[[merge.pre]]\nstep = \"sparsify\"\nrule = \"outliers\"\ndensity = 0.5\n\
         gamma = 0.2\nrescale = \"l1\"\n",
        &[&values],
    );
    let want: Vec<f32> = values
        .iter()
        .map(|x| {
            if (4.0..=8.0).contains(x) {
                x * (55.0f32 / 30.0)
            } else {
                0.0
            }
        })
        .collect();
    assert_eq!(got, want);
}

#[test]
fn leading_directions_by_hand() {
    let text = |more: &str| {
        format!(
            "method = \"task_arithmetic\"\n[[merge.pre]]\nstep = \"sparsify\"\nrule = \"svd\"\ndensity = 0.5\n{more}"
        )
    };
    let shapes: &[&[usize]] = &[&[2, 3], &[2]];
    // Singular values 3 and 1 of orthogonal rows; the vector is no matrix.
    let input = [vec![vec![0.0, -3.0, 0.0, 1.0, 0.0, 0.0], vec![0.5, 4.0]]];
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    let got = merged_in(&text(""), shapes, &input, 0, 0);
    assert!(close(&got[0], &[0.0, -3.0, 0.0, 0.0, 0.0, 0.0]), "{got:?}");
    assert_eq!(got[1], [0.5, 4.0]);
    let got = merged_in(&text("rescale = \"l1\"\n"), shapes, &input, 0, 0);
    assert!(close(&got[0], &[0.0, -4.0, 0.0, 0.0, 0.0, 0.0]), "{got:?}");
}

#[test]
fn a_method_by_tensor_stays_one_inside_the_whole_model() {
    let shapes: &[&[usize]] = &[&[9, 13], &[40]];
    let inputs = random(shapes, 2);
    let ties = "method = \"ties\"\n[merge.each]\ndensity = 0.3\n";
    let alone = merged_in(ties, shapes, &inputs, 0, 0);
    let lines = format!("{ties}[[merge.post]]\nstep = \"lines\"\nbeta = 0.0\n");
    let scaled = merged_in(&lines, shapes, &inputs, 0, 0);
    // `alpha = "auto"` is one number for the whole model.
    let at = alone[0].iter().position(|x| *x != 0.0).unwrap();
    let alpha = scaled[0][at] / alone[0][at];
    for (a, b) in alone.iter().flatten().zip(scaled.iter().flatten()) {
        assert!((a * alpha - b).abs() <= 1e-5 * a.abs(), "{a} {b} {alpha}");
    }
}

#[test]
fn bytes_do_not_depend_on_chunks_or_threads() {
    let shapes: &[&[usize]] = &[&[37, 613], &[73_195], &[3, 70, 5, 2], &[1], &[]];
    let inputs = random(shapes, 3);
    let sparsify =
        |text: &str| format!("[[merge.pre]]\nstep = \"sparsify\"\ndensity = 0.4\n{text}");
    let lines = "[[merge.post]]\nstep = \"lines\"\nbeta = 0.5\n";
    let mut ran = 0;
    for method in [
        "task_arithmetic",
        "ties",
        "della",
        "breadcrumbs_reference",
        "consensus",
        "ties_reference",
    ] {
        for pre in [
            sparsify(""),
            sparsify("scope = \"model\"\nrescale = \"l1\"\n"),
            sparsify("rule = \"outliers\"\nscope = \"model\"\nrescale = \"inverse\"\n"),
            sparsify("rule = \"bernoulli\"\nrescale = \"l1\"\n"),
            sparsify("rule = \"magprune\"\nrescale = \"l1\"\n"),
            sparsify("rule = \"magprune\"\n") + ELECT,
            sparsify("rule = \"svd\"\n") + &sparsify("rescale = \"l1\"\n"),
            ELECT.to_owned() + lines,
            sparsify("rule = \"magprune\"\nrescale = \"l1\"\n") + lines,
        ] {
            let text = format!("method = \"{method}\"\n{pre}");
            let bits = |threads: usize, chunk: usize| -> Vec<Vec<u32>> {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let got = pool.install(|| merged_in(&text, shapes, &inputs, 3, chunk));
                got.iter()
                    .map(|t| t.iter().map(|x| x.to_bits()).collect())
                    .collect()
            };
            let whole = bits(1, 1 << 20);
            assert!(whole.iter().flatten().any(|b| *b != 0), "{text}");
            for (threads, chunk) in [(1, 4096), (2, 3 * 4096), (3, 0)] {
                assert!(
                    bits(threads, chunk) == whole,
                    "{text}: {threads} threads, chunk {chunk}"
                );
            }
            ran += 1;
        }
    }
    assert_eq!(ran, 54);
}

#[test]
fn what_a_rule_does_not_know_is_refused() {
    let refused = |merge: &str| composed(merge, 2).map(|_| ()).unwrap_err().to_string();
    let step = |text: &str| {
        format!("method = \"task_arithmetic\"\n[[merge.pre]]\nstep = \"sparsify\"\n{text}")
    };
    for (text, want) in [
        (
            "density = 0.5\ngamma = 0.1\n",
            "`gamma` belongs to rule `outliers`, not to `magnitude`",
        ),
        (
            "density = 0.5\nrule = \"svd\"\nepsilon = 0.1\n",
            "`epsilon` belongs to rule `magprune`",
        ),
        (
            "density = 0.5\nrule = \"bernoulli\"\nscope = \"model\"\n",
            "does not count over the model",
        ),
        (
            "density = 0.5\nrule = \"svd\"\nrescale = \"inverse\"\n",
            "keeps directions",
        ),
        ("density = 0.1\nrule = \"magprune\"\n", "keep probabilities"),
        ("rule = \"svd\"\n", "`density` is missing"),
        ("density = 0.5\nrul = \"svd\"\n", "unknown parameter `rul`"),
    ] {
        let error = refused(&step(text));
        assert!(error.contains(want), "{error}");
    }
    let error = refused(&format!("method = \"linear\"\n{ELECT}"));
    assert!(
        error.contains("step `elect_sign` acts on task vectors"),
        "{error}"
    );
}
