//! A model of texts that makes vectors of a table's columns of running text.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Bytes of vectors that are kept at most; texts beyond them are encoded anew.
const KEPT: usize = 1 << 30;

/// While one of these lives, encoders stay open and vectors that were made are known: the models of folds and of trials meet the
/// same texts again and again. The vectors are those that would be made anew, to the bit.
pub(crate) struct Keeping(());

/// Encoders that are open, by the fingerprint of their weights.
type Open = Vec<(String, Arc<Texts>)>;

/// How many [`Keeping`] live, and what is open.
static OPEN: Mutex<(usize, Open)> = Mutex::new((0, Vec::new()));

/// A lock whose holder may have panicked: what it guards is whole after every step.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeping {
    pub(crate) fn begin() -> Self {
        locked(&OPEN).0 += 1;
        Self(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let mut open = locked(&OPEN);
        open.0 -= 1;
        if open.0 == 0 {
            open.1.clear();
        }
    }
}

/// The encoder of these weights: the one that is open, else that which `make` opens.
fn shared(fingerprint: &str, make: impl FnOnce() -> Result<Texts>) -> Result<Arc<Texts>> {
    let own = |open: &Open| {
        let found = open.iter().find(|(of, _)| of == fingerprint);
        found.map(|(_, texts)| texts.clone())
    };
    if let Some(found) = own(&locked(&OPEN).1) {
        return Ok(found);
    }
    let made = Arc::new(make()?);
    let mut open = locked(&OPEN);
    if open.0 > 0 {
        // Another thread may have opened it meanwhile.
        if let Some(found) = own(&open.1) {
            return Ok(found);
        }
        *locked(&made.known) = Some(Known::default());
        open.1.push((fingerprint.to_owned(), made.clone()));
    }
    Ok(made)
}

/// Vectors that were made.
#[derive(Default)]
struct Known {
    of: HashMap<String, Arc<[f32]>>,
    bytes: usize,
}

/// A model, and how it reads texts.
struct Texts {
    model: Model,
    reader: Reader,
    width: usize,
    /// `None` where nothing is kept.
    known: Mutex<Option<Known>>,
}

impl Texts {
    fn open(reference: &str) -> Result<Self> {
        Self::of(Opened::open(reference)?)
    }

    fn of(opened: Opened) -> Result<Self> {
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
            known: Mutex::new(None),
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
        let held = |text: &&str| {
            let known = locked(&self.known);
            known.as_ref().and_then(|k| k.of.get(*text).cloned())
        };
        let found: Vec<Option<Arc<[f32]>>> = own.iter().map(held).collect();
        let make = |(text, found): (&&str, &Option<Arc<[f32]>>)| match found {
            Some(found) => Ok(found.clone()),
            None => Ok(self.vector(text)?.into()),
        };
        let made: Vec<Result<Arc<[f32]>>> = own.par_iter().zip(&found).map(make).collect();
        let made: Vec<Arc<[f32]>> = made.into_iter().collect::<Result<_>>()?;
        if let Some(known) = locked(&self.known).as_mut() {
            for ((text, found), vector) in own.iter().zip(&found).zip(&made) {
                let bytes = text.len() + 4 * vector.len();
                if found.is_none() && known.bytes + bytes <= KEPT {
                    known.bytes += bytes;
                    known.of.insert((*text).to_owned(), vector.clone());
                }
            }
        }
        Ok(of
            .iter()
            .flat_map(|place| made[*place].iter())
            .copied()
            .collect())
    }
}

/// The encoder of a reference, for a model that is to be learned.
///
/// # Errors
/// No model of texts, files that cannot be read.
pub(super) fn of(reference: &str) -> Result<Encoder> {
    let opened = Opened::open(reference)?;
    let folder = opened.model.folder.clone();
    let fingerprint = fingerprint(&folder, None)?;
    let place = whole_path(&folder.display().to_string());
    let open = shared(&fingerprint, || Texts::of(opened))?;
    Ok(Encoder::new(place, fingerprint, open))
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
    let open = shared(&encoder.fingerprint, || Texts::open(&encoder.model))?;
    if open.width != encoder.width {
        return Err(Error::file(
            &folder.join(TABLE),
            format!(
                "says {} numbers of a vector; `{}` makes {}",
                encoder.width, encoder.model, open.width
            ),
        ));
    }
    encoder.set(open);
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
        // While it is kept: one encoder, whose vectors are the same when they are known already.
        let kept = Keeping::begin();
        let first = of(&shared("all-MiniLM-L6-v2")).unwrap();
        let again = of(&shared("all-MiniLM-L6-v2")).unwrap();
        let open = || {
            locked(&OPEN)
                .1
                .iter()
                .map(|(_, t)| t.clone())
                .collect::<Vec<_>>()
        };
        let [texts] = &open()[..] else {
            panic!("one encoder is open")
        };
        assert_eq!(first, again);
        for known in [0, 1] {
            let found = locked(&texts.known).as_ref().map(|k| k.of.len());
            assert_eq!(found, Some(known));
            assert!(texts.vectors(&["a warm soup"]).unwrap() == alone);
        }
        drop(kept);
        assert!(open().is_empty());
        let vision = shared("vision-eight/base");
        assert!(Texts::open(&vision).is_err());
    }
}
