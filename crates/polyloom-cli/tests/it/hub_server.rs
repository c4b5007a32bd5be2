//! A Hugging Face hub in miniature: one listener for the hub, one for its store of large files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The commit of every model.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `hub` or `store`.
    pub at: &'static str,
    /// `GET /path`.
    pub line: String,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// What a model does besides serving its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Plain,
    /// Descriptions without sizes: they must be asked for.
    Terse,
    /// Needs the token `hf_good`.
    Gated,
    /// Promises other hashes than it serves.
    Wrong,
    /// Ends large files after a third, but for ranges.
    Cuts,
    /// Ends large files after a third and knows no ranges.
    CutsAlways,
    /// Lists names that lead outside.
    Hostile,
}

struct Model {
    habit: Habit,
    files: BTreeMap<String, Vec<u8>>,
}

/// The running hub.
pub struct Hub {
    /// `HF_ENDPOINT`.
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Hub {
    /// Serves folders under `org/name` until the process ends.
    pub fn start(models: &[(&str, &Path, Habit)]) -> Self {
        let models: BTreeMap<String, Model> = models
            .iter()
            .map(|(id, folder, habit)| {
                let files = std::fs::read_dir(folder)
                    .unwrap()
                    .map(|e| e.unwrap())
                    .map(|e| {
                        let name = e.file_name().into_string().unwrap();
                        (name, std::fs::read(e.path()).unwrap())
                    })
                    .collect();
                let habit = *habit;
                ((*id).to_owned(), Model { habit, files })
            })
            .collect();
        let models = Arc::new(models);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", hub.local_addr().unwrap());
        let beside = format!("http://{}", store.local_addr().unwrap());
        for (at, listener) in [("hub", hub), ("store", store)] {
            let (models, seen, beside) = (models.clone(), seen.clone(), beside.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = answer(stream.unwrap(), at, &models, &beside, &seen);
                }
            });
        }
        Self { endpoint, seen }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, bytes).unwrap();
    polyloom_core::hash::sha256_file(&path).unwrap()
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn answer(
    stream: TcpStream,
    at: &'static str,
    models: &BTreeMap<String, Model>,
    beside: &str,
    seen: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let mut words = line.split_whitespace();
    let (verb, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    seen.lock().unwrap().push(Seen {
        at,
        line: format!("{verb} {target}"),
        headers: headers.clone(),
    });
    let mut out = reader.into_inner();
    let mut say = |status: &str, extra: &str, body: &[u8], upto: usize| -> std::io::Result<()> {
        write!(
            out,
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{extra}\r\n",
            body.len()
        )?;
        if verb != "HEAD" {
            out.write_all(&body[..upto.min(body.len())])?;
        }
        out.flush()
    };
    let path = target.split('?').next().unwrap();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        ["api", "models", org, name, "revision", _] => models.get(&format!("{org}/{name}")),
        [org, name, ..] => models.get(&format!("{org}/{name}")),
        _ => None,
    };
    let Some(model) = found else {
        return say(
            "401 Unauthorized",
            "x-error-code: RepoNotFound\r\n",
            b"{}",
            9,
        );
    };
    let promise = |content: &[u8]| {
        if model.habit == Habit::Wrong {
            "0".repeat(64)
        } else {
            hex(content)
        }
    };
    if parts[0] == "api" {
        if !["main", "v1", COMMIT].contains(&parts[5]) {
            return say(
                "404 Not Found",
                "x-error-code: RevisionNotFound\r\n",
                b"{}",
                9,
            );
        }
        let mut siblings: Vec<serde_json::Value> = Vec::new();
        for (name, content) in &model.files {
            let mut entry = serde_json::json!({"rfilename": name});
            if model.habit != Habit::Terse {
                entry["size"] = content.len().into();
                entry["blobId"] = hex(content)[..40].into();
                if is_large(name) {
                    entry["lfs"] =
                        serde_json::json!({"sha256": promise(content), "size": content.len()});
                }
            }
            siblings.push(entry);
        }
        if model.habit == Habit::Hostile {
            for name in [
                "../../../../escaped.json",
                "/escaped.json",
                "a\\escaped.json",
            ] {
                siblings.push(
                    serde_json::json!({"rfilename": name, "size": 2, "blobId": "f".repeat(40)}),
                );
            }
        }
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return say("200 OK", "", body.as_bytes(), usize::MAX);
    }
    let name = *parts.last().unwrap();
    let Some(content) = model.files.get(name) else {
        return say("404 Not Found", "x-error-code: EntryNotFound\r\n", b"", 0);
    };
    if at == "hub" {
        let good = headers
            .get("authorization")
            .is_some_and(|a| a == "Bearer hf_good");
        if model.habit == Habit::Gated && !good {
            return say("403 Forbidden", "x-error-code: GatedRepo\r\n", b"", 0);
        }
        if is_large(name) {
            // As the hub does it: what the file is stands here, its bytes come from elsewhere.
            let extra = format!(
                "location: {beside}{path}?Signature=s\r\nx-linked-etag: \"{}\"\r\nx-linked-size: {}\r\n",
                promise(content),
                content.len()
            );
            return say("302 Found", &extra, b"", 0);
        }
        let extra = format!("etag: \"{}\"\r\n", &hex(content)[..40]);
        return say("200 OK", &extra, content, usize::MAX);
    }
    let start = headers
        .get("range")
        .and_then(|r| {
            r.strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        })
        .filter(|_| model.habit != Habit::CutsAlways);
    match start {
        Some(start) => {
            let extra = format!(
                "content-range: bytes {start}-{}/{}\r\n",
                content.len() - 1,
                content.len()
            );
            say("206 Partial Content", &extra, &content[start..], usize::MAX)
        }
        None if matches!(model.habit, Habit::Cuts | Habit::CutsAlways) => {
            say("200 OK", "", content, content.len() / 3)
        }
        None => say("200 OK", "", content, usize::MAX),
    }
}
