//! What is decided for the whole merge before any tensor: architectures and vocabularies.

use std::collections::BTreeSet;

use super::{Builder, is_vocab};
use crate::error::MergeError;
use crate::plan::weights::Opened;
use crate::vocab;

impl Builder {
    /// Models of different architectures are merged only if the user says so.
    pub(super) fn architectures(&mut self) {
        let kind = |m: &Opened| m.config()?.get("model_type")?.as_str().map(str::to_owned);
        let kinds: Vec<(usize, String)> = self
            .models
            .iter()
            .enumerate()
            .filter_map(|(i, m)| Some((i, kind(m)?)))
            .collect();
        let Some((first, expected)) = kinds.first().cloned() else {
            return;
        };
        for (i, found) in kinds {
            if found == expected {
                continue;
            }
            let text = format!(
                "is a `{found}` model, {} is a `{expected}` model",
                self.models[first].path.display()
            );
            let place = self.models[i].path.display().to_string();
            if self.recipe.allow_mixed {
                self.note(
                    true,
                    format!("{place}: {text}; tensors are matched by name (--allow-crimes)"),
                );
            } else {
                self.fail(
                    MergeError::plan("mixed-architectures", text)
                        .at(place)
                        .hint("--allow-crimes merges tensors of equal name and shape all the same"),
                );
            }
        }
    }

    /// Rows of the vocabulary, where the recipe has tokenizer rules or truncation.
    pub(super) fn vocabulary(&mut self) {
        let rows_of = |m: &Opened| {
            m.tensors
                .iter()
                .find(|(n, e)| e.shape.len() == 2 && is_vocab(n, &e.shape))
                .map(|(_, e)| e.shape[0])
        };
        if self.recipe.truncate_embeddings {
            let rows: BTreeSet<usize> = self.models.iter().filter_map(rows_of).collect();
            if rows.len() > 1
                && let Some(least) = rows.first()
            {
                self.truncated = Some(*least);
                self.note(
                    true,
                    format!("vocabulary tensors are cut to {least} rows without looking at tokens: rows may not mean the same in all models"),
                );
            }
        }
        if let Some(spec) = self.recipe.tokenizer.clone() {
            let mut inputs = Vec::new();
            for model in &self.models {
                let folder = model.folder();
                match vocab::Vocab::read(folder) {
                    Ok(vocab) => inputs.push(vocab::Input {
                        name: model.model.name.clone(),
                        folder: folder.display().to_string(),
                        vocab,
                        rows: rows_of(model).unwrap_or(0),
                    }),
                    Err(error) => return self.fail(error),
                }
            }
            match vocab::plan(&inputs, self.recipe.base, &spec) {
                Ok(plan) => {
                    for warning in &plan.warnings {
                        self.note(true, warning.clone());
                    }
                    self.vocabulary = Some(plan);
                }
                Err(error) => self.fail(error),
            }
        }
    }
}
