//! A case of the manifest with its tensors.

use std::collections::BTreeMap;

use polyloom_core::{Checkpoint, DType};
use serde_json::Value as Json;

/// A case of the manifest.
pub struct Case {
    pub told: Json,
    pub files: BTreeMap<String, Checkpoint>,
}

impl Case {
    pub fn name(&self) -> &str {
        self.told["name"].as_str().unwrap()
    }

    pub fn param(&self, name: &str) -> &Json {
        &self.told["params"][name]
    }

    pub fn number(&self, name: &str) -> f64 {
        self.param(name).as_f64().unwrap()
    }

    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let all = self.param(name).as_array().unwrap();
        all.iter().map(|x| x.as_f64().unwrap()).collect()
    }

    pub fn kind(&self) -> &str {
        self.told["tolerance"]["kind"].as_str().unwrap_or("")
    }

    /// A tensor with its shape; what the manifest calls the key of the case stands before `name`.
    pub fn tensor(&self, file: &str, name: &str) -> (Vec<usize>, Vec<f64>) {
        let key = match (file, self.told["files"]["key"].as_str()) {
            ("expected", Some(key)) => format!("{key}.{name}"),
            _ => name.to_owned(),
        };
        let file = &self.files[file];
        let stored = file
            .get(&key)
            .unwrap_or_else(|| panic!("{}: no {key}", self.name()));
        let mut bytes = vec![0u8; stored.dtype.bytes_of(stored.elements()).unwrap() as usize];
        let range = 0..bytes.len() as u64;
        file.read_bytes(stored, range, &mut bytes).unwrap();
        let eight = |b: &[u8]| -> [u8; 8] { b.try_into().unwrap() };
        let values = match stored.dtype {
            DType::F64 => bytes
                .chunks(8)
                .map(|b| f64::from_le_bytes(eight(b)))
                .collect(),
            DType::I64 => bytes
                .chunks(8)
                .map(|b| i64::from_le_bytes(eight(b)) as f64)
                .collect(),
            DType::F32 => bytes
                .chunks(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect(),
            other => panic!("{key} is of {other}"),
        };
        (stored.shape.clone(), values)
    }

    pub fn expected(&self, name: &str) -> Vec<f64> {
        self.tensor("expected", name).1
    }

    /// Compares with numbers within the case's tolerance.
    pub fn near(&self, what: &str, found: &[f64], expected: &[f64]) {
        let of = |what: &str| self.told["tolerance"][what].as_f64().unwrap();
        let (rtol, atol) = (of("rtol"), of("atol"));
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.name());
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            let name = self.name();
            assert!(
                (a - b).abs() <= atol + rtol * b.abs(),
                "{name}: {what}[{i}] is {a}, expected {b}"
            );
        }
    }

    pub fn same(&self, what: &str, found: &[f64]) {
        self.near(what, found, &self.expected(what));
    }
}
