//! Texts to tokens and back, by the tokenizer of a model's folder.

use std::path::Path;
use std::str::FromStr;

use tokenizers::{EncodeInput, Tokenizer, TruncationParams};

use crate::error::{Error, Result};
use crate::models::{Batch, Tokens};

/// The token between texts of tokenizers that are made here, and of many others.
pub const END: &str = "<|endoftext|>";

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
        let tokenizer =
            Tokenizer::from_file(&file).map_err(|e| bad(format!("is no tokenizer: {e}")))?;
        Self::of(tokenizer, most)
            .map_err(|e| bad(format!("cannot cut texts to {most} tokens: {e}")))
    }

    /// Of what a `tokenizer.json` holds.
    ///
    /// # Errors
    /// Text that is no tokenizer.
    pub fn read(json: &str, most: usize) -> Result<Self> {
        let bad = |what: String| Error::shape("tokenizer", what);
        let tokenizer = Tokenizer::from_str(json).map_err(|e| bad(e.to_string()))?;
        Self::of(tokenizer, most).map_err(|e| bad(e.to_string()))
    }

    fn of(mut tokenizer: Tokenizer, most: usize) -> tokenizers::Result<Self> {
        tokenizer.with_padding(None);
        let cut = TruncationParams {
            max_length: most,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(cut))?;
        let first = |names: &[&str]| names.iter().find_map(|n| tokenizer.token_to_id(n));
        let pad = first(&["[PAD]", "<pad>", END, "</s>"]).unwrap_or(0);
        let ends = [
            "</s>",
            END,
            "<|im_end|>",
            "<eos>",
            "<end_of_turn>",
            "<|end_of_text|>",
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

    /// Entries of the vocabulary, special ones counted.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The token that fills.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Tokens that end a text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// An entry of the vocabulary as the tokenizer writes it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
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

    /// Tokens of a text that goes on: those that only end one are left out.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn beginning(&self, text: &str) -> Result<Vec<u32>> {
        let mut found = self.encode(&[(text, None)])?;
        let mut ids = found.pop().map(|t| t.ids).unwrap_or_default();
        while ids.len() > 1 && ids.last().is_some_and(|t| self.ends.contains(t)) {
            ids.pop();
        }
        Ok(ids)
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
