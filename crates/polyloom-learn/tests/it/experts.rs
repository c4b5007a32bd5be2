//! Bases whose feed-forward parts become experts: every family says what it said.

use std::path::Path;

use polyloom_learn::engine::{Value, slice, tensor};
use polyloom_learn::models::decoder::Cache;
use polyloom_learn::models::open::Trunk;
use polyloom_learn::models::{Batch, Source};
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
        None if matches!(model.trunk, Trunk::Decoder(_)) => {
            model.hidden(&model.weights, &case.batch())
        }
        None => model.embed(&model.weights, &case.batch()),
    };
    slice(found.unwrap().data()).unwrap().to_vec()
}

#[test]
fn copies_say_what_the_base_says() {
    for family in [
        "bert",
        "roberta",
        "distilbert",
        "mpnet",
        "vit",
        "llama",
        "qwen2",
        "qwen3",
        "gemma2",
    ] {
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

/// A decoder with experts says the same of a text token by token as at once, whatever stands beside it.
#[test]
fn a_decoder_with_experts_goes_on_where_it_was() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let text = format!(
        "seed = 4\n[train]\ntasks = [\"any\"]\n[base]\npath = {:?}\n[train.moe]\nexperts = 4\nevery = 1\ntop_p = 0.4",
        root.join("llama")
    );
    let opened = Opened::begin(&Recipe::read(&text, "test", &[]).unwrap(), &[]).unwrap();
    let model = &opened.model;
    let Trunk::Decoder(decoder) = &model.trunk else {
        panic!("a decoder")
    };
    let ids = [3u32, 9, 4, 7, 5];
    let say = |batch: &Batch, cache: Option<&mut Cache>| {
        let found = decoder.forward(&model.weights, batch, cache).unwrap();
        slice(found.data()).unwrap().to_vec()
    };
    let whole = say(&Batch::padded(&[&ids[..]], 0).unwrap(), None);
    let beside = say(
        &Batch::padded(&[&ids[..], &[8, 2, 6, 1, 3, 9, 2]], 0).unwrap(),
        None,
    );
    let mut cache = Cache::default();
    let mut apart = Vec::new();
    for id in ids {
        apart.extend(say(&Batch::padded(&[[id]], 0).unwrap(), Some(&mut cache)));
    }
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 2e-5;
    assert!(whole.iter().zip(&apart).all(near) && whole.iter().zip(&beside).all(near));
}
