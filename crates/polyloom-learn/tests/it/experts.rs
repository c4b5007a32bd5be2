//! Bases whose feed-forward parts become experts: every family says what it said.

use std::path::Path;

use polyloom_learn::engine::{Value, slice, tensor};
use polyloom_learn::models::Source;
use polyloom_learn::tasks::Opened;
use polyloom_learn::train::Recipe;

use super::case::Case;

/// One vector for each input of a case.
fn vectors(opened: &Opened, case: &Case) -> Vec<f32> {
    let model = &opened.model;
    let found = match model.pictures() {
        Some(_) => {
            let (pixels, shape) = case.numbers("pixels").unwrap();
            let pixels = Value::constant(tensor(pixels, shape).unwrap());
            model.look(&model.weights, &pixels)
        }
        None => model.embed(&model.weights, &case.batch()),
    };
    slice(found.unwrap().data()).unwrap().to_vec()
}

#[test]
fn copies_say_what_the_base_says() {
    for family in ["bert", "roberta", "distilbert", "mpnet", "vit"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        let folder = root.join(family);
        let begin = |moe: &str| {
            let text = format!("[train]\ntasks = [\"any\"]\n[base]\npath = {folder:?}\n{moe}");
            Opened::begin(&Recipe::read(&text, "test", &[]).unwrap(), &[]).unwrap()
        };
        let case = Case::open(&folder);
        let before = vectors(&begin(""), &case);
        for moe in ["last = 1\ntop_k = 2", "every = 1\ntop_p = 0.6"] {
            let mixed = begin(&format!(
                "[train.moe]\nexperts = 3\ngate = \"shared\"\n{moe}"
            ));
            let model = &mixed.model;
            assert!(model.experts().is_some() && mixed.config["moe"]["inner"].is_number());
            let after = vectors(&mixed, &case);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 2e-5;
            assert!(before.iter().zip(&after).all(near), "{family} {moe}");
            // What is written is what there is: experts, and no feed-forward part that they took the place of.
            let floats = mixed.stored.iter().filter(|s| s.1.is_float());
            let mut count = 0;
            for (name, _, shape) in floats {
                let found = model.weights.tensor(name).unwrap();
                assert_eq!(found.dims(), shape, "{name}");
                count += 1;
            }
            assert_eq!(count, model.weights.iter().count(), "{family} {moe}");
        }
    }
}
