//! Parts as files: `parts/<expert>.safetensors`, and back with every shape checked.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType, StoredTensor, dtype};

use super::blend::Parts;
use super::part::{LowRank, Part};
use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::Source;

/// Numbers and their type, as a file holds them.
pub(super) fn stored(
    name: String,
    values: &[f32],
    shape: &[usize],
    dtype: DType,
    place: &Path,
) -> Result<(OutTensor, Vec<u8>)> {
    let out = OutTensor {
        name,
        dtype,
        shape: shape.to_vec(),
    };
    let mut bytes = vec![0u8; out.bytes() as usize];
    let over = dtype::narrow(values, dtype, &mut bytes);
    if over > 0 {
        let what = format!("{over} values are too large for {dtype}");
        let error = polyloom_core::Error::tensor(place, &out.name, what);
        return Err(error
            .with_hint("write them as f32: `dtype = \"f32\"`")
            .into());
    }
    Ok((out, bytes))
}

/// The bytes of named tensors, by name.
pub(super) fn tensors(
    all: &BTreeMap<String, Tensor>,
    dtype: DType,
    place: &Path,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (name, t) in all {
        out.push(stored(name.clone(), &slice(t)?, t.dims(), dtype, place)?);
    }
    Ok(safetensors_bytes(&out, &BTreeMap::new()))
}

/// The bytes of an expert's parts. A part is `<tensor>` (all of it), `<tensor>#u`, `#s`, `#v` (factors), or `<tensor>#mask`
/// and `#values` (some entries).
pub(super) fn parts(parts: &Parts, dtype: DType, place: &Path) -> Result<Vec<u8>> {
    let names: BTreeMap<&String, &Part> = parts.iter().collect();
    let mut out = Vec::new();
    for (name, part) in names {
        match part {
            Part::Whole(t) => out.push(stored(name.clone(), &slice(t)?, t.dims(), dtype, place)?),
            Part::LowRank(f) => {
                for (end, t) in [("u", &f.u), ("v", &f.v)] {
                    let key = format!("{name}#{end}");
                    out.push(stored(key, &slice(t)?, t.dims(), dtype, place)?);
                }
                let key = format!("{name}#s");
                out.push(stored(key, &f.s, &[f.s.len()], DType::F32, place)?);
            }
            Part::Sparse { mask, values, .. } => {
                let bits = OutTensor {
                    name: format!("{name}#mask"),
                    dtype: DType::U8,
                    shape: vec![mask.len()],
                };
                out.push((bits, mask.clone()));
                let key = format!("{name}#values");
                out.push(stored(key, values, &[values.len()], dtype, place)?);
            }
        }
    }
    Ok(safetensors_bytes(&out, &BTreeMap::new()))
}

/// A file of tensors of fractions.
pub(super) struct Held {
    file: Checkpoint,
}

impl Held {
    pub(super) fn open(file: &Path) -> Result<Self> {
        if !file.is_file() {
            return Err(
                Error::file(file, "is not there, and woven.json counts on it")
                    .hint("the folder was copied incompletely"),
            );
        }
        Ok(Self {
            file: Checkpoint::open(file)?,
        })
    }

    fn bad(&self, name: &str, what: String) -> Error {
        polyloom_core::Error::tensor(self.file.origin(), name, what).into()
    }

    fn get(&self, name: &str) -> Result<&StoredTensor> {
        let found = self.file.get(name);
        found.ok_or_else(|| self.bad(name, "is not there".into()))
    }

    /// A tensor of fractions, all of them finite.
    fn read(&self, stored: &StoredTensor) -> Result<Tensor> {
        if !stored.dtype.is_float() {
            let what = format!("is of {}, not of fractions", stored.dtype);
            return Err(self.bad(&stored.name, what));
        }
        let values = self.file.read_all(stored)?;
        if let Some(i) = values.iter().position(|x| !x.is_finite()) {
            return Err(self.bad(&stored.name, format!("number {i} is {}", values[i])));
        }
        tensor(values, stored.shape.clone())
    }

