//! Gradients of embeddings by rows, in whole models.

use polyloom_learn::engine::Parameters;
use polyloom_learn::models::{Plain, Trained};

use super::case::{Case, folder};

#[test]
fn rows_of_a_model_are_those_of_its_tokens() {
    for (name, words, tied) in [
        ("bert", "embeddings.word_embeddings.weight", false),
        ("llama", "model.embed_tokens.weight", false),
        ("qwen2", "model.embed_tokens.weight", true),
    ] {
        let case = Case::open(&folder().join(name));
        let parameters = Parameters::new(case.tensors()).unwrap();
        let nothing = Plain::default();
        let weights = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: None,
        };
        let loss = case.model().smooth(&case, &weights);
        let mut whole = parameters.gradients().unwrap();
        loss.backward_into(&mut whole).unwrap();
        let expected = parameters.gathered(&whole).unwrap().to_vec();
        let mut rows = parameters.gradients_by_rows().unwrap();
        loss.backward_into(&mut rows).unwrap();
        // Only tables are kept by rows, and those alone that no output layer shares.
        let mut ids = case.batch().ids;
        ids.sort_unstable();
        ids.dedup();
        for p in parameters.iter() {
            let kept = rows.rows(&p.value);
            let table = p.name.contains("embed") && p.value.dims().len() == 2;
            assert_eq!(kept.is_some(), table && !tied, "{name}: {}", p.name);
            if p.name == words && !tied {
                assert_eq!(kept.unwrap().rows, ids, "{name}");
            }
        }
        let found = parameters.gathered(&rows).unwrap();
        assert!(*found == expected[..], "{name}: other bits");
    }
}
