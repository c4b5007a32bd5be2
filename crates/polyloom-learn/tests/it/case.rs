//! The tiny models of tests/models with what `transformers` says of them (bench/model_vectors.py made both).

use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;
use polyloom_learn::engine::{Tensor, Value, slice, tensor};
use polyloom_learn::models::bert::Bert;
use polyloom_learn::models::clip::Clip;
use polyloom_learn::models::decoder::Decoder;
use polyloom_learn::models::open::Model;
use polyloom_learn::models::t5::T5;
use polyloom_learn::models::vit::Vit;
use polyloom_learn::models::{Batch, Plain, Source, mean_weights};
use polyloom_learn::tasks::fit::own_head;
use polyloom_learn::tasks::head::{Feature, Head};
use polyloom_learn::{Result, ops};

pub struct Case {
    pub folder: PathBuf,
    /// In place of the configuration of the folder.
    pub changed: Option<serde_json::Value>,
    weights: Checkpoint,
    io: Checkpoint,
}

pub enum Trunk {
    Bert(Bert),
    Vit(Vit),
    Decoder(Box<Decoder>),
    T5(T5),
    Clip(Clip),
    /// With a head of classes, opened as `run` opens it.
    Classes(Box<(Model, Head)>),
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

impl Case {
    pub fn open(folder: &Path) -> Self {
        let io = Checkpoint::open(folder.join("io.safetensors")).unwrap();
        Self {
            folder: folder.to_owned(),
            changed: None,
            weights: Checkpoint::open(folder.join("model.safetensors")).unwrap(),
            io,
        }
    }

    pub fn name(&self) -> String {
        self.folder
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }

    pub fn config<T: serde::de::DeserializeOwned>(&self) -> T {
        let read = || std::fs::read(self.folder.join("config.json")).unwrap();
        match &self.changed {
            Some(config) => serde_json::from_value(config.clone()).unwrap(),
            None => serde_json::from_slice(&read()).unwrap(),
        }
    }

    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let read = |(name, stored): (&String, &polyloom_core::StoredTensor)| {
            (
                name.clone(),
                tensor(self.weights.read_all(stored).unwrap(), stored.shape.clone()).unwrap(),
            )
        };
        self.weights.tensors().iter().map(read).collect()
    }

    pub fn model(&self) -> Trunk {
        match self.name().as_str() {
            name if name.ends_with("-classes") => {
                let weights = Plain::new(self.tensors());
                let model = Model::of(&self.folder, &self.config(), weights).unwrap();
                assert_eq!(model.classes, ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]);
                let head = own_head(&model, &self.config()).unwrap().unwrap();
                Trunk::Classes(Box::new((model, head)))
            }
            "vit" => Trunk::Vit(Vit::new(self.config(), "").unwrap()),
            "clip" => Trunk::Clip(Clip::new(self.config()).unwrap()),
            "t5" | "t5v1_1" => Trunk::T5(T5::new(self.config()).unwrap()),
            "bert" | "roberta" | "xlm-roberta" | "distilbert" | "mpnet" => {
                Trunk::Bert(Bert::new(self.config(), "").unwrap())
            }
            _ => Trunk::Decoder(Box::new(Decoder::new(self.config(), "model.").unwrap())),
        }
    }

    pub fn numbers(&self, name: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let stored = self.io.get(name)?;
        Some((self.io.read_all(stored).unwrap(), stored.shape.clone()))
    }

    pub fn whole(&self, name: &str) -> Option<Vec<u32>> {
        let stored = self.io.get(name)?;
        let mut bytes = vec![0; stored.elements() * 4];
        self.io
            .read_bytes(stored, 0..bytes.len() as u64, &mut bytes)
            .unwrap();
        Some(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b))
                .collect(),
        )
    }

    pub fn batch(&self) -> Batch {
        let ids = self.whole("ids").unwrap();
        let present = self
            .whole("mask")
            .unwrap()
            .iter()
            .map(|m| *m == 1)
            .collect();
        Batch {
            length: ids.len() / 3,
            sequences: 3,
            ids,
            present,
            types: self.whole("types").unwrap_or_default(),
            goals: Vec::new(),
        }
    }
}

impl Trunk {
    /// What the vectors hold: hidden states, of decoders logits.
    pub fn output(&self, case: &Case, weights: &dyn Source) -> Result<Value> {
        match self {
            Self::Bert(model) => model.forward(weights, &case.batch()),
            Self::Vit(model) => {
                let (pixels, shape) = case.numbers("pixels").unwrap();
                model.forward(weights, &Value::constant(tensor(pixels, shape)?))
            }
            Self::Classes(both) => {
                let (model, head) = &**both;
                let features = if model.pictures().is_some() {
                    let (pixels, shape) = case.numbers("pixels").unwrap();
                    model.look(weights, &Value::constant(tensor(pixels, shape)?))?
                } else {
                    let hidden = model.hidden(weights, &case.batch())?;
                    let first = ops::narrow(&hidden, 1, 0, 1)?;
                    let first = ops::reshape(&first, &[3, model.width()])?;
                    match head.feature {
                        Feature::Pooled => model.pool(weights, &first)?,
                        _ => first,
                    }
                };
                head.forward(&Named(weights, head), &features)
            }
            Self::T5(model) => {
                let batch = case.batch();
                let ids = case.whole("targets").unwrap();
                let targets = Batch {
                    present: vec![true; ids.len()],
                    types: Vec::new(),
                    sequences: 3,
                    length: ids.len() / 3,
                    ids,
                    goals: Vec::new(),
                };
                let encoded = model.encode(weights, &batch)?;
                model.decode(weights, &encoded, batch.hidden()?.as_ref(), &targets, None)
            }
            Self::Clip(model) => {
                let (pixels, shape) = case.numbers("pixels").unwrap();
                let images = model.images(weights, &Value::constant(tensor(pixels, shape)?))?;
                model.scores(weights, &images, &model.texts(weights, &case.batch())?)
            }
            Self::Decoder(model) => {
                model.logits(weights, &model.forward(weights, &case.batch(), None)?)
            }
        }
    }

    /// A smooth number of all that is present in the output.
    pub fn smooth(&self, case: &Case, weights: &dyn Source) -> Value {
        let out = self.output(case, weights).unwrap();
        let out = if let Self::Bert(_) = self {
            ops::pool(&out, &mean_weights(&case.batch()).unwrap()).unwrap()
        } else {
            out
        };
        let n = out.data().elem_count();
        let mix = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        let mix = Value::constant(tensor(mix, out.dims()).unwrap());
        ops::mean(&ops::mul(&ops::mul(&out, &out).unwrap(), &mix).unwrap()).unwrap()
    }
}

pub fn cases() -> Vec<Case> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .collect();
    folders.sort();
    folders.iter().map(|f| Case::open(f)).collect()
}

pub fn values(t: &Tensor) -> Vec<f32> {
    slice(&t.contiguous().unwrap()).unwrap().to_vec()
}

/// A model's own classifier, its layers under the names of the checkpoint.
struct Named<'a>(&'a dyn Source, &'a Head);

impl Source for Named<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        let stored: &[&str] = match self.1.layers.len() {
            1 => &["classifier"],
            _ if self.0.find("classifier.dense.weight")?.is_some() => {
                &["classifier.dense", "classifier.out_proj"]
            }
            _ => &["pre_classifier", "classifier"],
        };
        for (i, stored) in stored.iter().enumerate() {
            if let Some(part) = name.strip_prefix(&self.1.layer(i)) {
                return self.0.find(&format!("{stored}{part}"));
            }
        }
        self.0.find(name)
    }
}
