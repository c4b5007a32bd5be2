//! A model of texts that makes vectors of a table's columns of running text.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::family::fingerprint;
use super::forward::features;
use super::rows::{Reader, Shown};
use super::{Feature, Opened};
use crate::engine::slice;
use crate::error::{Error, In, Result};
use crate::models::open::Model;
use crate::table::{Encoder, Encodes, Preparation, TABLE};
use crate::train::write::whole_path;

/// A model, and how it reads texts.
struct Texts {
    model: Model,
    reader: Reader,
    width: usize,
}

impl Texts {
    fn open(reference: &str) -> Result<Self> {
        let opened = Opened::open(reference)?;
        let model = opened.model;
        if model.pictures().is_some() || model.table.is_some() {
            return Err(Error::file(&model.folder, "is no model of texts").hint(
                "prepare.embed (--embed) wants an encoder of texts, such as all-MiniLM-L6-v2",
            ));
        }
        let reader = Reader::of(&model, None)?;
        let mut made = Self {
            model,
            reader,
            width: 0,
        };
        // A first text tells whether it can be run, and how wide its vectors are.
        made.width = made.vector("a")?.len();
        Ok(made)
    }

    /// The vector that the model gives a text, at length 1; a text that is too long for it is cut.
    fn vector(&self, text: &str) -> Result<Vec<f32>> {
        let Reader::Texts(reader) = &self.reader else {
            return Err(Error::shape("embed", "no model of texts"));
        };
        let shown: Vec<Shown> = reader
            .encode(&[(text, None)])?
            .into_iter()
            .map(Shown::One)
            .collect();
        let part = (Feature::Embedding, shown.iter().collect());
        let found = features(&self.model, &self.model.weights, &self.reader, &[part])?;
        let Some(vector) = found.first() else {
            return Err(Error::shape("embed", "no vector"));
        };
        let vector = vector.data().contiguous().during("embed")?;
        Ok(slice(&vector)?.to_vec())
    }
}

impl Encodes for Texts {
    fn width(&self) -> usize {
        self.width
    }

    /// Every text passes on its own: its vector does not depend on what stands beside it in a file, to the bit.
    fn vectors(&self, texts: &[&str]) -> Result<Vec<f32>> {
        let mut places = HashMap::new();
        let mut own: Vec<&str> = Vec::new();
        let of: Vec<usize> = texts
            .iter()
            .map(|text| {
                *places.entry(*text).or_insert_with(|| {
                    own.push(text);
                    own.len() - 1
                })
            })
            .collect();
        let made: Vec<Result<Vec<f32>>> = own.par_iter().map(|text| self.vector(text)).collect();
        let made: Vec<Vec<f32>> = made.into_iter().collect::<Result<_>>()?;
        Ok(of.iter().flat_map(|place| &made[*place]).copied().collect())
    }
}

/// The encoder of a reference, for a model that is to be learned.
///
/// # Errors
/// No model of texts, files that cannot be read.
pub(super) fn of(reference: &str) -> Result<Encoder> {
    let open = Texts::open(reference)?;
    let folder = &open.model.folder;
    let fingerprint = fingerprint(folder, None)?;
    let place = whole_path(&folder.display().to_string());
    Ok(Encoder::new(place, fingerprint, Arc::new(open)))
}

/// Opens the encoder of a preparation, where it has one that is not open.
///
/// # Errors
/// A model that is not where it was, other weights than those that the model of tables learned with.
pub(super) fn open(preparation: &Preparation, folder: &Path) -> Result<()> {
    let Some(encoder) = preparation.encoder().filter(|e| !e.is_open()) else {
        return Ok(());
    };
    let model = Path::new(&encoder.model);
    if !model.exists() {
        return Err(Error::file(
            &folder.join(TABLE),
            format!(
                "reads running text through `{}`, which is not there",
                encoder.model
            ),
        )
        .hint("put the model back, or write where it is into `encoder.model` of the file"));
    }
    if fingerprint(model, None)? != encoder.fingerprint {
        return Err(Error::file(
            &folder.join(TABLE),
            format!(
                "reads running text through `{}`, whose weights have changed",
                encoder.model
            ),
        )
        .hint("put the weights back, or train again"));
    }
    let open = Texts::open(&encoder.model)?;
    if open.width != encoder.width {
        return Err(Error::file(
            &folder.join(TABLE),
            format!(
                "says {} numbers of a vector; `{}` makes {}",
                encoder.width, encoder.model, open.width
            ),
        ));
    }
    encoder.set(Arc::new(open));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(name: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
        root.join(name).display().to_string()
    }

    /// The same vector alone and beside others, of length 1; equal texts pass once.
    #[test]
    fn a_text_has_one_vector() {
        if !Path::new(&shared("all-MiniLM-L6-v2")).exists() {
            return;
        }
        let texts = Texts::open(&shared("all-MiniLM-L6-v2")).unwrap();
        let alone = texts.vectors(&["a warm soup"]).unwrap();
        let all = texts
            .vectors(&[
                "much longer text about nothing at all",
                "a warm soup",
                "a warm soup",
            ])
            .unwrap();
        assert_eq!((alone.len(), all.len()), (texts.width, 3 * texts.width));
        assert!(alone == all[texts.width..2 * texts.width] && alone == all[2 * texts.width..]);
        let square: f64 = alone.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((square - 1.0).abs() < 1e-5, "{square}");
        assert!(texts.vectors(&[]).unwrap().is_empty());
        let vision = shared("vision-eight/base");
        assert!(Texts::open(&vision).is_err());
    }
}
