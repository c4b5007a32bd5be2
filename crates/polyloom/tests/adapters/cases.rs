//! Reading a case: its tensors, its plain values and its tolerance.

use std::path::PathBuf;

use polyloom_core::Checkpoint;
use serde_json::Value;

pub(crate) struct Golden {
    pub(crate) cases: Vec<Case>,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) canonical: Value,
    pub(crate) json: Value,
    pub(crate) folder: PathBuf,
    pub(crate) file: Option<Checkpoint>,
    pub(crate) atol: f64,
    pub(crate) rtol: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Golden {
    /// `None` (with a message) where no vectors lie beside the checkout.
    pub(crate) fn open(area: &str) -> Option<Self> {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let roots = [
            std::env::var_os("POLYLOOM_GOLDEN").map(PathBuf::from),
            Some(here.join("../shared/golden")),
            Some(here.join("tests/golden")),
        ];
        let folder = roots
            .into_iter()
            .flatten()
            .map(|r| r.join(area))
            .find(|r| r.join("manifest.json").exists());
        let Some(folder) = folder else {
            println!("golden {area}: 0 ran, no vectors found");
            return None;
        };
        let text = std::fs::read(folder.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&text).unwrap();
        let cases = manifest["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|json| Case {
                name: json["name"].as_str().unwrap().to_owned(),
                method: json["method"].as_str().unwrap().to_owned(),
                params: json["params"].clone(),
                canonical: json["canonical"].clone(),
                folder: folder.clone(),
                file: json["file"]
                    .as_str()
                    .map(|f| Checkpoint::open(folder.join(f)).unwrap()),
                atol: json["tolerance"]["atol"].as_f64().unwrap_or(0.0),
                rtol: json["tolerance"]["rtol"].as_f64().unwrap_or(0.0),
                json: json.clone(),
            })
            .collect();
        Some(Self { cases })
    }
}

impl Case {
    pub(crate) fn input(&self, name: &str) -> Option<Tensor> {
        self.tensor(&format!("in.{name}"))
    }

    pub(crate) fn expected(&self, name: &str) -> Option<Tensor> {
        self.tensor(&format!("out.{name}"))
    }

    pub(crate) fn value(&self, name: &str) -> &Value {
        &self.json["expected"][name]["value"]
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.params[key].as_f64()
    }

    fn tensor(&self, name: &str) -> Option<Tensor> {
        let file = self.file.as_ref()?;
        let stored = file.get(name)?;
        Some(Tensor {
            shape: stored.shape.clone(),
            values: file.read_all(stored).unwrap(),
        })
    }

    /// `|a - b| <= atol + rtol |b|` everywhere.
    pub(crate) fn close(&self, what: &str, got: &[f32], wanted: &[f32]) {
        assert_eq!(
            got.len(),
            wanted.len(),
            "{}: {what}: number of values",
            self.name
        );
        for (i, (a, b)) in got.iter().zip(wanted).enumerate() {
            let (a, b) = (f64::from(*a), f64::from(*b));
            assert!(
                (a - b).abs() <= self.atol + self.rtol * b.abs(),
                "{}: {what}[{i}]: {a} where {b} is expected",
                self.name
            );
        }
    }

    /// How many values are out of tolerance.
    pub(crate) fn outliers(&self, got: &[f32], wanted: &[f32]) -> usize {
        assert_eq!(got.len(), wanted.len(), "{}: number of values", self.name);
        got.iter()
            .zip(wanted)
            .filter(|(a, b)| {
                let (a, b) = (f64::from(**a), f64::from(**b));
                (a - b).abs() > self.atol + self.rtol * b.abs()
            })
            .count()
    }

    /// Compares with `out.<name>` if the case has it; true if it has.
    pub(crate) fn check(&self, name: &str, got: &[f32]) -> bool {
        let Some(wanted) = self.expected(name) else {
            return false;
        };
        self.close(name, got, &wanted.values);
        true
    }
}

/// `x W^T + b` of a linear layer, in double precision.
pub(crate) fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    let outputs = weight.len() / inputs;
    let mut y = Vec::new();
    for x in x.chunks_exact(inputs) {
        for o in 0..outputs {
            let sum: f64 = x
                .iter()
                .zip(&weight[o * inputs..])
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            y.push((sum + bias.map_or(0.0, |b| f64::from(b[o]))) as f32);
        }
    }
    y
}

pub(crate) fn transpose(m: &[f32], rows: usize) -> Vec<f32> {
    let cols = m.len() / rows;
    (0..m.len())
        .map(|i| m[i % rows * cols + i / rows])
        .collect()
}
