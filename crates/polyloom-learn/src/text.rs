//! Texts to tokens and back, by the tokenizer of a model's folder.

use std::path::Path;

use tokenizers::{EncodeInput, Tokenizer, TruncationParams};

use crate::error::{Error, Result};
use crate::models::{Batch, Tokens};

/// The tokenizer of a model.
pub struct Text {
    tokenizer: Tokenizer,
    pad: u32,
    ends: Vec<u32>,
}

impl Text {
    /// Of a folder with a `tokenizer.json`. Texts are cut to `most` tokens, special ones counted.
    ///
    /// # Errors
    /// No such file, one that is no tokenizer.
    pub fn open(folder: &Path, most: usize) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        let bad = |what: String| Error::file(&file, what);
        if !file.exists() {
            return Err(bad("is not there".into()).hint("a model that reads text brings its tokenizer; save it beside the weights (tokenizer.save_pretrained)"));
        }
        let mut tokenizer =
            Tokenizer::from_file(&file).map_err(|e| bad(format!("is no tokenizer: {e}")))?;
        tokenizer.with_padding(None);
        let cut = TruncationParams {
            max_length: most,
            ..TruncationParams::default()
        };
        tokenizer
            .with_truncation(Some(cut))
            .map_err(|e| bad(format!("cannot cut texts to {most} tokens: {e}")))?;
        let first = |names: &[&str]| names.iter().find_map(|n| tokenizer.token_to_id(n));
        let pad = first(&["[PAD]", "<pad>", "<|endoftext|>", "</s>"]).unwrap_or(0);
        let ends = [
            "</s>",
            "<|endoftext|>",
            "<|im_end|>",
            "<eos>",
            "<end_of_turn>",
            "<|eot_id|>",
        ];
        let ends = ends
            .iter()
            .filter_map(|n| tokenizer.token_to_id(n))
            .collect();
        Ok(Self {
            tokenizer,
            pad,
            ends,
        })
    }

    /// The token that fills.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Tokens that end a text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Tokens of texts, or of pairs of texts.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn encode(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Tokens>> {
        let inputs: Vec<EncodeInput<'_>> = texts
            .iter()
            .map(|(a, b)| match b {
                Some(b) => EncodeInput::Dual((*a).into(), (*b).into()),
                None => EncodeInput::Single((*a).into()),
            })
            .collect();
        let found = self
            .tokenizer
            .encode_batch(inputs, true)
            .map_err(|e| Error::shape("tokenizer", e.to_string()))?;
        let one = |e: tokenizers::Encoding| Tokens {
            ids: e.get_ids().to_vec(),
            types: e.get_type_ids().to_vec(),
        };
        Ok(found.into_iter().map(one).collect())
    }

    /// A batch of texts, or of pairs of texts, filled up on the right.
    ///
    /// # Errors
    /// What the tokenizer refuses, no texts.
    pub fn batch(&self, texts: &[(&str, Option<&str>)]) -> Result<Batch> {
        let tokens = self.encode(texts)?;
        Batch::of(&tokens.iter().collect::<Vec<_>>(), self.pad)
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|e| Error::shape("tokenizer", e.to_string()))
    }
}
