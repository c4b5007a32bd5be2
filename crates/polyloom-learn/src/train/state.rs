//! Checkpoints of a run: everything that the next step depends on, in one safetensors file that appears whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use polyloom_core::{Checkpoint, DType, dtype};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use super::balanced::Kept;
use crate::error::{Error, Result};

/// Name of the checkpoint in a folder.
pub const STATE: &str = "checkpoint.safetensors";

/// What is not a tensor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// What the run is about: base, tasks, shapes. A checkpoint of another run is refused.
    pub fingerprint: String,
    /// Steps done.
    pub step: u32,
    /// Rows drawn in all.
    pub drawn: u64,
    /// Rows drawn of each task.
    pub of_task: Vec<u64>,
    /// Rows drawn of each task when the stage began that the run is in.
    pub begun: Vec<u64>,
    /// Step and score of the best evaluation.
    pub best: Option<(u32, f64)>,
    /// Evaluations since.
    pub since: u32,
    /// Whether a step was evaluated already.
    pub evaluated: Option<u32>,
    /// What a balancer of tasks remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Kept>,
    /// Steps of every task, where each has its own moments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<u32>,
    /// Steps of a risk learner that chooses tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<u32>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// What is not a tensor.
    pub facts: Facts,
    /// Weights side by side.
    pub weights: Vec<f32>,
    /// The optimiser's moments.
    pub moments: Vec<Vec<f32>>,
    /// Weights of the best evaluation, where they are not those of this step.
    pub best: Option<Vec<f32>>,
    /// Vectors of a balancer of tasks.
    pub balance: Vec<Vec<f32>>,
    /// Numbers of a risk learner; none where there is none.
    pub risk: Vec<f32>,
}

impl State {
    /// Writes the checkpoint of a folder in place of the last one: to a file beside it, synced, renamed.
    ///
    /// # Errors
    /// A full disk.
    pub fn write(
        folder: &Path,
        facts: &Facts,
        weights: &[f32],
        moments: &[Vec<f32>],
        best: Option<&[f32]>,
        balance: &[Vec<f32>],
        risk: &[f32],
    ) -> Result<()> {
        let mut tensors: Vec<(String, &[f32])> = vec![("weights".to_owned(), weights)];
        let of_moments = moments.iter().enumerate();
        tensors.extend(of_moments.map(|(i, m)| (format!("moments.{i}"), &m[..])));
        tensors.extend(best.map(|b| ("best".to_owned(), b)));
        let of_balance = balance.iter().enumerate().filter(|(_, b)| !b.is_empty());
        tensors.extend(of_balance.map(|(i, b)| (format!("balance.{i}"), &b[..])));
        tensors.extend((!risk.is_empty()).then(|| ("risk".to_owned(), risk)));
        put(folder, facts, &tensors)
    }

    /// The checkpoint of a folder; `None` where there is none.
    ///
    /// # Errors
    /// A file that is no checkpoint.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let Some(held) = Held::<Facts>::open(folder)? else {
            return Ok(None);
        };
        let read = |name: &str| held.tensor(name);
        let mut moments = Vec::new();
        while let Some(next) = read(&format!("moments.{}", moments.len()))? {
            moments.push(next);
        }
        let mut balance = Vec::new();
        for (i, length) in held.facts.balance.iter().flat_map(|b| &b.rows).enumerate() {
            let row = read(&format!("balance.{i}"))?.unwrap_or_default();
            if row.len() != *length {
                return Err(held.bad());
            }
            balance.push(row);
        }
        Ok(Some(Self {
            weights: read("weights")?.ok_or_else(|| held.bad())?,
            best: read("best")?,
            risk: read("risk")?.unwrap_or_default(),
            facts: held.facts,
            balance,
            moments,
        }))
    }
}