    /// A tensor of a shape.
    pub(super) fn shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.get(name)?;
        if stored.shape != shape {
            let what = format!("is {:?}, and {shape:?} was expected", stored.shape);
            return Err(self.bad(name, what));
        }
        self.read(stored)
    }

    /// Names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.file.tensors().keys()
    }

    /// All tensors, each of the shape that `source` has under its name.
    pub(super) fn like(&self, source: &dyn Source) -> Result<Vec<(String, Tensor)>> {
        let mut found = Vec::new();
        for name in self.file.tensors().keys() {
            let shape = self.shape_in(source, name)?;
            found.push((name.clone(), self.shaped(name, &shape)?));
        }
        Ok(found)
    }

    fn shape_in(&self, source: &dyn Source, name: &str) -> Result<Vec<usize>> {
        match source.find(name)? {
            Some(value) => Ok(value.dims().to_vec()),
            None => Err(self.bad(name, "has no counterpart in the base".into())),
        }
    }

    /// All parts, each for a tensor of `base`.
    pub(super) fn parts(&self, base: &dyn Source) -> Result<Parts> {
        let mut found = HashMap::new();
        for (key, stored) in self.file.tensors() {
            let (name, end) = key.rsplit_once('#').unwrap_or((key, ""));
            let shape = self.shape_in(base, name)?;
            let part = match end {
                "" => Part::Whole(self.shaped(key, &shape)?),
                "u" => {
                    let &[out, width] = &shape[..] else {
                        return Err(self.bad(key, "are factors of what is no matrix".into()));
                    };
                    let &[_, rank] = &stored.shape[..] else {
                        return Err(self.bad(key, format!("is {:?}, no matrix", stored.shape)));
                    };
                    if rank == 0 || rank > out.min(width) {
                        let what = format!("has rank {rank} for a matrix of {shape:?}");
                        return Err(self.bad(key, what));
                    }
                    let s = self.shaped(&format!("{name}#s"), &[rank])?;
                    let s = slice(&s)?.to_vec();
                    let v = self.shaped(&format!("{name}#v"), &[rank, width])?;
                    Part::LowRank(LowRank::new(self.shaped(key, &[out, rank])?, s, v)?)
                }
                "mask" => self.sparse(key, name, stored, shape)?,
                "s" | "v" => {
                    self.get(&format!("{name}#u"))?;
                    continue;
                }
                "values" => {
                    self.get(&format!("{name}#mask"))?;
                    continue;
                }
                other => return Err(self.bad(key, format!("`#{other}` is no kind of part"))),
            };
            if found.insert(name.to_owned(), part).is_some() {
                return Err(self.bad(name, "has two parts".into()));
            }
        }
        Ok(found)
    }

    fn sparse(
        &self,
        key: &str,
        name: &str,
        stored: &StoredTensor,
        shape: Vec<usize>,
    ) -> Result<Part> {
        let n: usize = shape.iter().product();
        if stored.dtype != DType::U8 || stored.shape != [n.div_ceil(8)] {
            let what = format!(
                "is {} {:?}; a mask of {n} entries is U8 [{}]",
                stored.dtype,
                stored.shape,
                n.div_ceil(8)
            );
            return Err(self.bad(key, what));
        }
        let mut mask = vec![0u8; n.div_ceil(8)];
        self.file
            .read_bytes(stored, 0..mask.len() as u64, &mut mask)?;
        let last = n % 8;
        if last != 0 && mask.last().is_some_and(|b| b >> last != 0) {
            return Err(self.bad(key, "marks entries beyond the last".into()));
        }
        let ones: usize = mask.iter().map(|b| b.count_ones() as usize).sum();
        let values = self.shaped(&format!("{name}#values"), &[ones])?;
        let values = slice(&values)?.to_vec();
        Ok(Part::Sparse {
            shape,
            mask,
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Plain;
    use crate::weave::part::Compression;
    use polyloom_core::rng::Stream;

    #[test]
    fn parts_come_back_as_they_were() {
        let numbers: Vec<f32> = (0..24).map(|i| Stream::new(1, "n", 0).normal(i)).collect();
        let t = |shape: &[usize]| tensor(numbers.clone(), shape).unwrap();
        let base = Plain::new([
            ("a.weight".to_owned(), t(&[6, 4])),
            ("b.weight".to_owned(), t(&[4, 6])),
            ("c".to_owned(), t(&[2, 3, 4])),
        ]);
        let made = |t: &Tensor, how, density| {
            Part::compress(t, how, density, Stream::new(2, "d", 0))
                .unwrap()
                .unwrap()
        };
        let all: Parts = HashMap::from([
            (
                "a.weight".to_owned(),
                made(&t(&[6, 4]), Compression::Svd, 0.25),
            ),
            (
                "b.weight".to_owned(),
                made(&t(&[4, 6]), Compression::Magnitude, 0.3),
            ),
            ("c".to_owned(), made(&t(&[2, 3, 4]), Compression::Svd, 0.25)),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.safetensors");
        let write = |bytes: &[u8]| std::fs::write(&file, bytes).unwrap();
        let bytes = parts(&all, DType::F32, &file).unwrap();
        write(&bytes);
        let back = Held::open(&file).unwrap().parts(&base).unwrap();
        assert_eq!(back.len(), 3);
        for (name, part) in &all {
            let (a, b) = (part.dense().unwrap(), back[name].dense().unwrap());
            assert_eq!(*slice(&a).unwrap(), *slice(&b).unwrap(), "{name}");
        }
        // What does not fit the base, or is cut off, is told with its name.
        let told = |base: &Plain| {
            let held = Held::open(&file).unwrap();
            held.parts(base).unwrap_err().to_string()
        };
        let other = Plain::new([("a.weight".to_owned(), t(&[4, 6]))]);
        assert!(told(&other).contains("a.weight") || told(&other).contains("no counterpart"));
        let nan: Parts = HashMap::from([(
            "c".to_owned(),
            Part::Whole(tensor(vec![f32::NAN; 24], (2, 3, 4)).unwrap()),
        )]);
        write(&parts(&nan, DType::F32, &file).unwrap());
        assert!(told(&base).contains("number 0 is NaN"), "{}", told(&base));
        for cut in [0, 7, 8, 40, bytes.len() - 1] {
            write(&bytes[..cut]);
            let found = Held::open(&file).and_then(|h| h.parts(&base));
            assert!(found.is_err(), "cut at {cut}");
        }
        let bad = |name: &str, dtype: DType, shape: Vec<usize>| {
            let out = OutTensor {
                name: name.into(),
                dtype,
                shape,
            };
            let n = out.bytes() as usize;
            write(&safetensors_bytes(&[(out, vec![255; n])], &BTreeMap::new()));
            told(&base)
        };
        assert!(bad("a.weight#u", DType::F32, vec![6, 5]).contains("rank 5"));
        assert!(bad("a.weight#v", DType::F32, vec![1, 4]).contains("a.weight#u"));
        assert!(bad("a.weight#odd", DType::F32, vec![1]).contains("no kind of part"));
        assert!(bad("c#mask", DType::U8, vec![3]).contains("c#values"));
        assert!(bad("c#mask", DType::U8, vec![4]).contains("mask of 24 entries"));
    }
}
