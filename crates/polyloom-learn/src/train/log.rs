//! What a run tells: JSON lines, and the same numbers as TensorBoard reads them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Result;

/// Name of the log in a folder.
pub const LOG: &str = "train.jsonl";
/// Name of TensorBoard's file, which looks for `tfevents`.
pub const EVENTS: &str = "events.out.tfevents.polyloom";

/// Both files, open.
pub struct Log {
    lines: (File, PathBuf),
    events: (File, PathBuf),
}

impl Log {
    /// Opens the files of a folder for the steps up to `done`; later lines of a run that was interrupted are dropped.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn open(folder: &Path, done: u64) -> Result<Self> {
        Self::keeping(folder, |line| {
            line["step"].as_u64().is_some_and(|s| s <= done)
        })
    }

    /// Opens the files of a folder; of an earlier run's lines those stay that `keep` says.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn keeping(folder: &Path, keep: impl Fn(&Value) -> bool) -> Result<Self> {
        let (lines, events) = (folder.join(LOG), folder.join(EVENTS));
        let io = |path: &Path, what| {
            let path = path.to_owned();
            move |e| polyloom_core::Error::io(&path, what, e)
        };
        let mut kept = Vec::new();
        if lines.exists() {
            let text = std::fs::read_to_string(&lines).map_err(io(&lines, "read"))?;
            kept = text
                .lines()
                .filter_map(|l| serde_json::from_str::<Value>(l).ok())
                .filter(keep)
                .collect();
        }
        let create = |path: &Path| File::create(path).map_err(io(path, "create"));
        let mut log = Self {
            lines: (create(&lines)?, lines.clone()),
            events: (create(&events)?, events.clone()),
        };
        let head = record(&event(0.0, 0, Content::Version("brain.Event:2")));
        log.events
            .0
            .write_all(&head)
            .map_err(io(&events, "write"))?;
        for line in kept {
            log.line(&line)?;
        }
        Ok(log)
    }

    /// One line; its numbers by name go to TensorBoard, those inside of an object as `object/name`.
    ///
    /// # Errors
    /// A full disk.
    pub fn line(&mut self, line: &Value) -> Result<()> {
        let write = |(file, path): &mut (File, PathBuf), bytes: &[u8]| {
            file.write_all(bytes)
                .map_err(|e| polyloom_core::Error::io(&*path, "write", e))
        };
        write(&mut self.lines, format!("{line}\n").as_bytes())?;
        let (step, time) = (
            line["step"].as_i64().unwrap_or(0),
            line["time"].as_f64().unwrap_or(0.0),
        );
        let kind = line["type"].as_str().unwrap_or("");
        let mut bytes = Vec::new();
        let mut put = |name: &str, x: &Value| {
            if let Some(x) = x.as_f64() {
                let tag = format!("{kind}/{name}");
                bytes.extend(record(&event(time, step, Content::Scalar(&tag, x as f32))));
            }
        };
        for (name, value) in line.as_object().into_iter().flatten() {
            match value {
                Value::Object(inner) => inner
                    .iter()
                    .for_each(|(n, x)| put(&format!("{name}/{n}"), x)),
                _ if ["step", "time", "seconds"].contains(&name.as_str()) => {}
                x => put(name, x),
            }
        }
        write(&mut self.events, &bytes)?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Content<'a> {
    Version(&'a str),
    Scalar(&'a str, f32),
}

/// The protocol buffer `tensorflow.Event`: wall_time = 1, step = 2, file_version = 3, summary = 5.
fn event(time: f64, step: i64, content: Content<'_>) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend(time.to_le_bytes());
    out.push(0x10);
    varint(&mut out, step as u64);
    match content {
        Content::Version(text) => bytes(&mut out, 3, text.as_bytes()),
        Content::Scalar(tag, x) => {
            // Summary { value = 1: Value { tag = 1, simple_value = 2 } }
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            value.push(0x15);
            value.extend(x.to_le_bytes());
            let mut summary = Vec::new();
            bytes(&mut summary, 1, &value);
            bytes(&mut out, 5, &summary);
        }
    }
    out
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

/// A record of TensorFlow's file format: length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: a few hundred bytes a step.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn checksums_and_records() {
        // RFC 3720, B.4, and the usual check word.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        let made = event(1.0, 300, Content::Scalar("a", 0.5));
        let by_hand = [
            0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F, 0x10, 0xAC, 0x02, 0x2A, 0x0A, 0x0A, 0x08, 0x0A,
            0x01, b'a', 0x15, 0, 0, 0, 0x3F,
        ];
        assert_eq!(made, by_hand);
        assert_eq!(record(&made).len(), made.len() + 16);
    }

    #[test]
    fn a_run_that_goes_on_drops_what_came_after_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let line =
            |step: u64| json!({"type": "step", "step": step, "loss": 0.5, "losses": {"a": 1.0}});
        let mut log = Log::open(dir.path(), 0).unwrap();
        (1..=5).for_each(|i| log.line(&line(i)).unwrap());
        drop(log);
        let whole = std::fs::read(dir.path().join(EVENTS)).unwrap();
        let mut log = Log::open(dir.path(), 3).unwrap();
        (4..=5).for_each(|i| log.line(&line(i)).unwrap());
        drop(log);
        let text = std::fs::read_to_string(dir.path().join(LOG)).unwrap();
        assert_eq!(text.lines().count(), 5);
        assert_eq!(std::fs::read(dir.path().join(EVENTS)).unwrap(), whole);
    }
}