/// Writes the checkpoint of a folder in place of the last one: to a file beside it, synced, renamed. Facts are JSON in the
/// header of a safetensors file of f32.
///
/// # Errors
/// A full disk.
pub(crate) fn put(
    folder: &Path,
    facts: &impl Serialize,
    tensors: &[(String, &[f32])],
) -> Result<()> {
    let facts = serde_json::to_string(facts)
        .map_err(|e| Error::file(folder, format!("facts of the checkpoint: {e}")))?;
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({"polyloom": facts}));
    let mut at = 0u64;
    for (name, values) in tensors {
        let end = at + 4 * values.len() as u64;
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": [values.len()], "data_offsets": [at, end]}),
        );
        at = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let (part, whole) = (folder.join(format!("{STATE}.part")), folder.join(STATE));
    let io = |e| polyloom_core::Error::io(&part, "write", e);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(io)?);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(header.as_bytes()))
        .map_err(io)?;
    let mut bytes = vec![0u8; 1 << 18];
    for (_, values) in tensors {
        for chunk in values.chunks(1 << 16) {
            let out = &mut bytes[..4 * chunk.len()];
            dtype::narrow(chunk, DType::F32, out);
            file.write_all(out).map_err(io)?;
        }
    }
    let file = file.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&part, &whole).map_err(io)?;
    Ok(())
}

/// A checkpoint on disk.
pub(crate) struct Held<F> {
    /// What is not a tensor.
    pub facts: F,
    file: PathBuf,
    checkpoint: Checkpoint,
}

impl<F: DeserializeOwned> Held<F> {
    /// That of a folder; `None` where there is none.
    ///
    /// # Errors
    /// A file that is no checkpoint, or one of another kind of run.
    pub(crate) fn open(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(STATE);
        if !file.exists() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::open(&file)?;
        let facts = checkpoint.metadata().get("polyloom");
        let facts = facts.and_then(|text| serde_json::from_str(text).ok());
        Ok(Some(Self {
            facts: facts.ok_or_else(|| bad(&file))?,
            file,
            checkpoint,
        }))
    }
}

impl<F> Held<F> {
    /// A tensor, if it has one of this name.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let stored = self.checkpoint.get(name);
        Ok(stored.map(|s| self.checkpoint.read_all(s)).transpose()?)
    }

    /// That the file is not what it should be.
    pub(crate) fn bad(&self) -> Error {
        bad(&self.file)
    }
}

fn bad(file: &Path) -> Error {
    Error::file(file, "is no checkpoint of such a run").hint("--force begins the run again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_to_the_bit_and_rubbish_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), None);
        let weights: Vec<f32> = (0..100_000).map(|i| (i as f32).sin()).collect();
        let facts = Facts {
            fingerprint: "x \"y\"".into(),
            step: 7,
            drawn: 9,
            of_task: vec![4, 5],
            begun: vec![1, 0],
            best: Some((3, 0.5)),
            since: 1,
            evaluated: Some(6),
            balance: Some(Kept {
                state: crate::balance::State::of([("steps", vec![0.1])]),
                counts: crate::balance::Counts::default(),
                rows: vec![3, 0],
            }),
            turns: vec![3, 4],
            risk: Some(7),
        };
        let moments = vec![weights.clone(), vec![1.5; 100_000]];
        let kept = [vec![1.0, 2.0, 3.0], Vec::new()];
        State::write(
            dir.path(),
            &facts,
            &weights,
            &moments,
            Some(&weights),
            &kept,
            &[0.25],
        )
        .unwrap();
        let read = State::read(dir.path()).unwrap().unwrap();
        assert_eq!(
            (&read.facts, &read.weights, &read.moments),
            (&facts, &weights, &moments)
        );
        assert_eq!(read.best.as_ref(), Some(&weights));
        assert_eq!((read.balance, read.risk), (kept.to_vec(), vec![0.25]));
        std::fs::write(dir.path().join(STATE), b"rubbish").unwrap();
        assert!(State::read(dir.path()).is_err());
    }
}
