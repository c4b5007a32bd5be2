//! Vocabularies: which row of which input becomes which row of the output, by token string.
//!
//! Works on `tokenizer.json` as JSON; no tokenizer library is involved. The rules are those of mergekit's tokenizer
//! option, with one difference: the peer numbers the new tokens of a union in an order that changes between runs,
//! here they follow the base's by input order and id.

mod plan;
mod source;

pub use plan::{Input, Row, VocabPlan, plan};
pub use source::{Token, Vocab};

/// Last parts of the names of tensors whose first axis is the vocabulary.
const SUFFIXES: &[&str] = &[
    // Input embeddings.
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "shared.weight",
    // Output heads.
    "lm_head.weight",
    "lm_head.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "embed_out.weight",
    "output.weight",
    "final_logits_bias",
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "generator_lm_head.weight",
    "generator_lm_head.bias",
    "vocab_projector.weight",
    "vocab_projector.bias",
    "mlm_head.decoder.weight",
    "mlm_head.decoder.bias",
    "mlm_head.bias",
];

/// Whole names that would be too common as suffixes.
const WHOLE: &[&str] = &["decoder.weight", "decoder.bias", "head.weight"];

/// Whether axis 0 of this tensor is the vocabulary: an input embedding or output head of a common architecture with
/// exactly `rows` rows. `rows` is the row count of the same model's input embedding.
///
/// ```
/// use polyloom::vocab::is_vocab_tensor;
/// assert!(is_vocab_tensor("model.embed_tokens.weight", &[32, 8], 32));
/// assert!(is_vocab_tensor("lm_head.bias", &[32], 32));
/// assert!(!is_vocab_tensor("model.norm.weight", &[32], 32));
/// assert!(!is_vocab_tensor("lm_head.weight", &[2, 8], 32));
/// ```
pub fn is_vocab_tensor(name: &str, shape: &[usize], rows: usize) -> bool {
    shape.first() == Some(&rows)
        && (WHOLE.contains(&name)
            || SUFFIXES.iter().any(|suffix| {
                name.strip_suffix(suffix)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }))
}

/// Whether this tensor is an input embedding over tokens, the one whose row count is the model's vocabulary size.
pub fn is_input_embedding(name: &str) -> bool {
    SUFFIXES[..6].iter().any(|suffix| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}
