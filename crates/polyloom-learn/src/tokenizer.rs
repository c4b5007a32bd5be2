//! Tokenizers made from texts.

use std::collections::HashSet;

use polyloom::MergeError;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::error::{Error, Result};
use crate::text::END;

/// The smallest vocabulary: every byte, and the token between texts.
pub const LEAST: usize = 257;

/// A tokenizer as its files hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`: classes and special tokens, as `transformers` reads them.
    pub config: String,
}

/// Byte pairs (Sennrich et al. 2016) over bytes, as GPT-2 has them: merges of the most frequent neighbours within words,
/// until the vocabulary has `size` entries or no pair stands twice. Entry 0 is `<|endoftext|>`, which stands between texts,
/// fills and ends. Unlike GPT-2's the words are in Unicode's form C. Every text can be written; nothing is random.
///
/// # Errors
/// A size below [`LEAST`].
pub fn byte_pairs(texts: &[String], size: usize) -> Result<Made> {
    if size < LEAST {
        let what = format!(
            "a vocabulary of {size}; byte pairs need at least {LEAST}: every byte and `{END}`"
        );
        return Err(MergeError::plan("bad-recipe", what)
            .hint("`train.new.vocab_size` is its size")
            .into());
    }
    let bad = |e: tokenizers::Error| Error::shape("tokenizer", e.to_string());
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(2)
        .special_tokens(vec![AddedToken::from(END.to_owned(), true)])
        .initial_alphabet(alphabet)
        .build();
    let words = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(words))
        .with_post_processor(Some(words.trim_offsets(false)))
        .with_decoder(Some(words))
        .build()
        .map_err(bad)?;
    tokenizer
        .train(&mut trainer, texts.iter().map(String::as_str))
        .map_err(bad)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": false,
    });
    Ok(Made {
        tokenizer: tokenizer.to_string(true).map_err(bad)?,
        config: format!("{config:#}\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    #[test]
    fn every_text_comes_back_and_the_same_texts_give_the_same_bytes() {
        let texts: Vec<String> = (0..40)
            .map(|i| format!("the cat sat on mat {i}; the dog did not"))
            .collect();
        let made = byte_pairs(&texts, 275).unwrap();
        assert_eq!(made, byte_pairs(&texts, 275).unwrap());
        let text = Text::read(&made.tokenizer, usize::MAX).unwrap();
        assert_eq!((text.pad(), text.ends(), text.size()), (0, &[0][..], 275));
        for whole in ["the cat sat", "Größe: 東京\n\t🐈", " x  y ", ""] {
            let ids = text.encode(&[(whole, None)]).unwrap().remove(0).ids;
            assert_eq!(text.text(&ids).unwrap(), whole);
        }
        let more = byte_pairs(&texts, 300).unwrap();
        let text = Text::read(&more.tokenizer, usize::MAX).unwrap();
        let known = text.encode(&[("the cat", None)]).unwrap().remove(0).ids;
        assert_eq!(known.len(), 2, "{known:?}");
        // A text of few words has no more pairs.
        let few = byte_pairs(&["ab ab".to_owned()], 4000).unwrap();
        assert!(Text::read(&few.tokenizer, 8).unwrap().size() < 270);
        assert!(byte_pairs(&texts, 256).is_err());
    }
}
