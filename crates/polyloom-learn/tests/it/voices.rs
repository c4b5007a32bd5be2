//! Decoders whose logits are fused token by token.

use polyloom_learn::engine::{slice, tensor};
use polyloom_learn::models::Plain;
use polyloom_learn::models::decoder::Decoder;
use polyloom_learn::models::fusion::Fusion;
use polyloom_learn::models::generate::{
    Sampling, generate, generate_by, log_likelihoods, log_likelihoods_by,
};
use polyloom_learn::models::voices::{Voice, Voices};

use crate::case::{Case, Trunk, folder};

/// The tiny Llama, and the same with the numbers of one layer changed.
fn models() -> (Decoder, Plain, Plain) {
    let case = Case::open(&folder().join("llama"));
    let Trunk::Decoder(decoder) = case.model() else {
        panic!("llama is a decoder")
    };
    let tensors = case.tensors();
    let changed = tensors.iter().map(|(name, t)| {
        let mut values = slice(t).unwrap().to_vec();
        if name.contains("layers.1.mlp") {
            values.iter_mut().for_each(|x| *x *= -1.5);
        }
        (name.clone(), tensor(values, t.dims()).unwrap())
    });
    let changed = Plain::new(changed.collect::<Vec<_>>());
    (*decoder, Plain::new(tensors), changed)
}

#[test]
fn a_large_model_that_is_the_small_base_speaks_as_the_expert() {
    let (decoder, base, expert) = models();
    let voice = |weights| Voice {
        decoder: &decoder,
        weights,
    };
    let own = |weights: &Plain| {
        let greedy = Sampling::greedy();
        generate(&decoder, weights, &[3, 1, 4], 12, &[], greedy, &mut |_| {
            true
        })
        .unwrap()
    };
    let (before, after) = (own(&base), own(&expert));
    assert_ne!(before, after);
    let fused = |experts: &[Voice<'_>]| {
        let fusion = Fusion::default();
        let voices = Voices::fused(voice(&base), voice(&base), experts, fusion).unwrap();
        let greedy = Sampling::greedy();
        let said = generate_by(&voices, &[3, 1, 4], 12, &[], greedy, &mut |_| true).unwrap();
        let choices = [vec![5, 9], vec![2], vec![7, 7, 7]];
        (
            said,
            log_likelihoods_by(&voices, &[3, 1, 4], &choices).unwrap(),
        )
    };
    let choices = [vec![5, 9], vec![2], vec![7, 7, 7]];
    // The expert in full at every token; with one that learned nothing, nothing changes, wherever it stands.
    let (said, likely) = fused(&[voice(&expert)]);
    assert_eq!(said, after);
    let wanted = log_likelihoods(&decoder, &expert, &[3, 1, 4], &choices).unwrap();
    for ((found, _), (expected, _)) in likely.iter().zip(&wanted) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    assert_eq!(fused(&[voice(&base)]).0, before);
    let fusion = Fusion::default();
    assert!(Voices::fused(voice(&base), voice(&base), &[], fusion).is_err());
}
